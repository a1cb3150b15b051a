//! Scripts: what the client sends, what the server must see, what it answers, what the client must be told.

use std::io::{Read, Write};
use std::time::Duration;

use crate::fake::messages;
use crate::raw::{
    self, Raw, bind, close, copy_data, copy_done, copy_fail, describe, execute, flush, parse, query, sync,
};
use crate::stage::{Act, Cut, Stage, assert_told};

use Act::{Seen, Server, Told};

fn client(messages: &[Vec<u8>]) -> Act {
    Act::Client(messages.concat())
}

/// The server is asked, and the client is told what it answers.
fn relayed(sent: &[Vec<u8>], seen: &'static str, answer: &'static str) -> Vec<Act> {
    vec![client(sent), Seen(seen), Server(answer), Told(answer)]
}

fn whole(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", &[]), raw::describe_portal(""), execute()].concat()
}

/// After each of them the session goes on.
fn scripts() -> Vec<(&'static str, Vec<Act>)> {
    [simple(), extended(), flushed(), copies()].concat()
}

fn simple() -> Vec<(&'static str, Vec<Act>)> {
    let rows = "T D(1) D(2) C(SELECT 2) Z(I)";
    vec![
        ("rows", relayed(&[query("select 1")], "Q", rows)),
        ("several statements", relayed(&[query("select 1; select 2")], "Q", "T D(1) C(SELECT 1) T C(SELECT 0) Z(I)")),
        ("an error at once", relayed(&[query("select 1")], "Q", "E(42601 no) Z(I)")),
        ("an error after rows", relayed(&[query("select 1")], "Q", "T D(1) E(22012 no) Z(I)")),
        ("an empty row and an empty tag", relayed(&[query("select 1")], "Q", "T D() C() Z(I)")),
        (
            "nothing needs no server",
            vec![client(&[query("")]), Told("I Z(I)"), client(&[query(" ; ")]), Told("I Z(I)")],
        ),
        (
            // It may have locked something: that is asked before the client hears of its end. Or set something: whoever
            // has the connection next finds it cleared.
            "a function call",
            vec![
                client(&[raw::message(b'F', &[&[0; 10]])]),
                Seen("F"),
                Server("V(x) Z(I)"),
                Seen("Q"),
                Server("T C(SELECT 0) Z(I)"),
                Told("V(x) Z(I)"),
                client(&[query("select 1")]),
                Seen("Q"),
                Server("C(RESET) Z(I)"),
                Seen("Q"),
                Server("T D(1) C(SELECT 1) Z(I)"),
                Told("T D(1) C(SELECT 1) Z(I)"),
            ],
        ),
        (
            "two queries at once",
            vec![
                client(&[query("select 1"), query("select 2")]),
                Seen("Q"),
                Server("T D(1) C(SELECT 1) Z(I)"),
                Seen("Q"),
                Server("E(22012 no) Z(I)"),
                Told("T D(1) C(SELECT 1) Z(I) E(22012 no) Z(I)"),
            ],
        ),
        (
            "a block that fails",
            vec![
                client(&[query("begin"), query("select 1")]),
                Seen("Q"),
                Server("C(BEGIN) Z(T)"),
                Seen("Q"),
                Server("E(22012 no) Z(E)"),
                client(&[query("rollback")]),
                Seen("Q"),
                Server("C(ROLLBACK) Z(I)"),
                Told("C(BEGIN) Z(T) E(22012 no) Z(E) C(ROLLBACK) Z(I)"),
            ],
        ),
    ]
}

