//! Aggregates and windows of an expression.

use std::ops::ControlFlow;

use sqlparser::ast::{self, Expr, Visit, Visitor};

use super::names::last_part;

/// What an output expression is made of, its subqueries left out.
#[derive(Default)]
pub(super) struct Aggregates {
    pub aggregates: bool,
    pub windows: bool,
    /// Columns inside the arguments of the aggregates.
    pub arguments: Vec<Expr>,
}

impl Aggregates {
    pub(super) fn look_at(&mut self, expr: &Expr) {
        let mut visitor = AggregateVisitor { found: self, subqueries: 0, aggregates: 0 };
        // It never breaks off.
        let _ = expr.visit(&mut visitor);
    }
}

struct AggregateVisitor<'a> {
    found: &'a mut Aggregates,
    subqueries: usize,
    /// How many aggregates are around.
    aggregates: usize,
}

impl Visitor for AggregateVisitor<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &ast::Query) -> ControlFlow<()> {
        self.subqueries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &ast::Query) -> ControlFlow<()> {
        self.subqueries -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if self.subqueries > 0 {
            return ControlFlow::Continue(());
        }
        match expr {
            Expr::Function(function) if function.over.is_some() => self.found.windows = true,
            _ if is_aggregate(expr) => {
                self.found.aggregates = true;
                self.aggregates += 1;
            }
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) if self.aggregates > 0 => {
                self.found.arguments.push(expr.clone());
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        self.aggregates -= usize::from(self.subqueries == 0 && is_aggregate(expr));
        ControlFlow::Continue(())
    }
}

fn is_aggregate(expr: &Expr) -> bool {
    let Expr::Function(function) = expr else { return false };
    let named = AGGREGATES.contains(&last_part(&function.name).as_str());
    function.over.is_none() && (named || function.filter.is_some() || !function.within_group.is_empty())
}

/// PostgreSQL documentation, 9.21. Users' own are known to the catalog only.
pub(super) const AGGREGATES: [&str; 48] = [
    "any_value",
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "cume_dist",
    "dense_rank",
    "every",
    "json_agg",
    "json_object_agg",
    "json_arrayagg",
    "json_objectagg",
    "jsonb_agg",
    "jsonb_object_agg",
    "max",
    "min",
    "mode",
    "percent_rank",
    "percentile_cont",
    "percentile_disc",
    "range_agg",
    "range_intersect_agg",
    "rank",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "sum",
    "var_pop",
    "var_samp",
    "variance",
    "xmlagg",
];
