//! Clients that break the rules, or keep them to excess: each gets a clear error or is disconnected, in bounded memory
//! and time, while a client beside them is served as ever.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use crate::raw::{self, Raw, bind, describe, execute, message, packet, parse, query, startup, sync, text};
use crate::stage::WHO;
use crate::support::{Cluster, PASSWORD, Proxy, Role};

struct Bench {
    proxy: Proxy,
    _cluster: Cluster,
}

/// One worker, so that whoever holds it up is noticed by all; two shards, so that texts must be understood.
fn bench() -> &'static Bench {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    BENCH.get_or_init(|| {
        let cluster = Cluster::start(2, 0);
        cluster.make_shop();
        let general = "workers = 1\nclient_login_timeout = '3s'\nmax_client_conn = 500\n";
        let user = format!("[[users]]\nname = \"app\"\nauth = \"trust\"\nserver_password = \"{PASSWORD}\"\n");
        let other = format!("[[users]]\nname = \"secretive\"\npassword = \"{PASSWORD}\"\nserver_user = \"app\"\n");
        let toml = cluster.toml();
        let tables = toml.split_once("[[databases]]").unwrap().1;
        let _ = tables;
        let proxy = Proxy::start(&format!("{general}{}{user}{other}", sharded(&cluster)));
        Bench { proxy, _cluster: cluster }
    })
}

fn sharded(cluster: &Cluster) -> String {
    format!(
        "{}[[sharded_tables]]\ndatabase = \"shop\"\ncolumn = \"user_id\"\n\
         [[sharded_tables.mapping]]\nstart = 1\nend = 1001\nshard = 0\n\
         [[sharded_tables.mapping]]\nstart = 1001\nshard = 1\n",
        cluster.databases_toml()
    )
}

#[test]
fn deep() {
    let bench = bench();
    let n: usize = std::env::var("N").unwrap().parse().unwrap();
    for (name, sql) in [
        ("parens", format!("select {}1{}", "(".repeat(n), ")".repeat(n))),
        ("plus", format!("select 1{}", "+1".repeat(n))),
        ("and", format!("select * from orders where true{}", " and true".repeat(n / 2))),
        ("or", format!("select * from orders where user_id = 1{}", " or user_id = 1".repeat(n / 4))),
        ("not", format!("select {} true", "not ".repeat(n))),
        ("minus", format!("select {} 1", "- ".repeat(n))),
        ("cast", format!("select 1{}", "::int".repeat(n))),
        ("union", format!("select 1{}", " union select 1".repeat(n / 4))),
        ("dots", format!("select a{}", ".a".repeat(n))),
        ("array", format!("select {}1{}", "array[".repeat(n), "]".repeat(n))),
        ("subscript", format!("select a{}", "[1]".repeat(n))),
        ("case", format!("select {}1{}", "case when ".repeat(n / 4), " then 1 end".repeat(n / 4))),
        ("subquery", format!("select {}1{}", "(select ".repeat(n / 4), ")".repeat(n / 4))),
        ("joins", format!("select 1 from orders{}", " cross join orders".repeat(n / 8))),
        ("nested joins", format!("select 1 from {}orders{}", "(".repeat(n), ")".repeat(n))),
        ("with", format!("{} select 1 {}", "with a as (".repeat(n / 8), ") select 1".repeat(n / 8))),
        ("function", format!("select {}1{}", "abs(".repeat(n), ")".repeat(n))),
        ("statements", "select 1;".repeat(n / 4)),
        ("begin", "begin;".repeat(n / 4)),
        ("comments", "/*".repeat(n)),
        ("in", format!("select * from orders where user_id in (1{})", ",1".repeat(n))),
        ("values", format!("insert into orders(user_id) values (1){}", ",(1)".repeat(n / 4))),
        ("long name", format!("select {}", "x".repeat(1 << 20))),
        ("long literal", format!("select '{}'", "x".repeat(1 << 20))),
        ("quotes", "'".repeat((1 << 20) + 1)),
        ("dollars", "$".repeat(1 << 20)),
        ("concat", format!("select ''{}", "||''".repeat(n))),
        ("is null", format!("select 1{}", " is null".repeat(n / 4))),
        ("between", format!("select 1{}", " between 1 and 1".repeat(n / 8))),
        ("exists", format!("select {}1{}", "exists(select ".repeat(n / 8), ")".repeat(n / 8))),
        ("at time zone", format!("select now(){}", " at time zone 'utc'".repeat(n / 16))),
        ("collate", format!("select 'a'{}", " collate \"C\"".repeat(n / 8))),
        ("explain", format!("{} select 1", "explain ".repeat(n / 8))),
        ("explain route", format!("{} select 1", "explain route ".repeat(n / 16))),
        ("type", format!("select 1::int{}", "[]".repeat(n))),
        ("row", format!("select {}1{}", "row(".repeat(n / 2), ")".repeat(n / 2))),
        ("declare", format!("{} select 1", "declare c cursor for ".repeat(n / 8))),
        ("copy", format!("{}select 1{}", "copy (".repeat(n / 8), ") to stdout".repeat(n / 8))),
        (
            "mixed",
            format!("select {}{}1{}", "1+".repeat(900), format!("({}", "1+".repeat(900)).repeat(50), ")".repeat(50)),
        ),
        ("interval", format!("select {}'1'", "interval ".repeat(n / 8))),
    ] {
        let since = Instant::now();
        let kinds = thread::Builder::new()
            .stack_size(8 << 20)
            .spawn(move || {
                format!(
                    "{:?}",
                    pgweir::statement::analyze(&sql).statements.first().map(|s| std::mem::discriminant(&s.kind))
                )
            })
            .unwrap()
            .join()
            .unwrap();
        let error = "";
        eprintln!("DEEP {name} {} {kinds} {error}", since.elapsed().as_millis());
    }
}
