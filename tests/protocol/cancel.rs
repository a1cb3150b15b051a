//! Cancel requests at every moment of a statement's life.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use crate::fake::messages;
use crate::login::log_in;
use crate::raw::{Raw, query};
use crate::stage::{Stage, assert_told};

/// Where the server gave no key, a cancel request is in vain, and the connection is not used again.
#[test]
fn without_a_key_nothing_is_cancelled() {
    let (mut stage, error) = log_in(vec![messages("R0 Z(I)")]);
    assert_eq!(error, None);
    let mut client = stage.client();
    client.send(&query("select 1"));
    let on = stage.server.expect("Q");
    Raw::cancel(stage.proxy.port, &client.key.clone());
    stage.server.say(on, &messages("C(SELECT 0) Z(I)"));
    assert_told(&mut client, "C(SELECT 0) Z(I)", "cancelled in vain");
    stage.server.expect_closed(on);
    assert_ne!(stage.works(&mut client), on);
}

/// A client that waits for the end of its request, as libpq does, may send what comes next: the request must not hit that.
#[test]
fn a_cancel_request_is_over_when_the_server_has_had_it() {
    let mut stage = Stage::start();
    let mut client = stage.client();
    client.send(&query("select 1"));
    let on = stage.server.expect("Q");
    let kept = stage.server.keep_cancels();
    let request = Raw::begin_cancel(stage.proxy.port, &client.key);
    request.set_nonblocking(true).unwrap();
    let at_server = kept.recv().unwrap();
    stage.pulse();
    let early = request.peek(&mut [0]).map_err(|cause| cause.kind());
    assert_eq!(early, Err(ErrorKind::WouldBlock), "the server has not had it");
    drop(at_server);
    request.set_nonblocking(false).unwrap();
    assert_eq!((&request).read(&mut [0]).unwrap_or(0), 0);
    stage.server.say(on, &messages("E(57014 cancelled) Z(I)"));
    assert_told(&mut client, "E(57014 cancelled) Z(I)", "cancelled");
}

/// The server is in the middle of the BEGIN that goes before the statement: told of it then alone, it would run the statement.
#[test]
fn a_cancel_request_that_comes_before_its_statement_waits_for_it() {
    let mut stage = Stage::start();
    let mut client = stage.client();
    client.send(&[query("begin"), query("select 1")].concat());
    let on = stage.server.expect("Q");
    let kept = stage.server.keep_cancels();
    let _request = Raw::begin_cancel(stage.proxy.port, &client.key);
    carry_out(&kept);
    stage.server.say(on, &messages("C(BEGIN) Z(T)"));
    assert_eq!(stage.server.expect("Q"), on);
    carry_out(&kept);
    stage.server.say(on, &messages("E(57014 cancelled) Z(E)"));
    assert_told(&mut client, "C(BEGIN) Z(T) E(57014 cancelled) Z(E)", "cancelled");
}

/// The connection is made the session's own: nothing is asked on it for a statement that is not wanted any more.
#[test]
fn a_cancel_request_among_settings_ends_the_statement_behind_them() {
    let mut stage = Stage::start();
    let (mut client, mut other) = (stage.client(), stage.client());
    other.send(&query("set extra_float_digits = 1"));
    let on = stage.server.expect("Q");
    stage.server.say(on, &messages("C(SET) Z(I)"));
    client.send(&query("select 1"));
    assert_eq!(stage.server.expect("Q"), on);
    let kept = stage.server.keep_cancels();
    let _request = Raw::begin_cancel(stage.proxy.port, &client.key);
    carry_out(&kept);
    stage.server.say(on, &messages("C(RESET) Z(I)"));
    assert_told(&mut client, "E(57014) Z(I)", "cancelled");
    stage.server.expect_closed(on);
}

/// The next cancel request that reaches the server.
fn carry_out(kept: &Receiver<TcpStream>) {
    drop(kept.recv_timeout(PATIENCE).expect("the server is told"));
}

const PATIENCE: Duration = Duration::from_secs(10);
