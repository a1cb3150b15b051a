//! Statements that a server holds under names of ours.

use std::collections::HashMap;

use super::Connection;
use crate::backend::numbering::Looks;
use crate::backend::owed::{Cause, Payee};
use crate::error::Error;
use crate::wire::Status;
use crate::wire::frame::client;
use crate::wire::message::put_named;

/// Statements that the server holds under names of ours.
#[derive(Default)]
pub(super) struct Prepared {
    /// By number.
    known: HashMap<u64, Known, foldhash::fast::RandomState>,
    uses: u64,
    /// Of the unnamed one of this number.
    unnamed: Option<(u64, Looks)>,
}

struct Known {
    /// When it was last used.
    used: u64,
    description: u32,
    looks: Option<Looks>,
}

impl Connection {
    pub fn knows(&mut self, statement: u64) -> bool {
        self.prepared.touch(statement).is_some()
    }

    /// As [`Connection::knows`]: what its server's copy looks like (see [`crate::wire::message::mix_description`]), 0 if
    /// nobody asked.
    pub fn description(&mut self, statement: u64) -> Option<u32> {
        self.prepared.touch(statement)
    }

    /// What the server's copy looks like is known now.
    pub fn note_description(&mut self, statement: u64, description: u32) {
        self.prepared.known.get_mut(&statement).into_iter().for_each(|known| known.description = description);
    }

    /// The same of its parameters and columns, where numbers in values count.
    pub fn note_looks(&mut self, statement: u64, looks: Looks) {
        match self.prepared.known.get_mut(&statement) {
            Some(known) => known.looks = Some(looks),
            None => self.prepared.unnamed = Some((statement, looks)),
        }
    }

    /// What is known of that.
    pub fn looks(&self, statement: u64) -> Option<&Looks> {
        let unnamed = self.prepared.unnamed.as_ref().filter(|(number, _)| *number == statement);
        match self.prepared.known.get(&statement) {
            Some(known) => known.looks.as_ref(),
            None => unnamed.filter(|_| self.unnamed == Some(statement)).map(|(_, looks)| looks),
        }
    }

    /// The unnamed statement is the one of this number, once what is put on the connection next is carried out.
    pub fn take_unnamed(&mut self, statement: u64) {
        self.unnamed = Some(statement);
        self.prepared.unnamed = None;
    }

    /// Numbers are others now.
    pub(in crate::backend) fn forget_looks(&mut self) {
        self.prepared.unnamed = None;
        self.prepared.known.values_mut().for_each(|known| known.looks = None);
    }

    /// A Parse of this statement is on its way.
    pub fn expect(&mut self, statement: u64) {
        self.prepared.touch_or_insert(statement);
    }

    pub(super) fn mind_skipped(&mut self) {
        let skipped = self.owed.take_skipped();
        for statement in skipped.parses {
            self.prepared.known.remove(&statement);
        }
        if skipped.close {
            self.taint();
        }
        if skipped.unnamed {
            self.unnamed = None;
        }
    }

    /// The server has no such statement any more.
    pub fn forget(&mut self, statement: u64) {
        self.prepared.known.remove(&statement);
    }

    /// All prepared statements of the server session are gone (DISCARD ALL, DEALLOCATE ALL).
    pub fn forget_statements(&mut self) {
        self.prepared.known.clear();
    }

    /// Tables may have changed under the prepared statements: they are made anew before they are used again.
    pub fn outdate_statements(&mut self) {
        self.outdated = true;
    }

    pub fn has_outdated_statements(&self) -> bool {
        self.outdated
    }

    /// Makes room for one more prepared statement by closing the one unused for longest.
    pub fn make_room(&mut self, limit: usize) {
        if self.prepared.known.len() < limit {
            return;
        }
        let oldest = self.prepared.known.iter().min_by_key(|(_, known)| known.used).map(|(statement, _)| *statement);
        if let Some(statement) = oldest {
            self.close_statement(statement);
        }
    }

    /// The server forgets a prepared statement.
    pub fn close_statement(&mut self, statement: u64) {
        self.prepared.known.remove(&statement);
        put_named(&mut self.channel.output, client::CLOSE, b'S', &statement_name(statement));
        self.owed.push(Cause::Close, Payee::Nobody);
    }

    /// Within a block that goes on after an error: see [`Connection::outdate_statements`].
    pub async fn renew_statements(&mut self) -> Result<(), Error> {
        if self.status == Status::InTransaction && std::mem::take(&mut self.outdated) {
            self.close_statements(&mut |_, _| {}).await?;
        }
        Ok(())
    }

    /// The server forgets all that were prepared under names of ours.
    pub(super) async fn close_statements(&mut self, report: &mut (dyn FnMut(&str, &str) + Send)) -> Result<(), Error> {
        let known: Vec<u64> = self.prepared.known.keys().copied().collect();
        self.make_anew(&[], &known, report).await.map(|_| ())
    }
}

impl Prepared {
    fn touch(&mut self, statement: u64) -> Option<u32> {
        self.uses += 1;
        let known = self.known.get_mut(&statement)?;
        known.used = self.uses;
        Some(known.description)
    }

    pub(super) fn touch_or_insert(&mut self, statement: u64) {
        self.uses += 1;
        let used = self.uses;
        self.known.entry(statement).or_insert(Known { used, description: 0, looks: None }).used = used;
    }
}

/// 20 digits, at most.
pub type StatementName = arrayvec::ArrayString<27>;

/// What the names begin with under which servers know prepared statements.
pub const PREFIX: &str = "pgweir_";

/// The name under which servers know a prepared statement.
pub fn statement_name(statement: u64) -> StatementName {
    let mut name = StatementName::from(PREFIX).expect("it is shorter than the longest");
    // A statement in most units: by hand it costs a tenth of what formatting does.
    let (mut digits, mut start, mut rest) = ([0; 20], 20, statement);
    while rest > 0 || start == digits.len() {
        start -= 1;
        digits[start] = b'0' + u8::try_from(rest % 10).expect("a digit");
        rest /= 10;
    }
    digits[start..].iter().for_each(|digit| name.push(char::from(*digit)));
    name
}
