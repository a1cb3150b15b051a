//! A write whose later statements are made of what the first ones gave, within the transactions that are open.

use super::failure::Failure;
use super::gather::{Collected, fetch, rows_of, types_of};
use super::relay::Broken;
use super::request::Request;
use super::scatter::send;
use super::spread::{Answers, Decision, count};
use crate::backend::Connection;
use crate::error::{Error, SqlState};
use crate::plan::{Goal, Looked, Move, Staged, Step};
use crate::topology::ShardId;
use crate::wire::{Channel, TextArray};

/// `inputs` are connections to the plan's shards, in their order.
pub(super) async fn staged(
    client: &mut Channel,
    inputs: &mut [&mut Connection],
    plan: &Staged,
    request: Request<'_>,
    decision: &Decision<'_>,
) -> Result<Result<Answers, Failure>, Broken> {
    match plan {
        Staged::Move(plan) => move_rows(client, inputs, plan, request.whole(), decision).await,
    }
}

async fn move_rows(
    client: &mut Channel,
    inputs: &mut [&mut Connection],
    plan: &Move,
    request: Request<'_>,
    decision: &Decision<'_>,
) -> Result<Result<Answers, Failure>, Broken> {
    let known = match types_of(client, &mut *inputs[0], request).await? {
        // Those of the database's own have other numbers on other shards.
        Ok(types) => types.into_iter().map(|of| if of < FIRST_OWN_TYPE { of } else { 0 }).collect::<Vec<u32>>(),
        Err(frame) => return Ok(Err(Failure::Server(frame))),
    };
    let request = request.with_types(&known);
    let tables = match fetch(client, (inputs, &plan.shards), &plan.fetches, request, decision.gather_limit).await? {
        Ok(tables) => tables,
        Err(failure) => return Ok(Err(failure)),
    };
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

fn place(shards: &[ShardId], shard: ShardId) -> usize {
    shards.iter().position(|known| *known == shard).expect("it is among the plan's")
}

fn changed_meanwhile() -> Error {
    Error::new(SqlState::SERIALIZATION, "rows have changed while they were moved between shards")
        .with_hint("Try the transaction again.")
}

/// Types with a lower number are PostgreSQL's own (PostgreSQL documentation, 75.2.2).
const FIRST_OWN_TYPE: u32 = 16_384;
