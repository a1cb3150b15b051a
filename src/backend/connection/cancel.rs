//! Where a statement is cancelled.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::backend::login::{self, Address};
use crate::error::{Error, SqlState};
use crate::topology::Server;
use crate::wire::message::error_field;
use crate::wire::{CancelKey, Channel, Startup};

/// Where a CancelRequest for a connection goes.
#[derive(Debug)]
pub struct CancelTarget {
    server: Arc<Server>,
    address: Address,
    key: Option<CancelKey>,
    /// A request was or is being sent.
    announced: AtomicBool,
    /// Of a request of the proxy's own: what the client is told in the place of 57014.
    reason: Mutex<Option<Error>>,
    pub opened: Instant,
    /// This end of the connection.
    pub local: Option<SocketAddr>,
    /// Protocol and cipher.
    pub encryption: Option<String>,
}

impl CancelTarget {
    pub(super) fn new(server: &Arc<Server>, address: Address, key: Option<CancelKey>, channel: &Channel) -> Self {
        Self {
            server: Arc::clone(server),
            address,
            key,
            announced: AtomicBool::new(false),
            reason: Mutex::default(),
            opened: Instant::now(),
            local: channel.local(),
            encryption: channel.encryption(),
        }
    }

    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Number of the server's process; 0 if it did not tell.
    pub fn process(&self) -> i32 {
        self.key.as_ref().map_or(0, |key| key.process)
    }

    /// A cancel request was or is being sent: the connection is closed when its client is done with it.
    pub fn is_announced(&self) -> bool {
        self.announced.load(Ordering::Acquire)
    }

    /// A cancel request is about to be sent. It may hit late: the connection is never used for another client.
    pub fn announce(&self) {
        self.announced.store(true, Ordering::Release);
    }

    /// As [`CancelTarget::cancel`]; the client is told another reason than its own request.
    pub async fn cancel_for(&self, reason: Error) -> std::io::Result<()> {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        self.cancel().await
    }

    /// What the client is told in the place of an ErrorResponse with this body, once.
    pub(super) fn take_reason(&self, body: &[u8]) -> Option<Error> {
        if !self.is_announced() || error_field(body, b'C') != Some(SqlState::CANCELED.0) {
            return None;
        }
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Asks the server to end what the connection runs; returns when the server has sent the signal.
    pub async fn cancel(&self) -> std::io::Result<()> {
        self.announce();
        let Some(key) = self.key else { return Err(std::io::Error::other("the server gave no key to cancel with")) };
        let attempt = async {
            let mut stream = login::dial(&self.server, &self.address).await?;
            stream.write_all(&Startup::Cancel(key.encode()).encode()).await?;
            stream.flush().await?;
            // Some servers close, some reset: either way the signal has been sent.
            match stream.read_to_end(&mut Vec::new()).await {
                Ok(_) => Ok(()),
                Err(cause) if cause.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
                Err(cause) => Err(cause),
            }
        };
        timeout(CANCEL_TIMEOUT, attempt).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
    }
}

const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);
