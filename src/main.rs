//! The program: reads its arguments, binds, serves.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use pgweir::config::Config;
use pgweir::frontend;

/// A PostgreSQL proxy.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve clients until SIGTERM or Ctrl-C
    Serve {
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Read a configuration and say what is wrong with it
    Check {
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let result = match Arguments::parse().command {
        Command::Serve { config } => serve(config),
        Command::Check { config } => {
            Config::load(&config).map(|_| println!("{}: ok", config.display())).map_err(Into::into)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("pgweir: {cause}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn serve(file: PathBuf) -> Result<(), Box<dyn std::error::Error>> {
    let config = Arc::new(Config::load(&file)?);
    let listener = TcpListener::bind((config.general.host.as_str(), config.general.port)).await?;
    // Scripts wait for this line; with port 0 it is the only place that tells the port.
    println!("pgweir listens on {}", listener.local_addr()?);
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        result = frontend::serve(listener, config) => result?,
        _ = terminated.recv() => {}
        result = tokio::signal::ctrl_c() => result?,
    }
    Ok(())
}
