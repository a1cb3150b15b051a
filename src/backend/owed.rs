//! The replies that a server connection still owes, in the order in which they will come.
//!
//! Every message sent to a server leaves a debt here; every frame that comes back must fit the first one. What does
//! not fit ends the connection: a reply is never given to somebody who did not ask for it.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::error::Error;
use crate::wire::frame::{malformed, server};

/// What a message sent to the server is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Query or FunctionCall: anything, then ReadyForQuery.
    Query,
    /// ParseComplete; then the connection knows the statement of this number (`None`: the unnamed one).
    Parse(Option<u64>),
    Bind,
    /// Describe of a statement: ParameterDescription, then as of a portal.
    DescribeStatement,
    /// The second half of that.
    DescribeColumns,
    DescribePortal,
    Execute,
    /// Of a PREPARE of the client's, or of what ends all: names change.
    ExecuteNaming,
    Close,
    /// Execute of a PREPARE: CommandComplete; then the connection knows the statement of this number.
    Prepare(u64),
    Sync,
    /// Nothing: these bytes stand for the reply that the server was not asked for. `names`: to a message that gave or
    /// took the name of a statement.
    Given {
        reply: Bytes,
        names: bool,
    },
    /// An error: this frame stands for the server's, which was sent something that it must refuse.
    Refusal(Bytes),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payee {
    Client,
    /// The proxy asked for its own ends.
    Nobody,
}

/// What to do with one frame of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    ToClient,
    Swallow,
    /// ParameterStatus: note it; for the client as far as it tells something new.
    Parameter,
    /// NotificationResponse.
    Notification,
}

/// What settling a frame brought about, beside its verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Nothing,
    Parsed(u64),
    /// ReadyForQuery.
    Ready,
    /// A part of a statement's description: its parameters or its columns.
    Described,
    /// An ErrorResponse to something the client (`true`) or the proxy asked for.
    Failed(bool),
    /// CopyInResponse: the client speaks now. `true`: within the extended protocol, where a Sync sent before was
    /// ignored by the server and one more must come.
    CopyIn(bool),
}

/// What an error was the reply to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Bind or Describe of a prepared statement.
    Use,
    /// A statement was to have a name of ours.
    Naming,
    #[default]
    Other,
}

#[derive(Debug, Default)]
pub struct Owed {
    debts: VecDeque<(Cause, Payee)>,
    /// Replies that the client was given, since [`Owed::start_counting`], to messages that gave or took the name of a
    /// statement.
    names: usize,
    /// The client's Parse of the unnamed statement failed.
    lost_unnamed: bool,
    fault: Fault,
    skipped: Skipped,
}

/// Messages of the proxy's own concern that the server skipped after an error.
#[derive(Debug, Default)]
pub struct Skipped {
    /// Statements that were not prepared.
    pub parses: Vec<u64>,
    /// A statement that was to be closed is still there.
    pub close: bool,
    /// The unnamed statement is not the one that it was to become.
    pub unnamed: bool,
}

impl Owed {
    pub fn is_empty(&self) -> bool {
        self.debts.is_empty()
    }

    pub fn push(&mut self, cause: Cause, payee: Payee) {
        self.debts.push_back((cause, payee));
    }

    pub fn take_skipped(&mut self) -> Skipped {
        std::mem::take(&mut self.skipped)
    }

    pub fn start_counting(&mut self) {
        self.names = 0;
        self.lost_unnamed = false;
        self.fault = Fault::Other;
    }

    pub fn names(&self) -> usize {
        self.names
    }

    pub fn lost_unnamed(&self) -> bool {
        self.lost_unnamed
    }

    /// Of the last error since [`Owed::start_counting`].
    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// Writes the replies whose turn it is and that come from nowhere.
    pub fn give(&mut self, out: &mut BytesMut) {
        while let Some((Cause::Given { .. }, _)) = self.debts.front() {
            let Some((Cause::Given { reply, names }, _)) = self.debts.pop_front() else { unreachable!() };
            out.extend_from_slice(&reply);
            self.names += usize::from(names);
        }
    }

    /// The next reply comes from nowhere.
    pub fn gives(&self) -> bool {
        matches!(self.debts.front(), Some((Cause::Given { .. }, _)))
    }

    /// Settles a frame of this kind, if it is one of those that come most, for the client as it is, and nothing follows
    /// from it. Others are left to [`Owed::settle`].
    pub fn passes(&mut self, kind: u8) -> bool {
        let Some((cause, Payee::Client)) = self.debts.front() else { return false };
        let (passes, ends) = match (cause, kind) {
            (Cause::Query | Cause::Execute, server::DATA_ROW | server::COPY_DATA) => (true, false),
            (Cause::Query, server::ROW_DESCRIPTION | server::COMMAND_COMPLETE) => (true, false),
            (Cause::Query | Cause::Sync, server::READY)
            | (Cause::Execute, server::COMMAND_COMPLETE)
            | (Cause::Bind, server::BIND_COMPLETE)
            | (Cause::DescribePortal, server::ROW_DESCRIPTION) => (true, true),
            _ => (false, false),
        };
        if ends {
            self.debts.pop_front();
        }
        passes
    }

