//! What a query's result depends on beside rows and functions: values of the moment and of the session, in the
//! spellings that the grammar has for them.

use std::ops::ControlFlow;

use sqlparser::ast::{self, BinaryOperator, DataType, Expr, TimezoneInfo, Visit, Visitor};

use super::blocks::Walker;
use super::commands::{Cursor, folded};
use super::names::{ident, last_part, object};
use super::scan::TokenKind;
use super::types::{ObjectName, TimeCast, Uses};

/// Read from the tokens as far as keywords tell, from the tree for the rest. `walker`: what it found in the query.
pub(super) fn of(tree: &impl Visit, cursor: Cursor<'_>, walker: &Walker<'_>) -> Uses {
    let mut uses = Uses::default();
    let mut behind_point = false;
    for token in cursor.tokens {
        if token.kind == TokenKind::Word && !behind_point {
            let word = cursor.written(token).to_ascii_lowercase();
            uses.special_values |= SPECIAL_VALUES.contains(&word.as_str());
            uses.samples |= word == "tablesample";
        }
        behind_point = token.kind == TokenKind::Punctuation(b'.');
    }
    let mut finder = Finder { uses, relations: Vec::new(), ctes: Vec::new() };
    // It never breaks off.
    let _ = tree.visit(&mut finder);
    let Finder { mut uses, relations, ctes } = finder;
    let tables: Vec<&ObjectName> = walker
        .blocks
        .iter()
        .flat_map(|block| &block.relations)
        .filter_map(|relation| relation.table.as_ref())
        .collect();
    let is_traced = |name: &ObjectName| {
        tables.contains(&name)
            || walker.calls.iter().any(|call| call.name == *name)
            || (name.schema.is_none() && (name.name == "only" || ctes.contains(&name.name)))
    };
    uses.untraced = !relations.iter().all(is_traced);
    uses.names = names(cursor, walker);
    uses.fields.sort_unstable();
    uses.fields.dedup();
    uses
}

/// See [`Uses::names`].
fn names(cursor: Cursor<'_>, walker: &Walker<'_>) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rows: Vec<String> = Vec::new();
    for (index, token) in cursor.tokens.iter().enumerate() {
        let written = cursor.written(token);
        let before = index.checked_sub(1).map_or("", |before| cursor.nth(before));
        match token.kind {
            // `count(*)` reads no column; a product is taken for all of them.
            TokenKind::Operator if written.contains('*') && before != "(" => return None,
            TokenKind::Word if written.eq_ignore_ascii_case("natural") => return None,
            TokenKind::Word | TokenKind::QuotedName => {
                let name = folded(written, token.kind);
                if cursor.nth(index + 1) != "." {
                    rows.push(name.clone());
                }
                names.push(name);
            }
            _ => {}
        }
    }
    // Each stands once in its FROM; once more, and not in front of a point, it is the row.
    let relations = walker.blocks.iter().flat_map(|block| &block.relations);
    let aliases: Vec<&String> = relations.map(|relation| &relation.alias).collect();
    let count = |name: &String| rows.iter().filter(|row| *row == name).count();
    if aliases.iter().any(|alias| count(alias) > aliases.iter().filter(|other| other == &alias).count()) {
        return None;
    }
    names.sort_unstable();
    names.dedup();
    Some(names)
}

struct Finder {
    uses: Uses,
    /// All that stand in a FROM, whether tables or not.
    relations: Vec<ObjectName>,
    ctes: Vec<String>,
}

