//! Counts what a session does, at the end of each unit of work.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Span;

use crate::figures::{DatabaseFigures, Route, Unit};
use crate::wire::Channel;
use crate::wire::message::error_field;

pub(super) struct Meter {
    pub figures: Arc<DatabaseFigures>,
    begun: Instant,
    /// When its answer was complete, as far as known.
    answered: Option<Instant>,
    /// When the transaction began that is open.
    transaction: Option<Instant>,
    /// The way of the unit that is being served.
    pub route: Route,
    /// How long it has waited for connections; `None`: it needed none of the pools'.
    pub waited: Option<Duration>,
    /// Of the client's channel, as far as counted.
    traffic: (u64, u64),
}

impl Meter {
    pub(super) fn new(figures: Arc<DatabaseFigures>) -> Self {
        let (begun, route) = (Instant::now(), Route::Local);
        Self { figures, begun, answered: None, transaction: None, route, waited: None, traffic: (0, 0) }
    }

    /// A unit begins.
    pub(super) fn begin(&mut self) -> Instant {
        self.begun = Instant::now();
        (self.route, self.waited, self.answered) = (Route::Local, None, None);
        self.transaction.get_or_insert(self.begun);
        self.begun
    }

    /// Now, as exactly as a choice of servers needs it: while nothing was waited for, that is when the unit began.
    pub(super) fn lately(&self) -> Instant {
        if self.waited.is_none() { self.begun } else { Instant::now() }
    }

    /// The answer is complete, now. Whoever else needs the time takes it from here: the clock is read once.
    pub(super) fn answered(&mut self) -> Instant {
        *self.answered.insert(Instant::now())
    }

    /// The unit has ended; `idle`: so has the transaction.
    pub(super) fn end(&mut self, idle: bool) -> Duration {
        let now = self.answered.unwrap_or_else(Instant::now);
        let took = now.saturating_duration_since(self.begun);
        let begun = if idle { self.transaction.take() } else { None };
        let transaction = begun.map(|begun| match begun == self.begun {
            true => took,
            false => now.saturating_duration_since(begun),
        });
        self.figures.count(&Unit { route: self.route, took, waited: self.waited, transaction });
        took
    }

    /// Tells a debug log of the unit that has ended: where it went, nothing of what it said.
    pub(super) fn log(&self, span: &Span, took: Duration) {
        span.record("route", self.route.name());
        if let Route::One(shard, role) = self.route {
            span.record("shard", shard.0).record("role", role.name());
        }
        span.record("cache", if self.route == Route::Cache { "hit" } else { "none" });
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let waited_us = micros(self.waited.unwrap_or_default());
        span.in_scope(|| tracing::debug!(took_us = micros(took), waited_us, "statement ended"));
    }

    /// A connection was lent, after so long.
    pub(super) fn waited(&mut self, waited: Duration) {
        *self.waited.get_or_insert_default() += waited;
    }

    /// The client was told a server's error.
    pub(super) fn failed(&self, body: &[u8]) {
        self.figures.error(error_field(body, b'C').unwrap_or_default());
    }

    /// What the client has sent and was sent since this was asked last.
    pub(super) fn traffic(&mut self, client: &Channel) {
        let (received, sent) = client.traffic();
        self.figures.traffic(received - self.traffic.0, sent - self.traffic.1);
        self.traffic = (received, sent);
    }
}
