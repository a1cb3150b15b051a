//! Rules who may come from where, beside PostgreSQL with the same rules; and certificates as the proof.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, UnixStream};
use tokio_rustls::TlsConnector;

use super::*;

/// The same rules in both languages; the roles are the bench's.
const RULES: &[(&str, &str)] = &[
    ("local all trusted trust", "user = 'trusted'\naddress = 'local'\nmethod = 'trust'"),
    ("local all cleartext password", "user = 'cleartext'\naddress = 'local'\nmethod = 'password'"),
    ("local all app,either scram-sha-256", "user = ['app', 'either']\naddress = 'local'\nmethod = 'scram-sha-256'"),
    ("host all all 127.0.0.66/32 reject", "address = '127.0.0.66'\nmethod = 'reject'"),
    (
        "hostssl shop app 127.0.0.0/28 cert",
        "database = 'shop'\nuser = 'app'\naddress = '127.0.0.0/28'\ntls = true\nmethod = 'cert'",
    ),
    (
        "hostssl shop kept all cert map=people",
        "database = 'shop'\nuser = 'kept'\ntls = true\nmethod = 'cert'\nmap = 'people'",
    ),
    (
        "hostssl all either all scram-sha-256 clientcert=verify-ca",
        "user = 'either'\ntls = true\nmethod = 'scram-sha-256'\nclientcert = 'verify-ca'",
    ),
    (
        "hostssl all letters all cert clientname=DN map=desks",
        "user = 'letters'\ntls = true\nmethod = 'cert'\nclientname = 'DN'\nmap = 'desks'",
    ),
    ("hostnossl all digest 127.0.0.0/8 md5", "user = 'digest'\naddress = '127.0.0.0/8'\ntls = false\nmethod = 'md5'"),
    (
        "hostssl all digest,cleartext 127.0.0.0/8 password",
        "user = ['digest', 'cleartext']\naddress = '127.0.0.0/8'\ntls = true\nmethod = 'password'",
    ),
    ("hostssl postgres all all reject", "database = 'postgres'\ntls = true\nmethod = 'reject'"),
    (
        "host shop,postgres app 127.0.0.32/27 scram-sha-256",
        "database = ['shop', 'postgres']\nuser = 'app'\naddress = '127.0.0.32/27'\nmethod = 'scram-sha-256'",
    ),
    (
        "hostssl all sealed 0.0.0.0/0 scram-sha-256",
        "user = 'sealed'\naddress = '0.0.0.0/0'\ntls = true\nmethod = 'scram-sha-256'",
    ),
    (
        "host all trusted,nobody ::/0 scram-sha-256",
        "user = ['trusted', 'nobody']\naddress = '::/0'\nmethod = 'scram-sha-256'",
    ),
    (
        "host all trusted,nobody 127.0.0.0/16 trust",
        "user = ['trusted', 'nobody']\naddress = '127.0.0.0/16'\nmethod = 'trust'",
    ),
    (
        "host postgres all all scram-sha-256",
        "database = 'postgres'\naddress = ['0.0.0.0/0', '::/0']\nmethod = 'scram-sha-256'",
    ),
];

const MAPS: &[(&str, &str, &str)] = &[
    ("people", r"/^(.*)@shop\.example$", r"\1"),
    ("people", "carla", "kept"),
    ("desks", "CN=carla,OU=desk,O=Shop", "letters"),
    ("desks", "/OU=board", "letters"),
];

