//! What one shard is asked for its part of a statement, in either protocol.

use crate::backend::{Cause, Connection, Payee};
use crate::plan::Part;
use crate::wire::frame::client;
use crate::wire::message::{put_bare, put_execute, put_named, put_parse};
use crate::wire::{Bind, frame};

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

impl Request<'_> {
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
                put_parse(out, "", text, &types);
                bind.put_part(out, chosen, hidden);
                put_named(out, client::DESCRIBE, b'P', "");
                put_execute(out, "", rows);
                put_bare(out, client::SYNC);
                [Cause::Parse(None), Cause::Bind, Cause::DescribePortal, Cause::Execute, Cause::Sync]
                    .into_iter()
                    .for_each(owe);
            }
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
