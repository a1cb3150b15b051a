//! Cursors over several shards: each has one of the name, over its part of the query, and their rows become one here, as
//! many at a time as are asked for (PostgreSQL documentation, DECLARE and FETCH).

use std::collections::VecDeque;

use bytes::Bytes;

use super::relay::{BUFFER_BYTES, Broken};
use super::request::Request;
use super::scatter::{Ended, Head, Row, differ, drain, head, put_end, row, send};
use crate::backend::{Cause, Connection, Payee};
use crate::error::{Error, SqlState};
use crate::merge::{Columns, Merge, Merger, Step};
use crate::plan::{Declared, Part, Scatter, shards_of};
use crate::statement::{Reach, quoted_name};
use crate::topology::ShardId;
use crate::wire::frame::{self, client, server};
use crate::wire::message::{put_bare, put_command_complete, put_named};
use crate::wire::{Bind, Channel};

/// One that is open, between two requests.
pub struct MergedCursor {
    pub name: String,
    /// Where it is open.
    pub shards: Vec<ShardId>,
    merge: Merge,
    /// As the shards give them, all as text.
    columns: Columns,
    /// Made for the formats in which rows are fetched, once some are.
    merger: Option<(Vec<u16>, Merger)>,
    inputs: Vec<Input>,
    given: Given,
    limit_bytes: usize,
}

/// A shard's rows that were fetched and not merged yet.
struct Input {
    rows: VecDeque<Bytes>,
    ended: bool,
    /// How many to fetch at a time.
    batch: u64,
}

/// The rows that were merged, as far as the cursor can go back to them.
struct Given {
    rows: VecDeque<Bytes>,
    bytes: usize,
    /// How many there were before these.
    forgotten: u64,
    ended: bool,
    /// Of the row on which it stands, from 1; 0: before the first, one more than there are: behind the last.
    position: u64,
    goes_back: bool,
}

/// What asks for rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    Fetch,
    /// MOVE: no rows are given.
    Move,
    /// An Execute of so many rows at most (0: all), of a portal that has been bound in its formats.
    Portal(u32),
}

/// Opens it; the client is told. What cannot be merged is closed again: the client has been told nothing.
pub async fn declare(
    client: &mut Channel,
    inputs: &mut [&mut Connection],
    (plan, declared): (&Scatter, &Declared),
    request: Request<'_>,
    limit_bytes: usize,
) -> Result<Result<MergedCursor, Ended>, Broken> {
    for (input, part) in inputs.iter_mut().zip(&plan.parts) {
        match request {
            // The formats are those of its rows.
            Request::Extended { text, types, bind, .. } if !declared.told => {
                let bind = &bind.as_text();
                let asked = Request::Extended { text, types, bind, described: false, bound: true, rows: 0 };
                asked.put(input, part, 0, 0);
            }
            _ => request.put(input, part, 0, 0),
        }
        put_named(&mut input.channel.output, client::DESCRIBE, b'P', &declared.name);
        put_bare(&mut input.channel.output, client::SYNC);
        [Cause::DescribePortal, Cause::Sync].into_iter().for_each(|cause| input.owed.push(cause, Payee::Client));
        send(client, input).await?;
    }
    let (mut columns, mut outcome): (Option<Columns>, _) = (None, Ok(()));
    for input in inputs.iter_mut() {
        match described(client, input).await? {
            Ok(found) => match columns.as_ref().and_then(|known| found.difference(known)) {
                None => drop(columns.get_or_insert(found)),
                Some(what) => outcome = outcome.and_then(|()| Err(Ended::Refused(differ(input, &what)))),
            },
            Err(ended) => outcome = outcome.and(Err(ended)),
        }
    }
    if let Err(ended) = outcome {
        if let Ended::Failed(frame) = &ended {
            client.output.extend_from_slice(frame);
        }
        return Ok(Err(ended));
    }
    let columns = columns.expect("a scatter has at least one part");
    let merge = plan.merge.located(columns.len());
    if let Err(error) = Merger::new(&merge, &columns, inputs.len(), limit_bytes) {
        for input in inputs.iter_mut() {
            close(input, &declared.name).await?;
        }
        return Ok(Err(Ended::Refused(error)));
    }
    if declared.told {
        put_answer(client, request, "DECLARE CURSOR");
    }
    let input = || Input { rows: VecDeque::new(), ended: false, batch: FIRST_BATCH };
    let given = Given {
        rows: VecDeque::new(),
        bytes: 0,
        forgotten: 0,
        ended: false,
        position: 0,
        goes_back: declared.goes_back,
    };
    let (name, shards) = (declared.name.clone(), shards_of(&plan.parts));
    let inputs = inputs.iter().map(|_| input()).collect();
    Ok(Ok(MergedCursor { name, shards, merge, columns, merger: None, inputs, given, limit_bytes }))
}

