//! Second attempts: a proven read whose server failed before the client had a byte of its answer, a statement whose copy
//! on the server does not hold any more (see [`super::replan`]).
//!
//! The unit is put back in front of the client's input, and is served as if it had just come.

use std::sync::{Mutex, PoisonError};

use super::Session;
use super::names::Done;
use super::replan::is_outdated;
use super::transaction::{Open, Transaction};
use crate::backend::Fault;
use crate::error::SqlState;
use crate::plan::Access;
use crate::topology::{Role, ServerId};
use crate::wire::Channel;
use crate::wire::frame::{client::QUERY, put_in_front};
use crate::wire::message::error_field;

/// A unit that may be served once more.
pub(super) struct Kept {
    pub unit: Box<[u8]>,
    /// Where its answer begins in all that the client was ever sent.
    pub answer: u64,
    /// A proven read, outside of blocks.
    reads: bool,
}

/// What another attempt may do better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The server refused to write, or does not know a name: on a replica, a primary may do.
    Replica,
    /// The server's copy of a prepared statement does not hold any more.
    Outdated,
}

/// What the second attempt must not do as the first did.
#[derive(Clone, Copy, Debug)]
pub(super) enum Again {
    Without(ServerId),
    /// The replica says that it is no read, or does not know yet what others have made meanwhile.
    OnPrimary,
    /// With prepared statements made anew, on the connection that the session has kept for it.
    Anew,
}

/// How many second attempts there may be, for all sessions together: when everything fails, none is to double the load.
#[derive(Default)]
pub(super) struct Budget(Mutex<Account>);

struct Account {
    left: f64,
    /// Statements served when the account was last looked at.
    served: u64,
}

impl Default for Account {
    fn default() -> Self {
        Self { left: BURST, served: 0 }
    }
}

impl Budget {
    /// Spends one, if there is one. `served`: statements served so far.
    pub(super) fn spend(&self, served: u64) -> bool {
        let mut account = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Counters begin anew for servers that a reload brought.
        let since = served.saturating_sub(account.served);
        account.served = served;
        account.left = (account.left + since as f64 * SHARE).min(BURST);
        let there = account.left >= 1.0;
        account.left -= f64::from(u8::from(there));
        there
    }
}

impl Kept {
    /// Of the unit of `length` bytes at the front of the input.
    pub(super) fn new(client: &Channel, length: usize, reads: bool) -> Self {
        Self { unit: Box::from(&client.input[..length]), answer: client.put_so_far(), reads }
    }
}

impl Session {
    /// Whether a unit, as the session stands, may be served once more.
    pub(super) fn may_repeat(&self, access: Access, length: usize) -> bool {
        let fits = matches!(access, Access::Read | Access::ReplicaOnly) && length <= MOST_KEPT;
        let free = matches!(self.transaction, Transaction::Idle) && self.pin.is_none() && self.retrying.is_none();
        fits && free && self.snapshot.has_replicas()
    }

    /// Whether the unit is served anew because its server is lost. `taken`: it is off the input, else it must still be
    /// there as it came.
    pub(super) fn try_without(&mut self, client: &mut Channel, kept: Option<Kept>, open: &Open, taken: bool) -> bool {
        let kept =
            kept.filter(|kept| kept.reads && open.heard.is_empty() && (taken || client.input.starts_with(&kept.unit)));
        let kept = kept.map(|kept| Kept { unit: if taken { kept.unit } else { Box::default() }, ..kept });
        self.begin_again(client, kept, Again::Without(open.lent.server))
    }

    /// After the end of a unit that failed. `Err`: the client is to have its error.
    pub(super) async fn try_again(
        &mut self,
        client: &mut Channel,
        kept: Option<Kept>,
        open: Box<Open>,
        trouble: Trouble,
    ) -> Result<(), Box<Open>> {
        match trouble {
            Trouble::Outdated => self.make_anew(client, kept, open).await,
            Trouble::Replica if self.try_primary(client, kept, open.lent.role) => {
                self.names.settle(Done::Some(0));
                self.settle(open, &[], true, false);
                Ok(())
            }
            Trouble::Replica => Err(open),
        }
    }

    /// Whether the unit is served anew on the primary, because a replica cannot.
    fn try_primary(&mut self, client: &mut Channel, kept: Option<Kept>, role: Role) -> bool {
        role == Role::Replica && self.begin_again(client, kept.filter(|kept| kept.reads), Again::OnPrimary)
    }

    /// Whether a read of several shards is carried out anew; `answer` is where the first one's began.
    pub(super) fn try_scatter_again(
        &mut self,
        client: &mut Channel,
        access: Access,
        (answer, lost): (u64, Option<ServerId>),
    ) -> bool {
        let reads = matches!(access, Access::Read | Access::ReplicaOnly) && self.retrying.is_none();
        let (Some(lost), true) = (lost, reads && client.can_take_back(answer)) else { return false };
        if !self.station.shared.may_try_again() {
            return false;
        }
        client.take_back(answer);
        self.retrying = Some(Again::Without(lost));
        true
    }

    /// `true`: the unit is at the front of the input again, its answer forgotten.
    fn begin_again(&mut self, client: &mut Channel, kept: Option<Kept>, again: Again) -> bool {
        let Some(kept) = kept else { return false };
        if !client.can_take_back(kept.answer) || !self.station.shared.may_try_again() {
            return false;
        }
        self.serve_again(client, &kept, again);
        true
    }

    pub(super) fn serve_again(&mut self, client: &mut Channel, kept: &Kept, again: Again) {
        client.take_back(kept.answer);
        put_in_front(&mut client.input, &kept.unit);
        // A Query is kept as it was sent, with names and texts of ours: what they stand for still holds.
        if kept.unit.first() != Some(&QUERY) {
            self.by_name = None;
        }
        self.again = Some(again);
    }
}

/// By the error that a unit ended with.
pub(super) fn trouble_of(body: &[u8], fault: Fault) -> Option<Trouble> {
    if is_outdated(body, fault) {
        return Some(Trouble::Outdated);
    }
    let code = error_field(body, b'C')?;
    (code == SqlState::READ_ONLY.0 || UNKNOWN.contains(&code)).then_some(Trouble::Replica)
}

/// A table, a column, a function, a type or the like, a schema that there is not.
const UNKNOWN: [&str; 5] = ["42P01", "42703", "42883", "42704", "3F000"];
/// Longer units are not kept.
pub(super) const MOST_KEPT: usize = 16 * 1024;
/// Of all statements served.
const SHARE: f64 = 0.1;
/// As many as are in flight on a server that dies, and some more.
const BURST: f64 = 500.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_attempts_are_a_share_of_what_is_served() {
        let budget = Budget::default();
        let spent = |budget: &Budget, served| (0..1000).filter(|_| budget.spend(served)).count();
        assert_eq!(spent(&budget, 0), 500);
        assert_eq!(spent(&budget, 100), 10);
        assert_eq!(spent(&budget, 100), 0);
        assert_eq!(spent(&budget, 1_000_000), 500);
        assert_eq!(spent(&budget, 0), 0, "counters that begin anew");
        assert_eq!(spent(&budget, 20), 2);
    }
}
