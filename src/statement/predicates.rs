//! Conditions, as far as they say something about plain columns. Whatever is not understood restricts nothing.

use sqlparser::ast::{self, BinaryOperator, Expr, UnaryOperator};

use super::blocks::{Walker, only_joins};
use super::names::ident;
use super::types::{BlockRole, ColumnRef, Comparison, Predicate, Relation, RelationRef, Tokens, Value};

impl Walker<'_> {
    /// What must hold for a row of `block`, weakened where not understood.
    pub(super) fn predicate(&mut self, block: usize, expr: &Expr) -> Predicate {
        match expr {
            Expr::Nested(inner) => self.predicate(block, inner),
            Expr::BinaryOp { op: op @ (BinaryOperator::And | BinaryOperator::Or), .. } => {
                let mut terms = Vec::new();
                self.terms(block, expr, op, &mut terms);
                junction(op, terms)
            }
            Expr::BinaryOp { left, op, right } => {
                self.subqueries(block, left);
                self.subqueries(block, right);
                self.comparison(block, left, op, right)
            }
            Expr::InList { expr, list, negated } => {
                self.subqueries(block, expr);
                list.iter().for_each(|item| self.subqueries(block, item));
                if *negated {
                    return Predicate::True;
                }
                match (self.column(block, expr), &**expr) {
                    (Some(column), _) => self.in_list(block, column, list),
                    (None, Expr::Tuple(columns)) => self.in_rows(block, columns, list),
                    _ => Predicate::True,
                }
            }
            Expr::InSubquery { expr, subquery, negated } => {
                self.subqueries(block, expr);
                self.in_subquery(block, expr, subquery, *negated)
            }
            Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => self.equals_any(block, left, right),
            Expr::Between { expr, negated, low, high } => {
                [expr, low, high].into_iter().for_each(|part| self.subqueries(block, part));
                let low = self.comparison(block, expr, &BinaryOperator::GtEq, low);
                let high = self.comparison(block, expr, &BinaryOperator::LtEq, high);
                if *negated { Predicate::True } else { junction(&BinaryOperator::And, vec![low, high]) }
            }
            Expr::IsNull(inner) => {
                self.subqueries(block, inner);
                self.column(block, inner).map_or(Predicate::True, Predicate::IsNull)
            }
            Expr::IsTrue(inner) => self.predicate(block, inner),
            Expr::Value(value) => match value.value {
                ast::Value::Boolean(false) | ast::Value::Null => Predicate::False,
                _ => Predicate::True,
            },
            Expr::Exists { subquery, negated } => {
                let inner = self.query(subquery, Some(block), BlockRole::Filter);
                let is_select = matches!(&*subquery.body, ast::SetExpr::Select(_));
                let data = &self.blocks[inner];
                // An aggregate gives a row of none.
                let is_filter = is_select && !data.limited && !data.aggregates;
                // There is a row that equals one outside.
                if *negated || !is_filter { Predicate::True } else { only_joins(data.filter.clone()) }
            }
            other => {
                self.subqueries(block, other);
                Predicate::True
            }
        }
    }

    /// The operands of a chain of AND or OR, however long, without recursion along it.
    fn terms(&mut self, block: usize, expr: &Expr, op: &BinaryOperator, terms: &mut Vec<Predicate>) {
        let mut rest = Vec::new();
        let mut next = expr;
        while let Expr::BinaryOp { left, op: own, right } = next
            && own == op
        {
            rest.push(right);
            next = left;
        }
        terms.push(self.predicate(block, next));
        for right in rest.into_iter().rev() {
            terms.push(self.predicate(block, right));
        }
    }

    fn comparison(&self, block: usize, left: &Expr, op: &BinaryOperator, right: &Expr) -> Predicate {
        let comparison = match op {
            BinaryOperator::Eq => Comparison::Equal,
            BinaryOperator::Lt => Comparison::Less,
            BinaryOperator::LtEq => Comparison::LessOrEqual,
            BinaryOperator::Gt => Comparison::Greater,
            BinaryOperator::GtEq => Comparison::GreaterOrEqual,
            _ => return Predicate::True,
        };
        if let (Expr::Tuple(left), Expr::Tuple(right)) = (left, right) {
            return self.row_comparison(block, left, comparison, right);
        }
        match (self.column(block, left), self.column(block, right)) {
            (Some(one), Some(other)) if comparison == Comparison::Equal => Predicate::Same(one, other),
            (Some(column), None) => self.compare(block, column, comparison, right),
            (None, Some(column)) => self.compare(block, column, mirrored(comparison), left),
            _ => Predicate::True,
        }
    }

    /// Rows compare by their first members that differ: of an order, the first ones' own is what is certain.
    fn row_comparison(&self, block: usize, left: &[Expr], comparison: Comparison, right: &[Expr]) -> Predicate {
        if left.len() != right.len() {
            return Predicate::True;
        }
        let (op, count) = match comparison {
            Comparison::Equal => (BinaryOperator::Eq, left.len()),
            Comparison::Less | Comparison::LessOrEqual => (BinaryOperator::LtEq, 1),
            Comparison::Greater | Comparison::GreaterOrEqual => (BinaryOperator::GtEq, 1),
        };
        let pairs = left.iter().zip(right).take(count);
        junction(&BinaryOperator::And, pairs.map(|(left, right)| self.comparison(block, left, &op, right)).collect())
    }

    fn compare(&self, block: usize, column: ColumnRef, comparison: Comparison, value: &Expr) -> Predicate {
        match self.value(block, value) {
            Value::Unknown | Value::Boolean(_) | Value::Default | Value::Column(_) => Predicate::True,
            // A comparison with NULL is never true.
            Value::Null => Predicate::False,
            value => Predicate::Compare { column, comparison, value },
        }
    }

    fn in_list(&self, block: usize, column: ColumnRef, list: &[Expr]) -> Predicate {
        let values: Vec<Value> = list.iter().map(|item| self.value(block, item)).collect();
        let known =
            |value: &Value| !matches!(value, Value::Unknown | Value::Boolean(_) | Value::Default | Value::Column(_));
        if !values.iter().all(known) {
            return Predicate::True;
        }
        Predicate::In { column, values, tokens: Tokens::default(), items: Vec::new() }
    }

    /// `(a, b) IN ((1, 2), (3, 4))`: each column is in the list of its values.
    fn in_rows(&self, block: usize, columns: &[Expr], rows: &[Expr]) -> Predicate {
        let member = |row: &Expr, place: usize| match row {
            Expr::Tuple(row) if row.len() == columns.len() => Some(row[place].clone()),
            _ => None,
        };
        let terms = columns.iter().enumerate().filter_map(|(place, column)| {
            let values: Option<Vec<Expr>> = rows.iter().map(|row| member(row, place)).collect();
            Some(self.in_list(block, self.column(block, column)?, &values?))
        });
        junction(&BinaryOperator::And, terms.collect())
    }

    fn in_subquery(&mut self, block: usize, expr: &Expr, subquery: &ast::Query, negated: bool) -> Predicate {
        let inner = self.query(subquery, Some(block), BlockRole::Filter);
        let outer = self.column(block, expr);
        let given = match &*subquery.body {
            ast::SetExpr::Select(select) => match select.projection.as_slice() {
                [ast::SelectItem::UnnamedExpr(only) | ast::SelectItem::ExprWithAlias { expr: only, .. }] => {
                    self.column(inner, only)
                }
                _ => None,
            },
            _ => None,
        };
        // Rows cut away by a LIMIT or DISTINCT ON are not those that equal nothing outside.
        let data = &self.blocks[inner];
        let is_filter = !data.limited && !data.windows && !data.distinct_on;
        match (outer, given) {
            (Some(outer), Some(given)) if !negated && is_filter => Predicate::Same(outer, given),
            _ => Predicate::True,
        }
    }

    fn equals_any(&mut self, block: usize, left: &Expr, right: &Expr) -> Predicate {
        self.subqueries(block, left);
        let right = unnested(right);
        if let Expr::Subquery(query) = right {
            return self.in_subquery(block, left, query, false);
        }
        self.subqueries(block, right);
        let Some(column) = self.column(block, left) else { return Predicate::True };
        if let Expr::Array(array) = right {
            return self.in_list(block, column, &array.elem);
        }
        match self.value(block, right) {
            array @ (Value::Literal { .. } | Value::Parameter { .. }) => Predicate::EqualsAny { column, array },
            _ => Predicate::True,
        }
    }

    /// Opens a block for every query inside an expression.
    pub(super) fn subqueries(&mut self, block: usize, expr: &Expr) {
        match expr {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Value(_) => {}
            Expr::Subquery(query) => {
                self.query(query, Some(block), BlockRole::Scalar);
            }
            Expr::Exists { subquery, .. } => {
                self.query(subquery, Some(block), BlockRole::Filter);
            }
            Expr::InSubquery { expr, subquery, .. } => {
                self.subqueries(block, expr);
                self.query(subquery, Some(block), BlockRole::Filter);
            }
            other => {
                for query in inner_queries(other) {
                    self.query(&query, Some(block), BlockRole::Scalar);
                }
            }
        }
    }

    /// A plain column, as `block` sees it.
    pub(super) fn column(&self, block: usize, expr: &Expr) -> Option<ColumnRef> {
        match expr {
            Expr::Nested(inner) => self.column(block, inner),
            Expr::Identifier(name) => {
                let column = ident(name);
                let merged = self.merged.iter().find(|(known, name, _)| *known == block && *name == column);
                let relation = merged.map(|(_, _, relation)| *relation).or_else(|| self.only_relation(block));
                Some(ColumnRef { relation, column, at: block })
            }
            Expr::CompoundIdentifier(parts) => {
                let (column, qualifier) = parts.split_last()?;
                let relation = match qualifier {
                    [alias] => self.relation(block, &ident(alias))?,
                    // `schema.table.column`, where no alias hides the table's own name.
                    [.., schema, table] => self.qualified(block, &ident(schema), &ident(table))?,
                    [] => return None,
                };
                Some(ColumnRef { relation: Some(relation), column: ident(column), at: block })
            }
            _ => None,
        }
    }

    /// The only relation that an unqualified column can mean, as far as this is known without a catalog.
    fn only_relation(&self, block: usize) -> Option<RelationRef> {
        let data = &self.blocks[block];
        (data.parent.is_none() && data.relations.len() == 1).then_some(RelationRef { block, relation: 0 })
    }

    /// The relation of this name, in `block` or one around it.
    fn relation(&self, block: usize, alias: &str) -> Option<RelationRef> {
        let mut next = Some(block);
        while let Some(block) = next {
            let data = &self.blocks[block];
            let mut named = data.relations.iter().enumerate().filter(|(_, relation)| relation.alias == alias);
            if let Some((relation, _)) = named.next() {
                return named.next().is_none().then_some(RelationRef { block, relation });
            }
            next = data.parent;
        }
        None
    }

    fn qualified(&self, block: usize, schema: &str, table: &str) -> Option<RelationRef> {
        let mut next = Some(block);
        while let Some(block) = next {
            let data = &self.blocks[block];
            let named = |relation: &Relation| {
                relation.alias == table
                    && relation
                        .table
                        .as_ref()
                        .is_some_and(|own| own.name == table && own.schema.as_deref().is_none_or(|own| own == schema))
            };
            let mut found = data.relations.iter().enumerate().filter(|(_, relation)| named(relation));
            if let Some((relation, _)) = found.next() {
                // `FROM a.t, b.t`, or a name whose schema the search path tells.
                return found.next().is_none().then_some(RelationRef { block, relation });
            }
            next = data.parent;
        }
        None
    }

    /// A value as far as it is known before execution.
    pub(super) fn value(&self, block: usize, expr: &Expr) -> Value {
        match self.constant(expr) {
            Value::Unknown => self.column(block, expr).map_or(Value::Unknown, |column| match expr {
                Expr::Identifier(name) if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("default") => {
                    Value::Default
                }
                _ => Value::Column(column),
            }),
            value => value,
        }
    }

    /// As [`Walker::value`], without columns.
    pub(super) fn constant(&self, expr: &Expr) -> Value {
        match expr {
            Expr::Nested(inner) => self.constant(inner),
            Expr::Value(value) => self.plain(value),
            Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match self.constant(expr) {
                Value::Literal { index, negated, cast: None } => {
                    Value::Literal { index, negated: !negated, cast: None }
                }
                _ => Value::Unknown,
            },
            Expr::UnaryOp { op: UnaryOperator::Plus, expr } => self.constant(expr),
            Expr::Cast { kind: ast::CastKind::Cast | ast::CastKind::DoubleColon, expr, data_type, format: None } => {
                self.cast(expr, &data_type.to_string().to_lowercase())
            }
            Expr::TypedString(typed) => self.cast_value(self.plain(&typed.value), &typed.data_type.to_string()),
            _ => Value::Unknown,
        }
    }

    fn plain(&self, value: &ast::ValueWithSpan) -> Value {
        match &value.value {
            ast::Value::Null => Value::Null,
            ast::Value::Placeholder(name) => match name.strip_prefix('$').and_then(|number| number.parse().ok()) {
                Some(number @ 1..) => Value::Parameter { index: number - 1, cast: None },
                _ => Value::Unknown,
            },
            ast::Value::Boolean(value) => Value::Boolean(*value),
            _ => self.literal(value.span).unwrap_or(Value::Unknown),
        }
    }

    fn literal(&self, span: sqlparser::tokenizer::Span) -> Option<Value> {
        let start = u32::try_from(self.places.byte(span.start)?).ok()?;
        let index = self.source.literals.binary_search(&start).ok()?;
        Some(Value::Literal { index, negated: false, cast: None })
    }

    fn cast(&self, expr: &Expr, data_type: &str) -> Value {
        self.cast_value(self.constant(expr), data_type)
    }

    fn cast_value(&self, value: Value, data_type: &str) -> Value {
        let cast = Some(data_type.to_lowercase());
        match value {
            Value::Literal { index, negated, cast: None } => Value::Literal { index, negated, cast },
            Value::Parameter { index, cast: None } => Value::Parameter { index, cast },
            Value::Null => Value::Null,
            _ => Value::Unknown,
        }
    }
}

