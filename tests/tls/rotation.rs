//! Passwords and certificates that are changed while clients come and go.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;

/// `RELOAD` in the console: what it says against the configuration.
fn reload(proxy: &Proxy) -> Result<(), String> {
    let output = psql_as("ops", proxy.port, "pgweir", PASSWORD, &["-c", "RELOAD"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}

fn rewrite(proxy: &Proxy, from: &str, to: &str) {
    let text = fs::read_to_string(&proxy.config).unwrap();
    assert!(text.contains(from), "{from}: {text}");
    fs::write(&proxy.config, text.replace(from, to)).unwrap();
}

/// A proxy whose console can be given commands by user `ops`, whatever becomes of the others.
fn watched(bench: &Bench, general: &str, rest: &str) -> Proxy {
    let shop = bench.database("shop", bench.port(CLEAR), "");
    let (ops, tls) = (user("ops", ""), bench.tls());
    Proxy::start(&format!("admin_users = [\"ops\"]\n{general}\n{tls}{CONTROL}{shop}{ops}{rest}"))
}

#[test]
fn each_of_a_users_passwords_is_good() {
    let bench = bench();
    let say = |text: &str| bench.cluster.sql(CLEAR, Role::Primary, text);
    for name in ["twin", "twin_md5", "twin_told"] {
        say(&format!("create role {name} login password 'first one'"));
    }
    let both = "passwords = ['first one', 'second one']\n";
    let entry = |name: &str, keys: &str| format!("[[users]]\nname = '{name}'\n{both}{keys}\n");
    let users = entry("twin", "") + &entry("twin_md5", "auth = 'md5'") + &entry("twin_told", "auth = 'password'");
    let proxy = watched(bench, "", &users);
    for name in ["twin", "twin_md5", "twin_told"] {
        let enters = |password: &str| {
            let conninfo = "dbname=shop sslmode=require";
            let output = psql_as(name, proxy.port, conninfo, password, &["-t", "-c", "select user"]);
            if output.status.success() { Ok(output.stdout) } else { Err(output.stderr) }
        };
        for password in ["first one", "second one"] {
            assert_eq!(enters(password), Ok(format!("{name}\n").into_bytes()), "{password}");
        }
        for wrong in ["third one", "first onesecond one", "first one\0second one"] {
            let wrong = wrong.replace('\0', "");
            assert!(String::from_utf8(enters(&wrong).unwrap_err()).unwrap().contains("password authentication failed"));
        }
    }
}

/// Everybody gets in all the time while the password is changed on both sides, in whatever order; server connections
/// are opened all the time, too.
#[test]
fn a_password_is_changed_under_load_and_nobody_is_turned_away() {
    let bench = bench();
    let say = |text: &str| bench.cluster.sql(CLEAR, Role::Primary, text);
    say("create role shifting login password 'the old one'");
    let user = |keys: &str| format!("[[users]]\nname = 'shifting'\n{keys}\n");
    let proxy = watched(bench, "server_lifetime = '1ms'", &user("password = 'the old one'"));
    let (is_new, done, log_ins) = (AtomicBool::new(false), AtomicBool::new(false), AtomicUsize::new(0));
    let come_and_go = || {
        while !done.load(Ordering::Acquire) {
            let password = if is_new.load(Ordering::Acquire) { "the new one" } else { "the old one" };
            assert_eq!(enters(&proxy, "shop", "shifting", password), Ok("shifting".to_owned()), "{password}");
            log_ins.fetch_add(1, Ordering::AcqRel);
        }
    };
    let some_more = || {
        let enough = log_ins.load(Ordering::Acquire) + 20;
        until(|| log_ins.load(Ordering::Acquire) >= enough || done.load(Ordering::Acquire));
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(come_and_go)).collect();
        let change = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            some_more();
            rewrite(&proxy, "password = 'the old one'", "passwords = ['the old one', 'the new one']");
            reload(&proxy).unwrap();
            some_more();
            say("alter role shifting password 'the new one'");
            some_more();
            is_new.store(true, Ordering::Release);
            some_more();
            rewrite(&proxy, "['the old one', 'the new one']", "['the new one', 'the old one']");
            reload(&proxy).unwrap();
            some_more();
            rewrite(&proxy, "passwords = ['the new one', 'the old one']", "password = 'the new one'");
            reload(&proxy).unwrap();
            some_more();
        }));
        done.store(true, Ordering::Release);
        clients.into_iter().for_each(|client| client.join().unwrap());
        change.unwrap();
    });
    assert_eq!(enters(&proxy, "shop", "shifting", "the old one"), Err("28P01".to_owned()));
}

/// A client that speaks TLS and trusts one authority.
struct Encrypted {
    client: tokio_postgres::Client,
    runtime: tokio::runtime::Runtime,
}

impl Encrypted {
    fn connect(proxy: &Proxy, authority: &Authority) -> Result<Self, String> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
        let login =
            format!("host=localhost port={} user={APP} password='{PASSWORD}' dbname=shop sslmode=require", proxy.port);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connected = runtime.block_on(async {
            let tls = tokio_postgres_rustls::MakeRustlsConnect::new(config);
            let (client, connection) = tokio_postgres::connect(&login, tls).await?;
            tokio::spawn(connection);
            Ok::<_, tokio_postgres::Error>(client)
        });
        let told = |cause: tokio_postgres::Error| format!("{cause}: {:?}", std::error::Error::source(&cause));
        connected.map(|client| Self { client, runtime }).map_err(told)
    }

    fn works(&self) {
        let rows = self.runtime.block_on(self.client.query("select 1", &[]));
        assert_eq!(rows.unwrap().len(), 1);
    }
}

