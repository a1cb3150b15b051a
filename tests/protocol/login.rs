//! Log-ins: servers that conduct them in other ways than PostgreSQL, or not honestly; what clients may ask for.

use std::collections::BTreeSet;
use std::time::Duration;

use pgweir::wire::scram::{ClientExchange, Mechanism};
use tokio::time::Instant;

use crate::fake::{Fake, Greeting, messages, welcome};
use crate::raw::{self, Raw, query, startup};
use crate::stage::{Stage, WHO, assert_told};
use crate::support::Proxy;

/// A client's log-in where the server conducts its own so.
pub(crate) fn log_in(greeting: Greeting) -> (Stage, Option<(String, String)>) {
    let stage = Stage::start();
    stage.server.greet_with(greeting);
    let (client, reply) = Raw::try_connect(stage.proxy.port, &WHO);
    drop(client);
    (stage, reply.error)
}

/// Remarks at any place, unknown parameters, no key for cancel requests, an older protocol: all of it is served.
#[test]
fn servers_may_say_more_or_less_than_postgresql() {
    let greetings = [
        "R0 S(server_version=15.0) Z(I)",
        "N(first) R0 K Z(I)",
        "v R0 S(server_version=15.0) K Z(I)",
        "R0 N(between) S(server_version=15.0) N(between) K N(last) Z(I)",
        "R0 S(nobody_knows=this) S(server_version=15.0) K Z(I)",
        "R0 K S(server_version=15.0) S(server_version=15.0) Z(I)",
    ];
    for greeting in greetings {
        let (mut stage, error) = log_in(vec![messages(greeting)]);
        assert_eq!(error, None, "{greeting}");
        let mut client = stage.client();
        stage.works(&mut client);
    }
}

/// A server that cannot prove to know the password, or asks for what must not be given, is not logged in to.
#[test]
fn servers_that_are_not_honest_are_refused() {
    let challenge = |attributes: &str| messages(&format!("R(11 {attributes})"));
    // As if the nonce of the client were known to begin so.
    let foreign = challenge("r=foreign,s=c2FsdA==,i=4096");
    let scram = messages("R(10 SCRAM-SHA-256\0\0)");
    let greetings: [(&str, Greeting); 12] = [
        ("cleartext", vec![messages("R(3 )"), welcome().remove(0)]),
        ("md5 without a whole salt", vec![messages("R(5 sal)"), welcome().remove(0)]),
        ("an unknown method", vec![messages("R(99 )")]),
        ("another SASL mechanism", vec![messages("R(10 PLAIN\0\0)"), welcome().remove(0)]),
        ("a foreign nonce", vec![scram.clone(), foreign.clone(), welcome().remove(0)]),
        ("no challenge", vec![scram.clone(), welcome().remove(0)]),
        ("an empty challenge", vec![scram.clone(), challenge("")]),
        ("no mechanism", vec![messages("R(10 )")]),
        ("a challenge at once", vec![foreign]),
        ("a proof at once", vec![messages("R(12 v=AAAA)")]),
        ("rows", vec![messages("T D(1) Z(I)")]),
        ("half a message", vec![b"R\0\0\0\x05\0".to_vec()]),
    ];
    for (what, greeting) in greetings {
        let (mut stage, error) = log_in(greeting);
        assert_eq!(error.map(|(code, _)| code).as_deref(), Some("57P03"), "{what}");
        stage.server.greet_with(welcome());
        let mut client = stage.client();
        stage.works(&mut client);
    }
}

