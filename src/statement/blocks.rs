//! Query blocks: what each level of a statement reads, writes and restricts.

mod calls;
mod modifying;

use std::ops::ControlFlow;

use sqlparser::ast::{self, Expr, JoinConstraint, JoinOperator, SetExpr, TableFactor, Visit, Visitor};

use super::aggregates::Aggregates;
use super::analyze::{Places, Source};
use super::names::{ident, last_part, object};
use super::types::{
    Assigned, Block, BlockRole, Call, ColumnRef, InsertedRows, Kind, ObjectName, Predicate, Relation, RelationRef,
    Update,
};

/// Walks a statement's tree and collects.
pub(super) struct Walker<'t> {
    pub source: Source<'t>,
    pub places: &'t Places,
    pub blocks: Vec<Block>,
    pub calls: Vec<Call>,
    pub locks_rows: bool,
    /// See [`super::types::Statement::reads_clock`].
    pub reads_clock: bool,
    pub assigned: Vec<Assigned>,
    pub inserted: Vec<InsertedRows>,
    /// Queries and items of FROM that were walked through: all there are, or the statement was not understood.
    walked: Walked,
    /// Something in it changes what names mean, in a way that is not followed.
    unreadable: bool,
    /// How many parts of it modify data.
    modifications: usize,
    into: bool,
    /// CTEs in scope, innermost last, with their block.
    ctes: Vec<(String, usize)>,
    /// Columns merged by USING, with the relation whose value they have.
    pub(super) merged: Vec<(usize, String, RelationRef)>,
    /// The block that the next one opened becomes: a query's own comes before those of its CTEs.
    reserved: Option<usize>,
    /// The outermost SELECT, for its clauses.
    pub outermost: Option<ast::Query>,
}

impl<'t> Walker<'t> {
    pub(super) fn new(source: Source<'t>, places: &'t Places) -> Self {
        Self {
            source,
            places,
            blocks: Vec::new(),
            calls: Vec::new(),
            locks_rows: false,
            reads_clock: false,
            assigned: Vec::new(),
            inserted: Vec::new(),
            walked: Walked::default(),
            unreadable: false,
            modifications: 0,
            into: false,
            ctes: Vec::new(),
            merged: Vec::new(),
            reserved: None,
            outermost: None,
        }
    }

    /// Whether nothing of the tree was left out.
    pub(super) fn has_walked(&self, tree: &ast::Statement) -> bool {
        let mut all = Walked::default();
        // It never breaks off.
        let _ = tree.visit(&mut all);
        !self.unreadable && self.walked == all
    }

    /// Nothing in it writes but one part.
    pub(super) fn writes_once(&self) -> bool {
        self.modifications == 1
    }

    /// Some part of it does.
    pub(super) fn writes_or_locks(&self) -> bool {
        self.modifications > 0 || self.locks_rows
    }

    /// A statement that is a query.
    pub(super) fn outermost(&mut self, query: &ast::Query) -> Kind {
        self.collect_calls_knowing(query, &calls::made_once(query));
        self.query(query, None, BlockRole::Outermost);
        self.outermost = Some(query.clone());
        match (&*query.body, self.modifications) {
            _ if self.into => Kind::ModifyingQuery { into: true },
            (_, 0) => Kind::Query,
            // WITH in front of one, and nothing else in it writes.
            (SetExpr::Update(ast::Statement::Update(update)), 1) => {
                Kind::Update(Update { returning: update.returning.is_some(), clauses: None })
            }
            (SetExpr::Delete(ast::Statement::Delete(delete)), 1) => {
                Kind::Delete { returning: delete.returning.is_some() }
            }
            _ => Kind::ModifyingQuery { into: false },
        }
    }

