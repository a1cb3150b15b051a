//! What a session asked of routing by `SET pgweir.…`.

use crate::error::{Error, SqlState};
use crate::plan::{Access, Plan, Route};
use crate::statement::{CacheHint, Statement};
use crate::topology::{Consistency, Database, Key, ShardId};

/// SET LOCAL holds for its transaction and beats a statement's own hints; SET holds for the session, unless its
/// transaction is rolled back, and gives way to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    session: Wish,
    local: Wish,
    /// What `session` was before this transaction changed it.
    before: Option<Wish>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wish {
    shard: Option<ShardId>,
    /// `true`: primary; `false`: replica.
    primary: Option<bool>,
    consistency: Option<Consistency>,
    cache: Option<CacheHint>,
}

impl Wishes {
    pub(super) fn apply(&self, plan: Plan, statement: &Statement) -> Plan {
        let Plan { mut route, mut access } = plan;
        let is_placed = statement.hints.shard.is_some() || statement.hints.key.is_some();
        if let Some(shard) = self.local.shard.or(self.session.shard.filter(|_| !is_placed)) {
            route = Route::One(shard);
        }
        let of_session = self.session.primary.filter(|_| statement.hints.role.is_none());
        match (self.local.primary.or(of_session), access) {
            (Some(true), Access::Read | Access::ReplicaOnly) => access = Access::PrimaryRead,
            (Some(false), Access::Read) => access = Access::ReplicaOnly,
            _ => {}
        }
        Plan { route, access }
    }

    pub(super) fn shard(&self) -> Option<ShardId> {
        self.local.shard.or(self.session.shard)
    }

    pub(super) fn cache(&self) -> Option<CacheHint> {
        self.local.cache.or(self.session.cache)
    }

    pub(super) fn consistency(&self) -> Option<Consistency> {
        self.local.consistency.or(self.session.consistency)
    }

    /// `SET [LOCAL] name TO value`, in a transaction block or not.
    pub(super) fn set(&mut self, setting: &Setting<'_>, in_block: bool, database: &Database) -> Result<(), Error> {
        let Setting { name, value, local } = *setting;
        match (local, in_block) {
            (true, true) => self.local.set(name, value, database),
            // PostgreSQL warns and does nothing.
            (true, false) => self.local.clone().set(name, value, database),
            (false, _) => {
                if in_block && self.before.is_none() {
                    self.before = Some(self.session.clone());
                }
                self.session.set(name, value, database)
            }
        }
    }

    /// A transaction has ended.
    pub(super) fn end(&mut self, committed: bool) {
        self.local = Wish::default();
        if let Some(before) = self.before.take()
            && !committed
        {
            self.session = before;
        }
    }

    pub(super) fn show(&self, name: &str) -> String {
        let of = |wish: &Wish| match name {
            "pgweir.shard" | "pgweir.key" => wish.shard.map(|shard| shard.0.to_string()),
            "pgweir.role" => wish.primary.map(|primary| if primary { "primary" } else { "replica" }.to_owned()),
            "pgweir.consistency" => wish.consistency.map(|consistency| format!("{consistency:?}").to_lowercase()),
            "pgweir.cache" => wish.cache.map(|cache| match cache {
                CacheHint::Off => "off".to_owned(),
                CacheHint::On => "on".to_owned(),
                CacheHint::For(ttl) => format!("{}ms", ttl.as_millis()),
            }),
            _ => None,
        };
        of(&self.local).or_else(|| of(&self.session)).unwrap_or_default()
    }
}

/// One SET of ours.
#[derive(Clone, Copy)]
pub(super) struct Setting<'a> {
    pub name: &'a str,
    pub value: Option<&'a str>,
    pub local: bool,
}

impl Wish {
    /// `SET name TO value`; an empty value or DEFAULT takes the wish back.
    fn set(&mut self, name: &str, value: Option<&str>, database: &Database) -> Result<(), Error> {
        let value = value.filter(|value| !value.is_empty());
        let bad = || {
            let message = format!("invalid value for \"{name}\": \"{}\"", value.unwrap_or_default());
            Error::new(SqlState::INVALID_VALUE, message)
        };
        match name {
            "pgweir.shard" => {
                let parse = |value: &str| {
                    let number = value.parse().ok().filter(|&number| usize::from(number) < database.shards.len());
                    number.map(ShardId).ok_or_else(bad)
                };
                self.shard = value.map(parse).transpose()?;
            }
            "pgweir.key" => self.shard = value.map(|value| shard_of_key(value, database)).transpose()?,
            "pgweir.role" => {
                self.primary = match value {
                    None | Some("any" | "auto" | "default") => None,
                    Some("primary") => Some(true),
                    Some("replica") => Some(false),
                    Some(_) => return Err(bad()),
                };
            }
            "pgweir.consistency" => {
                self.consistency = match value {
                    None => None,
                    Some("eventual") => Some(Consistency::Eventual),
                    Some("session") => Some(Consistency::Session),
                    Some("global") => Some(Consistency::Global),
                    Some("strong") => Some(Consistency::Strong),
                    Some(_) => return Err(bad().with_hint("eventual, session, global or strong.")),
                };
            }
            "pgweir.cache" => {
                let parse =
                    |value| CacheHint::parse(value).ok_or_else(|| bad().with_hint("off, on or a time to live."));
                self.cache = value.map(parse).transpose()?;
            }
            _ => {
                let known = "Known are pgweir.shard, pgweir.key, pgweir.role, pgweir.consistency and pgweir.cache.";
                let message = format!("unrecognized configuration parameter \"{name}\"");
                return Err(Error::new(SqlState::INVALID_VALUE, message).with_hint(known));
            }
        }
        Ok(())
    }
}

fn shard_of_key(value: &str, database: &Database) -> Result<ShardId, Error> {
    let no_keys = || Error::new(SqlState::INVALID_VALUE, format!("database \"{}\" is not sharded", database.name));
    let sharded = database.sharded.first().ok_or_else(no_keys)?;
    let unknown = || Error::new(SqlState::INVALID_VALUE, format!("key \"{value}\" is in no range"));
    let key = Key::from_text(sharded.key_type, value).ok_or_else(unknown)?;
    sharded.mapping.shard_of(&key).ok_or_else(unknown)
}
