//! TLS without a word before it, and what must not be said before, between or instead.

use std::collections::BTreeSet;

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::*;

impl Bench {
    /// Says that it means these protocols.
    fn speaker(&self, protocols: &[&str]) -> TlsConnector {
        let mut config = rustls::ClientConfig::clone(self.connector().config());
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

async fn shake_hands(port: u16, protocols: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    bench().speaker(protocols).connect("localhost".try_into().unwrap(), stream).await
}

/// All that comes back on what was said, up to the end of the connection.
async fn said(mut stream: TlsStream<TcpStream>, bytes: &[u8]) -> String {
    let mut answer = Vec::new();
    // Either may find the connection closed already.
    let _ = stream.write_all(bytes).await;
    let _ = stream.read_to_end(&mut answer).await;
    answer.escape_ascii().to_string()
}

fn trusted(bench: &Bench, tls: &str) -> Proxy {
    let shop = bench.database("shop", bench.port(CLEAR), "");
    let users = user(APP, "") + &user("trusted", "server_user = 'app'\nauth = 'trust'");
    Proxy::start(&format!("{tls}{CONTROL}{shop}{users}"))
}

#[test]
fn who_names_the_protocol_is_served_without_asking_first() {
    let proxy = trusted(bench(), &bench().tls());
    let port = proxy.port;
    let query = b"Q\0\0\0\x0dselect 1\0".to_vec();
    let (served, silent, other, both, asks, clear) = support::wait_for(async move {
        let bytes = [&startup("trusted")[..], &query, b"X\0\0\0\x04"].concat();
        let served = said(shake_hands(port, &["postgresql"]).await.unwrap(), &bytes).await;
        let silent = match shake_hands(port, &[]).await {
            Ok(stream) => said(stream, &bytes).await,
            Err(_) => String::new(),
        };
        let other = shake_hands(port, &["http/1.1", "h2"]).await.map(drop);
        let both = said(shake_hands(port, &["h2", "postgresql"]).await.unwrap(), &bytes).await;
        let asks = said(shake_hands(port, &["postgresql"]).await.unwrap(), &SSL_REQUEST).await;
        let clear = said(shake_hands(port, &["postgresql"]).await.unwrap(), b"\x16\x03\x01\x02\0\x01\0\x01\xfc").await;
        (served, silent, other, both, asks, clear)
    });
    for served in [served, both] {
        assert!(served.contains("SELECT 1") && served.contains("server_version"), "{served}");
    }
    assert_eq!(silent, "", "who does not say what it means is told nothing");
    let refusal = other.unwrap_err().to_string();
    assert!(refusal.contains("NoApplicationProtocol"), "{refusal}");
    // There is one encryption; what is no packet within it is left without an answer.
    assert!(asks.contains("C08P01"), "{asks}");
    assert_eq!(clear, "");
    // The other ways are the same port's.
    bench().check_enters(&proxy, "sslmode=require channel_binding=require", true);
    bench().check_enters(&proxy, "sslmode=disable", false);
    assert_eq!(answer_to(&proxy, &GSSENC_REQUEST, 1), b"N");
}

#[test]
fn without_a_certificate_there_is_no_direct_tls() {
    let proxy = trusted(bench(), "");
    let told = answer_to(&proxy, b"\x16\x03\x01\x02\0\x01\0\x01\xfc", 1000);
    assert_eq!(told, b"", "as PostgreSQL answers what is no packet");
}

/// Drivers that do it: log-in bound to the encryption, queries, and a cancel request by the same way.
#[test]
fn drivers_enter_by_direct_tls() {
    let proxy = trusted(bench(), &bench().tls().replace("'prefer'", "'require'"));
    let port = proxy.port;
    let outcome = support::wait_for(async move {
        let login = format!(
            "host=localhost port={port} user={APP} password='{PASSWORD}' dbname=shop sslmode=require \
             sslnegotiation=direct channel_binding=require"
        );
        let config = rustls::ClientConfig::clone(bench().speaker(&["postgresql"]).config());
        let tls = tokio_postgres_rustls::MakeRustlsConnect::new(config);
        let (client, connection) = tokio_postgres::connect(&login, tls.clone()).await.unwrap();
        tokio::spawn(connection);
        let row = client.query_one("select 'here'", &[]).await.unwrap();
        let token = client.cancel_token();
        let cancels = async {
            loop {
                token.cancel_query(tls.clone()).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let cause = tokio::select! {
            answer = client.simple_query("select pg_sleep(60)") => answer.unwrap_err(),
            () = cancels => unreachable!(),
        };
        (row.get::<_, String>(0), cause.code().map(|code| code.code().to_owned()))
    });
    assert_eq!(outcome, ("here".to_owned(), Some("57014".to_owned())));
}

/// A server that speaks TLS at once, as PostgreSQL 17 does, in front of one that does not; and says these protocols.
fn direct_server(bench: &Bench, protocols: &[&str]) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (own, port) = (listener.local_addr().unwrap().port(), bench.port(CLEAR));
    let mut config = rustls::ServerConfig::clone(bench.acceptor("server").config());
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    listener.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(decrypt(acceptor.clone(), client, port));
            }
        });
    });
    own
}

