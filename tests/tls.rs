//! Encryption towards clients and servers, and the ways to log in, with real servers and psql.

#![allow(clippy::unwrap_used)]

mod support;

#[path = "tls/direct.rs"]
mod direct;
#[path = "tls/hba.rs"]
mod hba;
#[path = "tls/lookup.rs"]
mod lookup;
#[path = "tls/rotation.rs"]
mod rotation;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use pgweir::control::connect::Login;
use pgweir::topology::{ServerTls, TlsNegotiation};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use support::{APP, Cluster, PASSWORD, Proxy, Role, Server, Stop, cancelled, psql_as, sql, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Two servers, one with TLS and one without, and the certificates of all.
struct Bench {
    cluster: Cluster,
    /// The cluster's folder, which goes with it.
    folder: PathBuf,
}

fn bench() -> &'static Bench {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    BENCH.get_or_init(Bench::start)
}

impl Bench {
    fn start() -> Self {
        let cluster = Cluster::start(2, 0);
        let folder = cluster.primary(ENCRYPTED).data().ancestors().nth(3).unwrap().join("certificates");
        fs::create_dir(&folder).unwrap();
        let bench = Self { cluster, folder };
        let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
        fs::write(bench.file("ours.crt"), ours.pem()).unwrap();
        fs::write(bench.file("foreign.crt"), foreign.pem()).unwrap();
        // It is "localhost" alone: the address that this name has is a wrong name for it.
        ours.sign("localhost").save(&bench.folder, "server");
        ours.sign(APP).save(&bench.folder, "client");
        ours.sign("either").save(&bench.folder, "either");
        ours.sign("kept@shop.example").save(&bench.folder, "mail");
        ours.sign_for(&[(DnType::OrganizationName, "Shop"), (DnType::OrganizationalUnitName, "desk")], "carla")
            .save(&bench.folder, "carla");
        ours.sign_for(&[(DnType::OrganizationalUnitName, "board")], "chair").save(&bench.folder, "board");
        foreign.sign(APP).save(&bench.folder, "stranger");
        ours.sign_until(2020, APP).save(&bench.folder, "past");
        bench.make_roles(&bench.cluster);
        bench.encrypt(bench.cluster.primary(ENCRYPTED));
        bench.open_socket(bench.cluster.primary(CLEAR));
        bench
    }

    fn make_roles(&self, cluster: &Cluster) {
        for role in ["sealed", "either", "kept", "cleartext"] {
            cluster.sql_everywhere(&format!("create role {role} login password '{PASSWORD}'"));
        }
        cluster.sql_everywhere("create role trusted login");
        cluster.sql_everywhere(&format!("create role letters login password '{LETTERS}'"));
        let digest = format!("set password_encryption = md5; create role digest login password '{PASSWORD}'");
        cluster.sql_everywhere(&digest);
    }

    /// Turns TLS on, and gives each role its own way in.
    fn encrypt(&self, server: &Server) {
        for end in ["crt", "key"] {
            let file = server.data().join(format!("server.{end}"));
            fs::copy(self.file(&format!("server.{end}")), &file).unwrap();
            let owner = fs::metadata(server.data()).unwrap();
            chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        }
        fs::write(server.data().join("pg_hba.conf"), HBA).unwrap();
        let say = |text: &str| self.cluster.sql(server.shard, server.role, text);
        say("ALTER SYSTEM SET ssl = on");
        say("ALTER SYSTEM SET log_connections = on");
        say("SELECT pg_reload_conf()");
        until(|| say("SHOW ssl") == "on" && say("SHOW log_connections") == "on");
    }

    /// Lets the server listen on a UNIX socket, too.
    fn open_socket(&self, server: &Server) {
        let folder = self.file("sockets");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let set = format!("ALTER SYSTEM SET unix_socket_directories = '{}'", folder.display());
        self.cluster.sql(server.shard, server.role, &set);
        server.stop(Stop::Fast);
        server.start().unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn port(&self, shard: u16) -> u16 {
        self.cluster.primary(shard).port()
    }

    /// A proxy for one database, `shop`, on the server with TLS. `general` ends with the section of its own, if any.
    fn proxy(&self, general: &str) -> Proxy {
        let shop = self.database("shop", self.port(ENCRYPTED), "");
        Proxy::start(&format!("admin_users = [\"{APP}\"]\n{general}\n{CONTROL}{shop}{}", user(APP, "")))
    }

    /// A proxy that clients reach by TLS.
    fn encrypted_proxy(&self, mode: &str) -> Proxy {
        let (certificate, key, ca) = (self.file("server.crt"), self.file("server.key"), self.file("ours.crt"));
        self.proxy(&format!(
            "[general.tls]\nmode = \"{mode}\"\ncertificate = {certificate:?}\nprivate_key = {key:?}\nclient_ca = {ca:?}\n"
        ))
    }

    fn database(&self, name: &str, port: u16, keys: &str) -> String {
        let host = if keys.contains("host = ") { "" } else { "host = \"localhost\"\n" };
        format!("[[databases]]\nname = \"{name}\"\ndatabase_name = \"shop\"\n{host}port = {port}\n{keys}\n")
    }

    /// What psql says to a proxy, connected as `conninfo` says, in which `CA` stands for the folder of certificates.
    fn psql(&self, proxy: &Proxy, conninfo: &str) -> Output {
        let folder = self.folder.display().to_string();
        let conninfo = format!("dbname=shop {}", conninfo.replace("CA", &folder));
        psql_as(APP, proxy.port, &conninfo, PASSWORD, &["-c", "\\conninfo", "-c", "select 1"])
    }

    fn check_enters(&self, proxy: &Proxy, conninfo: &str, encrypted: bool) {
        let output = self.psql(proxy, conninfo);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{conninfo}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(said.contains("SSL connection (protocol: TLSv1"), encrypted, "{conninfo}: {said}");
    }

    fn check_refused(&self, proxy: &Proxy, conninfo: &str, expected: &str) {
        let output = self.psql(proxy, conninfo);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{conninfo}: {said}");
    }
}

/// Who signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
struct Signed {
    certificate: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn sign(&self, name: &str) -> Signed {
        self.sign_for(&[], name)
    }

