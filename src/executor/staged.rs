//! A write whose later statements are made of what the first ones gave, within the transactions that are open.

use bytes::{BufMut, Bytes, BytesMut};

use super::failure::Failure;
use super::fetch::{fetch, write_out};
use super::gather::{Collected, put_with, rows_of, types_of};
use super::relay::Broken;
use super::request::Request;
use super::scatter::send;
use super::spread::{Answers, Decision, count, tag};
use crate::backend::Connection;
use crate::error::{Error, SqlState};
use crate::merge::{Columns, Merge};
use crate::plan::{Create, Goal, Local, Looked, Mirror, Move, Staged, Step, Tag};
use crate::topology::ShardId;
use crate::wire::frame::{Header, malformed, put, server};
use crate::wire::{Channel, TextArray};

/// `inputs` are connections to the plan's shards, in their order.
pub(super) async fn staged(
    client: &mut Channel,
    inputs: &mut [&mut Connection],
    plan: &Staged,
    request: Request<'_>,
    decision: &Decision<'_>,
) -> Result<Result<Answers, Failure>, Broken> {
    let request = request.whole();
    let known = match plan {
        // Its statements are others than the client's.
        Staged::Move(_) => types_of(client, &mut *inputs[0], request).await?,
        Staged::Mirror(_) | Staged::Create(_) | Staged::Local(_) => Ok(Vec::new()),
    };
    let known = match known {
        Ok(types) => types,
        Err(frame) => return Ok(Err(Failure::Server(frame))),
    };
    let request = request.with_types(&known);
    let fetched = fetch(client, (inputs, plan.shards()), plan.fetches(), request, decision.gather_limit).await?;
    let tables = match fetched {
        Ok(tables) => tables,
        Err(failure) => return Ok(Err(failure)),
    };
    match plan {
        Staged::Move(plan) => move_rows(client, inputs, (plan, tables), request, decision).await,
        Staged::Mirror(plan) => mirror(client, inputs, (plan, tables), request, decision).await,
        Staged::Create(plan) => create(client, inputs, (plan, tables), request, decision).await,
        Staged::Local(plan) => local(client, inputs, (plan, tables), request, decision).await,
    }
}

async fn move_rows(
    client: &mut Channel,
    inputs: &mut [&mut Connection],
    (plan, tables): (&Move, Vec<TextArray>),
    request: Request<'_>,
    decision: &Decision<'_>,
) -> Result<Result<Answers, Failure>, Broken> {
    let found = match look(client, inputs, (plan, &tables), request, decision.gather_limit).await? {
        Ok(found) => found,
        Err(failure) => return Ok(Err(failure)),
    };
    let looked = found
        .iter()
        .map(|(shard, collected)| collected.rows().map(|rows| Looked { shard: *shard, types: &collected.types, rows }));
    let steps = looked.collect::<Result<Vec<_>, Error>>().and_then(|looked| plan.moved.steps(&looked));
    let steps = match steps {
        Ok(steps) => steps,
        Err(error) => return Ok(Err(Failure::Proxy(error))),
    };
    drop(found);
    let mut answers = Answers::default();
    for stage in &steps.stages {
        let came = run(client, (inputs, &plan.shards), (stage, &tables), request, (&mut answers, decision)).await?;
        if let Err(failure) = came {
            return Ok(Err(failure));
        }
    }
    answers.tag = format!("UPDATE {}", steps.count);
    Ok(Ok(answers))
}

/// The rows that each shard locks.
async fn look(
    client: &mut Channel,
    inputs: &mut [&mut Connection],
    (plan, tables): (&Move, &[TextArray]),
    request: Request<'_>,
    limit_bytes: usize,
) -> Result<Result<Vec<(ShardId, Collected)>, Failure>, Broken> {
    for &shard in &plan.from {
        let input = &mut *inputs[place(&plan.shards, shard)];
        request.put_collected(input, &plan.look, tables);
        send(client, input).await?;
    }
    let mut found = Vec::new();
    for &shard in &plan.from {
        match rows_of(client, &mut *inputs[place(&plan.shards, shard)], limit_bytes).await? {
            Ok(collected) => found.push((shard, collected)),
            Err(failure) => return Ok(Err(failure)),
        }
    }
    Ok(Ok(found))
}

