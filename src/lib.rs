//! pgweir: a PostgreSQL proxy that shards by key range and splits reads from writes.
//!
//! Floors, from the top; a module names only those below it (`tests/architecture.rs`):
//! cli, dev; frontend; admin; session; executor; control; plan; balance, cache, merge; backend, statement, figures;
//! topology, catalog, copy;
//! wire; config; error.

pub mod admin;
pub mod backend;
pub mod balance;
pub mod cache;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod control;
pub mod copy;
pub mod dev;
pub mod error;
pub mod executor;
pub mod figures;
pub mod frontend;
pub mod merge;
pub mod plan;
pub mod session;
pub mod statement;
pub mod topology;
pub mod wire;
