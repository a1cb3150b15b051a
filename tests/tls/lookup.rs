//! Users whom no file names, and passwords that no file has.

use super::*;

fn everybody(keys: &str) -> String {
    format!("[[users]]\nname = '*'\n{keys}\n")
}

/// Whoever the server knows and lets in comes in, at once and only as long; who is named in the file is as the file says.
#[test]
fn everybody_whom_the_server_knows_comes_in() {
    let bench = bench();
    let say = |text: &str| bench.cluster.sql(CLEAR, Role::Primary, text);
    for name in ["anyone", "named", "boss"] {
        say(&format!("create role {name} login password '{PASSWORD}'"));
    }
    say(&format!("create role outdated login password '{PASSWORD}' valid until 'yesterday'"));
    say(&format!("create role closed nologin password '{PASSWORD}'"));
    say("create role empty login");
    let databases = ["shop", "other"].map(|name| bench.database(name, bench.port(CLEAR), "")).concat();
    let named = "[[users]]\nname = 'named'\npassword = 'of the file'\nserver_password = 'correct horse'\n";
    let users = everybody("auth = 'query'\ndatabase = 'shop'") + named;
    let proxy = Proxy::start(&format!("admin_users = ['boss']\n{CONTROL}{databases}{users}"));
    let wrong = Err("28P01".to_owned());
    assert_eq!(enters(&proxy, "shop", "anyone", PASSWORD), Ok("anyone".to_owned()));
    assert_eq!(enters(&proxy, "shop", "named", "of the file"), Ok("named".to_owned()));
    for (database, name, password) in [
        ("shop", "anyone", "wrong"),
        ("shop", "anyone", ""),
        ("other", "anyone", PASSWORD),
        ("shop", "named", PASSWORD),
        ("shop", "outdated", PASSWORD),
        ("shop", "closed", PASSWORD),
        ("shop", "empty", ""),
        ("shop", "nobody at all", PASSWORD),
        ("shop", "*", PASSWORD),
        ("shop", "pg_monitor", ""),
    ] {
        assert_eq!(enters(&proxy, database, name, password), wrong, "{database} {name} {password}");
    }
    // A role that is new, one that may log in now, and one that is gone.
    say(&format!("create role late login password '{PASSWORD}'; alter role closed login"));
    for name in ["late", "closed"] {
        assert_eq!(enters(&proxy, "shop", name, PASSWORD), Ok(name.to_owned()));
        say("select pg_terminate_backend(pid, 10000) from pg_stat_activity where usename in ('late', 'closed')");
        say(&format!("drop role {name}"));
        assert_eq!(enters(&proxy, "shop", name, PASSWORD), wrong);
    }
    // What the console says is by name, too.
    let console = |name: &str, text: &str| {
        let output = psql_as(name, proxy.port, "pgweir", PASSWORD, &["-t", "-c", text]);
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    assert!(console("anyone", "RELOAD").contains("only admin_users"));
    assert_eq!(console("boss", "RELOAD"), "RELOAD\n");
    assert!(console("boss", "SHOW POOLS").contains("shop|anyone|"), "{}", console("boss", "SHOW POOLS"));
}

/// Sessions and server connections of those whom only the server knows outlive reloads and the tending of pools.
#[test]
fn sessions_of_everybody_outlive_reloads() {
    let bench = bench();
    bench.cluster.sql(CLEAR, Role::Primary, &format!("create role lasting login password '{PASSWORD}'"));
    let shop = bench.database("shop", bench.port(CLEAR), "");
    let users = everybody("auth = 'query'") + &user("ops", "server_user = 'app'");
    let proxy = Proxy::start(&format!("admin_users = ['ops']\n{CONTROL}{shop}{users}"));
    let port = proxy.port;
    let reload = move || psql_as("ops", port, "pgweir", PASSWORD, &["-c", "RELOAD"]).status.success();
    let pids = support::wait_for(async move {
        let login = format!("host=127.0.0.1 port={port} user=lasting password='{PASSWORD}' dbname=shop");
        let (client, connection) = tokio_postgres::connect(&login, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let mut pids = Vec::new();
        for _ in 0..3 {
            client.batch_execute("begin").await.unwrap();
            let row =
                client.query_one("select pid from pg_stat_activity where pid = pg_backend_pid()", &[]).await.unwrap();
            pids.push(row.get::<_, i32>(0));
            assert!(tokio::task::spawn_blocking(reload).await.unwrap());
            assert_eq!(
                client
                    .query_one("select pid from pg_stat_activity where pid = pg_backend_pid()", &[])
                    .await
                    .unwrap()
                    .get::<_, i32>(0),
                pids[0]
            );
            client.batch_execute("commit").await.unwrap();
        }
        pids
    });
    assert!(pids.iter().all(|pid| *pid == pids[0]), "its pool stays: {pids:?}");
}

/// The client's own password opens the server, which alone says whether it is right, each time.
#[test]
fn passwords_are_passed_on_to_the_server() {
    let bench = bench();
    let say = |text: &str| bench.cluster.sql(ENCRYPTED, Role::Primary, text);
    say(&format!("create role passed login password '{PASSWORD}'"));
    let folder = tempfile::tempdir().unwrap();
    let general = format!("admin_users = ['ops']\nunix_socket_dir = {:?}\n", folder.path());
    let shop = bench.database("shop", bench.port(ENCRYPTED), "tls = 'require'");
    let (certificate, key) = (bench.file("server.crt"), bench.file("server.key"));
    let tls = format!("[general.tls]\nmode = 'prefer'\ncertificate = {certificate:?}\nprivate_key = {key:?}\n");
    let users = everybody("auth = 'passthrough'") + &user("ops", "");
    let proxy = Proxy::start(&format!("{general}{tls}{CONTROL}{shop}{users}"));
    let enters = |name: &str, conninfo: &str, password: &str| {
        let output = psql_as(name, proxy.port, conninfo, password, &["-t", "-c", "select user"]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    };
    let encrypted = "dbname=shop sslmode=require";
    let local = format!("dbname=shop host={}", folder.path().display());
    // By every method that the server knows.
    for (name, password) in [
        ("either", PASSWORD),
        ("sealed", PASSWORD),
        ("digest", PASSWORD),
        ("cleartext", PASSWORD),
        ("letters", LETTERS),
    ] {
        for conninfo in [encrypted, &local] {
            assert_eq!(enters(name, conninfo, password), Ok(name.to_owned()), "{conninfo}");
            for wrong in ["wrong", password.trim_end_matches(char::is_alphanumeric)] {
                let said = enters(name, conninfo, wrong).unwrap_err();
                assert!(
                    said.ends_with(&format!("FATAL:  password authentication failed for user \"{name}\"")),
                    "{said}"
                );
            }
        }
    }
    for name in ["nobody", "pg_monitor", "*"] {
        let said = enters(name, encrypted, PASSWORD).unwrap_err();
        assert!(said.ends_with(&format!("FATAL:  password authentication failed for user \"{name}\"")), "{said}");
    }
    // Never in the clear, and never to a server that asks nobody: each password would be right.
    assert!(enters("either", "dbname=shop sslmode=disable", PASSWORD).unwrap_err().contains("is told over TLS only"));
    for password in [PASSWORD, "anything"] {
        let said = enters("trusted", encrypted, password).unwrap_err();
        assert!(said.contains("cannot say whether one is right"), "{said}");
    }
    // The server's word of this moment holds.
    for password in ["one", "two", &"long".repeat(500)] {
        say(&format!("alter role passed password '{password}'"));
        assert!(enters("passed", encrypted, PASSWORD).is_err());
        assert_eq!(enters("passed", encrypted, password), Ok("passed".to_owned()));
    }
    say(&format!("alter role passed password '{PASSWORD}' valid until 'yesterday'"));
    assert!(enters("passed", encrypted, PASSWORD).is_err());
    say("alter role passed valid until 'infinity' nologin");
    assert!(enters("passed", encrypted, PASSWORD).is_err());
    say("alter role passed login");
    assert_eq!(enters("passed", encrypted, PASSWORD), Ok("passed".to_owned()));
    assert_eq!(
        enters("passed", "dbname=pgweir sslmode=require", "wrong").map_err(|said| said.contains("failed")),
        Err(true)
    );
}
