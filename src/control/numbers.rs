//! By which numbers each shard's server knows the types and tables that home knows by others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::catalog::{Row, number, text};
use super::connect::{Client, Login, SqlError};
use super::primaries::Primaries;
use crate::wire::Oids;

/// Numbers by what they are of, schema and name.
type Numbers = HashMap<(String, String, String), u32>;
type OfShards = Vec<Option<Arc<Oids>>>;

/// Of each shard; what one that does not answer had `before`. `true`: all have answered.
pub(super) async fn load(
    home: &Client,
    primaries: &Primaries,
    before: &OfShards,
) -> Result<(OfShards, bool), SqlError> {
    let Some(shards) = primaries.all().filter(|shards| shards.len() > 1) else { return Ok((Vec::new(), true)) };
    let (known, place) = (numbers(&home.rows(NUMBERS).await?), usize::from(primaries.home_shard().0));
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

fn pair(own: &Numbers, known: &Numbers) -> Option<Oids> {
    let of = |kind: &str| {
        let of_kind = own.iter().filter(|((found, ..), _)| found == kind);
        of_kind.filter_map(|(name, &number)| Some((number, *known.get(name)?))).collect()
    };
    Oids::new(of("type"), of("table"))
}

const NUMBERS: &str = "SELECT 'type', n.nspname, t.typname, t.oid FROM pg_type t \
     JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.oid >= 16384 AND n.nspname !~ '^pg_' \
     UNION ALL SELECT 'table', n.nspname, c.relname, c.oid FROM pg_class c \
     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid >= 16384 AND n.nspname !~ '^pg_' \
     AND c.relkind IN ('r', 'p', 'v', 'm', 'f')";
/// A shard that hangs must not keep the catalog of the others waiting.
const DEADLINE: Duration = Duration::from_secs(1);
