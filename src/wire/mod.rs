//! The frames of PostgreSQL's protocol 3 (PostgreSQL documentation, chapter 55). Knows no sockets.

pub mod scram;
mod startup;

pub use startup::{Parameter, Startup, frame_length};

use crate::error::Error;

/// An ErrorResponse of severity FATAL.
pub fn fatal(error: &Error) -> Vec<u8> {
    let mut body = Vec::with_capacity(128);
    let fields = [
        (b'S', Some("FATAL")),
        (b'V', Some("FATAL")),
        (b'C', Some(error.sqlstate.0)),
        (b'M', Some(error.message.as_str())),
        (b'D', error.detail.as_deref()),
        (b'H', error.hint.as_deref()),
    ];
    for (code, value) in fields {
        if let Some(value) = value {
            body.push(code);
            body.extend(value.bytes().filter(|&byte| byte != 0));
            body.push(0);
        }
    }
    body.push(0);
    frame(b'E', &body)
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len() + 4).expect("our own messages are short");
    let mut frame = Vec::with_capacity(body.len() + 5);
    frame.push(kind);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(body);
    frame
}
