//! What one shard is asked for its part of a statement, in either protocol.

use bytes::BytesMut;

use crate::backend::{Cause, Connection, Payee};
use crate::error::Error;
use crate::plan::Part;
use crate::statement::Parameters;
use crate::wire::frame::{client, server};
use crate::wire::message::{put_bare, put_execute, put_named, put_query};
use crate::wire::{Bind, TextArray, frame};

/// A statement as the client sent it.
#[derive(Clone, Copy)]
pub enum Request<'a> {
    /// A Query of this text.
    Simple { text: &'a [u8] },
    /// Parse (now or before), Bind, Execute.
    Extended {
        text: &'a [u8],
        types: &'a [u32],
        bind: &'a Bind<'a>,
        /// The client asked for the portal's description.
        described: bool,
        /// The client has been told already that it is bound.
        bound: bool,
        /// So many rows are wanted at most; 0: all.
        rows: u32,
    },
}

impl<'a> Request<'a> {
    /// The same, its parameters of these types; none: as they are.
    pub fn with_types(self, known: &'a [u32]) -> Self {
        match self {
            Self::Extended { text, bind, described, bound, rows, .. } if !known.is_empty() => {
                Self::Extended { text, types: known, bind, described, bound, rows }
            }
            other => other,
        }
    }

    /// The values that it came with.
    pub fn parameters(self) -> Result<Option<Parameters<'a>>, Error> {
        match self {
            Self::Simple { .. } => Ok(None),
            Self::Extended { types, bind, .. } => Parameters::parse(bind.behind_names, types).map(Some),
        }
    }

    /// An Execute of a portal that was bound, described and read from before.
    pub fn more(bind: &'a Bind<'a>) -> Self {
        Self::Extended { text: &[], types: &[], bind, described: false, bound: true, rows: 0 }
    }

    /// The same by another text.
    pub fn with_text<'b>(self, text: &'b [u8]) -> Request<'b>
    where
        'a: 'b,
    {
        match self {
            Self::Simple { .. } => Request::Simple { text },
            Self::Extended { types, bind, described, bound, rows, .. } => {
                Request::Extended { text, types, bind, described, bound, rows }
            }
        }
    }

    /// The same, its answer for us alone: all of it, in text.
    pub fn for_us<'b>(self, bind: Option<&'b Bind<'b>>) -> Request<'b>
    where
        'a: 'b,
    {
        match (self, bind) {
            (Self::Extended { text, types, .. }, Some(bind)) => {
                Request::Extended { text, types, bind, described: true, bound: true, rows: 0 }
            }
            (other, _) => other,
        }
    }

    /// How its values came.
    pub fn bind(self) -> Option<&'a Bind<'a>> {
        match self {
            Self::Simple { .. } => None,
            Self::Extended { bind, .. } => Some(bind),
        }
    }

    /// The same, all rows of its answer.
    pub(super) fn whole(self) -> Self {
        match self {
            Self::Extended { text, types, bind, described, bound, .. } => {
                Self::Extended { text, types, bind, described, bound, rows: 0 }
            }
            simple @ Self::Simple { .. } => simple,
        }
    }

    /// Puts the part on the connection; it is sent with the next flush. `hidden`: output columns of the part that the
    /// client does not know of; `rows`: how many are of use at most, 0 for all.
    pub fn put(self, connection: &mut Connection, part: &Part, hidden: usize, rows: u32) {
        connection.unnamed = None;
        let mut owe = |cause| connection.owed.push(cause, Payee::Client);
        let out = &mut connection.channel.output;
        match self {
            Self::Simple { text } => {
                let text = part.text.as_ref().map_or(text, |text| text.as_bytes());
                frame::put(out, client::QUERY, |body| {
                    body.extend_from_slice(text);
                    body.extend_from_slice(&[0]);
                });
                owe(Cause::Query);
            }
            Self::Extended { text, types, bind, .. } => {
                let text = part.text.as_ref().map_or(text, |text| text.as_bytes());
                let chosen = part.parameters.as_deref();
                let types = match chosen {
                    None => types.to_vec(),
                    Some(chosen) => chosen.iter().map(|&index| types.get(index).copied().unwrap_or(0)).collect(),
                };
                put_portal(connection, (text, &types), |out| bind.put_part(out, chosen, &[], hidden), rows);
            }
        }
    }

    /// Puts a query on the connection that the proxy needs the rows of, as text.
    pub(super) fn put_fetch(self, connection: &mut Connection, part: &Part) {
        let text = part.text.as_deref().unwrap_or_default();
        let Self::Extended { types, bind, .. } = self else {
            return Request::Simple { text: &[] }.put(connection, part, 0, 0);
        };
        let text = text.as_bytes();
        let fetch = Request::Extended { text, types, bind: &bind.as_text(), described: false, bound: true, rows: 0 };
        fetch.put(connection, part, 0, 0);
    }

    /// Puts the statement on the connection as `text` has it, with the rows of tables behind the client's parameters.
    pub(super) fn put_gathered(self, connection: &mut Connection, text: &str, tables: &[TextArray]) {
        self.put_over(connection, text, tables, 0);
    }

    /// The same; `hidden`: output columns of the text that the client does not know of.
    pub(super) fn put_over(self, connection: &mut Connection, text: &str, tables: &[TextArray], hidden: usize) {
        connection.unnamed = None;
        let none = Bind::default();
        let (bind, types, rows) = match self {
            Self::Simple { .. } => (&none, &[][..], 0),
            Self::Extended { types, bind, rows, .. } => (bind, types, rows),
        };
        let mut all: Vec<u32> = (0..bind.parameters()).map(|index| types.get(index).copied().unwrap_or(0)).collect();
        all.extend(tables.iter().map(|_| TextArray::TYPE));
        put_portal(connection, (text.as_bytes(), &all), |out| bind.put_part(out, None, tables, hidden), rows);
    }

    /// As [`Request::put_gathered`], all values of the answer as text.
    pub(super) fn put_collected(self, connection: &mut Connection, text: &str, tables: &[TextArray]) {
        let Self::Extended { types, bind, .. } = self else { return self.put_gathered(connection, text, tables) };
        let bind = bind.as_text();
        let whole = Request::Extended { text: &[], types, bind: &bind, described: true, bound: true, rows: 0 };
        whole.put_gathered(connection, text, tables);
    }

    /// Puts the statement on the connection as `text` has it.
    pub(super) fn put_written_out(self, connection: &mut Connection, text: &str) {
        match self {
            Self::Simple { .. } => {
                connection.unnamed = None;
                put_query(&mut connection.channel.output, text);
                connection.owed.push(Cause::Query, Payee::Client);
            }
            Self::Extended { .. } => self.put_gathered(connection, text, &[]),
        }
    }

    /// As the client wrote it.
    pub fn text(self) -> &'a [u8] {
        match self {
            Self::Simple { text } | Self::Extended { text, .. } => text,
        }
    }

    /// The client is to be told the result's columns.
    pub fn wants_columns(self) -> bool {
        match self {
            Self::Simple { .. } => true,
            Self::Extended { described, .. } => described,
        }
    }

    pub fn is_extended(self) -> bool {
        matches!(self, Self::Extended { .. })
    }

    /// What the client is told in front of the rows; `columns`: a RowDescription body, if there are to be any.
    pub fn put_head(self, out: &mut BytesMut, columns: Option<&[u8]>) {
        if self.announces_bind() {
            put_bare(out, server::BIND_COMPLETE);
        }
        match columns {
            Some(body) if self.wants_columns() => {
                frame::put(out, server::ROW_DESCRIPTION, |out| out.extend_from_slice(body));
            }
            None if self.is_extended() && self.wants_columns() => put_bare(out, server::NO_DATA),
            _ => {}
        }
    }

    /// The client is to be told that its portal is bound.
    pub fn announces_bind(self) -> bool {
        matches!(self, Self::Extended { bound: false, .. })
    }

    /// How many rows the client wants at most; 0: all.
    pub fn rows(self) -> u32 {
        match self {
            Self::Simple { .. } => 0,
            Self::Extended { rows, .. } => rows,
        }
    }
}

/// A statement without a name, `bind`, and the portal's description and rows.
fn put_portal(
    connection: &mut Connection,
    (text, types): (&[u8], &[u32]),
    bind: impl FnOnce(&mut BytesMut),
    rows: u32,
) {
    connection.put_parse("", text, types);
    let start = connection.channel.output.len();
    bind(&mut connection.channel.output);
    connection.number_bind(start, types);
    let out = &mut connection.channel.output;
    put_named(out, client::DESCRIBE, b'P', "");
    put_execute(out, "", rows);
    put_bare(out, client::SYNC);
    [Cause::Parse(None), Cause::Bind, Cause::DescribePortal, Cause::Execute, Cause::Sync]
        .into_iter()
        .for_each(|cause| connection.owed.push(cause, Payee::Client));
}
