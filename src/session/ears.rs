//! Notifications for a session that listens: by the connection that all listeners of its database share.
//!
//! LISTEN runs on the session's own server connection, as any other statement. Which channels that connection listens
//! to when the transaction is over, the server knows (see [`super::ties`]); the shared connection takes them over.

use std::sync::Arc;
use std::task::Waker;

use bytes::BytesMut;

use super::Session;
use super::lent::Lent;
use super::transaction::Transaction;
use crate::control::{Inbox, Listener};
use crate::executor::BUFFER_BYTES;
use crate::topology::Role;
use crate::wire::Channel;
use crate::wire::frame::{Header, server};

pub(super) struct Ears {
    listener: Arc<Listener>,
    inbox: Arc<Inbox>,
    /// In the order in which the session came to listen to them.
    channels: Vec<String>,
    /// What the open transaction does, in its order.
    begun: Vec<Begun>,
    /// The session has notified somebody, maybe itself.
    spoke: bool,
}

enum Begun {
    /// UNLISTEN of a channel, or of all.
    Unlisten(Option<String>),
    Savepoint(String),
}

impl Session {
    /// Listens to these channels too. `false`: the shared connection cannot.
    pub(super) async fn listen(&mut self, channels: Vec<String>) -> bool {
        // The shared connection speaks UTF-8.
        if self.reported.get("client_encoding").is_none_or(|encoding| encoding != "UTF8") {
            return false;
        }
        let Some(listener) = self.station.shared.control.listener(&self.snapshot.name) else { return false };
        let ears = self.ears.get_or_insert_with(|| {
            let (inbox, channels) = (Arc::default(), Vec::new());
            Box::new(Ears { listener, inbox, channels, begun: Vec::new(), spoke: false })
        });
        let heard = ears.listener.listen(&channels, &ears.inbox).await;
        if heard {
            let new = channels.into_iter().filter(|name| !ears.channels.contains(name)).collect::<Vec<_>>();
            ears.channels.extend(new);
        } else if ears.channels.is_empty() {
            self.ears = None;
        }
        heard
    }

    /// What the connection notifies from now on is heard as this client's own.
    pub(super) fn lend_voice(&self, lent: &mut Lent) {
        let home = lent.shard == self.snapshot.database.home && lent.role == Role::Primary;
        if home && lent.voice.is_none() {
            let process = lent.connection.target().process();
            let listener = self.station.shared.control.listener(&self.snapshot.name);
            lent.voice = listener.and_then(|listener| listener.lend_voice(process, self.client.number()));
        }
    }

    /// Between transactions, at the end of a unit: notifications come before its ReadyForQuery, as PostgreSQL has it.
    pub(super) async fn tell_notifications(&mut self, client: &mut Channel) {
        let Some(ears) = &mut self.ears else { return };
        if std::mem::take(&mut ears.spoke) {
            ears.listener.caught_up().await;
        }
        let out = &mut client.output;
        let Some(before) = out.len().checked_sub(READY_BYTES) else { return };
        if !ears.inbox.is_empty() && out[before..].starts_with(&READY) {
            let ready = out.split_off(before);
            ears.inbox.take(out, BUFFER_BYTES);
            out.extend_from_slice(&ready);
        }
    }

    /// Whether there is something to tell an idle client; else the waker is woken when there is.
    pub(super) fn hears(&self, waker: &Waker) -> bool {
        let is_idle = matches!(self.transaction, Transaction::Idle);
        is_idle && self.ears.as_ref().is_some_and(|ears| ears.inbox.poll(waker))
    }

    /// See [`Session::hears`].
    pub(super) fn put_notifications(&self, out: &mut BytesMut) {
        if let Some(ears) = &self.ears {
            ears.inbox.take(out, BUFFER_BYTES);
        }
    }

    /// The client is told of this notification by the shared connection. `body` is that of the message.
    pub(super) fn is_told_elsewhere(&self, body: &[u8]) -> bool {
        let channel = body.get(4..).and_then(|mut rest| crate::wire::frame::take_str(&mut rest).ok());
        self.ears
            .as_ref()
            .zip(channel)
            .is_some_and(|(ears, channel)| ears.channels.iter().any(|known| known == channel))
    }
}

impl Ears {
    /// What the session listens to, but for what its open transaction changes of that.
    pub(super) fn channels(&self) -> &[String] {
        &self.channels
    }

    /// UNLISTEN: it holds when the transaction commits.
    pub(super) fn unlisten(&mut self, channel: Option<&str>) {
        self.begun.push(Begun::Unlisten(channel.map(|name| truncated(name).to_owned())));
    }

    pub(super) fn savepoint(&mut self, name: &str) {
        self.begun.push(Begun::Savepoint(name.to_owned()));
    }

    pub(super) fn rollback_to(&mut self, name: &str) {
        let named = |begun: &Begun| matches!(begun, Begun::Savepoint(known) if known == name);
        // One that was made before there were ears holds nothing back.
        self.begun.truncate(self.begun.iter().rposition(named).map_or(0, |position| position + 1));
    }

    pub(super) fn notifies(&mut self) {
        self.spoke = true;
    }

    /// A transaction has ended. `false`: nothing is listened to any more.
    pub(super) fn end(&mut self, committed: bool) -> bool {
        for begun in std::mem::take(&mut self.begun).into_iter().filter(|_| committed) {
            let gone = match begun {
                Begun::Savepoint(_) => continue,
                Begun::Unlisten(None) => std::mem::take(&mut self.channels),
                Begun::Unlisten(Some(name)) => self.channels.extract_if(.., |known| *known == name).collect(),
            };
            self.listener.leave(&gone, &self.inbox);
        }
        !self.channels.is_empty()
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        self.listener.leave(&self.channels, &self.inbox);
    }
}

/// As PostgreSQL takes a name.
fn truncated(name: &str) -> &str {
    let end = (0..=NAME_BYTES.min(name.len())).rev().find(|&end| name.is_char_boundary(end));
    &name[..end.unwrap_or(0)]
}

const READY: [u8; Header::BYTES] = [server::READY, 0, 0, 0, 5];
const READY_BYTES: usize = READY.len() + 1;
const NAME_BYTES: usize = 63;
