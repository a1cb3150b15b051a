//! Reads the messages of the extended protocol: which statement each one means.

use std::sync::Arc;

use smallvec::SmallVec;

use super::Session;
use super::prepared::Prepared;
use crate::error::{Error, SqlState};
use crate::statement::{Kind, SettingControl, TransactionControl};
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
}

/// The messages of a unit that are known when it is decided.
pub(super) type Steps = SmallVec<[Step; 6]>;

impl Session {
    /// Understands a message and notes the names it makes or ends.
    pub(super) fn digest(&mut self, kind: u8, body: &[u8]) -> Step {
        self.try_digest(kind, body).unwrap_or_else(|error| Step::Refused(Box::new(error)))
    }

    fn try_digest(&mut self, kind: u8, body: &[u8]) -> Result<Step, Error> {
        match kind {
            client::PARSE => self.digest_parse(body),
            client::BIND => {
                let (_, name) = Bind::names(body)?;
                Ok(Step::Bind { prepared: self.statement(name)?, named: !name.is_empty() })
            }
            client::DESCRIBE | client::CLOSE => self.digest_named(kind, body),
            client::EXECUTE => Ok(Step::Execute),
            client::SYNC => Ok(Step::Sync),
            client::FLUSH => Ok(Step::Flush),
            _ => Err(malformed("a message that has no place among those of the extended protocol")),
        }
    }

    fn digest_parse(&mut self, mut body: &[u8]) -> Result<Step, Error> {
        let rest = &mut body;
        let name = take_str(rest)?;
        let text = take_text(rest)?;
        let count = take_u16(rest)?;
        let types: Arc<[u32]> = (0..count).map(|_| take_u32(rest)).collect::<Result<_, _>>()?;
        if name.is_empty() {
            let prepared = self.prepare_unnamed(text, types);
            self.unnamed = Some(Arc::clone(&prepared));
            return Ok(Step::Parse { prepared, named: false });
        }
        if self.statements.contains_key(name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(Error::new(SqlState::DUPLICATE_STATEMENT, message));
        }
        let prepared = self.prepare_named(text, types);
        self.statements.insert(Box::from(name), Arc::clone(&prepared));
        self.parsed.push(Some(Box::from(name)));
        Ok(Step::Parse { prepared, named: true })
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
                if name.is_empty() {
                    self.unnamed = None;
                } else {
                    self.statements.remove(name);
                }
                Ok(Step::CloseStatement)
            }
            (client::CLOSE, b'P') => Ok(Step::ClosePortal),
            _ => Err(malformed("neither a statement nor a portal")),
        }
    }

    fn statement(&self, name: &str) -> Result<Arc<Prepared>, Error> {
        let found = if name.is_empty() { self.unnamed.as_ref() } else { self.statements.get(name) };
        found.cloned().ok_or_else(|| {
            let message = match name {
                "" => "unnamed prepared statement does not exist".to_owned(),
                name => format!("prepared statement \"{name}\" does not exist"),
            };
            Error::new(SqlState::UNKNOWN_STATEMENT, message)
        })
    }
}

impl Step {
    /// For the shape of a unit as a word.
    pub(super) fn letter(&self) -> char {
        match self {
            Self::Parse { .. } => 'P',
            Self::Bind { .. } => 'B',
            Self::DescribeStatement { .. } => 'd',
            Self::DescribePortal => 'D',
            Self::CloseStatement | Self::ClosePortal => 'C',
            Self::Execute => 'E',
            Self::Sync => 'S',
            Self::Flush => 'H',
            Self::Refused(_) => '!',
        }
    }
}

impl Prepared {
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
