//! Statements that are carried out as several, one after another in one transaction: writes and locks in WITH, MERGE that
//! inserts, subqueries that lock.
//!
//! The parts of one statement do not see what its other parts write. So each part here must read nothing that one before it
//! may have changed; what a part gives to the others is kept, and stands in them as VALUES.

use std::collections::HashSet;
use std::sync::Arc;

use super::materialized;
use super::relations::{self, Class, Resolved, Sharded};
use super::rewrite::Splice;
use super::surroundings::Surroundings;
use super::types::MARK;
use super::{Access, Act, Outcome, Plan, Route, Script, Touches, access};
use crate::error::Error;
use crate::statement::{Composed, Ddl, Filled, Kind, Statement, Tokens, Values, When, With, quoted_name};
use crate::topology::ShardId;

/// Such a statement, its values left open.
#[derive(Debug)]
pub(super) struct Scripting {
    acts: Vec<Written>,
    /// The command tag, and whether it counts rows.
    tag: Option<(&'static str, bool)>,
    places: Option<Places>,
    /// It is done so whatever else could be done.
    always: bool,
}

/// Where rows of a new table go.
#[derive(Clone, Debug, PartialEq)]
pub struct Places {
    name: String,
    /// The same as it is written.
    table: Arc<str>,
    /// By which columns tables are sharded that have them.
    keys: Vec<Arc<Sharded>>,
    /// Columns as the statement names them, the first ones of the table.
    listed: Vec<String>,
    home: ShardId,
}

impl Places {
    /// The shard of each row of a table of such columns; the rest of it is known by their names.
    pub fn shards(&self, columns: &[String], rows: &[Vec<Option<&str>>]) -> Result<Vec<ShardId>, Error> {
        let names: Vec<&String> = self.listed.iter().chain(columns.iter().skip(self.listed.len())).collect();
        let key = |sharded: &Arc<Sharded>| {
            let place = names.iter().position(|name| **name == sharded.column)?;
            Some((Arc::clone(sharded), place))
        };
        let Some((sharded, place)) = self.keys.iter().find_map(key) else { return Ok(vec![self.home; rows.len()]) };
        rows.iter().map(|row| sharded.shard_of_text(&self.name, row.get(place).copied().flatten())).collect()
    }

    pub(super) fn at_home(table: &str, home: ShardId) -> Self {
        Self { name: table.to_owned(), table: Arc::from(table), keys: Vec::new(), listed: Vec::new(), home }
    }

    /// In words.
    pub(super) fn render(&self) -> String {
        let keys: Vec<&str> = self.keys.iter().map(|sharded| sharded.column.as_str()).collect();
        match keys.is_empty() {
            true => format!("INSERT INTO {} …, on shard {}", self.table, self.home.0),
            false => format!("INSERT INTO {} …, by {}", self.table, keys.join(" or ")),
        }
    }

    /// What inserts the rows of this query.
    pub fn insert(&self, query: &str) -> String {
        format!("INSERT INTO {} {query}", self.table)
    }
}

/// An act, its words still to be taken from the text.
#[derive(Debug)]
pub(super) struct Written {
    pub pieces: Vec<Piece>,
    pub outcome: Outcome,
}

#[derive(Debug)]
pub(super) enum Piece {
    Words(Tokens),
    Text(String),
    /// What was kept under this number.
    Kept(usize),
}

impl Scripting {
    /// `None`: it is not composed of what can be carried out so. An error says why it cannot.
    pub(super) fn new(
        statement: &Statement,
        resolved: &[Resolved],
        surroundings: &Surroundings<'_>,
    ) -> Option<Result<Self, Error>> {
        if let Some(scripting) = materialized::of(statement, resolved, surroundings) {
            return Some(Ok(scripting));
        }
        if let Kind::Ddl(ddl) = &statement.kind {
            return of_create(statement, ddl, surroundings).map(Ok);
        }
        let Some(composed) = &statement.composed else {
            return of_unknown(statement, resolved, surroundings).map(Ok);
        };
        if access::reading_function(statement, resolved, surroundings.catalog).is_some() {
            return None;
        }
        match composed {
            Composed::With(with) => Some(of_with(with, surroundings)),
            Composed::Merge { table, target, source, condition, whens } => {
                of_merge(statement, resolved, (*table, *target, *source, *condition), whens)
            }
            Composed::Locking { query } => {
                let before = Tokens { start: statement.tokens.start, end: query.tokens.start };
                let behind = Tokens { start: query.tokens.end, end: statement.tokens.end };
                let answer = vec![Piece::Words(before), Piece::Kept(0), Piece::Words(behind)];
                let keep = Written { pieces: vec![Piece::Words(query.tokens)], outcome: Outcome::Keep };
                let acts = vec![keep, Written { pieces: answer, outcome: Outcome::Answer }];
                matches!(query.kind, Kind::Query).then_some(Ok(Self { acts, tag: None, places: None, always: false }))
            }
        }
    }

