//! What a statement changes in the session, if it succeeds.

use super::settings::{Change, as_set_takes, check_readable, is_silent};
use super::ties;
use super::transaction::Begun;
use crate::backend::PREFIX;
use crate::backend::settings::local;
use crate::error::Error;
use crate::plan::Template;
use crate::statement::{
    Call, CopyFormat, Given, Isolation, Kind, OF_TRANSACTION, SettingControl, Statement, TransactionControl, Vacated,
    Value, Values, quoted_name,
};

/// In the order of the statements of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Setting(Change),
    /// It is where its statement ran.
    Cursor(String),
    Savepoint(String),
    Release(String),
    RollbackTo(String),
    Commit,
    Rollback,
    /// The server session keeps something that cannot be carried to another one; as a rule, see [`super::ties`].
    Pin(&'static str),
    /// A temporary table of this name is made.
    Temporary(String),
    /// What the server session keeps may be gone.
    Untie,
    /// From a channel, or all.
    Unlisten(Option<String>),
    /// Whoever listens is told when the transaction commits.
    Notify,
    /// DISCARD ALL: session state is as after log-in.
    Discard,
    /// PREPARE or DEALLOCATE of a statement under a name of ours.
    Named,
    /// The server forgets all prepared statements.
    ForgetStatements,
    /// The server's session may have changed out of sight: it is cleared before another client has it.
    Unseen,
    /// SET LOCAL of what the server's parser minds.
    Local,
    /// Its server has counted a sequence on.
    Counts,
    /// A transaction block begins.
    Begin(Begun),
    /// A shard that the block reaches later must be told, too.
    Replay(String),
    /// Catalogs may have changed.
    Ddl,
    /// Who logs in from now on is somebody else than before.
    Renews,
    /// Nobody else may be using a database.
    Vacates(Vacated),
    /// `pg_cancel_backend`, or `pg_terminate_backend` (`end`): of the process of this number, if that is known.
    Signal {
        process: Option<i32>,
        end: bool,
    },
    /// `currval` and `lastval`: numbers that the session drew.
    Recalls,
    /// The same out of sight, perhaps.
    MayRecall,
    /// `pg_backend_pid`: whose process that is, others may refer to.
    Number,
    /// COPY to or from the client, which may be in binary.
    Copies,
}

impl Effect {
    /// What names in a text mean may be another thing after it, within its transaction.
    pub(super) fn renames(&self) -> bool {
        match self {
            Self::Ddl | Self::Pin(_) | Self::RollbackTo(_) | Self::Unseen => true,
            Self::Setting(Change::Set { name, .. } | Change::Reset(name)) => name == "search_path",
            Self::Setting(Change::ResetAll) => true,
            Self::Replay(text) => text.contains("search_path"),
            _ => false,
        }
    }
}

/// Appends what `statement` does, executed with `values`, if they are known.
pub(super) fn of(statement: &Statement, values: Option<&Values<'_>>, effects: &mut Vec<Effect>) {
    of_kind(&statement.kind, statement, values, effects);
    statement.calls.iter().for_each(|call| of_call(call, values, effects));
}

/// Appends what a statement may do out of sight.
pub(super) fn of_template(template: &Template, effects: &mut Vec<Effect>) {
    effects.extend(template.is_opaque().then_some(Effect::Unseen));
    effects.extend(template.names_unknown().then_some(Effect::MayRecall));
}

