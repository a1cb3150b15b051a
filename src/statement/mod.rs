//! Understands SQL: one text to immutable [`Statement`]s. The only module that knows `sqlparser`.
//!
//! Pure. Knows nothing of shards, servers or catalogs: names stay as written, columns stay unresolved, and every
//! literal is named by its index, so that texts that differ in literals only share one analysis.

mod aggregates;
mod altering;
mod analyze;
mod assignments;
mod blocks;
mod cache;
mod clauses;
mod commands;
mod composed;
mod constraints;
mod copying;
mod encoding;
mod escapes;
mod execution;
mod hints;
mod moments;
mod names;
mod naming;
mod pieces;
mod plainer;
mod predicates;
mod procedural;
mod processes;
mod query;
mod quoting;
mod scan;
mod showing;
mod splicing;
#[cfg(test)]
mod tests;
mod types;
mod uses;
mod utility;
mod values;
mod written;

pub use analyze::analyze;
pub use cache::{Entry, ShapeCache};
pub use constraints::{Constraint, constraints};
pub use copying::copied_query;
pub use encoding::embeds_ascii;
pub use escapes::{Standardized, standardized};
pub use execution::{Argument, Constant, Execution, execution};
pub use naming::{NameOfPrepared, Naming, prepared_names};
pub use processes::{names_processes, number_shown, numbers_in, numbers_in_text, shows_number, signals, signals_shown};
pub use quoting::{plain_literal, quoted_literal, quoted_name};
pub use scan::{LiteralKind, LiteralSpan, bytes_of, names_in, token_ranges};
pub use showing::channels_shown;
pub use splicing::spliced;
pub use types::*;
pub use values::{Given, Parameters, Values};
