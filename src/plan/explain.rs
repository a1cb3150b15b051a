//! A plan in words: for EXPLAIN ROUTE, `pgweir route` and tests.

use std::fmt::Write;

use super::numbering::Drawn;
use super::types::shards_of;
use super::{Access, Fetch, MARK, Narrowed, Outcome, Part, Places, Plan, Route, Staged, Template, caching};
use crate::merge::{Final, HIDDEN, Merge};
use crate::statement::{Kind, Values};
use crate::topology::ShardId;

/// Property and value, one a row.
pub fn explain(template: &Template, values: &Values<'_>) -> Vec<(String, String)> {
    let mut rows = vec![("kind".to_owned(), format!("{}: {}", kind(template), template.why))];
    for (table, class) in &template.tables {
        rows.push(("table".to_owned(), format!("{table} ({class})")));
    }
    rows.extend(template.keys(values).into_iter().map(|key| ("key".to_owned(), key)));
    match template.plan(values) {
        Err(error) => {
            rows.push(("refused".to_owned(), error.to_string()));
            rows.extend(error.told().hint.map(|hint| ("hint".to_owned(), hint)));
        }
        Ok(plan) => {
            let mut own = plan.rows();
            if let (Some(reason), Some((_, route))) = (template.reason(), own.first_mut()) {
                route.push_str(": ");
                route.push_str(reason);
            }
            rows.extend(own);
            let cache = caching::describe(template.cacheable(values), template.touches());
            rows.push(("cache".to_owned(), cache));
        }
    }
    rows
}

impl Plan {
    /// A few lines: what [`explain`] says of the plan itself.
    pub fn render(&self) -> String {
        self.rows().into_iter().map(|(name, value)| format!("{name}  {value}")).collect::<Vec<_>>().join("\n")
    }

    /// Every shard that takes part.
    pub fn shards(&self) -> Vec<ShardId> {
        match &self.route {
            Route::One(shard) => vec![*shard],
            Route::Scatter(scatter) => shards_of(&scatter.parts),
            Route::Gather(gather) => gather.shards(),
            Route::Spread(spread) => shards_of(&spread.parts),
            Route::Transfer(transfer) => transfer.source.shards(),
            Route::CopyIn(copy) => copy.shards.clone(),
            Route::CopyOut(copy) => copy.shards.clone(),
            Route::Draw(_) | Route::Script(_) => Vec::new(),
            Route::Staged(staged) => staged.shards().to_vec(),
        }
    }

    fn rows(&self) -> Vec<(String, String)> {
        let mut rows = Vec::new();
        let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
        match &self.route {
            Route::One(shard) => row("route", format!("one shard ({})", shard.0)),
            Route::Transfer(_) => {}
            Route::Draw(draw) => {
                row("route", "insert where its numbers say, drawn on the home shard".to_owned());
                for Drawn { name, count } in &draw.sequences {
                    row("draw", format!("{count} of {name}"));
                }
                row("statement", draw.shown());
            }
            Route::CopyIn(copy) => {
                row("route", format!("copy to shards ({}) {}, all or none", numbers(&copy.shards), copy.how()));
            }
            Route::CopyOut(copy) => {
                row("route", format!("copy from shards ({}), one after another", numbers(&copy.shards)));
            }
            Route::Staged(staged) => steps(staged, &mut row),
            Route::Script(script) => {
                row("route", "statements one after another, in one transaction".to_owned());
                for act in &script.acts {
                    let name = match act.outcome {
                        Outcome::Keep => "keep",
                        Outcome::Count => "run",
                        Outcome::Answer => "answer",
                        Outcome::Everywhere => "everywhere",
                        Outcome::Home => "home",
                        Outcome::Place => "place",
                    };
                    let into = script.places.as_ref().filter(|_| act.outcome == Outcome::Place);
                    row(name, into.map_or_else(|| act.text.replace(MARK, "…"), Places::render));
                }
            }
            Route::Scatter(scatter) => {
                let how = if scatter.in_turn { ", one after another" } else { "" };
                row("route", format!("scatter over shards ({}){how}", shards(&scatter.parts)));
                texts(&scatter.parts, &mut row);
                row("merge", merge(&scatter.merge));
            }
            Route::Gather(gather) => {
                row("route", format!("gather on shard ({})", gather.at.0));
                fetches(&gather.fetches, &mut row);
                row("statement", gather.text.replace(MARK, "…"));
            }
            Route::Spread(spread) => {
                let how = if spread.one_by_one.is_none() { "all or none" } else { "one after another" };
                row("route", format!("write on shards ({}), {how}", shards(&spread.parts)));
                fetches(&spread.fetches, &mut row);
                texts(&spread.parts, &mut row);
            }
        }
        if let Route::Transfer(transfer) = &self.route {
            row("route", format!("insert what is gathered on shard ({}), all or none", transfer.source.at.0));
            fetches(&transfer.source.fetches, &mut row);
            row("query", transfer.source.text.trim().to_owned());
            row("insert", transfer.insert.render());
        }
        row("server", server(self.access).to_owned());
        rows
    }
}

fn kind(template: &Template) -> &'static str {
    word(template.kind())
}

