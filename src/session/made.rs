//! What a block has defined, and the catalog does not know before it commits.

use std::collections::HashSet;

use super::Session;
use super::decide::Way;
use super::transaction::Transaction;
use crate::error::Error;
use crate::statement::{Kind, ObjectName, Statement, names_in};
use crate::topology::ShardedBy;

impl Session {
    /// Names by which rows of several shards may be meant, once this definition is carried out.
    pub(super) fn doubts(&self, way: &Way, text: &[u8]) -> HashSet<String> {
        let names = names_in(std::str::from_utf8(text).unwrap_or_default());
        let is_key = |column: &String| {
            let sharded = self.snapshot.database.sharded.iter();
            sharded.map(|tables| &tables.tables).any(|by| matches!(by, ShardedBy::Column(key) if key == column))
        };
        match way {
            Way::Script(_) => names,
            Way::Spread(_) if names.iter().any(|name| is_key(name) || SPREADING.contains(&name.as_str())) => names,
            _ => HashSet::new(),
        }
    }

    /// A definition was carried out, which leads to these.
    pub(super) fn note_doubts(&mut self, doubts: HashSet<String>) {
        if let Transaction::Open(open) = &mut self.transaction {
            open.doubtful.extend(doubts);
        }
    }

    /// Where the rows are of what the block has defined, nobody knows.
    pub(super) fn check_made(&self, statement: &Statement) -> Result<(), Error> {
        let Transaction::Open(open) = &self.transaction else { return Ok(()) };
        if open.doubtful.is_empty() {
            return Ok(());
        }
        let named = statement.blocks.iter().flat_map(|block| &block.relations).filter_map(|known| known.table.as_ref());
        let given: &[ObjectName] = match &statement.kind {
            Kind::Copy(copy) => copy.table.as_slice(),
            Kind::Truncate { tables } => tables,
            _ => &[],
        };
        let is_doubtful = |name: &&ObjectName| {
            let known = self.snapshot.catalog.relation(name.schema.as_deref(), &name.name, &self.search_path);
            known.is_none() && open.doubtful.contains(&name.name)
        };
        match named.chain(given).find(is_doubtful) {
            Some(name) => {
                let what = format!("\"{}\", which the same transaction has defined,", name.name);
                Err(Error::unsupported(what, "Commit the definition first."))
            }
            None => Ok(()),
        }
    }
}

/// Words of definitions whose rows may be on several shards, though no key is named.
const SPREADING: [&str; 7] = ["like", "inherits", "partition", "of", "view", "rename", "select"];
