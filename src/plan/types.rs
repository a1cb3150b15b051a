//! What a plan is.
use std::sync::Arc;

use super::relations::Sharded;
use crate::copy::Writing;
use crate::error::Error;
use crate::topology::{Key, ShardId};

/// Where a statement runs and how the answers become one. Data: comparable, printable.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub route: Route,
    pub access: Access,
}

/// Where the values of columns are kept that are unique over all shards, for a write that may change some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeping {
    pub at: ShardId,
    /// It would have done something else with a row whose value is taken.
    pub on_conflict: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Route {
    /// The text as it came, bytes relayed.
    One(ShardId),
    /// Read from several shards, merged.
    Scatter(Box<Scatter>),
    /// Read on one shard, over rows that are fetched from the others first.
    Gather(Box<Gather>),
    /// Write on several shards: all or none.
    Spread(Box<Spread>),
    /// INSERT … SELECT: a read, and a write of what it gives.
    Transfer(Box<Transfer>),
    /// COPY FROM STDIN: rows go where their keys are.
    CopyIn(Box<super::copying::CopyIn>),
    /// COPY TO STDOUT.
    CopyOut(Box<CopyOut>),
    /// INSERT of rows that need numbers of a sequence before it is known where they go.
    Draw(Box<super::numbering::Draw>),
    /// Write on several shards, all or none, where what one writes depends on what another has.
    Staged(Box<Staged>),
    /// Several statements, one after another, in one transaction.
    Script(Box<Script>),
}

/// Which server of a shard may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A proven read: a replica may.
    Read,
    /// Everything else: the primary. Counts as a write for causality.
    Write,
    /// A hint or setting asked for a replica.
    ReplicaOnly,
    /// A proven read for the primary (hint, or a relation that replicas do not hold).
    PrimaryRead,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Scatter {
    pub parts: Vec<Part>,
    pub merge: crate::merge::Merge,
    /// It declares one of this name.
    pub cursor: Option<Declared>,
    /// Each shard is asked for what those before it have left of the limit: the texts have a [`MARK`] in its place.
    pub in_turn: bool,
    /// It gives the plans of the shards' servers, one after another, each under its shard.
    pub explains: bool,
    /// COPY of a query: the rows are the client's as its data.
    pub copied: Option<Arc<Writing>>,
    /// Where the servers compare in a way that cannot be done here, which is known when the columns are.
    pub otherwise: Option<Box<Gather>>,
}

/// A cursor over several shards. Each has one of the name, over its part of the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    pub name: String,
    /// It may be asked to go back.
    pub goes_back: bool,
    /// The client knows of it; else it stands for a portal of the client's.
    pub told: bool,
}

impl Scatter {
    /// A cursor of this name over the same query, to be read forward.
    #[must_use]
    pub fn as_cursor(&self, name: &str, text: &str) -> Self {
        let declare = |part: &Part| {
            let text = format!("DECLARE \"{name}\" NO SCROLL CURSOR FOR {}", part.text.as_deref().unwrap_or(text));
            Part { text: Some(text.into()), ..part.clone() }
        };
        let cursor = Some(Declared { name: name.to_owned(), goes_back: false, told: false });
        Self { parts: self.parts.iter().map(declare).collect(), cursor, ..self.clone() }
    }
}

/// A statement that PostgreSQL computes on one shard, over the rows that its sharded tables have on all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Gather {
    pub at: ShardId,
    /// The statement, where each table whose rows are fetched is the rows of one more parameter (`text[]`), in the order
    /// of the fetches, behind all of the client's.
    pub text: Arc<str>,
    pub fetches: Vec<Fetch>,
    /// A statement without parameters of its own (COPY, DECLARE): for each the text has its number between two [`MARK`]s,
    /// where a literal is to be.
    pub written_out: bool,
    /// It declares one of this name.
    pub cursor: Option<String>,
    /// Which lasts beyond its transaction, and ties the session to the connection.
    pub holds: bool,
}

/// What no text of a client has.
pub const MARK: char = '\0';