/// Where a connection comes from, and what it shows.
#[derive(Clone, Copy, Debug)]
enum From {
    Unix,
    Clear(u8),
    Tls(u8),
    /// With the certificate of this name.
    Shows(&'static str),
}

/// What comes first after the startup packet.
async fn told(mut stream: impl AsyncRead + AsyncWrite + Unpin, database: &str, user: &str) -> String {
    let body = [b"\0\x03\0\0user\0", user.as_bytes(), b"\0database\0", database.as_bytes(), b"\0\0"].concat();
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    stream.write_all(&[&length[..], &body].concat()).await.unwrap();
    let (kind, body) = message(&mut stream).await;
    // PostgreSQL looks for the role when the proof is done.
    let (kind, body) =
        if (kind, body.as_slice()) == (b'R', &[0; 4]) { message(&mut stream).await } else { (kind, body) };
    let field = |wanted: u8| {
        let found = body.split(|&byte| byte == 0).find(|field| field.first() == Some(&wanted));
        String::from_utf8_lossy(&found.unwrap_or_default()[1..]).into_owned()
    };
    match (kind, body.get(3)) {
        (b'S', _) => "enters".to_owned(),
        (b'R', Some(3)) => "is asked for the password".to_owned(),
        (b'R', Some(5)) => "is asked for MD5".to_owned(),
        (b'R', Some(10)) => "is asked for SCRAM".to_owned(),
        (b'E', _) => format!("{}: {}", field(b'C'), field(b'M')),
        other => panic!("{other:?}"),
    }
}

async fn message(stream: &mut (impl AsyncRead + Unpin)) -> (u8, Vec<u8>) {
    let kind = stream.read_u8().await.unwrap();
    let length = stream.read_u32().await.unwrap();
    let mut body = vec![0; length as usize - 4];
    stream.read_exact(&mut body).await.unwrap();
    (kind, body)
}

/// Connects from an address of this machine.
async fn connect(from: u8, port: u16) -> tokio::net::TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, from)), 0)).unwrap();
    socket.connect((Ipv4Addr::LOCALHOST, port).into()).await.unwrap()
}

async fn answer(from: From, (port, sockets): (u16, &Path), (database, user): (&str, &str)) -> String {
    let encrypt = async |from: u8, connector: TlsConnector| {
        let mut stream = connect(from, port).await;
        stream.write_all(&SSL_REQUEST).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'S');
        connector.connect("localhost".try_into().unwrap(), stream).await.unwrap()
    };
    match from {
        From::Unix => {
            let stream = UnixStream::connect(sockets.join(format!(".s.PGSQL.{port}"))).await.unwrap();
            told(stream, database, user).await
        }
        From::Clear(from) => told(connect(from, port).await, database, user).await,
        From::Tls(from) => told(encrypt(from, bench().connector()).await, database, user).await,
        From::Shows(name) => told(encrypt(1, bench().shower(name)).await, database, user).await,
    }
}

impl Bench {
    /// Trusts who signed the servers' certificates, and shows one itself.
    pub(super) fn shower(&self, name: &str) -> TlsConnector {
        let pem = |end: &str| fs::read(self.file(&format!("{name}.{end}"))).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        let authorities = fs::read(self.file("ours.crt")).unwrap();
        rustls_pemfile::certs(&mut &authorities[..]).for_each(|certificate| roots.add(certificate.unwrap()).unwrap());
        let certificates = rustls_pemfile::certs(&mut &pem("crt")[..]).collect::<Result<_, _>>().unwrap();
        let key = rustls_pemfile::private_key(&mut &pem("key")[..]).unwrap().unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_root_certificates(roots).with_client_auth_cert(certificates, key).unwrap();
        TlsConnector::from(Arc::new(config))
    }

    /// `[general.tls]` with everything.
    pub(super) fn tls(&self) -> String {
        let (certificate, key, ca) = (self.file("server.crt"), self.file("server.key"), self.file("ours.crt"));
        format!(
            "[general.tls]\nmode = 'prefer'\ncertificate = {certificate:?}\nprivate_key = {key:?}\nclient_ca = {ca:?}\n"
        )
    }
}

fn rules_toml() -> String {
    let rules = RULES.iter().map(|(_, rule)| format!("[[hba]]\n{rule}\n"));
    let maps = MAPS
        .iter()
        .map(|(map, identity, user)| format!("[[ident]]\nmap = '{map}'\nidentity = '{identity}'\nuser = '{user}'\n"));
    rules.chain(maps).collect()
}

