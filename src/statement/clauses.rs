//! The clauses of the outermost query, and where each stands in the text: rewrites splice the client's own words.

use std::ops::Range;

use sqlparser::ast::{self, Expr, SelectItem, SetExpr};

use super::aggregates::{AGGREGATES, Aggregates};
use super::analyze::Source;
use super::blocks::Walker;
use super::names::{ident, last_part};
use super::scan::{Token, TokenKind};
use super::types::{
    Aggregate, Bound, Collation, Distinct, GroupKey, OrderKey, OrderTarget, Output, OutputColumn, Shape, Tokens,
};

/// What the outermost query gives; `true`: an ordinal is among its keys, so that its literals matter. `None`: no query.
pub(super) fn shape(source: Source<'_>, part: Tokens, walker: &Walker<'_>) -> Option<(Shape, bool)> {
    let query = walker.outermost.as_ref()?;
    let mut shape = Shape { has_cte: query.with.is_some(), ..Shape::default() };
    shape.set_operation = matches!(&*query.body, SetExpr::SetOperation { .. });
    let (limit, offset) = bounds(query);
    let bound = |expr: Option<&Expr>| expr.and_then(|expr| to_bound(walker, expr));
    (shape.limit, shape.offset) = (bound(limit), bound(offset));
    if query.fetch.as_ref().is_some_and(|fetch| fetch.quantity.is_none()) {
        shape.limit = Some(Bound::One);
    }
    shape.with_ties = query.fetch.as_ref().is_some_and(|fetch| fetch.with_ties || fetch.percent);
    shape.unusual = unusual(query);
    if let SetExpr::Table(_) = &*query.body
        && bounds(query) == (None, None)
        && query.order_by.is_none()
    {
        shape.columns = vec![wildcard(part)];
    }
    let SetExpr::Select(select) = &*query.body else { return Some((shape, has_ordinals(query))) };
    shape.windows = walker.blocks.first().is_some_and(|block| block.windows);
    shape.distinct = match &select.distinct {
        None | Some(ast::Distinct::All) => Distinct::No,
        Some(ast::Distinct::Distinct) => Distinct::All,
        Some(ast::Distinct::On(_)) => Distinct::On,
    };
    let places = Clauses::find(source, part)?;
    shape.from = places.from;
    shape.having = places.having;
    shape.order_tokens = places.order;
    shape.limit_tokens = places.limit;
    let items = split(source, places.items);
    if items.len() != select.projection.len() {
        return None;
    }
    shape.columns =
        select.projection.iter().zip(items).map(|(item, tokens)| output(source, walker, item, tokens)).collect();
    let mut sensitive = has_ordinals(query);
    if let ast::GroupByExpr::Expressions(keys, modifiers) = &select.group_by {
        let tokens = places.group.map(|group| split(source, group)).unwrap_or_default();
        // A row of several columns, or of none, is no column either.
        let is_set = |key: &Expr| {
            matches!(key, Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_) | Expr::Tuple(_)) || is_row(key)
        };
        let quantified = places.group.is_some_and(|group| {
            let cursor = source.cursor(group);
            ["all", "distinct"].iter().any(|word| cursor.peek().eq_ignore_ascii_case(word))
        });
        shape.grouping_sets = !modifiers.is_empty() || quantified || keys.iter().any(is_set);
        if shape.grouping_sets || tokens.len() != keys.len() {
            shape.grouping_sets |= !keys.is_empty();
        } else {
            let keys = keys.iter().zip(tokens);
            shape.group_by = keys.map(|(key, tokens)| group_key(source, walker, &shape, key, tokens)).collect();
        }
        sensitive |= keys.iter().any(|key| ordinal(key).is_some());
    } else {
        shape.grouping_sets = true;
    }
    if let Some(ast::OrderBy { kind: ast::OrderByKind::Expressions(keys), .. }) = &query.order_by {
        let tokens = split(source, places.order.map(|order| Tokens { start: order.start + 2, ..order })?);
        if tokens.len() != keys.len() {
            return None;
        }
        let keys = keys.iter().zip(tokens);
        shape.order_by = keys.map(|(key, tokens)| order_key(source, walker, &shape, key, tokens)).collect();
        if query_orders_by_alias_beside_wildcard(query, &shape) {
            shape.unusual = Some("ORDER BY a name that is given beside *");
        }
    }
    Some((shape, sensitive))
}

