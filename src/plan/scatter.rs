//! Reads on several shards: which can be merged exactly, what each shard is asked, how the answers become one.

use std::sync::Arc;

use super::copying;
use super::keys::{self, Keyed};
use super::relations::{Class, FIRST_OWN_TYPE, Resolved};
use super::rewrite::{self, Splice};
use super::surroundings::Surroundings;
use super::{Access, Declared, MARK, Part, Plan, Route, Scatter, access};
use crate::catalog::Column;
use crate::copy::Writing;
use crate::error::Error;
use crate::merge::{self, Aggregation, Final, HIDDEN, Merge, SortKey};
use crate::statement::{
    Aggregate, Block, BlockRole, Bound, Collation, ColumnRef, Copy, Distinct, Given, GroupKey, Kind, OrderKey,
    OrderTarget, Output, OutputColumn, Shape, Statement, Tokens, Value, Values,
};
use crate::topology::ShardSet;

/// A query over one sharded relation, or several joined by their key, and how its answers are merged.
#[derive(Debug)]
pub(super) struct Scattering {
    /// The relation (by index among the keyed ones) whose shards are asked.
    pub root: usize,
    statement: Arc<Statement>,
    merge: Merge,
    /// Expressions that are added to the output, to be hidden again.
    hidden: Vec<HiddenColumn>,
    /// Shards cannot cut their answers to LIMIT rows.
    merges_rows: bool,
    /// For COPY of a query.
    copied: Option<Arc<Writing>>,
}

#[derive(Debug)]
struct HiddenColumn {
    /// Put in front of the tokens: `sum(`, and `)` behind them.
    function: Option<&'static str>,
    tokens: Tokens,
}

impl Scattering {
    pub(super) fn new(
        statement: &Arc<Statement>,
        resolved: &[Resolved],
        surroundings: &Surroundings<'_>,
        keyed: &Keyed,
    ) -> Result<Self, Error> {
        let hint = keyed.add_condition();
        let refuse = |what: &str| Err(Error::unsupported(what, hint.clone()));
        let refuse_step = |what: &str| Err::<(), _>(Error::unsupported(what, hint.clone()));
        let shape = &statement.shape;
        if shape.set_operation {
            return refuse("UNION, INTERSECT or EXCEPT over several shards");
        }
        if let Some(what) = shape.unusual {
            return refuse(&format!("{what} over several shards"));
        }
        if shape.columns.is_empty() {
            return refuse("a query of this form over several shards");
        }
        if statement.locks_rows && matches!(statement.kind, Kind::DeclareCursor { .. }) {
            return refuse("a cursor that locks rows on several shards");
        }
        if statement.calls.iter().any(|call| access::is_foreign_aggregate(call, surroundings.catalog)) {
            return refuse("a user-defined aggregate over several shards");
        }
        if let Some(call) = statement.calls.iter().find(|call| !access::is_harmless(call, surroundings.catalog)) {
            return refuse(&format!("function {}, which may write, on several shards", call.name.name));
        }
        if resolved.iter().any(|relation| relation.volatile_view) {
            return refuse("a view with functions that may write, on several shards");
        }
        let source = source(statement);
        let Some(root) = keyed.relations.iter().position(|relation| relation.block == source && !relation.nullable)
        else {
            return refuse("an outer join or subquery that does not begin with a sharded table");
        };
        if !keyed.all_tied_to(root) {
            return refuse("a join that does not follow the shard key");
        }
        check_blocks(statement, resolved, keyed, &refuse_step)?;
        check_aggregated(statement, resolved, &refuse_step)?;
        let key_grouped = is_grouped_by_key(shape, keyed);
        let makes_one = shape.distinct == Distinct::All || (!shape.group_by.is_empty() && !key_grouped);
        if makes_one && resolved.iter().any(has_loose_text) {
            return refuse("DISTINCT or GROUP BY with a nondeterministic collation");
        }
        let mut scattering = Self::of(root, statement);
        if matches!(statement.kind, Kind::Copy(_)) && scattering.copied.is_none() {
            return refuse("COPY of a query in this format over several shards");
        }
        if shape.windows {
            return refuse("a window function over several shards");
        }
        if shape.distinct == Distinct::On {
            return refuse("DISTINCT ON over several shards");
        }
        if shape.with_ties {
            return refuse("FETCH … WITH TIES over several shards");
        }
        if shape.grouping_sets {
            return refuse("grouping sets over several shards");
        }
        if statement.blocks[0].aggregates && !key_grouped {
            scattering.aggregate(shape, &refuse_step, resolved, surroundings)?;
        } else {
            scattering.order(shape, &refuse_step, resolved, surroundings)?;
        }
        scattering.merge.distinct = shape.distinct == Distinct::All;
        scattering.merges_rows |= scattering.merge.distinct;
        if scattering.merge.distinct && !scattering.hidden.is_empty() {
            return refuse("SELECT DISTINCT ordered by what it does not select");
        }
        Ok(scattering)
    }

