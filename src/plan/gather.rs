//! Reads that only PostgreSQL itself can compute over all rows: it does, on one shard, over rows fetched from the others.
//!
//! The statement stays as it is, but for each sharded table, which becomes `unnest($n::text[]::"schema"."table"[])`: its
//! rows as text, in a parameter. So names, types, whole rows and the order of columns are those of the table, nothing is
//! written anywhere, and a replica may serve it.

use std::sync::Arc;

use super::keys::{self, Keyed};
use super::local::writes_at_home;
use super::narrowing::{self, Guess, Link};
use super::relations::{Class, FIRST_OWN_TYPE, Resolved, Sharded};
use super::rewrite::{self, Splice};
use super::scatter::bound;
use super::surroundings::Surroundings;
use super::types::MARK;
use super::{Access, Fetch, Gather, Narrowed, Part, Plan, Route, Spread, Tag, access};
use crate::catalog::{Column, Relation};
use crate::error::Error;
use crate::statement::{
    Bound, ColumnRef, Condition, Kind, OrderKey, OrderTarget, Output, Statement, Tokens, Values, quoted_name,
};
use crate::topology::{ShardId, ShardSet};

/// A statement whose sharded tables can be supplied with rows from everywhere.
#[derive(Debug)]
pub(super) struct Gathering {
    home: ShardId,
    /// Rows of tables that live there only take part.
    needs_home: bool,
    /// The statement takes no parameters: the rows stand in its text.
    written_out: bool,
    cursor: Option<String>,
    holds: bool,
    /// One for each of the keyed relations, in their order; none for the one that is written.
    tables: Vec<Option<Table>>,
    /// What of the tables' rows is of no use.
    links: Vec<Link>,
    /// Of each keyed relation: it has rows of a few keys only.
    pinned: Vec<bool>,
    /// Of a query over one table: how its first rows are chosen, which is all that is needed of each shard.
    first: Option<First>,
    /// Where each shard runs the statement: tables that live on the home shard only.
    at_home: Vec<Table>,
}

/// ORDER BY and LIMIT, which each shard can apply to its own rows.
#[derive(Debug)]
struct First {
    keys: Vec<(Tokens, String)>,
    limit: Bound,
    offset: Option<Bound>,
}

#[derive(Debug)]
struct Table {
    name: String,
    place: Tokens,
    /// ` AS "name"`, where the statement gives it none.
    alias: String,
    /// With its schema.
    qualified: String,
    schema: String,
    /// Its name in the schema.
    bare: String,
    /// What is fetched: its rows as text, and `table AS alias`.
    row: String,
    source: String,
    /// As its columns are named there.
    named: String,
    sharded: Option<Arc<Sharded>>,
    /// A query of its columns that are of use.
    columns: Arc<str>,
    conditions: Vec<Tokens>,
    /// Columns that GROUP BY of its primary key covers, which for rows of a parameter must be written down: behind this
    /// token.
    covered: Option<(u32, String)>,
}

