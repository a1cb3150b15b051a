//! A statement that no transaction can hold: on one shard after another, up to the first where it fails.

use bytes::BytesMut;

use super::failure::Failure;
use super::gather::values_of;
use super::relay::Broken;
use super::request::Request;
use super::scatter::send;
use super::spread::Answers;
use crate::backend::{Cause, Connection, Payee};
use crate::error::Error;
use crate::plan::{OneByOne, Part, Spread};
use crate::wire::Channel;
use crate::wire::frame::Header;
use crate::wire::message::{put_error_with, put_query};

pub(super) async fn one_by_one(
    client: &mut Channel,
    inputs: &mut [&mut Connection],
    plan: &Spread,
    request: Request<'_>,
    limit_bytes: usize,
) -> Result<Result<Answers, Failure>, Broken> {
    let how = plan.one_by_one.clone().unwrap_or_default();
    let mut answers = Answers::default();
    for (index, input) in inputs.iter_mut().enumerate() {
        let stand = Stand { plan, how: &how, index, text: request.text() };
        let came = match stand.run(client, input, request, (&mut answers, limit_bytes)).await {
            Ok(came) => came,
            Err(Broken::Server { error, midway }) => {
                return Err(Broken::Server { error: stand.describe_loss(error), midway });
            }
            Err(broken) => return Err(broken),
        };
        if let Err(failure) = came {
            let left = match &how.clearing {
                Some(question) => statements(client, input, question).await?.unwrap_or_default(),
                None => Vec::new(),
            };
            return Ok(Err(stand.describe(failure, &left)));
        }
    }
    answers.tag = answers.tags.first().cloned().unwrap_or_default();
    answers.rows.truncate(1);
    Ok(Ok(answers))
}

/// What a query of the proxy's own gives: one text a row.
async fn statements(
    client: &mut Channel,
    input: &mut Connection,
    question: &str,
) -> Result<Result<Vec<String>, Failure>, Broken> {
    let rows = match ask(client, input, question).await? {
        Ok(answers) => answers.rows.concat(),
        Err(failure) => return Ok(Err(failure)),
    };
    let text = |frame: &bytes::Bytes| Some(values_of(&frame[Header::BYTES..]).ok()?.first()?.as_ref()?.to_string());
    Ok(Ok(rows.iter().filter_map(text).collect()))
}

async fn ask(client: &mut Channel, input: &mut Connection, sql: &str) -> Result<Result<Answers, Failure>, Broken> {
    put_query(&mut input.channel.output, sql);
    input.owed.push(Cause::Query, Payee::Nobody);
    send(client, input).await?;
    let mut answers = Answers::default();
    Ok(answers.collect(client, input, usize::MAX).await?.map(|()| answers))
}

/// How far the statement has come.
struct Stand<'a> {
    plan: &'a Spread,
    how: &'a OneByOne,
    /// Of the part that failed.
    index: usize,
    text: &'a [u8],
}

impl Stand<'_> {
    /// The statement on one shard, and what mends there what an attempt before it has left.
    async fn run(
        &self,
        client: &mut Channel,
        input: &mut Connection,
        request: Request<'_>,
        (answers, limit_bytes): (&mut Answers, usize),
    ) -> Result<Result<(), Failure>, Broken> {
        request.put(input, &self.plan.parts[self.index], 0, 0);
        send(client, input).await?;
        if let Err(failure) = answers.collect(client, input, limit_bytes).await? {
            return Ok(Err(failure));
        }
        let Some(question) = &self.how.mending else { return Ok(Ok(())) };
        let more = match statements(client, input, question).await? {
            Ok(more) => more,
            Err(failure) => return Ok(Err(failure)),
        };
        for text in more {
            if let Err(failure) = ask(client, input, &text).await? {
                return Ok(Err(failure));
            }
        }
        Ok(Ok(()))
    }

    /// `left`: what clears away what it has left where it failed.
    fn describe(&self, failure: Failure, left: &[String]) -> Failure {
        if self.index == 0 && left.is_empty() {
            // As if it had not been.
            return failure;
        }
        let (detail, hint) = (self.detail(), self.repair(left));
        match failure {
            Failure::Server(frame) => {
                let mut told = BytesMut::new();
                put_error_with(&mut told, &frame[Header::BYTES..], &detail, &hint);
                Failure::Server(told.freeze())
            }
            Failure::Proxy(error) => Failure::Proxy(error.with_detail(detail).with_hint(hint)),
        }
    }

    fn describe_loss(&self, error: Error) -> Error {
        let why = error.detail.clone().map(|why| format!("{why}\n")).unwrap_or_default();
        error.with_detail(why + &self.detail()).with_hint(self.repair(&[]))
    }

    /// Which shards it is done on, and which not.
    fn detail(&self) -> String {
        let name = |parts: &[Part]| {
            let shards: Vec<String> = parts.iter().map(|part| part.shard.0.to_string()).collect();
            format!("shard{} {}", if shards.len() == 1 { "" } else { "s" }, shards.join(", "))
        };
        let (done, rest) = self.plan.parts.split_at(self.index);
        let (failed, rest) = rest.split_at(1);
        let done = if done.is_empty() { String::new() } else { format!("Done on {}; ", name(done)) };
        let rest = if rest.is_empty() { String::new() } else { format!("; not begun on {}", name(rest)) };
        let failed =
            if done.is_empty() { format!("Failed on {}", name(failed)) } else { format!("failed on {}", name(failed)) };
        format!("{done}{failed}{rest}.")
    }

    /// What brings all shards to the same, once what made it fail is gone.
    fn repair(&self, left: &[String]) -> String {
        if self.how.repeatable {
            return "The same statement again does what is left to do, and mends what has failed.".to_owned();
        }
        let text = String::from_utf8_lossy(self.text);
        let text = text.trim().trim_end_matches(';');
        let mut statements: Vec<String> = Vec::new();
        for (index, part) in self.plan.parts.iter().enumerate().skip(self.index) {
            let on = format!("/* pgweir: shard={} */", part.shard.0);
            if index == self.index {
                statements.extend(left.iter().map(|clearing| format!("{on} {clearing}")));
            }
            statements.push(format!("{on} {text}"));
        }
        format!("When the cause is gone, run: {};", statements.join("; "))
    }
}