/// The columns of the portal, behind whatever opened it.
async fn described(client: &mut Channel, input: &mut Connection) -> Result<Result<Columns, Ended>, Broken> {
    loop {
        match head(client, input).await? {
            // Of the DECLARE itself, in the extended protocol.
            Head::None => {}
            Head::Columns(body) => {
                let columns = Columns::parse(&body).map_err(Ended::Refused);
                drain(client, input).await?;
                return Ok(columns);
            }
            Head::Failed(frame) => {
                // Only the first one counts: it failed what came behind it.
                drain(client, input).await?;
                return Ok(Err(Ended::Failed(frame)));
            }
        }
    }
}

/// Closes it on one of its shards.
async fn close(input: &mut Connection, name: &str) -> Result<(), Broken> {
    let closed = input.run(&format!("CLOSE {}", quoted_name(name))).await;
    closed.map(drop).map_err(|error| Broken::Server { error, midway: false })
}

/// What a statement that gives no rows is answered.
pub fn put_answer(client: &mut Channel, request: Request<'_>, tag: &str) {
    request.put_head(&mut client.output, None);
    put_command_complete(&mut client.output, tag);
}

impl MergedCursor {
    /// The RowDescription body of its rows, in the formats in which they are fetched.
    pub fn description(&self) -> Vec<u8> {
        let formats = self.merger.as_ref().map_or(&[][..], |(formats, _)| formats);
        self.columns.with_formats(formats).visible(&self.merge)
    }

    /// Carries out what asks for rows, with all of its answer.
    pub async fn fetch(
        &mut self,
        client: &mut Channel,
        inputs: &mut [&mut Connection],
        (reach, asking): (Reach, Asking),
        request: Request<'_>,
    ) -> Result<Ended, Broken> {
        if let Err(error) = self.take_formats(request, asking) {
            return Ok(Ended::Refused(error));
        }
        let gives = asking != Asking::Move;
        request.put_head(&mut client.output, gives.then(|| self.description()).as_deref());
        let mut fetching = Fetching { client, inputs, gives, count: 0 };
        match self.go(&mut fetching, reach).await {
            Ok(()) => {
                let count = fetching.count;
                match asking {
                    Asking::Fetch => put_command_complete(&mut client.output, &format!("FETCH {count}")),
                    Asking::Move => put_command_complete(&mut client.output, &format!("MOVE {count}")),
                    Asking::Portal(most) => put_end(client, count, most > 0 && count == u64::from(most)),
                }
                Ok(Ended::Done)
            }
            Err(Halt::Ended(ended)) => Ok(ended),
            Err(Halt::Broken(broken)) => Err(broken),
        }
    }

    /// Rows come in the formats that the first FETCH asks for. A MOVE takes any.
    fn take_formats(&mut self, request: Request<'_>, asking: Asking) -> Result<(), Error> {
        let asked = match request {
            Request::Extended { bind, .. } if asking != Asking::Move => bind.result_formats.to_vec(),
            _ => Vec::new(),
        };
        let asked = if asked.iter().all(|&format| format == 0) { Vec::new() } else { asked };
        match &self.merger {
            Some((formats, _)) if asking != Asking::Fetch || *formats == asked => Ok(()),
            Some(_) => Err(Error::unsupported(
                "rows of one cursor over several shards in different formats",
                "Fetch all of them as text, or all in binary.",
            )),
            None => {
                let columns = self.columns.with_formats(&asked);
                let merger = Merger::new(&self.merge, &columns, self.inputs.len(), self.limit_bytes)?;
                self.merger = Some((asked, merger));
                Ok(())
            }
        }
    }