impl Gathering {
    pub(super) fn new(
        statement: &Statement,
        resolved: &[Resolved],
        surroundings: &Surroundings<'_>,
        keyed: &Keyed,
    ) -> Result<Self, Error> {
        let refuse = |what: &str| Err(Error::unsupported(what, keyed.add_condition()));
        let writes = resolved.iter().any(|relation| relation.written);
        let inserts = matches!(statement.kind, Kind::Insert(_));
        // It runs on the home shard alone.
        let mirrors = resolved.iter().any(|relation| relation.written && matches!(relation.class, Class::Reference))
            || writes_at_home(resolved);
        if !inserts && !mirrors && resolved.iter().any(|relation| relation.written && relation.sharded().is_none()) {
            return refuse("a write of a table of one shard, over rows of several,");
        }
        if statement.locks_rows {
            return refuse("FOR UPDATE or FOR SHARE on several shards");
        }
        if let Some(call) = statement.calls.iter().find(|call| !access::is_harmless(call, surroundings.catalog)) {
            return refuse(&format!("function {}, which may write, on several shards", call.name.name));
        }
        if resolved.iter().any(|relation| relation.volatile_view) {
            return refuse("a view with functions that may write, on several shards");
        }
        if statement.uses.untraced || statement.uses.samples {
            return refuse("a query of this form over several shards");
        }
        let mut names = statement.uses.names.iter().flatten().chain(&statement.uses.fields);
        if names.any(|name| SYSTEM.contains(&name.as_str())) {
            return refuse("a system column over several shards");
        }
        let table = |known: &Resolved| {
            Table::new(statement, resolved, surroundings, known).ok_or_else(|| {
                let what = format!("a statement over several shards that uses \"{}\" in this way", known.name);
                Error::unsupported(what, keyed.add_condition())
            })
        };
        let sharded = resolved.iter().filter(|known| known.sharded().is_some());
        let tables = sharded.map(|known| if known.written { Ok(None) } else { table(known).map(Some) });
        let tables: Vec<Option<Table>> = tables.collect::<Result<_, _>>()?;
        let elsewhere = resolved.iter().filter(|known| !matches!(known.class, Class::Sharded(_) | Class::Reference));
        let at_home = match writes && !inserts && !mirrors {
            true => elsewhere.clone().map(table).collect::<Result<_, _>>()?,
            false => Vec::new(),
        };
        let first = tables.first().and_then(Option::as_ref).and_then(|table| first(statement, surroundings, table));
        Ok(Self {
            first,
            home: surroundings.database.home,
            needs_home: elsewhere.count() > 0,
            cursor: match &statement.kind {
                Kind::DeclareCursor { name, .. } => Some(name.clone()),
                _ => None,
            },
            holds: matches!(statement.kind, Kind::DeclareCursor { hold: true, .. }),
            written_out: matches!(statement.kind, Kind::Copy(_) | Kind::DeclareCursor { .. }),
            links: narrowing::links(keyed, statement, resolved),
            pinned: (0..keyed.relations.len()).map(|relation| keyed.is_pinned(relation)).collect(),
            tables,
            at_home,
        })
    }

    /// The same, of a statement that takes no parameters.
    pub(super) fn written_out(self) -> Self {
        Self { written_out: true, ..self }
    }

    /// `sets`: where the rows of each keyed relation are that matter.
    pub(super) fn plan(&self, keyed: &Keyed, sets: &[ShardSet], values: &Values<'_>, access: Access) -> Plan {
        match keyed.relations.iter().position(|relation| relation.written) {
            Some(written) => self.write(sets, written, values),
            None => self.read(sets, values, access),
        }
    }

    fn read(&self, sets: &[ShardSet], values: &Values<'_>, access: Access) -> Plan {
        // Where one table's rows are, nothing of it need be fetched.
        let only = sets.iter().find_map(ShardSet::only).filter(|_| !self.needs_home);
        let at = only.unwrap_or(self.home);
        let is_there = |set: &ShardSet| set.is_empty() || (only.is_some() && set.only() == only);
        let (text, fetches) = self.fetch(sets, values, &is_there, Splice::new(values.text));
        let (written_out, cursor) = (self.written_out, self.cursor.clone());
        let gather = Box::new(Gather { at, text: Arc::from(text), fetches, written_out, cursor, holds: self.holds });
        Plan { route: Route::Gather(gather), access }
    }

    /// The query within an INSERT, of which `others` are all other tokens.
    pub(super) fn source(&self, sets: &[ShardSet], values: &Values<'_>, others: [Tokens; 2]) -> Gather {
        let mut splice = Splice::new(values.text);
        others.into_iter().for_each(|tokens| splice.replace(tokens, ""));
        let is_there = ShardSet::is_empty;
        let (text, fetches) = self.fetch(sets, values, &is_there, splice);
        Gather { at: self.home, text: Arc::from(text), fetches, written_out: false, cursor: None, holds: false }
    }

    /// The statement as `splice` has it, and what it needs on each shard that runs it.
    pub(super) fn over(&self, sets: &[ShardSet], values: &Values<'_>, splice: Splice<'_>) -> (String, Vec<Fetch>) {
        self.fetch(sets, values, &ShardSet::is_empty, splice)
    }

    /// Something of these tokens is replaced.
    pub(super) fn changes(&self, tokens: Tokens) -> bool {
        let within = |table: &Table| tokens.start <= table.place.start && table.place.end <= tokens.end;
        self.tables.iter().flatten().chain(&self.at_home).any(within)
    }

