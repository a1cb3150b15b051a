//! Names as PostgreSQL reads them.

use sqlparser::ast;

use super::types::ObjectName;

pub(super) fn ident(ident: &ast::Ident) -> String {
    let mut name = if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_ascii_lowercase() };
    // Longer names are cut (PostgreSQL documentation, 4.1.1).
    while name.len() > NAME_BYTES {
        name.pop();
    }
    name
}

const NAME_BYTES: usize = 63;

pub(super) fn last_part(name: &ast::ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map(ident).unwrap_or_default()
}

pub(super) fn object(name: &ast::ObjectName) -> ObjectName {
    let mut parts = name.0.iter().rev().map(|part| part.as_ident().map(ident).unwrap_or_default());
    let last = parts.next().unwrap_or_default();
    ObjectName { schema: parts.next(), name: last }
}

/// Something of PostgreSQL's own of such a name, unless another of that name comes first in the search path.
pub(super) fn is_own(object: &ObjectName, is: impl Fn(&str) -> bool) -> bool {
    object.schema.as_ref().is_none_or(|schema| schema == "pg_catalog") && is(&object.name)
}
