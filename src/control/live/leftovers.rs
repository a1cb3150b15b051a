//! What was begun and not ended: indexes, transactions, blocks of numbers.

use super::{Findings, Known, Shard, Shards};
use crate::control::catalog::{flag, text};
use crate::control::connect::SqlError;
use crate::control::sequences;
use crate::plan::sequences_of;
use crate::statement::quoted_literal;

pub(super) async fn look(
    shards: &Shards<'_>,
    (database, catalog): Known<'_>,
    findings: &mut Findings,
) -> Result<(), SqlError> {
    for shard in &shards.all {
        indexes(shard, findings).await?;
        prepared(shard, findings).await?;
    }
    let mut sequences = sequences_of(database, catalog);
    sequences.sort_by(|one, other| (&one.schema, &one.name).cmp(&(&other.schema, &other.name)));
    for sequence in sequences {
        for shard in shards.others() {
            let place = (shards.home.number, shard.number, database.shards.len());
            let clients = (shards.home.client, shard.client);
            if let Some(text) = sequences::fault(clients, &sequence, place).await? {
                findings.fault(Some(shard.number), format!("{}.{}", sequence.schema, sequence.name), text);
            }
        }
    }
    Ok(())
}

/// They are written and not read.
async fn indexes(shard: &Shard<'_>, findings: &mut Findings) -> Result<(), SqlError> {
    for row in shard.client.rows(INVALID).await? {
        let (table, index) = (text(&row, 0), text(&row, 1));
        if flag(&row, 3) {
            findings.note(Some(shard.number), table, format!("index {index} is being built"));
            continue;
        }
        // What REINDEX CONCURRENTLY leaves stands beside the index itself.
        let verb = if flag(&row, 2) { "DROP INDEX CONCURRENTLY" } else { "REINDEX INDEX CONCURRENTLY" };
        let what = format!("index {index} is invalid: its building has failed");
        let repair = format!("/* pgweir: shard={} */ {verb} {index}", shard.number);
        findings.fault(Some(shard.number), table, what).repair = Some(repair);
    }
    Ok(())
}

/// They hold locks, and keep rows from being cleaned up.
async fn prepared(shard: &Shard<'_>, findings: &mut Findings) -> Result<(), SqlError> {
    for row in shard.client.rows(PREPARED).await? {
        let (gid, owner, age) = (text(&row, 0), text(&row, 1), text(&row, 2));
        let what = format!("transaction {} of {owner} has been prepared for {age} s", quoted_literal(&gid));
        let repair = match gid.starts_with("pgweir:") {
            true => "pgweir recover".to_owned(),
            false => format!("COMMIT PREPARED or ROLLBACK PREPARED {}, as who prepared it knows", quoted_literal(&gid)),
        };
        findings.fault(Some(shard.number), "prepared transactions", what).repair = Some(repair);
    }
    Ok(())
}

const INVALID: &str = "SELECT format('%I.%I', n.nspname, c.relname), format('%I.%I', m.nspname, x.relname), \
       x.relname ~ '_cc(new|old)[0-9]*$', \
       EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid) \
     FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid \
     JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_namespace m ON m.oid = x.relnamespace \
     WHERE NOT i.indisvalid AND x.relkind = 'i' AND n.nspname !~ '^pg_temp' ORDER BY 1, 2";
/// Older than any commit takes.
const PREPARED: &str = "SELECT gid, owner, extract(epoch FROM now() - prepared)::bigint FROM pg_prepared_xacts \
     WHERE database = current_database() AND prepared < now() - interval '10 seconds' ORDER BY prepared";
