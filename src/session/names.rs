//! The names under which a client knows its prepared statements. What a unit's messages change of them stands once it
//! is known that the server carried these messages out; the rest is undone.

use std::collections::HashMap;
use std::sync::Arc;

use super::prepared::Prepared;

#[derive(Default)]
pub(super) struct Names {
    named: Statements,
    unnamed: Option<Arc<Prepared>>,
    /// Of the unit that is being carried, in the order of its messages.
    changes: Vec<Change>,
    /// How many of them came before the unit's last DEALLOCATE ALL.
    forgotten: usize,
}

type Statements = HashMap<Box<str>, Named, foldhash::fast::RandomState>;

/// What a name stands for.
pub(super) struct Named {
    pub prepared: Arc<Prepared>,
    /// The PREPARE that made it, where no server has it as that.
    pub sql: Option<Box<str>>,
    pub told: Told,
}

/// What a client knows of what a statement looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The description of parameters and columns that it was given (see [`crate::wire::message::mix_description`]);
    /// 0: none.
    pub description: u32,
    /// It has changed tables by itself since, and expects what PostgreSQL says to that.
    pub firm: bool,
}

/// What one message changed, and what was before it.
enum Change {
    /// Parse, Close or PREPARE.
    One { name: Box<str>, before: Option<Named> },
    /// DEALLOCATE ALL.
    All(Statements),
}

/// How far a unit got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    All,
    /// So many of its messages that change names.
    Some(usize),
    /// The same, and the next one was a Parse of the unnamed statement that failed: the one before is gone too.
    SomeAndLost(usize),
}

impl Names {
    /// The empty name is that of the unnamed statement.
    pub(super) fn find(&self, name: &str) -> Option<&Arc<Prepared>> {
        if name.is_empty() { self.unnamed.as_ref() } else { self.named.get(name).map(|named| &named.prepared) }
    }

    /// As [`Names::find`], with what the client was told of it.
    pub(super) fn find_told(&self, name: &str) -> Option<(&Arc<Prepared>, Told)> {
        if name.is_empty() {
            return self.unnamed.as_ref().map(|prepared| (prepared, Told::default()));
        }
        self.named.get(name).map(|named| (&named.prepared, named.told))
    }

    pub(super) fn give(&mut self, name: &str, prepared: Arc<Prepared>) {
        let before = match name {
            "" => self.unnamed.replace(prepared).map(Named::new),
            name => self.named.insert(Box::from(name), Named::new(prepared)),
        };
        self.changes.push(Change::One { name: Box::from(name), before });
    }

    /// As PREPARE does, by this text: whatever comes of the unit.
    pub(super) fn keep(&mut self, name: &str, prepared: Arc<Prepared>, sql: &str) {
        self.named.insert(Box::from(name), Named { sql: Some(Box::from(sql)), ..Named::new(prepared) });
    }