/// All columns, written as `tokens`.
pub(super) fn wildcard(tokens: Tokens) -> OutputColumn {
    OutputColumn { expression: Output::Wildcard, alias: None, name: None, tokens }
}

/// What no plan over several shards is made for.
fn unusual(query: &ast::Query) -> Option<&'static str> {
    let order = query.order_by.as_ref()?;
    match &order.kind {
        ast::OrderByKind::Expressions(keys)
            if keys.iter().any(|key| matches!(key.options.sort, Some(ast::OrderBySort::Using(_)))) =>
        {
            Some("ORDER BY … USING")
        }
        ast::OrderByKind::Expressions(keys) if keys.iter().any(|key| is_row(&key.expr)) => Some("ORDER BY a row"),
        ast::OrderByKind::Expressions(_) => None,
        ast::OrderByKind::All(_) => Some("ORDER BY ALL"),
    }
}

/// `t.*`, which is one value behind GROUP BY and ORDER BY, but as many as it has columns where it is selected.
fn is_row(expr: &Expr) -> bool {
    matches!(expr, Expr::QualifiedWildcard(..) | Expr::Wildcard(_))
}

/// Which of the columns that `*` stands for come before it is not known.
fn query_orders_by_alias_beside_wildcard(query: &ast::Query, shape: &Shape) -> bool {
    let Some(ast::OrderBy { kind: ast::OrderByKind::Expressions(keys), .. }) = &query.order_by else { return false };
    let is_alias = |name: &ast::Ident| {
        let name = ident(name);
        shape.columns.iter().any(|column| column.alias.as_ref() == Some(&name))
    };
    let named = |key: &ast::OrderByExpr| matches!(&key.expr, Expr::Identifier(name) if is_alias(name));
    shape.columns.iter().any(|column| column.expression == Output::Wildcard) && keys.iter().any(named)
}

fn bounds(query: &ast::Query) -> (Option<&Expr>, Option<&Expr>) {
    let (limit, offset) = match &query.limit_clause {
        Some(ast::LimitClause::LimitOffset { limit, offset, .. }) => {
            (limit.as_ref(), offset.as_ref().map(|offset| &offset.value))
        }
        Some(ast::LimitClause::OffsetCommaLimit { offset, limit }) => (Some(limit), Some(offset)),
        None => (None, None),
    };
    (limit.or_else(|| query.fetch.as_ref().and_then(|fetch| fetch.quantity.as_ref())), offset)
}

fn to_bound(walker: &Walker<'_>, expr: &Expr) -> Option<Bound> {
    match walker.constant(expr) {
        super::types::Value::Null => None,
        super::types::Value::Unknown => Some(Bound::Expression),
        value => Some(Bound::Value(value)),
    }
}

fn output(source: Source<'_>, walker: &Walker<'_>, item: &SelectItem, tokens: Tokens) -> OutputColumn {
    let (expr, alias) = match item {
        SelectItem::UnnamedExpr(expr) => (expr, None),
        SelectItem::ExprWithAlias { expr, alias } => (expr, Some(ident(alias))),
        _ => return wildcard(tokens),
    };
    let named = alias.is_some();
    let cut = match source.cursor(tokens).tokens {
        [.., before, _] if named && source.cursor(tokens).written(before).eq_ignore_ascii_case("as") => 2,
        _ if named => 1,
        _ => 0,
    };
    let tokens = Tokens { end: tokens.end - cut, ..tokens };
    let name = alias.clone().or_else(|| figured(expr));
    OutputColumn { expression: expression(walker, source, expr, tokens), alias, name, tokens }
}

/// The name that PostgreSQL gives a column without an alias (`FigureColname` of its parser), where it has one of more
/// than its kind.
fn figured(expr: &Expr) -> Option<String> {
    let fixed = |name: &str| Some(name.to_owned());
    match expr {
        Expr::Identifier(name) => Some(ident(name)),
        Expr::CompoundIdentifier(parts) => parts.last().map(ident),
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } | Expr::Collate { expr: inner, .. } => figured(inner),
        Expr::Function(call) => Some(last_part(&call.name)),
        Expr::Case { else_result, .. } => else_result.as_deref().and_then(figured).or_else(|| fixed("case")),
        Expr::Exists { .. } => fixed("exists"),
        Expr::Array(_) => fixed("array"),
        Expr::Extract { .. } => fixed("extract"),
        Expr::Ceil { .. } => fixed("ceil"),
        Expr::Floor { .. } => fixed("floor"),
        Expr::Position { .. } => fixed("position"),
        Expr::Substring { .. } => fixed("substring"),
        Expr::Overlay { .. } => fixed("overlay"),
        Expr::AtTimeZone { .. } => fixed("timezone"),
        _ => None,
    }
}

