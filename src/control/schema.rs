//! The proxy's own schema on a database's primaries, without which no write over several shards is decided.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::migrate::apply;
use super::primaries::Primaries;
use crate::error::{Error, SqlState};

/// Whether schema `pgweir` is there, for those who wait for it.
#[derive(Clone)]
pub(super) struct Schema(Arc<watch::Sender<State>>);

#[derive(Clone, PartialEq)]
enum State {
    Unknown,
    Made,
    Failed(String),
}

impl Default for Schema {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(State::Unknown)))
    }
}

impl Schema {
    /// Makes it where it may, and tries again until it is there.
    pub(super) async fn ensure(&self, primaries: &Primaries) {
        while let Err(why) = make(primaries).await {
            let state = State::Failed(why.clone());
            if self.0.send_replace(state.clone()) != state {
                tracing::warn!(why, "schema pgweir is not complete: writes over several shards are refused");
            }
            sleep(PAUSE).await;
        }
        self.0.send_replace(State::Made);
    }

    /// Waits for a while until it is there.
    pub(super) async fn made(&self) -> Result<(), Error> {
        let mut state = self.0.subscribe();
        let waited = timeout(WAIT, state.wait_for(|state| *state == State::Made)).await;
        if waited.is_ok() {
            return Ok(());
        }
        let error =
            Error::new(SqlState::UNAVAILABLE, "schema pgweir, which decides writes over several shards, is missing")
                .with_hint("Run `pgweir migrate` as a user who may create it, or let the user of [control] do so.");
        Err(match &*self.0.borrow() {
            State::Failed(why) => error.with_detail(why.clone()),
            _ => error,
        })
    }
}

async fn make(primaries: &Primaries) -> Result<(), String> {
    let servers = primaries.all().ok_or("no password to log in with")?;
    match timeout(DEADLINE, apply(&servers, &[])).await {
        Ok(outcome) => outcome.map(drop).map_err(|cause| cause.to_string()),
        Err(_) => Err(format!("no answer within {} s", DEADLINE.as_secs())),
    }
}

/// A server that hangs is left for another try.
const DEADLINE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(3);
const WAIT: Duration = Duration::from_secs(5);
