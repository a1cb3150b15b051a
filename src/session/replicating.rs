//! A client that replicates: its server's bytes are its own, in both directions, until one of them leaves.

use std::task::{Context, Poll};

use super::registry::{Client, Registry, State};
use super::run::{End, shutting_down, terminated};
use crate::backend::Connection;
use crate::executor::{BUFFER_BYTES, move_front};
use crate::wire::Channel;

/// Nothing of the server's but this client has the connection.
pub async fn replicate(client: &mut Channel, mut connection: Box<Connection>, known: &Client, all: &Registry) -> End {
    known.bind(connection.target());
    known.pin(Some(REASON));
    known.become_(State::Active);
    let server = &mut connection.channel;
    let end = std::future::poll_fn(|cx| {
        known.waits(cx.waker());
        if known.is_terminated() {
            return Poll::Ready(End::Refused(terminated()));
        }
        if all.is_ending() {
            return Poll::Ready(End::Refused(shutting_down()));
        }
        loop {
            let (asked, answered) = (pass(cx, client, server), pass(cx, server, client));
            match (asked, answered) {
                (Passed::Ended(cause), _) => return Poll::Ready(cause.map_or(End::Left, End::Gone)),
                (_, Passed::Ended(_)) => return Poll::Ready(End::Left),
                (Passed::Nothing, Passed::Nothing) => return Poll::Pending,
                (Passed::Some, _) | (_, Passed::Some) => {}
            }
        }
    })
    .await;
    // Its last word; a server that cannot be told finds out by the end of the connection.
    let _ = server.flush_some().await;
    known.unbind(connection.target());
    end
}

enum Passed {
    Some,
    Nothing,
    Ended(Option<std::io::Error>),
}

/// From one to the other, as far as that one takes it.
fn pass(cx: &mut Context<'_>, from: &mut Channel, to: &mut Channel) -> Passed {
    if to.output.len() < BUFFER_BYTES {
        let filled = from.poll_fill(cx);
        let there = from.input.len();
        move_front(&mut from.input, there, &mut to.output);
        match filled {
            Poll::Ready(Ok(0)) => return Passed::Ended(None),
            Poll::Ready(Err(cause)) => return Passed::Ended(Some(cause)),
            Poll::Ready(Ok(_)) => return Passed::Some,
            Poll::Pending => {}
        }
    }
    if to.is_written() {
        return Passed::Nothing;
    }
    match to.poll_flush(cx) {
        Poll::Pending => Passed::Nothing,
        Poll::Ready(Ok(())) => Passed::Some,
        Poll::Ready(Err(cause)) => Passed::Ended(Some(cause)),
    }
}

/// Why the connection stays with its client.
const REASON: &str = "replication";
