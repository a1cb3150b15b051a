//! The wire protocol, message by message: against PostgreSQL itself, against servers and clients that misbehave.

#![allow(clippy::unwrap_used)]

mod support;

#[path = "support/raw.rs"]
mod raw;

#[path = "protocol/bad.rs"]
mod bad;
#[path = "protocol/cancel.rs"]
mod cancel;
#[path = "protocol/differential.rs"]
mod differential;
#[path = "protocol/fake.rs"]
mod fake;
#[path = "protocol/login.rs"]
mod login;
#[path = "protocol/scripts.rs"]
mod scripts;
#[path = "protocol/stage.rs"]
mod stage;
