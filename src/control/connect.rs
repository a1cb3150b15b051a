//! One connection of the control plane to one server: one of its own, or lent by a pool for a while.
//!
//! Hides the driver: whoever is above `control` sees texts in and texts out.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod};
use futures_util::SinkExt;
use futures_util::future::try_join_all;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::error::ErrorPosition;
use tokio_postgres::{AsyncMessage, Config, NoTls, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::backend::tls_to_server;
use crate::topology::{FileEntry, ServerTls, TlsNegotiation};

/// Where and as whom to log in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Login {
    pub host: String,
    pub port: u16,
    pub database: String,
    pub user: String,
    pub password: String,
    pub tls: ServerTls,
    /// As the server's entry in the configuration has it.
    pub tls_ca: Option<FileEntry>,
    pub tls_negotiation: TlsNegotiation,
}

/// A session on one server; it ends when this is dropped, unless a pool takes it back.
pub struct Client {
    link: Link,
    server: String,
    /// What was asked and not waited for: a session that owes an answer is not lent again.
    asked: AtomicBool,
}

enum Link {
    Own(tokio_postgres::Client),
    Lent(Object),
    Gone,
}

/// Sessions that the tasks of the control plane share, a few to each server.
#[derive(Default)]
pub(super) struct Pools(Mutex<HashMap<Login, Pool>>);

/// What a server, or the way to it, answered.
#[derive(Debug, thiserror::Error)]
#[error("{server}: {cause}")]
pub struct SqlError {
    /// `host:port/database`.
    pub server: String,
    cause: Cause,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("{}", describe(.0))]
    Server(tokio_postgres::Error),
    #[error("TLS: {0}")]
    Tls(Box<dyn std::error::Error + Send + Sync>),
    #[error("{0}")]
    Pool(PoolError),
}

/// Logs in; the connection is served by a task of its own.
pub async fn connect(login: &Login) -> Result<Client, SqlError> {
    let opened = match login.encryption().map_err(|cause| login.error(cause))? {
        None => login.driver().connect(NoTls).await.map(|(client, connection)| (client, serve(connection))),
        Some(tls) => login.driver().connect(tls).await.map(|(client, connection)| (client, serve(connection))),
    };
    opened.map(|(client, ())| login.client(Link::Own(client))).map_err(|cause| login.error(Cause::Server(cause)))
}

/// What a server notified.
pub(super) struct Notification {
    pub process: i32,
    pub channel: String,
    pub payload: String,
}

/// As [`connect`]; `hear` is given each notification in its turn, and nothing when the connection ends.
pub(super) async fn connect_hearing(
    login: &Login,
    hear: impl FnMut(Option<Notification>) + Send + 'static,
) -> Result<Client, SqlError> {
    let mut driver = login.driver();
    driver.application_name("pgweir listener");
    let opened = match login.encryption().map_err(|cause| login.error(cause))? {
        None => driver.connect(NoTls).await.map(|(client, connection)| (client, listen(connection, hear))),
        Some(tls) => driver.connect(tls).await.map(|(client, connection)| (client, listen(connection, hear))),
    };
    opened.map(|(client, ())| login.client(Link::Own(client))).map_err(|cause| login.error(Cause::Server(cause)))
}

fn listen<S, T>(
    mut connection: tokio_postgres::Connection<S, T>,
    mut hear: impl FnMut(Option<Notification>) + Send + 'static,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        loop {
            match std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                Some(Ok(AsyncMessage::Notification(heard))) => {
                    let (channel, payload) = (heard.channel().to_owned(), heard.payload().to_owned());
                    hear(Some(Notification { process: heard.process_id(), channel, payload }));
                }
                Some(Ok(_)) => {}
                Some(Err(cause)) => {
                    tracing::debug!(%cause, "listening connection ended");
                    break;
                }
                None => break,
            }
        }
        hear(None);
    });
}

fn serve<C>(connection: C)
where
    C: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
{
    tokio::spawn(async move {
        if let Err(cause) = connection.await {
            tracing::debug!(%cause, "control connection ended");
        }
    });
}

impl Login {
    fn driver(&self) -> Config {
        let mut config = Config::new();
        config.host(&self.host).port(self.port).dbname(&self.database).user(&self.user).password(&self.password);
        config.application_name("pgweir").ssl_mode(match self.tls {
            ServerTls::Disable => SslMode::Disable,
            ServerTls::Prefer => SslMode::Prefer,
            ServerTls::Require | ServerTls::VerifyCa | ServerTls::VerifyFull => SslMode::Require,
        });
        config.ssl_negotiation(match self.tls_negotiation {
            TlsNegotiation::Postgres => SslNegotiation::Postgres,
            TlsNegotiation::Direct => SslNegotiation::Direct,
        });
        config
    }

    fn encryption(&self) -> Result<Option<MakeRustlsConnect>, Cause> {
        if self.tls == ServerTls::Disable {
            return Ok(None);
        }
        let config = tls_to_server(self.tls, self.tls_ca.as_ref()).map_err(Cause::Tls)?;
        Ok(Some(MakeRustlsConnect::new(config)))
    }

    fn server(&self) -> String {
        format!("{}:{}/{}", self.host, self.port, self.database)
    }