    async fn go(&mut self, fetching: &mut Fetching<'_, '_>, reach: Reach) -> Result<(), Halt> {
        let position = self.given.position;
        match reach {
            Reach::Forward(count) if count < 0 => self.go_back(fetching, count.unsigned_abs()).await,
            Reach::Backward(count) if count < 0 => self.go_on(fetching, count.unsigned_abs()).await,
            Reach::Forward(0) | Reach::Backward(0) | Reach::Relative(0) => self.stay(fetching).await,
            Reach::Forward(count) => self.go_on(fetching, count.unsigned_abs()).await,
            Reach::Backward(count) => self.go_back(fetching, count.unsigned_abs()).await,
            Reach::Absolute(place) if place >= 0 => self.go_to(fetching, place.unsigned_abs()).await,
            Reach::Absolute(place) => {
                let count = self.go_to_end(fetching).await?;
                self.go_to(fetching, (count + 1).saturating_sub(place.unsigned_abs())).await
            }
            Reach::Relative(steps) => self.go_to(fetching, position.saturating_add_signed(steps)).await,
        }
    }

    async fn go_on(&mut self, fetching: &mut Fetching<'_, '_>, count: u64) -> Result<(), Halt> {
        for done in 0..count {
            let next = self.given.position + 1;
            self.reach(fetching, next, count - done).await?;
            self.given.position = next.min(self.given.reached() + 1);
            if !self.give(fetching, next).await? {
                break;
            }
        }
        Ok(())
    }

    /// Gives the row on which it stands again.
    async fn stay(&self, fetching: &mut Fetching<'_, '_>) -> Result<(), Halt> {
        let given = self.give(fetching, self.given.position).await?;
        if given && fetching.gives && !self.given.goes_back { Err(forward_only()) } else { Ok(()) }
    }

    async fn go_back(&mut self, fetching: &mut Fetching<'_, '_>, count: u64) -> Result<(), Halt> {
        if !self.given.goes_back {
            return Err(forward_only());
        }
        for _ in 0..count.min(self.given.position) {
            self.given.position -= 1;
            if !self.give(fetching, self.given.position).await? {
                break;
            }
        }
        Ok(())
    }

    async fn go_to(&mut self, fetching: &mut Fetching<'_, '_>, place: u64) -> Result<(), Halt> {
        self.reach(fetching, place, place.saturating_sub(self.given.reached())).await?;
        let is_back = place < self.given.position;
        if is_back && !self.given.goes_back {
            return Err(forward_only());
        }
        self.given.position = place.min(self.given.reached() + 1);
        self.give(fetching, place).await.map(drop)
    }

    /// Gives how many rows there are.
    async fn go_to_end(&mut self, fetching: &mut Fetching<'_, '_>) -> Result<u64, Halt> {
        self.reach(fetching, u64::MAX, u64::MAX).await?;
        self.given.position = self.given.reached() + 1;
        Ok(self.given.reached())
    }

    /// Gives the row at a place; `false`: there is none.
    async fn give(&self, fetching: &mut Fetching<'_, '_>, place: u64) -> Result<bool, Halt> {
        if place == 0 || place > self.given.reached() {
            return Ok(false);
        }
        let row = self.given.at(place)?;
        fetching.count += 1;
        if fetching.gives {
            let client = &mut *fetching.client;
            frame::put(&mut client.output, server::DATA_ROW, |out| out.extend_from_slice(row));
            if client.output.len() >= BUFFER_BYTES {
                client.flush().await.map_err(|cause| Halt::Broken(Broken::Client(cause)))?;
            }
        }
        Ok(true)
    }

    /// Merges rows up to this place, or all that there are. `wanted`: how many more will be asked for.
    async fn reach(&mut self, fetching: &mut Fetching<'_, '_>, place: u64, wanted: u64) -> Result<(), Halt> {
        while self.given.reached() < place && !self.given.ended {
            let Some((_, merger)) = &mut self.merger else { return Ok(()) };
            match merger.step()? {
                Step::Row(row) => self.given.push(row),
                Step::Done => self.given.ended = true,
                Step::Need(input) => match self.inputs[input].rows.pop_front() {
                    Some(row) => merger.feed(input, row)?,
                    None if self.inputs[input].ended => merger.end(input)?,
                    None => self.refill(fetching, input, wanted).await?,
                },
            }
        }
        Ok(())
    }