fn extended() -> Vec<(&'static str, Vec<Act>)> {
    let pipeline = [whole("select 1"), sync()];
    vec![
        ("a statement", relayed(&pipeline, "PBDES", "1 2 T D(1) C(SELECT 1) Z(I)")),
        ("an empty statement", relayed(&[parse("", ""), bind("", &[]), execute(), sync()], "PBES", "1 2 I Z(I)")),
        (
            "two units at once",
            vec![
                client(&[&pipeline[..], &pipeline].concat()),
                Seen("PBDES"),
                Server("1 2 T C(SELECT 0) Z(I)"),
                Seen("PBDES"),
                Server("1 2 E(22012 no) Z(I)"),
                Told("1 2 T C(SELECT 0) Z(I) 1 2 E(22012 no) Z(I)"),
            ],
        ),
        (
            "statements in one unit",
            relayed(
                &[whole("select 1"), whole("select 2"), sync()],
                "PBDEPBDES",
                "1 2 T C(SELECT 0) 1 2 n E(22012 no) Z(I)",
            ),
        ),
        ("unknown names are closed", vec![client(&[close("x"), raw::close_portal("y"), sync()]), Told("3 3 Z(I)")]),
        ("unknown names are bound", vec![client(&[bind("x", &[]), execute(), sync()]), Told("E(26000) Z(I)")]),
        ("unknown portals", vec![client(&[execute(), sync()]), Told("E(34000) Z(I)")]),
        ("a Flush alone", vec![client(&[flush(), sync()]), Told("Z(I)")]),
        (
            "a Query without a Sync before it",
            vec![
                client(&[whole("select 1"), query("select 2")]),
                Seen("PBDEH"),
                Server("1 2 T C(SELECT 0)"),
                Seen("Q"),
                Server("T C(SELECT 0) Z(I)"),
                Told("1 2 T C(SELECT 0) T C(SELECT 0) Z(I)"),
            ],
        ),
        (
            "a Query after an error",
            vec![
                client(&[whole("select 1"), query("select 2")]),
                Seen("PBDEH"),
                Server("1 E(22023 no)"),
                Told("1 E(22023 no)"),
                client(&[query("select 3"), sync()]),
                Seen("S"),
                Server("Z(I)"),
                Told("Z(I)"),
            ],
        ),
    ]
}

/// Clients that want answers before their Sync.
fn flushed() -> Vec<(&'static str, Vec<Act>)> {
    vec![
        (
            "answers before the Sync",
            vec![
                client(&[whole("select 1"), flush()]),
                Seen("PBDEH"),
                Server("1 2 T D(1) C(SELECT 1)"),
                Told("1 2 T D(1) C(SELECT 1)"),
                client(&[whole("select 2"), flush()]),
                Seen("PBDEH"),
                Server("1 2 E(22012 no)"),
                Told("1 2 E(22012 no)"),
                // Skipped: the server would not answer.
                client(&[whole("select 3"), flush(), sync()]),
                Seen("S"),
                Server("Z(I)"),
                Told("Z(I)"),
            ],
        ),
        (
            "a statement is described before it is bound",
            vec![
                client(&[parse("a", "select 1"), describe("a"), flush()]),
                Seen("PDS"),
                Server("1 t T Z(I)"),
                Told("1 t T"),
                client(&[bind("a", &[]), execute(), sync()]),
                Seen("BES"),
                Server("2 D(1) C(SELECT 1) Z(I)"),
                Told("2 D(1) C(SELECT 1) Z(I)"),
            ],
        ),
        (
            "a statement that cannot be described",
            vec![
                client(&[parse("b", "select nothing"), describe("b"), flush()]),
                Seen("PDS"),
                Server("E(42703 no) Z(I)"),
                Told("E(42703 no)"),
                client(&[bind("b", &[]), execute(), sync()]),
                Told("Z(I)"),
                client(&[bind("b", &[]), sync()]),
                Told("E(26000) Z(I)"),
            ],
        ),
        (
            "a portal in parts",
            vec![
                client(&[parse("", "select 1"), bind("", &[]), raw::execute_portal("", 2), flush()]),
                Seen("PBEH"),
                Server("1 2 D(1) D(2) s"),
                Told("1 2 D(1) D(2) s"),
                client(&[raw::execute_portal("", 2), raw::execute_portal("", 0), sync()]),
                Seen("EES"),
                Server("D(3) D(4) s D(5) C(SELECT 1) Z(I)"),
                Told("D(3) D(4) s D(5) C(SELECT 1) Z(I)"),
            ],
        ),
    ]
}

