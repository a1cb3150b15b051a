//! `pgweir serve`: everything is built here and ends here.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing_subscriber::EnvFilter;

use super::Failure;
use crate::admin::{Console, Controls, Shutdown, http};
use crate::backend::check_authorities;
use crate::config::Config;
use crate::control::Control;
use crate::dev;
use crate::frontend::{Acceptor, Encryption, Frontend, LocalListener};
use crate::session::{Shared, watch_deadlocks};
use crate::topology::{LogFormat, LogLevel, Process, Topology};

pub(super) fn serve(file: PathBuf, topology: Topology) -> Result<(), Failure> {
    log(topology.process.log_format, topology.process.log_level);
    runtime()?.block_on(async {
        let (_stop, stopped) = oneshot::channel();
        let (ready, is_ready) = oneshot::channel();
        tokio::spawn(async move {
            if let Ok(serving) = is_ready.await {
                let dev::Serving { address, admin_http } = serving;
                admin_http.iter().for_each(|address| println!("pgweir serves HTTP on {address}"));
                // Scripts wait for this line; with port 0 it is the only place that tells the port.
                println!("pgweir listens on {address}");
            }
        });
        run(file, topology, ready, stopped).await
    })
}

pub(super) fn dev(options: dev::Options) -> Result<(), Failure> {
    log(LogFormat::Text, LogLevel::Info);
    let proxy = async |launch: dev::Launch| {
        let config = Config::load(&launch.config).map_err(|error| error.render())?;
        let topology = Topology::new(&config, FIRST_EPOCH).map_err(|error| error.render())?;
        run(launch.config, topology, launch.ready, launch.stop).await
    };
    Ok(runtime()?.block_on(dev::run(options, proxy))?)
}

/// The control plane's threads; workers have their own.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

/// The environment beats the configuration.
fn log(format: LogFormat, level: LogLevel) {
    let filter = EnvFilter::try_from_env("PGWEIR_LOG").or_else(|_| EnvFilter::try_from_default_env());
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(format!("warn,deadpool=off,pgweir={}", level.name())));
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter);
    // Without the bridge from crate `log`, which `init` would build: libraries tell there what they parse and send,
    // literals and all.
    let set = match format {
        LogFormat::Text => tracing::subscriber::set_global_default(log.finish()),
        LogFormat::Json => tracing::subscriber::set_global_default(log.json().finish()),
    };
    set.expect("a process sets its log up once");
}

async fn run(
    file: PathBuf,
    topology: Topology,
    ready: oneshot::Sender<dev::Serving>,
    stopped: oneshot::Receiver<()>,
) -> Result<(), Failure> {
    let process = topology.process.clone();
    raise_descriptor_limit(process.max_client_conn);
    let listener = TcpListener::bind((process.host.as_str(), process.port)).await;
    let listener = listener.map_err(|cause| format!("cannot listen on {}:{}: {cause}", process.host, process.port))?;
    let address = listener.local_addr()?;
    let local = process.unix_socket.as_ref().map(|socket| LocalListener::bind(socket, address.port())).transpose()?;
    let encryption = Arc::new(Encryption::default());
    encryption.set(understand(&topology)?);
    let control = Control::start(topology);
    let (close, closing) = watch::channel(false);
    let shared = Arc::new(Shared::new(Arc::clone(&control), closing));
    let reload = reloader(file, &shared, &encryption);
    let (shutdown, mut shutdowns) = mpsc::unbounded_channel();
    let console = Console::new(Arc::clone(&shared), Controls { reload: Box::new(reload.clone()), shutdown });
    let frontend = Frontend::new(Arc::clone(&shared), console, encryption);
    let admin_http = match &process.admin_http {
        None => None,
        Some(place) => {
            let listener =
                TcpListener::bind(place).await.map_err(|cause| format!("cannot listen on {place}: {cause}"))?;
            let address = listener.local_addr()?;
            tokio::spawn(http::serve(listener, Arc::clone(&shared)));
            Some(address)
        }
    };
    tokio::spawn(tend(Arc::clone(&shared)));
    tokio::spawn(follow_defaults(Arc::clone(&shared)));
    tokio::spawn(average(Arc::clone(&shared)));
    tokio::spawn(watch_deadlocks(Arc::clone(&shared)));
    let mut hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            // Both outcomes are logged; nobody else is there to be told.
            let _ = reload();
        }
    });
    let terminated = signal(SignalKind::terminate())?;
    // Nobody waiting for it is no fault.
    let _ = ready.send(dev::Serving { address, admin_http });
    let mut told = pin!(told_to_end(terminated, stopped));
    let wait = tokio::select! {
        result = Arc::clone(&frontend).serve(listener, local) => return Ok(result?),
        result = &mut told => result.map(|()| Shutdown::Transactions)?,
        Some(wait) = shutdowns.recv() => wait,
    };
    close.send_replace(true);
    if wait == Shutdown::Clients {
        tracing::info!("nobody is let in any more; waiting for clients to leave");
        tokio::select! {
            () = nobody_is_left(&frontend) => {}
            result = &mut told => result?,
        }
    }
    // Who is between transactions is told to leave; who is inside one may end it.
    shared.registry.end();
    let mut again = signal(SignalKind::terminate())?;
    tokio::select! {
        // Who is not done in time is cut off.
        _ = timeout(control.topology().process.shutdown_timeout, nobody_is_left(&frontend)) => {}
        // Whoever asks twice means it.
        _ = again.recv() => {}
    }
    Ok(())
}

