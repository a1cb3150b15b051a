//! Where pieces of a query stand in its text: names of tables, terms of conditions, keys of groups.
//!
//! The grammar's spans are exact for names and literals only. Everything larger is found by the keywords around it, and
//! counted against the tree: where the two do not agree, the piece is not known.

use std::ops::ControlFlow;

use sqlparser::ast::{self, BinaryOperator, Expr, Visit, Visitor};
use sqlparser::tokenizer::Span;

use super::aggregates::Aggregates;
use super::blocks::Walker;
use super::commands::folded;
use super::names::{ident, object};
use super::scan::TokenKind;
use super::types::{ColumnRef, Condition, ObjectName, Tokens};

impl Walker<'_> {
    /// The tokens of a table's name.
    pub(super) fn place_of(&self, name: &ast::ObjectName) -> Option<Tokens> {
        let first = self.token_of(name.0.first()?.as_ident()?)?;
        let last = self.token_of(name.0.last()?.as_ident()?)?;
        // With a point between each two.
        let count = u32::try_from(2 * name.0.len() - 1).ok()?;
        (last + 1 == first + count).then_some(Tokens { start: first, end: last + 1 })
    }

    /// Adds the terms of `condition`, which stands behind `keyword`, to those of the block.
    pub(super) fn note_conditions(&mut self, block: usize, condition: &Expr, keyword: &str) {
        let mut terms = Vec::new();
        conjuncts(condition, &mut terms);
        self.blocks[block].terms += terms.len();
        let Some(places) = self.conjuncts_behind(condition, keyword).filter(|places| places.len() == terms.len())
        else {
            return;
        };
        for (term, tokens) in terms.into_iter().zip(places) {
            let mut content = Content::default();
            // It breaks off at a subquery.
            let is_plain = term.visit(&mut content).is_continue();
            let mut found = Aggregates::default();
            found.look_at(term);
            let columns: Option<Vec<ColumnRef>> = content.names.iter().map(|name| self.column(block, name)).collect();
            if let (true, false, false, Some(columns)) = (is_plain, found.aggregates, found.windows, columns) {
                let calls = content.calls;
                self.blocks[block].conditions.push(Condition { tokens, columns, calls });
            }
        }
    }

    /// Notes which keys of a GROUP BY are plain columns.
    pub(super) fn note_grouped(&mut self, block: usize, group_by: &ast::GroupByExpr) {
        let ast::GroupByExpr::Expressions(keys, modifiers) = group_by else { return };
        if !modifiers.is_empty() {
            return;
        }
        for key in keys {
            let last = match key {
                Expr::Identifier(name) => Some(name),
                Expr::CompoundIdentifier(parts) => parts.last(),
                _ => None,
            };
            if let (Some(column), Some(token)) = (self.column(block, key), last.and_then(|name| self.token_of(name))) {
                self.blocks[block].grouped.push((column, token));
            }
        }
    }

    fn token_of(&self, name: &ast::Ident) -> Option<u32> {
        let token = self.token_at(name.span)?;
        let written = &self.source.tokens[token as usize];
        let text = &self.source.text[written.start as usize..written.end as usize];
        (folded(text, written.kind) == ident(name)).then_some(token)
    }

    fn token_at(&self, span: Span) -> Option<u32> {
        let start = u32::try_from(self.places.byte(span.start)?).ok()?;
        let found = self.source.tokens.binary_search_by_key(&start, |token| token.start).ok()?;
        u32::try_from(found).ok()
    }

    /// The terms between a keyword and the end of its clause, told apart by AND.
    fn conjuncts_behind(&self, condition: &Expr, keyword: &str) -> Option<Vec<Tokens>> {
        let mut leaves = Leaves::default();
        // It never breaks off.
        let _ = condition.visit(&mut leaves);
        let first = leaves.spans.into_iter().filter_map(|span| self.token_at(span)).min()?;
        let word = |index: u32| self.word(index);
        let start = (0..first).rev().find(|&index| word(index).eq_ignore_ascii_case(keyword))? + 1;
        let mut terms = Vec::new();
        let (mut begun, mut depth, mut between) = (start, 0usize, false);
        let mut index = start;
        loop {
            let text = word(index).to_ascii_lowercase();
            match text.as_str() {
                "(" | "[" | "case" => depth += 1,
                ")" | "]" if depth == 0 => break,
                ")" | "]" | "end" => depth = depth.saturating_sub(1),
                "between" if depth == 0 => between = true,
                "and" if depth == 0 && between => between = false,
                "and" if depth == 0 => {
                    terms.push(Tokens { start: begun, end: index });
                    begun = index + 1;
                }
                "" | ";" | "," if depth == 0 => break,
                // `left(…)` and `right(…)` are functions.
                "left" | "right" if word(index + 1) == "(" => {}
                name if depth == 0 && ENDS.contains(&name) && !self.is_part_of_name(index) => break,
                "" => return None,
                _ => {}
            }
            index += 1;
        }
        terms.push(Tokens { start: begun, end: index });
        terms.iter().all(|term| term.start < term.end).then_some(terms)
    }

    /// The token as written; empty behind the last.
    fn word(&self, index: u32) -> &str {
        let token = self.source.tokens.get(index as usize);
        token.map_or("", |token| &self.source.text[token.start as usize..token.end as usize])
    }

    /// Behind a point, or quoted, a word is no keyword.
    fn is_part_of_name(&self, index: u32) -> bool {
        let is_quoted = self.source.tokens.get(index as usize).is_some_and(|token| token.kind != TokenKind::Word);
        is_quoted || index.checked_sub(1).is_some_and(|before| self.word(before) == ".")
    }
}

fn conjuncts<'e>(expr: &'e Expr, terms: &mut Vec<&'e Expr>) {
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            conjuncts(left, terms);
            conjuncts(right, terms);
        }
        other => terms.push(other),
    }
}

/// What a condition is made of.
#[derive(Default)]
struct Content {
    names: Vec<Expr>,
    calls: Vec<ObjectName>,
}

impl Visitor for Content {
    type Break = ();

    fn pre_visit_query(&mut self, _: &ast::Query) -> ControlFlow<()> {
        ControlFlow::Break(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => self.names.push(expr.clone()),
            Expr::Function(function) => self.calls.push(object(&function.name)),
            Expr::CompoundFieldAccess { .. } => return ControlFlow::Break(()),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Where names and literals stand.
#[derive(Default)]
struct Leaves {
    spans: Vec<Span>,
}

impl Visitor for Leaves {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(name) => self.spans.push(name.span),
            Expr::CompoundIdentifier(parts) => self.spans.extend(parts.first().map(|name| name.span)),
            Expr::Value(value) => self.spans.push(value.span),
            Expr::Function(function) => {
                let first = function.name.0.first().and_then(|part| part.as_ident());
                self.spans.extend(first.map(|name| name.span));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Words that end a WHERE or ON, where they stand outside of parentheses.
const ENDS: [&str; 21] = [
    "where",
    "group",
    "having",
    "window",
    "order",
    "limit",
    "offset",
    "fetch",
    "for",
    "union",
    "intersect",
    "except",
    "returning",
    "join",
    "left",
    "right",
    "full",
    "inner",
    "cross",
    "natural",
    "on",
];