/// The queries directly inside an expression, not those inside of them.
fn inner_queries(expr: &Expr) -> Vec<ast::Query> {
    struct Finder {
        depth: usize,
        found: Vec<ast::Query>,
    }
    impl ast::Visitor for Finder {
        type Break = ();
        fn pre_visit_query(&mut self, query: &ast::Query) -> std::ops::ControlFlow<()> {
            if self.depth == 0 {
                self.found.push(query.clone());
            }
            self.depth += 1;
            std::ops::ControlFlow::Continue(())
        }
        fn post_visit_query(&mut self, _: &ast::Query) -> std::ops::ControlFlow<()> {
            self.depth -= 1;
            std::ops::ControlFlow::Continue(())
        }
    }
    let mut finder = Finder { depth: 0, found: Vec::new() };
    // It never breaks off.
    let _ = ast::Visit::visit(expr, &mut finder);
    finder.found
}

fn unnested(expr: &Expr) -> &Expr {
    match expr {
        Expr::Nested(inner) => unnested(inner),
        other => other,
    }
}

/// AND or OR of several; what restricts nothing falls out of an AND and swallows an OR.
fn junction(op: &BinaryOperator, terms: Vec<Predicate>) -> Predicate {
    if *op == BinaryOperator::Or {
        return if terms.contains(&Predicate::True) { Predicate::True } else { Predicate::Or(terms) };
    }
    let mut terms: Vec<Predicate> = terms.into_iter().filter(|term| *term != Predicate::True).collect();
    match terms.len() {
        0 => Predicate::True,
        1 => terms.remove(0),
        _ => Predicate::And(terms),
    }
}

fn mirrored(comparison: Comparison) -> Comparison {
    match comparison {
        Comparison::Equal => Comparison::Equal,
        Comparison::Less => Comparison::Greater,
        Comparison::LessOrEqual => Comparison::GreaterOrEqual,
        Comparison::Greater => Comparison::Less,
        Comparison::GreaterOrEqual => Comparison::LessOrEqual,
    }
}