fn word(kind: &Kind) -> &'static str {
    match kind {
        Kind::Query => "query",
        Kind::Insert(_) => "insert",
        Kind::Update(_) => "update",
        Kind::Delete { .. } => "delete",
        Kind::Merge => "merge",
        Kind::Positioned { .. } => "positioned write",
        Kind::ModifyingQuery { .. } => "query that writes",
        Kind::Explain { .. } => "explain",
        Kind::ExplainRoute { .. } => "explain route",
        Kind::Copy(copy) if copy.from => "copy from",
        Kind::Copy(_) => "copy to",
        Kind::Truncate { .. } => "truncate",
        Kind::Ddl(_) => "ddl",
        Kind::Transaction(_) => "transaction control",
        Kind::Setting(_) => "session control",
        Kind::Prepare { .. } | Kind::Execute { .. } | Kind::Deallocate { .. } => "prepared statement",
        Kind::DeclareCursor { .. } | Kind::Fetch { .. } | Kind::CloseCursor { .. } => "cursor",
        Kind::Listen { .. } | Kind::Unlisten { .. } | Kind::Notify { .. } => "notification",
        Kind::LockTable => "lock table",
        Kind::Call => "call",
        Kind::Do(_) => "do",
        Kind::Utility { .. } | Kind::Refresh { .. } => "utility",
        Kind::Unknown { .. } => "unknown",
    }
}

fn server(access: Access) -> &'static str {
    match access {
        Access::Read => "replica, else primary",
        Access::Write | Access::PrimaryRead => "primary",
        Access::ReplicaOnly => "replica",
    }
}

fn shards(parts: &[Part]) -> String {
    numbers(&shards_of(parts))
}

fn numbers(shards: &[ShardId]) -> String {
    shards.iter().map(|shard| shard.0.to_string()).collect::<Vec<_>>().join(", ")
}

/// A write in several steps.
fn steps(staged: &Staged, row: &mut impl FnMut(&str, String)) {
    match staged {
        Staged::Move(moving) => {
            let all: Vec<String> = moving.shards.iter().map(|shard| shard.0.to_string()).collect();
            row("route", format!("write on shards ({}), all or none, moving rows", all.join(", ")));
            fetches(&moving.fetches, row);
            row("look", moving.look.to_string());
            moving.moved.render().into_iter().for_each(|(name, text)| row(name, text));
        }
        Staged::Mirror(mirror) => {
            let home = mirror.shards.first().map_or(0, |shard| shard.0);
            let others: Vec<String> = mirror.shards.iter().skip(1).map(|shard| shard.0.to_string()).collect();
            let others = others.join(", ");
            row("route", format!("write on shard ({home}), then its rows on shards ({others}), all or none"));
            fetches(&mirror.fetches, row);
            row("statement", mirror.text.to_string());
            row("copy", mirror.copy.to_string());
        }
        Staged::Create(create) => {
            let all: Vec<String> = create.shards.iter().map(|shard| shard.0.to_string()).collect();
            row("route", format!("write on shards ({}), all or none, rows on the first", all.join(", ")));
            fetches(&create.fetches, row);
            row("filled", create.filled.replace(MARK, "…"));
            row("empty", create.empty.to_string());
        }
        Staged::Local(local) => {
            let home = local.shards.first().map_or(0, |shard| shard.0);
            row("route", format!("write on shard ({home}), over rows of others"));
            fetches(&local.fetches, row);
            row("statement", local.text.replace(MARK, "…"));
        }
    }
}

fn fetches(fetches: &[Fetch], row: &mut impl FnMut(&str, String)) {
    for fetch in fetches {
        // The same on every shard.
        let text = fetch.parts.first().and_then(|part| part.text.as_deref()).unwrap_or_default();
        let condition =
            fetch.narrowed.as_ref().map_or_else(String::new, |narrowed| narrowed.condition.replace(MARK, "…"));
        row("fetch", format!("{} from shards ({}): {text}{condition}", fetch.table, shards(&fetch.parts)));
        if let Some(Narrowed { by: (by, _), .. }) = &fetch.narrowed {
            row("narrowed", format!("by the values of {}", fetches[*by].table));
        }
    }
}

fn texts(parts: &[Part], row: &mut impl FnMut(&str, String)) {
    for part in parts {
        if let Some(text) = &part.text {
            row(&format!("shard {}", part.shard.0), text.replace(MARK, "…"));
        }
    }
}

fn merge(merge: &Merge) -> String {
    let mut steps = Vec::new();
    if let Some(aggregation) = &merge.aggregate {
        let finals: Vec<&str> = aggregation.outputs.iter().map(name).collect();
        steps.push(format!("combine ({})", finals.join(", ")));
    } else if merge.order.is_empty() {
        steps.push("append rows".to_owned());
    }
    if merge.distinct {
        steps.push("distinct".to_owned());
    }
    if !merge.order.is_empty() {
        let mut keys = String::new();
        for key in &merge.order {
            let comma = if keys.is_empty() { "" } else { ", " };
            let direction = match (key.descending, key.nulls_first) {
                (true, true) => " desc",
                (true, false) => " desc nulls last",
                (false, true) => " nulls first",
                (false, false) => "",
            };
            let column = match key.column.checked_sub(HIDDEN) {
                Some(hidden) => format!("hidden {}", hidden + 1),
                None => (key.column + 1).to_string(),
            };
            write!(keys, "{comma}{column}{direction}").expect("a String takes everything");
        }
        steps.push(format!("order by {keys}"));
    }
    if merge.offset > 0 {
        steps.push(format!("offset {}", merge.offset));
    }
    if let Some(limit) = merge.limit {
        steps.push(format!("limit {limit}"));
    }
    steps.join(", ")
}

fn name(output: &Final) -> &'static str {
    match output {
        Final::Group(_) => "group",
        Final::Count(_) => "count",
        Final::Sum(_) => "sum",
        Final::Min(_) => "min",
        Final::Max(_) => "max",
        Final::Avg { .. } => "avg",
        Final::BoolAnd(_) => "bool_and",
        Final::BoolOr(_) => "bool_or",
    }
}
