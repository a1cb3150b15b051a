//! Decides, never does: Statement + values + topology + catalog -> [`Plan`]. Pure.
//!
//! Two steps: [`Template`] holds all that does not depend on values (made once per shape, catalog and topology),
//! [`Template::plan`] finds the shards for one execution. Knows nothing of connections or clients.

mod access;
pub mod explain;
mod insert;
mod keys;
mod relations;
mod rewrite;
mod scatter;
mod template;
mod types;

pub use template::{Surroundings, Template};
pub use types::{Access, Part, Plan, Route, Scatter, Spread, Tag};
