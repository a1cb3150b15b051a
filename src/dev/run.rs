//! `pgweir dev`, from the options to the end of the last server.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::cluster::{APP, DATABASE, Purpose};
use super::folder::Folder;
use super::server::{HOST, free_port};
use super::state::{State, write_private};
use super::{Cluster, Error, Role, load, settings};
use crate::control::migrate::{Migrations, apply};

/// What can be said on the command line of `pgweir dev`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Folder of the servers' data; made if need be, used again at the next start
    #[arg(long, value_name = "DIR", default_value = ".pgweir-dev")]
    pub dir: PathBuf,
    /// Remove what is in the folder and begin anew
    #[arg(long)]
    pub fresh: bool,
    /// Shards, each a primary and its replicas [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub shards: Option<u16>,
    /// Streaming replicas of each primary [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=8))]
    pub replicas: Option<u16>,
    /// Users of the shop in all, with their orders, posts, carts and follows [default: 20000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub rows: Option<u64>,
    /// Connections that each server allows, 100 or more [default: 200]
    // Servers are made with 100, and a replica must not have less than its primary ever had.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(100..=10_000))]
    pub max_connections: Option<u16>,
    /// TCP port of the proxy, 0: any that is free [default: 6432 or, if it is taken, any]
    #[arg(long, value_name = "N")]
    pub port: Option<u16>,
    /// File to write, as JSON, how to connect, once the proxy serves
    #[arg(long, value_name = "PATH")]
    pub ready_file: Option<PathBuf>,
}

/// What the proxy is started with.
pub struct Launch {
    pub config: PathBuf,
    /// To be told when clients can connect.
    pub ready: oneshot::Sender<Serving>,
    /// Completes when the proxy is to end.
    pub stop: oneshot::Receiver<()>,
}

/// Where a proxy listens.
#[derive(Clone, Copy, Debug)]
pub struct Serving {
    pub address: SocketAddr,
    /// `None`: where the configuration says.
    pub admin_http: Option<SocketAddr>,
}

/// What a proxy may fail with.
pub type ProxyError = Box<dyn std::error::Error + Send + Sync>;

/// Brings up the cluster, has `serve` run the proxy, and ends with Ctrl-C, SIGTERM or the proxy, leaving nothing behind.
pub async fn run(options: Options, serve: impl AsyncFnOnce(Launch) -> Result<(), ProxyError>) -> Result<(), Error> {
    let mut signals = Signals::listen()?;
    if let Some(file) = &options.ready_file {
        // Who waits for the file must not find the last start's. If it cannot be removed, writing it will say so.
        let _ = fs::remove_file(file);
    }
    let dev = tokio::select! {
        biased;
        () = signals.received() => return Ok(()),
        dev = Dev::bring_up(&options) => dev?,
    };
    let result = dev.serve(&options, serve, signals).await;
    println!("Stopping {} servers.", dev.cluster.servers().count());
    result
}

/// A cluster with its rows in, and the proxy's configuration for it.
struct Dev {
    cluster: Cluster,
    config: PathBuf,
    admin_http: u16,
    // Held until the servers have ended.
    folder: Folder,
}

impl Dev {
    async fn bring_up(options: &Options) -> Result<Self, Error> {
        let folder = Folder::open(&options.dir).await?;
        let port = port(options.port)?;
        let state = state(&folder, options)?;
        let path = folder.path.clone();
        println!(
            "Starting {} servers in {}.",
            u32::from(state.shards) * (1 + u32::from(state.replicas)),
            path.display()
        );
        let opening = tokio::task::spawn_blocking(move || Cluster::open(&path, state, Purpose::Dev));
        let cluster = opening.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        let mut state = cluster.state().clone();
        state.save(&folder.path)?;
        apply(&cluster.primaries(), &[Migrations::shop().run_as(APP)]).await?;
        if !state.loaded {
            println!("Loading {} users with their orders, posts, carts and follows.", state.rows);
            load::load(&cluster).await?;
            state.loaded = true;
            state.save(&folder.path)?;
        }
        cluster.caught_up().await?;
        let (config, admin_http) = (folder.path.join("pgweir.toml"), preferred_or_free(ADMIN_PORT)?);
        write_private(&config, &settings::toml(&cluster, port, admin_http))?;
        Ok(Self { cluster, config, admin_http, folder })
    }