fn copies() -> Vec<(&'static str, Vec<Act>)> {
    let (begin, data) = (query("copy t from stdin"), [copy_data("1\n"), copy_data("2\n")].concat());
    let asked = |more: Vec<Act>| [relayed(std::slice::from_ref(&begin), "Q", "G"), more].concat();
    let extended = [parse("", "copy t from stdin"), bind("", &[]), execute()];
    vec![
        ("a copy in", asked(relayed(&[data.clone(), copy_done()], "ddc", "C(COPY 2) Z(I)"))),
        (
            "a copy in that the client fails",
            asked(relayed(&[data.clone(), copy_fail("no")], "ddf", "E(57014 no) Z(I)")),
        ),
        (
            "a copy in that the server fails",
            asked(vec![
                client(&[copy_data("1\n")]),
                Seen("d"),
                Server("E(22P02 no) Z(I)"),
                Told("E(22P02 no) Z(I)"),
                // On their way already; nobody takes them.
                client(&[data.clone(), copy_done(), sync()]),
                Told("Z(I)"),
            ]),
        ),
        ("a copy in that is refused", relayed(&[begin.clone(), data.clone(), copy_done()], "Q", "E(42501 no) Z(I)")),
        (
            "a copy in and its data at once",
            vec![
                client(&[begin.clone(), data.clone(), copy_done()]),
                Seen("Q"),
                Server("G"),
                Seen("ddc"),
                Server("C(COPY 2) Z(I)"),
                Told("G C(COPY 2) Z(I)"),
            ],
        ),
        (
            "a copy in of the extended protocol",
            vec![
                client(&[&extended[..], &[sync()]].concat()),
                Seen("PBES"),
                Server("1 2 G"),
                Told("1 2 G"),
                client(&[data.clone(), copy_done(), sync()]),
                Seen("ddcS"),
                Server("C(COPY 2) Z(I)"),
                Told("C(COPY 2) Z(I)"),
            ],
        ),
        (
            "the same, its data at once",
            vec![
                client(&[&extended[..], &[data.clone(), copy_done(), sync()]].concat()),
                Seen("PBEH"),
                Server("1 2 G"),
                Seen("ddcS"),
                Server("C(COPY 2) Z(I)"),
                Told("1 2 G C(COPY 2) Z(I)"),
            ],
        ),
        ("a copy out", relayed(&[query("copy (select 1) to stdout")], "Q", "H d(1) d(2) c C(COPY 2) Z(I)")),
        ("a copy out that fails", relayed(&[query("copy (select 1) to stdout")], "Q", "H d(1) E(22012 no) Z(I)")),
    ]
}

/// Plays all scripts; the session is good for more after each, on the same server connection.
fn play_all(cuts: impl Fn(usize) -> Vec<Cut>) {
    let mut stage = Stage::start();
    for (name, script) in scripts() {
        let longest = script.iter().map(|act| match act {
            Act::Client(bytes) => bytes.len(),
            Server(text) => messages(text).len(),
            Seen(_) | Told(_) => 0,
        });
        for cut in cuts(longest.max().unwrap_or(0)) {
            eprintln!("{name}, cut {cut:?}");
            let (mut client, on) = stage.play(&script, cut);
            let next = stage.works(&mut client);
            assert!(on.is_none_or(|on| on == next), "{name}: the connection is used again");
        }
    }
}

#[test]
fn replies_and_requests_are_relayed() {
    play_all(|_| vec![Cut::Nowhere]);
}

#[test]
fn messages_may_come_in_two_parts() {
    play_all(|longest| (1..longest).map(Cut::At).collect());
}

#[test]
fn messages_may_come_byte_by_byte() {
    play_all(|_| vec![Cut::Everywhere]);
}