/// Servers that begin SCRAM as they should and go on as they must not: none of them is taken for one that knows the
/// password, none keeps the proxy busy.
#[test]
fn servers_that_cheat_at_scram_are_refused() {
    let scram = || messages("R(10 SCRAM-SHA-256\0\0)");
    let challenge = |attributes: &str| messages(&format!("R(11 {attributes})"));
    let good = || challenge("r={nonce}more,s=c2FsdHNhbHQ=,i=4096");
    let (end, right) = (welcome().remove(0), "A".repeat(43) + "=");
    let last = |text: &str| [messages(&format!("R(12 {text})")), end.clone()].concat();
    let long = "x".repeat(60_000);
    let greetings: Vec<(&str, Greeting)> = vec![
        ("another signature", vec![scram(), good(), last(&format!("v={right}"))]),
        ("half a signature", vec![scram(), good(), last("v=AAAA")]),
        ("no signature", vec![scram(), good(), last("")]),
        ("an error and a welcome", vec![scram(), good(), last("e=other-error")]),
        ("a welcome without a signature", vec![scram(), good(), end.clone()]),
        ("a welcome without a challenge", vec![scram(), end.clone()]),
        ("a second challenge", vec![scram(), good(), good(), last(&format!("v={right}"))]),
        ("the client's nonce alone", vec![scram(), challenge("r={nonce},s=c2FsdHNhbHQ=,i=4096")]),
        ("a nonce that is no text", vec![scram(), challenge("r={nonce}\u{1},s=c2FsdHNhbHQ=,i=4096")]),
        ("no salt", vec![scram(), challenge("r={nonce}more,i=4096")]),
        ("a salt that is none", vec![scram(), challenge("r={nonce}more,s=!!!!,i=4096")]),
        ("a billion iterations", vec![scram(), challenge("r={nonce}more,s=c2FsdHNhbHQ=,i=1000000000")]),
        (
            "iterations beyond all numbers",
            vec![scram(), challenge("r={nonce}more,s=c2FsdHNhbHQ=,i=99999999999999999999")],
        ),
        ("one iteration", vec![scram(), challenge("r={nonce}more,s=c2FsdHNhbHQ=,i=1")]),
        ("no iteration", vec![scram(), challenge("r={nonce}more,s=c2FsdHNhbHQ=,i=0")]),
        ("iterations below none", vec![scram(), challenge("r={nonce}more,s=c2FsdHNhbHQ=,i=-4096")]),
        (
            "a challenge beyond all buffers",
            vec![scram(), challenge(&format!("r={{nonce}}{long}{long},s=c2FsdA==,i=4096"))],
        ),
        ("a long nonce", vec![scram(), challenge(&format!("r={{nonce}}{long},s=c2FsdHNhbHQ=,i=4096")), last("v=AAAA")]),
        ("binding where nothing can be bound", vec![messages("R(10 SCRAM-SHA-256-PLUS\0\0)"), good()]),
        ("an error that says nothing", vec![raw::message(b'E', &[])]),
        ("an error without a code", vec![raw::message(b'E', &[b"SFATAL\0Mno\0\0"])]),
        ("an error without an end", vec![raw::message(b'E', &[b"SFATAL\0C28P01"])]),
    ];
    for (what, greeting) in greetings {
        let since = Instant::now();
        let (mut stage, error) = log_in(greeting);
        assert_eq!(error.map(|(code, _)| code).as_deref(), Some("57P03"), "{what}");
        assert!(since.elapsed() < Duration::from_secs(10), "{what}: {:?}", since.elapsed());
        stage.server.greet_with(welcome());
        let mut client = stage.client();
        stage.works(&mut client);
    }
}

/// A proxy that asks for SCRAM, and its server.
fn careful() -> (Fake, Proxy) {
    let server = Fake::start();
    let user = "[[users]]\nname = 'app'\npasswords = ['pencil', 'pen']\n";
    let database = format!("[[databases]]\nname = 'shop'\nhost = '127.0.0.1'\nport = {}\n", server.port);
    (server, Proxy::start(&format!("{database}{user}")))
}

/// First messages of SCRAM that are none: they are told so, and get no challenge.
#[test]
fn clients_that_begin_scram_in_another_way_are_refused() {
    let (_server, proxy) = careful();
    let message = |length: u32| raw::message(b'p', &[b"SCRAM-SHA-256\0", &length.to_be_bytes(), b"n,,n=,r=abcdefgh"]);
    for (what, first) in [
        ("no length", raw::message(b'p', &[b"SCRAM-SHA-256\0"])),
        ("a length of nothing", message(0)),
        ("a length of -1", message(u32::MAX)),
        ("a length of -2", message(u32::MAX - 1)),
        ("less than there is", message(15)),
        ("more than there is", message(17)),
        ("a mechanism without an end", raw::message(b'p', &[b"SCRAM-SHA-256"])),
        ("somebody else's rights", raw::sasl_initial("n,a=app,n=,r=abcdefgh")),
        ("an extension", raw::sasl_initial("n,,m=x,n=,r=abcdefgh")),
        ("a nonce that is no text", raw::sasl_initial("n,,n=,r=a b")),
        ("no nonce", raw::sasl_initial("n,,n=,r=")),
        ("a nonce longer than any", raw::sasl_initial(&format!("n,,n=,r={}", "x".repeat(12_000)))),
        ("binding that was not offered", raw::sasl_initial("p=tls-server-end-point,,n=,r=abcdefgh")),
    ] {
        let mut client = Raw::open(proxy.port);
        client.send(&startup(raw::PROTOCOL_3_0, &WHO));
        client.frame().unwrap();
        client.send(&first);
        let reply = client.reply();
        assert_eq!((reply.sqlstate(), reply.kinds.as_str()), ("08P01", "E"), "{what}");
    }
}

