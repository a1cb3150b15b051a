//! pgweir: a PostgreSQL proxy, on its way to sharding by key range and splitting reads from writes.
//!
//! Floors, from the top; a module names only those below it (`tests/architecture.rs`):
//! frontend; merge, plan; backend, statement; topology, catalog; wire, config, error.

pub mod backend;
pub mod catalog;
pub mod config;
pub mod error;
pub mod frontend;
pub mod merge;
pub mod plan;
pub mod statement;
pub mod topology;
pub mod wire;
