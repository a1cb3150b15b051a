//! Descriptions of statements that a server was asked for: what it makes of them, for the connection and the client.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::backend::{Connection, Looks};
use crate::wire::Oids;
use crate::wire::frame::server;
use crate::wire::message::{mix_description, types_in};

/// Those that are on their way, and those that have come.
#[derive(Default)]
pub(super) struct Describing {
    /// The statements' numbers, and the names under which the client is told.
    statements: VecDeque<(u64, Box<str>)>,
    /// Of the first one's parameters, once they were there (see [`mix_description`]), and their types, where numbers in
    /// values count.
    parameters: Option<(u32, Option<Arc<[u32]>>)>,
    done: Vec<(u64, u32, Option<Looks>)>,
}

impl Describing {
    /// The server was asked for one more.
    pub(super) fn expect(&mut self, number: u64, name: &str) {
        self.statements.push_back((number, Box::from(name)));
    }

    pub(super) fn expects(&self, number: u64) -> bool {
        self.statements.iter().any(|(asked, _)| *asked == number)
    }

    /// The parameters come, or the columns; then gives the name under which the client is told, and what is described.
    pub(super) fn hear(&mut self, kind: u8, body: &[u8], oids: Option<&Oids>) -> Option<(Box<str>, u32)> {
        let oids = oids.filter(|oids| oids.are_in_values());
        let Some((parameters, types)) = self.parameters.take() else {
            self.parameters = Some((mix_description(0, kind, body), oids.map(|_| types_in(body).into())));
            return None;
        };
        let (number, name) = self.statements.pop_front()?;
        let description = mix_description(parameters, kind, body);
        let looks = types.zip(oids).map(|(parameters, oids)| {
            let plain = kind == server::NO_DATA || !oids.are_in_columns(body);
            Looks { parameters, plain }
        });
        self.done.push((number, description, looks));
        Some((name, description))
    }

    /// The connection keeps in mind what was described.
    pub(super) fn note_in(self, connection: &mut Connection) {
        for (statement, description, looks) in self.done {
            connection.note_description(statement, description);
            looks.into_iter().for_each(|looks| connection.note_looks(statement, looks));
        }
    }
}