/// At each place of a pipeline, the server skips to the Sync.
#[test]
fn an_error_at_each_place_of_a_pipeline() {
    let mut stage = Stage::start();
    let sent = [whole("select 1"), raw::close_portal(""), whole("select 2"), sync()].concat();
    let answers = ["1", "2", "T", "D(1) C(SELECT 1)", "3", "1", "2", "n", "C(SELECT 0)", ""];
    for place in 0..answers.len() {
        let mut client = stage.client();
        client.send(&sent);
        let on = stage.server.expect("PBDECPBDES");
        let answer = format!("{} E(22012 no) Z(I)", answers[..place].join(" "));
        stage.server.say(on, &messages(&answer));
        assert_told(&mut client, &answer, "pipeline");
        assert_eq!(stage.works(&mut client), on);
    }
}

/// What a server may say at any time goes to the client whose turn it is, if it is for it.
#[test]
fn the_server_may_speak_between_any_two_messages() {
    let mut stage = Stage::start();
    let answer = ["1", "2", "T", "D(1)", "D(2)", "C(SELECT 2)", "Z(I)"];
    for place in 0..answer.len() {
        let (before, behind) = (answer[..place].join(" "), answer[place..].join(" "));
        for (said, told) in [
            ("N(hear me)", "N(hear me)"),
            // Not what the client was told before; told once.
            ("S(TimeZone=Asia/Tokyo) S(TimeZone=Asia/Tokyo)", "S(TimeZone=Asia/Tokyo)"),
            ("S(in_hot_standby=off)", ""),
            ("A(channel secret)", ""),
        ] {
            let mut client = stage.client();
            client.send(&[whole("select 1"), sync()].concat());
            let on = stage.server.expect("PBDES");
            stage.server.say(on, &messages(&format!("{before} {said} {behind}")));
            assert_told(&mut client, &format!("{before} {told} {behind}"), said);
            // And back, for the clients to come.
            client.send(&query("select 1"));
            let on = stage.server.expect("Q");
            stage.server.say(on, &messages("S(TimeZone=UTC) C(SELECT 0) Z(I)"));
            client.reply();
        }
    }
}

/// However far a server came when it hung up, the client has what was whole, one error, and goes on.
#[test]
fn a_server_may_hang_up_within_any_message() {
    let mut stage = Stage::start();
    let whole_answer = "1 2 T D(1) D(2) C(SELECT 2) Z(I)";
    let bytes = messages(whole_answer);
    let ends = ends_of(&bytes);
    for place in 0..bytes.len() {
        for (sent, behind) in [(sync(), "PBDES"), (flush(), "PBDEH")] {
            let mut client = stage.client();
            client.send(&[whole("select 1"), sent.clone()].concat());
            let on = stage.server.expect(behind);
            stage.server.say(on, &bytes[..place]);
            stage.server.hang_up(on);
            let came = ends.iter().filter(|&&end| end <= place).count();
            let told: Vec<&str> = messages_of(whole_answer).into_iter().take(came).collect();
            assert_told(&mut client, &format!("{} E(08006)", told.join(" ")), "hung up");
            if sent == flush() {
                client.send(&sync());
            }
            assert_told(&mut client, "Z(I)", "hung up");
            assert_ne!(stage.works(&mut client), on);
        }
    }
}

fn messages_of(text: &'static str) -> Vec<&'static str> {
    // A blank in brackets is part of a message.
    let mut depth = 0;
    text.split(|letter| {
        depth += i32::from(letter == '(') - i32::from(letter == ')');
        letter == ' ' && depth == 0
    })
    .collect()
}

/// Where each message ends.
fn ends_of(bytes: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        at += 1 + u32::from_be_bytes(bytes[at + 1..at + 5].try_into().unwrap()) as usize;
        ends.push(at);
    }
    ends
}

