//! Values that are unique over all shards: what a write has given and taken, by the triggers of each shard, is told to the
//! shard that keeps them, in the same transaction.

use bytes::BytesMut;

use super::failure::Failure;
use super::relay::Broken;
use super::request::Request;
use super::scatter::send;
use super::spread::Answers;
use crate::backend::{Cause, Connection, Payee};
use crate::error::Error;
use crate::merge::cells;
use crate::plan::Keeping;
use crate::wire::frame::{Header, server};
use crate::wire::message::{error_field, put_query};
use crate::wire::{Channel, TextArray, frame};

/// Lets the triggers note what is changed, up to [`keep`].
pub(super) const OPEN: &str = "SET LOCAL pgweir.unique_columns = 'kept'";

/// After the write. The rows were written on the first `writers` of the connections; the values are kept behind `keeper`.
pub(super) async fn keep(
    client: &mut Channel,
    inputs: &mut [&mut Connection],
    (writers, keeper): (usize, usize),
    keeping: Keeping,
    limit_bytes: usize,
) -> Result<Result<(), Failure>, Broken> {
    for input in &mut inputs[..writers] {
        put_query(&mut input.channel.output, TAKE);
        input.owed.push(Cause::Query, Payee::Nobody);
        send(client, input).await?;
    }
    let mut taken = Answers::default();
    if let Err(failure) = taken.collect_all(client, &mut inputs[..writers], limit_bytes).await? {
        return Ok(Err(failure));
    }
    let mut columns: [TextArray; 4] = Default::default();
    for row in taken.rows.iter().flatten() {
        // None is NULL.
        cells(&row[Header::BYTES..]).flatten().zip(&mut columns).for_each(|(value, column)| column.push(value));
    }
    if columns[0].elements() == 0 {
        return Ok(Ok(()));
    }
    Request::Simple { text: &[] }.put_gathered(inputs[keeper], KEEP, &columns);
    drop(columns);
    send(client, inputs[keeper]).await?;
    let kept = Answers::default().collect(client, inputs[keeper], limit_bytes).await?;
    Ok(kept.map_err(|failure| match failure {
        Failure::Server(frame) => told(&frame[Header::BYTES..], keeping),
        failure @ Failure::Proxy(_) => failure,
    }))
}

/// As PostgreSQL would have said it of one index.
fn told(body: &[u8], keeping: Keeping) -> Failure {
    if keeping.on_conflict && error_field(body, b'C') == Some(UNIQUE_VIOLATION) {
        let what = "ON CONFLICT with a row on another shard";
        let error = Error::unsupported(what, "Look for the row first, and update it where it is.");
        return Failure::Proxy(error.with_detail(error_field(body, b'D').unwrap_or_default()));
    }
    let mut told = BytesMut::new();
    frame::put(&mut told, server::ERROR, |out| {
        let is_own = |field: &&[u8]| !field.is_empty() && field[0] != b'W';
        for field in body.split(|byte| *byte == 0).filter(is_own) {
            out.extend_from_slice(field);
            out.extend_from_slice(&[0]);
        }
        out.extend_from_slice(&[0]);
    });
    Failure::Server(told.freeze())
}

const TAKE: &str = "SELECT relation, field, value, change FROM pgweir.take_unique()";
const KEEP: &str = "SELECT pgweir.keep_unique($1, $2, $3, $4)";
const UNIQUE_VIOLATION: &str = "23505";