    /// Matches one frame by its kind. An error means that the connection cannot be trusted any more.
    pub fn settle(&mut self, kind: u8) -> Result<(Verdict, Event), Error> {
        match kind {
            server::PARAMETER_STATUS => return Ok((Verdict::Parameter, Event::Nothing)),
            server::NOTIFICATION => return Ok((Verdict::Notification, Event::Nothing)),
            server::NOTICE => {
                let to_client = self.debts.front().is_some_and(|(_, payee)| *payee == Payee::Client);
                return Ok((if to_client { Verdict::ToClient } else { Verdict::Swallow }, Event::Nothing));
            }
            _ => {}
        }
        let Some((cause, payee)) = self.debts.front() else {
            return Err(malformed(&format!("a reply of kind {:?} that nobody asked for", kind as char)));
        };
        let verdict = if *payee == Payee::Client { Verdict::ToClient } else { Verdict::Swallow };
        let fits = match (cause, kind) {
            (_, server::ERROR) => return Ok(self.fail()),
            (
                Cause::Query | Cause::Execute | Cause::ExecuteNaming,
                server::DATA_ROW | server::COPY_DATA | server::COPY_DONE | server::COPY_OUT | server::ROW_DESCRIPTION,
            ) => return Ok((verdict, Event::Nothing)),
            (Cause::Query, server::COMMAND_COMPLETE | server::EMPTY_QUERY | server::FUNCTION_RESULT) => {
                return Ok((verdict, Event::Nothing));
            }
            (Cause::Query, server::COPY_IN) => return Ok((verdict, Event::CopyIn(false))),
            (Cause::Execute | Cause::ExecuteNaming, server::COPY_IN) => {
                self.forget_ignored_syncs();
                return Ok((verdict, Event::CopyIn(true)));
            }
            (Cause::DescribeStatement, server::PARAMETER_DESCRIPTION) => {
                self.debts[0].0 = Cause::DescribeColumns;
                return Ok((verdict, Event::Described));
            }
            (Cause::DescribeColumns, server::ROW_DESCRIPTION | server::NO_DATA) => Event::Described,
            (Cause::Query | Cause::Sync, server::READY) => Event::Ready,
            (Cause::Parse(statement), server::PARSE_COMPLETE) => statement.map_or(Event::Nothing, Event::Parsed),
            (Cause::Prepare(statement), server::COMMAND_COMPLETE) => Event::Parsed(*statement),
            (Cause::ExecuteNaming, server::COMMAND_COMPLETE) => {
                self.names += 1;
                Event::Nothing
            }
            (Cause::Bind, server::BIND_COMPLETE)
            | (Cause::Close, server::CLOSE_COMPLETE)
            | (Cause::DescribePortal, server::ROW_DESCRIPTION | server::NO_DATA)
            | (Cause::Execute, server::COMMAND_COMPLETE | server::EMPTY_QUERY | server::PORTAL_SUSPENDED) => {
                Event::Nothing
            }
            _ => return Err(malformed("a reply that does not fit what was asked")),
        };
        if kind == server::PARSE_COMPLETE && verdict == Verdict::ToClient {
            self.names += 1;
        }
        self.debts.pop_front();
        Ok((verdict, fits))
    }

    /// After an error the server discards everything up to the next Sync. The error of a message that the proxy
    /// put in front of the client's is the client's.
    fn fail(&mut self) -> (Verdict, Event) {
        self.lost_unnamed |= matches!(self.debts.front(), Some((Cause::Parse(None), Payee::Client)));
        self.fault = match self.debts.front() {
            Some((Cause::Bind | Cause::DescribeStatement | Cause::DescribeColumns, _)) => Fault::Use,
            Some((Cause::Parse(Some(_)) | Cause::Prepare(_), _)) => Fault::Naming,
            _ => Fault::Other,
        };
        let for_client = match self.debts.front() {
            Some((Cause::Query | Cause::Sync, payee)) => *payee == Payee::Client,
            _ => true,
        };
        if let Some((Cause::Refusal(reply), _)) = self.debts.front_mut() {
            let reply = std::mem::take(reply);
            self.skip_to_sync();
            self.debts.push_front((Cause::Given { reply, names: false }, Payee::Client));
            return (Verdict::Swallow, Event::Failed(true));
        }
        self.skip_to_sync();
        (if for_client { Verdict::ToClient } else { Verdict::Swallow }, Event::Failed(for_client))
    }

    fn skip_to_sync(&mut self) {
        while self.debts.front().is_some_and(|(cause, _)| !matches!(cause, Cause::Query | Cause::Sync)) {
            match self.debts.pop_front() {
                Some((Cause::Parse(Some(statement)) | Cause::Prepare(statement), _)) => {
                    self.skipped.parses.push(statement)
                }
                Some((Cause::Close, Payee::Nobody)) => self.skipped.close = true,
                Some((Cause::Parse(None), _)) => self.skipped.unnamed = true,
                _ => {}
            }
        }
    }

