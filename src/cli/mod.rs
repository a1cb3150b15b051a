//! The command line: what each command does with the modules below.

mod check;
mod route;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::control::connect::Login;
use crate::control::migrate::{Migrations, apply};
use crate::control::{Fate, recover_all};
use crate::dev;
use crate::topology::{ConfiguredRole, Topology};

/// A PostgreSQL proxy that shards by key range and splits reads from writes.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve clients until SIGTERM or Ctrl-C; SIGHUP reads the configuration again
    Serve(ConfigFile),
    /// Read a configuration and say what is wrong with it, or also with its servers
    Check {
        #[command(flatten)]
        config: ConfigFile,
        /// Ask all servers: roles, tables that differ, rows on other shards than their own, what was left behind
        #[arg(long)]
        live: bool,
        /// One JSON object for each finding
        #[arg(long, requires = "live")]
        json: bool,
        /// Let the values of columns that are declared unique be kept, from the rows that are there
        #[arg(long, requires = "live")]
        repair: bool,
    },
    /// Say where a statement would go, without any server
    Route {
        #[command(flatten)]
        config: ConfigFile,
        /// Database as clients name it [default: the first]
        #[arg(short, long)]
        database: Option<String>,
        /// The statement
        sql: String,
    },
    /// Apply SQL files to every shard, all shards or none; without --dir, pgweir's own schema
    Migrate {
        #[command(flatten)]
        config: ConfigFile,
        /// Folder of numbered SQL files
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// End what writes over several shards have left prepared on the servers, each as it was decided
    Recover(ConfigFile),
    /// A whole cluster from nothing: sharded, replicated, with the demo's shop in it
    Dev(dev::Options),
}

#[derive(clap::Args)]
struct ConfigFile {
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    file: PathBuf,
}

/// Why a command failed, in words for a terminal.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs what the arguments say.
pub fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Serve(config) => read(&config).and_then(|(_, topology)| serve::serve(config.file, topology)),
        Command::Check { config, live, json, repair } => match live {
            true => check::live(&config, json, repair),
            false => check::check(&config),
        },
        Command::Route { config, database, sql } => {
            read(&config).and_then(|(_, topology)| route::print(&topology, database.as_deref(), &sql))
        }
        Command::Migrate { config, dir } => read(&config).and_then(|(_, topology)| migrate(&topology, dir)),
        Command::Recover(config) => read(&config).and_then(|(_, topology)| recover(topology)),
        Command::Dev(options) => serve::dev(options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("pgweir: {cause}");
            ExitCode::FAILURE
        }
    }
}

fn read(config: &ConfigFile) -> Result<(Config, Topology), Failure> {
    let read =
        Config::load(&config.file).and_then(|config| Topology::new(&config, 1).map(|topology| (config, topology)));
    read.map_err(|error| error.render().into())
}

/// One line for each that was found; a failure where a shard could not be looked at, or would not do as it was told.
fn recover(topology: Topology) -> Result<(), Failure> {
    let topology = Arc::new(topology);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut databases: Vec<_> = topology.databases.values().filter(|database| database.is_sharded()).collect();
    databases.sort_by_key(|database| &database.name);
    let (mut found, mut failed) = (0, 0);
    for database in databases {
        for (shard, result) in runtime.block_on(recover_all(database, &topology)).into_iter().enumerate() {
            let name = &database.name;
            match result {
                Ok(all) => {
                    found += all.len();
                    failed += all.iter().filter(|one| matches!(one.fate, Fate::Failed(_) | Fate::Homeless)).count();
                    all.iter()
                        .for_each(|one| println!("{name} shard {shard} {} ({} s): {}", one.gid, one.age, one.fate));
                }
                Err(why) => {
                    failed += 1;
                    println!("{name} shard {shard}: {why}");
                }
            }
        }
    }
    match (found, failed) {
        (_, 1..) => Err("not everything could be ended; try again when all shards have a primary".into()),
        (0, 0) => {
            println!("nothing is prepared");
            Ok(())
        }
        _ => Ok(()),
    }
}

fn migrate(topology: &Topology, dir: Option<PathBuf>) -> Result<(), Failure> {
    let folders = dir.map(|dir| Migrations::read(&dir)).transpose()?;
    let folders: Vec<Migrations> = folders.into_iter().collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for database in topology.databases.values() {
        let servers = database.shards.iter().filter_map(|shard| {
            let mut servers = shard.servers.iter().map(|&id| topology.server(id));
            servers.find(|server| server.role == ConfiguredRole::Primary)
        });
        let logins: Option<Vec<Login>> = servers.map(|server| crate::control::login(server, topology)).collect();
        let logins = logins.ok_or("no password to log in with; give [control]")?;
        let report = runtime.block_on(apply(&logins, &folders))?;
        println!("{}: {} applied", database.name, report.applied.len());
    }
    Ok(())
}