/// The steps of one stage, at the same time.
async fn run(
    client: &mut Channel,
    (inputs, shards): (&mut [&mut Connection], &[ShardId]),
    (stage, tables): (&[Step], &[TextArray]),
    request: Request<'_>,
    (answers, decision): (&mut Answers, &Decision<'_>),
) -> Result<Result<(), Failure>, Broken> {
    for Step { part, goal } in stage {
        let input = &mut *inputs[place(shards, part.shard)];
        match (goal, &part.text) {
            (Goal::Own(_), Some(text)) => request.put_gathered(input, text, tables),
            (Goal::Answer(_), _) => request.put(input, part, 0, 0),
            _ => Request::Simple { text: &[] }.put(input, part, 0, 0),
        }
        send(client, input).await?;
    }
    for Step { part, goal } in stage {
        let input = &mut *inputs[place(shards, part.shard)];
        let mut aside = Answers::default();
        let heard = match goal {
            Goal::Own(_) | Goal::Answer(_) => &mut *answers,
            Goal::Nothing(_) | Goal::Change(_) => &mut aside,
        };
        if let Err(failure) = heard.collect(client, input, decision.limit_bytes).await? {
            return Ok(Err(failure));
        }
        let changed = heard.tags.last().and_then(|tag| count(tag));
        let wrong = match goal {
            Goal::Nothing(error) => (changed != Some(0)).then(|| error.clone()),
            Goal::Own(rows) | Goal::Answer(rows) | Goal::Change(rows) => {
                (changed != u64::try_from(*rows).ok()).then(changed_meanwhile)
            }
        };
        if let Some(error) = wrong {
            return Ok(Err(Failure::Proxy(error)));
        }
    }
    Ok(Ok(()))
}

async fn mirror(
    client: &mut Channel,
    inputs: &mut [&mut Connection],
    (plan, tables): (&Mirror, Vec<TextArray>),
    request: Request<'_>,
    decision: &Decision<'_>,
) -> Result<Result<Answers, Failure>, Broken> {
    let Some((first, others)) = inputs.split_first_mut() else { return Ok(Ok(Answers::default())) };
    request.put_over(first, &plan.text, &tables, 1);
    drop(tables);
    send(client, first).await?;
    let mut answers = Answers::default();
    if let Err(failure) = answers.collect(client, first, decision.limit_bytes).await? {
        return Ok(Err(failure));
    }
    let rows = match answers.take_hidden(plan.returning) {
        Ok(rows) => rows,
        Err(error) => return Ok(Err(Failure::Proxy(error))),
    };
    answers.tag = tag(&answers.tags, Tag::First);
    if rows.elements() == 0 {
        return Ok(Ok(answers));
    }
    let (count, rows) = (u64::try_from(rows.elements()).ok(), [rows]);
    for other in others.iter_mut() {
        Request::Simple { text: &[] }.put_gathered(other, &plan.copy, &rows);
        send(client, other).await?;
    }
    for other in others.iter_mut() {
        let mut aside = Answers::default();
        if let Err(failure) = aside.collect(client, other, decision.limit_bytes).await? {
            return Ok(Err(failure));
        }
        if aside.tags.last().and_then(|tag| self::count(tag)) != count {
            return Ok(Err(Failure::Proxy(differs(&plan.table, other))));
        }
    }
    Ok(Ok(answers))
}

async fn create(
    client: &mut Channel,
    inputs: &mut [&mut Connection],
    (plan, tables): (&Create, Vec<TextArray>),
    request: Request<'_>,
    decision: &Decision<'_>,
) -> Result<Result<Answers, Failure>, Broken> {
    let filled = match write_out(&plan.filled, &tables) {
        Ok(filled) => filled,
        Err(error) => return Ok(Err(Failure::Proxy(error))),
    };
    drop(tables);
    for (index, input) in inputs.iter_mut().enumerate() {
        request.put_written_out(input, if index == 0 { &filled } else { &plan.empty });
        send(client, input).await?;
    }
    let mut answers = Answers::default();
    let collected = answers.collect_all(client, inputs, decision.limit_bytes).await?;
    answers.tag = tag(&answers.tags, Tag::First);
    Ok(collected.map(|()| answers))
}

async fn local(
    client: &mut Channel,
    inputs: &mut [&mut Connection],
    (plan, tables): (&Local, Vec<TextArray>),
    request: Request<'_>,
    decision: &Decision<'_>,
) -> Result<Result<Answers, Failure>, Broken> {
    let Some(home) = inputs.first_mut() else { return Ok(Ok(Answers::default())) };
    if let Err(error) = put_with(home, request, (&plan.text, plan.written_out), tables) {
        return Ok(Err(Failure::Proxy(error)));
    }
    send(client, home).await?;
    let mut answers = Answers::default();
    let collected = answers.collect(client, home, decision.limit_bytes).await?;
    answers.tag = tag(&answers.tags, Tag::First);
    Ok(collected.map(|()| answers))
}

impl Answers {
    /// Takes the last column off the rows. `shows`: there are others, which the client is to see.
    fn take_hidden(&mut self, shows: bool) -> Result<TextArray, Error> {
        let mut taken = TextArray::default();
        for row in self.rows.iter_mut().flatten() {
            let (seen, last) = without_last(row)?;
            taken.push(&last);
            *row = seen;
        }
        if shows {
            let hidden = Merge { hidden: 1, ..Merge::default() };
            let columns = self.columns.as_ref().map(|body| Columns::parse(body)).transpose()?;
            self.columns = columns.map(|columns| Bytes::from(columns.visible(&hidden)));
        } else {
            (self.columns, self.rows) = (None, Vec::new());
        }
        Ok(taken)
    }
}

/// A DataRow without its last value, and that.
fn without_last(row: &Bytes) -> Result<(Bytes, Bytes), Error> {
    let short = || malformed("a short row");
    let count = row.get(Header::BYTES..Header::BYTES + 2).map(|count| u16::from_be_bytes([count[0], count[1]]));
    let count = count.and_then(|count| count.checked_sub(1)).ok_or_else(short)?;
    let mut end = Header::BYTES + 2;
    for _ in 0..count {
        let length = row.get(end..).and_then(<[u8]>::first_chunk).ok_or_else(short)?;
        end += 4 + usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
    }
    let values = row.get(Header::BYTES + 2..end).ok_or_else(short)?;
    let mut seen = BytesMut::new();
    put(&mut seen, server::DATA_ROW, |body| {
        body.put_u16(count);
        body.put_slice(values);
    });
    let last = row.get(end + 4..).ok_or_else(short)?;
    Ok((seen.freeze(), row.slice_ref(last)))
}

fn differs(table: &str, connection: &Connection) -> Error {
    let shard = connection.server.shard.0;
    let message = format!("reference table \"{table}\" has other rows on shard {shard}: nothing was written");
    Error::new(SqlState::NOT_IN_STATE, message).with_hint("Its rows must be the same on every shard.")
}

fn place(shards: &[ShardId], shard: ShardId) -> usize {
    shards.iter().position(|known| *known == shard).expect("it is among the plan's")
}

fn changed_meanwhile() -> Error {
    Error::new(SqlState::SERIALIZATION_FAILURE, "rows have changed while they were moved between shards")
        .with_hint("Try the transaction again.")
}
