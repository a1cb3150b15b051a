//! One write on several shards, all or none.
//!
//! The parts run in transactions of their own, which are then committed together (see `commit`).

use bytes::Bytes;

use super::commit::{Commit, commit};
use super::copy_in::copy_in;
use super::failure::Failure;
use super::fetch::fetch;
use super::keeping;
use super::one_by_one::one_by_one;
use super::relay::Broken;
use super::request::Request;
use super::scatter::{Ended, drain, next, send};
use super::staged::staged;
use super::writing::{Writing, Written};
use crate::backend::{Cause, Connection, Payee};
use crate::error::{Error, SqlState};
use crate::plan::{Spread, Tag, shards_of};
use crate::wire::Channel;
use crate::wire::frame::{Header, server};
use crate::wire::message::{put_bare, put_command_complete, put_query};

/// How one write comes to its end.
pub struct Decision<'a> {
    /// `None`: each part commits by itself.
    pub commit: Option<Commit<'a>>,
    /// Bytes of rows that may be held for RETURNING.
    pub limit_bytes: usize,
    /// Bytes of rows that may be fetched before.
    pub gather_limit: usize,
}

/// Runs every part, then commits. `inputs` are idle connections, one for each part, home first.
pub async fn write(
    client: &mut Channel,
    inputs: &mut [&mut Connection],
    writing: Writing<'_>,
    request: Request<'_>,
    decision: &Decision<'_>,
) -> Result<Ended, Broken> {
    let two_phase = decision.commit.is_some();
    let shards = writing.shards();
    let writers = writing.plan.shards().len();
    if two_phase {
        // Answered before the parts are sent: a part after a BEGIN that was cancelled would commit by itself.
        let failures = ask_all(client, inputs, "BEGIN").await?;
        if let Some(failure) = failures.into_iter().flatten().next() {
            return give_up(client, inputs, true, Failure::Server(failure)).await;
        }
    }
    if writing.keeping.is_some() {
        let failures = ask_all(client, &mut inputs[..writers], keeping::OPEN).await?;
        if let Some(failure) = failures.into_iter().flatten().next() {
            return give_up(client, inputs, two_phase, Failure::Server(failure)).await;
        }
    }
    let rows = &mut inputs[..writers];
    let answers = match writing.plan {
        Written::Spread(plan) if plan.one_by_one.is_some() => {
            one_by_one(client, rows, plan, request, decision.limit_bytes).await?
        }
        Written::Spread(plan) => parts(client, rows, plan, request, decision).await?,
        Written::Staged(plan) => staged(client, rows, plan, request, decision).await?,
        Written::Copy(plan) => copy_in(client, rows, plan, request).await?,
    };
    let answers = match answers {
        Ok(answers) => answers,
        Err(failure) => return give_up(client, inputs, two_phase, failure).await,
    };
    if let Some(kept) = writing.keeping {
        let keeper = shards.iter().position(|shard| *shard == kept.at).unwrap_or_default();
        let came = keeping::keep(client, inputs, (writers, keeper), kept, decision.gather_limit).await?;
        if let Err(failure) = came {
            return give_up(client, inputs, two_phase, failure).await;
        }
    }
    if let Some(terms) = decision.commit
        && let Some(failure) = commit(&mut client.output, inputs, terms).await?
    {
        return Ok(failure.tell(client));
    }
    answers.give(client, request);
    Ok(Ended::Done)
}

/// Every part of a write, at the same time.
async fn parts(
    client: &mut Channel,
    inputs: &mut [&mut Connection],
    plan: &Spread,
    request: Request<'_>,
    decision: &Decision<'_>,
) -> Result<Result<Answers, Failure>, Broken> {
    let shards = shards_of(&plan.parts);
    let tables = match fetch(client, (inputs, &shards), &plan.fetches, request, decision.gather_limit).await? {
        Ok(tables) => tables,
        Err(failure) => return Ok(Err(failure)),
    };
    for (input, part) in inputs.iter_mut().zip(&plan.parts) {
        match part.text.as_ref().filter(|_| !plan.fetches.is_empty()) {
            Some(text) => request.whole().put_gathered(input, text, &tables),
            None => request.put(input, part, 0, 0),
        }
        send(client, input).await?;
    }
    drop(tables);
    let mut answers = Answers { row_order: plan.row_order.clone(), ..Answers::default() };
    let same = if plan.tag == Tag::First { 1 } else { inputs.len() };
    let (first, others) = inputs.split_at_mut(same);
    if let Err(failure) = answers.collect_all(client, first, decision.limit_bytes).await? {
        return Ok(Err(failure));
    }
    // What is the same everywhere is told once.
    let told = client.put_so_far();
    let held = client.hold(usize::MAX);
    let collected = answers.collect_all(client, others, decision.limit_bytes).await;
    client.hold(held);
    let collected = collected?;
    client.take_back(told);
    answers.tag = tag(&answers.tags, plan.tag);
    answers.rows.truncate(same);
    Ok(collected.map(|()| answers))
}

/// What the parts answered, held until all are committed.
#[derive(Default)]
pub(super) struct Answers {
    pub columns: Option<Bytes>,
    pub rows: Vec<Vec<Bytes>>,
    bytes: usize,
    /// Of each answer.
    pub tags: Vec<String>,
    /// Of the whole statement.
    pub tag: String,
    /// See [`Spread::row_order`].
    row_order: Vec<u16>,
}

