//! Constraints that each shard keeps for its own rows only.

use super::{Findings, Known, Shards};
use crate::control::catalog::text;
use crate::control::connect::SqlError;
use crate::plan::{Surroundings, of_each_shard};
use crate::statement::{Constraint, ObjectName};

/// As home has them; that other shards have the same is looked at elsewhere.
pub(super) async fn look(
    shards: &Shards<'_>,
    (database, catalog): Known<'_>,
    findings: &mut Findings,
) -> Result<(), SqlError> {
    let surroundings = Surroundings { database, catalog, search_path: &[] };
    for row in shards.home.client.rows(CONSTRAINTS).await? {
        let object = |schema: usize| ObjectName { schema: Some(text(&row, schema)), name: text(&row, schema + 1) };
        let list = |column: usize| -> Vec<String> {
            let list = text(&row, column);
            list.split(SEPARATOR).filter(|name| !name.is_empty()).map(str::to_owned).collect()
        };
        let columns = text(&row, 3).split(SEPARATOR).map(|name| (!name.is_empty()).then(|| name.to_owned())).collect();
        let refers = row.get(4).is_some_and(Option::is_some).then(|| (object(4), list(6)));
        let constraint = Constraint { table: object(0), made_of: Vec::new(), columns, refers };
        for warning in of_each_shard(&[constraint], &surroundings) {
            let told = warning.told();
            let detail = told.detail.map(|detail| format!(" ({detail})")).unwrap_or_default();
            let subject = format!("{}.{}", text(&row, 0), text(&row, 2));
            findings.note(None, subject, format!("{}{detail}", told.message));
        }
    }
    Ok(())
}

const SEPARATOR: char = '\x1f';

/// Unique indexes by their own names, foreign keys by theirs; an expression has no name.
const CONSTRAINTS: &str = "SELECT n.nspname, c.relname, x.relname, \
       array_to_string(ARRAY(SELECT coalesce(a.attname::text, '') FROM unnest(i.indkey::int2[]) WITH ORDINALITY k \
         LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.k AND k.k > 0 \
         WHERE k.ordinality <= i.indnkeyatts ORDER BY k.ordinality), E'\\x1f'), NULL, NULL, NULL \
     FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid \
     JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE i.indisunique AND c.relkind IN ('r', 'p') AND c.oid >= 16384 AND n.nspname !~ '^pg_' \
     UNION ALL SELECT n.nspname, c.relname, k.conname, \
       array_to_string(ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY o \
         JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = o.o ORDER BY o.ordinality), E'\\x1f'), \
       m.nspname, f.relname, \
       array_to_string(ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY o \
         JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = o.o ORDER BY o.ordinality), E'\\x1f') \
     FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
     JOIN pg_class f ON f.oid = k.confrelid JOIN pg_namespace m ON m.oid = f.relnamespace WHERE k.contype = 'f' \
     ORDER BY 1, 2, 3";