/// Returns at a signal to end, or when the caller wants it.
async fn told_to_end(mut terminated: Signal, stopped: oneshot::Receiver<()>) -> std::io::Result<()> {
    tokio::select! {
        _ = terminated.recv() => Ok(()),
        result = tokio::signal::ctrl_c() => result,
        Ok(()) = stopped => Ok(()),
    }
}

async fn nobody_is_left(frontend: &Frontend) {
    while frontend.clients() > 0 {
        sleep(WIND_DOWN_STEP).await;
    }
}

/// Reads the file again: all of it is taken, or none.
fn reloader(
    file: PathBuf,
    shared: &Arc<Shared>,
    encryption: &Arc<Encryption>,
) -> impl Fn() -> Result<(), String> + Clone + Send + Sync + 'static {
    let (shared, encryption) = (Arc::clone(shared), Arc::clone(encryption));
    move || {
        let [taken, refused] = &shared.figures.reloads;
        let old = shared.control.topology();
        match read_again(&file) {
            Ok((topology, acceptor)) => {
                tell_what_waits(&old.process, &topology.process);
                encryption.set(acceptor);
                shared.renew_cache(&topology);
                shared.control.apply(topology);
                shared.pools.retain(&shared.control.topology());
                taken.add_shared(1);
                tracing::info!("configuration read again");
                Ok(())
            }
            Err(why) => {
                refused.add_shared(1);
                tracing::error!(why, "configuration stays as it was");
                Err(why)
            }
        }
    }
}

fn read_again(file: &Path) -> Result<(Topology, Option<Acceptor>), String> {
    let read = Config::load(file).and_then(|config| Topology::new(&config, FIRST_EPOCH));
    let topology = read.map_err(|error| error.to_string())?;
    let acceptor = understand(&topology).map_err(|cause| cause.to_string())?;
    Ok((topology, acceptor))
}

/// Certificates and keys are understood before anything is changed for them.
pub(super) fn understand(topology: &Topology) -> Result<Option<Acceptor>, Failure> {
    for server in &topology.servers {
        check_authorities(server)?;
    }
    Ok(topology.process.tls.as_ref().map(Acceptor::new).transpose()?)
}

/// Names what a reload cannot change.
fn tell_what_waits(old: &Process, new: &Process) {
    let changed = [
        ("host", old.host != new.host),
        ("port", old.port != new.port),
        ("unix_socket_dir", old.unix_socket != new.unix_socket),
        ("workers", old.workers != new.workers),
        ("admin_http", old.admin_http != new.admin_http),
        ("log_format", old.log_format != new.log_format),
    ];
    for (key, _) in changed.iter().filter(|(_, changed)| *changed) {
        tracing::warn!(key, "takes effect at the next start only");
    }
}

/// Closes idle connections that grew old, and pools that went while somebody used them; fills the others.
async fn tend(shared: Arc<Shared>) {
    loop {
        let topology = shared.control.topology();
        shared.pools.retain(&topology);
        fill(&shared, &topology);
        sleep(TEND_INTERVAL).await;
        shared.pools.all().iter().for_each(|pool| pool.tend());
    }
}

/// Lends no connections that began with other settings than sessions begin with now.
async fn follow_defaults(shared: Arc<Shared>) {
    let mut known = HashMap::new();
    loop {
        sleep(DEFAULTS_INTERVAL).await;
        shared.follow_defaults(&mut known);
    }
}

/// Turns the periods that averages are taken over.
async fn average(shared: Arc<Shared>) {
    loop {
        let period = shared.control.topology().process.stats_period;
        sleep(period.max(SHORTEST_PERIOD)).await;
        shared.figures.periods.turn(Instant::now(), shared.figures.totals());
    }
}

/// Opens `min_pool_size` connections in every pool that wants some, each pool by itself: a server may be away.
fn fill(shared: &Shared, topology: &Topology) {
    for server in &topology.servers {
        for user in topology.users_of(&server.database).filter(|user| user.min_pool_size > 0) {
            let pool = shared.pools.pool(server, user, &topology.process);
            tokio::spawn(async move {
                if let Err(cause) = pool.fill(NO_WORKER).await {
                    tracing::debug!(%cause, server = %pool.server.host, "filling a pool");
                }
            });
        }
    }
}

/// As far as it may be: each client and each server connection is one descriptor.
fn raise_descriptor_limit(clients: usize) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if soft < hard
        && let Err(cause) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%cause, "raising the limit of open files");
    }
    if hard < clients as u64 * 2 {
        tracing::warn!(
            limit = hard,
            max_client_conn = clients,
            "the limit of open files may be too low for max_client_conn"
        );
    }
}

/// Of a topology by itself; the control plane counts on.
const FIRST_EPOCH: u64 = 1;
/// Of connections that no worker has used yet.
const NO_WORKER: usize = usize::MAX;
const WIND_DOWN_STEP: Duration = Duration::from_millis(20);
const SHORTEST_PERIOD: Duration = Duration::from_secs(1);
const DEFAULTS_INTERVAL: Duration = Duration::from_millis(500);
const TEND_INTERVAL: Duration = Duration::from_secs(5);
