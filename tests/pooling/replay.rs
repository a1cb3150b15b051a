//! What the server is asked beside the clients' own statements, as its log has it.

use std::fs;

use super::{Bench, cluster, direct};
use crate::raw::{Raw, bind, describe_portal, execute, parse};
use crate::support::{PASSWORD, Proxy, SUPERUSER};

/// What the server logged of the bench's role since then: kinds of messages, and texts of the simple protocol.
struct Log {
    from: usize,
}

impl Log {
    fn now() -> Self {
        Self { from: fs::read(cluster().primary(0).log()).unwrap().len() }
    }

    /// By kind: parse, bind, execute, statement.
    fn count(&self) -> [usize; 4] {
        let text = fs::read(cluster().primary(0).log()).unwrap();
        let text = String::from_utf8_lossy(&text[self.from..]);
        let logged = |kind: &str| {
            let of = |line: &&str| line.split_once(" ms  ").is_some_and(|(_, what)| what.starts_with(kind));
            text.lines().filter(|line| line.contains("duration: ")).filter(of).count()
        };
        ["parse", "bind", "execute", "statement"].map(logged)
    }
}

#[test]
fn nothing_is_replayed_where_nothing_has_changed() {
    let bench = Bench::start("replays", "default_pool_size = 1");
    direct("alter role replays set log_min_duration_statement = 0");
    let set = |client: &mut Raw, zone: &str| {
        client.rows(&format!("set timezone to '{zone}'"));
        client.rows("set work_mem to '5MB'");
        assert_eq!(client.extended(&[parse("s", "select current_setting('timezone'), $1::int")]).error, None);
    };
    let run = |client: &mut Raw, zone: &str| {
        let reply = client.extended(&[bind("s", &["7"]), describe_portal(""), execute()]);
        assert_eq!(reply.rows, [format!("{zone}|7")]);
    };
    let (mut one, mut same, mut other) = (bench.client(), bench.client(), bench.client());
    set(&mut one, "Asia/Tokyo");
    set(&mut same, "Asia/Tokyo");
    [&mut one, &mut same].into_iter().for_each(|client| run(client, "Asia/Tokyo"));
    let log = Log::now();
    (0..50).for_each(|_| run(&mut one, "Asia/Tokyo"));
    assert_eq!(log.count(), [0, 50, 50, 0]);
    // Nor for others who want the same.
    (0..50).for_each(|_| [&mut one, &mut same].into_iter().for_each(|client| run(client, "Asia/Tokyo")));
    assert_eq!(log.count(), [0, 150, 150, 0]);
    // Where there is a difference, that is sent, in one text.
    set(&mut other, "Europe/Berlin");
    run(&mut other, "Europe/Berlin");
    run(&mut one, "Asia/Tokyo");
    let log = Log::now();
    for _ in 0..10 {
        run(&mut other, "Europe/Berlin");
        run(&mut one, "Asia/Tokyo");
    }
    assert_eq!(log.count(), [0, 20, 20, 20]);
    // One that sets nothing, and never did, costs nothing either.
    let mut plain = bench.client();
    plain.rows("select 1");
    let log = Log::now();
    (0..20).for_each(|_| _ = plain.rows("select 1"));
    assert_eq!(log.count(), [0, 0, 0, 20]);
}

#[test]
fn the_log_names_what_ties_a_session() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let (port, file) = (cluster().primary(0).port(), log.reopen().unwrap());
    let config = format!(
        "[[databases]]\nname = \"shop\"\nhost = \"127.0.0.1\"\nport = {port}\n[[users]]\nname = \"tied\"\nauth = \"trust\"\n\
         server_user = \"{SUPERUSER}\"\nserver_password = \"{PASSWORD}\"\n"
    );
    let proxy = Proxy::start_by(&config, |command| _ = command.stderr(file));
    let mut client = Raw::connect(proxy.port, &[("user", "tied"), ("database", "shop")]);
    client.rows("select pg_advisory_lock(4713)");
    client.rows("select pg_advisory_unlock(4713)");
    client.rows("select set_config(name, 'x', false) from (values ('my.own')) known(name)");
    let told = fs::read_to_string(log.path()).unwrap();
    let of = |cause: &str| told.lines().filter(|line| line.contains(cause) && line.contains("user=\"tied\"")).count();
    assert_eq!((of("cause=\"advisory lock\""), of("cause=\"set_config\"")), (1, 1), "{told}");
}
