//! Reads the messages of the extended protocol: which statement each one means.

use std::sync::Arc;

use smallvec::SmallVec;

use super::Session;
use super::names::Told;
use super::prepared::Prepared;
use super::run::not_utf8;
use crate::error::{Error, SqlState};
use crate::statement::{Kind, SettingControl, TransactionControl, standardized};
use crate::wire::Bind;
use crate::wire::frame::{client, malformed, take_str, take_text, take_u16, take_u32};

/// One message, understood.
pub(super) enum Step {
    /// `name` is empty for the unnamed statement.
    Parse {
        prepared: Arc<Prepared>,
        named: bool,
    },
    Bind {
        prepared: Arc<Prepared>,
        named: bool,
        told: Told,
    },
    DescribeStatement {
        prepared: Arc<Prepared>,
        named: bool,
    },
    /// Close of a statement: the session alone knows its name.
    CloseStatement,
    DescribePortal,
    ClosePortal,
    Execute,
    Sync,
    Flush,
    /// The client is told this, and the rest up to its Sync is skipped.
    Refused(Box<Error>),
    /// A Parse under a name that is taken: refused unless the server has something else to say against it.
    Taken(Box<Error>),
}

/// The messages of a unit that are known when it is decided.
pub(super) type Steps = SmallVec<[Step; 5]>;

impl Session {
    /// Understands a message and notes the names it makes or ends.
    pub(super) fn digest(&mut self, kind: u8, body: &[u8]) -> Step {
        self.try_digest(kind, body).unwrap_or_else(|error| Step::Refused(Box::new(error)))
    }

    fn try_digest(&mut self, kind: u8, body: &[u8]) -> Result<Step, Error> {
        match kind {
            client::PARSE => self.digest_parse(body),
            client::BIND => {
                let (portal, name) = Bind::names(body)?;
                if self.by_name.is_some() {
                    self.note_rebound(portal);
                }
                let (prepared, told) = self.names.find_told(name).ok_or_else(|| unknown(name))?;
                let (mut prepared, mut told) = (Arc::clone(prepared), told);
                if let Some(listing) = self.listing_now(&prepared).filter(|_| !name.is_empty()) {
                    self.names.renew(name, Arc::clone(&listing));
                    (prepared, told) = (listing, Told::default());
                }
                let step = Step::Bind { prepared, named: !name.is_empty(), told };
                if let Step::Bind { prepared, .. } = &step
                    && (prepared.kin.is_some() || prepared.forgets_all())
                {
                    self.note_bound(prepared, portal);
                }
                Ok(step)
            }
            client::DESCRIBE | client::CLOSE => self.digest_named(kind, body),
            client::EXECUTE => {
                if self.by_name.is_some() {
                    self.note_executed(take_str(&mut &*body).unwrap_or_default());
                }
                Ok(Step::Execute)
            }
            client::SYNC => Ok(Step::Sync),
            client::FLUSH => Ok(Step::Flush),
            _ => Err(malformed("a message that has no place among those of the extended protocol")),
        }
    }

    fn digest_parse(&mut self, mut body: &[u8]) -> Result<Step, Error> {
        let rest = &mut body;
        let name = take_str(rest)?;
        let text = take_text(rest)?;
        let is_unreadable = self.is_unreadable(text);
        if is_unreadable && self.snapshot.database.is_sharded() {
            return Err(not_utf8());
        }
        let is_escaped = self.escapes && !is_unreadable;
        let made = std::str::from_utf8(text).ok().filter(|_| is_escaped).and_then(standardized);
        let text = made.as_ref().map_or(text, |made| made.text.as_bytes());
        let count = take_u16(rest)?;
        let types: Arc<[u32]> = (0..count).map(|_| take_u32(rest)).collect::<Result<_, _>>()?;
        let named = !name.is_empty();
        if named && self.names.find(name).is_some() {
            let message = format!("prepared statement \"{name}\" already exists");
            return Ok(Step::Taken(Box::new(Error::new(SqlState::DUPLICATE_STATEMENT, message))));
        }
        let mut prepared = match named {
            _ if is_unreadable => self.prepare_unread(text, types),
            true => self.prepare_named(text, types),
            false => self.prepare_unnamed(text, types),
        };
        if prepared.analysis.shows_session {
            prepared = self.listing(name, &prepared).unwrap_or(prepared);
        }
        if prepared.analysis.names_prepared {
            prepared = self.renamed(&prepared).unwrap_or(prepared);
        }
        if self.snapshot.database.is_sharded() {
            prepared = self.prepared_without_views(&prepared).unwrap_or(prepared);
        }
        self.names.give(name, Arc::clone(&prepared));
        Ok(Step::Parse { prepared, named })
    }

