//! Units of the extended protocol: which way each one goes.

use std::sync::Arc;

use bytes::Buf;

use super::Session;
use super::block::concerns_all;
use super::cached::{Looked, put_bound_entry};
use super::carry::{Carriage, Halted};
use super::decide::{Decided, Way};
use super::digest::{Step, Steps, only_prepares};
use super::names::Done;
use super::prepared::Prepared;
use super::run::{End, skip};
use super::transaction::Transaction;
use super::unit::Extended;
use crate::error::Error;
use crate::wire::Channel;
use crate::wire::message::put_ready;

impl Session {
    /// Messages up to a Sync, or as many of them as are there.
    pub(super) async fn serve_extended(&mut self, client: &mut Channel, unit: Extended) -> Result<(), End> {
        let mut steps = Steps::new();
        for frame in &unit.frames {
            steps.push(self.digest(frame.kind, frame.body(&client.input)));
        }
        let end = unit.frames.last().map_or(0, |frame| frame.end());
        let goes_on = self.names_kept_portal(&steps, &unit.frames, &client.input);
        if unit.complete && !goes_on && self.needs_no_server(&steps) {
            let input = client.input.split_to(end);
            self.answer_steps(steps, (&unit.frames, &input), &mut client.output);
            return Ok(());
        }
        let prepares = only_prepares(&steps);
        let decided = self
            .check_block_of(&steps)
            .and_then(|()| self.decide_steps(&steps, &unit.frames, &client.input, unit.complete || prepares));
        let decided = match self.snapshot.cache {
            None => decided,
            Some(_) => match self.look_up_steps(decided, &steps, &unit.frames, &client.input).await {
                Ok(Looked::Hit(entry)) => {
                    client.input.advance(end);
                    self.names.settle(Done::All);
                    put_bound_entry(&mut client.output, &entry, &steps);
                    put_ready(&mut client.output, self.transaction.status());
                    return Ok(());
                }
                Ok(Looked::Not(decided)) => Ok(decided),
                Err(error) => Err(error),
            },
        };
        if goes_on || self.goes_step_by_step(&decided, &steps, unit.complete || prepares) {
            let input = client.input.split_to(end).freeze();
            return Box::pin(self.serve_steps(client, steps, &unit.frames, &input)).await;
        }
        let carried = match decided {
            Ok(decided) => self.carry_one(client, decided, steps, end).await?,
            Err(error) => {
                self.names.settle(Done::Some(0));
                let why = match steps.iter().find_map(of_statement) {
                    Some(prepared) => {
                        let text = prepared.readable().unwrap_or_default();
                        Box::pin(self.reason_of(error, text, &prepared.analysis)).await
                    }
                    None => error.into(),
                };
                Err(Halted { why, taken: false, left: 0 })
            }
        };
        match carried {
            Ok(Carriage::Failed) if prepares => {
                self.skip_to_sync(client).await?;
                put_ready(&mut client.output, self.transaction.status());
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(halted) => self.tell_extended(client, halted).await,
        }
    }

    /// On a sharded database not every unit is for one server as it is.
    fn goes_step_by_step(&self, decided: &Result<Decided, Error>, steps: &[Step], complete: bool) -> bool {
        let bound = |step: &Step| matches!(step, Step::Bind { .. });
        let for_all = |step: &Step| match step {
            Step::Bind { prepared, .. } => prepared.analysis.statements.iter().any(|only| concerns_all(&only.kind)),
            _ => false,
        };
        let reaches_more = |decided: &Decided| match (&decided.way, &self.transaction) {
            (Way::One { shard, .. }, Transaction::Open(open)) => *shard != open.lent.shard,
            (way, _) => !matches!(way, Way::One { .. }),
        };
        let names_other = |step: &Step| {
            of_statement(step).is_some_and(|prepared| {
                self.names_statement(prepared.readable().unwrap_or_default(), &prepared.analysis)
            })
        };
        let only_begun = matches!(self.transaction, Transaction::Begun(_));
        self.snapshot.database.is_sharded()
            && match decided {
                _ if steps.iter().any(names_other) => true,
                // The block is not to begin on a shard that it may not need.
                Ok(_) if only_begun && !steps.iter().any(bound) => true,
                _ if !complete => steps.iter().any(bound),
                _ if self.spans() && steps.iter().any(for_all) => true,
                Ok(decided @ Decided { way: Way::One { .. }, .. }) => {
                    reaches_more(decided) && steps.iter().any(for_all)
                }
                Ok(_) => true,
                Err(_) => steps.iter().filter(|step| bound(step)).count() > 1,
            }
    }

    /// Nothing in it is for a server, as the session stands.
    fn needs_no_server(&self, steps: &[Step]) -> bool {
        let bound = steps.iter().filter(|step| matches!(step, Step::Bind { .. })).count();
        // A held cursor is a portal between transactions, too.
        let no_server =
            !matches!(self.transaction, Transaction::Open(_) | Transaction::Failed(Some(_))) && self.pin.is_none();
        steps.iter().all(|step| match step {
            Step::Parse { prepared, .. } | Step::DescribeStatement { prepared, .. } => prepared.is_control(),
            Step::Bind { prepared, .. } => bound == 1 && prepared.is_control() && self.would_answer(prepared),
            Step::Execute | Step::DescribePortal | Step::ClosePortal => bound == 1 || no_server,
            Step::CloseStatement | Step::Sync | Step::Flush => true,
            Step::Refused(_) => no_server && bound == 0,
            Step::Taken(_) => false,
        })
    }

    fn check_block_of(&self, steps: &[Step]) -> Result<(), Error> {
        let first = steps.iter().find_map(|step| match step {
            Step::Bind { prepared, .. } => Some(prepared),
            _ => None,
        });
        first.map_or(Ok(()), |prepared| self.check_block(&prepared.analysis))
    }

    /// An error: the client hears of it; up to its Sync nothing else happens.
    async fn tell_extended(&mut self, client: &mut Channel, halted: Halted) -> Result<(), End> {
        // At once: a client that sent a Flush waits for it before it sends its Sync.
        self.put_stopped(&mut client.output, &halted.why);
        skip(client, halted.left).await?;
        if !halted.taken {
            self.skip_to_sync(client).await?;
        }
        put_ready(&mut client.output, self.transaction.status());
        Ok(())
    }
}

fn of_statement(step: &Step) -> Option<&Arc<Prepared>> {
    match step {
        Step::Parse { prepared, .. } | Step::Bind { prepared, .. } | Step::DescribeStatement { prepared, .. } => {
            Some(prepared)
        }
        _ => None,
    }
}
