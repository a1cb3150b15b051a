//! Clients: accepts them, lets them prove who they are, hands them to sessions. Alone writes to client sockets.
//!
//! One accepting task, one thread with a runtime of its own for each worker; a client stays on its worker.

mod greet;
mod login;
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::admin::Console;
use crate::session::{End, Registered, Session, Shared, Station};
use crate::topology::ClientTls;
use crate::wire::message::put_error;
use crate::wire::{Channel, Severity, Stream};
use greet::Greeted;
use login::Logins;

/// What all workers share.
pub struct Frontend {
    shared: Arc<Shared>,
    console: Arc<Console>,
    tls: Option<tls::Acceptor>,
    logins: Logins,
    clients: AtomicUsize,
}

/// One worker, as the accepting task sees it.
struct Worker {
    clients: Arc<AtomicUsize>,
    handed: UnboundedSender<std::net::TcpStream>,
}

impl Frontend {
    /// Reads the TLS files, if there are any.
    pub fn new(shared: Arc<Shared>, console: Arc<Console>, tls: Option<&ClientTls>) -> std::io::Result<Arc<Self>> {
        let tls = tls.map(tls::Acceptor::new).transpose()?;
        Ok(Arc::new(Self { shared, console, tls, logins: Logins::default(), clients: AtomicUsize::new(0) }))
    }

    /// Clients being served.
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Serves clients of a bound listener until the future is dropped; those who are there then stay.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) -> std::io::Result<()> {
        let count = self.shared.control.topology().process.workers;
        let workers: Vec<Worker> = (0..count).map(|number| self.start_worker(number)).collect::<Result<_, _>>()?;
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(cause) => {
                    // Out of descriptors, or a client that left already: wait for better times, do not spin.
                    tracing::warn!(%cause, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let fewest = workers.iter().min_by_key(|worker| worker.clients.load(Ordering::Relaxed));
            if let (Some(worker), Ok(stream)) = (fewest, stream.into_std()) {
                worker.clients.fetch_add(1, Ordering::Relaxed);
                if worker.handed.send(stream).is_err() {
                    return Err(std::io::Error::other("a worker has ended"));
                }
            }
        }
    }

    fn start_worker(self: &Arc<Self>, number: usize) -> std::io::Result<Worker> {
        let (handed, clients) = unbounded_channel();
        let counter = Arc::new(AtomicUsize::new(0));
        let (frontend, count) = (Arc::clone(self), Arc::clone(&counter));
        let runtime = Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || runtime.block_on(frontend.work(number, clients, count)))?;
        Ok(Worker { clients: counter, handed })
    }

    async fn work(
        self: Arc<Self>,
        number: usize,
        mut clients: UnboundedReceiver<std::net::TcpStream>,
        count: Arc<AtomicUsize>,
    ) {
        let station = Arc::new(Station::new(number, Arc::clone(&self.shared)));
        while let Some(stream) = clients.recv().await {
            let counted = Counted::new(&self, &count);
            let (frontend, station) = (Arc::clone(&self), Arc::clone(&station));
            tokio::spawn(async move {
                if let Err(cause) = frontend.converse(stream, station).await {
                    tracing::debug!(%cause, "client connection ended");
                }
                drop(counted);
            });
        }
    }

    /// One client connection from its first byte to its last.
    async fn converse(&self, stream: std::net::TcpStream, station: Arc<Station>) -> std::io::Result<()> {
        let stream = TcpStream::from_std(stream)?;
        stream.set_nodelay(true)?;
        let keepalive = self.shared.control.topology().process.tcp_keepalive;
        if !keepalive.is_zero() {
            let probes = socket2::TcpKeepalive::new().with_time(keepalive).with_interval(keepalive);
            socket2::SockRef::from(&stream).set_tcp_keepalive(&probes)?;
        }
        let channel = Channel::new(Stream::Tcp(stream));
        // On the heap and gone when the session runs: an idle client does not carry the room for its log-in.
        let Some((mut channel, served)) = Box::pin(self.welcome(channel, &station)).await? else { return Ok(()) };
        let end = match served {
            Served::Session(mut session, registered) => {
                let end = session.run(&mut channel).await;
                session.close();
                drop(registered);
                end
            }
            Served::Console(user) => self.console.run(&mut channel, &user).await,
        };
        match end {
            End::Left => {}
            End::Gone(cause) => tracing::debug!(%cause, "client left without a word"),
            End::Refused(error) => {
                put_error(&mut channel.output, Severity::Fatal, &error);
                channel.flush().await?;
            }
        }
        Ok(())
    }

    /// First packet, encryption, authentication. `None`: there is no session to run.
    async fn welcome(&self, channel: Channel, station: &Arc<Station>) -> std::io::Result<Option<(Channel, Served)>> {
        let limit = self.shared.control.topology().process.client_login_timeout;
        let limit = if limit.is_zero() { Duration::from_secs(3600) } else { limit };
        let entering = async {
            match greet::greet(channel, self.tls.as_ref()).await? {
                Greeted::Cancel(key) => {
                    self.shared.registry.cancel(key).await;
                    Ok(None)
                }
                Greeted::Refused(mut channel, error) => {
                    put_error(&mut channel.output, Severity::Fatal, &error);
                    channel.flush().await.map(|()| None)
                }
                Greeted::Gone => Ok(None),
                Greeted::Session(channel, startup) => self.log_in(channel, startup, station).await,
            }
        };
        // Who does not get through in time gets no answer: it may not be able to read one.
        tokio::time::timeout(limit, entering).await.unwrap_or(Ok(None))
    }
}

/// What an authenticated client gets.
enum Served {
    Session(Box<Session>, Registered),
    /// The admin console, for the user of this name.
    Console(Arc<crate::topology::User>),
}

/// Counts a client as long as it lives, also when its task panics.
struct Counted(Arc<Frontend>, Arc<AtomicUsize>);

impl Counted {
    fn new(frontend: &Arc<Frontend>, worker: &Arc<AtomicUsize>) -> Self {
        frontend.clients.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(frontend), Arc::clone(worker))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
