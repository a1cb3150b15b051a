//! Whether rows are where they belong: those of sharded tables on their shard, those of reference tables on every one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::sleep;

use super::{Findings, Shard, Shards, Tables, name_of, quoted};
use crate::catalog::Relation;
use crate::control::catalog::text;
use crate::control::connect::SqlError;
use crate::plan::{Place, Sharded};
use crate::statement::quoted_name;

pub(super) async fn look(shards: &Shards<'_>, tables: &Tables, findings: &mut Findings) {
    for (table, place) in tables.iter().filter(|(table, _)| table.ancestors.is_empty()) {
        let subject = name_of(table);
        if findings.names(&subject) {
            // What is defined otherwise cannot be compared.
            continue;
        }
        let looked = match place {
            Place::Sharded(sharded) => strays(shards, (table, sharded), findings).await,
            Place::Reference => differences(shards, table, findings).await,
            Place::Home => beside_home(shards, table, findings).await,
        };
        if let Err(cause) = looked {
            findings.fault(None, subject, format!("its rows cannot be looked at: {cause}"));
        }
    }
}

/// Rows whose key another shard owns, or none.
async fn strays(
    shards: &Shards<'_>,
    (table, sharded): (&Relation, &Sharded),
    findings: &mut Findings,
) -> Result<(), SqlError> {
    let (owner, key) = (sharded.owner(), quoted_name(&sharded.column));
    for shard in &shards.all {
        let sql = format!(
            "SELECT owner, count(*), min(key) FROM (SELECT {owner} AS owner, {key}::text AS key FROM {}) AS owned \
             WHERE owner IS DISTINCT FROM {} GROUP BY owner ORDER BY owner",
            quoted(table),
            shard.number
        );
        for row in shard.client.rows(&sql).await? {
            let (count, key) = (text(&row, 1), row.get(2).cloned().flatten().unwrap_or_else(|| "NULL".to_owned()));
            let whose = match row.first().cloned().flatten() {
                Some(owner) => format!("of shard {owner}"),
                None => "whose key is in no range".to_owned(),
            };
            let rows = if count == "1" { "1 row is here".to_owned() } else { format!("{count} rows are here") };
            let text = format!("{rows} {whose}, one with {} = {key}", sharded.column);
            findings.fault(Some(shard.number), name_of(table), text);
        }
    }
    Ok(())
}

/// Rows of a table that has them on the home shard.
async fn beside_home(shards: &Shards<'_>, table: &Relation, findings: &mut Findings) -> Result<(), SqlError> {
    if table.schema == "pgweir" {
        return Ok(());
    }
    for shard in shards.others() {
        let rows = shard.client.rows(&format!("SELECT count(*) FROM {} HAVING count(*) > 0", quoted(table))).await?;
        if let Some(row) = rows.first() {
            let text = format!("{} rows are here, where no statement looks for them", text(row, 0));
            findings.fault(Some(shard.number), name_of(table), text);
        }
    }
    Ok(())
}

/// Rows of a reference table that are not the same everywhere, at each of several looks: a write that is just being
/// committed is seen by one of them only.
async fn differences(shards: &Shards<'_>, table: &Relation, findings: &mut Findings) -> Result<(), SqlError> {
    for shard in shards.others() {
        let mut lasting = Differences::between(&shards.home, shard, table).await?;
        for _ in 1..LOOKS {
            if lasting.is_none() {
                break;
            }
            sleep(BETWEEN_LOOKS).await;
            let now = Differences::between(&shards.home, shard, table).await?;
            lasting = lasting.zip(now).and_then(|(before, now)| before.lasting(now));
        }
        if let Some(found) = lasting {
            findings.fault(Some(shard.number), name_of(table), found.describe(table, shards.home.number));
        }
    }
    Ok(())
}

/// How the rows of one shard differ from home's.
struct Differences {
    /// At home, and on the shard.
    counts: (u64, u64),
    /// By primary key, as far as there is one: what the row is like at home and on the shard.
    keys: BTreeMap<String, (Option<String>, Option<String>)>,
}

