//! The control plane, beside the path of statements: probes, catalog loader, recovery, migrations.

pub mod connect;
pub mod migrate;
