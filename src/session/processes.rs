//! Process numbers. Clients have numbers of ours, which they are told when they log in; the processes that work for them by
//! turns have the servers'. What a client asks for its own number, or says of another's, is put so that it means the same
//! as where each client has a process.

use std::ops::Range;
use std::sync::Arc;

use bytes::BytesMut;

use super::Session;
use super::registry::Client;
use crate::statement::{
    Analysis, BACKEND_PID, SIGNALS, bytes_of, names_processes, number_shown, numbers_in, numbers_in_text, shows_number,
    signals, signals_shown,
};
use crate::wire::Bind;

impl Session {
    /// In the places of calls and literals of a text with tokens at these `ranges`.
    pub(super) fn numbers_shown(
        &self,
        text: &str,
        analysis: &Analysis,
        ranges: &[(u32, u32)],
    ) -> Vec<(Range<usize>, String)> {
        let mut places = Vec::new();
        for statement in &analysis.statements {
            let within = || bytes_of(ranges, statement.tokens);
            if shows_number(statement) {
                self.client.is_numbered();
                places.extend(number_shown(text, within(), self.client.key.process));
            }
            let asks_own = statement.calls.iter().any(|call| call.name.name == BACKEND_PID);
            if signals(statement) && !asks_own {
                let numbers = self.numbers_to_signal();
                SIGNALS.iter().for_each(|name| places.extend(signals_shown(text, within(), name, &numbers)));
            }
            if names_processes(statement) {
                let own = self.client.key.process;
                let known = numbers_in(text, within(), own, |number| self.process_behind(number));
                let is_free = |place: &Range<usize>| places.iter().all(|(taken, _)| !taken.contains(&place.start));
                let known: Vec<_> = known.into_iter().filter(|(place, _)| is_free(place)).collect();
                places.extend(known);
            }
        }
        places
    }

    /// The Bind of a statement that knows processes by the server's numbers, if its values have some of ours.
    pub(super) fn with_processes(&self, bind_body: &[u8], types: &[u32]) -> Option<BytesMut> {
        let known = |number| self.process_behind(number);
        let other = |index: usize, value: &[u8], is_binary: bool| match (is_binary, types.get(index).copied()) {
            (false, _) => Some(numbers_in_text(std::str::from_utf8(value).ok()?, known)?.into_bytes()),
            (true, None | Some(0 | INT4)) if value.len() == 4 => {
                Some(known(i32::from_be_bytes(value.try_into().ok()?))?.to_be_bytes().to_vec())
            }
            (true, None | Some(0 | INT8)) if value.len() == 8 => {
                let number = i32::try_from(i64::from_be_bytes(value.try_into().ok()?)).ok()?;
                Some(i64::from(known(number)?).to_be_bytes().to_vec())
            }
            (true, _) => None,
        };
        let mut frame = BytesMut::new();
        Bind::read(bind_body).ok()?.put_others(&mut frame, other)?;
        Some(frame)
    }

    /// The number of the server's process that works for the client of this number, or did when it had none; else its own.
    /// `None`: it is no client's.
    fn process_behind(&self, number: i32) -> Option<i32> {
        let client = self.station.shared.registry.find(number)?;
        Some(client.process().unwrap_or(number))
    }

    /// Of the clients whom it may signal.
    fn numbers_to_signal(&self) -> Vec<i32> {
        let all = self.station.shared.registry.all();
        all.iter().filter(|client| self.may_signal(client)).map(|client| client.key.process).collect()
    }

    /// Its own, or a superuser's.
    pub(super) fn may_signal(&self, client: &Arc<Client>) -> bool {
        client.user == self.client.user || self.reported.get("is_superuser").is_some_and(|is| is == "on")
    }
}

const INT4: u32 = 23;
const INT8: u32 = 20;