    /// Fetches rows of an input that has none; of all such, where rows of all are needed.
    async fn refill(&mut self, fetching: &mut Fetching<'_, '_>, input: usize, wanted: u64) -> Result<(), Halt> {
        let in_turn = self.merge.order.is_empty() && self.merge.aggregate.is_none();
        let is_asked =
            |(index, known): (usize, &Input)| (index == input || !in_turn) && known.rows.is_empty() && !known.ended;
        let asked: Vec<bool> = self.inputs.iter().enumerate().map(is_asked).collect();
        let passes = self.merge.aggregate.is_none() && !self.merge.distinct && self.merge.offset == 0;
        let most = if passes { wanted.max(1) } else { u64::MAX };
        let formats = self.merger.as_ref().map_or(&[][..], |(formats, _)| formats);
        let bind = Bind::with_results(formats);
        for index in (0..asked.len()).filter(|&index| asked[index]) {
            let count = self.inputs[index].batch.min(most);
            let text = format!("FETCH FORWARD {count} FROM {}", quoted_name(&self.name));
            let text = text.as_bytes();
            let request = match formats {
                [] => Request::Simple { text },
                _ => Request::Extended { text, types: &[], bind: &bind, described: true, bound: true, rows: 0 },
            };
            let connection = &mut *fetching.inputs[index];
            let part = Part { shard: self.shards[index], text: None, parameters: None };
            request.put(connection, &part, self.merge.hidden, 0);
            send(fetching.client, connection).await?;
        }
        for index in (0..asked.len()).filter(|&index| asked[index]) {
            let count = self.inputs[index].batch.min(most);
            self.inputs[index].take(fetching.client, fetching.inputs[index], count).await?;
        }
        Ok(())
    }
}

impl Input {
    /// Reads what was asked for: `count` rows at most.
    async fn take(&mut self, client: &mut Channel, connection: &mut Connection, count: u64) -> Result<(), Halt> {
        let fail = |client: &mut Channel, frame: Bytes| {
            client.output.extend_from_slice(&frame);
            Halt::Ended(Ended::Failed(frame))
        };
        if let Head::Failed(frame) = head(client, connection).await? {
            return Err(fail(client, frame));
        }
        let mut bytes = 0;
        loop {
            match row(client, connection).await? {
                Row::One(body) => {
                    bytes += body.len();
                    self.rows.push_back(body);
                }
                Row::End => break,
                Row::Failed(frame) => return Err(fail(client, frame)),
            }
        }
        if let Some(frame) = drain(client, connection).await? {
            return Err(fail(client, frame));
        }
        self.ended = (self.rows.len() as u64) < count;
        let size = bytes.checked_div(self.rows.len()).unwrap_or(1).max(1);
        self.batch = ((BATCH_BYTES / size) as u64).clamp(1, MOST_ROWS);
        Ok(())
    }
}

impl Given {
    /// How many rows have been merged so far.
    fn reached(&self) -> u64 {
        self.forgotten + self.rows.len() as u64
    }

    fn push(&mut self, row: Bytes) {
        self.bytes += row.len();
        self.rows.push_back(row);
        let keeps = if self.goes_back { KEPT_BYTES } else { 0 };
        while self.bytes > keeps && self.rows.len() > 1 {
            self.bytes -= self.rows.pop_front().map_or(0, |row| row.len());
            self.forgotten += 1;
        }
    }

    fn at(&self, place: u64) -> Result<&Bytes, Halt> {
        let index = place.checked_sub(self.forgotten + 1).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.rows.get(index)).ok_or_else(|| match self.goes_back {
            false => forward_only(),
            true => {
                let message = format!("a cursor over several shards goes back {KEPT_BYTES} bytes of rows at most");
                let hint = "Declare it with SCROLL: then one server keeps its rows.";
                Error::new(SqlState::NOT_IN_STATE, message).with_hint(hint).into()
            }
        })
    }
}

fn forward_only() -> Halt {
    let error = Error::new(SqlState::NOT_IN_STATE, "cursor can only scan forward");
    error.with_hint("Declare it with SCROLL option to enable backward scan.").into()
}

/// A request under way.
struct Fetching<'c, 'i> {
    client: &'c mut Channel,
    inputs: &'c mut [&'i mut Connection],
    gives: bool,
    /// Rows that were given, or would have been.
    count: u64,
}

/// Why a request ended early.
enum Halt {
    Ended(Ended),
    Broken(Broken),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Ended(Ended::Refused(error))
    }
}

impl From<Broken> for Halt {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

const FIRST_BATCH: u64 = 64;
const MOST_ROWS: u64 = 4000;
/// Of one shard's rows that wait to be merged.
const BATCH_BYTES: usize = 256 << 10;
/// Of rows to which a cursor can go back.
const KEPT_BYTES: usize = 4 << 20;