    pub(super) fn query(&mut self, query: &ast::Query, parent: Option<usize>, role: BlockRole) -> usize {
        self.walked.queries += 1;
        let scope = self.ctes.len();
        if let Some(with) = &query.with {
            let own = self.open(parent, role);
            for cte in &with.cte_tables {
                let name = ident(&cte.alias.name);
                if with.recursive {
                    // It may name itself: its block is what comes next.
                    self.ctes.push((name.clone(), usize::MAX));
                }
                let block = self.query(&cte.query, parent, BlockRole::Cte);
                self.ctes.push((name, block));
            }
            self.reserved = Some(own);
        }
        let block = self.body(&query.body, parent, role);
        if query.limit_clause.is_some() || query.fetch.is_some() {
            self.blocks[block].limited = true;
        }
        self.locks_rows |= !query.locks.is_empty();
        self.order_and_limit(block, query);
        self.ctes.truncate(scope);
        block
    }

    fn order_and_limit(&mut self, block: usize, query: &ast::Query) {
        if let Some(ast::OrderBy { kind: ast::OrderByKind::Expressions(keys), .. }) = &query.order_by {
            let mut found = Aggregates::default();
            for key in keys {
                self.subqueries(block, &key.expr);
                found.look_at(&key.expr);
            }
            self.note(block, found);
        }
        match &query.limit_clause {
            Some(ast::LimitClause::LimitOffset { limit, offset, .. }) => {
                limit.iter().for_each(|limit| self.subqueries(block, limit));
                offset.iter().for_each(|offset| self.subqueries(block, &offset.value));
            }
            // `LIMIT 5, 10` is MySQL's.
            Some(ast::LimitClause::OffsetCommaLimit { .. }) => self.unreadable = true,
            None => {}
        }
    }

    fn body(&mut self, body: &SetExpr, parent: Option<usize>, role: BlockRole) -> usize {
        match body {
            SetExpr::Select(select) => self.select(select, parent, role),
            SetExpr::Query(query) => self.query(query, parent, role),
            SetExpr::SetOperation { left, right, .. } => {
                let block = self.open(parent, role);
                self.body(left, Some(block), BlockRole::SetArm);
                self.body(right, Some(block), BlockRole::SetArm);
                block
            }
            SetExpr::Values(values) => {
                let block = self.open(parent, role);
                values.rows.iter().flat_map(|row| row.iter()).for_each(|value| self.subqueries(block, value));
                block
            }
            SetExpr::Table(table) => {
                let block = self.open(parent, role);
                let written = [&table.schema_name, &table.table_name];
                // Whether the name was quoted is not told.
                let folds = |name: &String| name.chars().any(|letter| !letter.is_ascii_lowercase() && letter != '_');
                self.unreadable |= written.into_iter().flatten().any(folds);
                let name = ObjectName {
                    schema: table.schema_name.clone(),
                    name: table.table_name.clone().unwrap_or_default(),
                };
                let alias = name.name.clone();
                self.blocks[block].relations.push(plain(Some(name), alias));
                block
            }
            SetExpr::Insert(statement)
            | SetExpr::Update(statement)
            | SetExpr::Delete(statement)
            | SetExpr::Merge(statement) => self.modifying(statement, parent, role),
        }
    }

    /// A data-modifying CTE.
    fn modifying(&mut self, statement: &ast::Statement, parent: Option<usize>, role: BlockRole) -> usize {
        self.modifications += 1;
        let first = self.reserved.unwrap_or(self.blocks.len());
        match statement {
            ast::Statement::Insert(insert) => self.insert(insert),
            ast::Statement::Update(update) => self.update(update),
            ast::Statement::Delete(delete) => self.delete(delete),
            ast::Statement::Merge(merge) => self.merge(merge),
            _ => {
                self.open(parent, role);
            }
        }
        let block = &mut self.blocks[first];
        (block.parent, block.role) = (parent, role);
        first
    }