    fn of(root: usize, statement: &Arc<Statement>) -> Self {
        let copied = match &statement.kind {
            Kind::Copy(copy) => copying::written(copy).map(Arc::new),
            _ => None,
        };
        let (statement, merge, hidden) = (Arc::clone(statement), Merge::default(), Vec::new());
        Self { root, statement, merge, hidden, merges_rows: false, copied }
    }

    /// Sort keys of a query whose rows pass as they are.
    fn order(
        &mut self,
        shape: &Shape,
        refuse: &dyn Fn(&str) -> Result<(), Error>,
        resolved: &[Resolved],
        surroundings: &Surroundings<'_>,
    ) -> Result<(), Error> {
        let collations = Collations { resolved, surroundings };
        for key in &shape.order_by {
            if collations.sorts(shape, key) == Some(false) {
                refuse("ORDER BY a column by a collation or type with an order of its own")?;
            }
            let (column, known) = match &key.target {
                OrderTarget::Output(index) => (*index, collations.of_output(shape, *index)),
                OrderTarget::Hidden { tokens, column, collation } => {
                    self.hidden.push(HiddenColumn { function: None, tokens: *tokens });
                    (HIDDEN + self.hidden.len() - 1, collations.of(column.as_ref(), *collation))
                }
            };
            self.sort_by(column, key, known);
        }
        self.merge.hidden = self.hidden.len();
        Ok(())
    }

    fn sort_by(&mut self, column: usize, key: &OrderKey, known: bool) {
        self.merge.order.push(SortKey {
            column,
            descending: key.descending,
            nulls_first: key.nulls_first,
            collation_is_bytes: key.collate_bytes.unwrap_or(known),
        });
    }

    /// Aggregates split into the shards' partial ones and final ones.
    fn aggregate(
        &mut self,
        shape: &Shape,
        refuse: &dyn Fn(&str) -> Result<(), Error>,
        resolved: &[Resolved],
        surroundings: &Surroundings<'_>,
    ) -> Result<(), Error> {
        if shape.having.is_some() {
            refuse("HAVING over groups that span shards")?;
        }
        let collations = Collations { resolved, surroundings };
        let visible = shape.columns.len();
        let mut group = Vec::new();
        for key in &shape.group_by {
            match key {
                GroupKey::Output(index) => group.push(*index),
                GroupKey::Alias { output, column } => {
                    if may_be_input(column, resolved, &self.statement) {
                        refuse("GROUP BY a name that an input column may have, too,")?;
                    }
                    group.push(*output);
                }
                GroupKey::Hidden { tokens, .. } => {
                    self.hidden.push(HiddenColumn { function: None, tokens: *tokens });
                    group.push(visible + self.hidden.len() - 1);
                }
            }
        }
        let mut outputs = Vec::new();
        for (index, column) in shape.columns.iter().enumerate() {
            let output = match &column.expression {
                _ if group.contains(&index) => Final::Group(index),
                Output::Aggregate(aggregate) => self.split(index, visible, aggregate, refuse)?,
                Output::Wildcard => return refuse("* beside aggregates over several shards"),
                Output::Column(_) | Output::Expression { .. } => {
                    return refuse("an expression over aggregates of several shards");
                }
            };
            if let (Final::Min(_) | Final::Max(_), Output::Aggregate(aggregate)) = (&output, &column.expression)
                && collations.of(aggregate.column.as_ref(), aggregate.collation)
            {
                self.merge.bytewise.push(index);
            }
            outputs.push(output);
        }
        for key in &shape.order_by {
            let column = match &key.target {
                OrderTarget::Output(index) => *index,
                OrderTarget::Hidden { .. } => {
                    return refuse("ORDER BY an expression that is not selected, over aggregates of several shards");
                }
            };
            self.sort_by(column, key, collations.of_output(shape, column));
        }
        self.merge.aggregate = Some(Aggregation { group, outputs });
        self.merge.hidden = self.hidden.len();
        self.merges_rows = true;
        Ok(())
    }

