//! Names and values in the texts that the proxy sends, as `PQescapeIdentifier` and `PQescapeLiteral` of libpq write them
//! where `standard_conforming_strings` is on (PostgreSQL documentation, 34.3.4).

pub fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub fn quoted_literal(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}