async fn decrypt(acceptor: TlsAcceptor, client: TcpStream, port: u16) {
    // Who asks first, or means another protocol, is not served.
    let Ok(mut client) = acceptor.accept(client).await else { return };
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    // Ends with either side.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

#[test]
fn servers_are_reached_by_direct_tls() {
    let bench = bench();
    let ca = bench.file("ours.crt");
    let ways = [
        ("direct", direct_server(bench, &["postgresql"]), "direct", "ours.crt"),
        ("silent", direct_server(bench, &[]), "direct", "ours.crt"),
        ("other", direct_server(bench, &["h2"]), "direct", "ours.crt"),
        ("asked", direct_server(bench, &["postgresql"]), "postgres", "ours.crt"),
        ("foreign", direct_server(bench, &["postgresql"]), "direct", "foreign.crt"),
        ("older", bench.port(ENCRYPTED), "direct", "ours.crt"),
    ];
    let databases = ways.map(|(name, port, negotiation, authority)| {
        let ca = ca.with_file_name(authority);
        let keys = format!("tls = 'verify-full'\ntls_ca = {ca:?}\ntls_negotiation = '{negotiation}'");
        bench.database(name, port, &keys)
    });
    let proxy = Proxy::start(&format!("{CONTROL}{}{}", databases.concat(), user("either", "")));
    // The server sees what comes out of the encryption.
    check_encryption(&proxy, "either", "direct", &Ok("f"));
    for (name, expected) in [
        ("silent", &["does not confirm"][..]),
        ("other", &["NoApplicationProtocol", "peer doesn't support any known protocol"]),
        ("asked", &["did not understand", "does not support TLS", "eof"]),
        ("foreign", &["UnknownIssuer"]),
        ("older", &["eof", "reset", "closed", "unexpected"]),
    ] {
        let said = encryption_seen(&proxy, "either", name).unwrap_err();
        let said = said.to_lowercase();
        assert!(expected.iter().any(|expected| said.contains(&expected.to_lowercase())), "{name}: {said}");
    }
}

/// A server, or who stands before it, may send bytes right behind its agreement to TLS: they are not taken for what
/// the server says inside of it (CVE-2021-23222).
#[test]
fn what_a_server_says_ahead_of_the_handshake_is_not_listened_to() {
    let bench = bench();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (own, port) = (listener.local_addr().unwrap().port(), bench.port(ENCRYPTED));
    thread::spawn(move || {
        for client in listener.incoming() {
            thread::spawn(move || inject(client.unwrap(), port));
        }
    });
    let keys = "tls = 'require'";
    let databases = bench.database("injected", own, keys) + &bench.database("shop", port, keys);
    let proxy = Proxy::start(&format!("{}{databases}{}", CONTROL.replace("postgres", "sealed"), user("either", "")));
    check_encryption(&proxy, "either", "shop", &Ok("t"));
    let said = encryption_seen(&proxy, "either", "injected").unwrap_err();
    let is_handshake = ["corrupt message", "invalid", "received", "handshake"].iter().any(|word| said.contains(word));
    assert!(said.contains("no server available") || said.contains("no primary available"), "{said}");
    assert!(is_handshake && !said.contains("injected words"), "{said}");
}

/// Says `S` and, in the same packet, that the log-in has succeeded; the rest is the server's.
fn inject(mut client: std::net::TcpStream, port: u16) {
    let mut server = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let mut first = [0; 8];
    if client.read_exact(&mut first).is_err() {
        return;
    }
    server.write_all(&first).unwrap();
    let mut answer = [0];
    server.read_exact(&mut answer).unwrap();
    let ahead = [&answer[..], b"R\0\0\0\x08\0\0\0\0E\0\0\0\x15Minjected words\0\0Z\0\0\0\x05I"].concat();
    // It may have gone already.
    if client.write_all(&ahead).is_err() {
        return;
    }
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || std::io::copy(&mut from, &mut to));
    // Ends with either side.
    let _ = std::io::copy(&mut server, &mut client);
}