/// A server of its own with these rules, and TLS.
fn server_with_rules() -> Cluster {
    let (bench, cluster) = (bench(), Cluster::start(1, 0));
    let server = cluster.primary(0);
    bench.make_roles(&cluster);
    let data = server.data();
    let own = fs::metadata(data).unwrap();
    let place = |name: &str, text: &[u8]| {
        let file = data.join(name);
        fs::write(&file, text).unwrap();
        chown(&file, Some(own.uid()), Some(own.gid())).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    };
    for file in ["server.crt", "server.key", "ours.crt"] {
        place(file, &fs::read(bench.file(file)).unwrap());
    }
    let rules: String = RULES.iter().map(|(rule, _)| format!("{rule}\n")).collect();
    let maps: String = MAPS.iter().map(|(map, identity, user)| format!("{map} \"{identity}\" {user}\n")).collect();
    // Whoever is superuser comes in, so that the test can.
    place("pg_hba.conf", format!("host all postgres 127.0.0.1/32 scram-sha-256\n{rules}").as_bytes());
    place("pg_ident.conf", maps.as_bytes());
    let folder = bench.file("sockets");
    let say = |text: &str| cluster.sql(0, Role::Primary, text);
    say("ALTER SYSTEM SET ssl = on");
    say("ALTER SYSTEM SET ssl_ca_file = 'ours.crt'");
    say(&format!("ALTER SYSTEM SET unix_socket_directories = '{}'", folder.display()));
    server.stop(Stop::Fast);
    server.start().unwrap();
    cluster
}

/// Every connection is asked for the same, or refused in the same words, by the proxy and by PostgreSQL.
#[test]
fn rules_decide_as_those_of_postgresql() {
    let (bench, cluster) = (bench(), server_with_rules());
    let folder = tempfile::tempdir().unwrap();
    // Behind the proxy a server that does not mind.
    let port = bench.port(CLEAR);
    let databases =
        ["shop", "postgres"].map(|name| format!("[[databases]]\nname = '{name}'\nhost = '127.0.0.1'\nport = {port}\n"));
    let users = [
        user("app", ""),
        user("either", ""),
        user("kept", ""),
        user("letters", &format!("password = '{LETTERS}'")),
        user("digest", ""),
        user("cleartext", ""),
        user("sealed", ""),
        user("trusted", "server_user = 'app'"),
    ];
    let rules = rules_toml().replace("'nobody'", "'/^nobody$'");
    let general = format!("unix_socket_dir = {:?}\n{}{CONTROL}", folder.path(), bench.tls());
    let proxy = Proxy::start(&format!("{general}{}{}{rules}", databases.concat(), users.concat()));
    let sides = [(cluster.primary(0).port(), bench.file("sockets")), (proxy.port, folder.path().to_owned())];
    let mut seen = BTreeSet::new();
    let froms = [
        From::Unix,
        From::Clear(1),
        From::Clear(33),
        From::Clear(66),
        From::Tls(1),
        From::Tls(33),
        From::Tls(66),
        From::Shows("client"),
        From::Shows("carla"),
        From::Shows("mail"),
        From::Shows("board"),
    ];
    for from in froms {
        let of = |(port, sockets): (u16, PathBuf)| support::wait_for(answers(from, port, sockets));
        let [expected, told] = sides.clone().map(of);
        assert_eq!(told, expected, "{from:?}");
        let kind =
            |text: &String| text.split(" for host").next().unwrap().split(" for user").next().unwrap().to_owned();
        seen.extend(expected.values().map(kind));
    }
    // PostgreSQL was brought to say all of it.
    let wanted = [
        "28000: certificate authentication failed",
        "28000: connection requires a valid client certificate",
        "28000: no pg_hba.conf entry",
        "28000: pg_hba.conf rejects connection",
        "28000: role \"nobody\" does not exist",
        "enters",
        "is asked for MD5",
        "is asked for SCRAM",
        "is asked for the password",
    ];
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), wanted);
}