    /// Whether values, once they are there, may turn out not to be comparable here: of a type or in a style that is not
    /// read.
    pub(super) fn may_not_merge(&self) -> bool {
        self.merge.aggregate.is_some() || self.merge.distinct || !self.merge.order.is_empty()
    }

    fn split(
        &mut self,
        index: usize,
        visible: usize,
        aggregate: &Aggregate,
        refuse: &dyn Fn(&str) -> Result<(), Error>,
    ) -> Result<Final, Error> {
        if aggregate.distinct {
            refuse("an aggregate of DISTINCT values over several shards")?;
        }
        if aggregate.ordered {
            refuse("an ordered aggregate over several shards")?;
        }
        match aggregate.name.as_str() {
            "count" => Ok(Final::Count(index)),
            "sum" => Ok(Final::Sum(index)),
            "min" => Ok(Final::Min(index)),
            "max" => Ok(Final::Max(index)),
            "bool_and" | "every" => Ok(Final::BoolAnd(index)),
            "bool_or" => Ok(Final::BoolOr(index)),
            "avg" if !aggregate.filtered => {
                let mut hide = |function| {
                    self.hidden.push(HiddenColumn { function: Some(function), tokens: aggregate.argument });
                    visible + self.hidden.len() - 1
                };
                Ok(Final::Avg { shown: index, sum: hide("sum"), count: hide("count") })
            }
            other => refuse(&format!("aggregate {other} over several shards")).map(|()| unreachable!("it refuses")),
        }
    }

    pub(super) fn plan(&self, shards: &ShardSet, values: &Values<'_>, access: Access) -> Result<Plan, Error> {
        let shape = &self.statement.shape;
        let mut merge = self.merge.clone();
        merge.limit = bound(shape.limit.as_ref(), values)?;
        merge.offset = bound(shape.offset.as_ref(), values)?.unwrap_or(0);
        let copied = self.copied.clone();
        let is_plain = copied.is_none()
            && self.hidden.is_empty()
            && merge.limit.is_none()
            && merge.offset == 0
            && shape.limit_tokens.is_none();
        let text = (!is_plain).then(|| self.text(&merge, values.text));
        let parts = shards.iter().map(|shard| match &text {
            None => Part { shard, text: None, parameters: None },
            Some(text) => rewrite::part(shard, text.clone()),
        });
        let in_turn = self.locks_some(&merge);
        let cursor = match &self.statement.kind {
            Kind::DeclareCursor { name, scroll, .. } => {
                Some(Declared { name: name.clone(), goes_back: *scroll != Some(false), told: true })
            }
            _ => None,
        };
        let parts = parts.collect();
        let scatter = Scatter { parts, merge, cursor, in_turn, explains: false, copied, otherwise: None };
        Ok(Plan { route: Route::Scatter(Box::new(scatter)), access })
    }

    /// What each shard is asked.
    fn text(&self, merge: &Merge, text: &str) -> String {
        let shape = &self.statement.shape;
        let mut splice = Splice::new(text);
        let mut asked = self.statement.tokens;
        if let Kind::Copy(Copy { query: Some(query), .. }) = &self.statement.kind {
            splice.replace(Tokens { end: query.start, ..asked }, "");
            splice.replace(Tokens { start: query.end, ..asked }, "");
            asked = *query;
        }
        let mut added = String::new();
        for column in &self.hidden {
            let words = splice.words(column.tokens);
            added.push_str(&match column.function {
                Some(function) => format!(", {function}({words})"),
                None => format!(", ({words})"),
            });
        }
        if !added.is_empty() {
            match shape.from {
                Some(from) => splice.insert_before(from, format!("{} ", added.trim_start_matches(' '))),
                None => splice.insert_after(asked, added),
            }
        }
        if let Some(tokens) = shape.limit_tokens {
            let cut = merge.limit.filter(|_| !self.merges_rows).and_then(|limit| limit.checked_add(merge.offset));
            let words = match cut {
                _ if self.locks_some(merge) => format!("LIMIT {MARK}"),
                Some(cut) => format!("LIMIT {cut}"),
                None => String::new(),
            };
            splice.replace(tokens, words);
        }
        splice.finish()
    }