#[test]
fn certificates_change_with_a_reload_and_live_connections_go_on() {
    let bench = bench();
    let folder = tempfile::tempdir().unwrap();
    let place = |signed: &Signed, name: &str| signed.save(folder.path(), name);
    let [first, second] = ["first", "second"].map(Authority::new);
    place(&first.sign("localhost"), "own");
    fs::write(folder.path().join("clients.crt"), first.pem()).unwrap();
    let file = |name: &str| folder.path().join(name);
    let tls = format!(
        "[general.tls]\nmode = 'prefer'\ncertificate = {:?}\nprivate_key = {:?}\nclient_ca = {:?}\n",
        file("own.crt"),
        file("own.key"),
        file("clients.crt"),
    );
    let shop = bench.database("shop", bench.port(CLEAR), "");
    let users = user("ops", "") + &user(APP, "") + "[[users]]\nname = 'kept'\nauth = 'cert'\n";
    let proxy = Proxy::start(&format!(
        "admin_users = ['ops']\n{tls}{CONTROL}{shop}{users}server_user = 'app'\nserver_password = '{PASSWORD}'\n"
    ));
    let old = Encrypted::connect(&proxy, &first).unwrap();
    assert!(Encrypted::connect(&proxy, &second).is_err());
    // What is wrong with the new ones is told, and nothing changes.
    let certificate = fs::read(file("own.crt")).unwrap();
    let key = fs::read(file("own.key")).unwrap();
    let other = second.sign("localhost");
    for (name, text, expected) in [
        ("own.crt", "not a certificate", "own.crt: no certificate in it"),
        ("own.crt", "", "own.crt: no certificate in it"),
        ("own.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "own.crt"),
        ("own.crt", &other.certificate, "own.crt with"),
        ("own.key", &other.key, "own.key"),
        ("own.key", "", "own.key: no private key in it"),
        ("clients.crt", "nobody", "clients.crt: no certificate in it"),
    ] {
        fs::write(file(name), text).unwrap();
        let said = reload(&proxy).unwrap_err();
        assert!(said.contains(expected), "{expected}: {said}");
        let check =
            Command::new(env!("CARGO_BIN_EXE_pgweir")).args(["check", "-c"]).arg(&proxy.config).output().unwrap();
        let said = String::from_utf8_lossy(&check.stderr);
        assert!(!check.status.success() && said.contains(expected), "{expected}: {said}");
        Encrypted::connect(&proxy, &first).unwrap().works();
        fs::write(file("own.crt"), &certificate).unwrap();
        fs::write(file("own.key"), &key).unwrap();
        fs::write(file("clients.crt"), first.pem()).unwrap();
    }
    fs::remove_file(file("own.key")).unwrap();
    assert!(reload(&proxy).unwrap_err().contains("cannot be read"));
    // What is there is not used before it is told to be.
    place(&other, "own");
    Encrypted::connect(&proxy, &first).unwrap().works();
    reload(&proxy).unwrap();
    Encrypted::connect(&proxy, &second).unwrap().works();
    assert!(Encrypted::connect(&proxy, &first).is_err());
    old.works();
    // Whose certificates are taken from clients.
    place(&second.sign("kept"), "new");
    place(&first.sign("kept"), "old");
    let enters = |name: &str| {
        let (certificate, key) = (file(&format!("{name}.crt")), file(&format!("{name}.key")));
        let conninfo =
            format!("dbname=shop sslmode=require sslcert={} sslkey={}", certificate.display(), key.display());
        psql_as("kept", proxy.port, &conninfo, "", &["-c", "select 1"]).status.success()
    };
    assert_eq!(["old", "new"].map(enters), [true, false]);
    fs::write(file("clients.crt"), second.pem()).unwrap();
    reload(&proxy).unwrap();
    assert_eq!(["old", "new"].map(enters), [false, true]);
    old.works();
    // Encryption itself may come and go.
    rewrite(&proxy, "mode = 'prefer'", "mode = 'require'");
    rewrite(&proxy, "auth = 'cert'", "auth = 'trust'");
    reload(&proxy).unwrap();
    bench.check_refused(&proxy, "sslmode=disable", "connections must be encrypted");
}

#[test]
fn authorities_of_servers_change_with_a_reload() {
    let bench = bench();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("servers.crt");
    let ours = fs::read_to_string(bench.file("ours.crt")).unwrap();
    fs::write(&file, &ours).unwrap();
    let shop = bench.database("shop", bench.port(ENCRYPTED), &format!("tls = 'verify-full'\ntls_ca = {file:?}"));
    let users = user("ops", "") + &user("either", "");
    let general = "admin_users = ['ops']\nserver_lifetime = '1ms'\n";
    // The probes have connections of their own, and need no new ones.
    let proxy = Proxy::start(&format!("{general}{}{shop}{users}", CONTROL.replace("postgres", "sealed")));
    check_encryption(&proxy, "either", "shop", &Ok("t"));
    for (text, expected) in [("nobody", "servers.crt: no certificate in it"), ("", "servers.crt: no certificate in it")]
    {
        fs::write(&file, text).unwrap();
        let said = reload(&proxy).unwrap_err();
        assert!(said.contains(expected), "{said}");
        check_encryption(&proxy, "either", "shop", &Ok("t"));
    }
    fs::copy(bench.file("foreign.crt"), &file).unwrap();
    check_encryption(&proxy, "either", "shop", &Ok("t"));
    reload(&proxy).unwrap();
    check_encryption(&proxy, "either", "shop", &Err("UnknownIssuer"));
    fs::write(&file, &ours).unwrap();
    reload(&proxy).unwrap();
    until(|| encryption_seen(&proxy, "either", "shop") == Ok("t".to_owned()));
}
