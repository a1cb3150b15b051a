//! A server connection while a client has it.

use std::sync::Arc;

use super::registry::Client;
use super::station::Borrowed;
use crate::backend::{Connection, Pool};
use crate::balance::InFlight;
use crate::topology::{Role, ServerId, ShardId};

/// Given back to its pool by [`Lent::give_back`]; dropped in any other way it is closed, and what runs on it ended.
pub(super) struct Lent {
    pub connection: Box<Connection>,
    pub shard: ShardId,
    pub server: ServerId,
    pub role: Role,
    pool: Arc<Pool>,
    client: Arc<Client>,
    in_flight: Option<InFlight>,
}

impl Lent {
    pub(super) fn new(borrowed: Borrowed, shard: ShardId, client: &Arc<Client>) -> Self {
        let Borrowed { connection, pool, server, role, in_flight } = borrowed;
        client.bind(connection.target());
        let client = Arc::clone(client);
        Self { connection, shard, server, role, pool, client, in_flight: Some(in_flight) }
    }

    /// To the pool, if it may be used again.
    pub(super) fn give_back(mut self) {
        // From here on a cancel request of the client reaches nothing.
        self.client.unbind(self.connection.target());
        if let Some(in_flight) = self.in_flight.take() {
            in_flight.finish();
        }
        self.pool.take_back(self.connection);
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