    /// During copy-in the server ignores Flush and Sync (PostgreSQL documentation, 55.2.7).
    fn forget_ignored_syncs(&mut self) {
        while self.debts.get(1).is_some_and(|(cause, _)| *cause == Cause::Sync) {
            self.debts.remove(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(reply: &'static [u8]) -> Cause {
        Cause::Given { reply: Bytes::from_static(reply), names: false }
    }

    /// Sends `causes` for the client, then matches `replies`; gives what reached the client.
    fn relay(causes: Vec<Cause>, replies: &[u8]) -> Result<(String, Owed), Error> {
        let mut owed = Owed::default();
        causes.into_iter().for_each(|cause| owed.push(cause, Payee::Client));
        let mut seen = BytesMut::new();
        owed.give(&mut seen);
        for &kind in replies {
            if owed.settle(kind)?.0 == Verdict::ToClient {
                seen.extend_from_slice(&[kind]);
            }
            owed.give(&mut seen);
        }
        Ok((String::from_utf8_lossy(&seen).into_owned(), owed))
    }

    fn check(causes: Vec<Cause>, replies: &str, expected: &str) {
        let (seen, owed) = relay(causes, replies.as_bytes()).unwrap();
        assert_eq!(seen, expected);
        assert!(owed.is_empty(), "{owed:?}");
    }

    #[test]
    fn replies_come_in_the_order_of_their_causes() {
        check(vec![Cause::Query], "TDDCZ", "TDDCZ");
        check(vec![Cause::Query, Cause::Query], "TCTCZIZ", "TCTCZIZ");
        check(vec![given(b"1"), Cause::Bind, Cause::Execute, Cause::Sync], "2DCZ", "12DCZ");
        check(vec![Cause::Parse(None), given(b"3"), Cause::DescribeStatement, Cause::Sync], "1tnZ", "13tnZ");
        check(vec![Cause::Bind, Cause::DescribePortal, Cause::Execute, Cause::Close, Cause::Sync], "2TDs3Z", "2TDs3Z");
    }

    #[test]
    fn an_error_skips_to_the_next_sync() {
        let pipeline = vec![Cause::Parse(None), given(b"3"), Cause::Bind, Cause::Sync, Cause::Bind, Cause::Sync];
        check(pipeline, "EZ2Z", "EZ2Z");
        check(vec![Cause::Query, Cause::Query], "EZCZ", "EZCZ");
        check(vec![Cause::Execute, Cause::Sync], "CEZ", "CEZ");
    }

    #[test]
    fn a_refusal_replaces_the_servers_error() {
        let refusal = Cause::Refusal(Bytes::from_static(b"no"));
        check(vec![Cause::Bind, refusal, Cause::Sync], "2EZ", "2noZ");
    }

    #[test]
    fn what_the_proxy_asked_stays_with_it() {
        let mut owed = Owed::default();
        owed.push(Cause::Query, Payee::Nobody);
        assert_eq!(owed.settle(b'N'), Ok((Verdict::Swallow, Event::Nothing)));
        assert_eq!(owed.settle(b'E'), Ok((Verdict::Swallow, Event::Failed(false))));
        assert_eq!(owed.settle(b'Z'), Ok((Verdict::Swallow, Event::Ready)));
        owed.push(Cause::Parse(Some(7)), Payee::Nobody);
        owed.push(Cause::Bind, Payee::Client);
        owed.push(Cause::Sync, Payee::Client);
        assert_eq!(owed.settle(b'1'), Ok((Verdict::Swallow, Event::Parsed(7))));
        owed.debts.push_front((Cause::Parse(Some(8)), Payee::Nobody));
        assert_eq!(owed.settle(b'E'), Ok((Verdict::ToClient, Event::Failed(true))));
        assert_eq!(owed.settle(b'Z'), Ok((Verdict::ToClient, Event::Ready)));
    }

    #[test]
    fn a_reply_out_of_place_is_a_fault() {
        for (causes, replies) in [
            (vec![], "C"),
            (vec![Cause::Query], "1"),
            (vec![Cause::Query], "W"),
            (vec![Cause::Sync], "D"),
            (vec![Cause::Bind, Cause::Sync], "Z"),
            (vec![Cause::Query], "ZZ"),
        ] {
            assert!(relay(causes, replies.as_bytes()).is_err(), "{replies}");
        }
    }

    #[test]
    fn a_sync_sent_before_copy_in_is_ignored() {
        let mut owed = Owed::default();
        [Cause::Execute, Cause::Sync].into_iter().for_each(|cause| owed.push(cause, Payee::Client));
        assert_eq!(owed.settle(b'G'), Ok((Verdict::ToClient, Event::CopyIn(true))));
        assert_eq!(owed.settle(b'C'), Ok((Verdict::ToClient, Event::Nothing)));
        assert!(owed.is_empty());
    }
}
