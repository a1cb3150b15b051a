//! The admin console: database `pgweir`, spoken to by psql.
//!
//! Shows what the proxy knows; commands are for `admin_users`. Knows snapshots and counters, no data of clients.

mod show;

use std::sync::Arc;

use bytes::{Buf, BytesMut};

use crate::error::{Error, SqlState};
use crate::session::{End, Shared};
use crate::topology::User;
use crate::wire::frame::{client, malformed, server};
use crate::wire::message::{put_bare, put_command_complete, put_error, put_ready, put_text_columns, put_text_row};
use crate::wire::{Channel, Severity, Status};

/// What `RELOAD` does: an error leaves everything as it was.
pub type Reload = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

pub struct Console {
    shared: Arc<Shared>,
    reload: Reload,
}

/// A table to be shown.
struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<Option<String>>>,
}

impl Console {
    pub fn new(shared: Arc<Shared>, reload: Reload) -> Arc<Self> {
        Arc::new(Self { shared, reload })
    }

    /// Serves one user until it leaves.
    pub async fn run(&self, channel: &mut Channel, user: &User) -> End {
        let mut shutdown = self.shared.shutdown.clone();
        loop {
            if let Err(cause) = channel.flush().await {
                return End::Gone(cause);
            }
            let frame = tokio::select! {
                frame = channel.frame(MAX_COMMAND) => frame,
                _ = shutdown.wait_for(|ending| *ending) => {
                    return End::Refused(Error::new(SqlState::SHUTTING_DOWN, "the proxy is shutting down"));
                }
            };
            match frame {
                Err(cause) => return End::Gone(cause),
                Ok(Err(error)) => return End::Refused(error),
                Ok(Ok(None | Some((client::TERMINATE, _)))) => return End::Left,
                Ok(Ok(Some((client::QUERY, body)))) => self.answer(&body, user, &mut channel.output),
                Ok(Ok(Some(_))) => return End::Refused(malformed("the console takes simple queries only")),
            }
        }
    }

    fn answer(&self, body: &BytesMut, user: &User, out: &mut BytesMut) {
        let text = String::from_utf8_lossy(body.chunk());
        let text = text.trim_end_matches('\0');
        for command in text.split(';').map(str::trim).filter(|command| !command.is_empty()) {
            if let Err(error) = self.command(command, user, out) {
                put_error(out, Severity::Error, &error);
                break;
            }
        }
        if text.trim_matches([';', ' ', '\n', '\t']).is_empty() {
            put_bare(out, server::EMPTY_QUERY);
        }
        put_ready(out, Status::Idle);
    }

    fn command(&self, command: &str, user: &User, out: &mut BytesMut) -> Result<(), Error> {
        let words: Vec<String> = command.split_whitespace().map(str::to_uppercase).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["SHOW", what] => {
                let table = show::table(what, &self.shared)?;
                put_text_columns(out, &table.columns);
                table.rows.iter().for_each(|row| put_text_row(out, row));
                put_command_complete(out, "SHOW");
                Ok(())
            }
            ["RELOAD"] if !user.is_admin => {
                let error = Error::new(SqlState::INSUFFICIENT_PRIVILEGE, "only admin_users may give commands");
                Err(error.with_hint("Add the user to [general] admin_users."))
            }
            ["RELOAD"] => {
                (self.reload)().map_err(|why| Error::new(SqlState::INVALID_VALUE, why))?;
                put_command_complete(out, "RELOAD");
                Ok(())
            }
            _ => {
                let error = Error::new(SqlState::SYNTAX, format!("unknown command \"{command}\""));
                Err(error.with_hint("SHOW HELP lists the commands."))
            }
        }
    }
}

const MAX_COMMAND: usize = 64 * 1024;
