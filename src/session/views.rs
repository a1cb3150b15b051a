//! Texts that name views over sharded tables are served as if the client had written the views' queries itself.

use std::sync::Arc;

use bytes::{Buf, BytesMut};

use super::Session;
use super::prepared::Prepared;
use super::run::End;
use crate::error::{Error, SqlState};
use crate::plan::{Template, written_out};
use crate::wire::Channel;
use crate::wire::frame::{Header, put_in_front};
use crate::wire::message::put_query;

impl Session {
    /// The text without views over sharded tables, if it names any.
    pub(super) fn without_views(&self, text: &str) -> Option<String> {
        let mut written = None;
        for _ in 0..MOST_LEVELS {
            let current = written.as_deref().unwrap_or(text);
            let (entry, _) = self.station.resolve(current);
            let planned = entry.extra.get(&entry.analysis, &self.snapshot, &self.search_path);
            match written_out(current, &planned.templates) {
                Some(next) => written = Some(next),
                None => break,
            }
        }
        written
    }

    /// Serves the Query at the front of the input by this text.
    pub(super) async fn serve_instead(&mut self, client: &mut Channel, header: Header, text: &str) -> Result<(), End> {
        let mut query = BytesMut::new();
        put_query(&mut query, text);
        client.input.advance(header.length);
        put_in_front(&mut client.input, &query);
        self.serve_query(client, Header { length: query.len(), ..header }).await
    }

    /// The statement without such views, under the name that it has.
    pub(super) fn prepared_without_views(&self, prepared: &Arc<Prepared>) -> Option<Arc<Prepared>> {
        let planned = prepared.plans.get(&prepared.analysis, &self.snapshot, &self.search_path);
        planned.templates.iter().any(Template::has_views).then_some(())?;
        let text = prepared.readable()?;
        let written = self.without_views(text)?;
        let interner = &self.station.shared.interner;
        let (epoch, types) = (self.snapshot.epoch, Arc::clone(&prepared.types));
        let analyse = || self.station.analyse_for_long(&written);
        Some(interner.intern_written_out(epoch, (text, &written), types, analyse))
    }

    /// What the views are that were written out, they must still be.
    pub(super) fn check_views(&self, prepared: &Prepared) -> Result<(), Error> {
        let Some(text) = prepared.with_views.as_deref() else { return Ok(()) };
        if self.without_views(text).as_deref() == prepared.readable() {
            return Ok(());
        }
        let message = "a view that the prepared statement names has changed";
        Err(Error::new(SqlState::UNSUPPORTED, message).with_hint("Prepare the statement anew."))
    }
}

/// Views may name views.
const MOST_LEVELS: usize = 16;
