//! Decides, never does: Statement + values + topology + catalog -> [`Plan`]. Pure.
//!
//! Two steps: [`Template`] holds all that does not depend on values (made once per shape, catalog and topology),
//! [`Template::plan`] finds the shards for one execution. Knows nothing of connections or clients.

mod access;
mod altering;
mod caching;
mod constraints;
mod copying;
pub mod explain;
mod explaining;
mod filling;
mod gather;
mod insert;
mod keeping;
mod keys;
mod local;
mod materialized;
mod mirror;
mod moving;
mod narrowing;
mod numbering;
mod one_by_one;
mod owner;
mod placing;
mod reference;
mod relations;
mod rewrite;
mod scatter;
mod script;
mod surroundings;
mod template;
mod through;
mod touches;
mod transfer;
mod types;
mod views;

pub use access::may_only_compute;
pub use caching::Cacheable;
pub use constraints::of_each_shard;
pub use copying::{CopyIn, Misplaced, types as types_of_copy};
pub use moving::{Looked, Moved};
pub use numbering::{Draw, Drawn, sequences_of};
pub use relations::{Place, Sharded, places};
pub use script::Places;
pub use surroundings::Surroundings;
pub use template::Template;
pub use touches::Touches;
pub use transfer::Inserted;
pub use types::{
    Access, Act, CopyOut, Create, Declared, Fetch, Gather, Goal, Keeping, Local, MARK, Mirror, Move, Narrowed,
    OneByOne, Outcome, Part, Plan, Route, Scatter, Script, Spread, Staged, Step, Steps, Tag, Transfer, fill_marks,
    shards_of,
};
pub use views::written_out;