    pub(super) fn always(acts: Vec<Written>, tag: (&'static str, bool), places: Option<Places>) -> Self {
        Self { acts, tag: Some(tag), places, always: true }
    }

    /// It is done so whatever else could be done.
    pub(super) fn is_always(&self) -> bool {
        self.always
    }

    pub(super) fn plan(&self, values: &Values<'_>) -> Plan {
        let splice = Splice::new(values.text);
        let acts = self.acts.iter().map(|written| {
            let mut text = String::new();
            for piece in &written.pieces {
                match piece {
                    Piece::Words(tokens) if tokens.start >= tokens.end => {}
                    Piece::Words(tokens) => text.push_str(splice.words(*tokens)),
                    Piece::Text(words) => text.push_str(words),
                    Piece::Kept(number) => text.push_str(&format!("{MARK}{number}{MARK}")),
                }
            }
            Act { text: Arc::from(text), outcome: written.outcome }
        });
        let script = Script { acts: acts.collect(), tag: self.tag, places: self.places.clone() };
        Plan { route: Route::Script(Box::new(script)), access: Access::Write }
    }
}

/// A part of a WITH.
struct PartOf<'s> {
    statement: &'s Statement,
    /// Queries of the WITH that it names.
    names: Vec<usize>,
    resolved: Vec<Resolved>,
    touches: Touches,
}

impl<'s> PartOf<'s> {
    fn new(statement: &'s Statement, known: &[&str], surroundings: &Surroundings<'_>) -> Self {
        let named = |name: &str| known.iter().rposition(|known| *known == name);
        let tables = statement.blocks.iter().flat_map(|block| &block.relations);
        let tables = tables.filter_map(|relation| relation.table.as_ref().filter(|table| table.schema.is_none()));
        let mut names: Vec<usize> = tables.filter_map(|table| named(&table.name)).collect();
        names.sort_unstable();
        names.dedup();
        let is_table = |resolved: &Resolved| {
            let relation = &statement.blocks[resolved.block].relations[resolved.relation];
            let is_bare = relation.table.as_ref().is_some_and(|table| table.schema.is_none());
            !is_bare || named(&resolved.name).is_none()
        };
        let mut resolved = relations::resolve(statement, surroundings);
        resolved.retain(is_table);
        let touches = Touches::of(statement, &resolved, surroundings);
        Self { statement, names, resolved, touches }
    }

    fn writes(&self) -> bool {
        !matches!(self.statement.kind, Kind::Query)
    }

    /// Tables whose rows it looks at; those that it only inserts into are none.
    fn reads(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let only_inserts = matches!(&self.statement.kind, Kind::Insert(insert) if insert.on_conflict != Some(true));
        let read = self.resolved.iter().filter(move |known| !(known.written && only_inserts));
        read.filter_map(|known| known.catalog.as_ref().map(|table| (table.schema.clone(), table.name.clone())))
    }

    fn inserts_into(&self) -> Option<(String, String)> {
        let target = self.resolved.iter().find(|known| known.written)?.catalog.as_ref()?;
        matches!(self.statement.kind, Kind::Insert(_)).then(|| (target.schema.clone(), target.name.clone()))
    }

