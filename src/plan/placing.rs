//! Where the rows of a statement are on a sharded database, its values left open.

use std::sync::Arc;

use super::altering;
use super::filling::Filling;
use super::gather::Gathering;
use super::insert::Inserting;
use super::keys::Keyed;
use super::local::{self, Localized};
use super::mirror::Mirroring;
use super::moving::{self, Moving};
use super::numbering::Numbering;
use super::reference::{check_defaults, check_everywhere, check_within, writes_reference};
use super::relations::{self, Class, Resolved};
use super::scatter::Scattering;
use super::surroundings::Surroundings;
use super::through::Through;
use super::transfer::Transferring;
use super::{OneByOne, Route, Tag, access, copying, views};
use crate::error::{Error, SqlState};
use crate::statement::{Assigned, Copy, Ddl, Filled, Insert, Kind, ObjectName, SettingControl, Statement};
use crate::topology::ShardId;

#[derive(Debug)]
pub(super) enum Placement {
    Fixed(ShardId),
    Refused(Error),
    /// Where its sharded relations' keys are.
    Keyed(Box<ByKey>),
    Insert(Box<Inserting>),
    Number(Box<Numbering>),
    Transfer(Box<Transferring>),
    Copy(Route),
    /// It changes the shard key.
    Move(Box<Moving>),
    /// On one shard, and what came of it on the others.
    Mirror(Box<Mirroring>),
    /// A new table and its rows.
    Fill(Box<Filling>),
    /// Of what the home shard alone has.
    Local(Box<Localized>),
    /// On every shard the same.
    Everywhere {
        one_by_one: Option<OneByOne>,
        tag: Tag,
    },
}

#[derive(Debug)]
pub(super) struct ByKey {
    pub keyed: Keyed,
    /// Rows of home-only tables take part.
    pub needs_home: bool,
    /// What to do when one shard is not enough.
    pub several: Several,
    /// What else can be done, if anything.
    pub gathering: Option<Box<Gathering>>,
}

#[derive(Debug)]
pub(super) enum Several {
    Scatter(Box<Scattering>),
    /// UPDATE or DELETE of the relation of this index.
    Spread(usize),
    Refused(Error),
}