    async fn serve(
        &self,
        options: &Options,
        serve: impl AsyncFnOnce(Launch) -> Result<(), ProxyError>,
        mut signals: Signals,
    ) -> Result<(), Error> {
        let (ready, is_ready) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let mut proxy = std::pin::pin!(serve(Launch { config: self.config.clone(), ready, stop: stopped }));
        let announced = async {
            // A proxy that ends without a word has its reason in its result.
            if let Ok(serving) = is_ready.await {
                self.announce(options, serving)?;
            }
            std::future::pending::<Result<(), Error>>().await
        };
        let ended = tokio::select! {
            () = signals.received() => None,
            result = announced => Some(result),
            result = &mut proxy => Some(result.map_err(Error::Proxy)),
        };
        match ended {
            Some(result) => result,
            None => {
                // A proxy that does not listen is dropped in a moment.
                let _ = stop.send(());
                let finished = tokio::time::timeout(PROXY_DEADLINE, proxy).await;
                finished.map_or(Ok(()), |result| result.map_err(Error::Proxy))
            }
        }
    }

    /// Says how to connect: to the person, and to the program that waits for the file.
    fn announce(&self, options: &Options, serving: Serving) -> Result<(), Error> {
        let address = serving.address;
        let admin_http = serving.admin_http.map_or(format!("{HOST}:{}", self.admin_http), |admin| admin.to_string());
        let password = &self.cluster.state().app_password;
        println!("{}", self.welcome(address.port(), &admin_http));
        let Some(file) = &options.ready_file else { return Ok(()) };
        let servers = self.cluster.servers().map(|server| {
            let role = if server.role == Role::Primary { "primary" } else { "replica" };
            json!({ "shard": server.shard, "role": role, "port": server.port() })
        });
        let ready = json!({
            "host": address.ip().to_string(), "port": address.port(),
            "user": APP, "password": password, "database": DATABASE,
            "admin_http": admin_http, "servers": servers.collect::<Vec<_>>(),
        });
        // Renamed into its place, so that it is there whole or not at all.
        let draft = file.with_extension("new");
        write_private(&draft, &format!("{ready:#}\n"))?;
        fs::rename(&draft, file).map_err(Error::io(file))
    }

    fn welcome(&self, port: u16, admin_http: &str) -> String {
        let state = self.cluster.state();
        let (password, last) = (&state.app_password, state.rows);
        format!(
            "\npgweir serves {} shards, each a primary and {} replicas. Type:\n\n  \
             psql postgresql://{APP}:{password}@{HOST}:{port}/{DATABASE}\n\n\
             and try:\n\n  \
             SELECT id, handle, country, balance FROM users WHERE id = {last};\n  \
             SELECT status, count(*), sum(total) FROM orders GROUP BY status ORDER BY status;\n  \
             EXPLAIN ROUTE SELECT * FROM posts WHERE user_id IN (1, {last}) ORDER BY published_at DESC LIMIT 10;\n\n\
             Configuration: {}\nMetrics:       http://{admin_http}/metrics (and /healthz, /readyz)\nCtrl-C stops everything.\n",
            state.shards,
            state.replicas,
            self.folder.path.join("pgweir.toml").display(),
        )
    }
}

/// The two ways to be told to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Error> {
        let listen = |kind| signal(kind).map_err(Error::io(Path::new("signals")));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// What is in the folder, or what is to be put there.
fn state(folder: &Folder, options: &Options) -> Result<State, Error> {
    if let Some(state) = folder.state()?.filter(|_| !options.fresh) {
        let differs = |option, made, asked: Option<u64>| match asked.filter(|asked| *asked != made) {
            Some(asked) => Err(Error::Differs { folder: folder.path.clone(), option, made, asked }),
            None => Ok(()),
        };
        differs("shards", state.shards.into(), options.shards.map(u64::from))?;
        differs("replicas", state.replicas.into(), options.replicas.map(u64::from))?;
        differs("rows", state.rows, options.rows)?;
        differs("max-connections", state.max_connections.into(), options.max_connections.map(u64::from))?;
        return Ok(state);
    }
    folder.erase()?;
    let (shards, replicas) = (options.shards.unwrap_or(2), options.replicas.unwrap_or(2));
    let mut state = State::new(shards, replicas, options.rows.unwrap_or(20_000));
    state.max_connections = options.max_connections.unwrap_or(state.max_connections);
    if state.rows < state.shards.into() {
        return Err(Error::OutOfRange { option: "rows", range: "at least one for each shard" });
    }
    Ok(state)
}

fn port(asked: Option<u16>) -> Result<u16, Error> {
    match asked {
        None => preferred_or_free(PORT),
        Some(port) if port == 0 || is_free(port) => Ok(port),
        Some(port) => Err(Error::PortTaken { port }),
    }
}

fn preferred_or_free(port: u16) -> Result<u16, Error> {
    if is_free(port) { Ok(port) } else { free_port() }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((HOST, port)).is_ok()
}

const PORT: u16 = 6432;
const ADMIN_PORT: u16 = 9090;
/// How long a proxy may take to let its clients' transactions end.
const PROXY_DEADLINE: std::time::Duration = std::time::Duration::from_secs(10);
