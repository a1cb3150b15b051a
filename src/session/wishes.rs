//! What a session asked of routing by `SET pgweir.…`.

use crate::error::{Error, SqlState};
use crate::plan::{Access, Plan, Route};
use crate::statement::{CacheHint, Statement};
use crate::topology::{Consistency, Database, Key, ShardId};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    pub shard: Option<ShardId>,
    /// `true`: primary; `false`: replica.
    pub primary: Option<bool>,
    pub consistency: Option<Consistency>,
    pub cache: Option<CacheHint>,
}

impl Wishes {
    /// The statement's own hints win.
    pub(super) fn apply(&self, plan: Plan, statement: &Statement) -> Plan {
        let Plan { mut route, mut access } = plan;
        if let Some(shard) = self.shard.filter(|_| statement.hints.shard.is_none() && statement.hints.key.is_none()) {
            route = Route::One(shard);
        }
        if let Some(primary) = self.primary.filter(|_| statement.hints.role.is_none() && access == Access::Read) {
            access = if primary { Access::PrimaryRead } else { Access::ReplicaOnly };
        }
        Plan { route, access }
    }

    /// `SET name TO value`; an empty value or DEFAULT takes the wish back.
    pub(super) fn set(&mut self, name: &str, value: Option<&str>, database: &Database) -> Result<(), Error> {
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
                    None => None,
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

    pub(super) fn show(&self, name: &str) -> String {
        match name {
            "pgweir.shard" | "pgweir.key" => self.shard.map(|shard| shard.0.to_string()).unwrap_or_default(),
            "pgweir.role" => self.primary.map_or("", |primary| if primary { "primary" } else { "replica" }).to_owned(),
            "pgweir.consistency" => {
                self.consistency.map(|consistency| format!("{consistency:?}").to_lowercase()).unwrap_or_default()
            }
            "pgweir.cache" => match self.cache {
                None => String::new(),
                Some(CacheHint::Off) => "off".to_owned(),
                Some(CacheHint::On) => "on".to_owned(),
                Some(CacheHint::For(ttl)) => format!("{}ms", ttl.as_millis()),
            },
            _ => String::new(),
        }
    }
}

fn shard_of_key(value: &str, database: &Database) -> Result<ShardId, Error> {
    let no_keys = || Error::new(SqlState::INVALID_VALUE, format!("database \"{}\" is not sharded", database.name));
    let sharded = database.sharded.first().ok_or_else(no_keys)?;
    let unknown = || Error::new(SqlState::INVALID_VALUE, format!("key \"{value}\" is in no range"));
    let key = Key::from_text(sharded.key_type, value).ok_or_else(unknown)?;
    sharded.mapping.shard_of(&key).ok_or_else(unknown)
}