/// Of every role in both databases.
async fn answers(from: From, port: u16, sockets: PathBuf) -> BTreeMap<(&'static str, &'static str), String> {
    let names = ["app", "either", "kept", "letters", "digest", "cleartext", "sealed", "trusted", "nobody"];
    let all = ["shop", "postgres"].into_iter().flat_map(|database| names.map(|name| (database, name)));
    let asked = all.map(|who| {
        let sockets = sockets.clone();
        (who, tokio::spawn(async move { answer(from, (port, &sockets), who).await }))
    });
    let mut answers = BTreeMap::new();
    for (who, answer) in asked.collect::<Vec<_>>() {
        answers.insert(who, answer.await.unwrap());
    }
    answers
}

const PEOPLE: &str = "
[[hba]]
database = '/^b.ck$'
tls = true
clientcert = 'verify-full'
[[hba]]
user = 'kept'
tls = true
method = 'cert'
map = 'people'
[[hba]]
user = ['either', 'app']
[[ident]]
map = 'people'
identity = '/^(.+)@shop\\.example$'
user = '\\1'
[[ident]]
map = 'people'
identity = 'carla'
user = 'kept'
";

/// What rules let in gets to the server, and what they ask for is asked for.
#[test]
fn certificates_prove_who_somebody_is() {
    let bench = bench();
    let shop = bench.database("shop", bench.port(CLEAR), "") + &bench.database("back", bench.port(CLEAR), "");
    let users = [
        format!("[[users]]\nname = 'app'\nauth = 'cert'\nserver_password = '{PASSWORD}'\n"),
        user("either", ""),
        user("kept", ""),
        user("letters", &format!("password = '{LETTERS}'")),
    ];
    let proxy = Proxy::start(&format!("{}{CONTROL}{shop}{}{PEOPLE}", bench.tls(), users.concat()));
    let enters = |name: &str, database: &str, shows: &str, password: &str| {
        let file = |end: &str| bench.file(&format!("{shows}.{end}")).display().to_string();
        let shown = match shows {
            "" => String::new(),
            _ => format!("sslcert={} sslkey={}", file("crt"), file("key")),
        };
        let conninfo = format!("dbname={database} sslmode=require {shown}");
        let output = psql_as(name, proxy.port, &conninfo, password, &["-t", "-c", "select user"]);
        let line = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().to_owned();
        if output.status.success() {
            return line(&output.stdout);
        }
        line(&output.stderr).split_once("FATAL:  ").map_or_else(|| line(&output.stderr), |(_, said)| said.to_owned())
    };
    let (none, other) =
        ("connection requires a valid client certificate", "certificate authentication failed for user");
    for (name, database, shows, password, expected) in [
        // The user's own entry asks for it, where no rule says more.
        ("app", "shop", "client", "", "app".to_owned()),
        ("app", "shop", "", "", none.to_owned()),
        ("app", "shop", "carla", PASSWORD, format!("{other} \"app\"")),
        ("app", "pgweir", "carla", PASSWORD, format!("{other} \"app\"")),
        // By a map.
        ("kept", "shop", "carla", "", "kept".to_owned()),
        ("kept", "shop", "mail", "", "kept".to_owned()),
        ("kept", "shop", "client", "", format!("{other} \"kept\"")),
        // Beside a password: both, each the user's own.
        ("either", "shop", "", PASSWORD, "either".to_owned()),
        ("either", "back", "", PASSWORD, none.to_owned()),
        ("either", "back", "client", PASSWORD, format!("{other} \"either\"")),
        ("either", "back", "either", PASSWORD, "either".to_owned()),
        ("either", "back", "either", "wrong", "password authentication failed for user \"either\"".to_owned()),
    ] {
        assert_eq!(enters(name, database, shows, password), expected, "{name} {database} {shows} {password}");
    }
    let said = enters("letters", "shop", "client", LETTERS);
    let expected = "no pg_hba.conf entry for host \"127.0.0.1\", user \"letters\", database \"shop\", SSL encryption";
    assert_eq!(said, expected);
    // Of another authority, or of last year, none gets through the handshake, whatever it is called.
    for name in ["app", "either"] {
        for shows in ["stranger", "past"] {
            let said = enters(name, "shop", shows, PASSWORD);
            assert!(said.contains("alert") || said.contains("SSL error"), "{shows}: {said}");
        }
    }
}

