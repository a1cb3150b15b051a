//! COPY FROM STDIN into several shards.

use super::Session;
use super::carry::Stopped;
use super::run::End;
use crate::cache::Touched;
use crate::executor::{Request, Writing, Written};
use crate::plan::{CopyIn, Keeping};
use crate::wire::Channel;

impl Session {
    pub(super) async fn carry_copy_in(
        &mut self,
        client: &mut Channel,
        (plan, keeping): (&CopyIn, Option<Keeping>),
        request: Request<'_>,
        touched: &Touched,
    ) -> Result<Result<(), Stopped>, End> {
        let reported = |name: &str| self.reported.get(name).map_or("", String::as_str);
        let plan = plan.clone().on(reported("server_version"), reported("client_encoding"));
        Box::pin(self.carry_write(client, Writing { plan: Written::Copy(&plan), keeping }, request, touched)).await
    }
}