fn of_kind(kind: &Kind, statement: &Statement, values: Option<&Values<'_>>, effects: &mut Vec<Effect>) {
    match kind {
        Kind::Setting(control) => of_setting(control, effects),
        Kind::Transaction(control) => of_transaction(control, effects),
        // Catalogs know nothing of them.
        Kind::Ddl(ddl) if ddl.temporary => {
            effects.push(Effect::Pin(ties::TEMPORARY));
            effects.extend(ddl.makes.clone().map(Effect::Temporary));
        }
        Kind::Ddl(ddl) => {
            effects.extend(ddl.vacates.clone().map(Effect::Vacates));
            effects.push(Effect::Ddl);
            effects.extend(ddl.renews.then_some(Effect::Renews));
        }
        Kind::Copy(copy) if copy.is_client => {
            let is_binary = copy.options.as_ref().is_none_or(|options| options.format == CopyFormat::Binary);
            effects.extend(is_binary.then_some(Effect::Copies));
        }
        // COPY of one is such, too.
        Kind::ModifyingQuery { into: false } => {
            let text = values.map_or("", |values| values.text).as_bytes();
            let copies = text.windows(4).any(|word| word.eq_ignore_ascii_case(b"copy"));
            effects.extend(copies.then_some(Effect::Copies));
        }
        Kind::ModifyingQuery { into: true } => effects.extend([Effect::Ddl, Effect::Pin(ties::TEMPORARY)]),
        Kind::Prepare { name } | Kind::Deallocate { name: Some(name) } if name.starts_with(PREFIX) => {
            effects.push(Effect::Named);
        }
        Kind::Prepare { .. } => effects.push(Effect::Pin(ties::PREPARE)),
        Kind::Deallocate { name: None } => effects.push(Effect::ForgetStatements),
        Kind::DeclareCursor { hold: true, .. } => effects.push(Effect::Pin(ties::HELD_CURSOR)),
        Kind::DeclareCursor { name, .. } => effects.push(Effect::Cursor(name.clone())),
        Kind::Deallocate { name: Some(_) } | Kind::CloseCursor { .. } => effects.push(Effect::Untie),
        Kind::Unlisten { channel } => effects.extend([Effect::Untie, Effect::Unlisten(channel.clone())]),
        Kind::Notify { .. } => effects.push(Effect::Notify),
        Kind::Listen { .. } => effects.push(Effect::Pin(ties::LISTEN)),
        Kind::Do(body) => {
            let ends = body.has("pg_terminate_backend");
            effects.extend(ends.then_some(Effect::Signal { process: None, end: true }));
            let recalls = body.has("currval") || body.has("lastval");
            effects.extend(recalls.then_some(Effect::Recalls));
            effects.push(Effect::Unseen);
        }
        Kind::Call => effects.push(Effect::Unseen),
        Kind::Unknown { .. } => effects.extend([Effect::Unseen, Effect::Ddl]),
        Kind::Update(_) if names(statement, "pg_settings") => effects.push(Effect::Pin(ties::SET_CONFIG)),
        // CREATE TABLE … AS.
        Kind::Explain { analyze: true, inner } if matches!(**inner, Kind::Ddl(_)) => {
            of_kind(inner, statement, values, effects);
        }
        _ => {}
    }
}

fn names(statement: &Statement, table: &str) -> bool {
    let relations = statement.blocks.iter().flat_map(|block| &block.relations);
    relations.filter_map(|relation| relation.table.as_ref()).any(|known| known.name == table)
}

fn of_setting(control: &SettingControl, effects: &mut Vec<Effect>) {
    match control {
        SettingControl::Set { local: true, name, value } => {
            effects.extend((!is_silent(name)).then_some(Effect::Local));
            let value = value.as_ref().map_or("DEFAULT", |value| &value.sql);
            effects.push(Effect::Replay(local(name, value)));
        }
        SettingControl::Show { .. } => {}
        SettingControl::Set { name, value: Some(value), .. } => {
            let value = value.sql.clone();
            effects.push(Effect::Setting(Change::Set { name: name.clone(), value }));
        }
        SettingControl::Set { name, value: None, .. } | SettingControl::Reset { name } => {
            effects.push(Effect::Setting(Change::Reset(name.clone())));
        }
        SettingControl::Several(settings) => effects.extend(
            settings
                .iter()
                .map(|(name, value)| Effect::Setting(Change::Set { name: name.clone(), value: value.sql.clone() })),
        ),
        SettingControl::ResetAll => effects.push(Effect::Setting(Change::ResetAll)),
        SettingControl::Discard { what } if what == "ALL" => effects.push(Effect::Discard),
        SettingControl::Discard { .. } => effects.extend([Effect::Untie, Effect::Counts]),
    }
}

fn of_transaction(control: &TransactionControl, effects: &mut Vec<Effect>) {
    let named = |verb: &str, name: &str| Effect::Replay(format!("{verb} {}", quoted_name(name)));
    match control {
        TransactionControl::Commit { .. } | TransactionControl::TwoPhase => effects.push(Effect::Commit),
        TransactionControl::Rollback { .. } => effects.push(Effect::Rollback),
        TransactionControl::Savepoint { name } => {
            effects.extend([Effect::Savepoint(name.clone()), named("SAVEPOINT", name)]);
        }
        TransactionControl::Release { name } => {
            effects.extend([Effect::Release(name.clone()), named("RELEASE", name)]);
        }
        TransactionControl::RollbackTo { name } => {
            effects.extend([Effect::RollbackTo(name.clone()), named("ROLLBACK TO", name)]);
        }
        TransactionControl::Begin { read_only, isolation, deferrable } => {
            let text = format!("BEGIN{}", modes(*read_only, *isolation, *deferrable));
            let begun = Begun { texts: vec![text], read_only: read_only.unwrap_or(false), isolation: *isolation };
            effects.push(Effect::Begin(begun));
        }
        TransactionControl::SetTransaction { read_only, isolation, deferrable } => {
            let modes = modes(*read_only, *isolation, *deferrable);
            effects.push(Effect::Replay(format!("SET TRANSACTION{modes}")));
        }
    }
}

/// As BEGIN and SET TRANSACTION take them.
fn modes(read_only: Option<bool>, isolation: Option<Isolation>, deferrable: Option<bool>) -> String {
    let level = isolation.map(|level| match level {
        Isolation::ReadUncommitted => " ISOLATION LEVEL READ UNCOMMITTED",
        Isolation::ReadCommitted => " ISOLATION LEVEL READ COMMITTED",
        Isolation::RepeatableRead => " ISOLATION LEVEL REPEATABLE READ",
        Isolation::Serializable => " ISOLATION LEVEL SERIALIZABLE",
    });
    let access = read_only.map(|read_only| if read_only { " READ ONLY" } else { " READ WRITE" });
    let deferrable = deferrable.map(|deferrable| if deferrable { " DEFERRABLE" } else { " NOT DEFERRABLE" });
    [level, access, deferrable].into_iter().flatten().collect()
}

