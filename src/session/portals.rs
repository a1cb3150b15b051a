//! What is known of a unit that is carried out message by message: messages that wait, and portals.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::Session;
use super::block::concerns_all;
use super::digest::Step;
use super::local::put_columns;
use super::prepared::Prepared;
use super::transaction::Transaction;
use super::unit::Frame;
use crate::error::{Error, SqlState};
use crate::executor::put_end;
use crate::statement::Kind;
use crate::wire::frame::{Header, client, put, put_in_front, server, take_str, take_u32};
use crate::wire::message::put_bare;
use crate::wire::{Bind, Channel};

/// Portals of a block, by name, that outlive the unit they were bound in.
pub(super) type Kept = HashMap<Box<str>, Outliving>;

pub(super) enum Outliving {
    /// Not executed yet.
    Bound(Portal),
    /// Executed; what the client did not want yet of its answer.
    Read { columns: Option<Bytes>, rest: Bytes },
    /// Read on from a cursor over several shards, of this name.
    Merged(String),
}

/// What is known of a unit on its way.
#[derive(Default)]
pub(super) struct Pipeline {
    /// Messages that are there, understood, with their bodies.
    pub steps: VecDeque<(Step, Bytes)>,
    /// Bound and not closed.
    pub portals: HashMap<Box<str>, Portal>,
    /// The block is PostgreSQL's own: it ends at the Sync.
    pub implicit: bool,
    /// How many messages that change names were carried out,
    pub named: usize,
    /// and how many of them a server had nothing against.
    pub proven: usize,
    /// After an error: everything up to the Sync is dropped.
    pub skipping: bool,
}

#[derive(Clone)]
pub(super) struct Portal {
    pub prepared: Arc<Prepared>,
    /// Of its Bind.
    pub body: Bytes,
    /// The client has been told that it is bound.
    pub announced: bool,
    pub described: bool,
    /// It was not executed yet.
    pub is_new: bool,
}

impl Pipeline {
    /// Of a statement in the simple protocol: nothing follows it.
    pub(super) fn of_one() -> Self {
        Self { steps: VecDeque::from([(Step::Sync, Bytes::new())]), ..Self::default() }
    }

    /// A server had nothing against what came so far.
    pub(super) fn prove<T, E>(&mut self, came: &Result<T, E>) {
        if came.is_ok() {
            self.proven = self.named;
        }
    }

    /// Nothing is bound or was executed, nor is there more.
    pub(super) fn has_only_prepared(&self) -> bool {
        self.steps.is_empty() && self.portals.is_empty() && !self.implicit
    }

    pub(super) fn bind(&mut self, prepared: Arc<Prepared>, body: Bytes, out: &mut BytesMut) -> Result<(), Error> {
        let (name, _) = Bind::names(&body)?;
        // Whoever executes it tells the client, unless there is something in between.
        let mut next = self.steps.iter();
        let announced = match next.next() {
            Some((Step::Execute, body)) => portal_of(body)? != name,
            Some((Step::DescribePortal, body)) => {
                let is_executed = next
                    .next()
                    .is_some_and(|(step, body)| matches!(step, Step::Execute) && portal_of(body) == Ok(name));
                !(portal_of(&body[1..])? == name && is_executed)
            }
            _ => true,
        };
        let announced = announced || prepared.is_control() || prepared.analysis.statements.is_empty() || {
            let kind = &prepared.analysis.statements[0].kind;
            concerns_all(kind) || names_other(kind)
        };
        if announced {
            put_bare(out, server::BIND_COMPLETE);
        }
        let portal = Portal { prepared, body: body.clone(), announced, described: false, is_new: true };
        self.portals.insert(Box::from(name), portal);
        Ok(())
    }

