//! The result cache: answers of reads, kept as bytes, and the versions that say whether they still hold.
//!
//! Pure: times are given as instants, nothing is sent or asked. Knows nothing of SQL, shards or clients: a statement is
//! a key of bytes, a table is a tag.
//!
//! The order of things, which is all that makes it right:
//!
//! * A **write** is announced ([`Spaces::write`]) before the statement, COMMIT or COMMIT PREPARED that may end its
//!   transaction is sent, and ends ([`Writing::committed`]) after its ReadyForQuery was read and before the client
//!   gets it.
//! * A **read** takes its [`Stamp`] before its query is sent. What it gave is kept only if the stamp still holds, and
//!   served only while the stamp holds.
//!
//! So no hit is older than a write that was acknowledged through this process before the hit began. Tags are by table;
//! a later version divides a table's by key, in [`TableTag`] and [`Space`] alone.

mod entry;
mod figures;
mod flight;
mod key;
mod reason;
mod space;
mod stamp;
mod store;
#[cfg(test)]
mod tests;
mod writing;

pub use entry::{Answer, Entry, Origin};
pub use figures::Figures;
pub use flight::{Fill, Follow, Followed, Lead};
pub use key::KeyBytes;
pub use reason::Reason;
pub use space::{Identity, Space, Spaces, TableTag};
pub use stamp::Stamp;
pub use store::{Cache, Found, Limits, Policy};
pub use writing::{Place, Touched, Unresolved, Witness, Writing};