/// Whatever a password is checked against and whatever a rule asks for: nobody gets in by a wrong one, and everybody by
/// the right one who can at all.
#[test]
fn no_combination_takes_a_wrong_password() {
    let bench = bench();
    let port = bench.port(ENCRYPTED);
    bench.cluster.sql(ENCRYPTED, Role::Primary, &format!("create role asked_here login password '{PASSWORD}'"));
    let verifier = "select rolpassword from pg_authid where rolname = 'kept'";
    let verifier = bench.cluster.sql(ENCRYPTED, Role::Primary, verifier);
    let entry = |name: &str, keys: &str| format!("[[users]]\nname = '{name}'\n{keys}\n");
    let users = [
        entry("app", &format!("passwords = ['{PASSWORD}', 'another one']")),
        entry("kept", &format!("scram_verifier = '{verifier}'")),
        entry("asked_here", "auth = 'query'"),
        entry("digest", "auth = 'query'"),
        entry("either", "auth = 'passthrough'"),
        entry("open", "auth = 'trust'\nserver_user = 'trusted'"),
        entry("shown", "auth = 'cert'\nserver_user = 'trusted'"),
    ];
    let methods = [None, Some("scram-sha-256"), Some("md5"), Some("password"), Some("cert")];
    let database = |method: Option<&str>| format!("by_{}", method.unwrap_or("entry").split('-').next().unwrap());
    let databases = methods.map(|method| bench.database(&database(method), port, ""));
    let rules = methods.map(|method| {
        let method = method.map(|method| format!("method = '{method}'\n")).unwrap_or_default();
        format!("[[hba]]\ndatabase = 'by_XX'\ntls = true\n{method}").replace("by_XX", &{
            let name = method.split('\'').nth(1).map(str::to_owned);
            database(name.as_deref())
        })
    });
    let proxy =
        Proxy::start(&format!("{}{CONTROL}{}{}{}", bench.tls(), databases.concat(), users.concat(), rules.concat()));
    // Who enters with the right password: by the own entry, SCRAM, MD5, a told password, a certificate that nobody shows.
    let expected = [
        ("app", [true, true, true, true, false]),
        ("kept", [true, true, true, true, false]),
        ("asked_here", [true, true, true, true, false]),
        // Of a SCRAM exchange with an MD5 hash nothing comes.
        ("digest", [true, false, true, true, false]),
        // What is not known here can only be told.
        ("either", [true, false, false, true, false]),
        // By trust, which the entry says, alone.
        ("open", [true, false, false, false, false]),
        ("shown", [false; 5]),
        ("nobody", [false; 5]),
    ];
    for (name, enters) in expected {
        for (method, enters) in methods.into_iter().zip(enters) {
            for password in [PASSWORD, "another one", "wrong", "", &verifier] {
                let conninfo = format!("dbname={} sslmode=require", database(method));
                let output = psql_as(name, proxy.port, &conninfo, password, &["-t", "-c", "select 1"]);
                let is_right = password == PASSWORD || (name, password) == ("app", "another one");
                let is_trusted = name == "open" && method.is_none();
                let said = String::from_utf8_lossy(&output.stderr);
                assert_eq!(
                    output.status.success(),
                    enters && (is_right || is_trusted),
                    "{name} {method:?} {password}: {said}"
                );
            }
        }
    }
}