/// On a sharded database, without a hint.
pub(super) fn place(statement: &Arc<Statement>, resolved: &[Resolved], surroundings: &Surroundings<'_>) -> Placement {
    let Surroundings { database, .. } = surroundings;
    if let Some(moving) = Moving::new(statement, resolved, surroundings) {
        return Placement::Move(Box::new(moving));
    }
    if let Err(error) = check(statement, resolved, surroundings) {
        return Placement::Refused(error);
    }
    let home = database.home;
    let refuse = |what: &str, hint: &str| Placement::Refused(Error::unsupported(what, hint));
    match &statement.kind {
        Kind::Transaction(_)
        | Kind::Setting(_)
        | Kind::ExplainRoute { .. }
        | Kind::Execute { .. }
        | Kind::Deallocate { .. }
        | Kind::Fetch { .. }
        | Kind::CloseCursor { .. }
        | Kind::Listen { .. }
        | Kind::Unlisten { .. }
        | Kind::Notify { .. } => Placement::Fixed(home),
        Kind::Prepare { .. } => refuse("PREPARE", "Use the driver's prepared statements (extended protocol)."),
        Kind::LockTable => Placement::Everywhere { one_by_one: None, tag: Tag::First },
        // It can but compute, and say so.
        Kind::Do(body) if body.statements.is_empty() && access::may_only_compute(body, surroundings.catalog) => {
            Placement::Fixed(home)
        }
        Kind::Call | Kind::Do(_) => refuse("CALL or DO", HINT_SHARD),
        Kind::Unknown { keyword } => refuse(&format!("a statement that is not understood ({keyword} …)"), HINT_SHARD),
        Kind::Ddl(ddl) => define(statement, ddl, resolved, surroundings),
        Kind::ModifyingQuery { into: true } => refuse("SELECT INTO", "Create the table first, then insert into it."),
        Kind::ModifyingQuery { .. } | Kind::Merge if writes_reference(resolved) => {
            match check_within(statement, resolved, surroundings.catalog) {
                Ok(()) => Placement::Everywhere { one_by_one: None, tag: Tag::First },
                Err(error) => Placement::Refused(error),
            }
        }
        Kind::Refresh { .. } => Placement::Everywhere { one_by_one: None, tag: Tag::First },
        Kind::Positioned { .. } => positioned(resolved, home),
        Kind::Utility { .. } => Placement::Everywhere { one_by_one: Some(OneByOne::of_utility()), tag: Tag::First },
        Kind::Truncate { tables } if are_home(tables, surroundings) => Placement::Fixed(home),
        Kind::Truncate { .. } => Placement::Everywhere { one_by_one: None, tag: Tag::First },
        Kind::Copy(copy) => match &copy.table {
            Some(table) => match copying::route(statement, copy, table, surroundings) {
                Ok(Some(route)) => Placement::Copy(route),
                Ok(None) => Placement::Fixed(home),
                Err(error) => Placement::Refused(error),
            },
            None => by_key(statement, resolved, surroundings),
        },
        Kind::Explain { inner, .. }
            if matches!(
                **inner,
                Kind::Query | Kind::Insert(_) | Kind::Update(_) | Kind::Delete { .. } | Kind::Merge
            ) =>
        {
            let explained = Statement { kind: (**inner).clone(), ..Statement::clone(statement) };
            place(&Arc::new(explained), resolved, surroundings)
        }
        Kind::Explain { .. } => refuse("EXPLAIN of this statement", "Use EXPLAIN ROUTE, or a routing hint."),
        Kind::Insert(insert) => insert_of(statement, insert, resolved, surroundings),
        Kind::Update(_) | Kind::Delete { .. } if writes_reference(resolved) => {
            reference(statement, resolved, surroundings)
        }
        Kind::Update(_) | Kind::Delete { .. } | Kind::Merge if local::writes_at_home(resolved) => {
            localized(statement, resolved, surroundings).unwrap_or_else(|| by_key(statement, resolved, surroundings))
        }
        _ => by_key(statement, resolved, surroundings),
    }
}

fn localized(statement: &Statement, resolved: &[Resolved], surroundings: &Surroundings<'_>) -> Option<Placement> {
    Localized::new(statement, resolved, surroundings).map(|localized| Placement::Local(Box::new(localized)))
}

fn insert_of(
    statement: &Arc<Statement>,
    insert: &Insert,
    resolved: &[Resolved],
    surroundings: &Surroundings<'_>,
) -> Placement {
    match Numbering::new(insert, resolved) {
        Ok(None) => {}
        Ok(Some(numbering)) => return Placement::Number(Box::new(numbering)),
        Err(error) => return Placement::Refused(error),
    }
    match Inserting::new(statement, insert, resolved, surroundings) {
        Ok(Some(inserting)) => Placement::Insert(Box::new(inserting)),
        Ok(None) if writes_reference(resolved) => match check_defaults(insert, resolved) {
            Ok(()) => reference(statement, resolved, surroundings),
            Err(error) => mirrored(error, statement, resolved, surroundings),
        },
        Ok(None) => Placement::Fixed(surroundings.database.home),
        Err(error) if writes_reference(resolved) => mirrored(error, statement, resolved, surroundings),
        Err(error) => match Transferring::new(statement, insert, resolved, surroundings) {
            Some(transferring) => Placement::Transfer(Box::new(transferring)),
            None => localized(statement, resolved, surroundings).unwrap_or(Placement::Refused(error)),
        },
    }
}

/// A session knows where its cursor is.
fn positioned(resolved: &[Resolved], home: ShardId) -> Placement {
    if resolved.iter().any(|known| matches!(known.class, Class::Reference | Class::View)) {
        let what = "WHERE CURRENT OF for a reference table or view";
        return Placement::Refused(Error::unsupported(what, "Name the row by its key."));
    }
    Placement::Fixed(home)
}

