//! What a look at all servers of a configuration finds wrong: `pgweir check --live`.
//!
//! Reads only, on connections of its own; it needs no running proxy.

mod definitions;
mod leftovers;
mod limits;
mod rows;
mod servers;
mod uniques;

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::catalog;
use super::connect::{Client, Login, SqlError};
use crate::catalog::{Catalog, Relation};
use crate::plan::{Place, places};
use crate::statement::quoted_name;
use crate::topology::{Database, Topology};

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    pub database: String,
    /// Where it is, if it is not everywhere.
    pub shard: Option<u16>,
    /// A server, table, type …
    pub subject: String,
    pub text: String,
    /// What mends it.
    pub repair: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Answers may be wrong, or statements fail.
    Fault,
    /// Worth knowing.
    Note,
}

/// Looks at every server of every database. `repair`: makes what keeps unique columns so, from the rows that are there.
pub async fn inspect(topology: &Topology, repair: bool) -> Vec<Finding> {
    let mut databases: Vec<&Arc<Database>> = topology.databases.values().collect();
    databases.sort_by_key(|database| &database.name);
    let mut all = Vec::new();
    for database in databases {
        let mut findings = Findings { database: database.name.clone(), all: Vec::new() };
        let shards = servers::look(database, topology, &mut findings).await;
        if database.is_sharded()
            && let Err(cause) = look(database, &shards, repair, &mut findings).await
        {
            findings.fault(None, "database", format!("cannot be looked at: {cause}"));
        }
        all.append(&mut findings.all);
    }
    all
}

/// At what the primaries have, which are there of each shard or not.
async fn look(
    database: &Database,
    shards: &[Option<servers::Primary>],
    repair: bool,
    findings: &mut Findings,
) -> Result<(), SqlError> {
    // Without home, there is nothing to compare others with.
    let Some(servers::Primary { client: home, .. }) = &shards[usize::from(database.home.0)] else { return Ok(()) };
    if repair {
        let logins: Option<Vec<Login>> = shards.iter().map(|shard| Some(shard.as_ref()?.login.clone())).collect();
        match logins {
            Some(logins) => {
                let catalog = catalog::load(home, 1).await?;
                uniques::repair(&logins, (database, &catalog), findings).await?;
            }
            None => drop(findings.fault(None, "repair", "needs the primaries of all shards")),
        }
    }
    let shards: Vec<Shard<'_>> = shards
        .iter()
        .zip(0..)
        .filter_map(|(client, number)| Some(Shard { number, client: &client.as_ref()?.client }))
        .collect();
    for shard in &shards {
        shard.client.batch(SETTINGS).await?;
    }
    let shards = Shards { home: Shard { number: database.home.0, client: home }, all: shards };
    let catalog = catalog::load(home, 1).await?;
    let mut tables = places(database, &catalog);
    tables.sort_by(|(one, _), (other, _)| (&one.schema, &one.name).cmp(&(&other.schema, &other.name)));
    definitions::look(&shards, findings).await?;
    definitions::look_at_declared(database, &tables, findings);
    rows::look(&shards, &tables, findings).await;
    uniques::look(&shards, (database, &catalog), findings).await?;
    limits::look(&shards, (database, &catalog), findings).await?;
    leftovers::look(&shards, (database, &catalog), findings).await
}

type Tables = [(Arc<Relation>, Place)];
type Known<'a> = (&'a Database, &'a Catalog);

/// The primaries that could be reached; home is one of them.
struct Shards<'c> {
    home: Shard<'c>,
    all: Vec<Shard<'c>>,
}

#[derive(Clone, Copy)]
struct Shard<'c> {
    number: u16,
    client: &'c Client,
}

impl Shards<'_> {
    /// All but home.
    fn others(&self) -> impl Iterator<Item = &Shard<'_>> {
        self.all.iter().filter(|shard| shard.number != self.home.number)
    }
}

struct Findings {
    database: String,
    all: Vec<Finding>,
}

impl Findings {
    fn fault(&mut self, shard: Option<u16>, subject: impl Into<String>, text: impl Into<String>) -> &mut Finding {
        self.add(Level::Fault, shard, (subject.into(), text.into()))
    }

    fn note(&mut self, shard: Option<u16>, subject: impl Into<String>, text: impl Into<String>) {
        self.add(Level::Note, shard, (subject.into(), text.into()));
    }

    fn add(&mut self, level: Level, shard: Option<u16>, (subject, text): (String, String)) -> &mut Finding {
        self.all.push(Finding { level, database: self.database.clone(), shard, subject, text, repair: None });
        self.all.last_mut().expect("it was just put there")
    }

    /// The definition of a table is not the same everywhere: its rows cannot be compared.
    fn names(&self, subject: &str) -> bool {
        self.all.iter().any(|finding| finding.level == Level::Fault && finding.subject == subject)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level, database, shard, subject, text, repair } = self;
        let level = if *level == Level::Fault { "fault" } else { "note " };
        write!(f, "{level} {database}")?;
        if let Some(shard) = shard {
            write!(f, " shard {shard}")?;
        }
        write!(f, ": {subject}: {text}")?;
        repair.iter().try_for_each(|repair| write!(f, "; repair: {repair}"))
    }
}

/// As the findings name it, and as SQL does.
fn name_of(table: &Relation) -> String {
    let plain = |name: &str| {
        name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            && !name.starts_with(|first: char| first.is_ascii_digit())
    };
    let name = |name: &str| if plain(name) { name.to_owned() } else { quoted_name(name) };
    format!("{}.{}", name(&table.schema), name(&table.name))
}

fn quoted(table: &Relation) -> String {
    format!("{}.{}", quoted_name(&table.schema), quoted_name(&table.name))
}

/// The same words for the same values everywhere; names come with their schemas; rows that a policy would hide are an
/// error.
const SETTINGS: &str = "SET search_path = pg_catalog; SET default_transaction_read_only = on; SET row_security = off; \
     SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 1; \
     SET bytea_output = 'hex'; SET statement_timeout = 0";