    /// Of a write: every shard that has rows of the written table, or that something is fetched from, runs it.
    fn write(&self, sets: &[ShardSet], written: usize, values: &Values<'_>) -> Plan {
        let (text, fetches) = self.over(sets, values, Splice::new(values.text));
        let text: Arc<str> = Arc::from(text);
        let mut shards = sets[written].clone();
        fetches.iter().flat_map(|fetch| &fetch.parts).for_each(|part| shards.insert(part.shard));
        let part = |shard| Part { shard, text: Some(Arc::clone(&text)), parameters: None };
        let parts = shards.iter().map(part).collect();
        let spread = Spread { parts, tag: Tag::Sum, row_order: Vec::new(), one_by_one: None, fetches };
        Plan { route: Route::Spread(Box::new(spread)), access: Access::Write }
    }

    /// The statement over fetched rows, and what is fetched. `is_there`: nothing need be where a table's rows are so.
    fn fetch(
        &self,
        sets: &[ShardSet],
        values: &Values<'_>,
        is_there: &dyn Fn(&ShardSet) -> bool,
        mut splice: Splice<'_>,
    ) -> (String, Vec<Fetch>) {
        let given = values.parameters.map_or(0, |parameters| parameters.len());
        for table in self.tables.iter().flatten().chain(&self.at_home).filter(|table| !table.alias.is_empty()) {
            splice.drop_schema(&table.schema, &table.bare);
        }
        let order = Order::new(self, sets, is_there);
        let mut fetches = Vec::with_capacity(order.steps.len());
        for step in &order.steps {
            let table = step.table;
            let mut select = order.select(step);
            for (index, condition) in table.conditions.iter().enumerate() {
                select.push_str(&format!(" {} ({})", and(index), splice.short_words(*condition)));
            }
            if let Some(first) = self.first.as_ref().and_then(|first| first.words(&splice, values)) {
                select.push_str(&first);
            }
            let parts = step.set.iter().map(|shard| rewrite::part(shard, select.clone())).collect();
            let (keys, narrowed) = (step.keys.len(), order.narrowed(step));
            let (table, columns) = (table.name.clone(), Arc::clone(&table.columns));
            fetches.push(Fetch { table, columns, parts, keys, narrowed });
        }
        for (index, step) in order.steps.iter().enumerate() {
            let rows = match self.written_out {
                true => format!("{MARK}{index}{MARK}"),
                false => format!("${}", given + index + 1),
            };
            let Table { place, qualified, alias, covered, .. } = step.table;
            splice.replace(*place, format!("unnest({rows}::text[]::{qualified}[]){alias}"));
            if let Some((token, columns)) = covered {
                splice.insert_after(Tokens { start: *token, end: token + 1 }, columns.clone());
            }
        }
        (splice.finish(), fetches)
    }
}

/// What is fetched for one execution.
struct Order<'g> {
    steps: Vec<Step<'g>>,
}

struct Step<'g> {
    table: &'g Table,
    set: ShardSet,
    /// Columns by which others are narrowed.
    keys: Vec<&'g str>,
    /// By which step's, and by what.
    narrowed: Option<(usize, &'g Link)>,
}

impl<'g> Order<'g> {
    fn new(gathering: &'g Gathering, sets: &[ShardSet], is_there: &dyn Fn(&ShardSet) -> bool) -> Self {
        let step = |table, set: &ShardSet| Step { table, set: set.clone(), keys: Vec::new(), narrowed: None };
        let tables = gathering.tables.iter().zip(sets).enumerate();
        let tables = tables.filter_map(|(relation, (table, set))| Some((relation, table.as_ref()?, set)));
        let fetched = |set: &ShardSet| !is_there(set);
        // How many rows it has, as far as can be guessed.
        let guess = |relation: usize| match &gathering.tables[relation] {
            Some(_) if sets[relation].is_empty() => Guess::None,
            Some(_) if gathering.pinned[relation] => Guess::Few,
            Some(table) if fetched(&sets[relation]) && !table.conditions.is_empty() => Guess::Some,
            _ => Guess::Many,
        };
        let is_fetched = |relation: usize| gathering.tables[relation].is_some() && fetched(&sets[relation]);
        let links = gathering.links.iter().filter(|link| is_fetched(link.to.relation)).collect::<Vec<_>>();
        let chosen = narrowing::choose(&links, (0..sets.len()).map(guess).collect());
        let gives = |relation: usize| chosen.iter().flatten().any(|link| link.from.relation == relation);
        let (mut steps, mut places) = (Vec::new(), vec![0; sets.len()]);
        for (relation, table, set) in tables {
            // The rows that narrow others are those that the statement is computed over.
            if fetched(set) || gives(relation) {
                places[relation] = steps.len();
                steps.push(step(table, set));
            }
        }
        let home = ShardSet::one(gathering.home);
        steps.extend(gathering.at_home.iter().map(|table| step(table, &home)));
        for link in chosen.into_iter().flatten() {
            let by = places[link.from.relation];
            if !steps[by].keys.contains(&link.from.column.as_str()) {
                steps[by].keys.push(&link.from.column);
            }
            steps[places[link.to.relation]].narrowed = Some((by, link));
        }
        Self { steps }
    }

