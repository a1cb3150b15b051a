//! pgweir: a PostgreSQL proxy that shards by key range and splits reads from writes.
//!
//! Floors, from the top; a module names only those below it (`tests/architecture.rs`):
//! cli, dev; frontend; admin; session; executor; control; balance, merge, plan; backend, statement;
//! topology, catalog; wire, config, error.

pub mod catalog;
pub mod error;
pub mod merge;
pub mod plan;
pub mod statement;
pub mod topology;
