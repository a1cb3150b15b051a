//! Columns that are declared unique over all shards: whether their values are kept, and all of them.

use super::{Findings, Known, Shards, name_of, quoted};
use crate::catalog::Relation;
use crate::control::catalog::text;
use crate::control::connect::{Login, SqlError};
use crate::control::uniques::{Filled, declared, fault, fill, relation_of, values_of};
use crate::statement::quoted_literal;

pub(super) async fn look(
    shards: &Shards<'_>,
    (database, catalog): Known<'_>,
    findings: &mut Findings,
) -> Result<(), SqlError> {
    for (table, columns) in declared(database, catalog) {
        let subject = name_of(&table);
        if let Some(why) = fault(&table, columns) {
            findings.fault(None, subject, format!("is declared to have unique columns: {why}"));
            continue;
        }
        if table.kept_unique != columns {
            let text = format!("values of {} are declared unique, and are not kept", columns.join(", "));
            findings.fault(None, subject, text).repair = Some(REPAIR.to_owned());
            continue;
        }
        for column in columns {
            let (kept, found) = sums(shards, &table, column).await?;
            if kept != found {
                let text = format!("{} values of {column} are kept, and {} rows have one", kept.0, found.0);
                findings.fault(None, &*subject, text).repair = Some(REPAIR.to_owned());
            }
        }
    }
    Ok(())
}

/// How many values, and the sum of their hashes: at home, and in the rows of all shards.
async fn sums(shards: &Shards<'_>, table: &Relation, column: &str) -> Result<((i128, i128), (i128, i128)), SqlError> {
    let sum = |of: &str| {
        format!("SELECT count(*), sum(('x' || left(md5(value), 15))::bit(60)::bigint::numeric) FROM ({of}) AS kept")
    };
    let number = |row: &[Option<String>], place: usize| text(row, place).parse::<i128>().unwrap_or(0);
    let of =
        |rows: Vec<Vec<Option<String>>>| rows.first().map(|row| (number(row, 0), number(row, 1))).unwrap_or_default();
    let relation = relation_of(shards.home.client, table).await?;
    let (relation, field) = (quoted_literal(&relation), quoted_literal(column));
    let known = format!("SELECT value FROM pgweir.unique_values WHERE relation = {relation} AND field = {field}");
    let kept = of(shards.home.client.rows(&sum(&known)).await?);
    let mut found = (0, 0);
    for shard in &shards.all {
        let own = of(shard.client.rows(&sum(&values_of(&quoted(table), column))).await?);
        found = (found.0 + own.0, found.1 + own.1);
    }
    Ok((kept, found))
}

/// Makes what keeps the values, from the rows that are there.
pub(super) async fn repair(
    logins: &[Login],
    (database, catalog): Known<'_>,
    findings: &mut Findings,
) -> Result<(), SqlError> {
    for (table, columns) in declared(database, catalog) {
        match fill(logins, usize::from(database.home.0), &table, columns, true).await? {
            Filled::Kept(values) => {
                findings.note(None, name_of(&table), format!("{values} values of {} are kept now", columns.join(", ")));
            }
            Filled::Refused(why) => {
                let text = format!("values of {} cannot be kept: {why}", columns.join(", "));
                findings.fault(None, name_of(&table), text);
            }
        }
    }
    Ok(())
}

const REPAIR: &str = "pgweir check --live --repair";