fn of_call(call: &Call, values: Option<&Values<'_>>, effects: &mut Vec<Effect>) {
    match call.name.name.as_str() {
        "pg_advisory_lock" | "pg_advisory_lock_shared" | "pg_try_advisory_lock" | "pg_try_advisory_lock_shared" => {
            effects.push(Effect::Pin(ties::ADVISORY_LOCK));
        }
        "pg_advisory_unlock" | "pg_advisory_unlock_shared" | "pg_advisory_unlock_all" => effects.push(Effect::Untie),
        "pg_notify" => effects.push(Effect::Notify),
        "pg_backend_pid" => effects.push(Effect::Number),
        "currval" | "lastval" => effects.push(Effect::Recalls),
        "nextval" | "setval" => effects.push(Effect::Counts),
        name @ ("pg_cancel_backend" | "pg_terminate_backend") => {
            let process = call.arguments.first().zip(values).and_then(|(value, values)| number(value, values));
            effects.push(Effect::Signal { process, end: name == "pg_terminate_backend" });
        }
        "set_config" => match values.filter(|_| call.once).and_then(|values| configured(call, values)) {
            // It is gone with the transaction that it is of.
            Some(Configured { name, .. }) if OF_TRANSACTION.contains(&&*name) => {}
            Some(Configured { name, value, local: true }) => {
                effects.extend((!is_silent(&name)).then_some(Effect::Local));
                let value = value.map_or_else(|| "DEFAULT".to_owned(), |value| as_set_takes(&name, &value));
                effects.push(Effect::Replay(local(&name, &value)));
            }
            Some(Configured { name, value: Some(value), local: false }) => {
                let value = as_set_takes(&name, &value);
                effects.push(Effect::Setting(Change::Set { name, value }));
            }
            Some(Configured { name, value: None, local: false }) => {
                effects.push(Effect::Setting(Change::Reset(name)));
            }
            // What it sets, and until when, is known at execution only.
            None => effects.push(Effect::Pin(ties::SET_CONFIG)),
        },
        _ => {}
    }
}

/// What a call of `set_config` sets; `None`: the default.
struct Configured {
    name: String,
    value: Option<String>,
    local: bool,
}

fn configured(call: &Call, values: &Values<'_>) -> Option<Configured> {
    let [name, value, local] = call.arguments.as_slice() else { return None };
    let local = match local {
        Value::Boolean(local) => *local,
        // A parameter, in either format.
        other => match text(other, values)??.as_str() {
            "t" | "true" | "on" | "1" | "\u{1}" => true,
            "f" | "false" | "off" | "0" | "\0" => false,
            _ => return None,
        },
    };
    Some(Configured { name: text(name, values)??.to_ascii_lowercase(), value: text(value, values)?, local })
}

/// A value as text; `Some(None)` for NULL.
fn text(value: &Value, values: &Values<'_>) -> Option<Option<String>> {
    let given = match value {
        Value::Null => Given::Null,
        Value::Literal { index, negated: false, .. } => values.literal(*index),
        Value::Parameter { index, .. } => values.parameter(*index),
        _ => Given::Missing,
    };
    match given {
        Given::Null => Some(None),
        Given::Text(text) => Some(Some(text.into_owned())),
        Given::Binary { bytes, .. } => std::str::from_utf8(bytes).ok().map(|text| Some(text.to_owned())),
        Given::Missing => None,
    }
}

/// A whole number, written down or given in either format.
fn number(value: &Value, values: &Values<'_>) -> Option<i32> {
    let given = match value {
        Value::Literal { index, negated: false, .. } => values.literal(*index),
        Value::Parameter { index, .. } => values.parameter(*index),
        _ => return None,
    };
    match given {
        Given::Text(text) => text.trim().parse().ok(),
        Given::Binary { bytes, .. } => match *bytes {
            [a, b] => Some(i32::from(i16::from_be_bytes([a, b]))),
            [a, b, c, d] => Some(i32::from_be_bytes([a, b, c, d])),
            _ => i32::try_from(i64::from_be_bytes(bytes.try_into().ok()?)).ok(),
        },
        Given::Null | Given::Missing => None,
    }
}

/// Refuses a setting under which texts could not be read any more, however it is set.
pub(super) fn check(statement: &Statement, values: &Values<'_>) -> Result<(), Error> {
    let calls = statement.calls.iter().filter(|call| call.name.name == "set_config");
    calls.filter_map(|call| configured(call, values)).try_for_each(|configured| match configured.value {
        Some(value) => check_readable(&configured.name, &value),
        None => Ok(()),
    })
}
