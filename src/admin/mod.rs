//! The admin console (database `pgweir`, spoken to by psql and drivers) and HTTP.
//!
//! Shows what the proxy knows; commands are for `admin_users`. Knows snapshots and counters, no data of clients.

mod command;
mod conversation;
pub mod http;
mod metrics;
mod process;
mod show;
mod table;

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

pub use command::Shutdown;

use crate::backend::Pool;
use crate::error::{Error, SqlState};
use crate::session::{Client, Shared, State};
use crate::topology::User;
use crate::wire::Channel;
use command::Command;

/// What commands do to the process.
pub struct Controls {
    /// An error leaves everything as it was.
    pub reload: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    pub shutdown: UnboundedSender<Shutdown>,
}

pub struct Console {
    shared: Arc<Shared>,
    controls: Controls,
}

impl Console {
    pub fn new(shared: Arc<Shared>, controls: Controls) -> Arc<Self> {
        Arc::new(Self { shared, controls })
    }

    /// A user may show everything, and command where the configuration says so now.
    fn authorize(&self, command: &Command, user: &User) -> Result<(), Error> {
        let topology = self.shared.control.topology();
        let is_admin = topology.process.admin_users.contains(&user.name);
        if command.is_order() && !is_admin {
            let error = Error::new(SqlState::INSUFFICIENT_PRIVILEGE, "only admin_users may give commands");
            return Err(error.with_hint("Add the user to [general] admin_users."));
        }
        Ok(())
    }

    /// Carries a command out that shows nothing; gives its tag.
    async fn carry_out(
        &self,
        command: &Command,
        channel: &mut Channel,
        client: &Client,
    ) -> Result<&'static str, Error> {
        match command {
            Command::Reload => {
                (self.controls.reload)().map_err(|why| Error::new(SqlState::INVALID_VALUE, why))?;
                Ok("RELOAD")
            }
            Command::Pause(database) => self.pause(database.as_deref(), channel, client).await.map(|()| "PAUSE"),
            Command::Resume(database) => self.resume(database.as_deref()).map(|()| "RESUME"),
            Command::Shutdown(_) => Ok("SHUTDOWN"),
            Command::Nothing(tag) => Ok(tag),
            Command::Show(_) => Ok("SHOW"),
        }
    }

    /// Returns when every server connection of the databases has been given back and closed. A client that leaves or
    /// cancels before that takes its pause back.
    async fn pause(&self, database: Option<&str>, channel: &mut Channel, client: &Client) -> Result<(), Error> {
        let paused = self.shared.pools.paused();
        let databases = self.databases(database)?;
        let pools: Vec<Arc<Pool>> = databases.iter().flat_map(|name| self.shared.pools.pause(name)).collect();
        let cancelled = client.cancelled();
        client.become_(State::Waiting);
        let emptied = async {
            for pool in &pools {
                pool.emptied().await;
            }
        };
        let mut closing = self.shared.closing.clone();
        let outcome = tokio::select! {
            biased;
            () = emptied => Ok(()),
            () = cancelled => Err(Error::canceled()),
            () = left(channel) => Err(Error::new(SqlState::CONNECTION_LOST, "the client has left")),
            _ = closing.wait_for(|closing| *closing) => Err(Error::new(SqlState::SHUTTING_DOWN, "the proxy is shutting down")),
        };
        client.become_(State::Active);
        if outcome.is_err() {
            for name in databases.iter().filter(|name| !paused.contains(*name)) {
                self.shared.pools.resume(name);
            }
        }
        outcome
    }

    fn resume(&self, database: Option<&str>) -> Result<(), Error> {
        let not_paused = |message: String| Error::new(SqlState::NOT_IN_STATE, message);
        if let Some(name) = database {
            self.databases(database)?;
            return match self.shared.pools.resume(name) {
                true => Ok(()),
                false => Err(not_paused(format!("database \"{name}\" is not paused"))),
            };
        }
        let paused = self.shared.pools.paused();
        if paused.is_empty() {
            return Err(not_paused("no database is paused".to_owned()));
        }
        for name in &paused {
            self.shared.pools.resume(name);
        }
        Ok(())
    }

    /// The one of this name, or all.
    fn databases(&self, name: Option<&str>) -> Result<Vec<String>, Error> {
        let topology = self.shared.control.topology();
        match name {
            None => Ok(topology.databases.keys().cloned().collect()),
            Some(name) if topology.databases.contains_key(name) => Ok(vec![name.to_owned()]),
            Some(name) => {
                let error = Error::new(SqlState::UNKNOWN_DATABASE, format!("database \"{name}\" is not configured"));
                Err(error.with_hint("SHOW DATABASES lists those that are."))
            }
        }
    }
}

/// Returns when the client is gone. What it sends meanwhile waits.
async fn left(channel: &mut Channel) {
    while channel.input.len() <= MAX_COMMAND {
        if !channel.fill().await.is_ok_and(|read| read > 0) {
            return;
        }
    }
    std::future::pending().await
}

const MAX_COMMAND: usize = 64 * 1024;