    /// It can be told what it reads and changes, which is all that it does.
    fn is_understood(&self) -> bool {
        let kind = &self.statement.kind;
        let is_known =
            matches!(kind, Kind::Query | Kind::Insert(_) | Kind::Update(_) | Kind::Delete { .. } | Kind::Merge);
        let is_plain = |known: &Resolved| {
            known.catalog.as_ref().is_some_and(|table| {
                !(known.written && table.has_triggers) && table.columns.iter().all(|column| !column.is_nondeterministic)
            })
        };
        is_known && self.resolved.iter().all(is_plain) && !self.touches.what.is_everything()
    }
}

fn of_with(with: &With, surroundings: &Surroundings<'_>) -> Result<Scripting, Error> {
    let refuse = |what: &str| {
        let hint = "Send its parts as statements of their own, in one transaction.";
        Err(Error::unsupported(format!("a WITH that writes or locks on several shards, {what},"), hint))
    };
    let known: Vec<&str> = with.ctes.iter().map(|cte| cte.name.as_str()).collect();
    let parts = with.ctes.iter().enumerate().map(|(index, cte)| (&*cte.statement, index));
    let parts = parts.chain([(&*with.main, known.len())]);
    let parts: Vec<PartOf<'_>> =
        parts.map(|(statement, seen)| PartOf::new(statement, &known[..seen], surroundings)).collect();
    if with.recursive {
        return refuse("with RECURSIVE");
    }
    if !parts.iter().all(PartOf::is_understood) {
        return refuse("of this form");
    }
    let Some(order) = Order::of(&parts) else { return refuse("whose parts read what other parts of it may change") };
    let is_volatile =
        |part: &PartOf<'_>| part.statement.calls.iter().any(|call| access::is_volatile(call, surroundings.catalog));
    if parts.iter().zip(&order.copies).any(|(part, copies)| *copies > 1 && is_volatile(part)) {
        return refuse("with a volatile function in a query that is used twice");
    }
    let acts = order.acts.iter().map(|&index| {
        let is_main = index == with.ctes.len();
        let mut pieces = Vec::new();
        for &other in &order.needs(&parts, index) {
            pieces.push(Piece::Text(if pieces.is_empty() { "WITH " } else { ", " }.to_owned()));
            pieces.push(Piece::Words(with.ctes[other].head));
            pieces.push(Piece::Text(" (".to_owned()));
            pieces.push(match order.kept.iter().position(|kept| *kept == other) {
                Some(number) => Piece::Kept(number),
                None => Piece::Words(with.ctes[other].statement.tokens),
            });
            pieces.push(Piece::Text(")".to_owned()));
        }
        pieces.push(Piece::Text(" ".to_owned()));
        pieces.push(Piece::Words(parts[index].statement.tokens));
        let outcome = match () {
            () if is_main => Outcome::Answer,
            () if order.kept.contains(&index) => Outcome::Keep,
            () => Outcome::Count,
        };
        Written { pieces, outcome }
    });
    Ok(Scripting { acts: acts.collect(), tag: None, places: None, always: false })
}

/// In which order parts are carried out, those that write and those that cannot stand in the others.
struct Order {
    acts: Vec<usize>,
    /// Those whose rows are kept, in the order of the acts.
    kept: Vec<usize>,
    /// In how many acts each part is computed.
    copies: Vec<usize>,
}

impl Order {
    /// `None`: some part would see what another one has changed.
    fn of(parts: &[PartOf<'_>]) -> Option<Self> {
        let main = parts.len() - 1;
        let is_act = |index: usize| index == main || parts[index].writes() || parts[index].statement.locks_rows;
        // Reads that nothing written goes into are done first where they would see too much later.
        let mut first: HashSet<usize> = HashSet::new();
        loop {
            let kept = |index: usize| first.contains(&index) || is_act(index);
            let is_free = |index: usize| !reaches(parts, index, &|other| parts[other].writes());
            let is_early =
                |index: usize| !parts[index].writes() && is_free(index) && (index != main || first.contains(&main));
            let all = || (0..=main).filter(|&index| kept(index));
            let acts: Vec<usize> =
                all().filter(|&index| is_early(index)).chain(all().filter(|&index| !is_early(index))).collect();
            match conflict(parts, &acts, &kept) {
                None => return Some(Self::complete(parts, acts)),
                Some(index) if !first.contains(&index) && !parts[index].writes() && is_free(index) => {
                    first.insert(index);
                }
                Some(_) => return None,
            }
        }
    }

    fn complete(parts: &[PartOf<'_>], acts: Vec<usize>) -> Self {
        let mut order = Self { acts, kept: Vec::new(), copies: vec![0; parts.len()] };
        let used = |index: usize| parts.iter().any(|part| part.names.contains(&index));
        order.kept = order.acts.iter().copied().filter(|&index| used(index)).collect();
        // What locks and is named by nobody is not done at all.
        let main = parts.len() - 1;
        order.acts.retain(|&index| index == main || parts[index].writes() || used(index));
        for &act in &order.acts {
            order.copies[act] += 1;
            for other in order.needs(parts, act).into_iter().filter(|other| !order.acts.contains(other)) {
                order.copies[other] += 1;
            }
        }
        order
    }

    /// Parts that stand in this one, each behind those that it needs.
    fn needs(&self, parts: &[PartOf<'_>], index: usize) -> Vec<usize> {
        let mut found: Vec<usize> = Vec::new();
        let mut open = parts[index].names.clone();
        while let Some(next) = open.pop() {
            if !found.contains(&next) {
                found.push(next);
                if !self.acts.contains(&next) {
                    open.extend(&parts[next].names);
                }
            }
        }
        found.sort_unstable();
        found
    }
}

fn reaches(parts: &[PartOf<'_>], index: usize, is: &dyn Fn(usize) -> bool) -> bool {
    parts[index].names.iter().any(|&other| is(other) || reaches(parts, other, is))
}

/// A part that would see too much, carried out so.
fn conflict(parts: &[PartOf<'_>], acts: &[usize], kept: &dyn Fn(usize) -> bool) -> Option<usize> {
    let mut changed: Vec<(usize, &(String, String))> = Vec::new();
    for &act in acts {
        let mut within = vec![act];
        let mut open = parts[act].names.clone();
        while let Some(next) = open.pop() {
            if !kept(next) && !within.contains(&next) {
                within.push(next);
                open.extend(&parts[next].names);
            }
        }
        for &part in within.iter().rev() {
            if parts[part].reads().any(|table| changed.iter().any(|(_, known)| **known == table)) {
                return Some(part);
            }
        }
        // Rows go in behind those that make room for them, if they come from there.
        let into = parts[act].inserts_into();
        let is_unordered = |(before, table): &(usize, &(String, String))| {
            Some(*table) == into.as_ref()
                && parts[*before].inserts_into().is_none()
                && !reaches(parts, act, &|other| other == *before)
        };
        if changed.iter().any(is_unordered) {
            return Some(act);
        }
        if parts[act].writes() {
            changed.extend(parts[act].touches.tables.iter().map(|table| (act, table)));
        }
    }
    None
}

/// What is to be inserted is found before anything is changed.
fn of_merge(
    statement: &Statement,
    resolved: &[Resolved],
    (table, target, source, condition): (Tokens, Tokens, Tokens, Tokens),
    whens: &[When],
) -> Option<Result<Scripting, Error>> {
    let known = resolved.iter().find(|known| known.written)?.catalog.as_ref()?;
    if known.has_triggers || whens.iter().all(|when| when.insert.is_none()) {
        return None;
    }
    let text = |words: &str| Piece::Text(words.to_owned());
    let alias = quoted_name(&statement.blocks.first()?.relations.get(1)?.alias);
    let mut acts = vec![Written {
        pieces: vec![
            Piece::Text(format!("SELECT {alias}.* FROM ")),
            Piece::Words(source),
            text(" WHERE NOT EXISTS (SELECT FROM "),
            Piece::Words(target),
            text(" WHERE "),
            Piece::Words(condition),
            text(")"),
        ],
        outcome: Outcome::Keep,
    }];
    if whens.iter().any(|when| when.matched) {
        let head = Tokens { start: statement.tokens.start, end: condition.end };
        let mut pieces = vec![Piece::Words(head)];
        for when in whens.iter().filter(|when| when.matched) {
            pieces.extend([text(" "), Piece::Words(when.tokens)]);
        }
        acts.push(Written { pieces, outcome: Outcome::Count });
    }
    let mut others: Vec<Tokens> = Vec::new();
    for when in whens.iter().filter(|when| !when.matched) {
        if let Some(insert) = &when.insert {
            let mut pieces = vec![text("INSERT INTO "), Piece::Words(table), text(" "), Piece::Words(insert.head)];
            pieces.extend([text(" SELECT "), Piece::Words(insert.values), text(" FROM ("), Piece::Kept(0)]);
            pieces.push(Piece::Text(format!(") AS {alias} WHERE true")));
            for other in &others {
                pieces.extend([text(" AND ("), Piece::Words(*other), text(") IS NOT TRUE")]);
            }
            if let Some(condition) = when.condition {
                pieces.extend([text(" AND ("), Piece::Words(condition), text(")")]);
            }
            acts.push(Written { pieces, outcome: Outcome::Count });
        }
        match when.condition {
            Some(condition) => others.push(condition),
            // Those behind it are never reached.
            None => break,
        }
    }
    Some(Ok(Scripting { acts, tag: Some(("MERGE", true)), places: None, always: false }))
}

/// UPDATE or DELETE by rows of tables that the catalog does not know: temporary ones, on the home shard.
fn of_unknown(statement: &Statement, resolved: &[Resolved], surroundings: &Surroundings<'_>) -> Option<Scripting> {
    let is_unknown = |known: &&Resolved| matches!(known.class, Class::Unknown) && known.catalog.is_none();
    let is_write = matches!(statement.kind, Kind::Update(_) | Kind::Delete { .. });
    let is_written = |known: &Resolved| known.written && known.sharded().is_none();
    let user_defined = access::reading_function(statement, resolved, surroundings.catalog).is_some();
    if !is_write || user_defined || resolved.iter().any(is_written) {
        return None;
    }
    let (mut acts, mut pieces, mut start) = (Vec::new(), Vec::new(), statement.tokens.start);
    let relation = |known: &Resolved| &statement.blocks[known.block].relations[known.relation];
    let unknown = resolved.iter().filter(is_unknown).map(|known| Some((relation(known).place?, relation(known))));
    let mut unknown = unknown.collect::<Option<Vec<_>>>()?;
    unknown.sort_by_key(|(place, _)| place.start);
    for (number, (place, relation)) in unknown.into_iter().enumerate() {
        let query = vec![Piece::Text("SELECT * FROM ".to_owned()), Piece::Words(place)];
        acts.push(Written { pieces: query, outcome: Outcome::Keep });
        let alias = if relation.aliased { String::new() } else { format!(" AS {}", quoted_name(&relation.alias)) };
        pieces.extend([Piece::Words(Tokens { start, end: place.start }), Piece::Text(" (".to_owned())]);
        pieces.extend([Piece::Kept(number), Piece::Text(format!("){alias} "))]);
        start = place.end;
    }
    pieces.push(Piece::Words(Tokens { start, end: statement.tokens.end }));
    let is_some = !acts.is_empty();
    acts.push(Written { pieces, outcome: Outcome::Answer });
    is_some.then_some(Scripting { acts, tag: None, places: None, always: false })
}

/// CREATE TABLE AS, where the new table may have a column that tables are sharded by: made empty everywhere, then filled.
fn of_create(statement: &Statement, ddl: &Ddl, surroundings: &Surroundings<'_>) -> Option<Scripting> {
    let filled = ddl.filled.as_ref()?;
    let is_query = matches!(filled.query.kind, Kind::Query) && ddl.what == "CREATE TABLE";
    if !is_query || ddl.temporary || filled.empty {
        return None;
    }
    if let Some(nothing) = nothing_to_make(statement, filled, ("CREATE TABLE AS", surroundings)) {
        return Some(nothing);
    }
    let database = surroundings.database;
    if !matches!(relations::classify(&filled.table, surroundings).0, Class::Unknown | Class::Home) {
        return None;
    }
    if access::reading_function(&filled.query, &[], surroundings.catalog).is_some() {
        return None;
    }
    let places = Places {
        name: filled.table.name.clone(),
        table: Arc::from(filled.table.quoted()),
        keys: database.sharded.iter().filter_map(relations::sharded_by).collect(),
        listed: filled.columns.clone(),
        home: database.home,
    };
    let query = filled.query.tokens;
    let mut pieces = head_of(statement, filled);
    pieces.extend([Piece::Words(query), Piece::Text(" WITH NO DATA".to_owned())]);
    let acts = vec![
        Written { pieces: vec![Piece::Words(query)], outcome: Outcome::Keep },
        Written { pieces, outcome: Outcome::Everywhere },
        Written { pieces: Vec::new(), outcome: Outcome::Place },
    ];
    Some(Scripting { acts, tag: Some(("SELECT", true)), places: Some(places), always: false })
}

/// IF NOT EXISTS where it does: a server says so.
pub(super) fn nothing_to_make(
    statement: &Statement,
    filled: &Filled,
    (tag, surroundings): (&'static str, &Surroundings<'_>),
) -> Option<Scripting> {
    let is_there = filled.conditional.is_some() && relations::classify(&filled.table, surroundings).1.is_some();
    let acts = vec![Written { pieces: vec![Piece::Words(statement.tokens)], outcome: Outcome::Everywhere }];
    is_there.then(|| Scripting::always(acts, (tag, false), None))
}

/// What stands in front of the query, without IF NOT EXISTS.
pub(super) fn head_of(statement: &Statement, filled: &Filled) -> Vec<Piece> {
    let (start, end) = (statement.tokens.start, filled.query.tokens.start);
    let space = || Piece::Text(" ".to_owned());
    match filled.conditional {
        None => vec![Piece::Words(Tokens { start, end }), space()],
        Some(nothing) => vec![
            Piece::Words(Tokens { start, end: nothing.start }),
            space(),
            Piece::Words(Tokens { start: nothing.end, end }),
            space(),
        ],
    }
}
