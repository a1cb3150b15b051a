//! INSERT of rows that need numbers: draws them on the home shard, then goes where they say.

use super::Session;
use super::block::Came;
use super::carry::Stopped;
use super::decide::{Decided, Way};
use super::transaction::Transaction;
use crate::error::{Error, SqlState};
use crate::executor::{Request, Writing};
use crate::plan::{Access, Draw, Drawn};
use crate::wire::Channel;

impl Session {
    pub(super) async fn carry_draw(&mut self, client: &mut Channel, plan: &Draw, request: Request<'_>) -> Came<()> {
        let parameters = match request.parameters() {
            Ok(parameters) => parameters,
            Err(error) => return Ok(Err(error.into())),
        };
        let numbers = match self.draw_all(&plan.sequences).await {
            Ok(numbers) => numbers,
            Err(stopped) => return Ok(Err(stopped)),
        };
        let text = plan.text(&numbers);
        let request = request.with_text(text.as_bytes());
        let Decided { way, effects, touched } = match self.decide_text(&text, parameters.as_ref()) {
            Ok(decided) => decided,
            Err(error) => return Ok(Err(error.into())),
        };
        match way {
            Way::One { shard, access } => {
                self.carry_single(client, (shard, access), (&effects, &touched), request).await
            }
            Way::Spread(plan) => self.carry_write(client, Writing::Spread(&plan), request, &touched).await,
            _ => Ok(Err(Error::new(SqlState::INTERNAL, "an INSERT with all of its numbers that is no write").into())),
        }
    }

    pub(super) async fn draw_all(&mut self, sequences: &[Drawn]) -> Result<Vec<Vec<String>>, Stopped> {
        let mut numbers = Vec::with_capacity(sequences.len());
        for Drawn { name, count } in sequences {
            let sql = format!("SELECT nextval({name}) FROM generate_series(1, {count})");
            numbers.push(self.draw(&sql).await?);
        }
        Ok(numbers)
    }

    /// By the block's own connection, if it has one to the home shard: what is drawn there is not given back by its end.
    async fn draw(&mut self, sql: &str) -> Result<Vec<String>, Stopped> {
        let home = self.snapshot.database.home;
        if let Transaction::Open(open) = &mut self.transaction
            && let Some(connection) = open.connections(&[home]).into_iter().next()
        {
            return connection.ask_all(sql).await?.map_err(Stopped::Server);
        }
        let mut lent = self.lend_ready(home, Access::Write, None).await?;
        let numbers = lent.connection.ask_all(sql).await;
        let now = self.meter.lately();
        match numbers {
            Ok(_) => lent.give_back(now),
            Err(_) => lent.abandon(),
        }
        numbers?.map_err(Stopped::Server)
    }
}
