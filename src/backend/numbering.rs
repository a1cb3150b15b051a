//! Numbers of a database's own types on one connection: what comes from the server gets those that clients know, what goes
//! there the server's own. Connections to servers whose numbers clients know have nothing of this.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf, BytesMut};

use super::connection::Connection;
use crate::wire::frame::{Header, client, put, server};
use crate::wire::message::put_parse;
use crate::wire::{Exchange, Oids, has_unknown_values, number_bind};

/// What is known of the numbers in what passes.
#[derive(Default)]
pub(super) struct Numbering {
    /// What its server's numbers are to clients, where they are others.
    oids: Option<Arc<Oids>>,
    /// Rows or data that come hold such.
    rows: Option<Box<Exchange>>,
    /// A row has come in part.
    midway: bool,
    /// Types of the columns of each COPY to come.
    copies: VecDeque<Box<[u32]>>,
    /// The data of COPY FROM holds such; what was not sent on yet of it.
    given: Option<(Box<Exchange>, BytesMut)>,
}

/// What a server's copy of a statement looks like, by the numbers that clients know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looks {
    /// Types of its parameters.
    pub parameters: Arc<[u32]>,
    /// No column's values hold numbers.
    pub plain: bool,
}

impl Numbering {
    /// Takes notice of a frame, or of as much as is there of one that comes in parts (`midway`), and puts the client's
    /// numbers into it. `of_statement`: a description that announces no rows.
    fn take(&mut self, (kind, of_statement): (u8, bool), (body, midway): (&mut [u8], bool)) {
        let Some(oids) = &self.oids else { return };
        match kind {
            server::DATA_ROW | server::COPY_DATA => {
                let Some(rows) = &mut self.rows else { return };
                if kind == server::DATA_ROW {
                    rows.begin_row();
                }
                self.midway = midway;
                if !midway && rows.pass(body) < body.len() {
                    // It is not what it should be.
                    self.rows = None;
                }
            }
            server::PARAMETER_DESCRIPTION => oids.to_client(kind, body),
            server::ROW_DESCRIPTION => {
                oids.to_client(kind, body);
                if !of_statement {
                    self.rows = Exchange::of_rows(oids, body).map(Box::new);
                }
            }
            server::COPY_OUT => {
                self.rows = Exchange::of_copy_out(oids, &next_copy(&mut self.copies, body)).map(Box::new)
            }
            server::COPY_IN => {
                let types = next_copy(&mut self.copies, body);
                let given = Exchange::of_copy_in(oids, &types).filter(|_| oids.are_compared());
                self.given = given.map(|given| (Box::new(given), BytesMut::new()));
            }
            server::NO_DATA if of_statement => {}
            server::READY => {
                (self.rows, self.given) = (None, None);
                self.copies.clear();
            }
            server::NO_DATA
            | server::COMMAND_COMPLETE
            | server::PORTAL_SUSPENDED
            | server::EMPTY_QUERY
            | server::ERROR => self.rows = None,
            _ => {}
        }
    }
}

/// Of the COPY that begins; none, where it is not in binary.
fn next_copy(copies: &mut VecDeque<Box<[u32]>>, body: &[u8]) -> Box<[u32]> {
    copies.pop_front().filter(|_| body.first() == Some(&COPY_BINARY)).unwrap_or_default()
}

impl Connection {
    /// What its server's numbers are to clients, where they are others; for whoever has it lent.
    pub fn number_by(&mut self, oids: Option<&Arc<Oids>>) {
        let is_same = match (&self.numbering.oids, oids) {
            (None, None) => true,
            (Some(known), Some(oids)) => Arc::ptr_eq(known, oids),
            _ => false,
        };
        if !is_same {
            self.numbering = Numbering { oids: oids.cloned(), ..Numbering::default() };
            self.forget_looks();
        }
    }

    pub fn oids(&self) -> Option<&Arc<Oids>> {
        self.numbering.oids.as_ref()
    }

    /// Values that pass may hold numbers that are not the client's.
    pub fn has_numbers_in_values(&self) -> bool {
        self.numbering.oids.as_ref().is_some_and(|oids| oids.are_in_values())
    }