/// The first packet may be cut anywhere, also between a request for TLS and the handshake.
#[test]
fn bytes_of_a_startup_packet_come_one_by_one() {
    let proxy = trusted(bench(), &bench().tls());
    let mut stream = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in GSSENC_REQUEST {
        stream.write_all(&[byte]).unwrap();
    }
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"N");
    for byte in startup("trusted") {
        stream.write_all(&[byte]).unwrap();
    }
    let mut kinds = BTreeSet::new();
    while !kinds.contains(&b'Z') {
        let mut header = [0; 5];
        stream.read_exact(&mut header).unwrap();
        let mut body = vec![0; u32::from_be_bytes(header[1..].try_into().unwrap()) as usize - 4];
        stream.read_exact(&mut body).unwrap();
        kinds.insert(header[0]);
    }
    assert_eq!(kinds, BTreeSet::from(*b"RSKZ"));
}

/// What is no handshake ends the connection, with an alert at most; half of one, in time. Nobody else notices.
#[test]
fn what_is_no_handshake_ends_the_connection() {
    let proxy = trusted(bench(), &format!("client_login_timeout = '2s'\n{}", bench().tls()));
    let hello = |version: u8| {
        let body = [&[3, version][..], &[7; 32], &[0, 0, 4, 0, 0x2f, 0xc0, 0x13, 1, 0]].concat();
        let length = u8::try_from(body.len()).unwrap();
        [&[0x16, 3, 1, 0, length + 4, 1, 0, 0, length][..], &body].concat()
    };
    let cases: [(&str, Vec<u8>); 7] = [
        ("a log-in in the clear", startup("trusted")),
        ("another request", SSL_REQUEST.to_vec()),
        ("words", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a record longer than any", b"\x16\x03\x01\xff\xff\x01".to_vec()),
        ("data before the handshake", b"\x17\x03\x03\0\x05hello".to_vec()),
        ("TLS 1.1", hello(2)),
        ("half a handshake", hello(3)[..20].to_vec()),
    ];
    for (what, bytes) in cases {
        for asks in [true, false] {
            if !asks && bytes[0] != 0x16 {
                continue;
            }
            let mut stream = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).unwrap();
            stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
            if asks {
                let mut agreed = [0];
                stream.write_all(&SSL_REQUEST).and_then(|()| stream.read_exact(&mut agreed)).unwrap();
                assert_eq!(agreed, *b"S");
            }
            stream.write_all(&bytes).unwrap();
            let mut answer = Vec::new();
            match stream.read_to_end(&mut answer) {
                Ok(_) => {}
                Err(cause) => assert_eq!(cause.kind(), ErrorKind::ConnectionReset, "{what}"),
            }
            let is_alert = answer.len() == 7 && answer[0] == 0x15;
            assert!(answer.is_empty() || is_alert, "{what}: {}", answer.escape_ascii());
            assert!(what != "TLS 1.1" || is_alert, "an old version is told that it fails");
        }
    }
    bench().check_enters(&proxy, "sslmode=require", true);
}