fn expression(walker: &Walker<'_>, source: Source<'_>, expr: &Expr, tokens: Tokens) -> Output {
    if let Some(column) = walker.column(0, expr) {
        return Output::Column(column);
    }
    let mut found = Aggregates::default();
    found.look_at(expr);
    if let Expr::Function(function) = expr
        && let Some(aggregate) = aggregate(source, walker, function, tokens)
        && !found.windows
    {
        return Output::Aggregate(aggregate);
    }
    let collation = collation(source, tokens);
    Output::Expression { aggregates: found.aggregates, windows: found.windows, collation }
}

/// What the words of an expression say about its collation.
fn collation(source: Source<'_>, tokens: Tokens) -> Collation {
    let cursor = source.cursor(tokens);
    let count = cursor.tokens.len();
    match count.checked_sub(2).map(|at| (cursor.nth(at), cursor.nth(at + 1))) {
        _ if !cursor.has("collate") => Collation::Unwritten,
        Some((word, "\"C\"" | "\"POSIX\"")) if word.eq_ignore_ascii_case("collate") => Collation::Bytes,
        _ => Collation::Other,
    }
}

fn aggregate(source: Source<'_>, walker: &Walker<'_>, function: &ast::Function, tokens: Tokens) -> Option<Aggregate> {
    let name = last_part(&function.name);
    let ast::FunctionArguments::List(list) = &function.args else { return None };
    if !AGGREGATES.contains(&name.as_str()) || function.name.0.len() != 1 || function.over.is_some() {
        return None;
    }
    let cursor = source.cursor(tokens);
    let open = cursor.tokens.iter().position(|token| token.kind == TokenKind::Punctuation(b'('))?;
    let close = closing(cursor.tokens, open)?;
    let star = matches!(list.args.as_slice(), [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Wildcard)]);
    let start = tokens.start + u32::try_from(open).ok()? + 1;
    let argument = Tokens { start, end: tokens.start + close };
    let column = match list.args.as_slice() {
        [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(only))] => walker.column(0, only),
        _ => None,
    };
    Some(Aggregate {
        name,
        argument,
        column,
        collation: collation(source, argument),
        star,
        distinct: matches!(list.duplicate_treatment, Some(ast::DuplicateTreatment::Distinct)),
        filtered: function.filter.is_some(),
        ordered: !list.clauses.is_empty() || !function.within_group.is_empty(),
    })
}

fn group_key(source: Source<'_>, walker: &Walker<'_>, shape: &Shape, key: &Expr, tokens: Tokens) -> GroupKey {
    let by_ordinal = ordinal(key).and_then(|number| number.checked_sub(1)).filter(|&index| index < shape.columns.len());
    // In GROUP BY a name means an input column first: one that is also the output column, or else an alias.
    let column = walker.column(0, key);
    let same = |output: &OutputColumn| match (&output.expression, &column) {
        (Output::Column(known), Some(column)) => known == column,
        (Output::Wildcard, _) | (_, Some(_)) => false,
        (_, None) => same_tokens(source, output.tokens, tokens),
    };
    let by_alias = || match key {
        Expr::Identifier(name) => {
            let name = ident(name);
            let output = shape.columns.iter().position(|output| output.alias.as_ref() == Some(&name))?;
            Some(GroupKey::Alias { output, column: name })
        }
        _ => None,
    };
    match by_ordinal.or_else(|| shape.columns.iter().position(same)) {
        Some(index) => GroupKey::Output(index),
        None => by_alias().unwrap_or(GroupKey::Hidden { tokens, column }),
    }
}

fn order_key(
    source: Source<'_>,
    walker: &Walker<'_>,
    shape: &Shape,
    key: &ast::OrderByExpr,
    tokens: Tokens,
) -> OrderKey {
    let (expr, collate_bytes) = match &key.expr {
        Expr::Collate { expr, collation } => {
            (&**expr, Some(matches!(last_part(collation).to_lowercase().as_str(), "c" | "posix" | "ucs_basic")))
        }
        other => (other, None),
    };
    let (descending, known) = match &key.options.sort {
        Some(ast::OrderBySort::Desc) => (true, true),
        Some(ast::OrderBySort::Asc) | None => (false, true),
        Some(ast::OrderBySort::Using(_)) => (false, false),
    };
    let tokens = without_direction(source, tokens);
    let target = match order_output(source, walker, shape, expr, tokens) {
        Some(index) if collate_bytes.is_none() && known => OrderTarget::Output(index),
        _ => OrderTarget::Hidden { tokens, column: walker.column(0, expr), collation: collation(source, tokens) },
    };
    OrderKey { target, descending, nulls_first: key.options.nulls_first.unwrap_or(descending), collate_bytes }
}