    /// Frames of this kind cannot be put right in parts.
    pub fn needs_whole(&self, kind: u8) -> bool {
        self.numbering.oids.is_some() && matches!(kind, server::PARAMETER_DESCRIPTION | server::ROW_DESCRIPTION)
    }

    /// Puts numbers that clients know into the frame at this place of the input, as far as it is there.
    pub(super) fn number_as_known(&mut self, (kind, of_statement): (u8, bool), place: usize) {
        if self.numbering.oids.is_none() {
            return;
        }
        if let Ok(Some(header)) = Header::read(&self.channel.input[place..]) {
            let (there, end) = (self.channel.input.len(), place + header.length);
            let body = &mut self.channel.input[place + Header::BYTES..there.min(end)];
            self.numbering.take((kind, of_statement), (body, there < end));
        }
    }

    /// How many bytes of the frame that was settled last may go on, of which so many are there.
    pub fn passable_at_first(&self, there: usize) -> usize {
        if self.numbering.midway { Header::BYTES } else { there }
    }

    /// How many of the next `count` bytes may go on, which are of a frame that comes in parts: it has so many more to come.
    pub fn passable(&mut self, count: usize, to_come: usize) -> usize {
        let Numbering { midway: true, rows: Some(rows), .. } = &mut self.numbering else { return count };
        let passed = rows.pass(&mut self.channel.input[..count]);
        self.numbering.midway = to_come > 0;
        if to_come > 0 { passed } else { count }
    }

    /// Puts a Parse on the connection, the types by the numbers that clients know.
    pub fn put_parse(&mut self, name: &str, text: &[u8], types: &[u32]) {
        let own = self.numbering.oids.as_ref().map(|oids| oids.to_server(types));
        put_parse(&mut self.channel.output, name, text, own.as_deref().unwrap_or(types));
    }

    /// A Bind was put on the connection, from this place of the output on, with parameters of these types, by the numbers
    /// that clients know: puts the server's into their values.
    pub fn number_bind(&mut self, start: usize, types: &[u32]) {
        if let Some(oids) = self.numbering.oids.as_ref().filter(|oids| oids.are_compared()) {
            number_bind(oids, &mut self.channel.output[start + Header::BYTES..], types);
        }
    }

    /// Whether values of a Bind with this body may hold numbers that [`Connection::number_bind`] does not find by these
    /// types.
    pub fn has_unknown_values(&self, bind_body: &[u8], types: &[u32]) -> bool {
        self.numbering.oids.as_ref().is_some_and(|oids| oids.are_compared()) && has_unknown_values(bind_body, types)
    }

    /// Types of the columns of a COPY that is sent next, behind those of others.
    pub fn expect_copy(&mut self, types: &[u32]) {
        if self.has_numbers_in_values() {
            self.numbering.copies.push_back(Box::from(types));
        }
    }

    /// Puts data of COPY FROM on the connection, within a message that others begin and end.
    pub fn put_copied(&mut self, data: &[u8]) {
        let out = &mut self.channel.output;
        match &mut self.numbering.given {
            None => out.extend_from_slice(data),
            Some((exchange, rest)) => {
                rest.extend_from_slice(data);
                let passed = exchange.pass(rest);
                out.extend_from_slice(&rest[..passed]);
                rest.advance(passed);
            }
        }
    }

    /// Whether data of COPY FROM is to go through [`Connection::put_copied`].
    pub fn converts_copy(&self) -> bool {
        self.numbering.given.is_some()
    }

    /// As [`Connection::put_copied`], as a message of its own.
    pub fn put_copy_data(&mut self, data: &[u8]) {
        let start = self.channel.output.len();
        put(&mut self.channel.output, client::COPY_DATA, |_| {});
        self.put_copied(data);
        let length = self.channel.output.len() - start - 1;
        let length = u32::try_from(length).expect("a part of a message").to_be_bytes();
        self.channel.output[start + 1..start + Header::BYTES].copy_from_slice(&length);
    }

    /// There is no more data: puts on the connection what was held back of it.
    pub fn end_copied(&mut self) {
        if let Some((_, rest)) = self.numbering.given.take().filter(|(_, rest)| !rest.is_empty()) {
            put(&mut self.channel.output, client::COPY_DATA, |out| out.extend_from_slice(&rest));
        }
    }
}

/// The format of a whole COPY.
const COPY_BINARY: u8 = 1;
