//! Writes through a view that shows columns of one sharded table: they are writes of the table (PostgreSQL documentation,
//! CREATE VIEW, "Updatable Views").

use super::relations::Resolved;
use super::rewrite::Splice;
use crate::catalog::RelationKind;
use crate::error::{Error, SqlState};
use crate::statement::{
    Distinct, InsertSource, Kind, Output, Statement, Tokens, analyze, bytes_of, quoted_name, token_ranges,
};

/// What becomes of such a statement.
#[derive(Debug)]
pub(super) struct Through {
    statement: Tokens,
    /// The view's name, where it is written.
    name: Tokens,
    /// The table, by the name that the view had.
    table: String,
    alias: String,
    /// What rows of the view are.
    filter: Option<String>,
    columns: Vec<String>,
    /// How many columns an INSERT gives that lists none.
    given: Option<usize>,
}

impl Through {
    /// `None`: it is not so simple.
    pub(super) fn new(statement: &Statement, known: &Resolved) -> Option<Self> {
        let view = known.catalog.as_ref().filter(|view| view.kind == RelationKind::View && !view.has_triggers)?;
        let definition = view.definition.as_ref()?;
        let analysis = analyze(definition);
        let [query] = analysis.statements.as_slice() else { return None };
        let [block] = query.blocks.as_slice() else { return None };
        let [base] = block.relations.as_slice() else { return None };
        let shape = &query.shape;
        let is_plain = matches!(query.kind, Kind::Query)
            && !(block.aggregates || block.windows || block.limited || query.locks_rows || shape.grouping_sets)
            && shape.distinct == Distinct::No
            && shape.group_by.is_empty()
            && shape.having.is_none()
            && shape.order_tokens.is_none()
            && shape.unusual.is_none()
            && !shape.set_operation
            && !shape.has_cte
            && query.calls.is_empty();
        let shows = |(output, column): (&crate::statement::OutputColumn, &crate::catalog::Column)| matches!(&output.expression, Output::Column(own) if own.column == column.name);
        let same = shape.columns.len() == view.columns.len() && shape.columns.iter().zip(&view.columns).all(shows);
        (is_plain && same && !shape.columns.is_empty()).then_some(())?;
        let table = base.table.as_ref()?;
        let schema = table.schema.as_ref().map(|schema| format!("{}.", quoted_name(schema)))?;
        let relation = &statement.blocks[known.block].relations[known.relation];
        let alias = quoted_name(&relation.alias);
        let (inserts, given) = match &statement.kind {
            Kind::Insert(insert) if insert.columns.is_empty() => match &insert.source {
                InsertSource::Values(rows) => (true, Some(rows.first()?.values.len())),
                InsertSource::DefaultValues => (true, None),
                InsertSource::Query(_) => return None,
            },
            Kind::Insert(_) => (true, None),
            Kind::Update(_) | Kind::Delete { .. } => (false, None),
            _ => return None,
        };
        Some(Self {
            statement: statement.tokens,
            name: relation.place?,
            table: match relation.aliased {
                true => format!("{schema}{}", quoted_name(&table.name)),
                false => format!("{schema}{} AS {alias}", quoted_name(&table.name)),
            },
            filter: if inserts { None } else { filter(definition, &base.alias, &alias) },
            columns: view.columns.iter().map(|column| quoted_name(&column.name)).collect(),
            alias,
            given,
        })
    }

    /// What PostgreSQL says of a view whose rows are not those of a table.
    pub(super) fn refused(statement: &Statement, known: &Resolved) -> Option<Error> {
        let view = known.catalog.as_ref().filter(|view| view.kind == RelationKind::View && !view.has_triggers)?;
        let analysis = analyze(view.definition.as_ref()?);
        let [query] = analysis.statements.as_slice() else { return None };
        let block = query.blocks.first()?;
        let makes_rows = block.aggregates || block.windows || block.limited || block.distinct || block.distinct_on;
        let is_made = makes_rows || block.relations.len() != 1 || query.shape.set_operation || query.shape.has_cte;
        let what = match &statement.kind {
            Kind::Insert(_) => "insert into",
            Kind::Update(_) => "update",
            Kind::Delete { .. } => "delete from",
            _ => return None,
        };
        let message = format!("cannot {what} view \"{}\"", view.name);
        is_made.then(|| Error::new(SqlState::NOT_IN_STATE, message))
    }

    pub(super) fn write(&self, splice: &mut Splice<'_>) {
        let mut words = self.table.clone();
        if let Some(given) = self.given {
            let listed = &self.columns[..given.min(self.columns.len())];
            words.push_str(&format!(" ({})", listed.join(", ")));
        }
        splice.replace(self.name, words);
        let returning = splice.outer_word(self.statement, "returning");
        let end = returning.unwrap_or(self.statement.end);
        if let Some(filter) = &self.filter {
            let before = Tokens { start: self.statement.start, end };
            match splice.outer_word(before, "where") {
                Some(place) => {
                    splice.insert_before(place + 1, "(");
                    splice.insert_after(before, format!(") AND ({filter})"));
                }
                None => splice.insert_after(before, format!(" WHERE {filter}")),
            }
        }
        let Some(returning) = returning else { return };
        let all = self.columns.iter().map(|column| format!("{}.{column}", self.alias)).collect::<Vec<_>>().join(", ");
        for place in returning + 1..self.statement.end {
            let word = |token: u32| splice.words(Tokens { start: token, end: token + 1 });
            if word(place) != "*" {
                continue;
            }
            match word(place - 1) {
                "," => splice.replace(Tokens { start: place, end: place + 1 }, all.clone()),
                before if before.eq_ignore_ascii_case("returning") => {
                    splice.replace(Tokens { start: place, end: place + 1 }, all.clone());
                }
                "." => splice.replace(Tokens { start: place - 2, end: place + 1 }, all.clone()),
                _ => {}
            }
        }
    }
}

/// The condition of a view's query, by the name that its table has in the statement.
fn filter(definition: &str, named: &str, alias: &str) -> Option<String> {
    let splice = Splice::new(definition);
    let ranges = token_ranges(definition);
    let count = u32::try_from(ranges.len()).ok()?;
    let end = if definition.trim_end().ends_with(';') { count - 1 } else { count };
    let whole = Tokens { start: 0, end };
    let condition = Tokens { start: splice.outer_word(whole, "where")? + 1, end };
    let mut words = Splice::new(definition);
    for token in condition.start..condition.end.saturating_sub(1) {
        let is = |token: u32, name: &str| splice.words(Tokens { start: token, end: token + 1 }) == name;
        if (is(token, named) || is(token, &quoted_name(named))) && is(token + 1, ".") {
            words.replace(Tokens { start: token, end: token + 1 }, alias);
        }
    }
    let place = bytes_of(&ranges, condition);
    let (before, behind) = (place.start, definition.len() - place.end);
    let made = words.finish();
    Some(made[before..made.len() - behind].to_owned())
}