    /// It locks rows, and not all that there are: no more than are wanted, unless an order says which.
    fn locks_some(&self, merge: &Merge) -> bool {
        self.statement.locks_rows && !self.merges_rows && merge.limit.is_some() && merge.order.is_empty()
    }
}

/// The number that a LIMIT or OFFSET is.
pub(super) fn bound(bound: Option<&Bound>, values: &Values<'_>) -> Result<Option<u64>, Error> {
    let given = match bound {
        None => return Ok(None),
        Some(Bound::One) => return Ok(Some(1)),
        Some(Bound::Value(Value::Literal { index, negated: false, .. })) => values.literal(*index),
        Some(Bound::Value(Value::Parameter { index, .. })) => values.parameter(*index),
        Some(_) => Given::Missing,
    };
    let number = match given {
        Given::Null => return Ok(None),
        Given::Text(text) => text.trim().parse().ok(),
        Given::Binary { type_oid: INT2 | INT4 | INT8 | 0, bytes } => match *bytes {
            [a, b] => u64::try_from(i16::from_be_bytes([a, b])).ok(),
            [a, b, c, d] => u64::try_from(i32::from_be_bytes([a, b, c, d])).ok(),
            [a, b, c, d, e, f, g, h] => u64::try_from(i64::from_be_bytes([a, b, c, d, e, f, g, h])).ok(),
            _ => None,
        },
        Given::Binary { .. } | Given::Missing => None,
    };
    number.map(Some).ok_or_else(|| {
        Error::unsupported("a computed LIMIT or OFFSET over several shards", "Give it as a constant or a parameter.")
    })
}

fn check_blocks(
    statement: &Statement,
    resolved: &[Resolved],
    keyed: &Keyed,
    refuse: &dyn Fn(&str) -> Result<(), Error>,
) -> Result<(), Error> {
    if resolved.iter().any(|relation| !matches!(relation.class, Class::Sharded(_) | Class::Reference)) {
        refuse("a join of sharded rows with a table that lives on the home shard only")?;
    }
    let source = source(statement);
    for (index, block) in statement.blocks.iter().enumerate().skip(1).filter(|(index, _)| *index != source) {
        let is_keyed = keyed.relations.iter().any(|relation| relation.block == index);
        let reads_keyed = is_keyed || block.relations.iter().any(|relation| relation.block.is_some());
        if reads_keyed && !matches!(block.role, BlockRole::Filter | BlockRole::Scalar) {
            refuse("a subquery, CTE or set operation over several shards")?;
        }
        if is_keyed
            && (block.limited || block.windows || block.distinct || block.aggregates && block.role == BlockRole::Filter)
        {
            refuse("a subquery with LIMIT, DISTINCT, GROUP BY or windows over several shards")?;
        }
    }
    let derived = |block: usize| {
        let mut relations = statement.blocks[block].relations.iter();
        relations.any(|relation| relation.table.is_none() && relation.block.is_some_and(|of| of != source))
    };
    if derived(0) || derived(source) {
        refuse("a subquery in FROM over several shards")?;
    }
    Ok(())
}

/// The block whose rows the query is about: the outermost or, if that reads nothing but a subquery which lets each row
/// of its tables pass by itself, the subquery.
fn source(statement: &Statement) -> usize {
    let [relation] = statement.blocks[0].relations.as_slice() else { return 0 };
    let passes = |block: &Block| {
        block.role == BlockRole::Derived
            && !(block.aggregates || block.windows || block.limited || block.distinct || block.distinct_on)
    };
    relation.block.filter(|of| relation.table.is_none() && passes(&statement.blocks[*of])).unwrap_or(0)
}

/// An aggregate over columns of an outer query belongs to that one (PostgreSQL documentation, 4.2.7).
fn check_aggregated(
    statement: &Statement,
    resolved: &[Resolved],
    refuse: &dyn Fn(&str) -> Result<(), Error>,
) -> Result<(), Error> {
    for (index, block) in statement.blocks.iter().enumerate().skip(1) {
        let is_own = |column: &ColumnRef| match column.relation {
            Some(of) => of.block == index,
            None => keys::owner(statement, resolved, column).is_some_and(|(of, _)| of == index),
        };
        if !block.aggregated.iter().all(is_own) {
            refuse("an aggregate in a subquery whose columns may be the outer query's, over several shards")?;
        }
    }
    Ok(())
}

