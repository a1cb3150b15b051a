//! Clients: accepts them, lets them prove who they are, hands them to sessions. Alone writes to client sockets.
//!
//! One accepting task, one thread with a runtime of its own for each worker (see `workers`).

mod demand;
mod greet;
mod login;
mod peers;
mod proof;
mod tls;
mod unix;
mod workers;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tracing::Instrument;

use crate::admin::Console;
use crate::backend::Connection;
use crate::session::{Client, End, Registered, Session, Shared, Station, replicate};
use crate::wire::message::put_error;
use crate::wire::{Channel, Severity, Stream};
use greet::Greeted;
use login::Logins;
use peers::Peers;
pub use tls::{Acceptor, Encryption};
pub use unix::LocalListener;
use workers::{Accepted, Handed, Moved, Workers};

/// What all workers share.
pub struct Frontend {
    shared: Arc<Shared>,
    console: Arc<Console>,
    tls: Arc<Encryption>,
    logins: Logins,
    peers: Peers,
    clients: AtomicUsize,
    /// Log-ins under way.
    entering: AtomicUsize,
}

impl Frontend {
    pub fn new(shared: Arc<Shared>, console: Arc<Console>, tls: Arc<Encryption>) -> Arc<Self> {
        let logins = Logins::default();
        logins.proofs.follow(&shared.control.topology());
        let (peers, clients, entering) = (Peers::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { shared, console, tls, logins, peers, clients, entering })
    }