    /// Before its execution, which then gives the columns. Gives the portal if it is not executed next.
    pub(super) fn describe(&mut self, body: &[u8], out: &mut BytesMut) -> Result<Option<Portal>, Error> {
        let name = portal_of(&body[1..])?;
        let executed =
            self.steps.front().is_some_and(|(step, body)| matches!(step, Step::Execute) && portal_of(body) == Ok(name));
        let Some(portal) = self.portals.get_mut(name) else {
            return Err(Error::new(SqlState::UNKNOWN_PORTAL, format!("portal \"{name}\" does not exist")));
        };
        let kind = portal.prepared.analysis.statements.first().map(|statement| &statement.kind);
        if portal.prepared.is_control() || kind.is_none_or(|kind| concerns_all(kind) || is_prepare(kind)) {
            put_columns(out, &portal.prepared);
            return Ok(None);
        }
        portal.described = executed;
        Ok((!executed).then(|| portal.clone()))
    }

    /// The portal of this name, which is executed now.
    pub(super) fn take(&mut self, name: &str) -> Option<Portal> {
        let portal = self.portals.get_mut(name)?;
        let taken = portal.clone();
        portal.is_new = false;
        Some(taken)
    }

    /// What was read ahead may be for a server that waits for copy data, which ignores it: then it is to be found where
    /// that data is. `false`: there is more than that.
    pub(super) fn hand_back(&mut self, input: &mut BytesMut) -> bool {
        let kind = |(step, _): &(Step, Bytes)| match step {
            Step::Sync => Some(client::SYNC),
            Step::Flush => Some(client::FLUSH),
            _ => None,
        };
        let Some(kinds) = self.steps.iter().map(kind).collect::<Option<Vec<u8>>>() else { return false };
        self.steps.clear();
        let mut again = BytesMut::new();
        kinds.iter().for_each(|&kind| put_bare(&mut again, kind));
        put_in_front(input, &again);
        true
    }

    /// Nothing but the Sync follows: the statement is alone in its transaction.
    pub(super) fn ends_now(&self) -> bool {
        let mut rest = self.steps.iter().map(|(step, _)| step);
        !self.implicit
            && matches!(rest.find(|step| !matches!(step, Step::ClosePortal | Step::CloseStatement)), Some(Step::Sync))
    }
}

impl Session {
    /// A message of the unit is for a portal that a unit before it has left.
    pub(super) fn names_kept_portal(&self, steps: &[Step], frames: &[Frame], input: &[u8]) -> bool {
        let Some(kept) = &self.portals else { return false };
        steps.iter().zip(frames).any(|(step, frame)| {
            let body = frame.body(input);
            let name = match step {
                Step::Execute | Step::Bind { .. } => portal_of(body),
                Step::DescribePortal | Step::ClosePortal => portal_of(&body[1..]),
                _ => return false,
            };
            name.is_ok_and(|name| kept.contains_key(name))
        })
    }

    /// The name is bound anew, or closed.
    pub(super) fn forget_portal(&mut self, name: &str) {
        if let Some(Outliving::Merged(cursor)) = self.portals.as_mut().and_then(|kept| kept.remove(name)) {
            self.forget_cursor(&cursor);
        }
    }

    /// Those that were bound and not executed, for the unit that begins.
    pub(super) fn bound_portals(&mut self) -> HashMap<Box<str>, Portal> {
        let Some(kept) = &mut self.portals else { return HashMap::new() };
        let bound = kept.extract_if(|_, portal| matches!(portal, Outliving::Bound(_)));
        let portal = |(name, portal)| match portal {
            Outliving::Bound(portal) => Some((name, portal)),
            Outliving::Read { .. } | Outliving::Merged(_) => None,
        };
        bound.filter_map(portal).collect()
    }

    /// At the end of a unit within a block: what it bound may be executed by the next one.
    pub(super) fn keep_portals(&mut self, pipeline: Pipeline) {
        if matches!(self.transaction, Transaction::Open(_) | Transaction::Begun(_)) {
            let bound = pipeline.portals.into_iter().filter(|(name, portal)| portal.is_new && !name.is_empty());
            let mut bound = bound.map(|(name, portal)| (name, Outliving::Bound(portal))).peekable();
            if bound.peek().is_some() {
                self.portals.get_or_insert_default().extend(bound);
            }
        }
    }