/// Whether a column of the outermost FROM may have this name.
fn may_be_input(column: &str, resolved: &[Resolved], statement: &Statement) -> bool {
    (0..statement.blocks[0].relations.len()).any(|index| {
        let known = resolved.iter().find(|known| (known.block, known.relation) == (0, index));
        known.and_then(|known| known.catalog.as_ref()).is_none_or(|known| known.column(column).is_some())
    })
}

/// Rows of one group are then all on one shard.
fn is_grouped_by_key(shape: &Shape, keyed: &Keyed) -> bool {
    shape.group_by.iter().any(|key| match key {
        GroupKey::Output(index) => shape
            .columns
            .get(*index)
            .and_then(|column| plain(&column.expression))
            .is_some_and(|column| keyed.is_key(column)),
        GroupKey::Hidden { column, .. } => column.as_ref().is_some_and(|column| keyed.is_key(column)),
        GroupKey::Alias { .. } => false,
    })
}

fn plain(output: &Output) -> Option<&ColumnRef> {
    match output {
        Output::Column(column) => Some(column),
        _ => None,
    }
}

/// Texts of it may be equal that differ in bytes.
fn has_loose_text(relation: &Resolved) -> bool {
    relation.catalog.iter().flat_map(|table| &table.columns).any(|column| column.is_nondeterministic)
}

/// Which texts the servers compare by bytes.
struct Collations<'a> {
    resolved: &'a [Resolved],
    surroundings: &'a Surroundings<'a>,
}

impl Collations<'_> {
    /// Of a plain column its own collation counts, of anything else the one that is written in it, or that of all
    /// columns there are.
    fn of(&self, column: Option<&ColumnRef>, written: Collation) -> bool {
        match (written, column) {
            (Collation::Bytes, _) => true,
            (Collation::Other, _) => false,
            (Collation::Unwritten, Some(column)) => self.of_column(column),
            (Collation::Unwritten, None) => self.of_all(),
        }
    }

    fn of_output(&self, shape: &Shape, index: usize) -> bool {
        // What `*` stands for moves those behind it.
        let has_wildcard = shape.columns.iter().any(|column| column.expression == Output::Wildcard);
        match shape.columns.get(index).filter(|_| !has_wildcard) {
            Some(OutputColumn { expression: Output::Column(column), .. }) => self.of_column(column),
            Some(OutputColumn { expression: Output::Aggregate(aggregate), .. }) => {
                self.of(aggregate.column.as_ref(), aggregate.collation)
            }
            Some(OutputColumn { expression: Output::Expression { collation, .. }, .. }) => self.of(None, *collation),
            Some(OutputColumn { expression: Output::Wildcard, .. }) | None => self.of_all(),
        }
    }

    fn of_column(&self, column: &ColumnRef) -> bool {
        self.find(column).map_or_else(|| self.of_all(), |column| column.collation_is_bytes)
    }

    /// Whether a sort key can be merged, as far as its type is known: that of a plain column and no domain.
    fn sorts(&self, shape: &Shape, key: &OrderKey) -> Option<bool> {
        let has_wildcard = shape.columns.iter().any(|column| column.expression == Output::Wildcard);
        let column = match &key.target {
            OrderTarget::Output(index) if !has_wildcard => plain(&shape.columns.get(*index)?.expression)?,
            OrderTarget::Hidden { column: Some(column), collation: Collation::Unwritten, .. } => column,
            OrderTarget::Output(_) | OrderTarget::Hidden { .. } => return None,
        };
        let column = self.find(column).filter(|column| column.type_oid < FIRST_OWN_TYPE)?;
        Some(merge::sorts(column.type_oid, key.collate_bytes.unwrap_or(column.collation_is_bytes)))
    }

    fn find(&self, column: &ColumnRef) -> Option<&Column> {
        let owner = |relation: &&Resolved| match column.relation {
            Some(of) => (relation.block, relation.relation) == (of.block, of.relation),
            None => relation.catalog.as_ref().is_some_and(|known| known.column(&column.column).is_some()),
        };
        let found = self.resolved.iter().find(owner).and_then(|relation| relation.catalog.as_ref());
        found.and_then(|relation| relation.column(&column.column))
    }

    fn of_all(&self) -> bool {
        let all = self.resolved.iter().filter_map(|relation| relation.catalog.as_ref());
        let mut columns = all.flat_map(|relation| &relation.columns);
        self.surroundings.catalog.default_collation_is_bytes && columns.all(|column| column.collation_is_bytes)
    }
}

const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