    /// Good until the first day of a year.
    fn sign_until(&self, year: i32, name: &str) -> Signed {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        self.seal(params)
    }

    /// With more in its subject than the name.
    fn sign_for(&self, subject: &[(DnType, &str)], name: &str) -> Signed {
        let host = name.split('@').next().unwrap();
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        subject.iter().for_each(|(kind, value)| params.distinguished_name.push(kind.clone(), *value));
        params.distinguished_name.push(DnType::CommonName, name);
        self.seal(params)
    }

    fn seal(&self, params: CertificateParams) -> Signed {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Signed { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Signed {
    fn save(&self, folder: &Path, name: &str) {
        fs::write(folder.join(format!("{name}.crt")), &self.certificate).unwrap();
        let key = folder.join(format!("{name}.key"));
        fs::write(&key, &self.key).unwrap();
        // psql takes no key that others can read.
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// A `[[users]]` entry with more keys; the password is everybody's, unless the keys give another proof.
fn user(name: &str, keys: &str) -> String {
    let own = ["password", "scram_verifier"].iter().any(|key| keys.starts_with(key));
    let password = if own { String::new() } else { format!("password = \"{PASSWORD}\"\n") };
    format!("[[users]]\nname = \"{name}\"\n{password}{keys}\n")
}

/// What the server says of the connection that serves a client: whether it is encrypted; or all of psql's complaint.
fn encryption_seen(proxy: &Proxy, user: &str, database: &str) -> Result<String, String> {
    let ask = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let output = psql_as(user, proxy.port, database, PASSWORD, &["-t", "-c", ask]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn check_encryption(proxy: &Proxy, user: &str, database: &str, expected: &Result<&str, &str>) {
    let seen = encryption_seen(proxy, user, database);
    match (&seen, expected) {
        (Ok(seen), Ok(expected)) => assert_eq!(seen, expected, "{database}"),
        (Err(said), Err(expected)) => {
            // A probe may have found it out before.
            let nobody = ["no server available", "no primary available"].iter().any(|nobody| said.contains(nobody));
            assert!(nobody && said.contains(expected), "{database}: {said}");
        }
        _ => panic!("{database}: {seen:?}, not {expected:?}"),
    }
}

/// Sends bytes as the first of a connection; gives what comes back, up to its end or to `most` bytes.
fn answer_to(proxy: &Proxy, bytes: &[u8], most: usize) -> Vec<u8> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    match stream.take(most as u64).read_to_end(&mut answer) {
        Ok(_) => {}
        // Closed with bytes unread.
        Err(cause) => assert_eq!(cause.kind(), ErrorKind::ConnectionReset),
    }
    answer
}

#[test]
fn clients_choose_whether_to_encrypt() {
    let (bench, proxy) = (bench(), bench().encrypted_proxy("prefer"));
    for (conninfo, encrypted) in [
        ("sslmode=disable", false),
        ("sslmode=allow", false),
        ("sslmode=prefer", true),
        ("sslmode=require", true),
        ("sslmode=require ssl_max_protocol_version=TLSv1.2", true),
        ("sslmode=verify-ca sslrootcert=CA/ours.crt", true),
        ("sslmode=verify-full sslrootcert=CA/ours.crt host=localhost", true),
        ("sslmode=require channel_binding=require", true),
        ("sslmode=require channel_binding=disable", true),
        ("sslmode=require channel_binding=require ssl_max_protocol_version=TLSv1.2", true),
    ] {
        bench.check_enters(&proxy, conninfo, encrypted);
    }
    for (conninfo, expected) in [
        ("sslmode=verify-full sslrootcert=CA/foreign.crt host=localhost", "certificate verify failed"),
        ("sslmode=verify-ca sslrootcert=CA/foreign.crt", "certificate verify failed"),
        ("sslmode=verify-full sslrootcert=CA/ours.crt", "does not match host name \"127.0.0.1\""),
        ("sslmode=disable channel_binding=require", "channel binding"),
    ] {
        bench.check_refused(&proxy, conninfo, expected);
    }
}

#[test]
fn the_console_says_whose_connection_is_encrypted() {
    let proxy = bench().encrypted_proxy("prefer");
    let seen = |mode: &str| {
        let conninfo = format!("dbname=shop sslmode={mode} application_name={mode}");
        // psql holds its session while it asks the console from a shell.
        let console = format!("psql -XAt -h 127.0.0.1 -p {} -U {APP} -d pgweir -c 'show clients'", proxy.port);
        let output =
            psql_as(APP, proxy.port, &conninfo, PASSWORD, &["-c", "select 1", "-c", &format!("\\! {console}")]);
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().find(|line| line.contains("|shop|")).unwrap().split('|').nth(16).unwrap().to_owned()
    };
    assert_eq!(seen("disable"), "");
    assert!(seen("require").starts_with("TLSv1.3/"), "{}", seen("require"));
}

#[test]
fn where_encryption_is_required_nobody_stays_in_the_clear() {
    let (bench, proxy) = (bench(), bench().encrypted_proxy("require"));
    bench.check_refused(&proxy, "sslmode=disable", "FATAL:  connections must be encrypted");
    let login = Login {
        host: "127.0.0.1".to_owned(),
        port: proxy.port,
        database: "shop".to_owned(),
        user: APP.to_owned(),
        password: PASSWORD.to_owned(),
        tls: ServerTls::Disable,
        tls_ca: None,
        tls_negotiation: TlsNegotiation::Postgres,
    };
    assert_eq!(sql(&login, "select 1"), Err("28000".to_owned()));
    // It begins in the clear and turns to TLS when it is refused.
    for mode in ["allow", "prefer", "require"] {
        bench.check_enters(&proxy, &format!("sslmode={mode}"), true);
    }
}

#[test]
fn clients_show_a_certificate_where_it_is_asked_for() {
    let (bench, proxy) = (bench(), bench().encrypted_proxy("verify-full"));
    bench.check_enters(&proxy, "sslmode=require sslcert=CA/client.crt sslkey=CA/client.key", true);
    bench.check_refused(&proxy, "sslmode=disable", "connections must be encrypted");
    bench.check_refused(&proxy, "sslmode=require", "certificate required");
    bench.check_refused(&proxy, "sslmode=require sslcert=CA/stranger.crt sslkey=CA/stranger.key", "alert");
}

#[test]
fn without_a_certificate_tls_is_declined_and_the_session_goes_on() {
    let (bench, proxy) = (bench(), bench().proxy(""));
    assert_eq!(answer_to(&proxy, &SSL_REQUEST, 1), b"N");
    assert_eq!(answer_to(&proxy, &GSSENC_REQUEST, 1), b"N");
    bench.check_enters(&proxy, "sslmode=prefer", false);
    bench.check_refused(&proxy, "sslmode=require", "server does not support SSL");
}

#[test]
fn bytes_ahead_of_the_handshake_end_the_connection() {
    let proxy = bench().encrypted_proxy("prefer");
    let startup = [&SSL_REQUEST[..], b"\0\0\0\x12\0\x03\0\0user\0app\0\0"].concat();
    assert_eq!(answer_to(&proxy, &startup, 100), b"");
    assert_eq!(answer_to(&proxy, &[&SSL_REQUEST[..], b"\x16"].concat(), 100), b"");
    assert_eq!(answer_to(&proxy, &SSL_REQUEST, 1), b"S", "the proxy goes on");
}

#[test]
fn a_request_for_gssapi_encryption_is_not_one_for_tls() {
    let proxy = bench().encrypted_proxy("prefer");
    assert_eq!(answer_to(&proxy, &GSSENC_REQUEST, 1), b"N");
}

/// Each database is one way to reach a server: name, server, keys, and what its connections are.
const WAYS: &[(&str, u16, &str, Result<&str, &str>)] = &[
    ("prefer", ENCRYPTED, "tls = 'prefer'", Ok("t")),
    ("default", ENCRYPTED, "", Ok("t")),
    ("prefer_wrong_ca", ENCRYPTED, "tls = 'prefer'\ntls_ca = 'CA/foreign.crt'", Err("UnknownIssuer")),
    ("require", ENCRYPTED, "tls = 'require'", Ok("t")),
    ("require_right_ca", ENCRYPTED, "tls = 'require'\ntls_ca = 'CA/ours.crt'", Ok("t")),
    ("require_wrong_ca", ENCRYPTED, "tls = 'require'\ntls_ca = 'CA/foreign.crt'", Err("UnknownIssuer")),
    ("ca", ENCRYPTED, "tls = 'verify-ca'\ntls_ca = 'CA/ours.crt'", Ok("t")),
    ("ca_other_name", ENCRYPTED, "tls = 'verify-ca'\ntls_ca = 'CA/ours.crt'\nhost = '127.0.0.1'", Ok("t")),
    ("ca_wrong_ca", ENCRYPTED, "tls = 'verify-ca'\ntls_ca = 'CA/foreign.crt'", Err("UnknownIssuer")),
    ("ca_public", ENCRYPTED, "tls = 'verify-ca'", Err("UnknownIssuer")),
    ("full", ENCRYPTED, "tls = 'verify-full'\ntls_ca = 'CA/ours.crt'", Ok("t")),
    ("full_wrong_ca", ENCRYPTED, "tls = 'verify-full'\ntls_ca = 'CA/foreign.crt'", Err("UnknownIssuer")),
    ("full_public", ENCRYPTED, "tls = 'verify-full'", Err("UnknownIssuer")),
    (
        "full_other_name",
        ENCRYPTED,
        "tls = 'verify-full'\ntls_ca = 'CA/ours.crt'\nhost = '127.0.0.1'",
        Err("not valid for name"),
    ),
    ("clear_disable", CLEAR, "tls = 'disable'", Ok("f")),
    ("clear_prefer", CLEAR, "tls = 'prefer'", Ok("f")),
    ("clear_require", CLEAR, "tls = 'require'", Err("server does not support TLS")),
    ("clear_ca", CLEAR, "tls = 'verify-ca'\ntls_ca = 'CA/ours.crt'", Err("server does not support TLS")),
    ("clear_full", CLEAR, "tls = 'verify-full'\ntls_ca = 'CA/ours.crt'", Err("server does not support TLS")),
];

#[test]
fn servers_are_reached_as_each_mode_says_or_not_at_all() {
    let bench = bench();
    let folder = bench.folder.display().to_string();
    let ways = WAYS.iter().map(|(name, shard, keys, _)| {
        let keys = keys.replace("CA", &folder);
        bench.database(name, bench.port(*shard), &keys)
    });
    let proxy = Proxy::start(&format!("{CONTROL}{}{}", ways.collect::<String>(), user("either", "")));
    for (name, _, _, expected) in WAYS {
        check_encryption(&proxy, "either", name, expected);
    }
    // The role may log in without TLS: nobody tried.
    let log = fs::read_to_string(bench.cluster.primary(ENCRYPTED).log()).unwrap();
    let log_ins: Vec<_> = log.lines().filter(|line| line.contains("connection authorized: user=either ")).collect();
    assert!(!log_ins.is_empty());
    assert!(log_ins.iter().all(|line| line.contains("SSL enabled")), "{log_ins:#?}");
}

#[test]
fn the_server_decides_who_may_log_in_without_tls() {
    let bench = bench();
    let ways = [("open", "tls = 'disable'"), ("closed", "tls = 'require'"), ("both", "tls = 'prefer'")];
    let databases: String = ways.iter().map(|(name, keys)| bench.database(name, bench.port(ENCRYPTED), keys)).collect();
    let users = ["sealed", "cleartext", "digest", APP].map(|name| user(name, "")).concat();
    let proxy = Proxy::start(&format!("{CONTROL}{databases}{users}{}", user("trusted", "auth = 'trust'")));
    for (name, database, expected) in [
        ("sealed", "open", Err("no encryption")),
        ("sealed", "closed", Ok("t")),
        ("sealed", "both", Ok("t")),
        ("cleartext", "open", Err("a cleartext password on an unencrypted connection")),
        ("cleartext", "closed", Ok("t")),
        ("digest", "open", Ok("f")),
        ("digest", "closed", Ok("t")),
        ("trusted", "open", Ok("f")),
        ("trusted", "closed", Ok("t")),
        (APP, "open", Ok("f")),
    ] {
        check_encryption(&proxy, name, database, &expected);
    }
}

#[test]
fn probes_and_migrations_encrypt_as_the_server_asks() {
    let bench = bench();
    bench.cluster.sql(
        ENCRYPTED,
        Role::Primary,
        "grant create on database shop to sealed; grant create on schema public to sealed",
    );
    let control = CONTROL.replace("postgres", "sealed");
    let keys = format!("tls = 'verify-full'\ntls_ca = {:?}", bench.file("ours.crt"));
    let way = |keys: &str| bench.database("shop", bench.port(ENCRYPTED), keys);
    let proxy = Proxy::start(&format!("{control}{}{}", way(&keys), user(APP, "")));
    // The primary is one only when its probe has seen it.
    check_encryption(&proxy, APP, "shop", &Ok("t"));
    let migrate = |keys: &str| {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("pgweir.toml");
        fs::write(&config, format!("{control}{}{}", way(keys), user(APP, ""))).unwrap();
        fs::write(folder.path().join("1_sealed.sql"), "create table sealed_only (n int)").unwrap();
        let arguments = ["migrate".as_ref(), "--config".as_ref(), config.as_os_str()];
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgweir"));
        command.args(arguments).arg("--dir").arg(folder.path()).output().unwrap()
    };
    let refused = migrate("tls = 'disable'");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("no encryption"), "{said}");
    let done = migrate(&keys);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Stands between the proxy and a server: says that there is no TLS, and keeps what it is told then.
struct Stripper {
    port: u16,
    told: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Stripper {
    fn before(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let stripper = Self { port: listener.local_addr().unwrap().port(), told: Arc::default() };
        let told = Arc::clone(&stripper.told);
        thread::spawn(move || {
            for client in listener.incoming() {
                let told = Arc::clone(&told);
                thread::spawn(move || strip(client.unwrap(), port, &told));
            }
        });
        stripper
    }
}

/// Who does not ask for TLS reaches the server.
fn strip(mut client: TcpStream, port: u16, told: &Mutex<Vec<Vec<u8>>>) {
    let mut first = [0; 8];
    if client.read_exact(&mut first).is_err() {
        return;
    }
    if first == SSL_REQUEST {
        client.write_all(b"N").unwrap();
        let mut rest = Vec::new();
        // However it ends: what came is what counts.
        let _ = client.read_to_end(&mut rest);
        told.lock().unwrap().push(rest);
        return;
    }
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    server.write_all(&first).unwrap();
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || std::io::copy(&mut from, &mut to));
    // Ends with either side.
    let _ = std::io::copy(&mut server, &mut client);
}

#[test]
fn who_strips_tls_learns_nothing() {
    let bench = bench();
    let stripper = Stripper::before(bench.port(ENCRYPTED));
    let ca = bench.file("ours.crt");
    let modes = ["require", "verify-ca", "verify-full"];
    let way = |mode: &&str| bench.database(mode, stripper.port, &format!("tls = \"{mode}\"\ntls_ca = {ca:?}"));
    let databases: String = modes.iter().map(way).collect();
    let proxy = Proxy::start(&format!("{CONTROL}{databases}{}", user("either", "")));
    for mode in modes {
        check_encryption(&proxy, "either", mode, &Err("server does not support TLS"));
    }
    until(|| stripper.told.lock().unwrap().len() >= modes.len());
    assert!(stripper.told.lock().unwrap().iter().all(Vec::is_empty));
}

/// Stands between two who encrypt, with a certificate of its own, and reads all they say.
struct Listener {
    port: u16,
}

impl Listener {
    /// `strips`: it also takes the offer of channel binding away.
    fn before(bench: &Bench, port: u16, strips: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let own = listener.local_addr().unwrap().port();
        let (acceptor, connector) = (bench.acceptor("stranger"), bench.connector());
        listener.set_nonblocking(true).unwrap();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(listen_to_all(listener, acceptor, (connector, port, strips)));
        });
        Self { port: own }
    }
}

async fn listen_to_all(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    (connector, port, strips): (TlsConnector, u16, bool),
) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    while let Ok((client, _)) = listener.accept().await {
        let (acceptor, connector) = (acceptor.clone(), connector.clone());
        tokio::spawn(async move {
            let server = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
            // However it ends: both sides see it.
            let _ = listen_in((acceptor, client), (connector, server), strips).await;
        });
    }
}

type Plain = tokio::net::TcpStream;

async fn listen_in(
    (acceptor, mut client): (TlsAcceptor, Plain),
    (connector, mut server): (TlsConnector, Plain),
    strips: bool,
) -> std::io::Result<()> {
    let mut request = [0; 8];
    client.read_exact(&mut request).await?;
    server.write_all(&request).await?;
    client.write_u8(server.read_u8().await?).await?;
    let mut client = acceptor.accept(client).await?;
    let mut server = connector.connect("localhost".try_into().unwrap(), server).await?;
    let mut startup = [0; 1024];
    let length = client.read(&mut startup).await?;
    server.write_all(&startup[..length]).await?;
    let mut offer = [0; 1024];
    let length = server.read(&mut offer).await?;
    let both = b"R\0\0\0\x2a\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
    let offer = if strips && offer[..length] == both[..] {
        &b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"[..]
    } else {
        &offer[..length]
    };
    client.write_all(offer).await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
}

impl Bench {
    fn acceptor(&self, name: &str) -> TlsAcceptor {
        let pem = |end: &str| fs::read(self.file(&format!("{name}.{end}"))).unwrap();
        let certificates = rustls_pemfile::certs(&mut &pem("crt")[..]).collect::<Result<_, _>>().unwrap();
        let key = rustls_pemfile::private_key(&mut &pem("key")[..]).unwrap().unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_no_client_auth().with_single_cert(certificates, key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// Trusts who signed the servers' certificates.
    fn connector(&self) -> TlsConnector {
        let mut roots = rustls::RootCertStore::empty();
        let pem = fs::read(self.file("ours.crt")).unwrap();
        rustls_pemfile::certs(&mut &pem[..]).for_each(|certificate| roots.add(certificate.unwrap()).unwrap());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }
}

/// Whoever is in between and has a certificate that the other side takes is found out by SCRAM, on both sides of the
/// proxy; PostgreSQL and psql say on the other side what they make of it.
#[test]
fn who_listens_in_is_found_out_by_channel_binding() {
    let bench = bench();
    let (certificate, key) = (bench.file("server.crt"), bench.file("server.key"));
    let tls = format!("[general.tls]\nmode = 'prefer'\ncertificate = {certificate:?}\nprivate_key = {key:?}\n");
    let listeners = [false, true].map(|strips| Listener::before(bench, bench.port(ENCRYPTED), strips));
    let ways = [("bound", listeners[0].port), ("stripped", listeners[1].port), ("open", bench.port(ENCRYPTED))];
    let databases = ways.map(|(name, port)| bench.database(name, port, "tls = 'require'")).concat();
    // The probes' role is asked for nothing, so that all servers are up.
    let control = CONTROL.replace("postgres", "trusted");
    let users = [user("either", ""), user("digest", "auth = 'md5'")].concat();
    let proxy = Proxy::start(&format!("{tls}{control}{databases}{users}"));
    // To servers: md5 is bound to nothing and shows that the way is there.
    for (name, database, expected) in [
        ("digest", "bound", Ok("t")),
        ("digest", "stripped", Ok("t")),
        ("either", "open", Ok("t")),
        ("either", "bound", Err("SCRAM channel binding check failed (SQLSTATE 28000)")),
        ("either", "stripped", Err("SCRAM channel binding negotiation error (SQLSTATE 28000)")),
    ] {
        check_encryption(&proxy, name, database, &expected);
    }
    // From clients.
    let [bound, stripped] = [false, true].map(|strips| Listener::before(bench, proxy.port, strips));
    let enters = |name: &str, port: u16, keys: &str| {
        let conninfo = format!("dbname=open sslmode=require {keys}");
        let output = psql_as(name, port, &conninfo, PASSWORD, &["-c", "select 1"]);
        if output.status.success() { Ok(()) } else { Err(String::from_utf8(output.stderr).unwrap()) }
    };
    for listener in [&bound, &stripped] {
        assert_eq!(enters("digest", listener.port, ""), Ok(()));
        // Who does not want to bind cannot be helped.
        assert_eq!(enters("either", listener.port, "channel_binding=disable"), Ok(()));
    }
    for (listener, keys, expected) in [
        (&bound, "", "FATAL:  SCRAM channel binding check failed"),
        (&bound, "channel_binding=require", "FATAL:  SCRAM channel binding check failed"),
        (&stripped, "", "FATAL:  SCRAM channel binding negotiation error"),
        (&stripped, "channel_binding=require", "channel binding"),
    ] {
        let said = enters("either", listener.port, keys).unwrap_err();
        assert!(said.contains(expected), "{keys}: {said}");
    }
    assert_eq!(enters("either", proxy.port, "channel_binding=require"), Ok(()));
}

#[test]
fn much_passes_through_both_encryptions() {
    let bench = bench();
    let (certificate, key, ca) = (bench.file("server.crt"), bench.file("server.key"), bench.file("ours.crt"));
    let shop = bench.database("shop", bench.port(ENCRYPTED), &format!("tls = 'verify-full'\ntls_ca = {ca:?}"));
    let tls = format!("[general.tls]\nmode = 'require'\ncertificate = {certificate:?}\nprivate_key = {key:?}\n");
    let proxy = Proxy::start(&format!("{tls}{CONTROL}{shop}{}", user(APP, "")));
    let text = "select n, repeat('row ', 500) from generate_series(1, 5000) n; select repeat('long', 2000000)";
    let direct = psql_as(APP, bench.port(ENCRYPTED), "shop", PASSWORD, &["-c", text]);
    let proxied = psql_as(APP, proxy.port, "dbname=shop sslmode=require", PASSWORD, &["-c", text]);
    assert!(direct.status.success() && proxied.stdout == direct.stdout);
    let rows: String = (0..50_000).map(|n| format!("{n}\tsome text of row {n}\n")).collect();
    let file = bench.file("rows.txt");
    fs::write(&file, rows).unwrap();
    let copy = format!("\\copy pg_temp.t from '{}'", file.display());
    let arguments = ["-t", "-c", "create temp table t(n int, body text)", "-c", &copy, "-c", "select sum(n) from t"];
    let copied = psql_as(APP, proxy.port, "dbname=shop sslmode=require", PASSWORD, &arguments);
    let said = String::from_utf8_lossy(&copied.stdout);
    assert!(said.ends_with("1249975000\n"), "{said}{}", String::from_utf8_lossy(&copied.stderr));
    // The encryption holds some of it while the server is slow to read.
    fs::write(&file, format!("select length('{}');\n", "x".repeat(8_000_000)).repeat(5)).unwrap();
    let arguments = ["-At", "-f", file.to_str().unwrap()];
    let long = psql_as(APP, proxy.port, "dbname=shop sslmode=require connect_timeout=10", PASSWORD, &arguments);
    assert_eq!(String::from_utf8_lossy(&long.stdout), "8000000\n".repeat(5));
}

/// A client that hears nothing of the end of the encryption takes the connection for cut off.
#[test]
fn the_end_of_a_session_is_told_within_the_encryption() {
    let bench = bench();
    let (certificate, key) = (bench.file("server.crt"), bench.file("server.key"));
    let tls = format!("[general.tls]\nmode = 'require'\ncertificate = {certificate:?}\nprivate_key = {key:?}\n");
    let shop = bench.database("shop", bench.port(ENCRYPTED), "");
    let proxy = Proxy::start(&format!("{tls}{CONTROL}{shop}{}", user(APP, "")));
    let ended = |port: u16| {
        let end = ["-c", "select pg_terminate_backend(pg_backend_pid())"];
        let output = psql_as(APP, port, "dbname=shop sslmode=require", PASSWORD, &end);
        String::from_utf8(output.stderr).unwrap()
    };
    let direct = ended(bench.port(ENCRYPTED));
    assert!(direct.contains("SSL connection has been closed unexpectedly"), "{direct}");
    assert_eq!(ended(proxy.port), direct);
}

#[tokio::test]
async fn a_cancel_request_reaches_a_server_that_speaks_tls() {
    let proxy = tokio::task::spawn_blocking(|| {
        let bench = bench();
        let keys = format!("tls = 'verify-full'\ntls_ca = {:?}", bench.file("ours.crt"));
        let shop = bench.database("shop", bench.port(ENCRYPTED), &keys);
        Proxy::start(&format!("{CONTROL}{shop}{}", user("sealed", "")))
    });
    let port = proxy.await.unwrap();
    let login = format!("host=127.0.0.1 port={} user=sealed password='{PASSWORD}' dbname=shop", port.port);
    assert_eq!(cancelled(&login).await.as_deref(), Some("57014"));
}

#[test]
fn scram_takes_the_right_password_and_tells_nothing_about_wrong_ones() {
    let bench = bench();
    let verifier = "select rolpassword from pg_authid where rolname = 'kept'";
    let verifier = bench.cluster.sql(ENCRYPTED, Role::Primary, verifier);
    let shop = bench.database("shop", bench.port(ENCRYPTED), "tls = 'disable'");
    let users = [
        user(APP, ""),
        user("kept", &format!("scram_verifier = '{verifier}'\nserver_password = '{PASSWORD}'")),
        user("letters", &format!("password = '{LETTERS}'")),
        user("alias", &format!("password = 'of the alias'\nserver_user = '{APP}'\nserver_password = '{PASSWORD}'")),
        user("trusted", "auth = 'trust'"),
        user("elsewhere", "database = 'other'"),
    ]
    .concat();
    let other = bench.database("other", bench.port(ENCRYPTED), "tls = 'disable'");
    let proxy = Proxy::start(&format!("{CONTROL}{shop}{other}{users}"));
    let login = |name: &str, password: &str| Login {
        host: "127.0.0.1".to_owned(),
        port: proxy.port,
        database: "shop".to_owned(),
        user: name.to_owned(),
        password: password.to_owned(),
        tls: ServerTls::Disable,
        tls_ca: None,
        tls_negotiation: TlsNegotiation::Postgres,
    };
    for (name, password, seen_as) in [
        (APP, PASSWORD, APP),
        ("kept", PASSWORD, "kept"),
        ("letters", LETTERS, "letters"),
        ("alias", "of the alias", APP),
        ("trusted", "whatever", "trusted"),
    ] {
        assert_eq!(sql(&login(name, password), "select user"), Ok(seen_as.to_owned()), "{name}");
    }
    for (name, password) in
        [(APP, "wrong"), ("kept", "wrong"), ("alias", PASSWORD), ("nobody", PASSWORD), ("elsewhere", PASSWORD)]
    {
        assert_eq!(sql(&login(name, password), "select 1"), Err("28P01".to_owned()), "{name}");
        let output = psql_as(name, proxy.port, "shop", password, &["-c", "select 1"]);
        let said = String::from_utf8(output.stderr).unwrap();
        let expected = format!("FATAL:  password authentication failed for user \"{name}\"");
        assert_eq!(said.lines().next().unwrap().split_once("failed: ").unwrap().1, expected);
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

/// On both sides; what is required of the network's clients is not of these, whom nobody overhears.
#[test]
fn unix_sockets_are_served_and_used() {
    let bench = bench();
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key, ca) = (bench.file("server.crt"), bench.file("server.key"), bench.file("ours.crt"));
    let general = format!("unix_socket_dir = {:?}\nunix_socket_mode = '0770'\n", folder.path());
    let tls = format!(
        "[general.tls]\nmode = 'verify-full'\ncertificate = {certificate:?}\nprivate_key = {key:?}\nclient_ca = {ca:?}\n"
    );
    let sockets = bench.file("sockets");
    let shop = bench.database("shop", bench.port(CLEAR), &format!("host = {sockets:?}"));
    let users = [user(APP, ""), user("cleartext", "auth = 'password'"), user("either", "auth = 'md5'")].concat();
    let mut proxy = Proxy::start(&format!("{general}{tls}{CONTROL}{shop}{users}"));
    let socket = folder.path().join(format!(".s.PGSQL.{}", proxy.port));
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o770);
    let host = folder.path().display();
    let asks = |name: &str, keys: &str, sql: &str| {
        let conninfo = format!("host={host} {keys}");
        let output = psql_as(name, proxy.port, &conninfo, PASSWORD, &["-t", "-c", sql]);
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap().trim().to_owned()
    };
    // The server, too, sees a client of its own machine.
    let seen = "select user, client_addr, client_port from pg_stat_activity where pid = pg_backend_pid()";
    for (name, keys) in [(APP, "sslmode=require"), (APP, "sslmode=disable"), ("cleartext", ""), ("either", "")] {
        assert_eq!(asks(name, &format!("dbname=shop {keys}"), seen), format!("{name}||-1"), "{keys}");
    }
    let addresses = |show: &str| {
        let shown = asks(APP, "dbname=pgweir", show);
        shown.lines().map(|line| line.split('|').nth(4).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(addresses("show clients"), ["unix"]);
    let servers = addresses("show servers");
    assert!(!servers.is_empty() && servers.iter().all(|address| address == "unix"), "{servers:?}");
    check_cancel(folder.path(), proxy.port);
    // Requests for encryption are declined; what stays is the network's own rule.
    let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let mut answer = [0];
    stream.write_all(&SSL_REQUEST).and_then(|()| stream.read_exact(&mut answer)).unwrap();
    assert_eq!(answer, *b"N");
    bench.check_refused(&proxy, "sslmode=disable", "connections must be encrypted");
    drop(stream);
    assert!(proxy.terminate().success());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}

/// A statement of a client on the socket is ended by a request that comes the same way.
fn check_cancel(folder: &Path, port: u16) {
    let login = format!("host={} port={port} user={APP} password='{PASSWORD}' dbname=shop", folder.display());
    let code = support::wait_for(async move { cancelled(&login).await });
    assert_eq!(code.as_deref(), Some("57014"));
}

/// Who logs in, and what the server says it is; or the SQLSTATE.
fn enters(proxy: &Proxy, database: &str, name: &str, password: &str) -> Result<String, String> {
    let login = Login {
        host: "127.0.0.1".to_owned(),
        port: proxy.port,
        database: database.to_owned(),
        user: name.to_owned(),
        password: password.to_owned(),
        tls: ServerTls::Disable,
        tls_ca: None,
        tls_negotiation: TlsNegotiation::Postgres,
    };
    sql(&login, "select user")
}

fn asked(name: &str) -> String {
    format!("[[users]]\nname = \"{name}\"\nauth = \"query\"\n")
}

/// Passwords stand in no file: the server is asked whom it lets in, each time, and connections are opened by what the
/// client has shown.
#[test]
fn the_servers_say_who_may_log_in() {
    let bench = bench();
    let say = |text: &str| bench.cluster.sql(CLEAR, Role::Primary, text);
    say(&format!("create role asked login password '{PASSWORD}'"));
    say(&format!("create role expired login password '{PASSWORD}' valid until 'yesterday'"));
    say(&format!("create role locked nologin password '{PASSWORD}'"));
    say("create role bare login");
    let users = ["asked", "expired", "locked", "bare", "missing", "digest"].map(asked).concat();
    let databases = bench.database("shop", bench.port(CLEAR), "") + &bench.database("md5", bench.port(ENCRYPTED), "");
    let proxy = Proxy::start(&format!("{CONTROL}{databases}{users}"));
    let wrong = Err("28P01".to_owned());
    assert_eq!(enters(&proxy, "shop", "asked", PASSWORD), Ok("asked".to_owned()));
    assert_eq!(enters(&proxy, "pgweir", "asked", "wrong"), wrong);
    assert_eq!(enters(&proxy, "md5", "digest", PASSWORD), Ok("digest".to_owned()));
    for (database, name, password) in [
        ("shop", "asked", "wrong"),
        ("shop", "asked", ""),
        ("shop", "expired", PASSWORD),
        ("shop", "locked", PASSWORD),
        ("shop", "bare", PASSWORD),
        ("shop", "bare", ""),
        ("shop", "missing", PASSWORD),
        ("shop", "postgres", PASSWORD),
        ("md5", "digest", "wrong"),
    ] {
        assert_eq!(enters(&proxy, database, name, password), wrong, "{name} {password}");
    }
    // A new password holds at once, for clients and for connections; so do a new role's right and its end.
    for password in ["one", "two", "three"] {
        say(&format!("alter role asked password '{password}'"));
        assert_eq!(enters(&proxy, "shop", "asked", PASSWORD), wrong);
        say("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'asked'");
        until(|| say("select count(*) from pg_stat_activity where usename = 'asked'") == "0");
        assert_eq!(enters(&proxy, "shop", "asked", password), Ok("asked".to_owned()));
    }
    say(&format!("alter role locked login; create role missing login password '{PASSWORD}'"));
    for name in ["locked", "missing"] {
        assert_eq!(enters(&proxy, "shop", name, PASSWORD), Ok(name.to_owned()));
        say(&format!("alter role {name} nologin"));
        assert_eq!(enters(&proxy, "shop", name, PASSWORD), wrong);
    }
}

/// A client's key opens what keeps the same verifier; the refusal of another one says what to do.
#[test]
fn servers_with_another_verifier_are_told_apart() {
    let bench = bench();
    let shard = |number: u16, port: u16| bench.database("both", port, &format!("shard = {number}"));
    let both = shard(0, bench.port(CLEAR)) + &shard(1, bench.port(ENCRYPTED));
    let ask = |proxy: &Proxy| {
        let arguments = ["-t", "-c", "/* pgweir: shard=0 */ select user", "-c", "/* pgweir: shard=1 */ select user"];
        let output = psql_as("kept", proxy.port, "both", PASSWORD, &arguments);
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let proxy = Proxy::start(&format!("{CONTROL}{both}{}", asked("kept")));
    let said = ask(&proxy);
    assert!(said.starts_with("kept\n") && said.contains("another SCRAM verifier"), "{said}");
    let verifier =
        bench.cluster.sql(ENCRYPTED, Role::Primary, "select rolpassword from pg_authid where rolname = 'kept'");
    bench.cluster.sql(CLEAR, Role::Primary, &format!("alter role kept password '{verifier}'"));
    assert_eq!(ask(&proxy), "kept\nkept\n");
}

/// A function that its owner lends its rights to, asked by a role without rights; whatever it answers that is not one
/// secret of just this user lets nobody in.
#[test]
fn a_function_may_say_who_logs_in() {
    let bench = bench();
    let say = |text: &str| bench.cluster.sql(CLEAR, Role::Primary, text);
    say(&format!("create role asker login password '{PASSWORD}'"));
    for name in ["twice", "other", "nothing", "plain", "broken"] {
        say(&format!("create role {name} login password '{PASSWORD}'"));
    }
    say("create function public.who(wanted text) returns table (name name, secret text) language plpgsql
         security definer set search_path = pg_catalog as $$ begin
             if wanted = 'broken' then raise 'no answer'; end if;
             return query select case wanted when 'other' then 'asker' else rolname end,
                 case wanted when 'nothing' then null when 'plain' then 'correct horse' else rolpassword end
                 from pg_authid, generate_series(1, case wanted when 'twice' then 2 else 1 end) where rolname = wanted;
         end $$");
    let users = ["asker", "twice", "other", "nothing", "plain", "broken"].map(asked).concat();
    let control = CONTROL.replace("postgres", "asker");
    let shop = bench.database("shop", bench.port(CLEAR), "");
    let general = "auth_query = 'SELECT name, secret FROM public.who($1)'\n";
    let proxy = Proxy::start(&format!("{general}{control}{shop}{users}"));
    assert_eq!(enters(&proxy, "shop", "asker", PASSWORD), Ok("asker".to_owned()));
    for name in ["twice", "other", "nothing", "plain", "nobody"] {
        assert_eq!(enters(&proxy, "shop", name, PASSWORD), Err("28P01".to_owned()), "{name}");
    }
    assert_eq!(enters(&proxy, "shop", "broken", PASSWORD), Err("57P03".to_owned()));
    say("select pg_terminate_backend(pid, 10000) from pg_stat_activity where usename = 'asker'");
    assert_eq!(enters(&proxy, "shop", "asker", PASSWORD), Ok("asker".to_owned()));
    // What a client asks for at its log-in is no business of the session that is asked.
    let output = Command::new("psql")
        .args([
            "-XAt",
            "-h",
            "127.0.0.1",
            "-p",
            &proxy.port.to_string(),
            "-U",
            "asker",
            "-d",
            "shop",
            "-c",
            "show search_path",
        ])
        .envs([("PGPASSWORD", PASSWORD), ("PGOPTIONS", "-c search_path=nowhere -c default_transaction_read_only=on")])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "nowhere\n");
    assert_eq!(enters(&proxy, "shop", "asker", PASSWORD), Ok("asker".to_owned()));
}

#[test]
fn the_readmes_function_says_who_logs_in() {
    let bench = bench();
    let readme = fs::read_to_string("README.md").unwrap();
    let function = readme.split("```").find_map(|part| part.strip_prefix("sql\nCREATE FUNCTION")).unwrap();
    let query = readme.split("`auth_query = ").nth(1).unwrap().split('`').next().unwrap();
    let say = |text: &str| bench.cluster.sql(CLEAR, Role::Primary, text);
    say(&format!("create role pgweir login password '{PASSWORD}'; create role shown login password '{PASSWORD}'"));
    say(&format!("CREATE FUNCTION{function}"));
    let control = CONTROL.replace("postgres", "pgweir");
    let (shop, users) = (bench.database("shop", bench.port(CLEAR), ""), asked("shown") + &asked("postgres"));
    let proxy = Proxy::start(&format!("auth_query = {query}\n{control}{shop}{users}"));
    assert_eq!(enters(&proxy, "shop", "shown", PASSWORD), Ok("shown".to_owned()));
    assert_eq!(enters(&proxy, "shop", "shown", "wrong"), Err("28P01".to_owned()));
    assert_eq!(enters(&proxy, "shop", "postgres", PASSWORD), Err("28P01".to_owned()), "no superuser");
}

/// Each user's own `auth` decides what is asked of a client, by name and before it has said more.
#[test]
fn each_user_proves_who_it_is_in_the_way_that_its_entry_says() {
    let bench = bench();
    let (certificate, key) = (bench.file("server.crt"), bench.file("server.key"));
    let verifier = "select rolpassword from pg_authid where rolname = 'kept'";
    let verifier = bench.cluster.sql(ENCRYPTED, Role::Primary, verifier);
    let users = [
        user(APP, ""),
        user("digest", "auth = 'md5'"),
        user("letters", &format!("password = '{LETTERS}'\nauth = 'md5'")),
        user("cleartext", "auth = 'password'"),
        user("kept", &format!("scram_verifier = '{verifier}'\nserver_password = '{PASSWORD}'\nauth = 'password'")),
    ];
    let tls = format!("[general.tls]\nmode = 'prefer'\ncertificate = {certificate:?}\nprivate_key = {key:?}\n");
    let shop = bench.database("shop", bench.port(ENCRYPTED), "");
    let proxy = Proxy::start(&format!("{tls}{CONTROL}{shop}{}", users.concat()));
    let asked = |name: &str| answer_to(&proxy, &startup(name), 9)[5..].to_vec();
    for (name, method) in [(APP, 10), ("nobody", 10), ("digest", 5), ("letters", 5)] {
        assert_eq!(asked(name), [0, 0, 0, method], "{name}");
    }
    let enters = |name: &str, mode: &str, password: &str| {
        let conninfo = format!("dbname=shop sslmode={mode}");
        let output = psql_as(name, proxy.port, &conninfo, password, &["-t", "-c", "select user"]);
        let line = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().to_owned();
        if output.status.success() { Ok(line(&output.stdout)) } else { Err(line(&output.stderr)) }
    };
    for (name, password) in
        [("digest", PASSWORD), ("letters", LETTERS), ("cleartext", PASSWORD), ("kept", PASSWORD), (APP, PASSWORD)]
    {
        assert_eq!(enters(name, "require", password), Ok(name.to_owned()));
        for wrong in ["wrong", &PASSWORD[1..], &"long".repeat(1000)] {
            let said = enters(name, "require", wrong).unwrap_err();
            let expected = format!("FATAL:  password authentication failed for user \"{name}\"");
            assert_eq!(said.split_once("failed: ").unwrap().1, expected);
        }
        match (name, enters(name, "disable", password)) {
            ("cleartext" | "kept", Err(said)) => assert!(said.contains("is told over TLS only"), "{said}"),
            (_, entered) => assert_eq!(entered, Ok(name.to_owned())),
        }
    }
}

/// The first packet of a client in database `shop`.
fn startup(name: &str) -> Vec<u8> {
    let body = [b"\0\x03\0\0user\0", name.as_bytes(), b"\0database\0shop\0\0"].concat();
    [&u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], &body].concat()
}

/// Index of the server with TLS, and of the one without.
const ENCRYPTED: u16 = 0;
const CLEAR: u16 = 1;

/// Not in ASCII, and with a character that SASLprep takes out.
const LETTERS: &str = "grün\u{ad}e Straße №5";

/// The control plane logs in without TLS.
const CONTROL: &str = "[control]\nuser = \"postgres\"\npassword = \"correct horse\"\n";

const HBA: &str = "\
host all postgres 127.0.0.1/32 scram-sha-256
hostssl all sealed 127.0.0.1/32 scram-sha-256
host all cleartext 127.0.0.1/32 password
host all digest 127.0.0.1/32 md5
host all trusted 127.0.0.1/32 trust
host all app,either,kept,letters,passed,asked_here 127.0.0.1/32 scram-sha-256
";

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];