/// A text where numbers stand between two [`MARK`]s each; `put` puts what each of them stands for.
pub fn fill_marks(text: &str, mut put: impl FnMut(usize, &mut String) -> Result<(), Error>) -> Result<String, Error> {
    let mut out = String::new();
    for (index, piece) in text.split(MARK).enumerate() {
        match index % 2 {
            0 => out.push_str(piece),
            _ => put(piece.parse().unwrap_or(usize::MAX), &mut out)?,
        }
    }
    Ok(out)
}

impl Gather {
    /// Every shard that takes part, the one where it is computed first.
    pub fn shards(&self) -> Vec<ShardId> {
        let mut shards = vec![self.at];
        for part in self.fetches.iter().flat_map(|fetch| &fetch.parts) {
            if !shards.contains(&part.shard) {
                shards.push(part.shard);
            }
        }
        shards
    }
}

/// The rows that one table of a statement needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Fetch {
    /// As the client named it.
    pub table: String,
    /// A query of the columns that are of use: they must be the same on every shard.
    pub columns: Arc<str>,
    /// Each gives a row of the table as text, and behind it the values of `keys` columns.
    pub parts: Vec<Part>,
    /// By whose values other fetches are narrowed.
    pub keys: usize,
    pub narrowed: Option<Narrowed>,
}

/// Only those rows are fetched that have a value of another fetch's.
#[derive(Clone, Debug, PartialEq)]
pub struct Narrowed {
    /// The other fetch (index), and which of its keys.
    pub by: (usize, usize),
    /// What to put behind the text of each part: a [`MARK`] is where an array of the values is to be, as a literal.
    pub condition: Arc<str>,
    /// Where the rows of each value are, if that is known.
    pub sharded: Option<Arc<Sharded>>,
}

impl Narrowed {
    /// The shard that has the rows of this value; `None`: any may.
    pub fn shard_of(&self, value: &str) -> Option<ShardId> {
        let sharded = self.sharded.as_ref()?;
        sharded.mapping.shard_of(&Key::from_text(sharded.key_type, value)?)
    }
}

/// The rows of a query, inserted where they belong.
#[derive(Clone, Debug, PartialEq)]
pub struct Transfer {
    pub source: Gather,
    pub insert: super::transfer::Inserted,
}

/// A table's rows, shard after shard.
#[derive(Clone, Debug, PartialEq)]
pub struct CopyOut {
    pub shards: Vec<ShardId>,
    /// Each shard's rows have a line in front of them.
    pub header: bool,
    pub binary: bool,
    /// Of its columns.
    pub types: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    pub parts: Vec<Part>,
    pub tag: Tag,
    /// Which part (index) gave each row of the original statement, for RETURNING; empty: parts in order.
    pub row_order: Vec<u16>,
    /// No transaction can hold it (VACUUM, CREATE INDEX CONCURRENTLY …): shard after shard.
    pub one_by_one: Option<OneByOne>,
    /// Rows that are fetched before, in the same transactions: the parts' last parameters, as of a [`Gather`].
    pub fetches: Vec<Fetch>,
}

/// What belongs to a statement that is done on one shard after another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OneByOne {
    /// Asked of a shard where it is done: gives statements that are to be run there, too.
    pub mending: Option<Arc<str>>,
    /// Asked of a shard where it has failed: gives statements that clear away what it has left.
    pub clearing: Option<Arc<str>>,
    /// The same statement mends what it has left.
    pub repeatable: bool,
}

/// A write whose later statements are made of what the first ones gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Staged {
    Move(Move),
    Mirror(Mirror),
    Create(Create),
    Local(Local),
}

impl Staged {
    /// Each that may take part.
    pub fn shards(&self) -> &[ShardId] {
        match self {
            Self::Move(moving) => &moving.shards,
            Self::Mirror(mirror) => &mirror.shards,
            Self::Create(create) => &create.shards,
            Self::Local(local) => &local.shards,
        }
    }

    /// Rows that it needs of all shards before it begins.
    pub fn fetches(&self) -> &[Fetch] {
        match self {
            Self::Move(moving) => &moving.fetches,
            Self::Mirror(mirror) => &mirror.fetches,
            Self::Create(create) => &create.fetches,
            Self::Local(local) => &local.fetches,
        }
    }
}

