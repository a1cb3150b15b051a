//! Sequences of sharded tables. Numbers are drawn on the home shard; what a server of another shard draws by itself (for
//! COPY, INSERT … SELECT, triggers) it draws from a block of its own, far beyond home's.

use std::collections::HashSet;

use super::connect::{Client, Login, SqlError};
use super::primaries::Primaries;
use crate::catalog::{Catalog, Sequence};
use crate::plan::sequences_of;
use crate::statement::{quoted_literal, quoted_name};
use crate::topology::Database;

/// Which sequences have their blocks.
#[derive(Default)]
pub(super) struct Blocks {
    /// By shard, and number of the home shard's sequence.
    done: HashSet<(usize, u32)>,
    /// Some could not be given theirs, which may be otherwise at the next attempt.
    behind: bool,
}

impl Blocks {
    pub(super) fn are_behind(&self) -> bool {
        self.behind
    }

    /// Gives each sequence its block on each shard that had none.
    pub(super) async fn give(&mut self, primaries: &Primaries, database: &Database, catalog: &Catalog) {
        // Who is stopped half way comes again.
        self.behind = true;
        let mut missing = false;
        let (Some(logins), home) = (primaries.all(), usize::from(database.home.0)) else { return };
        for sequence in sequences_of(database, catalog) {
            let Some(oid) = catalog.relation(Some(&sequence.schema), &sequence.name, &[]).map(|known| known.oid) else {
                continue;
            };
            for shard in (0..logins.len()).filter(|&shard| shard != home) {
                if self.done.contains(&(shard, oid)) {
                    continue;
                }
                let place = usize::from(place(database.home.0, u16::try_from(shard).unwrap_or(u16::MAX)));
                match give(primaries, (&logins[home], &logins[shard]), &sequence, (place, logins.len())).await {
                    Ok(true) => drop(self.done.insert((shard, oid))),
                    Ok(false) => missing = true,
                    Err(cause) => {
                        tracing::warn!(%cause, sequence = sequence.name, shard, "numbers may repeat on this shard");
                        missing |= cause.sqlstate().is_none();
                    }
                }
            }
        }
        self.behind = missing;
    }
}

/// `false`: it is not there yet.
async fn give(
    primaries: &Primaries,
    (home, shard): (&Login, &Login),
    sequence: &Sequence,
    (place, shards): (usize, usize),
) -> Result<bool, SqlError> {
    let client = primaries.lend(shard).await?;
    let Some(state) = State::read(&client, sequence).await? else { return Ok(false) };
    let size = state.block(shards);
    let first = size * i64::try_from(place).unwrap_or(i64::MAX);
    if state.start == first || state.increment != 1 {
        return Ok(true);
    }
    let drawn = State::read(&primaries.lend(home).await?, sequence).await?.and_then(|home| home.last);
    if drawn.is_some_and(|drawn| drawn >= size) {
        tracing::warn!(sequence = sequence.name, drawn, "no block is left for other shards: their numbers may repeat");
        return Ok(true);
    }
    let name = format!("{}.{}", quoted_name(&sequence.schema), quoted_name(&sequence.name));
    if let Some(last) = state.last.filter(|last| *last < first) {
        // What the shard gave before, home must not give again.
        let raise = format!("SELECT setval({}, {last}) FROM {name} WHERE last_value < {last}", quoted_literal(&name));
        primaries.lend(home).await?.rows(&raise).await?;
    }
    let next = state.last.map_or(first, |last| first.max(last + 1));
    let end = first + (size - 1);
    let alter = format!("ALTER SEQUENCE {name} MAXVALUE {end} START WITH {first} RESTART WITH {next}");
    client.batch(&alter).await?;
    tracing::info!(sequence = name, first, server = client.server(), "numbers of this shard begin here");
    Ok(true)
}

/// What is wrong with the block of a shard that is not home: numbers may repeat. Shards: home, this one, how many.
pub(super) async fn fault(
    (home, shard): (&Client, &Client),
    sequence: &Sequence,
    (home_shard, number, shards): (u16, u16, usize),
) -> Result<Option<String>, SqlError> {
    let (Some(known), Some(state)) = (State::read(home, sequence).await?, State::read(shard, sequence).await?) else {
        return Ok(None);
    };
    let size = state.block(shards);
    let first = size * i64::from(place(home_shard, number));
    Ok(match () {
        () if state.increment != 1 || known.increment != 1 => None,
        () if known.last.is_some_and(|drawn| drawn >= size) => {
            Some(format!("shard {home_shard} has drawn all numbers of its own block, below {size}"))
        }
        () if state.start != first => Some(format!(
            "its numbers begin at {}, not at {first}: pgweir gives it its block when it serves",
            state.start
        )),
        () if state.last.is_some_and(|last| last < first || last >= first + size) => {
            Some(format!("its numbers are beyond its block, which is from {first} up to {}", first + (size - 1)))
        }
        () => None,
    })
}

/// Which block a shard has, counted from 0: home has the first one.
fn place(home: u16, shard: u16) -> u16 {
    if shard < home { shard + 1 } else { shard }
}

/// A row of `pg_sequences` (PostgreSQL documentation, 54.21).
struct State {
    bytes: u32,
    start: i64,
    increment: i64,
    last: Option<i64>,
}

impl State {
    async fn read(client: &Client, Sequence { schema, name, .. }: &Sequence) -> Result<Option<Self>, SqlError> {
        let sql = format!(
            "SELECT CASE data_type WHEN 'bigint'::regtype THEN 8 WHEN 'integer'::regtype THEN 4 ELSE 2 END, \
             start_value, increment_by, last_value FROM pg_sequences WHERE schemaname = {} AND sequencename = {}",
            quoted_literal(schema),
            quoted_literal(name)
        );
        let rows = client.rows(&sql).await?;
        let number = |row: &[Option<String>], column: usize| row.get(column)?.as_ref()?.parse::<i64>().ok();
        Ok(rows.first().and_then(|row| {
            Some(Self {
                bytes: u32::try_from(number(row, 0)?).ok()?,
                start: number(row, 1)?,
                increment: number(row, 2)?,
                last: number(row, 3),
            })
        }))
    }

    /// How many numbers each shard has.
    fn block(&self, shards: usize) -> i64 {
        match self.bytes {
            8 => BLOCK,
            bytes => (1 << (bytes * 8 - 1)) / i64::try_from(shards).unwrap_or(1),
        }
    }
}

/// Of 1,024 shards all numbers are below 2^53, which is as far as JavaScript counts.
const BLOCK: i64 = 1 << 42;
