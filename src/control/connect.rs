//! One connection of the control plane to one server, without TLS: for migrations and `pgweir dev`.
//!
//! Hides the driver: whoever is above `control` sees texts in and texts out.

use std::pin::pin;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_postgres::error::ErrorPosition;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

/// Where and as whom to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub host: String,
    pub port: u16,
    pub database: String,
    pub user: String,
    pub password: String,
}

/// A session on one server; it ends when this is dropped.
pub struct Client {
    inner: tokio_postgres::Client,
    server: String,
}

/// What a server, or the way to it, answered.
#[derive(Debug, thiserror::Error)]
#[error("{server}: {}", describe(cause))]
pub struct SqlError {
    /// `host:port/database`.
    pub server: String,
    cause: tokio_postgres::Error,
}

/// Logs in; the connection is served by a task of its own.
pub async fn connect(login: &Login) -> Result<Client, SqlError> {
    let server = format!("{}:{}/{}", login.host, login.port, login.database);
    let mut config = Config::new();
    config.host(&login.host).port(login.port).dbname(&login.database).user(&login.user).password(&login.password);
    match config.application_name("pgweir").connect(NoTls).await {
        Ok((inner, connection)) => {
            tokio::spawn(async move {
                if let Err(cause) = connection.await {
                    tracing::debug!(%cause, "control connection ended");
                }
            });
            Ok(Client { inner, server })
        }
        Err(cause) => Err(SqlError { server, cause }),
    }
}

impl Client {
    /// `host:port/database`.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Runs all statements of a text.
    pub async fn batch(&self, sql: &str) -> Result<(), SqlError> {
        self.inner.batch_execute(sql).await.map_err(|cause| self.error(cause))
    }

    /// The rows of a text, each value as the server writes it.
    pub async fn rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, SqlError> {
        let messages = self.inner.simple_query(sql).await.map_err(|cause| self.error(cause))?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }

    /// `COPY … FROM STDIN`: the number of rows taken.
    pub async fn copy_in(&self, sql: &str, data: Bytes) -> Result<u64, SqlError> {
        let sink = self.inner.copy_in(sql).await.map_err(|cause| self.error(cause))?;
        let mut sink = pin!(sink);
        sink.send(data).await.map_err(|cause| self.error(cause))?;
        sink.finish().await.map_err(|cause| self.error(cause))
    }

    /// One statement with text parameters: the number of rows touched.
    pub async fn execute(&self, sql: &str, parameters: &[&str]) -> Result<u64, SqlError> {
        let parameters = parameters.iter().map(|text| text as &(dyn tokio_postgres::types::ToSql + Sync));
        let parameters: Vec<_> = parameters.collect();
        self.inner.execute(sql, &parameters).await.map_err(|cause| self.error(cause))
    }

    fn error(&self, cause: tokio_postgres::Error) -> SqlError {
        SqlError { server: self.server.clone(), cause }
    }
}

impl SqlError {
    /// The server's SQLSTATE, where it was the server that complained.
    pub fn sqlstate(&self) -> Option<&str> {
        self.cause.code().map(|code| code.code())
    }
}

/// The server's own words, with the line where it stumbled, rather than "db error".
fn describe(cause: &tokio_postgres::Error) -> String {
    let Some(error) = cause.as_db_error() else {
        let source = std::error::Error::source(cause);
        return source.map_or_else(|| cause.to_string(), |source| format!("{cause}: {source}"));
    };
    let mut text = format!("{}: {} (SQLSTATE {})", error.severity(), error.message(), error.code().code());
    if let Some(ErrorPosition::Internal { position, query }) = error.position() {
        let before = query.chars().take(*position as usize - 1);
        text += &format!(", line {}", 1 + before.filter(|c| *c == '\n').count());
    }
    for (title, part) in [("detail", error.detail()), ("hint", error.hint())] {
        if let Some(part) = part {
            text += &format!("; {title}: {part}");
        }
    }
    text
}