impl Visitor for Finder {
    type Break = ();

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<()> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        self.ctes.extend(ctes.map(|cte| ident(&cte.alias.name)));
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &ast::ObjectName) -> ControlFlow<()> {
        self.relations.push(object(name));
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Cast { expr, data_type, .. } => match time_type(data_type) {
                Some(zoned) => self.castee(expr, zoned),
                None if !is_known(data_type) => self.castee(expr, false),
                None => {}
            },
            Expr::TypedString(typed) if time_type(&typed.data_type) == Some(true) => {
                self.uses.time_casts.push(TimeCast::ZonedLiteral);
            }
            Expr::Function(function) => self.function(function),
            Expr::CompoundIdentifier(parts) => self.uses.fields.extend(parts.last().map(ident)),
            Expr::CompoundFieldAccess { access_chain, .. } => {
                for access in access_chain {
                    if let ast::AccessExpr::Dot(Expr::Identifier(name)) = access {
                        self.uses.fields.push(ident(name));
                    }
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Finder {
    /// A type's name used as a function is a cast, too: `date(x)`.
    fn function(&mut self, function: &ast::Function) {
        let name = object(&function.name);
        let casts = match name.name.as_str() {
            "date" | "time" | "timestamp" => Some(false),
            "timestamptz" | "timetz" => Some(true),
            _ => None,
        };
        if let Some(zoned) = casts {
            arguments(function).for_each(|argument| self.castee(argument, zoned));
        }
    }

    /// What is cast to a date or time: nothing to note where it is one already, or where its value can be looked at.
    fn castee(&mut self, expr: &Expr, zoned: bool) {
        match expr {
            Expr::Nested(inner) => self.castee(inner, zoned),
            Expr::Value(value) => {
                if zoned && !matches!(value.value, ast::Value::Placeholder(_) | ast::Value::Null) {
                    self.uses.time_casts.push(TimeCast::ZonedLiteral);
                }
            }
            Expr::Identifier(name) => self.uses.time_casts.push(TimeCast::Column(ident(name))),
            Expr::CompoundIdentifier(parts) => {
                self.uses.time_casts.extend(parts.last().map(|name| TimeCast::Column(ident(name))));
            }
            Expr::AtTimeZone { timestamp, .. } => self.castee(timestamp, zoned),
            Expr::BinaryOp { left, op: BinaryOperator::Plus | BinaryOperator::Minus, .. } => self.castee(left, zoned),
            Expr::Function(function) if SAME.contains(&last_part(&function.name).as_str()) => {
                arguments(function).for_each(|argument| self.castee(argument, zoned));
            }
            Expr::Function(function) if DATED.contains(&last_part(&function.name).as_str()) => {}
            // Looked at by itself.
            Expr::TypedString(typed) if time_type(&typed.data_type).is_some() => {}
            Expr::Cast { data_type, .. } if time_type(data_type).is_some() => {}
            _ => self.uses.time_casts.push(TimeCast::Computed),
        }
    }
}

fn arguments(function: &ast::Function) -> impl Iterator<Item = &Expr> {
    let list = match &function.args {
        ast::FunctionArguments::List(list) => list.args.as_slice(),
        _ => &[],
    };
    list.iter().filter_map(|argument| match argument {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    })
}

/// `Some` for dates and times and what is made of them; `true` with a time zone.
fn time_type(data_type: &DataType) -> Option<bool> {
    match data_type {
        DataType::Date => Some(false),
        DataType::Time(_, zone) | DataType::Timestamp(_, zone) => {
            Some(matches!(zone, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone))
        }
        DataType::Custom(name, _) => match last_part(name).as_str() {
            "tsrange" | "daterange" | "tsmultirange" | "datemultirange" => Some(false),
            "timestamptz" | "timetz" | "tstzrange" | "tstzmultirange" => Some(true),
            _ => None,
        },
        DataType::Array(
            ast::ArrayElemTypeDef::SquareBracket(inner, _)
            | ast::ArrayElemTypeDef::Qualified(inner, _)
            | ast::ArrayElemTypeDef::AngleBracket(inner)
            | ast::ArrayElemTypeDef::Parenthesis(inner),
        ) => time_type(inner),
        _ => None,
    }
}

/// A type of PostgreSQL's own; any other may be a domain over a date or time.
fn is_known(data_type: &DataType) -> bool {
    match data_type {
        DataType::Custom(name, _) => KNOWN_TYPES.contains(&last_part(name).as_str()),
        DataType::Array(
            ast::ArrayElemTypeDef::SquareBracket(inner, _)
            | ast::ArrayElemTypeDef::Qualified(inner, _)
            | ast::ArrayElemTypeDef::AngleBracket(inner)
            | ast::ArrayElemTypeDef::Parenthesis(inner),
        ) => is_known(inner),
        _ => true,
    }
}

/// Keywords that are values of the moment or the session.
const SPECIAL_VALUES: [&str; 12] = [
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "localtime",
    "localtimestamp",
    "session_user",
    "system_user",
    "user",
];
/// They give one of their arguments.
const SAME: [&str; 6] = ["coalesce", "greatest", "least", "max", "min", "nullif"];
/// They give dates or times, and take no text as input of one.
const DATED: [&str; 9] = [
    "date_bin",
    "date_trunc",
    "generate_series",
    "make_date",
    "make_time",
    "make_timestamp",
    "make_timestamptz",
    "to_date",
    "to_timestamp",
];
/// Types that the grammar has no word for.
const KNOWN_TYPES: [&str; 34] = [
    "bpchar",
    "cidr",
    "citext",
    "geography",
    "geometry",
    "hstore",
    "inet",
    "int4multirange",
    "int4range",
    "int8multirange",
    "int8range",
    "jsonpath",
    "ltree",
    "macaddr",
    "macaddr8",
    "money",
    "name",
    "nummultirange",
    "numrange",
    "oid",
    "pg_lsn",
    "regclass",
    "regconfig",
    "regnamespace",
    "regoper",
    "regproc",
    "regprocedure",
    "regrole",
    "regtype",
    "tid",
    "tsquery",
    "tsvector",
    "xid",
    "xml",
];
