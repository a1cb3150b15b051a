//! What a statement changes in the session, if it succeeds.

use super::settings::{Change, is_silent};
use crate::statement::{Call, Kind, SettingControl, Statement, TransactionControl};

/// In the order of the statements of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Setting(Change),
    Savepoint(String),
    Release(String),
    RollbackTo(String),
    Commit,
    Rollback,
    /// The server session keeps something that cannot be carried to another one.
    Pin(&'static str),
    /// DISCARD ALL: session state is as after log-in.
    Discard,
    /// The server forgets all prepared statements.
    ForgetStatements,
    /// The server's session may have changed out of sight: it is cleared before another client has it.
    Unseen,
    /// SET LOCAL of what the server's parser minds.
    Local,
    /// Catalogs may have changed.
    Ddl,
}

/// Appends what `statement` does.
pub(super) fn of(statement: &Statement, effects: &mut Vec<Effect>) {
    match &statement.kind {
        Kind::Setting(control) => effects.extend(of_setting(control)),
        Kind::Transaction(control) => effects.extend(of_transaction(control)),
        Kind::Ddl(ddl) => {
            effects.push(Effect::Ddl);
            if ddl.temporary {
                effects.push(Effect::Pin("temporary table"));
            }
        }
        Kind::ModifyingQuery { into: true } => effects.extend([Effect::Ddl, Effect::Pin("SELECT INTO")]),
        Kind::Prepare { .. } => effects.push(Effect::Pin("PREPARE")),
        Kind::Deallocate { name: None } => effects.push(Effect::ForgetStatements),
        Kind::DeclareCursor { hold: true, .. } => effects.push(Effect::Pin("cursor WITH HOLD")),
        Kind::Listen { .. } => effects.push(Effect::Pin("LISTEN")),
        Kind::Do | Kind::Call => effects.push(Effect::Unseen),
        Kind::Unknown { .. } => effects.extend([Effect::Unseen, Effect::Ddl]),
        Kind::Update(_) if names(statement, "pg_settings") => effects.push(Effect::Pin("set_config")),
        _ => {}
    }
    statement.calls.iter().filter_map(of_call).for_each(|effect| effects.push(effect));
}

fn names(statement: &Statement, table: &str) -> bool {
    let relations = statement.blocks.iter().flat_map(|block| &block.relations);
    relations.filter_map(|relation| relation.table.as_ref()).any(|known| known.name == table)
}

fn of_setting(control: &SettingControl) -> Option<Effect> {
    match control {
        SettingControl::Set { local: true, name, .. } => (!is_silent(name)).then_some(Effect::Local),
        SettingControl::Show { .. } => None,
        SettingControl::Set { name, value: Some(value), .. } => {
            let value = value.sql.clone();
            Some(Effect::Setting(Change::Set { name: name.clone(), value }))
        }
        SettingControl::Set { name, value: None, .. } | SettingControl::Reset { name } => {
            Some(Effect::Setting(Change::Reset(name.clone())))
        }
        SettingControl::ResetAll => Some(Effect::Setting(Change::ResetAll)),
        SettingControl::Discard { what } if what == "ALL" => Some(Effect::Discard),
        SettingControl::Discard { .. } => None,
    }
}

fn of_transaction(control: &TransactionControl) -> Option<Effect> {
    match control {
        TransactionControl::Commit { .. } | TransactionControl::TwoPhase => Some(Effect::Commit),
        TransactionControl::Rollback { .. } => Some(Effect::Rollback),
        TransactionControl::Savepoint { name } => Some(Effect::Savepoint(name.clone())),
        TransactionControl::Release { name } => Some(Effect::Release(name.clone())),
        TransactionControl::RollbackTo { name } => Some(Effect::RollbackTo(name.clone())),
        TransactionControl::Begin { .. } | TransactionControl::SetTransaction { .. } => None,
    }
}

fn of_call(call: &Call) -> Option<Effect> {
    match call.name.name.as_str() {
        "pg_advisory_lock" | "pg_advisory_lock_shared" | "pg_try_advisory_lock" | "pg_try_advisory_lock_shared" => {
            Some(Effect::Pin("advisory lock"))
        }
        // Whether it is local to the transaction is known at execution only.
        "set_config" => Some(Effect::Pin("set_config")),
        _ => None,
    }
}
