//! Carries plans out: on one connection, relayed as bytes; on many, merged or all or none.
//!
//! Knows connections and plans; nothing of sessions. What a client is sent goes to its channel's output.

mod commit;
mod copy_in;
mod copy_out;
mod cursors;
mod failure;
mod fetch;
mod gather;
mod keeping;
mod one_by_one;
mod reading;
mod relay;
mod request;
mod scatter;
mod single;
mod snapshots;
mod spread;
mod staged;
mod writing;

pub use commit::{Commit, commit_blocks};
pub use cursors::{Asking, MergedCursor, declare, put_answer};
pub use gather::{Collected, collect};
pub use reading::{Limits, Reading, read};
pub use relay::{BUFFER_BYTES, Broken, Unit, move_front, relay};
pub use request::Request;
pub use scatter::{Ended, put_end};
pub use single::{Told, describe, drain_all, parameter_types, single};
pub use snapshots::Sight;
pub use spread::{Decision, write};
pub use writing::{Writing, Written};
