//! INSERT of rows that need numbers: draws them on the home shard, then goes where they say.

use super::Session;
use super::block::Came;
use super::carry::Stopped;
use super::transaction::Transaction;
use crate::executor::Request;
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
        match self.decide_text(&text, parameters.as_ref()) {
            Ok(decided) => Box::pin(self.carry_decided(client, decided, request)).await,
            Err(error) => Ok(Err(error.into())),
        }
    }

    pub(super) async fn draw_all(&mut self, sequences: &[Drawn]) -> Result<Vec<Vec<String>>, Stopped> {
        let mut all = Vec::with_capacity(sequences.len());
        for Drawn { name, count } in sequences {
            let sql = format!("SELECT nextval({name}) FROM generate_series(1, {count})");
            let numbers = self.ask_home(&sql).await?;
            if let Some(last) = numbers.last() {
                self.recalled.get_or_insert_default().note(name, last);
            }
            all.push(numbers);
        }
        Ok(all)
    }

    /// By the session's own connection to the home shard, if it has one: what is drawn is not given back when a block ends.
    pub(super) async fn ask_home(&mut self, sql: &str) -> Result<Vec<String>, Stopped> {
        let home = self.snapshot.database.home;
        if let Transaction::Open(open) = &mut self.transaction
            && let Some(connection) = open.connections(&[home]).into_iter().next()
        {
            return connection.ask_all(sql).await?.map_err(Stopped::Server);
        }
        let mut lent = self.lend_ready(home, Access::Write, None).await?;
        let numbers = lent.connection.ask_all(sql).await;
        let now = self.meter.lately();
        self.part_with(lent, numbers.is_ok(), now);
        numbers?.map_err(Stopped::Server)
    }
}
