//! The proxy's own schema on a database's primaries, without which no write over several shards is decided.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::migrate::apply;
use super::primaries::Primaries;
use super::progress::IDENTITY;
use crate::error::{Error, SqlState};

/// Whether schema `pgweir` is there, for those who wait for it.
#[derive(Clone)]
pub(super) struct Schema(Arc<watch::Sender<State>>);

#[derive(Clone, PartialEq)]
enum State {
    Unknown,
    /// What each shard's database is told from others by.
    Made(Arc<[String]>),
    Failed(String),
    /// It is there, but this server has no room for prepared transactions.
    Unprepared(String),
}

impl Default for Schema {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(State::Unknown)))
    }
}

impl Schema {
    /// Makes it where it may, and tries again until it is there.
    pub(super) async fn ensure(&self, primaries: &Primaries) {
        loop {
            let state = look(primaries).await;
            let is_made = matches!(state, State::Made(_));
            if !is_made && *self.0.borrow() != state {
                tracing::warn!(why = state.fault(), "writes over several shards are refused");
            }
            self.0.send_replace(state);
            if is_made {
                break;
            }
            sleep(PAUSE).await;
        }
    }

    /// Whether there is any use in beginning such a write, by what is known now.
    pub(super) fn check(&self) -> Result<(), Error> {
        match &*self.0.borrow() {
            State::Unprepared(server) => Err(unprepared(server)),
            State::Unknown | State::Made(_) | State::Failed(_) => Ok(()),
        }
    }

    /// Waits for a while until it is there; gives what each shard's database is told from others by.
    pub(super) async fn made(&self) -> Result<Arc<[String]>, Error> {
        let mut state = self.0.subscribe();
        let decided = |state: &State| matches!(state, State::Made(_) | State::Unprepared(_));
        if let Ok(Ok(state)) = timeout(WAIT, state.wait_for(decided)).await {
            return match &*state {
                State::Made(identities) => Ok(Arc::clone(identities)),
                State::Unprepared(server) => Err(unprepared(server)),
                State::Unknown | State::Failed(_) => unreachable!("it is waited for another one"),
            };
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

impl State {
    fn fault(&self) -> String {
        match self {
            Self::Unknown | Self::Made(_) => String::new(),
            Self::Failed(why) => format!("schema pgweir is not complete: {why}"),
            Self::Unprepared(server) => format!("max_prepared_transactions is 0 on {server}"),
        }
    }
}

fn unprepared(server: &str) -> Error {
    Error::unsupported("a write on several shards", "Set max_prepared_transactions on every server.")
        .with_detail(State::Unprepared(server.to_owned()).fault())
}

/// Makes it where it may.
async fn look(primaries: &Primaries) -> State {
    let Some(servers) = primaries.all() else { return State::Failed("no password to log in with".to_owned()) };
    let work = async {
        apply(&servers, &[]).await.map_err(|cause| cause.to_string())?;
        let mut identities = Vec::new();
        for server in &servers {
            let client = primaries.lend(server).await.map_err(|cause| cause.to_string())?;
            let room = client.rows("SHOW max_prepared_transactions").await.map_err(|cause| cause.to_string())?;
            if room == [[Some("0".to_owned())]] {
                return Ok(State::Unprepared(format!("{}:{}", server.host, server.port)));
            }
            let identity = client.rows(IDENTITY).await.map_err(|cause| cause.to_string())?;
            identities.extend(identity.into_iter().flatten().flatten());
        }
        Ok(State::Made(identities.into()))
    };
    match timeout(DEADLINE, work).await {
        Ok(Ok(state)) => state,
        Ok(Err(why)) => State::Failed(why),
        Err(_) => State::Failed(format!("no answer within {} s", DEADLINE.as_secs())),
    }
}

/// A server that hangs is left for another try.
const DEADLINE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(3);
const WAIT: Duration = Duration::from_secs(5);
