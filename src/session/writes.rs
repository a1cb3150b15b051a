//! Writes on one connection, as the result cache hears of them (see `cache`): announced before anything is sent that
//! may commit them, ended when it is known whether it did.

use std::sync::Arc;

use tokio::time::Instant;

use super::Session;
use super::lent::Lent;
use crate::cache::{Touched, Witness, Writing};

/// Of the transaction that is open on a connection, or of the statement that runs there.
#[derive(Default)]
pub(super) struct Writes {
    /// Since the transaction began.
    touched: Touched,
    /// Dropped with a broken connection: the control plane finds out how it ended.
    pending: Option<Writing>,
}

impl Session {
    /// Before something is sent that changes this. `may_commit`: with its end the change may be there for all.
    pub(super) fn touch(&self, lent: &mut Lent, touched: &Touched, may_commit: bool) {
        lent.writes.touched.merge(touched);
        if may_commit {
            self.announce(lent, None);
        }
    }

    /// Before COMMIT or the like is sent; with its name if it will be prepared first.
    pub(super) fn announce(&self, lent: &mut Lent, gid: Option<&str>) {
        let writes = &mut lent.writes;
        if writes.touched.is_nothing() {
            return;
        }
        let (server, process) = (Arc::clone(&lent.connection.server), lent.connection.target().process());
        let witness = Witness { server, process, gid: gid.map(Into::into) };
        let place = self.snapshot.spaces.as_ref().and_then(|known| known.get(usize::from(lent.shard.0)).cloned());
        let pending = self.station.shared.control.spaces().write(place.as_slice(), &writes.touched, witness);
        // The one before covered less.
        writes.pending.replace(pending).into_iter().for_each(Writing::rolled_back);
    }
}

impl Writes {
    /// The transaction, or the statement by itself, is over.
    pub(super) fn end(&mut self, committed: bool) {
        // A procedure that failed may have committed before.
        self.go_on(committed || self.touched.is_everything());
        self.touched = Touched::nothing();
    }

    /// What was sent has been answered, and a transaction goes on. `committed`: another one ended before.
    pub(super) fn go_on(&mut self, committed: bool) {
        match self.pending.take() {
            Some(pending) if committed => pending.committed(Instant::now()),
            Some(pending) => pending.rolled_back(),
            None => {}
        }
    }
}