    /// `SELECT … FROM …`
    fn select(&self, step: &Step<'_>) -> String {
        let key = |column: &&str| format!("{}.{}::text", step.table.named, quoted_name(column));
        let columns: Vec<String> = std::iter::once(step.table.row.clone()).chain(step.keys.iter().map(key)).collect();
        format!("SELECT {} FROM {}", columns.join(", "), step.table.source)
    }

    fn narrowed(&self, step: &Step<'_>) -> Option<Narrowed> {
        let (by, link) = step.narrowed?;
        let key = self.steps[by].keys.iter().position(|key| *key == link.from.column)?;
        let column = quoted_name(&link.to.column);
        let Table { named, conditions, sharded, .. } = step.table;
        let condition = format!(" {} ({named}.{column} = ANY ({MARK}::{}))", and(conditions.len()), link.array);
        let sharded = sharded.clone().filter(|sharded| sharded.column == link.to.column);
        Some(Narrowed { by: (by, key), condition: condition.into(), sharded })
    }
}

/// In front of a condition behind so many others.
fn and(others: usize) -> &'static str {
    if others == 0 { "WHERE" } else { "AND" }
}

impl Table {
    /// `None`: its rows cannot be put in its place.
    fn new(
        statement: &Statement,
        resolved: &[Resolved],
        surroundings: &Surroundings<'_>,
        known: &Resolved,
    ) -> Option<Self> {
        let relation = &statement.blocks[known.block].relations[known.relation];
        let table = known.catalog.as_ref()?;
        let qualified = format!("{}.{}", quoted_name(&table.schema), quoted_name(&table.name));
        let alias = quoted_name(&relation.alias);
        let needed = |column: &&Column| {
            statement.uses.names.as_ref().is_none_or(|names| names.binary_search(&column.name).is_ok())
        };
        // A type of the database's own may be a domain that allows no NULL.
        let is_own_type = |column: &Column| column.type_oid >= FIRST_OWN_TYPE;
        let values = table.columns.iter().map(|column| match needed(&column) || is_own_type(column) {
            true => format!("{alias}.{}", quoted_name(&column.name)),
            false => "NULL".to_owned(),
        });
        let row = values.collect::<Vec<_>>().join(", ");
        let used = table.columns.iter().filter(needed).map(|column| format!("{alias}.{}", quoted_name(&column.name)));
        let source = format!("{qualified} AS {alias}");
        let columns = format!("SELECT {} FROM {source}", used.collect::<Vec<_>>().join(", "));
        let conditions = statement.blocks[known.block].conditions.iter();
        let is_own = |condition: &&Condition| {
            let pure = condition.calls.iter().all(|name| access::is_immutable_name(name, surroundings.catalog));
            let own = |column| is_of(statement, resolved, column, known);
            !known.nullable && pure && !condition.columns.is_empty() && condition.columns.iter().all(own)
        };
        Some(Self {
            name: known.name.clone(),
            place: relation.place?,
            alias: if relation.aliased { String::new() } else { format!(" AS {alias}") },
            row: format!("ROW({row})::{qualified}::text"),
            source,
            sharded: known.sharded().cloned(),
            columns: Arc::from(columns),
            conditions: conditions.filter(is_own).map(|condition| condition.tokens).collect(),
            covered: covered(statement, resolved, known, table, &|column| needed(&column)),
            named: alias,
            qualified,
            schema: table.schema.clone(),
            bare: table.name.clone(),
        })
        .filter(|_| !table.columns.is_empty())
    }
}