impl Differences {
    async fn between(home: &Shard<'_>, shard: &Shard<'_>, table: &Relation) -> Result<Option<Self>, SqlError> {
        let (known, own) = (sums(home, table).await?, sums(shard, table).await?);
        if known == own {
            return Ok(None);
        }
        let all: BTreeSet<&String> = known.keys().chain(own.keys()).collect();
        let differ = all.into_iter().filter(|bucket| known.get(*bucket) != own.get(*bucket));
        let buckets: Vec<&String> = differ.take(MOST_BUCKETS).collect();
        let count = |sums: &Sums| sums.values().map(|(count, _)| count).sum();
        let counts = (count(&known), count(&own));
        if table.primary_key.is_empty() {
            return Ok(Some(Self { counts, keys: BTreeMap::new() }));
        }
        let (known, own) = (hashes(home, table, &buckets).await?, hashes(shard, table, &buckets).await?);
        let all: BTreeSet<&String> = known.keys().chain(own.keys()).collect();
        let of = |key: &String| (known.get(key).cloned(), own.get(key).cloned());
        let differ = all.into_iter().filter(|key| known.get(*key) != own.get(*key));
        Ok(Some(Self { counts, keys: differ.map(|key| (key.clone(), of(key))).collect() }))
    }

    /// What has not changed since `self`.
    fn lasting(self, now: Self) -> Option<Self> {
        let is_keyed = !self.keys.is_empty() || !now.keys.is_empty();
        let keys: BTreeMap<_, _> =
            now.keys.into_iter().filter(|(key, states)| self.keys.get(key) == Some(states)).collect();
        (!keys.is_empty() || !is_keyed).then_some(Self { counts: now.counts, keys })
    }

    fn describe(&self, table: &Relation, home: u16) -> String {
        let (at_home, own) = self.counts;
        let mut keys: Vec<&String> = self.keys.keys().collect();
        keys.sort_by_key(|key| (key.parse::<i128>().ok(), *key));
        let what = |key: &&String| match &self.keys[*key] {
            (Some(_), None) => format!("{key} is missing"),
            (None, Some(_)) => format!("{key} is not on shard {home}"),
            _ => format!("{key} differs"),
        };
        let shown: Vec<String> = keys.iter().take(SHOWN_KEYS).map(what).collect();
        let columns = table.primary_key.join(", ");
        let keys = match shown.as_slice() {
            [] => String::new(),
            shown => format!(": {columns} {}{}", shown.join(", "), if keys.len() > shown.len() { ", …" } else { "" }),
        };
        match at_home == own {
            true => format!("rows differ from those of shard {home}{keys}"),
            false => format!("rows differ from those of shard {home} ({own} here, {at_home} there){keys}"),
        }
    }
}

/// By hash of the key: how many rows, and the sum of their hashes.
type Sums = BTreeMap<String, (u64, String)>;

async fn sums(shard: &Shard<'_>, table: &Relation) -> Result<Sums, SqlError> {
    let sql = format!(
        "SELECT left(md5({}), 2), count(*), sum(('x' || left(hash, 15))::bit(60)::bigint::numeric) \
         FROM (SELECT *, md5({}) AS hash FROM {}) AS hashed GROUP BY 1",
        key(table),
        row(table),
        quoted(table)
    );
    let rows = shard.client.rows(&sql).await?;
    Ok(rows.iter().map(|row| (text(row, 0), (text(row, 1).parse().unwrap_or(0), text(row, 2)))).collect())
}

async fn hashes(
    shard: &Shard<'_>,
    table: &Relation,
    buckets: &[&String],
) -> Result<BTreeMap<String, String>, SqlError> {
    let buckets: Vec<String> = buckets.iter().map(|bucket| format!("'{bucket}'")).collect();
    let (key, of) = (key(table), quoted(table));
    let among = buckets.join(", ");
    let sql = format!("SELECT {key}, md5({}) FROM {of} WHERE left(md5({key}), 2) IN ({among})", row(table));
    Ok(shard.client.rows(&sql).await?.iter().map(|row| (text(row, 0), text(row, 1))).collect())
}

/// The primary key as one text, else the whole row.
fn key(table: &Relation) -> String {
    match table.primary_key.as_slice() {
        [] => row(table),
        [one] => format!("{}::text", quoted_name(one)),
        several => as_text(several.iter()),
    }
}

fn row(table: &Relation) -> String {
    as_text(table.columns.iter().map(|column| &column.name))
}

fn as_text<'n>(columns: impl Iterator<Item = &'n String>) -> String {
    format!("ROW({})::text", columns.map(|column| quoted_name(column)).collect::<Vec<_>>().join(", "))
}

const LOOKS: usize = 3;
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);
/// Of 256, of which keys are fetched.
const MOST_BUCKETS: usize = 8;
const SHOWN_KEYS: usize = 3;