/// What is refused wherever the rows are.
fn check(statement: &Statement, resolved: &[Resolved], surroundings: &Surroundings<'_>) -> Result<(), Error> {
    let Surroundings { database, catalog, .. } = surroundings;
    if !catalog.loaded && resolved.iter().any(|relation| matches!(relation.class, Class::Unknown)) {
        // It may be sharded by a column: where its rows are is not known.
        let message = format!("the catalog of database \"{}\" is not loaded yet", database.name);
        let error = Error::new(SqlState::UNAVAILABLE, message);
        return Err(error.with_hint("The control plane needs the home shard's primary; see the log."));
    }
    // Those that can be are written out before.
    let mut relations = statement.blocks.iter().flat_map(|block| &block.relations);
    if views::names_matter(resolved) && relations.any(|relation| relation.renames && relation.table.is_some()) {
        let what = "a table whose columns are given other names in this way";
        return Err(Error::unsupported(what, "Leave the columns their names."));
    }
    check_assigned_keys(statement, resolved)?;
    if sets_path_of_block(&statement.kind) {
        let hint = "Use SET, and RESET when the transaction has ended.";
        return Err(Error::unsupported("SET LOCAL search_path", hint));
    }
    Ok(())
}

/// What is defined is on every shard, but for temporary tables; its rows may not be.
fn define(statement: &Statement, ddl: &Ddl, resolved: &[Resolved], surroundings: &Surroundings<'_>) -> Placement {
    let reads_shards = resolved.iter().any(|known| matches!(known.class, Class::Sharded(_) | Class::View));
    let is_view = ddl.what == "CREATE VIEW";
    if is_view && ddl.temporary && reads_shards {
        let what = "a temporary view over sharded tables";
        return Placement::Refused(Error::unsupported(what, "Make a view that is none, or a temporary table."));
    }
    let reads_rows = |filled: &Filled| {
        !is_view && (!matches!(filled.query.kind, Kind::Query) || !resolved.is_empty() && !filled.empty)
    };
    if ddl.temporary && !ddl.filled.as_ref().is_some_and(reads_rows) {
        return Placement::Fixed(surroundings.database.home);
    }
    if let Some(error) = altering::refused(ddl, surroundings) {
        return Placement::Refused(error);
    }
    match Filling::new(statement, ddl, resolved, surroundings) {
        Some(Ok(filling)) => Placement::Fill(Box::new(filling)),
        Some(Err(error)) => Placement::Refused(error),
        None => Placement::Everywhere { one_by_one: OneByOne::of(ddl), tag: Tag::First },
    }
}

fn are_home(tables: &[ObjectName], surroundings: &Surroundings<'_>) -> bool {
    tables.iter().all(|name| matches!(relations::classify(name, surroundings).0, Class::Home | Class::Unknown))
}

/// The tables that the names of the block mean would be others than those that the session's path leads to.
fn sets_path_of_block(kind: &Kind) -> bool {
    matches!(kind, Kind::Setting(SettingControl::Set { name, local: true, .. }) if name == "search_path")
}

/// A write of a reference table: the same rows everywhere, or not at all.
fn reference(statement: &Statement, resolved: &[Resolved], surroundings: &Surroundings<'_>) -> Placement {
    match check_everywhere(statement, resolved, surroundings.catalog) {
        Ok(()) => Placement::Everywhere { one_by_one: None, tag: Tag::First },
        Err(error) => mirrored(error, statement, resolved, surroundings),
    }
}

/// What cannot be done everywhere is done on one shard, if that is possible.
fn mirrored(error: Error, statement: &Statement, resolved: &[Resolved], surroundings: &Surroundings<'_>) -> Placement {
    match Mirroring::new(statement, resolved, surroundings) {
        Some(mirroring) => Placement::Mirror(Box::new(mirroring)),
        None => Placement::Refused(error),
    }
}