    fn select(&mut self, select: &ast::Select, parent: Option<usize>, role: BlockRole) -> usize {
        let block = self.open(parent, role);
        select.from.iter().for_each(|table| self.table_with_joins(block, table, false));
        self.into |= select.into.is_some();
        let mut found = Aggregates::default();
        for item in &select.projection {
            if let ast::SelectItem::UnnamedExpr(expr) | ast::SelectItem::ExprWithAlias { expr, .. } = item {
                self.subqueries(block, expr);
                found.look_at(expr);
            }
        }
        if let Some(ast::Distinct::On(keys)) = &select.distinct {
            for key in keys {
                self.subqueries(block, key);
                found.look_at(key);
            }
        }
        let groups = match &select.group_by {
            ast::GroupByExpr::Expressions(keys, modifiers) => {
                keys.iter().for_each(|key| self.subqueries(block, key));
                !keys.is_empty() || !modifiers.is_empty()
            }
            ast::GroupByExpr::All(_) => true,
        };
        if let Some(having) = &select.having {
            self.subqueries(block, having);
            found.look_at(having);
        }
        self.restrict(block, select.selection.as_ref());
        self.note_grouped(block, &select.group_by);
        let block_data = &mut self.blocks[block];
        block_data.aggregates = groups || select.having.is_some();
        block_data.windows = !select.named_window.is_empty();
        block_data.distinct = matches!(select.distinct, Some(ast::Distinct::Distinct | ast::Distinct::On(_)));
        block_data.distinct_on = matches!(select.distinct, Some(ast::Distinct::On(_)));
        self.note(block, found);
        block
    }

    fn note(&mut self, block: usize, found: Aggregates) {
        let columns = found.arguments.iter().filter_map(|column| self.column(block, column));
        let columns: Vec<ColumnRef> = columns.collect();
        let data = &mut self.blocks[block];
        data.aggregates |= found.aggregates;
        data.windows |= found.windows;
        data.aggregated.extend(columns);
    }

    fn returning(&mut self, block: usize, items: Option<&[ast::SelectItem]>) {
        for item in items.into_iter().flatten() {
            if let ast::SelectItem::UnnamedExpr(expr) | ast::SelectItem::ExprWithAlias { expr, .. } = item {
                self.subqueries(block, expr);
            }
        }
    }

    fn restrict(&mut self, block: usize, filter: Option<&Expr>) {
        if let Some(filter) = filter {
            let predicate = self.predicate(block, filter);
            self.and(block, predicate);
            self.note_conditions(block, filter, "where");
        }
    }

    fn and(&mut self, block: usize, predicate: Predicate) {
        if predicate == Predicate::True {
            return;
        }
        let known = std::mem::replace(&mut self.blocks[block].filter, Predicate::True);
        self.blocks[block].filter = match known {
            Predicate::True => predicate,
            Predicate::And(mut all) => {
                all.push(predicate);
                Predicate::And(all)
            }
            other => Predicate::And(vec![other, predicate]),
        };
    }

    fn table_with_joins(&mut self, block: usize, table: &ast::TableWithJoins, written: bool) {
        let first = self.blocks[block].relations.len();
        self.factor(block, &table.relation, written);
        for join in &table.joins {
            let right = self.blocks[block].relations.len();
            self.factor(block, &join.relation, false);
            self.join(block, first..right, right, &join.join_operator);
        }
    }

