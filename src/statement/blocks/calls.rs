//! Functions that are called.

use std::ops::ControlFlow;

use sqlparser::ast::{self, Expr, SetExpr, Visit, Visitor};

use super::Walker;
use crate::statement::names::{last_part, object};
use crate::statement::types::{Call, Value};

impl Walker<'_> {
    pub(super) fn collect_calls(&mut self, tree: &impl Visit) {
        self.collect_calls_knowing(tree, &[]);
    }

    /// `once`: which of them are made once (see [`Call::once`]).
    pub(super) fn collect_calls_knowing(&mut self, tree: &impl Visit, once: &[*const Expr]) {
        let mut calls = Calls { walker: self, once, found: Vec::new(), reads_clock: false };
        // It never breaks off.
        let _ = tree.visit(&mut calls);
        let Calls { found, reads_clock, .. } = calls;
        self.calls.extend(found);
        self.reads_clock |= reads_clock;
    }
}

/// The items of a SELECT of settings alone: it gives one row, whatever there is in the database.
pub(super) fn made_once(query: &ast::Query) -> Vec<*const Expr> {
    let SetExpr::Select(select) = &*query.body else { return Vec::new() };
    let no_keys = matches!(&select.group_by, ast::GroupByExpr::Expressions(keys, _) if keys.is_empty());
    let bare = query.with.is_none() && query.limit_clause.is_none() && query.fetch.is_none() && no_keys;
    let bare = bare && select.from.is_empty() && select.selection.is_none() && select.having.is_none();
    let item = |item: &ast::SelectItem| match item {
        ast::SelectItem::UnnamedExpr(expr) | ast::SelectItem::ExprWithAlias { expr, .. } => match expr {
            Expr::Function(function) => {
                let name = last_part(&function.name);
                matches!(name.as_str(), "set_config" | "current_setting").then_some(std::ptr::from_ref(expr))
            }
            _ => None,
        },
        _ => None,
    };
    if bare { select.projection.iter().map(item).collect::<Option<_>>().unwrap_or_default() } else { Vec::new() }
}

/// Finds every function that is called, however deep.
struct Calls<'w, 't> {
    walker: &'w Walker<'t>,
    once: &'w [*const Expr],
    found: Vec<Call>,
    reads_clock: bool,
}

impl Visitor for Calls<'_, '_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr {
            let name = object(&function.name);
            self.reads_clock |= name.schema.is_none() && CLOCKS.contains(&name.name.as_str());
            if !(name.schema.is_none() && NO_FUNCTIONS.contains(&name.name.as_str())) {
                let arguments = match &function.args {
                    ast::FunctionArguments::List(list) => list.args.iter().map(|arg| self.value(arg)).collect(),
                    _ => Vec::new(),
                };
                let once = self.once.iter().any(|&known| std::ptr::eq(known, expr));
                self.found.push(Call { name, arguments, once });
            }
        }
        ControlFlow::Continue(())
    }
}

impl Calls<'_, '_> {
    fn value(&self, argument: &ast::FunctionArg) -> Value {
        match argument {
            ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => self.walker.constant(expr),
            _ => Value::Unknown,
        }
    }
}

const CLOCKS: [&str; 5] = ["current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"];
/// Written like functions, they are constructs of the grammar, harmless all.
const NO_FUNCTIONS: [&str; 29] = [
    "all",
    "any",
    "some",
    "values",
    "xmlattributes",
    "xmlconcat",
    "xmlelement",
    "xmlforest",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "coalesce",
    "greatest",
    "least",
    "nullif",
    "grouping",
    "array",
    "row",
    "current_date",
    "current_time",
    "current_timestamp",
    "localtime",
    "localtimestamp",
    "current_user",
    "session_user",
    "user",
    "current_role",
    "current_catalog",
    "current_schema",
];