/// A server's FATAL ends its own connection; the client hears of it once, as an error.
#[test]
fn a_server_may_end_its_session_between_any_two_messages() {
    let mut stage = Stage::start();
    let answer = ["1", "2", "T", "D(1)", "C(SELECT 1)"];
    for place in 0..=answer.len() {
        for sent in [sync(), flush()] {
            let mut client = stage.client();
            client.send(&[whole("select 1"), sent.clone()].concat());
            let on = stage.server.expect(if sent == sync() { "PBDES" } else { "PBDEH" });
            let before = answer[..place].join(" ");
            stage.server.say(on, &messages(&format!("{before} F(57P01 bye)")));
            assert_told(&mut client, &format!("{before} E(08006)"), "fatal");
            stage.server.expect_closed(on);
            if sent == flush() {
                client.send(&sync());
            }
            assert_told(&mut client, "Z(I)", "fatal");
            assert_ne!(stage.works(&mut client), on);
        }
    }
}

/// A reply that nobody asked for is nobody's: its connection is closed, whether it comes with the last reply or later.
#[test]
fn a_reply_that_nobody_asked_for_reaches_nobody() {
    let mut stage = Stage::start();
    let unasked = "T D(a secret) C(SELECT 1) Z(I)";
    for with_the_last in [true, false] {
        let mut client = stage.client();
        client.send(&query("select 1"));
        let on = stage.server.expect("Q");
        let answer = "T D(1) C(SELECT 1) Z(I)";
        if with_the_last {
            stage.server.say(on, &[messages(answer), messages(unasked)].concat());
        } else {
            stage.server.say(on, &messages(answer));
            assert_told(&mut client, answer, "asked");
            stage.server.say(on, &messages(unasked));
            let mut other = stage.client();
            assert_ne!(stage.works(&mut other), on);
            continue;
        }
        assert_told(&mut client, answer, "asked");
        stage.server.expect_closed(on);
        let mut other = stage.client();
        assert_ne!(stage.works(&mut other), on);
        assert_ne!(stage.works(&mut client), on);
    }
}

/// In a block, the connection is the client's: the block is lost with it.
#[test]
fn a_reply_that_nobody_asked_for_ends_the_block() {
    let mut stage = Stage::start();
    let mut client = stage.client();
    client.send(&[query("begin"), query("select 1")].concat());
    let on = stage.server.expect("Q");
    stage.server.say(on, &messages("C(BEGIN) Z(T)"));
    assert_eq!(stage.server.expect("Q"), on);
    stage.server.say(on, &messages("T D(1) C(SELECT 1) Z(T) T D(a secret) C(SELECT 1) Z(T)"));
    assert_told(&mut client, "C(BEGIN) Z(T) T D(1) C(SELECT 1) Z(T)", "asked");
    client.send(&query("select 2"));
    assert_told(&mut client, "E(08P01) Z(E)", "unasked");
    client.send(&query("commit"));
    assert_told(&mut client, "C(ROLLBACK) Z(I)", "the end");
    assert_ne!(stage.works(&mut client), on);
}

/// The same for a client that keeps its connection between transactions.
#[test]
fn a_reply_that_nobody_asked_for_is_not_taken_for_one_of_the_proxys_own() {
    let mut stage = Stage::start();
    let mut client = Raw::connect(stage.proxy.port, &[("user", "tied"), ("database", "shop")]);
    client.send(&query("select 1"));
    let on = stage.server.expect("Q");
    stage.server.say(on, &messages("C(SELECT 0) Z(I) D(a secret) C(SELECT 1) Z(I)"));
    assert_told(&mut client, "C(SELECT 0) Z(I)", "asked");
    client.send(&query("select 2"));
    let reply = client.reply();
    assert!(reply.rows.is_empty() && reply.error.is_some(), "{reply:?}");
}

#[test]
fn a_reply_of_another_kind_ends_the_connection() {
    let mut stage = Stage::start();
    for (sent, seen, answer) in [
        (query("select 1"), "Q", "2 Z(I)"),
        (query("select 1"), "Q", "s Z(I)"),
        (query("select 1"), "Q", "R0"),
        ([whole("select 1"), sync()].concat(), "PBDES", "2 1 T C(SELECT 0) Z(I)"),
        ([whole("select 1"), sync()].concat(), "PBDES", "1 2 C(SELECT 0) Z(I)"),
        ([whole("select 1"), sync()].concat(), "PBDES", "1 2 T D(1) Z(I)"),
    ] {
        let mut client = stage.client();
        client.send(&sent);
        let on = stage.server.expect(seen);
        stage.server.say(on, &messages(answer));
        let reply = client.reply();
        assert_eq!((reply.sqlstate(), reply.status), ("08P01", 'I'), "{answer}");
        stage.server.expect_closed(on);
        assert_ne!(stage.works(&mut client), on);
    }
}

