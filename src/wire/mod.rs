//! PostgreSQL's protocol 3 (PostgreSQL documentation, chapter 55): frames, messages, byte streams, SCRAM.
//!
//! Knows bytes; nothing of sessions, pools or SQL. The only module that names `pgwire`.

mod bind;
pub mod binding;
pub mod certificate;
mod channel;
mod exchange;
pub mod frame;
mod key;
pub mod md5;
pub mod message;
mod oids;
pub mod scram;
mod startup;

pub use bind::{Bind, TextArray};
pub use channel::{Channel, READ_BYTES, Stream};
pub use exchange::{Exchange, has_unknown_values, number_bind, wants_binary};
pub use frame::Header;
pub use key::CancelKey;
pub use message::{AuthenticationRequest, Severity, Status};
pub use oids::{Definition, Oids, column_types_in, put_formats};
pub use startup::{Parameter, Startup, frame_length};

/// The protocol's name in TLS handshakes (PostgreSQL documentation, 55.2.11).
pub const ALPN: &[u8] = b"postgresql";