    /// Clients being served.
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Serves clients of bound listeners until the future is dropped; those who are there then stay.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, local: Option<LocalListener>) -> std::io::Result<()> {
        let count = self.shared.control.topology().process.workers;
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| unbounded_channel()).unzip();
        let workers = Arc::new(Workers::new(senders));
        for (number, clients) in receivers.into_iter().enumerate() {
            self.start_worker(number, clients, &workers)?;
        }
        loop {
            match accept(&listener, local.as_ref()).await {
                Ok(client) => workers.hand(workers.place(), Handed::Accepted(client))?,
                Err(cause) => {
                    // Out of descriptors, or a client that left already: wait for better times, do not spin.
                    tracing::warn!(%cause, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn start_worker(
        self: &Arc<Self>,
        number: usize,
        clients: UnboundedReceiver<Handed>,
        workers: &Arc<Workers>,
    ) -> std::io::Result<()> {
        let (frontend, workers) = (Arc::clone(self), Arc::clone(workers));
        let runtime = Builder::new_current_thread().enable_all().event_interval(TASKS_BETWEEN_LOOKS).build()?;
        std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .stack_size(WORKER_STACK)
            .spawn(move || runtime.block_on(frontend.work(number, clients, workers)))?;
        Ok(())
    }

    async fn work(self: Arc<Self>, number: usize, mut clients: UnboundedReceiver<Handed>, workers: Arc<Workers>) {
        let station = Arc::new(Station::new(number, Arc::clone(&self.shared), workers.get(number).spill()));
        let balancing = Arc::clone(&workers);
        tokio::spawn(async move { balancing.balance(number).await });
        while let Some(client) = clients.recv().await {
            let counted = Counted::new(&self, &workers, number);
            let (frontend, station) = (Arc::clone(&self), Arc::clone(&station));
            tokio::spawn(async move {
                let served = match client {
                    Handed::Accepted(stream) => frontend.converse(stream, station).await,
                    Handed::Moved(moved) => frontend.go_on(moved, station).await,
                };
                let onward = |(worker, moved)| counted.workers.hand(worker, Handed::Moved(moved));
                if let Err(cause) = served.and_then(|client| client.map_or(Ok(()), onward)) {
                    tracing::debug!(%cause, "client connection ended");
                }
            });
        }
        // Nobody new comes. Those who are here are served until the process ends: they live on this runtime.
        std::future::pending().await
    }

    /// Goes on with a client of another worker.
    async fn go_on(&self, mut moved: Box<Moved>, station: Arc<Station>) -> std::io::Result<Onward> {
        moved.channel.adopt()?;
        moved.session.move_to(station);
        self.serve_session(moved).await
    }

    /// One client connection from its first byte to its last, or until it moves.
    async fn converse(&self, client: Accepted, station: Arc<Station>) -> std::io::Result<Onward> {
        let keepalive = self.shared.control.topology().process.tcp_keepalive;
        let channel = Channel::new(match client {
            Accepted::Tcp(stream) => Stream::Tcp(alive(stream, keepalive)?),
            Accepted::Unix(stream) => Stream::Unix(UnixStream::from_std(stream)?),
        });
        // On the heap and gone when the session runs: an idle client does not carry the room for its log-in.
        let Some((mut channel, served)) = Box::pin(self.welcome(channel, &station)).await? else { return Ok(None) };
        self.log_connection(&served.client());
        match served {
            Served::Session(session, registered) => {
                self.serve_session(Box::new(Moved { channel, session, registered })).await
            }
            Served::Replication(connection, registered) => {
                let end = replicate(&mut channel, connection, &registered.client, &self.shared.registry).await;
                self.log_disconnection(&registered.client, &end);
                drop(registered);
                part(channel, end).await.map(|()| None)
            }
            Served::Console(user, registered) => {
                let end = self.console.run(&mut channel, &user, &registered.client).await;
                self.log_disconnection(&registered.client, &end);
                drop(registered);
                part(channel, end).await.map(|()| None)
            }
        }
    }

    async fn serve_session(&self, mut client: Box<Moved>) -> std::io::Result<Onward> {
        let known = &client.registered.client;
        let span = tracing::debug_span!("session", database = known.database, user = known.user);
        let end = client.session.run(&mut client.channel).instrument(span).await;
        if let End::Moves(worker) = end {
            return Ok(Some((worker, client)));
        }
        let Moved { channel, session, registered } = *client;
        session.close();
        self.log_disconnection(&registered.client, &end);
        drop(registered);
        part(channel, end).await.map(|()| None)
    }

    fn log_connection(&self, client: &Client) {
        if self.shared.control.topology().process.log_connections {
            let (address, tls) = (client.address.map(tracing::field::display), client.encryption.as_deref());
            tracing::info!(database = client.database, user = client.user, address, tls, "client connected");
        }
    }

    fn log_disconnection(&self, client: &Client, end: &End) {
        if !self.shared.control.topology().process.log_disconnections {
            return;
        }
        let why = match end {
            End::Left | End::Moves(_) => "it left",
            End::Gone(_) => "it left without a word",
            End::Refused(error) => error.sqlstate.0,
        };
        let (address, seconds) = (client.address.map(tracing::field::display), client.since.elapsed().as_secs());
        tracing::info!(database = client.database, user = client.user, address, seconds, why, "client disconnected");
    }

    /// First packet, encryption, authentication. `None`: there is no session to run.
    async fn welcome(&self, channel: Channel, station: &Arc<Station>) -> std::io::Result<Option<(Channel, Served)>> {
        let limit = self.shared.control.topology().process.client_login_timeout;
        let limit = if limit.is_zero() { Duration::from_secs(3600) } else { limit };
        let entering = Entering::new(&self.entering);
        let limit = if entering.is_crowded() { limit.min(HURRIED_LOGIN) } else { limit };
        let welcoming = async {
            match greet::greet(channel, self.tls.current().as_deref()).await? {
                Greeted::Cancel { channel, key, passed_on } => {
                    let found = self.shared.registry.cancel(key).await;
                    if !found && !passed_on {
                        self.peers.pass_on(&self.shared.control.topology().process.peers, key).await;
                    }
                    drop(channel);
                    Ok(None)
                }
                Greeted::Refused(mut channel, error) => {
                    put_error(&mut channel.output, Severity::Fatal, &error);
                    channel.close().await.map(|()| None)
                }
                Greeted::Gone => Ok(None),
                Greeted::Session(channel, startup) => self.log_in(channel, startup, station).await,
            }
        };
        // Who does not get through in time gets no answer: it may not be able to read one.
        tokio::time::timeout(limit, welcoming).await.unwrap_or(Ok(None))
    }
}

async fn accept(listener: &TcpListener, local: Option<&LocalListener>) -> std::io::Result<Accepted> {
    let from_here = async {
        match local {
            Some(local) => local.inner.accept().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        accepted = listener.accept() => accepted?.0.into_std().map(Accepted::Tcp),
        accepted = from_here => accepted?.0.into_std().map(Accepted::Unix),
    }
}

/// Without delays, and asked for its peer when that says nothing for long.
fn alive(stream: std::net::TcpStream, keepalive: Duration) -> std::io::Result<TcpStream> {
    let stream = TcpStream::from_std(stream)?;
    stream.set_nodelay(true)?;
    if !keepalive.is_zero() {
        let probes = socket2::TcpKeepalive::new().with_time(keepalive).with_interval(keepalive);
        socket2::SockRef::from(&stream).set_tcp_keepalive(&probes)?;
    }
    Ok(stream)
}

/// A client that goes on at another worker, of this number.
type Onward = Option<(usize, Box<Moved>)>;

/// The last words to a client.
async fn part(mut channel: Channel, end: End) -> std::io::Result<()> {
    match end {
        // It may have said so together with its last query: the answer is still its own.
        End::Left => channel.close().await,
        End::Moves(_) => Ok(()),
        End::Gone(cause) => {
            tracing::debug!(%cause, "client left without a word");
            Ok(())
        }
        End::Refused(error) => {
            put_error(&mut channel.output, Severity::Fatal, &error);
            channel.close().await
        }
    }
}

/// What an authenticated client gets.
enum Served {
    Session(Box<Session>, Registered),
    /// On a connection of its own.
    Replication(Box<Connection>, Registered),
    /// The admin console, for this user.
    Console(Arc<crate::topology::User>, Registered),
}

impl Served {
    fn client(&self) -> Arc<Client> {
        match self {
            Self::Session(_, registered) | Self::Replication(_, registered) | Self::Console(_, registered) => {
                Arc::clone(&registered.client)
            }
        }
    }
}

/// Counts a client until its log-in has succeeded or failed.
struct Entering<'a>(&'a AtomicUsize);

impl<'a> Entering<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }

    fn is_crowded(&self) -> bool {
        self.0.load(Ordering::Relaxed) > MANY_ENTERING
    }
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a client as long as it lives, also when its task panics.
struct Counted {
    frontend: Arc<Frontend>,
    workers: Arc<Workers>,
    worker: usize,
}

impl Counted {
    fn new(frontend: &Arc<Frontend>, workers: &Arc<Workers>, worker: usize) -> Self {
        frontend.clients.fetch_add(1, Ordering::Relaxed);
        workers.get(worker).clients.fetch_add(1, Ordering::Relaxed);
        Self { frontend: Arc::clone(frontend), workers: Arc::clone(workers), worker }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.frontend.clients.fetch_sub(1, Ordering::Relaxed);
        self.workers.get(self.worker).clients.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A statement nests as deep as `statement` allows. Memory is taken as far as it is used.
const WORKER_STACK: usize = 16 << 20;
/// So many tasks a worker runs, if so many are ready, before it looks at its sockets again: a look costs as much as some of
/// them.
const TASKS_BETWEEN_LOOKS: u32 = 256;
/// With more than so many log-ins at once, new ones get less time: a flood must not keep descriptors for long.
const MANY_ENTERING: usize = 1_000;
const HURRIED_LOGIN: Duration = Duration::from_secs(2);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