/// Clients that begin SCRAM as they should and go on as they must not: one error, and the end.
#[test]
fn clients_that_cheat_at_scram_are_refused() {
    let (_server, proxy) = careful();
    let begin = |first: &str| {
        let mut client = Raw::open(proxy.port);
        client.send(&startup(raw::PROTOCOL_3_0, &WHO));
        client.frame().unwrap();
        client.send(&raw::sasl_initial(first));
        let challenge = client.frame().unwrap().1;
        let text = String::from_utf8(challenge[4..].to_vec()).unwrap();
        let nonce = text.strip_prefix("r=").unwrap().split(',').next().unwrap().to_owned();
        (client, nonce)
    };
    let proof = "A".repeat(43) + "=";
    let finals: [(&str, &str, &str); 14] = [
        ("a wrong proof", "c=biws,r=NONCE,p=PROOF", "28P01"),
        ("no proof", "c=biws,r=NONCE", "08P01"),
        ("an empty proof", "c=biws,r=NONCE,p=", "08P01"),
        ("a short proof", "c=biws,r=NONCE,p=AAAA", "08P01"),
        ("a long proof", "c=biws,r=NONCE,p=PROOFPROOF", "08P01"),
        ("a proof that is none", "c=biws,r=NONCE,p=!!!!", "08P01"),
        ("no nonce", "c=biws,p=PROOF", "08P01"),
        ("the client's nonce alone", "c=biws,r=abcdefgh,p=PROOF", "08P01"),
        ("another nonce", "c=biws,r=NONCEx,p=PROOF", "08P01"),
        ("no binding", "r=NONCE,p=PROOF", "08P01"),
        ("another binding", "c=eSws,r=NONCE,p=PROOF", "08P01"),
        ("a binding to nothing", "c=cD10bHMtc2VydmVyLWVuZC1wb2ludCws,r=NONCE,p=PROOF", "08P01"),
        ("nothing", "", "08P01"),
        ("commas", ",,,,", "08P01"),
    ];
    for (what, text, expected) in finals {
        let (mut client, nonce) = begin("n,,n=,r=abcdefgh");
        client.send(&raw::message(b'p', &[text.replace("NONCE", &nonce).replace("PROOF", &proof).as_bytes()]));
        let reply = client.reply();
        assert_eq!((reply.sqlstate(), reply.kinds.as_str(), reply.status), (expected, "E", ' '), "{what}");
    }
    // What was seen of one log-in is no use at another one.
    let (exchange, first) = ClientExchange::begin("pencil", Mechanism::Plain { bindable: false }, "abcdefgh");
    let mut client = Raw::open(proxy.port);
    client.send(&startup(raw::PROTOCOL_3_0, &WHO));
    client.frame().unwrap();
    client.send(&raw::sasl_initial(&first));
    let (_, last) = exchange.respond(&client.frame().unwrap().1[4..]).unwrap();
    client.send(&raw::message(b'p', &[last.as_bytes()]));
    assert_eq!(client.reply().error, None);
    let (mut thief, _) = begin(&first);
    thief.send(&raw::message(b'p', &[last.as_bytes()]));
    assert_eq!(thief.reply().sqlstate(), "08P01", "the server's nonce is another one");
}

/// Whoever has not the whole key ends nothing, however often it guesses; the key is not the server's.
#[test]
fn guessed_keys_end_nothing() {
    for version in [raw::PROTOCOL_3_0, raw::PROTOCOL_3_0 | 2] {
        let mut stage = Stage::start();
        let mut client = Raw::open(stage.proxy.port);
        client.send(&startup(version, &WHO));
        assert_eq!(client.reply().error, None);
        guess_keys(&mut stage, client);
    }
}

fn guess_keys(stage: &mut Stage, mut client: Raw) {
    client.send(&query("select 1"));
    let on = stage.server.expect("Q");
    let key = client.key.clone();
    assert_ne!(key, [0, 0, 0, 7, 0, 0, 0, 8], "the server's");
    let guess = |key: &[u8]| Raw::cancel(stage.proxy.port, key);
    for bit in 0..key.len() * 8 {
        let mut other = key.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        guess(&other);
    }
    for secret in
        [&[][..], &[0; 4], &[0xff; 4], &[0; 32], &[0xff; 252], &key[4..7], &key[4..8], &[&key[4..], &[0][..]].concat()]
    {
        if *secret != key[4..] {
            guess(&[&key[..4], secret].concat());
        }
    }
    stage.server.say(on, &messages("T D(1) C(SELECT 1) Z(I)"));
    assert_told(&mut client, "T D(1) C(SELECT 1) Z(I)", "nobody has cancelled it");
    // A server connection on which a cancel request was sent would not be used again.
    assert_eq!(stage.works(&mut client), on);
}