    fn client(&self, link: Link) -> Client {
        Client { link, server: self.server(), asked: AtomicBool::new(false) }
    }

    fn error(&self, cause: Cause) -> SqlError {
        SqlError { server: self.server(), cause }
    }
}

impl Pools {
    /// A session that nobody else uses meanwhile. What it has set or begun, its user must have undone.
    pub(super) async fn lend(&self, login: &Login) -> Result<Client, SqlError> {
        let pool = self.of(login).map_err(|cause| login.error(cause))?;
        match pool.get().await {
            Ok(object) => Ok(login.client(Link::Lent(object))),
            Err(PoolError::Backend(cause)) => Err(login.error(Cause::Server(cause))),
            Err(cause) => Err(login.error(Cause::Pool(cause))),
        }
    }

    /// Closes sessions in databases of this name; those that are lent, when they come back.
    pub(super) fn forget(&self, database: &str) {
        self.lock().retain(|login, pool| {
            let stays = login.database != database;
            if !stays {
                pool.close();
            }
            stays
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Login, Pool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, login: &Login) -> Result<Pool, Cause> {
        let mut pools = self.lock();
        if let Some(pool) = pools.get(login) {
            return Ok(pool.clone());
        }
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match login.encryption()? {
            None => Manager::from_config(login.driver(), NoTls, recycling),
            Some(tls) => Manager::from_config(login.driver(), tls, recycling),
        };
        let pool = Pool::builder(manager).max_size(POOL_SIZE).build().expect("no timeout needs a runtime");
        pools.insert(login.clone(), pool.clone());
        Ok(pool)
    }
}

impl Client {
    /// `host:port/database`.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The session has ended.
    pub(super) fn is_closed(&self) -> bool {
        match &self.link {
            Link::Own(client) => client.is_closed(),
            Link::Lent(object) => object.is_closed(),
            Link::Gone => true,
        }
    }

    /// Runs all statements of a text.
    pub async fn batch(&self, sql: &str) -> Result<(), SqlError> {
        self.answer(self.link().batch_execute(sql).await)
    }

    /// The rows of a text, each value as the server writes it.
    pub async fn rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, SqlError> {
        let messages = self.answer(self.link().simple_query(sql).await)?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }

    /// The rows of each of these, which are sent without waiting for each other's.
    pub(super) async fn rows_of_each<const N: usize>(
        &self,
        queries: [&str; N],
    ) -> Result<[Vec<Vec<Option<String>>>; N], SqlError> {
        let answers = try_join_all(queries.map(|sql| self.rows(sql))).await?;
        Ok(answers.try_into().unwrap_or_else(|_| unreachable!("as many as were asked")))
    }

    /// The rows of one statement with text parameters; its columns are names or texts.
    pub async fn texts(&self, sql: &str, parameters: &[&str]) -> Result<Vec<Vec<Option<String>>>, SqlError> {
        let parameters: Vec<_> =
            parameters.iter().map(|text| text as &(dyn tokio_postgres::types::ToSql + Sync)).collect();
        let rows = self.answer(self.link().query(sql, &parameters).await)?;
        let texts = |row: &tokio_postgres::Row| (0..row.len()).map(|column| row.try_get(column)).collect();
        self.answer(rows.iter().map(texts).collect())
    }

    /// `COPY … FROM STDIN`: the number of rows taken.
    pub async fn copy_in(&self, sql: &str, data: Bytes) -> Result<u64, SqlError> {
        let sink = self.answer(self.link().copy_in(sql).await)?;
        let mut sink = pin!(sink);
        self.answer(sink.send(data).await)?;
        self.answer(sink.finish().await)
    }

    /// One statement with text parameters: the number of rows touched.
    pub async fn execute(&self, sql: &str, parameters: &[&str]) -> Result<u64, SqlError> {
        let parameters = parameters.iter().map(|text| text as &(dyn tokio_postgres::types::ToSql + Sync));
        let parameters: Vec<_> = parameters.collect();
        self.answer(self.link().execute(sql, &parameters).await)
    }

    /// To ask something of.
    fn link(&self) -> &tokio_postgres::Client {
        self.asked.store(true, Ordering::Relaxed);
        match &self.link {
            Link::Own(client) => client,
            Link::Lent(object) => object,
            Link::Gone => unreachable!("it goes when it is dropped"),
        }
    }

    fn answer<T>(&self, answer: Result<T, tokio_postgres::Error>) -> Result<T, SqlError> {
        self.asked.store(false, Ordering::Relaxed);
        answer.map_err(|cause| SqlError { server: self.server.clone(), cause: Cause::Server(cause) })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let (Link::Lent(object), true) = (std::mem::replace(&mut self.link, Link::Gone), *self.asked.get_mut()) {
            // The pool forgets it, and the session ends.
            drop(Object::take(object));
        }
    }
}

impl SqlError {
    /// The server's SQLSTATE, where it was the server that complained.
    pub fn sqlstate(&self) -> Option<&str> {
        match &self.cause {
            Cause::Server(cause) => cause.code().map(|code| code.code()),
            Cause::Tls(_) | Cause::Pool(_) => None,
        }
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

/// Of one user's connections to one database of one server.
const POOL_SIZE: usize = 4;