    fn digest_named(&mut self, kind: u8, body: &[u8]) -> Result<Step, Error> {
        let (&what, mut rest) = body.split_first().ok_or_else(|| malformed("no name"))?;
        let name = take_str(&mut rest)?;
        match (kind, what) {
            (client::DESCRIBE, b'S') => {
                Ok(Step::DescribeStatement { prepared: self.statement(name)?, named: !name.is_empty() })
            }
            (client::DESCRIBE, b'P') => Ok(Step::DescribePortal),
            (client::CLOSE, b'S') => {
                self.names.take(name);
                Ok(Step::CloseStatement)
            }
            (client::CLOSE, b'P') => Ok(Step::ClosePortal),
            _ => Err(malformed("neither a statement nor a portal")),
        }
    }

    fn statement(&self, name: &str) -> Result<Arc<Prepared>, Error> {
        self.names.find(name).cloned().ok_or_else(|| unknown(name))
    }
}

pub(super) fn unknown(name: &str) -> Error {
    let message = match name {
        "" => "unnamed prepared statement does not exist".to_owned(),
        name => format!("prepared statement \"{name}\" does not exist"),
    };
    Error::new(SqlState::UNKNOWN_STATEMENT, message).of_routine("FetchPreparedStatement")
}

/// Statements are made known, described and forgotten, none is bound: that leaves no trace in a transaction, and the
/// statement that is bound next may go another way.
pub(super) fn only_prepares(steps: &[Step]) -> bool {
    let prepares = |step: &Step| {
        matches!(step, Step::Parse { .. } | Step::DescribeStatement { .. } | Step::CloseStatement | Step::Flush)
    };
    matches!(steps.last(), Some(Step::Flush)) && steps.iter().all(prepares)
}

impl Prepared {
    /// COMMIT or ROLLBACK: a block that has failed lets it pass.
    pub(super) fn ends_block(&self) -> bool {
        matches!(
            self.analysis.statements.as_slice(),
            [only] if matches!(
                only.kind,
                Kind::Transaction(TransactionControl::Commit { .. } | TransactionControl::Rollback { .. })
            )
        )
    }

    /// DEALLOCATE ALL or DISCARD ALL.
    pub(super) fn forgets_all(&self) -> bool {
        let forgets = |kind: &Kind| match kind {
            Kind::Deallocate { name } => name.is_none(),
            Kind::Setting(SettingControl::Discard { what }) => what == "ALL",
            _ => false,
        };
        self.analysis.statements.iter().any(|statement| forgets(&statement.kind))
    }

    /// Statements whose Parse and Describe need no server: they have no parameters and give no rows.
    pub(super) fn is_control(&self) -> bool {
        match self.analysis.statements.as_slice() {
            [only] => match &only.kind {
                Kind::Transaction(control) => matches!(
                    control,
                    TransactionControl::Begin { .. }
                        | TransactionControl::Commit { .. }
                        | TransactionControl::Rollback { .. }
                ),
                Kind::Deallocate { .. } | Kind::ExplainRoute { .. } => true,
                Kind::Setting(
                    SettingControl::Set { name, .. } | SettingControl::Reset { name } | SettingControl::Show { name },
                ) => name.starts_with("pgweir."),
                _ => false,
            },
            _ => false,
        }
    }
}
