//! Cursors over several shards (see `executor`), as statements name them.

use super::Session;
use super::block::Came;
use super::carry::Stopped;
use super::decide::Way;
use super::portals::Outliving;
use super::prepared::Prepared;
use super::transaction::{Cursor, Open, Transaction};
use crate::error::{Error, SqlState};
use crate::executor::{Asking, Ended, MergedCursor, Request, put_answer};
use crate::figures::Route;
use crate::plan::Access;
use crate::statement::{Kind, Reach, quoted_name};
use crate::topology::ShardId;
use crate::wire::Channel;

/// What a statement does with cursors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CursorStep {
    Fetch {
        name: String,
        reach: Reach,
        asking: Asking,
    },
    /// `None`: ALL.
    Close {
        name: Option<String>,
    },
}

impl Open {
    /// What became of a DECLARE.
    pub(super) fn take_cursor(&mut self, opened: Result<MergedCursor, Ended>) -> Ended {
        match opened {
            Ok(cursor) => {
                self.cursors.push(Cursor::Merged { cursor: Box::new(cursor), doubted: false });
                Ended::Done
            }
            Err(ended) => ended,
        }
    }

    /// After ROLLBACK TO SAVEPOINT: those that were declared since are gone.
    pub(super) fn doubt_cursors(&mut self) {
        for cursor in &mut self.cursors {
            if let Cursor::Merged { doubted, .. } = cursor {
                *doubted = true;
            }
        }
    }

    fn merged(&self, name: &str) -> Option<&MergedCursor> {
        self.cursors.iter().rev().find(|cursor| cursor.name() == name).and_then(|cursor| match cursor {
            Cursor::Merged { cursor, .. } => Some(&**cursor),
            Cursor::On(..) => None,
        })
    }

    fn has_merged(&self) -> bool {
        self.cursors.iter().any(|cursor| matches!(cursor, Cursor::Merged { .. }))
    }
}

impl Session {
    /// Of a statement about cursors over several shards.
    pub(super) fn cursor_step(&self, kind: &Kind) -> Option<CursorStep> {
        let Transaction::Open(open) = &self.transaction else { return None };
        match kind {
            Kind::Fetch { name, reach, moves } => {
                let asking = if *moves { Asking::Move } else { Asking::Fetch };
                open.merged(name).map(|_| CursorStep::Fetch { name: name.clone(), reach: *reach, asking })
            }
            Kind::CloseCursor { name } => {
                let is_ours = name.as_ref().map_or_else(|| open.has_merged(), |name| open.merged(name).is_some());
                is_ours.then(|| CursorStep::Close { name: name.clone() })
            }
            _ => None,
        }
    }

    /// The columns of a FETCH that is only prepared.
    pub(super) fn columns_of_cursor(&self, prepared: &Prepared) -> Option<Vec<u8>> {
        let Transaction::Open(open) = &self.transaction else { return None };
        match &prepared.analysis.statements.first()?.kind {
            Kind::Fetch { name, moves: false, .. } => open.merged(name).map(MergedCursor::description),
            _ => None,
        }
    }

    pub(super) async fn carry_cursor(
        &mut self,
        client: &mut Channel,
        step: &CursorStep,
        request: Request<'_>,
    ) -> Came<()> {
        self.meter.route = Route::Scatter;
        let Transaction::Open(mut open) = std::mem::replace(&mut self.transaction, Transaction::Idle) else {
            return Ok(Err(outside_of_block().into()));
        };
        self.put_news(&mut client.output);
        let (name, reach, asking) = match step {
            CursorStep::Fetch { name, reach, asking } => (name, *reach, *asking),
            CursorStep::Close { name } => return self.close_cursors(client, open, name.as_deref(), request).await,
        };
        let Some(place) = open.cursors.iter().rposition(|cursor| cursor.name() == name) else {
            self.transaction = Transaction::Open(open);
            return Ok(Err(unknown(name).into()));
        };
        let Cursor::Merged { mut cursor, doubted } = open.cursors.remove(place) else {
            self.transaction = Transaction::Open(open);
            return Ok(Err(unknown(name).into()));
        };
        let shards = cursor.shards.clone();
        if doubted {
            // It gives nothing and changes nothing.
            let asked = format!("MOVE FORWARD 0 FROM {}", quoted_name(name));
            open = match self.run_on_all(open, &shards[..1], &asked).await {
                Ok(open) => open,
                Err(stopped) => return Ok(Err(stopped)),
            };
        }
        let ended = cursor.fetch(client, &mut open.connections(&shards), (reach, asking), request).await;
        open.cursors.insert(place, Cursor::Merged { cursor, doubted: false });
        self.go_on(client, open, &shards, ended).await
    }