/// Statements that come to the same as the client's, to be planned one after another.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    pub acts: Vec<Act>,
    /// The command tag, where no act answers the client, and whether it counts rows.
    pub tag: Option<(&'static str, bool)>,
    /// Of [`Outcome::Place`].
    pub places: Option<super::script::Places>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Act {
    /// Where rows that were kept are to be read, it has their number between two [`MARK`]s.
    pub text: Arc<str>,
    pub outcome: Outcome,
}

/// What becomes of an act's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its rows are kept for later acts, under the next number.
    Keep,
    Count,
    /// It is the client's.
    Answer,
    /// It is done on every shard, as it is.
    Everywhere,
    /// It is done on the home shard, as it is.
    Home,
    /// There is none: what was kept last is inserted into a new table, each row where its key is.
    Place,
}

/// An UPDATE that may give rows another shard.
#[derive(Clone, Debug, PartialEq)]
pub struct Move {
    pub shards: Vec<ShardId>,
    /// Where the rows are that it may change.
    pub from: Vec<ShardId>,
    /// Rows that the texts need, as of a [`Gather`].
    pub fetches: Vec<Fetch>,
    /// Locks these rows. Of each it gives table and place, the new key, and all its new values.
    pub look: Arc<str>,
    pub moved: super::moving::Moved,
}

/// A write of a reference table that is done on one shard; the others are given its rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// It is done on the first.
    pub shards: Vec<ShardId>,
    /// Rows that the statement needs, as of a [`Gather`].
    pub fetches: Vec<Fetch>,
    /// The statement, which returns each row that it wrote as text, behind what the client is to see.
    pub text: Arc<str>,
    /// The client is to see something of the rows.
    pub returning: bool,
    /// What the others do with these rows, which are `$1`.
    pub copy: Arc<str>,
    /// As the client named it.
    pub table: String,
}

/// A table that is made on every shard, and has rows on one.
#[derive(Clone, Debug, PartialEq)]
pub struct Create {
    /// Its rows are on the first.
    pub shards: Vec<ShardId>,
    /// Rows that its query needs, as of a [`Gather`].
    pub fetches: Vec<Fetch>,
    /// The statement, written out as that of a [`Gather`].
    pub filled: Arc<str>,
    /// The same without rows.
    pub empty: Arc<str>,
}

/// A write of what only the home shard has, over rows of others.
#[derive(Clone, Debug, PartialEq)]
pub struct Local {
    /// It is done on the first.
    pub shards: Vec<ShardId>,
    /// Rows that the statement needs, as of a [`Gather`].
    pub fetches: Vec<Fetch>,
    pub text: Arc<str>,
    /// As that of a [`Gather`].
    pub written_out: bool,
    /// It makes a temporary table, which ties the session to its connection.
    pub ties: bool,
}

/// Statements of a write, one after another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Steps {
    /// Those of one stage are done at the same time, each on another shard.
    pub stages: Vec<Vec<Step>>,
    /// How many rows it changes in all.
    pub count: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub part: Part,
    pub goal: Goal,
}

/// What a step is to come to.
#[derive(Clone, Debug, PartialEq)]
pub enum Goal {
    /// It gives no rows, else this is what is wrong.
    Nothing(Error),
    /// The client's own statement, over the fetched rows, changes so many rows and returns them.
    Own(usize),
    /// It changes so many rows and returns them to the client.
    Answer(usize),
    /// It changes so many rows.
    Change(usize),
}

/// What one shard is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    pub shard: ShardId,
    /// `None`: the statement's own text.
    pub text: Option<Arc<str>>,
    /// Which of the client's parameters (from 0) are this text's `$1, $2, …`; `None`: all, in order.
    pub parameters: Option<Vec<usize>>,
}

/// The shard of each part, in their order.
pub fn shards_of(parts: &[Part]) -> Vec<ShardId> {
    parts.iter().map(|part| part.shard).collect()
}

/// The command tag that the client sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// Row counts added up (rows split over shards).
    Sum,
    /// That of the first part (the same rows on every shard, DDL).
    First,
}
