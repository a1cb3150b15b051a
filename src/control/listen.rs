//! What servers notify, heard on one connection for all who listen to a database (PostgreSQL documentation, NOTIFY).
//!
//! Who listens is known by its inbox; nothing of clients. The connection is there while somebody listens, to the home
//! shard's primary; lost, it comes again, and who listened meanwhile is warned.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::connect::{Client, Login, Notification, SqlError, connect_hearing};
use super::primaries::Primaries;
use crate::error::{Error, SqlState};
use crate::statement::quoted_name;
use crate::wire::message::{put_notification, put_warning};

/// Of one database, as long as it is configured.
#[derive(Default)]
pub struct Listener {
    state: Mutex<State>,
    /// Channels, the connection or the primary may be others than they were.
    changed: Notify,
    /// More is heard than was.
    heard: Notify,
}

#[derive(Default)]
struct State {
    primaries: Option<Primaries>,
    channels: HashMap<String, Channel>,
    client: Option<Arc<Client>>,
    /// They listened when the connection was lost.
    deaf: Vec<Arc<Inbox>>,
    /// Clients' process numbers by those of the server processes that notify for them at this moment.
    voices: HashMap<i32, i32>,
}

/// While a server process notifies for a client, what it notifies is said to come from the client.
pub struct Voice {
    listener: Arc<Listener>,
    process: i32,
}

#[derive(Default)]
struct Channel {
    inboxes: Vec<Arc<Inbox>>,
    /// The server has said that it is listened to.
    heard: bool,
}

/// Messages for one who listens, bounded.
#[derive(Default)]
pub struct Inbox {
    queue: Mutex<Queue>,
    waker: AtomicWaker,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// Some had no room.
    overflowed: bool,
}

impl Listener {
    /// Where home's primary is, from now on.
    pub(super) fn follow(&self, primaries: Primaries) {
        self.lock().primaries = Some(primaries);
        self.changed.notify_one();
    }

    /// Puts what is notified on these channels into the inbox; returns when they are heard. `false`: they are not, in
    /// time, and nothing has changed.
    pub async fn listen(&self, channels: &[String], inbox: &Arc<Inbox>) -> bool {
        if self.home().is_none() {
            return false;
        }
        let joined = self.join(channels, inbox);
        let heard = timeout(PATIENCE, self.heard(channels)).await.is_ok();
        if !heard {
            self.leave(joined, inbox);
        }
        heard
    }

