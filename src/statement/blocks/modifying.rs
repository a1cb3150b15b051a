//! What INSERT, UPDATE, DELETE and MERGE write.

use sqlparser::ast::{self, Expr, SetExpr};

use super::{Walker, is_bare, only_joins};
use crate::statement::names::{ident, last_part};
use crate::statement::types::{Assigned, BlockRole, ColumnRef, InsertedRows, RelationRef, Value};

impl Walker<'_> {
    pub(in crate::statement) fn insert(&mut self, insert: &ast::Insert) {
        self.collect_calls(insert);
        let alias = insert.table_alias.as_ref().map(|alias| ident(&alias.alias));
        let block = self.open(None, BlockRole::Outermost);
        if let ast::TableObject::TableName(name) = &insert.table {
            self.push_table(block, name, alias, true);
        }
        let rows = match &insert.source {
            Some(query) if is_bare(query) => self.values_of(block, &query.body),
            _ => None,
        };
        let columns = insert.columns.iter().map(last_part).collect();
        let target = RelationRef { block, relation: 0 };
        self.inserted.push(InsertedRows { target, columns, rows, merges: false });
        if let Some(query) = &insert.source {
            match &*query.body {
                SetExpr::Values(values) if is_bare(query) => {
                    self.walked.queries += 1;
                    values.rows.iter().flat_map(|row| row.iter()).for_each(|value| self.subqueries(block, value));
                }
                _ => {
                    self.query(query, Some(block), BlockRole::InsertSource);
                }
            }
        }
        if let Some(ast::OnInsert::OnConflict(conflict)) = &insert.on
            && let ast::OnConflictAction::DoUpdate(update) = &conflict.action
        {
            self.assign(block, &update.assignments);
            update.selection.iter().for_each(|filter| self.subqueries(block, filter));
        }
        self.returning(block, insert.returning.as_deref());
    }

    pub(in crate::statement) fn update(&mut self, update: &ast::Update) {
        self.collect_calls(update);
        let block = self.open(None, BlockRole::Outermost);
        self.table_with_joins(block, &update.table, true);
        match &update.from {
            Some(ast::UpdateTableFromKind::BeforeSet(tables) | ast::UpdateTableFromKind::AfterSet(tables)) => {
                tables.iter().for_each(|table| self.table_with_joins(block, table, false));
            }
            None => {}
        }
        self.assign(block, &update.assignments);
        self.restrict(block, update.selection.as_ref());
        self.returning(block, update.returning.as_deref());
    }

    pub(in crate::statement) fn delete(&mut self, delete: &ast::Delete) {
        self.collect_calls(delete);
        let block = self.open(None, BlockRole::Outermost);
        let (ast::FromTable::WithFromKeyword(from) | ast::FromTable::WithoutKeyword(from)) = &delete.from;
        from.iter().for_each(|table| self.table_with_joins(block, table, true));
        let using = delete.using.iter().flatten();
        using.for_each(|table| self.table_with_joins(block, table, false));
        self.restrict(block, delete.selection.as_ref());
        self.returning(block, delete.returning.as_deref());
    }

    pub(in crate::statement) fn merge(&mut self, merge: &ast::Merge) {
        self.collect_calls(merge);
        let block = self.open(None, BlockRole::Outermost);
        self.factor(block, &merge.table, true);
        self.factor(block, &merge.source, false);
        // Rows that do not match are inserted: the condition restricts nothing but what it joins.
        if let Expr::BinaryOp { .. } | Expr::Nested(_) = &*merge.on {
            let filter = self.predicate(block, &merge.on);
            self.blocks[block].filter = only_joins(filter);
        }
        self.blocks[block].outer_join = true;
        for clause in &merge.clauses {
            clause.predicate.iter().for_each(|condition| self.subqueries(block, condition));
            match &clause.action {
                ast::MergeAction::Update(ast::MergeUpdateExpr {
                    kind: ast::MergeUpdateKind::Set(assignments), ..
                }) => self.assign(block, assignments),
                ast::MergeAction::Update(_) => self.unreadable = true,
                ast::MergeAction::Insert(insert) => self.merge_insert(block, insert),
                _ => {}
            }
        }
    }

    fn merge_insert(&mut self, block: usize, insert: &ast::MergeInsertExpr) {
        let rows = match &insert.kind {
            ast::MergeInsertKind::Values(values) => Some(self.rows_of(block, values)),
            ast::MergeInsertKind::Row | ast::MergeInsertKind::Wildcard => None,
        };
        let columns = insert.columns.iter().map(last_part).collect();
        let target = RelationRef { block, relation: 0 };
        self.inserted.push(InsertedRows { target, columns, rows, merges: true });
        if let ast::MergeInsertKind::Values(values) = &insert.kind {
            values.rows.iter().flat_map(|row| row.iter()).for_each(|value| self.subqueries(block, value));
        }
    }

    fn values_of(&self, block: usize, body: &SetExpr) -> Option<Vec<Vec<Value>>> {
        let SetExpr::Values(values) = body else { return None };
        Some(self.rows_of(block, values))
    }

    fn rows_of(&self, block: usize, values: &ast::Values) -> Vec<Vec<Value>> {
        let row = |row: &[Expr]| row.iter().map(|value| self.value(block, value)).collect();
        values.rows.iter().map(|values| row(values)).collect()
    }

    /// Notes what the written relation of `block` is assigned.
    fn assign(&mut self, block: usize, assignments: &[ast::Assignment]) {
        let target = RelationRef { block, relation: 0 };
        for assignment in assignments {
            self.subqueries(block, &assignment.value);
            let (columns, value) = match &assignment.target {
                ast::AssignmentTarget::ColumnName(name) => (vec![name], self.assigned_value(block, &assignment.value)),
                // Each is assigned something; which plain value is not worth finding out.
                ast::AssignmentTarget::Tuple(names) => (names.iter().collect(), Value::Unknown),
            };
            let column = columns.into_iter().map(|name| Assigned {
                target,
                // `a.b` is field b of column a, or column b of a table named a by some.
                column: last_part(name),
                value: value.clone(),
            });
            self.assigned.extend(column);
        }
    }

    fn assigned_value(&self, block: usize, value: &Expr) -> Value {
        match value {
            Expr::CompoundIdentifier(parts) if parts.len() == 2 && ident(&parts[0]) == "excluded" => {
                Value::Column(ColumnRef { relation: None, column: ident(&parts[1]), at: block })
            }
            _ => self.value(block, value),
        }
    }
}
