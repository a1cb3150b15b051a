//! Other instances behind the same address: a cancel request may come to one that does not serve its client.
//!
//! It is passed on to all peers, once: what comes from a peer goes no further. Bounded, because anybody can send such
//! requests: so many at a time, each for so long.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::wire::{CancelKey, Startup};

pub(super) struct Peers {
    room: Semaphore,
}

impl Default for Peers {
    fn default() -> Self {
        Self { room: Semaphore::new(MOST_AT_A_TIME) }
    }
}

impl Peers {
    /// Returns when each peer has done what it can, or has had its time. Where too many wait already, nothing is passed on.
    pub(super) async fn pass_on(&self, peers: &[String], key: CancelKey) {
        if peers.is_empty() {
            return;
        }
        let Ok(Ok(_room)) = timeout(PATIENCE, self.room.acquire()).await else {
            tracing::debug!("a cancel request was dropped: too many are being passed on");
            return;
        };
        let packet = Startup::PassedCancel(key.encode()).encode();
        let tell = |peer| timeout(PATIENCE, pass(peer, &packet));
        for (peer, told) in peers.iter().zip(join_all(peers.iter().map(tell)).await) {
            match told {
                Ok(Ok(())) => {}
                Ok(Err(cause)) => tracing::debug!(peer, %cause, "a cancel request was not passed on"),
                Err(_) => tracing::debug!(peer, "a cancel request was not passed on in time"),
            }
        }
    }
}

/// As a server does, a peer closes the connection when it is done.
async fn pass(peer: &String, packet: &[u8]) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(peer).await?;
    stream.write_all(packet).await?;
    match stream.read_to_end(&mut Vec::new()).await {
        Ok(_) => Ok(()),
        Err(cause) if cause.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
        Err(cause) => Err(cause),
    }
}

const MOST_AT_A_TIME: usize = 64;
/// A peer that is there answers at once, or within the time of its server.
const PATIENCE: Duration = Duration::from_secs(5);