    /// Gives the channels that are new to the inbox.
    fn join<'a>(&self, channels: &'a [String], inbox: &Arc<Inbox>) -> Vec<&'a String> {
        let mut state = self.lock();
        let mut joined = Vec::new();
        for name in channels {
            let channel = state.channels.entry(name.clone()).or_default();
            if !channel.inboxes.iter().any(|known| Arc::ptr_eq(known, inbox)) {
                channel.inboxes.push(Arc::clone(inbox));
                joined.push(name);
            }
        }
        self.changed.notify_one();
        joined
    }

    async fn heard(&self, channels: &[String]) {
        loop {
            let more = self.heard.notified();
            if self.hears(channels) {
                return;
            }
            more.await;
        }
    }

    fn hears(&self, channels: &[String]) -> bool {
        let state = self.lock();
        channels.iter().all(|name| state.channels.get(name).is_some_and(|channel| channel.heard))
    }

    /// Nothing more of these channels is for the inbox.
    pub fn leave<'a>(&self, channels: impl IntoIterator<Item = &'a String>, inbox: &Arc<Inbox>) {
        let mut state = self.lock();
        for name in channels {
            if let Some(channel) = state.channels.get_mut(name) {
                channel.inboxes.retain(|known| !Arc::ptr_eq(known, inbox));
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Returns when what was notified before is in the inboxes.
    pub async fn caught_up(&self) {
        let client = self.lock().client.clone();
        if let Some(client) = client {
            // The server delivers before it answers. One that does not answer is found out elsewhere.
            let _ = timeout(ROUND_TRIP, client.batch("")).await;
        }
    }

    /// What this process of the home shard's primary notifies is a client's, by its own process number, as long as the
    /// value is there. Nothing is to be kept where nobody listens.
    pub fn lend_voice(self: &Arc<Self>, process: i32, client: i32) -> Option<Voice> {
        let mut state = self.lock();
        state.client.as_ref()?;
        state.voices.insert(process, client);
        drop(state);
        Some(Voice { listener: Arc::clone(self), process })
    }

    fn deliver(&self, notification: &Notification) {
        let state = self.lock();
        let Some(channel) = state.channels.get(&notification.channel) else { return };
        let mut frame = BytesMut::new();
        let process = state.voices.get(&notification.process).copied().unwrap_or(notification.process);
        put_notification(&mut frame, process, &notification.channel, &notification.payload);
        let frame = frame.freeze();
        channel.inboxes.iter().for_each(|inbox| inbox.put(&frame));
    }

    /// The server's messages until the connection ends, or nobody listens any more.
    async fn serve(self: &Arc<Self>) -> Result<(), ListenError> {
        let login = self.home().ok_or(ListenError::NoLogin)?;
        let listener = Arc::clone(self);
        let hear = move |heard: Option<Notification>| match heard {
            Some(notification) => listener.deliver(&notification),
            None => listener.changed.notify_one(),
        };
        let client = Arc::new(soon(connect_hearing(&login, hear)).await?);
        self.lock().client = Some(Arc::clone(&client));
        loop {
            self.adjust(&client).await?;
            if self.lock().channels.is_empty() {
                return Ok(());
            }
            // A server that hangs, or has another for its successor, is left.
            if timeout(INTERVAL, self.changed.notified()).await.is_err() {
                soon(client.batch("")).await?;
            }
            if client.is_closed() {
                return Err(ListenError::Closed);
            }
            if self.home().as_ref() != Some(&login) {
                return Err(ListenError::Moved);
            }
        }
    }

    /// Makes the server's channels those that are wanted.
    async fn adjust(&self, client: &Client) -> Result<(), ListenError> {
        let (mut sql, mut new) = (String::new(), Vec::new());
        self.lock().channels.retain(|name, channel| {
            let wanted = !channel.inboxes.is_empty();
            let verb = match (wanted, channel.heard) {
                (true, false) => "LISTEN",
                (false, true) => "UNLISTEN",
                _ => return wanted,
            };
            sql += &format!("{verb} {};", quoted_name(name));
            new.extend(wanted.then(|| name.clone()));
            wanted
        });
        if sql.is_empty() {
            return Ok(());
        }
        soon(client.batch(&sql)).await?;
        let mut state = self.lock();
        for name in new {
            if let Some(channel) = state.channels.get_mut(&name) {
                channel.heard = true;
            }
        }
        for inbox in std::mem::take(&mut state.deaf) {
            inbox.put(&missed());
        }
        drop(state);
        self.heard.notify_waiters();
        Ok(())
    }

    /// Nothing is heard any more.
    fn deafen(&self) {
        let mut state = self.lock();
        state.client = None;
        let State { channels, deaf, .. } = &mut *state;
        for channel in channels.values_mut().filter(|channel| channel.heard) {
            channel.heard = false;
            for inbox in &channel.inboxes {
                if !deaf.iter().any(|known| Arc::ptr_eq(known, inbox)) {
                    deaf.push(Arc::clone(inbox));
                }
            }
        }
    }

    fn home(&self) -> Option<Login> {
        self.lock().primaries.as_ref().and_then(Primaries::home)
    }

    async fn wanted(&self) {
        loop {
            // Kept while nobody waits.
            let changed = self.changed.notified();
            if !self.lock().channels.is_empty() {
                return;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Voice {
    /// Returns when what was notified before has been heard: the process may notify for somebody else.
    pub async fn was_heard(self) {
        self.listener.caught_up().await;
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.listener.lock().voices.remove(&self.process);
    }
}

impl Inbox {
    fn put(&self, frame: &Bytes) {
        let mut queue = self.lock();
        if queue.bytes + frame.len() > INBOX_BYTES {
            queue.overflowed = true;
        } else {
            if std::mem::take(&mut queue.overflowed) {
                queue.push(missed());
            }
            queue.push(frame.clone());
        }
        drop(queue);
        self.waker.wake();
    }

    /// Moves messages to `out`, as many as make it that long.
    pub fn take(&self, out: &mut BytesMut, most: usize) {
        let mut queue = self.lock();
        while out.len() < most {
            let Some(frame) = queue.frames.pop_front() else { break };
            queue.bytes -= frame.len();
            out.extend_from_slice(&frame);
        }
        if queue.frames.is_empty() && std::mem::take(&mut queue.overflowed) {
            out.extend_from_slice(&missed());
        }
    }

    /// Whether something is there; else `waker` is woken when it is.
    pub fn poll(&self, waker: &Waker) -> bool {
        self.waker.register(waker);
        !self.is_empty()
    }

    pub fn is_empty(&self) -> bool {
        let queue = self.lock();
        queue.frames.is_empty() && !queue.overflowed
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }
}

/// Looks after one database's listener until it is aborted.
pub(super) async fn watch(listener: Arc<Listener>) {
    let mut failed = None;
    loop {
        listener.wanted().await;
        let begun = Instant::now();
        let served = listener.serve().await;
        listener.deafen();
        let Err(cause) = served else { continue };
        if begun.elapsed() > LONGEST_PAUSE {
            failed = None;
        }
        match failed {
            None => tracing::warn!(%cause, "notifications are not heard; trying again"),
            Some(_) => tracing::debug!(%cause, "notifications are still not heard"),
        }
        let pause = failed.map_or(FIRST_PAUSE, |pause: Duration| (pause * 2).min(LONGEST_PAUSE));
        failed = Some(pause);
        sleep(pause).await;
    }
}

async fn soon<T>(work: impl Future<Output = Result<T, SqlError>>) -> Result<T, ListenError> {
    match timeout_at(Instant::now() + ROUND_TRIP, work).await {
        Ok(outcome) => outcome.map_err(ListenError::Sql),
        Err(_) => Err(ListenError::Silent),
    }
}

#[derive(Debug, thiserror::Error)]
enum ListenError {
    #[error("no password to listen with; give [control]")]
    NoLogin,
    #[error("{0}")]
    Sql(SqlError),
    #[error("the server does not answer")]
    Silent,
    #[error("the connection was lost")]
    Closed,
    #[error("another server is the primary")]
    Moved,
}

/// A WARNING.
fn missed() -> Bytes {
    let warning = Error::new(SqlState("01000"), "notifications may have been missed")
        .with_detail("The connection that listens was lost and is there again, or more came than was read.")
        .with_hint("Look for what they would have told.");
    let mut frame = BytesMut::new();
    put_warning(&mut frame, &warning);
    frame.freeze()
}

/// Messages that wait for one who does not read.
const INBOX_BYTES: usize = 4 << 20;
/// For so long a LISTEN waits for the connection that all share.
const PATIENCE: Duration = Duration::from_secs(5);
const ROUND_TRIP: Duration = Duration::from_secs(3);
/// The server is asked whether it is there.
const INTERVAL: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_told_as_missed_in_its_place() {
        let inbox = Inbox::default();
        let (large, small) = (Bytes::from(vec![b'l'; INBOX_BYTES - 1]), Bytes::from_static(b"small"));
        inbox.put(&large);
        inbox.put(&small);
        let mut out = BytesMut::new();
        inbox.take(&mut out, 1);
        assert_eq!(out.len(), large.len() + missed().len());
        assert!(inbox.is_empty());
        [&small, &large, &small].into_iter().for_each(|frame| inbox.put(frame));
        out.clear();
        inbox.take(&mut out, 1);
        inbox.put(&small);
        out.clear();
        inbox.take(&mut out, usize::MAX);
        assert_eq!(out, [&missed()[..], b"smallsmall"].concat());
    }
}
