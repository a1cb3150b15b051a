//! Materialized views over sharded tables. What one shows is in a table beside it, on the home shard, and it is a view of
//! that; its query is that of a plain view beside it. REFRESH fills the table by that query, then does what it does.

use super::Outcome;
use super::relations::{self, Class, Resolved};
use super::script::{Piece, Places, Scripting, Written, head_of, nothing_to_make};
use super::surroundings::Surroundings;
use crate::catalog::{Relation, RelationKind};
use crate::statement::{Ddl, Kind, ObjectName, Statement, Tokens, quoted_name};

/// CREATE, where its query reads sharded tables; DROP; REFRESH.
pub(super) fn of(statement: &Statement, resolved: &[Resolved], surroundings: &Surroundings<'_>) -> Option<Scripting> {
    match &statement.kind {
        Kind::Ddl(ddl) if ddl.what == "CREATE MATERIALIZED VIEW" => {
            let is_elsewhere = |known: &Resolved| matches!(known.class, Class::Sharded(_) | Class::View);
            resolved.iter().any(is_elsewhere).then(|| created(statement, ddl, surroundings))?
        }
        Kind::Ddl(ddl) if ddl.what == "DROP MATERIALIZED VIEW" => dropped(statement, ddl, surroundings),
        Kind::Refresh { view, empty: false } => refreshed(statement, view, surroundings),
        _ => None,
    }
}

/// Rows of a materialized view, on the home shard whatever its columns are.
pub(super) fn is_rows(table: &str) -> bool {
    table.starts_with(ROWS)
}

fn created(statement: &Statement, ddl: &Ddl, surroundings: &Surroundings<'_>) -> Option<Scripting> {
    let filled = ddl.filled.as_ref()?;
    if let Some(nothing) = nothing_to_make(statement, filled, ("CREATE MATERIALIZED VIEW", surroundings)) {
        return Some(nothing);
    }
    let is_apt = matches!(filled.query.kind, Kind::Query);
    let is_apt = is_apt && filled.table.name.len() + QUERY.len() <= NAME_BYTES;
    let beside = Beside::of(&filled.table);
    let query = filled.query.tokens;
    let columns: Vec<String> = filled.columns.iter().map(|name| quoted_name(name)).collect();
    let columns = if columns.is_empty() { String::new() } else { format!(" ({})", columns.join(", ")) };
    let mut acts = Vec::new();
    let schema = filled.table.schema.as_deref();
    let left = |name: &str| surroundings.catalog.relation(schema, name, surroundings.search_path).is_some();
    if left(&beside.rows_name) || left(&beside.query_name) {
        acts.push(everywhere(format!("DROP TABLE IF EXISTS {}", beside.rows)));
        acts.push(everywhere(format!("DROP VIEW IF EXISTS {}", beside.query)));
    }
    let head = Piece::Text(format!("CREATE VIEW {}{columns} AS ", beside.query));
    acts.push(Written { pieces: vec![head, Piece::Words(query)], outcome: Outcome::Everywhere });
    acts.push(everywhere(format!("CREATE TABLE {} AS SELECT * FROM {} WITH NO DATA", beside.rows, beside.query)));
    if !filled.empty {
        acts.push(Written { pieces: vec![Piece::Words(query)], outcome: Outcome::Keep });
        acts.push(Written { pieces: Vec::new(), outcome: Outcome::Place });
    }
    let mut pieces = head_of(statement, filled);
    pieces.push(Piece::Text(format!("SELECT * FROM {} ", beside.rows)));
    pieces.push(Piece::Words(Tokens { start: query.end, end: statement.tokens.end }));
    acts.push(Written { pieces, outcome: Outcome::Everywhere });
    let tag = if filled.empty { "CREATE MATERIALIZED VIEW" } else { "SELECT" };
    is_apt.then(|| Scripting::always(acts, (tag, !filled.empty), Some(places(&beside, surroundings))))
}

fn dropped(statement: &Statement, ddl: &Ddl, surroundings: &Surroundings<'_>) -> Option<Scripting> {
    let beside: Vec<Beside> = ddl.tables.iter().filter_map(|view| found(view, surroundings)).collect();
    let mut acts = vec![Written { pieces: vec![Piece::Words(statement.tokens)], outcome: Outcome::Everywhere }];
    for Beside { rows, query, .. } in &beside {
        acts.push(everywhere(format!("DROP TABLE {rows}")));
        acts.push(everywhere(format!("DROP VIEW {query}")));
    }
    (!beside.is_empty()).then(|| Scripting::always(acts, ("DROP MATERIALIZED VIEW", false), None))
}

fn refreshed(statement: &Statement, view: &ObjectName, surroundings: &Surroundings<'_>) -> Option<Scripting> {
    let beside = found(view, surroundings)?;
    let keep = Written { pieces: vec![Piece::Text(format!("SELECT * FROM {}", beside.query))], outcome: Outcome::Keep };
    let acts = vec![
        keep,
        Written { pieces: vec![Piece::Text(format!("DELETE FROM {}", beside.rows))], outcome: Outcome::Home },
        Written { pieces: Vec::new(), outcome: Outcome::Place },
        Written { pieces: vec![Piece::Words(statement.tokens)], outcome: Outcome::Home },
    ];
    Some(Scripting::always(acts, ("REFRESH MATERIALIZED VIEW", false), Some(places(&beside, surroundings))))
}

fn everywhere(text: String) -> Written {
    Written { pieces: vec![Piece::Text(text)], outcome: Outcome::Everywhere }
}

fn places(beside: &Beside, surroundings: &Surroundings<'_>) -> Places {
    Places::at_home(&beside.rows, surroundings.database.home)
}

/// What belongs to a materialized view that is there.
fn found(view: &ObjectName, surroundings: &Surroundings<'_>) -> Option<Beside> {
    let known = relations::classify(view, surroundings).1?;
    let is_materialized = |known: &Relation| known.kind == RelationKind::MaterializedView;
    let (schema, rows) = known.reads.iter().find(|(_, name)| is_rows(name)).filter(|_| is_materialized(&known))?;
    let name = rows.strip_prefix(ROWS)?.to_owned();
    Some(Beside::of(&ObjectName { schema: Some(schema.clone()), name }))
}

/// The names of the two, as they are written.
struct Beside {
    rows: String,
    query: String,
    rows_name: String,
    query_name: String,
}

impl Beside {
    fn of(ObjectName { schema, name }: &ObjectName) -> Self {
        let (rows_name, query_name) = (format!("{ROWS}{name}"), format!("{QUERY}{name}"));
        let written = |name: &str| ObjectName { schema: schema.clone(), name: name.to_owned() }.quoted();
        Self { rows: written(&rows_name), query: written(&query_name), rows_name, query_name }
    }
}

const ROWS: &str = "pgweir rows of ";
const QUERY: &str = "pgweir query of ";
const NAME_BYTES: usize = 63;
