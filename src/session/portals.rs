//! What is known of a unit that is carried out message by message: messages that wait, and portals.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::block::concerns_all;
use super::digest::Step;
use super::local::put_columns;
use super::prepared::Prepared;
use crate::error::{Error, SqlState};
use crate::wire::Bind;
use crate::wire::frame::{server, take_str, take_u32};
use crate::wire::message::put_bare;

/// What is known of a unit on its way.
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
}

impl Pipeline {
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
        let executes = |(step, body): &(Step, Bytes)| matches!(step, Step::Execute) && portal_of(body) == Ok(name);
        let ends = self.steps.iter().any(|(step, _)| matches!(step, Step::Sync));
        if !name.is_empty() && ends && !self.steps.iter().any(executes) {
            let hint = "Execute it with the same Sync.";
            return Err(Error::unsupported("a portal that is read in parts", hint));
        }
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
            concerns_all(kind)
        };
        if announced {
            put_bare(out, server::BIND_COMPLETE);
        }
        let portal = Portal { prepared, body: body.clone(), announced, described: false };
        self.portals.insert(Box::from(name), portal);
        Ok(())
    }

    /// Before its execution, which then gives the columns.
    pub(super) fn describe(&mut self, body: &[u8], out: &mut BytesMut) -> Result<(), Error> {
        let name = portal_of(&body[1..])?;
        let executed =
            self.steps.front().is_some_and(|(step, body)| matches!(step, Step::Execute) && portal_of(body) == Ok(name));
        let Some(portal) = self.portals.get_mut(name) else {
            return Err(Error::new(SqlState::UNKNOWN_PORTAL, format!("portal \"{name}\" does not exist")));
        };
        let kind = portal.prepared.analysis.statements.first().map(|statement| &statement.kind);
        if portal.prepared.is_control() || kind.is_none_or(concerns_all) {
            put_columns(out, &portal.prepared);
            return Ok(());
        }
        if !executed {
            let hint = "Describe the statement, or execute the portal with the same Flush or Sync.";
            return Err(Error::unsupported("the description of a portal apart from its execution", hint));
        }
        portal.described = true;
        Ok(())
    }

    /// Nothing but the Sync follows: the statement is alone in its transaction.
    pub(super) fn ends_now(&self) -> bool {
        let mut rest = self.steps.iter().map(|(step, _)| step);
        !self.implicit
            && matches!(rest.find(|step| !matches!(step, Step::ClosePortal | Step::CloseStatement)), Some(Step::Sync))
    }
}

/// The name at the front of an Execute, or behind the first byte of a Describe or Close.
pub(super) fn portal_of(mut body: &[u8]) -> Result<&str, Error> {
    take_str(&mut body)
}

pub(super) fn execute_of(mut body: &[u8]) -> Result<(&str, u32), Error> {
    Ok((take_str(&mut body)?, take_u32(&mut body)?))
}
