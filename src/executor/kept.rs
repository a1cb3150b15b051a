//! An answer that is not for the client, but for statements that come after it.

use bytes::{Bytes, BytesMut};

use super::gather::values_of;
use crate::error::{Error, SqlState};
use crate::merge::{Columns, Merge};
use crate::statement::{quoted_literal, quoted_name};
use crate::wire::frame::{Header, server};

/// What a statement gave, as text.
#[derive(Debug, Default)]
pub struct Kept {
    columns: Option<Columns>,
    rows: Vec<Bytes>,
    /// As its command tag says.
    pub count: u64,
    /// What the client is to be told nevertheless.
    pub told: BytesMut,
}

impl Kept {
    /// Of the frames of an answer.
    pub fn read(mut answer: Bytes) -> Result<Self, Error> {
        let mut kept = Self::default();
        while let Some(header) = Header::whole(&answer)? {
            let frame = answer.split_to(header.length);
            let body = frame.slice(Header::BYTES..);
            match header.kind {
                server::ROW_DESCRIPTION => kept.columns = Some(Columns::parse(&body)?),
                server::DATA_ROW => kept.rows.push(body),
                server::COMMAND_COMPLETE => {
                    let tag = body.strip_suffix(&[0]).and_then(|tag| std::str::from_utf8(tag).ok()).unwrap_or_default();
                    kept.count = tag.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0);
                }
                server::BIND_COMPLETE | server::NO_DATA | server::PARSE_COMPLETE => {}
                _ => kept.told.extend_from_slice(&frame),
            }
        }
        Ok(kept)
    }

    /// Of each column, with its modifier.
    pub fn types(&self) -> Vec<(u32, i32)> {
        self.columns.as_ref().map(Columns::modified_types).unwrap_or_default()
    }

    pub fn names(&self) -> Vec<String> {
        let name = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let columns = self.columns.iter().flat_map(|columns| columns.names(&Merge::default()));
        columns.map(name).collect()
    }

    /// The values of each row. An error: some text is not UTF-8.
    pub fn rows(&self) -> Result<Vec<Vec<Option<&str>>>, Error> {
        self.rows.iter().map(|row| values_of(row)).collect()
    }

    /// The rows as a query of constants; `types`: the names of their columns' types.
    pub fn query(&self, types: &[String]) -> Result<String, Error> {
        self.query_of(types, &|_| true)
    }

    /// The same of some of them, by their numbers.
    pub fn query_of(&self, types: &[String], is: &dyn Fn(usize) -> bool) -> Result<String, Error> {
        if self.columns.is_none() {
            return Err(Error::new(SqlState::INTERNAL, "a statement gave no columns where it was to give rows"));
        }
        let names: Vec<String> = self.names().iter().map(|name| quoted_name(name)).collect();
        let mut chosen = self.rows.iter().enumerate().filter(|(index, _)| is(*index)).peekable();
        if chosen.peek().is_none() {
            let nothing = types.iter().zip(&names).map(|(of, name)| format!("NULL::{of} AS {name}"));
            return Ok(format!("SELECT {} WHERE false", nothing.collect::<Vec<_>>().join(", ")));
        }
        let mut rows = Vec::with_capacity(self.rows.len());
        for (_, row) in chosen {
            let values = values_of(row)?.into_iter().zip(types).map(|(value, of)| match value {
                Some(value) => format!("{}::{of}", quoted_literal(value)),
                None => format!("NULL::{of}"),
            });
            rows.push(format!("({})", values.collect::<Vec<_>>().join(", ")));
        }
        Ok(format!("SELECT * FROM (VALUES {}) AS kept({})", rows.join(", "), names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;

    use super::*;
    use crate::wire::message::{put_columns, put_command_complete, put_row};

    #[test]
    fn rows_become_a_query_that_gives_them() {
        let mut answer = BytesMut::new();
        put_columns(&mut answer, &[("id", 20, 8, 0), ("it's", 25, -1, 0)]);
        let none = answer.clone().freeze();
        put_row(&mut answer, &[Some("5"), Some("O'Hara")]);
        put_row(&mut answer, &[Some("6"), None]);
        put_command_complete(&mut answer, "DELETE 2");
        answer.put_slice(b"N\0\0\0\x04");
        let kept = Kept::read(answer.freeze()).unwrap();
        let types = ["bigint".to_owned(), "text".to_owned()];
        assert_eq!((kept.types(), kept.count, kept.told.len()), (vec![(20, -1), (25, -1)], 2, 5));
        assert_eq!(
            kept.query(&types).unwrap(),
            "SELECT * FROM (VALUES ('5'::bigint, 'O''Hara'::text), ('6'::bigint, NULL::text)) AS kept(\"id\", \"it's\")"
        );
        let query = Kept::read(none).unwrap().query(&types).unwrap();
        assert_eq!(query, "SELECT NULL::bigint AS \"id\", NULL::text AS \"it's\" WHERE false");
    }
}
