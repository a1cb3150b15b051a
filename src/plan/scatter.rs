//! Reads on several shards: which can be merged exactly, what each shard is asked, how the answers become one.

use std::sync::Arc;

use super::keys::Keyed;
use super::relations::{Class, Resolved};
use super::rewrite::{self, Splice};
use super::template::{Surroundings, add_condition};
use super::{Access, Part, Plan, Route, Scatter, access};
use crate::error::Error;
use crate::merge::{Aggregation, Final, HIDDEN, Merge, SortKey};
use crate::statement::{
    Aggregate, BlockRole, Bound, ColumnRef, Distinct, Given, GroupKey, OrderTarget, Output, Shape, Statement, Tokens,
    Value, Values,
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
        let hint = add_condition(keyed);
        let refuse = |what: &str| Err(Error::unsupported(what, hint.clone()));
        let refuse_step = |what: &str| Err::<(), _>(Error::unsupported(what, hint.clone()));
        let shape = &statement.shape;
        if shape.columns.is_empty() || shape.set_operation {
            return refuse("UNION, INTERSECT or EXCEPT over several shards");
        }
        if statement.locks_rows {
            return refuse("FOR UPDATE or FOR SHARE on several shards");
        }
        if statement.calls.iter().any(|call| access::is_foreign_aggregate(call, surroundings.catalog)) {
            return refuse("a user-defined aggregate over several shards");
        }
        let Some(root) = keyed.relations.iter().position(|relation| relation.block == 0 && !relation.nullable) else {
            return refuse("an outer join or subquery that does not begin with a sharded table");
        };
        if !keyed.all_tied_to(root) {
            return refuse("a join that does not follow the shard key");
        }
        check_blocks(statement, resolved, keyed, &refuse_step)?;
        let key_grouped = is_grouped_by_key(shape, keyed, root);
        let mut scattering = Self {
            root,
            statement: Arc::clone(statement),
            merge: Merge::default(),
            hidden: Vec::new(),
            merges_rows: false,
        };
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
            scattering.order(shape, resolved, surroundings);
        }
        scattering.merge.distinct = shape.distinct == Distinct::All;
        scattering.merges_rows |= scattering.merge.distinct;
        if scattering.merge.distinct && !scattering.hidden.is_empty() {
            return refuse("SELECT DISTINCT ordered by what it does not select");
        }
        Ok(scattering)
    }

    /// Sort keys of a query whose rows pass as they are.
    fn order(&mut self, shape: &Shape, resolved: &[Resolved], surroundings: &Surroundings<'_>) {
        for key in &shape.order_by {
            let (column, of) = match &key.target {
                OrderTarget::Output(index) => {
                    let of = shape.columns.get(*index).map(|column| &column.expression);
                    (*index, of.and_then(|expression| plain(expression)))
                }
                OrderTarget::Hidden { tokens, column } => {
                    self.hidden.push(HiddenColumn { function: None, tokens: *tokens });
                    (HIDDEN + self.hidden.len() - 1, column.as_ref())
                }
            };
            let known = of.map_or(surroundings.catalog.default_collation_is_bytes, |column| {
                is_bytewise(column, resolved, surroundings)
            });
            self.merge.order.push(SortKey {
                column,
                descending: key.descending,
                nulls_first: key.nulls_first,
                collation_is_bytes: key.collate_bytes.unwrap_or(known),
            });
        }
        self.merge.hidden = self.hidden.len();
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
        let visible = shape.columns.len();
        let mut group = Vec::new();
        let mut hidden_groups = Vec::new();
        for key in &shape.group_by {
            match key {
                GroupKey::Output(index) => group.push(*index),
                GroupKey::Hidden { tokens, .. } => {
                    self.hidden.push(HiddenColumn { function: None, tokens: *tokens });
                    group.push(visible + self.hidden.len() - 1);
                    hidden_groups.push((*tokens, visible + self.hidden.len() - 1));
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
            if matches!(output, Final::Min(_) | Final::Max(_))
                && self.is_bytewise(column.tokens, shape, resolved, surroundings)
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
            let of = shape.columns.get(column).and_then(|column| plain(&column.expression));
            let known = of.map_or(surroundings.catalog.default_collation_is_bytes, |column| {
                is_bytewise(column, resolved, surroundings)
            });
            self.merge.order.push(SortKey {
                column,
                descending: key.descending,
                nulls_first: key.nulls_first,
                collation_is_bytes: key.collate_bytes.unwrap_or(known),
            });
        }
        self.merge.aggregate = Some(Aggregation { group, outputs });
        self.merge.hidden = self.hidden.len();
        self.merges_rows = true;
        Ok(())
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

    fn is_bytewise(
        &self,
        tokens: Tokens,
        shape: &Shape,
        resolved: &[Resolved],
        surroundings: &Surroundings<'_>,
    ) -> bool {
        // Of min(column) the column's own collation counts; of anything else the default one is taken only if it is bytes
        // and no column has another.
        let _ = (tokens, shape);
        let all = resolved.iter().filter_map(|relation| relation.catalog.as_ref());
        surroundings.catalog.default_collation_is_bytes
            && all
                .flat_map(|relation| &relation.columns)
                .all(|column| column.collation_is_bytes || !is_text(column.type_oid))
    }

    pub(super) fn plan(&self, shards: &ShardSet, values: &Values<'_>, access: Access) -> Result<Plan, Error> {
        let shape = &self.statement.shape;
        let mut merge = self.merge.clone();
        merge.limit = self.bound(shape.limit.as_ref(), values)?;
        merge.offset = self.bound(shape.offset.as_ref(), values)?.unwrap_or(0);
        let is_plain =
            self.hidden.is_empty() && merge.limit.is_none() && merge.offset == 0 && shape.limit_tokens.is_none();
        let text = (!is_plain).then(|| self.text(&merge, values.text));
        let parts = shards.iter().map(|shard| match &text {
            None => Part { shard, text: None, parameters: None },
            Some(text) => rewrite::part(shard, text.clone()),
        });
        Ok(Plan { route: Route::Scatter(Scatter { parts: parts.collect(), merge }), access })
    }

    fn bound(&self, bound: Option<&Bound>, values: &Values<'_>) -> Result<Option<u64>, Error> {
        let given = match bound {
            None => return Ok(None),
            Some(Bound::Value(Value::Literal { index, negated: false, .. })) => values.literal(*index),
            Some(Bound::Value(Value::Parameter { index, .. })) => values.parameter(*index),
            Some(_) => Given::Missing,
        };
        let number = match given {
            Given::Null => return Ok(None),
            Given::Text(text) => text.trim().parse().ok(),
            Given::Binary { bytes, .. } => match *bytes {
                [a, b] => u64::try_from(i16::from_be_bytes([a, b])).ok(),
                [a, b, c, d] => u64::try_from(i32::from_be_bytes([a, b, c, d])).ok(),
                [a, b, c, d, e, f, g, h] => u64::try_from(i64::from_be_bytes([a, b, c, d, e, f, g, h])).ok(),
                _ => None,
            },
            Given::Missing => None,
        };
        number.map(Some).ok_or_else(|| {
            Error::unsupported(
                "a computed LIMIT or OFFSET over several shards",
                "Give it as a constant or a parameter.",
            )
        })
    }

    /// What each shard is asked.
    fn text(&self, merge: &Merge, text: &str) -> String {
        let shape = &self.statement.shape;
        let mut splice = Splice::new(text);
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
                None => splice.insert_after(self.statement.tokens, added),
            }
        }
        if let Some(tokens) = shape.limit_tokens {
            let cut = merge.limit.filter(|_| !self.merges_rows).and_then(|limit| limit.checked_add(merge.offset));
            splice.replace(tokens, cut.map_or_else(String::new, |cut| format!("LIMIT {cut}")));
        }
        splice.finish()
    }
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
    for (index, block) in statement.blocks.iter().enumerate().skip(1) {
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
    if statement.blocks[0].relations.iter().any(|relation| relation.table.is_none() && relation.block.is_some()) {
        refuse("a subquery in FROM over several shards")?;
    }
    Ok(())
}

/// Rows of one group are then all on one shard.
fn is_grouped_by_key(shape: &Shape, keyed: &Keyed, root: usize) -> bool {
    shape.group_by.iter().any(|key| match key {
        GroupKey::Output(index) => shape
            .columns
            .get(*index)
            .and_then(|column| plain(&column.expression))
            .is_some_and(|column| keyed.is_key(root, column)),
        GroupKey::Hidden { column, .. } => column.as_ref().is_some_and(|column| keyed.is_key(root, column)),
    })
}

fn plain(output: &Output) -> Option<&ColumnRef> {
    match output {
        Output::Column(column) => Some(column),
        _ => None,
    }
}

/// Whether servers compare the column by bytes. Of a column that is not found, not.
fn is_bytewise(column: &ColumnRef, resolved: &[Resolved], surroundings: &Surroundings<'_>) -> bool {
    let owner = |relation: &&Resolved| match column.relation {
        Some(of) => (relation.block, relation.relation) == (of.block, of.relation),
        None => relation.catalog.as_ref().is_some_and(|known| known.column(&column.column).is_some()),
    };
    let found = resolved.iter().find(owner).and_then(|relation| relation.catalog.as_ref());
    let found = found.and_then(|relation| relation.column(&column.column));
    found.map_or(surroundings.catalog.default_collation_is_bytes, |column| column.collation_is_bytes)
}

/// text, varchar, bpchar, name, "char"
fn is_text(type_oid: u32) -> bool {
    matches!(type_oid, 25 | 1043 | 1042 | 19 | 18)
}
