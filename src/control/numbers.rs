//! By which numbers each shard's server knows the types and tables that home knows by others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::catalog::{Row, number, text};
use super::connect::{Client, Login, SqlError};
use super::primaries::Primaries;
use crate::wire::{Definition, Oids};

/// Numbers by what they are of, schema and name; the server's version is among them.
type Numbers = HashMap<(String, String, String), u32>;
type OfShards = Vec<Option<Arc<Oids>>>;

/// Of each shard; what one that does not answer had `before`. `true`: all have answered.
pub(super) async fn load(
    home: &Client,
    primaries: &Primaries,
    before: &OfShards,
) -> Result<(OfShards, bool), SqlError> {
    let Some(shards) = primaries.all().filter(|shards| shards.len() > 1) else { return Ok((Vec::new(), true)) };
    let known = (numbers(&home.rows(NUMBERS).await?), definitions(&home.rows(DEFINITIONS).await?));
    let place = usize::from(primaries.home_shard().0);
    let asked = shards.iter().enumerate().map(async |(shard, login)| match shard == place {
        // They are known by its own.
        true => Some(None),
        false => Some(pair(&ask(primaries, login).await?, &known).map(Arc::new)),
    });
    let told = join_all(asked).await;
    let are_all = told.iter().all(Option::is_some);
    let of = |(shard, told): (usize, Option<_>)| told.unwrap_or_else(|| before.get(shard).cloned().flatten());
    Ok((told.into_iter().enumerate().map(of).collect(), are_all))
}

async fn ask(primaries: &Primaries, login: &Login) -> Option<Numbers> {
    let asked = async { primaries.lend(login).await?.rows(NUMBERS).await };
    match timeout(DEADLINE, asked).await {
        Ok(Ok(rows)) => Some(numbers(&rows)),
        Ok(Err(cause)) => {
            tracing::debug!(%cause, "numbers of types not loaded");
            None
        }
        Err(_) => None,
    }
}

fn numbers(rows: &[Vec<Option<String>>]) -> Numbers {
    let entry = |row: &Row| Some(((text(row, 0), text(row, 1), text(row, 2)), number(row, 3)?));
    rows.iter().filter_map(|row| entry(row)).collect()
}

fn definitions(rows: &[Vec<Option<String>>]) -> Vec<(u32, Definition)> {
    let entry = |row: &Row| {
        let (parts, part) = (text(row, 2), number(row, 2));
        let definition = match text(row, 0).as_str() {
            "array" => Definition::Array(part?),
            "composite" => Definition::Composite(parts.split(' ').filter_map(|part| part.parse().ok()).collect()),
            "domain" => Definition::Domain(part?),
            "range" => Definition::Range(part?),
            "multirange" => Definition::Multirange(part?),
            _ => return None,
        };
        Some((number(row, 1)?, definition))
    };
    rows.iter().filter_map(|row| entry(row)).collect()
}

fn pair(own: &Numbers, (known, definitions): &(Numbers, Vec<(u32, Definition)>)) -> Option<Oids> {
    let of = |kind: &str| {
        let of_kind = own.iter().filter(|((found, ..), _)| found == kind);
        of_kind.filter_map(|(name, &number)| Some((number, *known.get(name)?))).collect()
    };
    let version = own.iter().find(|((kind, ..), _)| kind == "version").map_or(0, |(_, &version)| version);
    Oids::new(of("type"), of("table"), definitions, version)
}

const NUMBERS: &str = "SELECT 'type', n.nspname, t.typname, t.oid FROM pg_type t \
     JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.oid >= 16384 AND n.nspname !~ '^pg_' \
     UNION ALL SELECT 'table', n.nspname, c.relname, c.oid FROM pg_class c \
     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid >= 16384 AND n.nspname !~ '^pg_' \
     AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
     UNION ALL SELECT 'version', '', '', current_setting('server_version_num')::oid";
/// What home's types are made of. PostgreSQL 13 has no multiranges.
const DEFINITIONS: &str = "SELECT 'array', t.oid, t.typelem::text FROM pg_type t \
     JOIN pg_type e ON e.oid = t.typelem AND e.typarray = t.oid WHERE t.oid >= 16384 \
     UNION ALL SELECT 'composite', t.oid, (SELECT string_agg(a.atttypid::text, ' ') FROM pg_attribute a \
       WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) \
       FROM pg_type t WHERE t.oid >= 16384 AND t.typtype = 'c' \
     UNION ALL SELECT 'domain', t.oid, t.typbasetype::text FROM pg_type t WHERE t.oid >= 16384 AND t.typtype = 'd' \
     UNION ALL SELECT 'range', r.rngtypid, r.rngsubtype::text FROM pg_range r WHERE r.rngtypid >= 16384 \
     UNION ALL SELECT 'multirange', (to_jsonb(r)->>'rngmultitypid')::oid, r.rngtypid::text FROM pg_range r \
       WHERE r.rngtypid >= 16384 AND to_jsonb(r) ? 'rngmultitypid'";
/// A shard that hangs must not keep the catalog of the others waiting.
const DEADLINE: Duration = Duration::from_secs(1);