fn by_key(statement: &Arc<Statement>, resolved: &[Resolved], surroundings: &Surroundings<'_>) -> Placement {
    let Surroundings { database, catalog, .. } = surroundings;
    if let Some(error) =
        resolved.iter().filter(|known| known.written).find_map(|known| Through::refused(statement, known))
    {
        return Placement::Refused(error);
    }
    if resolved.iter().any(|relation| matches!(relation.class, Class::View)) {
        let what = "a view over sharded tables";
        return Placement::Refused(Error::unsupported(what, "Query its tables, or name the shard in a routing hint."));
    }
    let user_function = access::reading_function(statement, resolved, catalog);
    let keyed = Keyed::new(statement, resolved);
    if keyed.relations.is_empty() {
        return match user_function {
            Some(name) if !resolved.is_empty() || !matches!(statement.kind, Kind::Query) => {
                let what = format!("function {name} where no shard is fixed");
                Placement::Refused(Error::unsupported(what, HINT_SHARD))
            }
            Some(name) => {
                let what = format!("function {name}, which may read any table,");
                Placement::Refused(Error::unsupported(what, HINT_SHARD))
            }
            None => Placement::Fixed(database.home),
        };
    }
    let needs_home =
        resolved.iter().any(|relation| matches!(relation.class, Class::Home | Class::Unknown | Class::Catalog));
    let several = several(statement, resolved, surroundings, &keyed);
    let gathering = match (&statement.kind, user_function) {
        (Kind::Copy(copy), _) if copy.from || !copy.is_client => None,
        // What MERGE inserts may belong elsewhere.
        (Kind::Merge, _) if !statement.inserted.is_empty() || local::writes_at_home(resolved) => None,
        (
            Kind::Query
            | Kind::Copy(_)
            | Kind::DeclareCursor { .. }
            | Kind::Update(_)
            | Kind::Delete { .. }
            | Kind::Merge,
            None,
        ) => Gathering::new(statement, resolved, surroundings, &keyed).ok().map(Box::new),
        _ => None,
    };
    let several = match (several, user_function) {
        (Ok(_), Some(name)) => {
            let what = format!("function {name} in a statement on several shards");
            Several::Refused(Error::unsupported(what, keyed.add_condition()))
        }
        (Ok(several), None) => several,
        (Err(error), _) => Several::Refused(error),
    };
    Placement::Keyed(Box::new(ByKey { keyed, needs_home, several, gathering }))
}

pub(super) fn several(
    statement: &Arc<Statement>,
    resolved: &[Resolved],
    surroundings: &Surroundings<'_>,
    keyed: &Keyed,
) -> Result<Several, Error> {
    let refuse = |what: &str| Err(Error::unsupported(what, keyed.add_condition()));
    match &statement.kind {
        Kind::Query
        | Kind::DeclareCursor { hold: false, binary: false, scroll: None | Some(false), .. }
        | Kind::Copy(Copy { is_client: true, .. }) => {
            Scattering::new(statement, resolved, surroundings, keyed).map(|plan| Several::Scatter(Box::new(plan)))
        }
        Kind::Merge if !keyed.inserts_where_it_reads(statement, resolved) => refuse("MERGE on several shards"),
        Kind::Update(_) | Kind::Delete { .. } | Kind::Merge => {
            let root = keyed.relations.iter().position(|relation| relation.written);
            match root.filter(|&root| keyed.all_tied_to(root)) {
                Some(_) if statement.blocks.iter().any(|block| block.limited || block.windows || block.distinct_on) => {
                    refuse("a write with LIMIT, DISTINCT ON or windows in a subquery")
                }
                Some(_) if statement.calls.iter().any(|call| !access::is_harmless(call, surroundings.catalog)) => {
                    refuse("a write with a function that writes, too, such as nextval,")
                }
                Some(root) => Ok(Several::Spread(root)),
                None => refuse("a write with a join that does not follow the shard key"),
            }
        }
        Kind::DeclareCursor { .. } => refuse("a cursor over several shards"),
        Kind::Copy(_) => refuse("COPY of a query on several shards"),
        _ => refuse("a statement that reads and writes several shards"),
    }
}

/// Changing a row's key may mean moving it.
fn check_assigned_keys(statement: &Statement, resolved: &[Resolved]) -> Result<(), Error> {
    for target in resolved {
        let changes = |assigned: &&Assigned| moving::changes_key(assigned, target);
        if let Some(assigned) = statement.assigned.iter().find(changes) {
            let what = format!("changing the shard key \"{}\" of \"{}\"", assigned.column, target.name);
            return Err(Error::unsupported(what, "Delete the row and insert it with its new key."));
        }
    }
    Ok(())
}

const HINT_SHARD: &str = "Name the shard in a routing hint: /* pgweir: shard=N */.";