impl Answers {
    /// Of each connection in turn, up to the first failure.
    pub(super) async fn collect_all(
        &mut self,
        client: &mut Channel,
        inputs: &mut [&mut Connection],
        limit_bytes: usize,
    ) -> Result<Result<(), Failure>, Broken> {
        for input in inputs.iter_mut() {
            if let Err(failure) = self.collect(client, input, limit_bytes).await? {
                return Ok(Err(failure));
            }
        }
        Ok(Ok(()))
    }

    pub(super) async fn collect(
        &mut self,
        client: &mut Channel,
        input: &mut Connection,
        limit_bytes: usize,
    ) -> Result<Result<(), Failure>, Broken> {
        let mut rows = Vec::new();
        let mut failure = None;
        while !input.owed.is_empty() {
            let (kind, frame) = next(client, input).await?;
            match kind {
                server::ERROR => {
                    failure.get_or_insert(Failure::Server(frame));
                }
                server::ROW_DESCRIPTION => self.columns = Some(frame.slice(Header::BYTES..)),
                server::DATA_ROW => {
                    self.bytes += frame.len();
                    rows.push(frame);
                    if self.bytes > limit_bytes {
                        rows.clear();
                        let message =
                            format!("the rows that the statement returns exceed merge_limit ({limit_bytes} B)");
                        let error = Error::new(SqlState::TOO_LARGE, message).with_hint("Leave out RETURNING.");
                        failure.get_or_insert(Failure::Proxy(error));
                    }
                }
                server::COMMAND_COMPLETE => {
                    let tag = frame[Header::BYTES..].strip_suffix(&[0]).unwrap_or_default();
                    self.tags.push(String::from_utf8_lossy(tag).into_owned());
                }
                _ => {}
            }
        }
        self.rows.push(rows);
        Ok(failure.map_or(Ok(()), Err))
    }

    fn give(self, client: &mut Channel, request: Request<'_>) {
        request.put_head(&mut client.output, self.columns.as_deref());
        let rows = in_order(self.rows, &self.row_order);
        let most = usize::try_from(request.rows()).unwrap_or(usize::MAX);
        if most > 0 && rows.len() >= most {
            rows[..most].iter().for_each(|row| client.output.extend_from_slice(row));
            put_bare(&mut client.output, server::PORTAL_SUSPENDED);
        } else {
            rows.iter().for_each(|row| client.output.extend_from_slice(row));
            put_command_complete(&mut client.output, &self.tag);
        }
    }
}

/// The parts' rows in the order of the statement.
fn in_order(rows: Vec<Vec<Bytes>>, row_order: &[u16]) -> Vec<Bytes> {
    let mut rows: Vec<_> = rows.into_iter().map(Vec::into_iter).collect();
    let next = |&part: &u16| rows.get_mut(usize::from(part)).and_then(Iterator::next);
    let mut ordered: Vec<Bytes> = row_order.iter().filter_map(next).collect();
    ordered.extend(rows.into_iter().flatten());
    ordered
}

async fn give_up(
    client: &mut Channel,
    inputs: &mut [&mut Connection],
    rollback: bool,
    failure: Failure,
) -> Result<Ended, Broken> {
    for input in inputs.iter_mut() {
        drain(client, input).await?;
        if rollback {
            ask(client, input, "ROLLBACK").await?;
        }
    }
    Ok(failure.tell(client))
}

/// Runs a text of the proxy's own on each; gives each one's ErrorResponse frame.
async fn ask_all(
    client: &mut Channel,
    inputs: &mut [&mut Connection],
    sql: &str,
) -> Result<Vec<Option<Bytes>>, Broken> {
    for input in inputs.iter_mut() {
        put_query(&mut input.channel.output, sql);
        input.owed.push(Cause::Query, Payee::Nobody);
        send(client, input).await?;
    }
    let mut failures = Vec::new();
    for input in inputs.iter_mut() {
        failures.push(drain(client, input).await?);
    }
    Ok(failures)
}

async fn ask(client: &mut Channel, input: &mut Connection, sql: &str) -> Result<Option<Bytes>, Broken> {
    Ok(ask_all(client, &mut [input], sql).await?.pop().flatten())
}

/// The command tag of the whole statement: `INSERT 0 3`, `UPDATE 3`, `CREATE TABLE`.
pub(super) fn tag(tags: &[String], how: Tag) -> String {
    let first = tags.first().cloned().unwrap_or_default();
    if how == Tag::First {
        return first;
    }
    match (first.rsplit_once(' '), tags.iter().map(|tag| count(tag)).sum::<Option<u64>>()) {
        (Some((command, _)), Some(sum)) => format!("{command} {sum}"),
        _ => first,
    }
}

/// How many rows a command tag tells of.
pub(super) fn count(tag: &str) -> Option<u64> {
    tag.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_counts_add_up() {
        let tags = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(tag(&tags(&["INSERT 0 2", "INSERT 0 3"]), Tag::Sum), "INSERT 0 5");
        assert_eq!(tag(&tags(&["DELETE 1", "DELETE 0"]), Tag::Sum), "DELETE 1");
        assert_eq!(tag(&tags(&["UPDATE 4", "UPDATE 4"]), Tag::First), "UPDATE 4");
        assert_eq!(tag(&tags(&["CREATE TABLE", "CREATE TABLE"]), Tag::Sum), "CREATE TABLE");
    }
}