/// Newer minor versions and unknown options are answered with what is served; another major version is refused.
#[test]
fn the_version_of_the_protocol_is_negotiated() {
    let stage = Stage::start();
    let version = |minor: u32| (3 << 16) | minor;
    let negotiated = |minor: u32, options: &[&str]| {
        let count = u32::try_from(options.len()).unwrap().to_be_bytes();
        let names: Vec<u8> = options.iter().flat_map(|option| raw::text(option)).collect();
        [&version(minor).to_be_bytes()[..], &count, &names].concat()
    };
    let cases: [(u32, &[&str], _, usize); 7] = [
        (0, &[], None, 4),
        (1, &[], None, 4),
        (2, &[], None, 32),
        (3, &[], Some(negotiated(2, &[])), 32),
        (9999, &[], Some(negotiated(2, &[])), 32),
        (0, &["_pq_.x"], Some(negotiated(0, &["_pq_.x"])), 4),
        (2, &["_pq_.x", "_pq_.y"], Some(negotiated(2, &["_pq_.x", "_pq_.y"])), 32),
    ];
    for (minor, options, expected, secret) in cases {
        let mut client = Raw::open(stage.proxy.port);
        let given: Vec<_> = options.iter().map(|option| (*option, "1")).collect();
        client.send(&startup(version(minor), &[&WHO, &given[..]].concat()));
        let (kind, body) = client.frame().unwrap();
        assert_eq!((kind == b'v').then_some(body), expected, "3.{minor} {options:?}");
        assert_eq!((client.reply().error, client.key.len()), (None, 4 + secret), "3.{minor}");
    }
    for version in [0, 1 << 16, 2 << 16, 4 << 16, u32::MAX] {
        let mut client = Raw::open(stage.proxy.port);
        client.send(&startup(version, &WHO));
        let reply = client.reply();
        assert_eq!((reply.sqlstate(), reply.kinds.as_str()), ("08P01", "E"), "{version:x}");
    }
}

/// Nothing that a stranger is told depends on whether there is such a user: neither the challenge, nor its salt, which
/// stays the same for a name, nor the refusal, nor the time that it takes.
#[test]
fn no_answer_tells_who_exists() {
    let server = Fake::start();
    let user = |name: &str| format!("[[users]]\nname = \"{name}\"\npassword = \"pencil\"\n");
    let proxy = Proxy::start(&format!(
        "workers = 1\n[[databases]]\nname = \"shop\"\nhost = \"127.0.0.1\"\nport = {}\n{}{}",
        server.port,
        user("known"),
        user("alike")
    ));
    let begin = |name: &str| {
        let mut client = Raw::open(proxy.port);
        client.send(&startup(raw::PROTOCOL_3_0, &[("user", name), ("database", "shop")]));
        let (_, offer) = client.frame().unwrap();
        client.send(&raw::sasl_initial("n,,n=,r=abcdefgh"));
        let (_, challenge) = client.frame().unwrap();
        let challenge = String::from_utf8(challenge[4..].to_vec()).unwrap();
        let (nonce, rest) = challenge.split_once(",s=").unwrap();
        (client, offer, nonce.to_owned(), rest.to_owned())
    };
    let refusal = |(mut client, _, nonce, _): (Raw, Vec<u8>, String, String)| {
        let proof = format!("c=biws,{nonce},p={}=", "A".repeat(43));
        client.send(&raw::message(b'p', &[proof.as_bytes()]));
        let reply = client.reply();
        assert_eq!(reply.kinds, "E");
        reply.error.unwrap()
    };
    let names = ["known", "alike", "nobody", "no one"];
    let salts = names.map(|name| {
        let (first, second) = (begin(name), begin(name));
        assert_eq!((&first.1, &first.3), (&second.1, &second.3), "{name}");
        assert_ne!(first.2, second.2, "a nonce is used once");
        let told = format!("password authentication failed for user \"{name}\"");
        assert_eq!(refusal(first), ("28P01".to_owned(), told));
        let (salt, iterations) = second.3.split_once(",i=").unwrap();
        assert_eq!((salt.len(), iterations), (24, "4096"), "16 bytes, as PostgreSQL's");
        salt.to_owned()
    });
    // Not even two users with the same password.
    assert_eq!(salts.iter().collect::<BTreeSet<_>>().len(), names.len());
    // The quickest of many, in turns: whatever else the machine does makes single ones slower.
    let mut quickest = [Duration::MAX; 2];
    for _ in 0..200 {
        for (name, quickest) in ["known", "nobody"].iter().zip(&mut quickest) {
            let since = Instant::now();
            refusal(begin(name));
            *quickest = since.elapsed().min(*quickest);
        }
    }
    let [known, nobody] = quickest;
    assert!(known < nobody * 2 && nobody < known * 2, "{known:?} {nobody:?}");
}