    /// `left`: relations of this FROM item before the join, `right`: the first one after it.
    fn join(&mut self, block: usize, left: std::ops::Range<usize>, right: usize, operator: &JoinOperator) {
        let end = self.blocks[block].relations.len();
        let (constraint, nullable) = match operator {
            JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) | JoinOperator::CrossJoin(constraint) => {
                (constraint, 0..0)
            }
            JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => (constraint, right..end),
            JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => (constraint, left.clone()),
            JoinOperator::FullOuter(constraint) => (constraint, left.start..end),
            _ => {
                self.blocks[block].outer_join = true;
                return;
            }
        };
        let is_outer = !nullable.is_empty();
        let is_full = nullable == (left.start..end) && matches!(operator, JoinOperator::FullOuter(_));
        self.blocks[block].outer_join |= is_outer;
        nullable.clone().for_each(|relation| self.blocks[block].relations[relation].nullable = true);
        let predicate = match constraint {
            JoinConstraint::On(condition) => self.predicate(block, condition),
            JoinConstraint::Using(columns) => self.using(block, &left, right, columns),
            JoinConstraint::Natural | JoinConstraint::None => Predicate::True,
        };
        let predicate = match (is_full, is_outer) {
            (true, _) => Predicate::True,
            // The condition says which rows match, not which rows there are: only what ties one side to the other
            // may be followed, from the preserved side to the nullable one.
            (false, true) => across(predicate, block, &nullable),
            (false, false) => predicate,
        };
        if let (JoinConstraint::On(condition), false) = (constraint, is_outer) {
            self.note_conditions(block, condition, "on");
        }
        self.and(block, predicate);
    }

    fn using(
        &mut self,
        block: usize,
        left: &std::ops::Range<usize>,
        right: usize,
        columns: &[ast::ObjectName],
    ) -> Predicate {
        if left.len() != 1 || self.blocks[block].relations.len() != right + 1 {
            return Predicate::True;
        }
        let of = |relation, column: &str| ColumnRef {
            relation: Some(RelationRef { block, relation }),
            column: column.to_owned(),
            at: block,
        };
        let mut all = Vec::new();
        for column in columns.iter().map(last_part) {
            let relation = RelationRef { block, relation: left.start };
            self.merged.push((block, column.clone(), relation));
            all.push(Predicate::Same(of(left.start, &column), of(right, &column)));
        }
        Predicate::And(all)
    }

    fn factor(&mut self, block: usize, factor: &TableFactor, written: bool) {
        self.walked.factors += 1;
        match factor {
            // The grammar takes ONLY for a table's name, and the name for its alias.
            TableFactor::Table { name, args, alias, .. } if is_only(name) => match (args, alias) {
                (None, Some(table)) if table.columns.is_empty() && !table.explicit => {
                    let name = ast::ObjectName::from(vec![table.name.clone()]);
                    self.push_table(block, &name, None, written);
                    // Its descendants' rows are left out.
                    self.blocks[block].relations.iter_mut().last().into_iter().for_each(|only| only.place = None);
                }
                _ => self.unreadable = true,
            },
            TableFactor::Table { name, alias, args: None, .. } => {
                let renames = alias.as_ref().is_some_and(|alias| !alias.columns.is_empty());
                let alias = alias.as_ref().map(|alias| ident(&alias.name));
                self.push_table(block, name, alias, written);
                self.blocks[block].relations.iter_mut().last().into_iter().for_each(|named| named.renames = renames);
            }
            TableFactor::Table { name, alias, args: Some(args), .. } => {
                self.calls.push(Call { name: object(name), arguments: Vec::new(), once: false });
                args.args.iter().for_each(|argument| self.argument(block, argument));
                self.push_computed(block, alias.as_ref().map_or_else(|| last_part(name), |alias| ident(&alias.name)));
            }
            TableFactor::Function { name, args, alias, .. } => {
                self.calls.push(Call { name: object(name), arguments: Vec::new(), once: false });
                args.iter().for_each(|argument| self.argument(block, argument));
                self.push_computed(block, alias.as_ref().map_or_else(|| last_part(name), |alias| ident(&alias.name)));
            }
            TableFactor::Derived { subquery, alias, .. } => {
                let inner = self.query(subquery, Some(block), BlockRole::Derived);
                let alias = alias.as_ref().map(|alias| ident(&alias.name)).unwrap_or_default();
                let relation = Relation { block: Some(inner), ..plain(None, alias) };
                self.blocks[block].relations.push(relation);
            }
            TableFactor::NestedJoin { table_with_joins, .. } => self.table_with_joins(block, table_with_joins, written),
            TableFactor::UNNEST { array_exprs, alias, .. } => {
                array_exprs.iter().for_each(|array| self.subqueries(block, array));
                self.push_computed(
                    block,
                    alias.as_ref().map_or_else(|| "unnest".to_owned(), |alias| ident(&alias.name)),
                );
            }
            _ => self.push_computed(block, String::new()),
        }
    }

    fn argument(&mut self, block: usize, argument: &ast::FunctionArg) {
        let (ast::FunctionArg::Named { arg, .. }
        | ast::FunctionArg::ExprNamed { arg, .. }
        | ast::FunctionArg::Unnamed(arg)) = argument;
        if let ast::FunctionArgExpr::Expr(expr) = arg {
            self.subqueries(block, expr);
        }
    }

    fn push_table(&mut self, block: usize, name: &ast::ObjectName, alias: Option<String>, written: bool) {
        let (place, aliased) = (self.place_of(name), alias.is_some());
        let name = object(name);
        let alias = alias.unwrap_or_else(|| name.name.clone());
        let cte = self.ctes.iter().rev().find(|(known, _)| name.schema.is_none() && *known == name.name);
        let relation = match cte {
            Some(&(_, inner)) => Relation { block: (inner != usize::MAX).then_some(inner), ..plain(None, alias) },
            None => plain(Some(name), alias),
        };
        self.blocks[block].relations.push(Relation { written, place, aliased, ..relation });
    }

    fn push_computed(&mut self, block: usize, alias: String) {
        self.blocks[block].relations.push(plain(None, alias));
    }

    fn open(&mut self, parent: Option<usize>, role: BlockRole) -> usize {
        let block = empty(parent, role);
        if let Some(reserved) = self.reserved.take() {
            self.blocks[reserved] = block;
            return reserved;
        }
        self.blocks.push(block);
        self.blocks.len() - 1
    }
}

