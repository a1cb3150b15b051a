//! Prepared statements that a server is to make anew, because what it made of them does not hold any more.

use bytes::Bytes;

use super::connection::{Connection, statement_name};
use super::owed::{Cause, Event, Payee};
use crate::error::Error;
use crate::wire::column_types_in;
use crate::wire::frame::{client, server};
use crate::wire::message::{mix_description, put_bare, put_named, types_in};

/// A statement to be prepared and described.
pub struct Anew<'a> {
    pub number: u64,
    pub text: &'a [u8],
    pub types: &'a [u32],
}

impl Connection {
    /// Closes the statements of these numbers, then prepares others; gives what each of those looks like (see
    /// [`mix_description`]), or the body of the error.
    pub async fn make_anew(
        &mut self,
        made: &[Anew<'_>],
        closed: &[u64],
        report: &mut (dyn FnMut(&str, &str) + Send),
    ) -> Result<Result<Vec<u32>, Bytes>, Error> {
        closed.iter().for_each(|&number| self.close_statement(number));
        for statement in made {
            let name = statement_name(statement.number);
            self.put_parse(&name, statement.text, statement.types);
            self.owed.push(Cause::Parse(Some(statement.number)), Payee::Nobody);
            put_named(&mut self.channel.output, client::DESCRIBE, b'S', &name);
            self.owed.push(Cause::DescribeStatement, Payee::Nobody);
        }
        put_bare(&mut self.channel.output, client::SYNC);
        self.owed.push(Cause::Sync, Payee::Nobody);
        let described = self.hear_descriptions(report).await?;
        for (statement, &description) in made.iter().zip(described.as_deref().unwrap_or_default()) {
            self.note_description(statement.number, description);
        }
        Ok(described)
    }

    /// The types of the parameters of a statement that the server has, by the numbers that clients know, or the body of the
    /// error.
    pub async fn parameter_types(&mut self, number: u64) -> Result<Result<Vec<u32>, Bytes>, Error> {
        put_named(&mut self.channel.output, client::DESCRIBE, b'S', &statement_name(number));
        put_bare(&mut self.channel.output, client::SYNC);
        self.owed.push(Cause::DescribeStatement, Payee::Nobody);
        self.owed.push(Cause::Sync, Payee::Nobody);
        self.hear_types(server::PARAMETER_DESCRIPTION, types_in).await
    }

    /// The types of the columns of a query that is not run, by the numbers that clients know, or the body of the error.
    pub async fn column_types(&mut self, sql: &str) -> Result<Result<Vec<u32>, Bytes>, Error> {
        self.unnamed = None;
        self.put_parse("", sql.as_bytes(), &[]);
        put_named(&mut self.channel.output, client::DESCRIBE, b'S', "");
        put_bare(&mut self.channel.output, client::SYNC);
        for cause in [Cause::Parse(None), Cause::DescribeStatement, Cause::Sync] {
            self.owed.push(cause, Payee::Nobody);
        }
        self.hear_types(server::ROW_DESCRIPTION, column_types_in).await
    }

    /// What is `read` from the message of this kind.
    async fn hear_types(&mut self, wanted: u8, read: fn(&[u8]) -> Vec<u32>) -> Result<Result<Vec<u32>, Bytes>, Error> {
        let mut types = Vec::new();
        let mut each = |_, kind, body: &[u8]| {
            if kind == wanted {
                types = read(body);
            }
        };
        let heard = self.hear(&mut |_, _| {}, &mut each).await?;
        Ok(heard.map(|()| types))
    }

    async fn hear_descriptions(
        &mut self,
        report: &mut (dyn FnMut(&str, &str) + Send),
    ) -> Result<Result<Vec<u32>, Bytes>, Error> {
        let (mut descriptions, mut parts): (Vec<u32>, usize) = (Vec::new(), 0);
        let mut each = |event, kind, body: &[u8]| {
            if event != Event::Described {
                return;
            }
            // Parameters, then columns.
            if parts % 2 == 0 {
                descriptions.push(mix_description(0, kind, body));
            } else if let Some(parameters) = descriptions.last_mut() {
                *parameters = mix_description(*parameters, kind, body);
            }
            parts += 1;
        };
        let heard = self.hear(report, &mut each).await?;
        Ok(heard.map(|()| descriptions))
    }
}
