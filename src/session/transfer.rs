//! INSERT … SELECT over shards: reads, then writes what was read.

use super::Session;
use super::carry::Stopped;
use super::run::End;
use super::transaction::Transaction;
use crate::cache::Touched;
use crate::executor::{Collected, Ended, Request, Writing, Written, collect};
use crate::plan::{Access, Gather, Keeping, Transfer};
use crate::wire::Channel;

impl Session {
    pub(super) async fn carry_transfer(
        &mut self,
        client: &mut Channel,
        (plan, keeping): (&Transfer, Option<Keeping>),
        request: Request<'_>,
        touched: &Touched,
    ) -> Result<Result<(), Stopped>, End> {
        let collected = match self.collect(client, &plan.source, request).await? {
            Ok(collected) => collected,
            Err(stopped) => return Ok(Err(stopped)),
        };
        let rows = match collected.rows() {
            Ok(rows) => rows,
            Err(error) => return Ok(Err(error.into())),
        };
        let numbers = match self.draw_all(&plan.insert.draws(collected.types.len(), rows.len())).await {
            Ok(numbers) => numbers,
            Err(stopped) => return Ok(Err(stopped)),
        };
        let spread = plan.insert.spread(&collected.types, rows, &numbers);
        let Collected { parameters, .. } = collected;
        let request = request.with_types(&parameters);
        match spread {
            Ok(spread) => {
                Box::pin(self.carry_write(
                    client,
                    Writing { plan: Written::Spread(&spread), keeping },
                    request,
                    touched,
                ))
                .await
            }
            Err(error) => Ok(Err(error.into())),
        }
    }

    /// The rows of a query, from primaries: what is written must not be older than what is there.
    async fn collect(
        &mut self,
        client: &mut Channel,
        plan: &Gather,
        request: Request<'_>,
    ) -> Result<Result<Collected, Stopped>, End> {
        if let Err(error) = self.check_styles() {
            return Ok(Err(error.into()));
        }
        let (shards, limit) = (plan.shards(), self.limits().gather);
        let mut found = Collected::default();
        let mut keep = |collected| match collected {
            Ok(collected) => {
                found = collected;
                Ended::Done
            }
            Err(ended) => ended,
        };
        let came = match self.transaction {
            Transaction::Idle => {
                let mut lents = match self.lend_all(shards, Access::PrimaryRead).await {
                    Ok(lents) => lents,
                    Err(stopped) => return Ok(Err(stopped)),
                };
                let mut inputs: Vec<_> = lents.iter_mut().map(|lent| &mut *lent.connection).collect();
                let ended = collect(client, &mut inputs, plan, request, limit).await.map(&mut keep);
                self.settle_all(lents, ended)?
            }
            _ => {
                let mut open = match self.reach_all(&shards, Access::PrimaryRead).await {
                    Ok(open) => open,
                    Err(stopped) => return Ok(Err(stopped)),
                };
                let mut inputs = open.connections(&shards);
                let ended = collect(client, &mut inputs, plan, request, limit).await.map(&mut keep);
                self.go_on(client, open, &shards, ended).await?
            }
        };
        Ok(came.map(|()| found))
    }
}