/// In ORDER BY a bare name means an output column first.
fn order_output(source: Source<'_>, walker: &Walker<'_>, shape: &Shape, expr: &Expr, tokens: Tokens) -> Option<usize> {
    let has_wildcard = shape.columns.iter().any(|column| column.expression == Output::Wildcard);
    if let Some(number) = ordinal(expr) {
        // With a wildcard there are more columns than are written.
        return number.checked_sub(1).filter(|&index| has_wildcard || index < shape.columns.len());
    }
    if has_wildcard {
        return None;
    }
    let column = walker.column(0, expr);
    if let Expr::Identifier(name) = expr {
        let name = ident(name);
        let named = |output: &OutputColumn| output.name.as_deref() == Some(&name);
        if let Some(index) = shape.columns.iter().position(named) {
            return Some(index);
        }
    }
    shape.columns.iter().position(|output| match (&output.expression, &column) {
        (Output::Column(known), Some(column)) => known == column,
        (_, None) => same_tokens(source, output.tokens, tokens),
        _ => false,
    })
}

fn has_ordinals(query: &ast::Query) -> bool {
    match &query.order_by {
        Some(ast::OrderBy { kind: ast::OrderByKind::Expressions(keys), .. }) => {
            keys.iter().any(|key| ordinal(&key.expr).is_some())
        }
        _ => false,
    }
}

fn ordinal(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(ast::ValueWithSpan { value: ast::Value::Number(number, _), .. }) => number.parse().ok(),
        _ => None,
    }
}

/// Literals are compared too: two expressions are the same only if they are written the same.
fn same_tokens(source: Source<'_>, one: Tokens, other: Tokens) -> bool {
    let (one, other) = (source.cursor(one), source.cursor(other));
    let has_literal = one.tokens.iter().any(|token| matches!(token.kind, TokenKind::Literal(_)));
    one.tokens.len() == other.tokens.len()
        && !has_literal
        && one.tokens.iter().zip(other.tokens).all(|(left, right)| {
            let (written, again) = (one.written(left), other.written(right));
            let folds = left.kind == TokenKind::Word;
            left.kind == right.kind && (written == again || folds && written.eq_ignore_ascii_case(again))
        })
}

/// A sort key's tokens without ASC, DESC, USING and NULLS.
fn without_direction(source: Source<'_>, tokens: Tokens) -> Tokens {
    let cursor = source.cursor(tokens);
    let mut count = cursor.tokens.len();
    let word = |index: usize| cursor.nth(index).to_ascii_lowercase();
    if count > 2 && word(count - 2) == "nulls" {
        count -= 2;
    }
    if count > 1 && matches!(word(count - 1).as_str(), "asc" | "desc") {
        count -= 1;
    }
    Tokens { end: tokens.start + u32::try_from(count).expect("fewer tokens than bytes"), ..tokens }
}

/// Where the clauses of a query stand.
struct Clauses {
    items: Tokens,
    from: Option<u32>,
    group: Option<Tokens>,
    having: Option<Tokens>,
    order: Option<Tokens>,
    limit: Option<Tokens>,
}

