//! A server connection while a client has it.

use std::sync::Arc;

use super::registry::Client;
use crate::backend::{Connection, Pool};
use crate::balance::InFlight;
use crate::topology::{Role, ShardId};

/// Given back to its pool by [`Lent::give_back`]; dropped in any other way it is closed, and what runs on it ended.
pub(super) struct Lent {
    pub connection: Box<Connection>,
    pub shard: ShardId,
    pub role: Role,
    pool: Arc<Pool>,
    client: Arc<Client>,
    in_flight: Option<InFlight>,
}

impl Lent {
    pub fn new(
        connection: Connection,
        pool: Arc<Pool>,
        (shard, role): (ShardId, Role),
        client: &Arc<Client>,
        in_flight: InFlight,
    ) -> Self {
        client.bind(connection.target());
        let client = Arc::clone(client);
        Self { connection: Box::new(connection), shard, role, pool, client, in_flight: Some(in_flight) }
    }

    /// To the pool, if it may be used again.
    pub fn give_back(mut self) {
        // From here on a cancel request of the client reaches nothing.
        self.client.unbind(self.connection.target());
        if let Some(in_flight) = self.in_flight.take() {
            in_flight.finish();
        }
        self.pool.take_back(*self.connection);
    }

    /// Ends what runs on it, and the connection.
    pub fn abandon(self) {
        self.client.unbind(self.connection.target());
        self.connection.abandon();
    }
}