/// How much of a tree was seen.
#[derive(Debug, Default, PartialEq)]
struct Walked {
    queries: usize,
    factors: usize,
}

impl Visitor for Walked {
    type Break = ();

    fn pre_visit_query(&mut self, _: &ast::Query) -> ControlFlow<()> {
        self.queries += 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, _: &TableFactor) -> ControlFlow<()> {
        self.factors += 1;
        ControlFlow::Continue(())
    }
}

/// Nothing but its body.
pub(super) fn is_bare(query: &ast::Query) -> bool {
    query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none()
        && query.locks.is_empty()
}

/// Equalities between columns, which hold for every row that is joined.
pub(super) fn only_joins(predicate: Predicate) -> Predicate {
    match predicate {
        Predicate::And(all) => Predicate::And(all.into_iter().map(only_joins).collect()),
        same @ Predicate::Same(..) => same,
        _ => Predicate::True,
    }
}

/// Equalities between one column of the nullable relations and one of the others, which the former follow.
fn across(predicate: Predicate, block: usize, nullable: &std::ops::Range<usize>) -> Predicate {
    let side = |column: &ColumnRef| {
        let relation = column.relation.filter(|relation| relation.block == block)?;
        Some(nullable.contains(&relation.relation))
    };
    match predicate {
        Predicate::And(all) => Predicate::And(all.into_iter().map(|each| across(each, block, nullable)).collect()),
        Predicate::Same(one, other) => match (side(&one), side(&other)) {
            (Some(false), Some(true)) => Predicate::Follows { from: one, to: other },
            (Some(true), Some(false)) => Predicate::Follows { from: other, to: one },
            _ => Predicate::True,
        },
        _ => Predicate::True,
    }
}

/// Unquoted, it is a keyword and no name.
fn is_only(name: &ast::ObjectName) -> bool {
    let single = match name.0.as_slice() {
        [part] => part.as_ident(),
        _ => None,
    };
    single.is_some_and(|ident| ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("only"))
}

fn empty(parent: Option<usize>, role: BlockRole) -> Block {
    Block {
        parent,
        role,
        relations: Vec::new(),
        filter: Predicate::True,
        aggregates: false,
        aggregated: Vec::new(),
        windows: false,
        limited: false,
        distinct: false,
        distinct_on: false,
        outer_join: false,
        conditions: Vec::new(),
        terms: 0,
        grouped: Vec::new(),
    }
}

/// The block of a query that reads one table whole.
pub(super) fn of_table(name: ObjectName) -> Block {
    let alias = name.name.clone();
    Block { relations: vec![plain(Some(name), alias)], ..empty(None, BlockRole::Outermost) }
}

fn plain(table: Option<ObjectName>, alias: String) -> Relation {
    Relation { table, block: None, alias, written: false, nullable: false, place: None, aliased: false, renames: false }
}
