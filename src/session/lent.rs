//! A server connection while a client has it.

use std::sync::Arc;

use tokio::time::Instant;

use super::registry::Client;
use super::station::Borrowed;
use super::writes::Writes;
use crate::backend::{Connection, Pool};
use crate::balance::{Choice, InFlight};
use crate::control::Voice;
use crate::topology::{Role, ServerId, ShardId};

/// Given back to its pool by [`Lent::give_back`]; dropped in any other way it is closed, and what runs on it ended.
pub(super) struct Lent {
    pub connection: Box<Connection>,
    pub shard: ShardId,
    pub server: ServerId,
    pub role: Role,
    /// Of a replica: the moment of the primary that it had caught up with when it was chosen.
    pub caught_up: Option<Instant>,
    pub writes: Writes,
    /// It notifies in the client's name.
    pub voice: Option<Voice>,
    /// The session was tied to it before.
    pub tied: bool,
    pool: Arc<Pool>,
    client: Arc<Client>,
    in_flight: Option<InFlight>,
}

impl Lent {
    pub(super) fn new(borrowed: Borrowed, shard: ShardId, client: &Arc<Client>) -> Self {
        let Borrowed { connection, pool, choice, in_flight } = borrowed;
        let Choice { server, role, caught_up, .. } = choice;
        client.bind(connection.target());
        let client = Arc::clone(client);
        let (writes, in_flight) = (Writes::default(), Some(in_flight));
        Self { connection, shard, server, role, caught_up, writes, voice: None, tied: false, pool, client, in_flight }
    }

    /// To the pool, now, if it may be used again.
    pub(super) fn give_back(mut self, now: Instant) {
        // From here on a cancel request of the client reaches nothing.
        self.client.unbind(self.connection.target());
        if let Some(in_flight) = self.in_flight.take() {
            in_flight.finish(now);
        }
        // What was announced and not ended otherwise.
        self.end_writes(true);
        self.pool.take_back(self.connection, now);
    }

    /// The transaction is over. A server that did not do as it was told may do it yet: then the control plane finds out.
    pub(super) fn end_writes(&mut self, committed: bool) {
        if !self.connection.is_tainted() {
            self.writes.end(committed);
        }
    }

    /// See [`Pool::hear`].
    pub(super) fn hear(&mut self, name: &str, value: &str) {
        self.pool.hear(&mut self.connection, name, value);
    }

    /// Ends what runs on it, and the connection.
    pub(super) fn abandon(self) {
        self.client.unbind(self.connection.target());
        self.connection.abandon();
    }
}