    async fn close_cursors(
        &mut self,
        client: &mut Channel,
        mut open: Box<Open>,
        name: Option<&str>,
        request: Request<'_>,
    ) -> Came<()> {
        let shards = match name.and_then(|name| open.merged(name)) {
            Some(cursor) => cursor.shards.clone(),
            None => open.parts().map(|(_, shard, _)| shard).collect(),
        };
        let (text, tag) = match name {
            Some(name) => (format!("CLOSE {}", quoted_name(name)), "CLOSE CURSOR"),
            None => ("CLOSE ALL".to_owned(), "CLOSE CURSOR ALL"),
        };
        open = match self.run_on_all(open, &shards, &text).await {
            Ok(open) => open,
            Err(stopped) => return Ok(Err(stopped)),
        };
        open.cursors.retain(|cursor| name.is_some_and(|name| cursor.name() != name));
        put_answer(client, request, tag);
        self.transaction = Transaction::Open(open);
        Ok(Ok(()))
    }

    /// A portal that is read by a cursor, and its first rows.
    pub(super) async fn begin_portal(
        &mut self,
        client: &mut Channel,
        cursor: String,
        (name, most): (&str, u32),
        request: Request<'_>,
    ) -> Came<()> {
        self.portals.get_or_insert_default().insert(Box::from(name), Outliving::Merged(cursor));
        self.read_on_merged(client, name, most, request).await
    }

    /// The next rows of such a portal, 0: all that are left.
    pub(super) async fn read_on_merged(
        &mut self,
        client: &mut Channel,
        name: &str,
        most: u32,
        request: Request<'_>,
    ) -> Came<()> {
        let portal = self.portals.as_ref().and_then(|kept| kept.get(name));
        let Some(Outliving::Merged(cursor)) = portal else { return Ok(Err(unknown(name).into())) };
        let count = if most == 0 { i64::MAX } else { i64::from(most) };
        let (name, reach, asking) = (cursor.clone(), Reach::Forward(count), Asking::Portal(most));
        self.carry_cursor(client, &CursorStep::Fetch { name, reach, asking }, request).await
    }

    /// The RowDescription body of such a portal's rows.
    pub(super) fn description_of(&self, cursor: &str) -> Option<Vec<u8>> {
        match &self.transaction {
            Transaction::Open(open) => open.merged(cursor).map(MergedCursor::description),
            _ => None,
        }
    }

    /// Such a portal is closed. Its servers close it with the block.
    pub(super) fn forget_cursor(&mut self, cursor: &str) {
        if let Transaction::Open(open) = &mut self.transaction {
            open.cursors.retain(|known| known.name() != cursor);
        }
    }

    /// A text without an answer of its own, on shards of the block.
    async fn run_on_all(&mut self, mut open: Box<Open>, shards: &[ShardId], text: &str) -> Result<Box<Open>, Stopped> {
        let mut outcome = Ok(Ok(()));
        for connection in open.connections(shards) {
            outcome = connection.run(text).await;
            if !matches!(outcome, Ok(Ok(()))) {
                break;
            }
        }
        self.after_run(open, outcome)
    }
}

/// A query on several shards whose rows the client takes in parts becomes a cursor, for as long as its block: its name.
pub(super) fn read_by_cursor(way: &mut Way, text: &[u8]) -> Option<String> {
    match way {
        Way::Scatter(plan, access) if !plan.in_turn && *access != Access::Write => {
            let name = format!("pgweir portal {:x}", rand::random::<u64>());
            **plan = plan.as_cursor(&name, &String::from_utf8_lossy(text));
            Some(name)
        }
        _ => None,
    }
}

pub(super) fn outside_of_block() -> Error {
    Error::new(SqlState::NO_TRANSACTION, "DECLARE CURSOR can only be used in transaction blocks")
}

fn unknown(name: &str) -> Error {
    Error::new(SqlState::UNKNOWN_PORTAL, format!("cursor \"{name}\" does not exist"))
}
