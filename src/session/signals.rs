//! `pg_cancel_backend` and `pg_terminate_backend`: of processes that are clients, by the numbers that they were told.

use std::sync::Arc;

use super::Session;
use super::effects::Effect;
use super::registry::Client;
use super::run::{End, terminated};
use super::transaction::{Begun, Open, Transaction};
use crate::backend::CancelTarget;
use crate::plan::Access;
use crate::wire::{Channel, Status};

impl Session {
    /// Clients know one another by process numbers of ours. Their own, or a superuser's, calls of the functions that signal
    /// processes reach them; the server, which has no such process, then says so. Gives the connection to go on with: who
    /// signals the process behind it by its number means somebody who had it before. `begun`: the block that begins with this.
    pub(super) async fn signal(
        &mut self,
        open: Box<Open>,
        effects: &[Effect],
        begun: Option<Begun>,
    ) -> Result<Box<Open>, End> {
        for effect in effects {
            let Effect::Signal { process: Some(process), end } = effect else { continue };
            match self.addressed(*process, *end, Some(open.lent.connection.target())) {
                Some(client) if *end && Arc::ptr_eq(&client, &self.client) => return Err(End::Refused(terminated())),
                // By its own number: see [`Session::signal_clients`].
                Some(client) if *end && client.key.process == *process => {}
                Some(client) if *end => client.terminate().await,
                Some(client) => client.cancel().await,
                None => {}
            }
        }
        if ends_processes(effects) {
            self.station.shared.registry.doom_users(open.lent.connection.target(), &self.client);
        }
        if effects.contains(&Effect::Number) {
            self.client.asks(open.lent.connection.target());
        }
        if effects.iter().any(|effect| self.is_mistaken(effect, open.lent.connection.target()))
            && self.pinned.is_none()
            && (begun.is_some() || open.lent.connection.status == Status::Idle)
        {
            let shard = open.lent.shard;
            open.abandon();
            self.transaction = begun.map_or(Transaction::Idle, Transaction::Begun);
            let another = self.take_live_connection(shard, Access::Write, effects).await;
            return another.map_err(|_| End::Refused(terminated()));
        }
        Ok(open)
    }

    /// Whether a signal that goes to the process behind this connection is meant for somebody else. To cancel itself, a client
    /// must have asked for the number.
    fn is_mistaken(&self, effect: &Effect, place: &Arc<CancelTarget>) -> bool {
        match effect {
            Effect::Signal { process: Some(process), end } if *process == place.process() => {
                *end || !self.client.was_told(place)
            }
            _ => false,
        }
    }

    /// The clients whom a statement of these effects signals by their own numbers: those that it names, and `strangers`, which
    /// the server was given at execution and did not know. As from a server, who asks hears first.
    pub(super) async fn signal_clients(
        &self,
        client: &mut Channel,
        strangers: &[i32],
        effects: &[Effect],
    ) -> Result<(), End> {
        let sent = self.send_answers(client).await;
        for effect in effects {
            match effect {
                Effect::Signal { process: Some(process), end: true } => self.signal_client(*process, true).await,
                Effect::Signal { process: None, end } => {
                    for &process in strangers {
                        self.signal_client(process, *end).await;
                    }
                }
                _ => {}
            }
        }
        sent
    }

    async fn signal_client(&self, process: i32, end: bool) {
        match self.addressed(process, end, None) {
            Some(client) if end => client.terminate().await,
            Some(client) => client.cancel().await,
            None => {}
        }
    }

    /// Whom a signal to a process of this number is for, if the client may send it one: a number of ours, or one of the
    /// server's of this connection.
    fn addressed(&self, process: i32, end: bool, place: Option<&Arc<CancelTarget>>) -> Option<Arc<Client>> {
        let registry = &self.station.shared.registry;
        // What is cancelled, the server knows best.
        let user = || registry.find_user(process, place.filter(|_| end)?, &self.client);
        registry.find(process).or_else(user).filter(|client| self.may_signal(client))
    }
}

/// Whatever processes it was to end, a statement that loses its own has ended itself.
pub(super) fn ends_processes(effects: &[Effect]) -> bool {
    effects.contains(&Effect::Signal { process: None, end: true })
}