/// Lengths that cannot be, statuses that are none, text without an end.
#[test]
fn a_malformed_reply_ends_the_connection() {
    let mut stage = Stage::start();
    for bytes in [
        &b"T\0\0\0\x03"[..],
        b"T\xff\xff\xff\xff",
        b"T\x7f\xff\xff\xff",
        b"C\0\0\0\x05\0Z\0\0\0\x05?",
        b"C\0\0\0\x05\0Z\0\0\0\x04T\0\0\0\x04",
        b"\0\0\0\0\0\0\0\0",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ] {
        let mut client = stage.client();
        client.send(&query("select 1"));
        let on = stage.server.expect("Q");
        stage.server.say(on, bytes);
        let reply = client.reply();
        assert_eq!((reply.sqlstate(), reply.status), ("08P01", 'I'), "{}", bytes.escape_ascii());
        stage.server.expect_closed(on);
        assert_ne!(stage.works(&mut client), on);
    }
}

/// Whatever the client has begun when it leaves, its connection is not used again half way, and it is let go.
#[test]
fn a_client_may_leave_at_any_point() {
    let mut stage = Stage::start();
    let sent = [parse("", "select 1"), bind("", &[]), execute(), sync(), query("select 2")];
    for count in 0..=sent.len() {
        let mut client = stage.client();
        client.send(&[&sent[..count], &[raw::terminate()]].concat().concat());
        if (1..=3).contains(&count) {
            let on = stage.server.expect(&["P", "PB", "PBE"][count - 1].chars().chain(['X']).collect::<String>());
            stage.server.hang_up(on);
        }
        if count >= 4 {
            let on = stage.server.expect("PBES");
            stage.server.say(on, &messages("1 2 C(SELECT 0) Z(I)"));
        }
        if count >= 5 {
            let on = stage.server.expect("Q");
            stage.server.say(on, &messages("C(SELECT 0) Z(I)"));
        }
        // The end of the connection, after whatever there was to say.
        client.input().read_to_end(&mut Vec::new()).unwrap();
        let mut other = stage.client();
        stage.works(&mut other);
    }
}

/// A slow reader holds back its own server alone, and nothing is kept in memory.
#[test]
fn a_slow_reader_holds_back_its_own_server_alone() {
    let mut stage = Stage::start();
    let mut slow = stage.client();
    slow.send(&query("select 1"));
    let on = stage.server.expect("Q");
    let row = messages(&format!("D({})", "x".repeat(60_000)));
    let mut stream = stage.server.stream(on);
    stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    stream.write_all(&messages("T")).unwrap();
    // Until nothing more goes through: every socket and buffer on the way is full.
    let (mut written, mut refused) = (0, 0);
    while refused < 4 {
        match stream.write(&row[written % row.len()..]) {
            Ok(count) => (written, refused) = (written + count, 0),
            Err(_) => {
                refused += 1;
                stage.pulse();
            }
        }
        assert!(written < 64 << 20, "somebody keeps what nobody reads");
    }
    let mut other = stage.client();
    assert_ne!(stage.works(&mut other), on);
    stream.set_write_timeout(None).unwrap();
    let rest = row[written % row.len()..].to_vec();
    let writer = std::thread::spawn(move || {
        stream.write_all(&rest).unwrap();
        stream.write_all(&messages("C(SELECT 1) Z(I)")).unwrap();
    });
    let reply = slow.reply();
    writer.join().unwrap();
    assert_eq!((reply.kinds.as_str(), reply.rows.len()), ("TDCZ", written.div_ceil(row.len())));
    assert_eq!(stage.works(&mut slow), on);
}