    /// Of an answer that was put since `place`, gives the client the first `most` rows and keeps the rest for it.
    pub(super) fn cut_answer(&mut self, client: &mut Channel, name: &str, (place, most): (u64, u32)) {
        let Some(answer) = client.put_since(place).map(Bytes::copy_from_slice) else { return };
        let (mut columns, mut at) = (None, 0);
        while let Ok(Some(header)) = Header::whole(&answer[at..]) {
            match header.kind {
                server::ROW_DESCRIPTION => columns = Some(answer.slice(at..at + header.length)),
                server::BIND_COMPLETE => {}
                _ => break,
            }
            at += header.length;
        }
        client.take_back(place + at as u64);
        let portal = Outliving::Read { columns, rest: answer.slice(at..) };
        self.portals.get_or_insert_default().insert(Box::from(name), portal);
        self.read_on_portal(client, name, most);
    }

    pub(super) fn has_read_portal(&self, name: &str) -> bool {
        self.portals.as_ref().is_some_and(|kept| matches!(kept.get(name), Some(Outliving::Read { .. })))
    }

    pub(super) fn has_merged_portal(&self, name: &str) -> bool {
        self.portals.as_ref().is_some_and(|kept| matches!(kept.get(name), Some(Outliving::Merged(_))))
    }

    /// The next rows of a portal, 0: all that are left.
    pub(super) fn read_on_portal(&mut self, client: &mut Channel, name: &str, most: u32) {
        let portal = self.portals.as_mut().and_then(|kept| kept.get_mut(name));
        let Some(Outliving::Read { rest, .. }) = portal else { return };
        let (mut given, mut at) = (0, 0);
        while (most == 0 || given < most)
            && let Ok(Some(Header { kind: server::DATA_ROW, length })) = Header::whole(&rest[at..])
        {
            given += 1;
            at += length;
        }
        client.output.extend_from_slice(&rest.split_to(at));
        put_end(client, u64::from(given), most > 0 && given == most);
    }

    /// `None`: there is no such portal.
    pub(super) fn describe_kept(&self, name: &str, out: &mut BytesMut) -> Option<Result<(), Error>> {
        let columns = match self.portals.as_ref()?.get(name)? {
            Outliving::Read { columns, .. } => columns,
            Outliving::Merged(cursor) => {
                let columns = self.description_of(cursor)?;
                put(out, server::ROW_DESCRIPTION, |body| body.extend_from_slice(&columns));
                return Some(Ok(()));
            }
            Outliving::Bound(_) => return None,
        };
        Some(match columns {
            Some(columns) => {
                out.extend_from_slice(columns);
                Ok(())
            }
            None => Err(apart()),
        })
    }
}

fn is_prepare(kind: &Kind) -> bool {
    matches!(kind, Kind::Prepare { .. })
}

/// PREPARE, EXECUTE and their kin, of which no server is told as they are.
fn names_other(kind: &Kind) -> bool {
    match kind {
        Kind::Prepare { .. } | Kind::Execute { .. } => true,
        Kind::Explain { inner, .. } => matches!(**inner, Kind::Execute { .. }),
        _ => false,
    }
}

fn apart() -> Error {
    let hint = "Describe the statement, or execute the portal with the same Flush or Sync.";
    Error::unsupported("the description of a portal apart from its execution", hint)
}

/// The name at the front of an Execute, or behind the first byte of a Describe or Close.
pub(super) fn portal_of(mut body: &[u8]) -> Result<&str, Error> {
    take_str(&mut body)
}

pub(super) fn execute_of(mut body: &[u8]) -> Result<(&str, u32), Error> {
    Ok((take_str(&mut body)?, take_u32(&mut body)?))
}
