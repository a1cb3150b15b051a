//! What is to be asked of a shard behind a statement that no transaction can hold.

use super::OneByOne;
use crate::statement::{Ddl, ObjectName, quoted_literal};

impl OneByOne {
    /// `None`: a transaction can hold it.
    pub(super) fn of(ddl: &Ddl) -> Option<Self> {
        if ddl.transactional {
            return None;
        }
        Some(match (ddl.what.as_str(), ddl.tables.first(), &ddl.index) {
            ("CREATE INDEX", Some(table), None) => {
                Self { clearing: Some(invalid("'DROP'", &of_table(table)).into()), ..Self::default() }
            }
            ("CREATE INDEX", Some(table), Some(index)) => {
                let named = quoted_literal(index);
                // Building it anew may have failed before, and left another one beside it.
                let beside = format!("pg_catalog.starts_with(x.relname, {named} || '_ccnew')");
                let which = format!("{} AND (x.relname = {named} OR {beside})", of_table(table));
                let verb = format!("CASE x.relname WHEN {named} THEN 'REINDEX' ELSE 'DROP' END");
                Self { mending: Some(invalid(&verb, &which).into()), clearing: None, repeatable: true }
            }
            _ => Self::default(),
        })
    }

    /// Of REINDEX and the like: what REINDEX CONCURRENTLY leaves stands beside the index itself.
    pub(super) fn of_utility() -> Self {
        Self { clearing: Some(invalid("'DROP'", "x.relname ~ '_cc(new|old)[0-9]*$'").into()), ..Self::default() }
    }
}

fn of_table(table: &ObjectName) -> String {
    format!("i.indrelid = pg_catalog.to_regclass({})", quoted_literal(&table.quoted()))
}

/// A statement for each invalid index that nobody is building just now, `verb` in SQL; those that drop one come first.
fn invalid(verb: &str, which: &str) -> String {
    format!(
        "SELECT pg_catalog.format('%s INDEX CONCURRENTLY %I.%I', {verb}, n.nspname, x.relname) \
         FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid AND x.relkind = 'i' \
         JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace WHERE NOT i.indisvalid AND {which} AND NOT EXISTS \
         (SELECT FROM pg_catalog.pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid) ORDER BY 1"
    )
}
