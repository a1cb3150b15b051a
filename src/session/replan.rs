//! Prepared statements of which a server's copy does not hold any more: their tables have changed, or somebody had them
//! deallocated. The unit that finds this is served again with copies made anew, unless the client has to know.
//!
//! It has to where it was told what a statement looks like, looks no more, and that is not so any more: it would take the
//! rows for what they are not. PostgreSQL's own error tells it; also who looks, where it has changed tables by itself since
//! it was told.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::again::{Again, Kept, MOST_KEPT};
use super::digest::{Step, Steps, only_prepares};
use super::names::{Done, Told};
use super::prepared::Prepared;
use super::transaction::Open;
use super::{Pin, Session};
use crate::backend::{Anew, Fault};
use crate::wire::frame::{Header, client, put, put_text, server, take_str};
use crate::wire::message::error_field;
use crate::wire::{Bind, Channel};

/// The named statements of a unit.
#[derive(Default)]
struct Uses {
    statements: Vec<Use>,
    /// The client is told in the unit itself what comes.
    looks: bool,
}

struct Use {
    name: String,
    prepared: Arc<Prepared>,
    /// What the client was told of it before.
    told: Told,
}

/// A server's objection to the use of a statement that it knows, if it knows it: made anew, it may do.
pub(super) fn is_outdated(body: &[u8], fault: Fault) -> bool {
    let used = fault == Fault::Use;
    match error_field(body, b'C') {
        Some("0A000") => error_field(body, b'R') == Some("RevalidateCachedQuery"),
        // The types of its parameters were found when tables and functions were others.
        Some("42883" | "42804" | "42725" | "42P08" | "42846") => used,
        // There is no such statement,
        Some("26000") => used,
        // or one that should not be there.
        Some("42P05") => fault == Fault::Naming,
        _ => false,
    }
}

impl Session {
    /// Whether the unit is to be kept for [`Session::make_anew`]: all of it is there, and it uses what servers know by
    /// name.
    pub(super) fn may_make_anew(&self, steps: &Steps, length: usize) -> bool {
        let is_named = |step: &Step| {
            matches!(
                step,
                Step::Bind { named: true, .. }
                    | Step::DescribeStatement { named: true, .. }
                    | Step::Parse { named: true, .. }
            )
        };
        length <= MOST_KEPT
            && self.retrying.is_none()
            && (matches!(steps.last(), Some(Step::Sync)) || only_prepares(steps))
            && steps.iter().any(is_named)
    }

    /// After an error that [`is_outdated`] is true of. `Ok`: the unit is at the front of the input once more, and its
    /// connection waits for it. Else the client is to have its error; whoever uses the connection next has all made anew.
    pub(super) async fn make_anew(
        &mut self,
        client: &mut Channel,
        kept: Option<Kept>,
        mut open: Box<Open>,
    ) -> Result<(), Box<Open>> {
        let is_idle = open.lent.connection.is_at_rest() && open.heard.is_empty();
        let Some(kept) = kept.filter(|kept| is_idle && nothing_ran(client, kept)) else {
            open.lent.connection.outdate_statements();
            return Err(open);
        };
        let uses = self.uses(&kept.unit);
        if !self.holds_as_told(&mut open, &uses).await {
            uses.statements.iter().for_each(|used| self.names.tell(&used.name, 0));
            return Err(open);
        }
        self.names.settle(Done::Some(0));
        open.lent.end_writes(false);
        self.serve_again(client, &kept, Again::Anew);
        self.pin = Some(Pin { lent: open.lent });
        Ok(())
    }

    /// The second attempt is over, and did not need the connection after all.
    pub(super) fn let_go(&mut self) {
        if !self.doubtful
            && self.pinned.is_none()
            && !self.is_session_pooled()
            && let Some(pin) = self.pin.take()
        {
            pin.lent.give_back(self.meter.lately());
        }
    }

    /// Has the statements closed, and looks at those of which the client believes to know what they look like.
    async fn holds_as_told(&mut self, open: &mut Open, uses: &Uses) -> bool {
        let told: Vec<&Use> = uses
            .statements
            .iter()
            .filter(|used| used.told.description != 0 && (!uses.looks || used.told.firm))
            .filter(|used| used.prepared.kin.is_none())
            .collect();
        let variant = self.variant();
        let number = |used: &Use| used.prepared.number ^ variant;
        let made = told.iter().map(|used| Anew {
            number: number(used),
            text: &used.prepared.text,
            types: &used.prepared.types,
        });
        let (made, closed): (Vec<_>, Vec<_>) = (made.collect(), uses.statements.iter().map(number).collect());
        let mut heard = Vec::new();
        let mut report = |name: &str, value: &str| heard.push((name.to_owned(), value.to_owned()));
        let looks = open.lent.connection.make_anew(&made, &closed, &mut report).await;
        heard.iter().for_each(|(name, value)| self.hear_and_tell(name, value));
        open.heard.append(&mut heard);
        matches!(looks, Ok(Ok(looks)) if looks.iter().eq(told.iter().map(|used| &used.told.description)))
    }

    fn uses(&self, unit: &[u8]) -> Uses {
        let (mut uses, mut rest) = (Uses::default(), unit);
        while let Ok(Some(header)) = Header::whole(rest) {
            let mut body = &rest[Header::BYTES..header.length];
            rest = &rest[header.length..];
            let name = match header.kind {
                client::PARSE => take_str(&mut body),
                client::BIND => Bind::names(body).map(|(_, name)| name),
                client::DESCRIBE => {
                    uses.looks = true;
                    take_str(&mut &body[1..]).map(|name| if body[0] == b'S' { name } else { "" })
                }
                _ => continue,
            };
            if let Ok(name) = name
                && !name.is_empty()
            {
                self.note_use(name, &mut uses.statements);
            }
        }
        uses
    }

    fn note_use(&self, name: &str, uses: &mut Vec<Use>) {
        let before = self.names.before(name).map(|before| (&before.prepared, before.told));
        let now = self.names.find(name).map(|prepared| (prepared, Told::default()));
        for (prepared, told) in before.into_iter().chain(now) {
            if uses.iter().all(|known| known.prepared.number != prepared.number) {
                uses.push(Use { name: name.to_owned(), prepared: Arc::clone(prepared), told });
            }
        }
    }
}

/// What PostgreSQL says where a statement's columns are others than when it was prepared.
pub(super) fn columns_changed() -> Bytes {
    let mut frame = BytesMut::new();
    put(&mut frame, server::ERROR, |out| {
        for field in [
            "SERROR",
            "VERROR",
            "C0A000",
            "Mcached plan must not change result type",
            "Fplancache.c",
            // Drivers know by this that they are to prepare it once more.
            "RRevalidateCachedQuery",
            "",
        ] {
            put_text(out, field);
        }
    });
    frame.freeze()
}

/// The unit was answered with no more than what Parse, Bind and Describe give, and the client was not sent any of it.
fn nothing_ran(channel: &Channel, kept: &Kept) -> bool {
    let Some(mut rest) = channel.put_since(kept.answer) else { return false };
    while let Ok(Some(header)) = Header::whole(rest) {
        let bare = matches!(
            header.kind,
            server::PARSE_COMPLETE
                | server::BIND_COMPLETE
                | server::CLOSE_COMPLETE
                | server::PARAMETER_DESCRIPTION
                | server::ROW_DESCRIPTION
                | server::NO_DATA
                | server::ERROR
                | server::READY
        );
        if !bare {
            return false;
        }
        rest = &rest[header.length..];
    }
    rest.is_empty()
}