/// Whether the first rows of each shard are enough, and which those are.
fn first(statement: &Statement, surroundings: &Surroundings<'_>, table: &Table) -> Option<First> {
    let shape = &statement.shape;
    let [block] = statement.blocks.as_slice() else { return None };
    let makes_other_rows = block.aggregates || block.windows || block.distinct || shape.with_ties;
    let is_all = block.relations.len() == 1 && table.conditions.len() == block.terms && !makes_other_rows;
    let is_stable = statement.calls.iter().all(|call| access::is_immutable(call, surroundings.catalog));
    let Some(Bound::Value(_)) = shape.limit else { return None };
    if !is_all || !is_stable || shape.columns.is_empty() || shape.unusual.is_some() || shape.set_operation {
        return None;
    }
    let has_wildcard = shape.columns.iter().any(|column| column.expression == Output::Wildcard);
    let key = |key: &OrderKey| {
        let tokens = match &key.target {
            OrderTarget::Hidden { tokens, .. } => *tokens,
            OrderTarget::Output(index) => shape.columns.get(*index).filter(|_| !has_wildcard)?.tokens,
        };
        let direction = if key.descending { " DESC" } else { "" };
        let nulls = if key.nulls_first { " NULLS FIRST" } else { " NULLS LAST" };
        key.collate_bytes.is_none().then(|| (tokens, format!("{direction}{nulls}")))
    };
    let keys = shape.order_by.iter().map(key).collect::<Option<Vec<_>>>()?;
    // An ORDER BY that was not understood is none here.
    let is_known = keys.is_empty() == shape.order_tokens.is_none();
    is_known.then(|| First { keys, limit: shape.limit.clone().expect("it is there"), offset: shape.offset.clone() })
}

impl First {
    fn words(&self, splice: &Splice<'_>, values: &Values<'_>) -> Option<String> {
        let number = |wanted: Option<&Bound>| bound(wanted, values).ok();
        let most = number(Some(&self.limit))??.checked_add(number(self.offset.as_ref())?.unwrap_or(0))?;
        let keys: Vec<String> = self
            .keys
            .iter()
            .map(|(tokens, direction)| format!("({}){direction}", splice.short_words(*tokens)))
            .collect();
        let order = if keys.is_empty() { String::new() } else { format!(" ORDER BY {}", keys.join(", ")) };
        Some(format!("{order} LIMIT {most}"))
    }
}

/// A column that is certainly this relation's.
fn is_of(statement: &Statement, resolved: &[Resolved], column: &ColumnRef, known: &Resolved) -> bool {
    let has_it = known.catalog.as_ref().is_some_and(|table| table.column(&column.column).is_some());
    let owner = match column.relation {
        Some(of) => Some((of.block, of.relation)),
        None => keys::owner(statement, resolved, column),
    };
    has_it && owner == Some((known.block, known.relation))
}

/// Which columns a GROUP BY that has the whole primary key covers (PostgreSQL documentation, 7.2.3), and its last token.
fn covered(
    statement: &Statement,
    resolved: &[Resolved],
    known: &Resolved,
    table: &Relation,
    needed: &dyn Fn(&Column) -> bool,
) -> Option<(u32, String)> {
    let grouped = statement.blocks[known.block].grouped.iter();
    let own: Vec<_> = grouped.filter(|(column, _)| is_of(statement, resolved, column, known)).collect();
    let has = |name: &String| own.iter().any(|(column, _)| column.column == *name);
    if table.primary_key.is_empty() || !table.primary_key.iter().all(has) {
        return None;
    }
    let alias = quoted_name(&statement.blocks[known.block].relations[known.relation].alias);
    let more = table.columns.iter().filter(|column| needed(column) && !has(&column.name));
    let more = more.filter(|column| !UNGROUPABLE.contains(&column.type_oid));
    let columns: String = more.map(|column| format!(", {alias}.{}", quoted_name(&column.name))).collect();
    let last = own.iter().map(|(_, token)| *token).max()?;
    (!columns.is_empty()).then_some((last, columns))
}

/// Rows of a parameter have none of these (PostgreSQL documentation, 5.5).
const SYSTEM: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];
/// json, xml, point, line, lseg, path, polygon: types without equality.
const UNGROUPABLE: [u32; 7] = [114, 142, 600, 628, 601, 602, 604];