impl Clauses {
    /// Keywords of the outermost level, in the order that the grammar has them.
    fn find(source: Source<'_>, part: Tokens) -> Option<Self> {
        let cursor = source.cursor(part);
        let mut marks: Vec<(u32, String)> = Vec::new();
        let mut depth = 0usize;
        for (index, token) in cursor.tokens.iter().enumerate() {
            match token.kind {
                TokenKind::Punctuation(b'(' | b'[') => depth += 1,
                TokenKind::Punctuation(b')' | b']') => depth = depth.saturating_sub(1),
                TokenKind::Word if depth == 0 => {
                    let word = cursor.written(token).to_ascii_lowercase();
                    // `a.order`, `as limit`: names, not clauses.
                    let before = |back: usize| {
                        index.checked_sub(back).map(|at| cursor.nth(at).to_ascii_lowercase()).unwrap_or_default()
                    };
                    let named = matches!(before(1).as_str(), "." | "as");
                    // IS DISTINCT FROM
                    let compares = word == "from" && before(1) == "distinct" && before(2) != "select";
                    // A column of that name is none.
                    let is_part =
                        !matches!(word.as_str(), "group" | "order") || cursor.nth(index + 1).eq_ignore_ascii_case("by");
                    if CLAUSES.contains(&word.as_str()) && !named && !compares && is_part {
                        marks.push((part.start + u32::try_from(index).ok()?, word));
                    }
                }
                _ => {}
            }
        }
        let place = |word: &str| marks.iter().find(|(_, known)| known == word).map(|(place, _)| *place);
        let after = |place: u32| marks.iter().map(|(next, _)| *next).find(|next| *next > place).unwrap_or(part.end);
        let select = place("select")?;
        let mut start = select + 1;
        let mut head = source.cursor(Tokens { start, end: part.end });
        if head.take(&["distinct"]) || head.take(&["all"]) {
            start = head.first;
            if head.take(&["on"]) {
                start = head.first + closing(head.tokens, 0)? + 1;
            }
        }
        let items = Tokens { start, end: after(select) };
        let clause = |word: &str, skip: u32| place(word).map(|start| Tokens { start: start + skip, end: after(start) });
        let limit = ["limit", "offset", "fetch"].into_iter().filter_map(place).min();
        let limit_end = marks.iter().find(|(place, word)| word == "for" && limit.is_some_and(|limit| limit < *place));
        let limit_end = limit_end.map(|(place, _)| *place);
        Some(Self {
            items,
            from: place("from"),
            group: clause("group", 2),
            having: clause("having", 1),
            order: clause("order", 0),
            limit: limit.map(|start| Tokens { start, end: limit_end.unwrap_or(part.end) }),
        })
    }
}

/// The rows of VALUES: each pair of parentheses after the keyword, at its level.
pub(super) fn rows(source: Source<'_>, part: Tokens) -> Vec<Tokens> {
    let cursor = source.cursor(part);
    let mut rows = Vec::new();
    let mut depth = 0usize;
    let start = cursor.tokens.iter().position(|token| {
        match token.kind {
            TokenKind::Punctuation(b'(') => depth += 1,
            TokenKind::Punctuation(b')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && token.kind == TokenKind::Word && cursor.written(token).eq_ignore_ascii_case("values")
    });
    let Some(mut next) = start.map(|start| start + 1) else { return rows };
    while cursor.nth(next) == "(" {
        let Some(end) = closing(cursor.tokens, next) else { return rows };
        let first = part.start + u32::try_from(next).expect("fewer tokens than bytes");
        rows.push(Tokens { start: first, end: part.start + end + 1 });
        next = end as usize + 1;
        if cursor.nth(next) != "," {
            break;
        }
        next += 1;
    }
    rows
}

/// The parenthesis that closes the one at `open`.
pub(super) fn closing(tokens: &[Token], open: usize) -> Option<u32> {
    let mut depth = 0usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.kind {
            TokenKind::Punctuation(b'(') => depth += 1,
            TokenKind::Punctuation(b')') => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return u32::try_from(index).ok();
        }
    }
    None
}

/// At commas of the outermost level.
fn split(source: Source<'_>, tokens: Tokens) -> Vec<Tokens> {
    let cursor = source.cursor(tokens);
    let (mut parts, mut depth): (Vec<Range<u32>>, usize) = (Vec::new(), 0);
    let mut start = tokens.start;
    for (token, number) in cursor.tokens.iter().zip(tokens.start..) {
        match token.kind {
            TokenKind::Punctuation(b'(' | b'[') => depth += 1,
            TokenKind::Punctuation(b')' | b']') => depth = depth.saturating_sub(1),
            TokenKind::Punctuation(b',') if depth == 0 => {
                parts.push(start..number);
                start = number + 1;
            }
            _ => {}
        }
    }
    parts.push(start..tokens.end);
    parts.into_iter().filter(|part| !part.is_empty()).map(|part| Tokens { start: part.start, end: part.end }).collect()
}

/// Words that begin a clause of a query.
const CLAUSES: [&str; 13] = [
    "select", "into", "from", "where", "group", "having", "window", "order", "limit", "offset", "fetch", "for", "union",
];
