//! Portals of statements over several shards.

use super::raw::{self, Raw, describe_portal, execute_portal, message, parse, sync, text};
use super::shop;
use crate::support::{APP, PASSWORD};

/// All that a unit is answered with, but for notices and settings.
fn frames(raw: &mut Raw, messages: &[Vec<u8>]) -> Vec<(u8, Vec<u8>)> {
    raw.send(&messages.concat());
    let mut found = Vec::new();
    while let Some((kind, body)) = raw.frame() {
        if !matches!(kind, b'S' | b'N') {
            found.push((kind, body));
        }
        if kind == b'Z' {
            break;
        }
    }
    found
}

/// A Bind without parameters, its columns in these formats.
fn bind_in(portal: &str, formats: &[u16]) -> Vec<u8> {
    let count = u16::try_from(formats.len()).unwrap().to_be_bytes();
    let formats: Vec<u8> = formats.iter().flat_map(|format| format.to_be_bytes()).collect();
    message(b'B', &[&text(portal), &text("s"), &[0, 0, 0, 0], &count, &formats])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_is_described_before_it_is_executed() {
    let (proxy, cluster) = shop();
    let log_in = |port| Raw::log_in(port, &[("user", APP), ("database", "shop")], PASSWORD);
    let work = move || {
        let mut pair = [log_in(proxy.port), log_in(cluster.primary(0).port())];
        let rows = "select user_id, id, body from scraps where id = 6030 order by 1";
        for (sql, formats) in [
            (rows, &[][..]),
            (rows, &[1]),
            (rows, &[0, 1, 0]),
            ("select count(*), max(body) from scraps", &[1]),
            ("select user_id from scraps where user_id = 1691", &[1]),
            ("delete from scraps where user_id = -1", &[]),
        ] {
            let [mut told, mut expected] = [Vec::new(), Vec::new()];
            for (raw, out) in pair.iter_mut().zip([&mut told, &mut expected]) {
                out.extend(frames(raw, &[parse("s", sql), sync()]));
                out.extend(frames(raw, &[raw::query("begin")]));
                out.extend(frames(raw, &[bind_in("p", formats), sync()]));
                out.extend(frames(raw, &[describe_portal("p"), sync()]));
                out.extend(frames(raw, &[bind_in("", formats), describe_portal(""), sync()]));
            }
            assert_eq!(told, expected, "{sql} {formats:?}");
            for raw in &mut pair {
                let kinds: Vec<u8> =
                    frames(raw, &[execute_portal("p", 0), sync()]).into_iter().map(|(kind, _)| kind).collect();
                assert!(!kinds.contains(&b'T') && kinds.ends_with(b"CZ"), "{kinds:?}");
                frames(raw, &[raw::query("rollback")]);
                frames(raw, &[raw::query("deallocate s")]);
            }
        }
    };
    tokio::task::spawn_blocking(work).await.unwrap();
}
