//! Several instances behind one address: a cancel request reaches its client wherever it comes in.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Bench, cluster, direct};
use crate::raw::{self, Raw};
use crate::support::{PASSWORD, Proxy, until};

/// One more instance for the bench's role, with these peers.
fn instance(bench: &Bench, peers: &[u16]) -> Proxy {
    let peers: Vec<String> = peers.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    let (role, port) = (bench.role, cluster().primary(0).port());
    Proxy::start(&format!(
        "[cluster]\npeers = [{}]\n[[databases]]\nname = \"shop\"\nhost = \"127.0.0.1\"\nport = {port}\n\
         [[users]]\nname = \"{role}\"\nauth = \"trust\"\nserver_password = \"{PASSWORD}\"\n",
        peers.join(", ")
    ))
}

/// The proxy takes these peers from now on.
fn meet(proxy: &Proxy, peers: &[u16]) {
    let peers: Vec<String> = peers.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    let text = std::fs::read_to_string(&proxy.config).unwrap();
    let text = text.replacen("peers = []", &format!("peers = [{}]", peers.join(", ")), 1);
    std::fs::write(&proxy.config, text).unwrap();
    proxy.signal(Signal::SIGHUP);
}

fn running(role: &str) -> String {
    direct(&format!(
        "select count(*) from pg_stat_activity where usename = '{role}' and query like 'select pg_sleep%' and state = 'active'"
    ))
}

#[test]
fn a_cancel_request_finds_its_client_at_another_instance() {
    let bench = Bench::start("behind_one_address", "");
    let one = instance(&bench, &[]);
    let other = instance(&bench, &[one.port]);
    // Each knows both, itself too: as one configuration for all does.
    meet(&one, &[one.port, other.port]);
    let who = [("user", bench.role), ("database", "shop")];
    let sleeps = |client: &mut Raw| {
        client.send(&raw::query("select pg_sleep(60)"));
        until(|| running(bench.role) == "1");
    };
    for (serves, asked) in [(&one, &other), (&other, &one), (&one, &one)] {
        // The reload may not have come through.
        until(|| {
            let mut client = Raw::connect(serves.port, &who);
            sleeps(&mut client);
            Raw::cancel(asked.port, &client.key);
            client.stream().set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            let mut kind = [0];
            let heard = client.stream().peek(&mut kind).is_ok();
            if heard {
                assert_eq!(client.reply().sqlstate(), "57014");
                assert_eq!(client.value("select 'goes on'"), "goes on");
            }
            drop(client);
            until(|| running(bench.role) == "0");
            heard
        });
    }
    // A key of nobody's goes round once, and hits nobody.
    let mut client = Raw::connect(one.port, &who);
    sleeps(&mut client);
    let mut wrong = client.key.clone();
    *wrong.last_mut().unwrap() ^= 1;
    for _ in 0..20 {
        Raw::cancel(one.port, &wrong);
        Raw::cancel(other.port, &wrong);
    }
    assert_eq!(running(bench.role), "1");
    Raw::cancel(other.port, &client.key);
    assert_eq!(client.reply().sqlstate(), "57014");
}

#[test]
fn a_peer_that_is_away_keeps_nobody_waiting() {
    let bench = Bench::start("without_peers", "");
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = away.local_addr().unwrap().port();
    drop(away);
    let one = instance(&bench, &[port]);
    let mut client = Raw::connect(one.port, &[("user", bench.role), ("database", "shop")]);
    Raw::cancel(one.port, &[7; 8]);
    client.send(&raw::query("select pg_sleep(60)"));
    until(|| running(bench.role) == "1");
    Raw::cancel(one.port, &client.key);
    assert_eq!(client.reply().sqlstate(), "57014");
}
