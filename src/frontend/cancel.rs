//! Cancel keys: which server gave which key, so that a CancelRequest reaches the right one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::backend;
use crate::config::DatabaseEntry;
use crate::wire::Startup;

/// The keys of all sessions being served.
#[derive(Default)]
pub(super) struct CancelKeys(Mutex<HashMap<Vec<u8>, DatabaseEntry>>);

/// Takes its key out again when the session ends.
pub(super) struct Registered<'a> {
    keys: &'a CancelKeys,
    key: Vec<u8>,
}

impl CancelKeys {
    fn register(&self, key: Vec<u8>, server: &DatabaseEntry) -> Registered<'_> {
        self.lock().insert(key.clone(), server.clone());
        Registered { keys: self, key }
    }

    /// Hands a CancelRequest to the server that gave the key; an unknown key is ignored, as PostgreSQL does.
    pub(super) async fn forward(&self, key: Vec<u8>) -> std::io::Result<()> {
        let server = self.lock().get(&key).cloned();
        let Some(server) = server else { return Ok(()) };
        let mut stream = backend::open(&server, &Startup::Cancel(key)).await.map_err(std::io::Error::other)?;
        // The server closes when the signal has been sent; only then may the client see its own close.
        stream.read_to_end(&mut Vec::new()).await.map(|_| ())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Vec<u8>, DatabaseEntry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.keys.lock().remove(&self.key);
    }
}

/// Relays the log-in in both directions until the server is ready, learning the cancel key on the way.
/// `None`: the log-in ended without one.
pub(super) async fn relay_login<'a>(
    client: &mut TcpStream,
    stream: &mut TcpStream,
    server: &DatabaseEntry,
    keys: &'a CancelKeys,
) -> std::io::Result<Option<Registered<'a>>> {
    let mut registered = None;
    let mut unread = Vec::new();
    let (mut from_server, mut from_client) = ([0; 4096], [0; 4096]);
    loop {
        // Both reads lose nothing when the other one wins.
        tokio::select! {
            count = stream.read(&mut from_server) => {
                let bytes = &from_server[..count?];
                unread.extend_from_slice(bytes);
                let seen = scan(&mut unread)?;
                if let Some(key) = seen.key {
                    registered = Some(keys.register(key, server));
                }
                client.write_all(bytes).await?;
                if seen.ready || bytes.is_empty() {
                    return Ok(registered);
                }
            }
            count = client.read(&mut from_client) => match count? {
                0 => return Ok(registered),
                count => stream.write_all(&from_client[..count]).await?,
            },
        }
    }
}

/// What the frames of a log-in told.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    key: Option<Vec<u8>>,
    ready: bool,
}

/// Takes whole frames off the front of `unread`; BackendKeyData and ReadyForQuery matter.
fn scan(unread: &mut Vec<u8>) -> std::io::Result<Seen> {
    let mut seen = Seen::default();
    let mut taken = 0;
    while let Some((header, _)) = unread[taken..].split_first_chunk::<5>() {
        let length = i32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let fault = || std::io::Error::new(std::io::ErrorKind::InvalidData, "bad frame length in log-in");
        let length = usize::try_from(length).ok().filter(|length| (4..=MAX_LOGIN_FRAME).contains(length));
        let end = taken + 1 + length.ok_or_else(fault)?;
        if unread.len() < end {
            break;
        }
        match header[0] {
            b'K' => seen.key = Some(unread[taken + 5..end].to_vec()),
            b'Z' => seen.ready = true,
            _ => {}
        }
        taken = end;
    }
    unread.drain(..taken);
    Ok(seen)
}

const MAX_LOGIN_FRAME: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_found_wherever_the_stream_is_split() {
        let stream = b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x01\0\0\0\x02Z\0\0\0\x05I";
        for split in 0..=stream.len() {
            let mut unread = stream[..split].to_vec();
            let first = scan(&mut unread).unwrap();
            unread.extend_from_slice(&stream[split..]);
            let second = scan(&mut unread).unwrap();
            assert_eq!(first.key.or(second.key), Some(vec![0, 0, 0, 1, 0, 0, 0, 2]), "split at {split}");
            assert!(first.ready || second.ready);
            assert_eq!(unread, b"");
        }
    }

    #[test]
    fn impossible_lengths_end_the_log_in() {
        for length in [-1, 0, 3, 65_537, i32::MAX] {
            let mut unread = [&b"R"[..], &i32::to_be_bytes(length)].concat();
            assert!(scan(&mut unread).is_err(), "length {length}");
        }
    }
}
