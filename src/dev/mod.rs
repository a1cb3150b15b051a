//! A whole cluster from nothing: `pgweir dev`, and the servers that the tests run on.
//!
//! Knows PostgreSQL's programs, folders and processes. Knows nothing of the proxy: it is handed in as a function.

mod cluster;
mod error;
mod folder;
mod guard;
mod installation;
mod leftover;
mod load;
mod run;
mod server;
mod settings;
mod shop;
mod state;

pub use cluster::{APP, Cluster, DATABASE, Purpose, SUPERUSER};
pub use error::Error;
pub use installation::Installation;
pub use run::{Launch, Options, ProxyError, Serving, run};
pub use server::{HOST, Role, Server, Stop, free_port};
pub use settings::tables;
pub use state::State;
