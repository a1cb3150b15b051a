//! Prepared statements that a server is to make anew, because what it made of them does not hold any more.

use bytes::Bytes;

use super::connection::{Connection, statement_name};
use super::login::read_parameter;
use super::owed::{Cause, Event, Payee, Verdict};
use crate::error::Error;
use crate::wire::frame::{Header, client};
use crate::wire::message::{mix_description, put_bare, put_named, put_parse};

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
            put_parse(&mut self.channel.output, &name, statement.text, statement.types);
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

    async fn hear_descriptions(
        &mut self,
        report: &mut (dyn FnMut(&str, &str) + Send),
    ) -> Result<Result<Vec<u32>, Bytes>, Error> {
        let (mut descriptions, mut parts, mut failure) = (Vec::new(), 0, None);
        self.channel.flush().await.map_err(|cause| self.lost(&cause))?;
        while !self.owed.is_empty() {
            let Some((settled, header)) = self.settle_whole()? else {
                if self.channel.fill().await.map_err(|cause| self.lost(&cause))? == 0 {
                    return Err(self.lost(&std::io::ErrorKind::UnexpectedEof.into()));
                }
                continue;
            };
            let frame = self.channel.input.split_to(header.length).freeze();
            let body = frame.slice(Header::BYTES..);
            if settled.verdict == Verdict::Parameter {
                let (name, value) = read_parameter(&body)?;
                report(&name, &value);
            }
            match settled.event {
                Event::Described if parts % 2 == 0 => descriptions.push(mix_description(0, header.kind, &body)),
                Event::Described => {
                    descriptions.iter_mut().last().into_iter().for_each(|parameters| {
                        *parameters = mix_description(*parameters, header.kind, &body);
                    });
                }
                Event::Failed(_) => _ = failure.get_or_insert(body),
                _ => {}
            }
            parts += usize::from(settled.event == Event::Described);
        }
        Ok(failure.map_or(Ok(descriptions), Err))
    }
}
