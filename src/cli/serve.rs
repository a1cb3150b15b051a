//! `pgweir serve`: everything is built here and ends here.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep};
use tracing_subscriber::EnvFilter;

use super::Failure;
use crate::admin::Console;
use crate::config::Config;
use crate::control::{Control, http};
use crate::dev;
use crate::frontend::Frontend;
use crate::session::Shared;
use crate::topology::{LogFormat, Process, Topology};

pub(super) fn serve(file: PathBuf, topology: Topology) -> Result<(), Failure> {
    log(topology.process.log_format);
    runtime()?.block_on(async {
        let (_stop, stopped) = oneshot::channel();
        let (ready, is_ready) = oneshot::channel();
        tokio::spawn(async move {
            if let Ok(serving) = is_ready.await {
                let dev::Serving { address, .. } = serving;
                // Scripts wait for this line; with port 0 it is the only place that tells the port.
                println!("pgweir listens on {address}");
            }
        });
        run(file, topology, ready, stopped).await
    })
}

pub(super) fn dev(options: dev::Options) -> Result<(), Failure> {
    log(LogFormat::Text);
    let proxy = async |launch: dev::Launch| {
        let config = Config::load(&launch.config).map_err(|error| error.render())?;
        let topology = Topology::new(&config, 1).map_err(|error| error.render())?;
        run(launch.config, topology, launch.ready, launch.stop).await
    };
    Ok(runtime()?.block_on(dev::run(options, proxy))?)
}

/// The control plane's threads; workers have their own.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_env("PGWEIR_LOG").unwrap_or_else(|_| EnvFilter::new("warn,pgweir=info"));
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
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
    let control = Control::start(topology);
    let (end, ending) = watch::channel(false);
    let shared = Arc::new(Shared::new(Arc::clone(&control), ending));
    let reload = reloader(file, &shared);
    let console = Console::new(Arc::clone(&shared), Box::new(reload.clone()));
    let frontend = Frontend::new(Arc::clone(&shared), console, process.tls.as_ref())?;
    let admin_http = match &process.admin_http {
        None => None,
        Some(place) => {
            let listener =
                TcpListener::bind(place).await.map_err(|cause| format!("cannot listen on {place}: {cause}"))?;
            let address = listener.local_addr()?;
            tokio::spawn(http::serve(listener, Arc::clone(&control)));
            Some(address)
        }
    };
    tokio::spawn(tend(Arc::clone(&shared)));
    let mut hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            match reload() {
                Ok(()) => tracing::info!("configuration read again"),
                Err(why) => tracing::error!(why, "configuration stays as it was"),
            }
        }
    });
    // Nobody waiting for it is no fault.
    let _ = ready.send(dev::Serving { address, admin_http });
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        result = Arc::clone(&frontend).serve(listener) => result?,
        _ = terminated.recv() => {}
        result = tokio::signal::ctrl_c() => result?,
        Ok(()) = stopped => {}
    }
    // Who is between transactions is told to leave; who is inside one may end it.
    end.send_replace(true);
    shared.registry.end();
    wind_down(&frontend, &process).await;
    Ok(())
}

async fn wind_down(frontend: &Frontend, process: &Process) {
    let deadline = Instant::now() + process.shutdown_timeout;
    while frontend.clients() > 0 && Instant::now() < deadline {
        sleep(WIND_DOWN_STEP).await;
    }
}

/// Reads the file again: all of it is taken, or none.
fn reloader(file: PathBuf, shared: &Arc<Shared>) -> impl Fn() -> Result<(), String> + Clone + Send + Sync + 'static {
    let shared = Arc::clone(shared);
    move || {
        let topology = read_again(&file, shared.control.topology().epoch + 1)?;
        shared.pools.retain(&topology);
        shared.control.apply(topology);
        Ok(())
    }
}

fn read_again(file: &Path, epoch: u64) -> Result<Topology, String> {
    let read = Config::load(file).and_then(|config| Topology::new(&config, epoch));
    read.map_err(|error| error.to_string())
}

/// Closes idle connections that grew old.
async fn tend(shared: Arc<Shared>) {
    loop {
        sleep(TEND_INTERVAL).await;
        shared.pools.all().iter().for_each(|pool| pool.tend());
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

const WIND_DOWN_STEP: Duration = Duration::from_millis(20);
const TEND_INTERVAL: Duration = Duration::from_secs(5);
