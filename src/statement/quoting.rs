//! Names and values in the texts that the proxy sends, as `PQescapeIdentifier` and `PQescapeLiteral` of libpq write them
//! where `standard_conforming_strings` is on (PostgreSQL documentation, 34.3.4).

pub fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A literal that every session reads alike, whatever it makes of backslashes.
pub fn plain_literal(text: &str) -> String {
    match text.contains('\\') {
        true => format!("E{}", quoted_literal(&text.replace('\\', "\\\\"))),
        false => quoted_literal(text),
    }
}

pub fn quoted_literal(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}