    /// All but the unnamed one.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &Named)> {
        self.named.iter().map(|(name, named)| (&**name, named))
    }

    pub(super) fn take(&mut self, name: &str) {
        let before = match name {
            "" => self.unnamed.take().map(Named::new),
            name => self.named.remove(name),
        };
        self.changes.push(Change::One { name: Box::from(name), before });
    }

    /// What a name stood for before the unit that is being carried.
    pub(super) fn before(&self, name: &str) -> Option<&Named> {
        for change in &self.changes {
            match change {
                Change::One { name: changed, before } if **changed == *name => return before.as_ref(),
                Change::One { .. } => {}
                Change::All(before) => return before.get(name),
            }
        }
        self.named.get(name)
    }

    /// What a name stands for is carried out as this from now on.
    pub(super) fn renew(&mut self, name: &str, prepared: Arc<Prepared>) {
        self.named.get_mut(name).into_iter().for_each(|named| named.prepared = Arc::clone(&prepared));
        self.tell(name, 0);
    }

    /// The client was given this description of a statement, or is to take it as it comes (0).
    pub(super) fn tell(&mut self, name: &str, description: u32) {
        self.named.get_mut(name).into_iter().for_each(|named| named.told = Told { description, firm: false });
    }

    /// The client has changed tables.
    pub(super) fn hold_to_told(&mut self) {
        self.named.values_mut().for_each(|named| named.told.firm = named.told.description != 0);
    }

    /// A name of the statement that these hold for.
    pub(super) fn name_of(&self, holds: impl Fn(&Prepared) -> bool) -> Option<&str> {
        let now = self.named.iter();
        let one = self.changes.iter().filter_map(|change| match change {
            Change::One { name, before } => Some((name, before.as_ref()?)),
            Change::All(_) => None,
        });
        let all = self.changes.iter().flat_map(|change| match change {
            Change::One { .. } => None,
            Change::All(before) => Some(before),
        });
        let names =
            now.chain(one).chain(all.flatten()).filter(|(name, named)| !name.is_empty() && holds(&named.prepared));
        names.map(|(name, _)| &**name).min()
    }

    /// At the end of a unit. `true`: a DEALLOCATE ALL was among what it did.
    pub(super) fn settle(&mut self, done: Done) -> bool {
        let (kept, lost) = match done {
            Done::All => (usize::MAX, false),
            Done::Some(kept) => (kept, false),
            Done::SomeAndLost(kept) => (kept, true),
        };
        while self.changes.len() > kept {
            match self.changes.pop() {
                None => break,
                Some(Change::All(before)) => self.named = before,
                Some(Change::One { name, before }) if name.is_empty() => {
                    self.unnamed = before.map(|named| named.prepared);
                }
                Some(Change::One { name, before: Some(before) }) => _ = self.named.insert(name, before),
                Some(Change::One { name, before: None }) => _ = self.named.remove(&name),
            }
        }
        let ended_all = self.changes.iter().any(|change| matches!(change, Change::All(_)));
        self.changes.clear();
        self.forgotten = 0;
        if lost {
            self.unnamed = None;
        }
        ended_all
    }

    /// DEALLOCATE. `false`: there is no such statement.
    pub(super) fn deallocate(&mut self, name: &str) -> bool {
        self.named.remove(name).is_some()
    }

    /// DEALLOCATE ALL.
    pub(super) fn deallocate_all(&mut self) {
        self.named.clear();
    }

    /// The same, as one of a unit's messages.
    pub(super) fn take_all(&mut self) {
        self.changes.push(Change::All(std::mem::take(&mut self.named)));
        self.mark();
    }

    /// A DEALLOCATE ALL comes here among the unit's messages.
    pub(super) fn mark(&mut self) {
        self.forgotten = self.changes.len();
    }

    /// The same, once the unit has succeeded and before it is settled: names that were given after it stay.
    pub(super) fn deallocate_marked(&mut self) {
        let later = &self.changes[self.forgotten..];
        self.named.retain(|name, _| {
            later.iter().any(|change| matches!(change, Change::One { name: given, .. } if given == name))
        });
    }

    /// As a Query does.
    pub(super) fn forget_unnamed(&mut self) {
        self.unnamed = None;
    }
}

impl Named {
    fn new(prepared: Arc<Prepared>) -> Self {
        Self { prepared, sql: None, told: Told::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::prepared::Interner;
    use crate::statement::Analysis;

    fn prepared(text: &str) -> Arc<Prepared> {
        let unread = || (Arc::new(Analysis::unreadable()), Box::default());
        Interner::default().make(text.as_bytes(), Arc::default(), unread)
    }

    /// Names `a` and the unnamed statement are there; then they, and `b`, get new texts and `a` is closed.
    fn check(done: Done, expected: [Option<&str>; 3]) {
        let mut names = Names::default();
        names.give("", prepared("one"));
        names.give("a", prepared("two"));
        names.settle(Done::All);
        names.take("a");
        names.give("", prepared("three"));
        names.give("a", prepared("four"));
        names.give("b", prepared("five"));
        names.settle(done);
        let text = |name: &str| names.find(name).map(|found| found.readable().unwrap().to_owned());
        assert_eq!(["", "a", "b"].map(text), expected.map(|text| text.map(str::to_owned)), "{done:?}");
    }

    #[test]
    fn all_that_was_there_before_is_deallocated() {
        let mut names = Names::default();
        names.give("a", prepared("one"));
        names.mark();
        names.give("b", prepared("two"));
        names.deallocate_marked();
        names.settle(Done::All);
        assert!(names.find("a").is_none() && names.find("b").is_some());
    }

    #[test]
    fn all_come_back_where_they_were_not_deallocated() {
        for (done, left) in [(Done::All, "b"), (Done::Some(2), ""), (Done::Some(1), "a"), (Done::Some(0), "ac")] {
            let mut names = Names::default();
            names.give("a", prepared("one"));
            names.give("c", prepared("two"));
            names.settle(Done::All);
            names.take("c");
            names.take_all();
            names.give("b", prepared("three"));
            assert!(names.find("a").is_none() && names.before("a").is_some() && names.before("b").is_none());
            names.settle(done);
            let found: String = ["a", "b", "c"].into_iter().filter(|name| names.find(name).is_some()).collect();
            assert_eq!(found, left, "{done:?}");
        }
    }

    #[test]
    fn what_was_not_done_is_undone() {
        check(Done::All, [Some("three"), Some("four"), Some("five")]);
        check(Done::Some(4), [Some("three"), Some("four"), Some("five")]);
        check(Done::Some(3), [Some("three"), Some("four"), None]);
        check(Done::Some(2), [Some("three"), None, None]);
        check(Done::Some(1), [Some("one"), None, None]);
        check(Done::SomeAndLost(1), [None, None, None]);
        check(Done::Some(0), [Some("one"), Some("two"), None]);
    }
}
