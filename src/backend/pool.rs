//! The server connections of one user to one server: at most `size` in the whole process, lent first come first
//! served.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

use super::connection::{CancelTarget, Connection, OpeningTerms, Reported};
use super::login::Login;
use crate::error::{Error, SqlState};
use crate::topology::Server;

/// What a pool may do.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    pub size: usize,
    pub min_size: usize,
    /// Zero: none of these three ends anything.
    pub lifetime: Duration,
    pub idle_timeout: Duration,
    pub wait_timeout: Duration,
    pub connect_timeout: Duration,
    pub keepalive: Duration,
}

pub struct Pool {
    pub server: Arc<Server>,
    /// The user as clients know it.
    pub user: String,
    pub login: Login,
    limits: Limits,
    /// See [`Pools::doubt_roles`](super::Pools::doubt_roles).
    roles: Arc<AtomicU64>,
    state: Mutex<State>,
    /// Clients have asked for numbers that they drew before: see [`Pool::next_idle`].
    recalls: AtomicBool,
    /// Clients that ever waited, and for how long altogether.
    waited: AtomicU64,
    waited_micros: AtomicU64,
    longest_queue: AtomicUsize,
    /// While the pool is paused: its last connection has gone.
    emptied: Notify,
}

#[derive(Default)]
struct State {
    /// The last one used is lent first: the rest may grow old and go.
    #[expect(clippy::vec_box, reason = "lent and taken back as they are: the pointer moves, not the connection")]
    idle: Vec<Box<Connection>>,
    /// Places taken: idle, lent and being opened.
    taken: usize,
    waiters: VecDeque<oneshot::Sender<Handed>>,
    /// What servers report now, as far as known.
    reported: Reported,
    closed: bool,
    /// Lends nothing, and keeps nothing that comes back.
    paused: bool,
    /// How often connections have been found to be of no use any more: see [`Pool::renew`].
    renewals: u64,
    /// Connections that were opened, those that are gone among them.
    opened: Vec<Weak<CancelTarget>>,
}

/// What a waiter is given.
enum Handed {
    Connection(Box<Connection>),
    /// The right to open one.
    Place(Place),
}

/// The right to one connection. Dropped, it goes to the next waiter.
pub(super) struct Place(Option<Weak<Pool>>);

/// Counters for `SHOW POOLS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub idle: usize,
    pub lent: usize,
    pub waiting: usize,
    pub waits: u64,
    pub waited: Duration,
    /// Being opened; counted in `lent` too.
    pub opening: usize,
}

/// A connection, for `SHOW SERVERS`.
pub struct Seen {
    pub target: Arc<CancelTarget>,
    /// When it came back, if it is idle.
    pub idle_since: Option<Instant>,
}

impl Pool {
    pub fn new(server: Arc<Server>, user: &str, login: Login, limits: Limits, roles: &Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self {
            server,
            user: user.to_owned(),
            login,
            limits,
            roles: Arc::clone(roles),
            state: Mutex::default(),
            recalls: AtomicBool::new(false),
            waited: AtomicU64::new(0),
            waited_micros: AtomicU64::new(0),
            longest_queue: AtomicUsize::new(0),
            emptied: Notify::new(),
        })
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Lends an idle connection that is registered with `worker`'s runtime already. `None`: see [`Pool::lend`].
    pub fn lend_at_once(&self, worker: usize, now: Instant) -> Option<Box<Connection>> {
        let mut state = self.lock();
        if !state.waiters.is_empty() {
            return None;
        }
        let own = |connection: &Connection| connection.worker == worker;
        let position = self.next_idle(&state, own).filter(|&position| self.may_lend(&state, position, now))?;
        let connection = state.idle.remove(position);
        self.sound(&mut state, connection, now)
    }

    /// The last one used is lent first. Where clients ask for numbers that they drew, the one whose client has had longest
    /// to do so.
    fn next_idle(&self, state: &State, fits: impl Fn(&Connection) -> bool) -> Option<usize> {
        match self.recalls.load(Ordering::Relaxed) {
            false => state.idle.iter().rposition(|connection| fits(connection)),
            true => state.idle.iter().position(|connection| fits(connection)),
        }
    }

    /// A client that wrote there a moment ago may be about to ask: there is no need of another connection.
    fn may_lend(&self, state: &State, position: usize, now: Instant) -> bool {
        let idle = &state.idle[position];
        let may_ask = idle.writer.is_some() && now.saturating_duration_since(idle.used) < ASKED_WITHIN;
        !(may_ask && state.taken < self.limits.size && self.recalls.load(Ordering::Relaxed))
    }

    /// The idle connection, if it may still be used; else its place is free.
    fn sound(&self, state: &mut State, mut connection: Box<Connection>, now: Instant) -> Option<Box<Connection>> {
        if connection.is_quiet() && !connection.is_older_than(self.limits.lifetime, now) {
            connection.doubt_role(self.roles.load(Ordering::Acquire));
            return Some(connection);
        }
        state.forget(connection);
        None
    }

    /// The connection on which this client wrote last, if nobody else did since and it is free: where clients ask for
    /// numbers that they drew. `recalls`: this one does; `counts`: it has drawn some.
    pub fn lend_of(
        &self,
        client: i32,
        (recalls, counts): (bool, bool),
        worker: usize,
        now: Instant,
    ) -> Option<Box<Connection>> {
        if recalls {
            self.recalls.store(true, Ordering::Relaxed);
        }
        if !counts && !self.recalls.load(Ordering::Relaxed) {
            return None;
        }
        let mut state = self.lock();
        let nth =
            |connection: &Connection| connection.writer.filter(|writer| writer.client == client).map(|own| own.nth);
        let found = state.idle.iter().enumerate().filter_map(|(position, idle)| Some((nth(idle)?, position)));
        let (_, position) = found.max()?;
        let connection = state.idle.remove(position);
        let connection = self.sound(&mut state, connection, now)?;
        drop(state);
        connection.move_to(worker).ok()
    }

    /// Lends a connection registered with `worker`'s runtime, on which this must be called.
    pub async fn lend(self: &Arc<Self>, worker: usize) -> Result<Box<Connection>, Error> {
        let place = match self.take(worker) {
            Taken::Connection(connection) => return connection.move_to(worker),
            Taken::Place(place) => place,
            Taken::Waiting(handed) => match self.wait(handed).await? {
                Handed::Connection(connection) => return connection.move_to(worker),
                Handed::Place(place) => place,
            },
        };
        self.open(place, worker).await
    }

    async fn open(&self, place: Place, worker: usize) -> Result<Box<Connection>, Error> {
        let Limits { connect_timeout, keepalive, .. } = self.limits;
        let terms = OpeningTerms { parameters: &[], connect_timeout, keepalive, worker };
        let renewals = self.lock().renewals;
        let mut connection = Box::new(Connection::open(&self.server, &self.login, terms).await?);
        (connection.place, connection.renewals) = (Some(place), renewals);
        let mut state = self.lock();
        connection.reported = state.agree(&connection.reported);
        state.note_opened(connection.target());
        drop(state);
        Ok(connection)
    }

    pub fn reported(&self) -> Reported {
        Arc::clone(&self.lock().reported)
    }

    /// A server told, unasked, a new value of what it reports.
    pub fn hear(&self, connection: &mut Connection, name: &str, value: &str) {
        let mut reported = Vec::clone(&connection.reported);
        match reported.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) if known == value => return,
            Some((_, known)) => value.clone_into(known),
            None => reported.push((name.to_owned(), value.to_owned())),
        }
        connection.reported = self.lock().agree(&Arc::new(reported));
    }

    fn take(self: &Arc<Self>, worker: usize) -> Taken {
        let mut state = self.lock();
        state.forget_who_gave_up();
        if state.waiters.is_empty() && !state.paused {
            let now = Instant::now();
            while let Some(connection) = self.take_idle(&mut state, worker, now) {
                if let Some(connection) = self.sound(&mut state, connection, now) {
                    return Taken::Connection(connection);
                }
            }
            if state.taken < self.limits.size {
                state.taken += 1;
                return Taken::Place(Place(Some(Arc::downgrade(self))));
            }
        }
        let (sender, receiver) = oneshot::channel();
        state.waiters.push_back(sender);
        self.longest_queue.fetch_max(state.waiters.len(), Ordering::Relaxed);
        Taken::Waiting(receiver)
    }

    fn take_idle(&self, state: &mut State, worker: usize, now: Instant) -> Option<Box<Connection>> {
        let own = self.next_idle(state, |connection| connection.worker == worker);
        let position = own.or_else(|| self.next_idle(state, |_| true))?;
        self.may_lend(state, position, now).then(|| state.idle.remove(position))
    }

    async fn wait(&self, handed: oneshot::Receiver<Handed>) -> Result<Handed, Error> {
        let begun = Instant::now();
        let limit = self.limits.wait_timeout;
        let outcome = if limit.is_zero() { Ok(handed.await) } else { timeout(limit, handed).await };
        self.waited.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.waited_micros.fetch_add(micros, Ordering::Relaxed);
        match outcome {
            Ok(Ok(handed)) => Ok(handed),
            Ok(Err(_)) => Err(Error::new(SqlState::SHUTTING_DOWN, "the pool was closed by a new configuration")),
            Err(_) => Err(self.saturated(limit)),
        }
    }

    fn saturated(&self, limit: Duration) -> Error {
        let (server, size) = (&self.server, self.limits.size);
        let message = format!(
            "no free server connection within query_wait_timeout ({} ms) for database \"{}\", shard {}",
            limit.as_millis(),
            server.database,
            server.shard.0
        );
        Error::new(SqlState::SATURATED, message)
            .with_detail(format!("All {size} connections to {}:{} are in use.", server.host, server.port))
            .with_hint("Raise pool_size, shorten transactions, or retry later.")
    }

    /// Takes a connection back, now, if it may be used again; else it is closed.
    pub fn take_back(&self, mut connection: Box<Connection>, now: Instant) {
        if !connection.is_clean() || connection.is_older_than(self.limits.lifetime, now) {
            return;
        }
        connection.change_hands();
        connection.doubt_role(self.roles.load(Ordering::Acquire));
        connection.channel.relax_large();
        connection.used = now;
        let mut state = self.lock();
        if state.paused {
            state.forget(connection);
            self.tell_if_empty(&state);
            return;
        }
        if connection.renewals != state.renewals {
            // Its place goes to whoever waits.
            drop(state);
            return;
        }
        while let Some(waiter) = state.waiters.pop_front() {
            match waiter.send(Handed::Connection(connection)) {
                Ok(()) => return,
                Err(Handed::Connection(returned)) => connection = returned,
                Err(Handed::Place(_)) => unreachable!("a connection was sent"),
            }
        }
        if state.closed {
            state.forget(connection);
        } else {
            state.idle.push(connection);
        }
    }

    /// Connections that are there now are lent to nobody more, and what new ones report is to be heard.
    pub(super) fn renew(&self) {
        let mut state = self.lock();
        state.renewals += 1;
        state.reported = Arc::new(Vec::clone(&state.reported));
        let idle = std::mem::take(&mut state.idle);
        idle.into_iter().for_each(|connection| state.forget(connection));
    }

    /// Closes what idled too long or grew old; opens nothing.
    pub fn tend(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        let limits = &self.limits;
        let mut spare = state.taken.saturating_sub(limits.min_size);
        let (mut kept, mut ended) = (Vec::new(), Vec::new());
        for connection in std::mem::take(&mut state.idle) {
            let bored =
                !limits.idle_timeout.is_zero() && now.saturating_duration_since(connection.used) > limits.idle_timeout;
            if connection.is_older_than(limits.lifetime, now) || (bored && spare > 0) {
                spare = spare.saturating_sub(1);
                ended.push(connection);
            } else {
                kept.push(connection);
            }
        }
        state.idle = kept;
        ended.into_iter().for_each(|connection| state.forget(connection));
    }

    /// Opens connections until `min_pool_size` is there.
    pub async fn fill(self: &Arc<Self>, worker: usize) -> Result<(), Error> {
        loop {
            let place = {
                let mut state = self.lock();
                if state.closed || state.paused || state.taken >= self.limits.min_size.min(self.limits.size) {
                    return Ok(());
                }
                state.taken += 1;
                Place(Some(Arc::downgrade(self)))
            };
            let connection = self.open(place, worker).await?;
            self.take_back(connection, Instant::now());
        }
    }

    /// Closes what is idle; what is lent still goes to those who wait, and is closed when nobody does.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        if state.paused {
            // Nobody resumes a pool that is gone.
            state.waiters.clear();
        }
        for connection in std::mem::take(&mut state.idle) {
            state.forget(connection);
        }
    }

    /// Lends nothing more; idle connections are closed, lent ones when they come back.
    pub fn pause(&self) {
        let mut state = self.lock();
        state.paused = true;
        for connection in std::mem::take(&mut state.idle) {
            state.forget(connection);
        }
        self.tell_if_empty(&state);
    }

    /// Returns when a paused pool has no connection left.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.lock().taken == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Lends again, first to those who have waited.
    pub fn resume(self: &Arc<Self>) {
        let mut state = self.lock();
        state.paused = false;
        while state.taken < self.limits.size {
            let Some(waiter) = state.waiters.pop_front() else { return };
            match waiter.send(Handed::Place(Place(Some(Arc::downgrade(self))))) {
                Ok(()) => state.taken += 1,
                Err(Handed::Place(place)) => place.spend(),
                Err(Handed::Connection(_)) => unreachable!("a place was sent"),
            }
        }
    }

    fn tell_if_empty(&self, state: &State) {
        if state.paused && state.taken == 0 {
            self.emptied.notify_waiters();
        }
    }

    /// All connections that are open.
    pub fn seen(&self) -> Vec<Seen> {
        let state = self.lock();
        let idle = |target: &Arc<CancelTarget>| {
            let connection = state.idle.iter().find(|connection| Arc::ptr_eq(connection.target(), target));
            connection.map(|connection| connection.used)
        };
        let targets = state.opened.iter().filter_map(Weak::upgrade);
        targets.map(|target| Seen { idle_since: idle(&target), target }).collect()
    }

    pub fn usage(&self) -> Usage {
        let state = self.lock();
        let open = state.opened.iter().filter(|target| target.strong_count() > 0).count();
        Usage {
            idle: state.idle.len(),
            lent: state.taken - state.idle.len(),
            waiting: state.waiters.iter().filter(|waiter| !waiter.is_closed()).count(),
            waits: self.waited.load(Ordering::Relaxed),
            waited: Duration::from_micros(self.waited_micros.load(Ordering::Relaxed)),
            opening: state.taken.saturating_sub(open),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Between the write that draws a number and the question what it was.
const ASKED_WITHIN: Duration = Duration::from_secs(1);

enum Taken {
    Connection(Box<Connection>),
    Place(Place),
    Waiting(oneshot::Receiver<Handed>),
}

impl State {
    fn note_opened(&mut self, target: &Arc<CancelTarget>) {
        // Those that are gone cost their place until the list would grow.
        if self.opened.len() == self.opened.capacity() {
            self.opened.retain(|known| known.strong_count() > 0);
        }
        self.opened.push(Arc::downgrade(target));
    }

    /// Those at the front: who came first gave up first, as a rule.
    fn forget_who_gave_up(&mut self) {
        while self.waiters.front().is_some_and(oneshot::Sender::is_closed) {
            self.waiters.pop_front();
        }
    }

    /// The same values become the same list.
    fn agree(&mut self, reported: &Reported) -> Reported {
        if self.reported != *reported {
            self.reported = Arc::clone(reported);
        }
        Arc::clone(&self.reported)
    }

    /// Closes a connection while the lock is held: its place is given back here, not by its own drop.
    fn forget(&mut self, mut connection: Box<Connection>) {
        if let Some(place) = connection.place.take() {
            place.spend();
        }
        self.taken -= 1;
    }
}

impl Connection {
    fn move_to(mut self: Box<Self>, worker: usize) -> Result<Box<Self>, Error> {
        if self.worker != worker {
            self.channel.adopt().map_err(|cause| self.lost(&cause))?;
            self.worker = worker;
        }
        Ok(self)
    }
}

impl Place {
    /// Ends without giving the place to anybody: for whoever holds the pool's lock.
    fn spend(mut self) {
        self.0 = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(weak) = self.0.take() else { return };
        let Some(pool) = weak.upgrade() else { return };
        let mut state = pool.lock();
        while !state.paused
            && let Some(waiter) = state.waiters.pop_front()
        {
            match waiter.send(Handed::Place(Self(Some(Weak::clone(&weak))))) {
                Ok(()) => return,
                Err(Handed::Place(returned)) => returned.spend(),
                Err(Handed::Connection(_)) => unreachable!("a place was sent"),
            }
        }
        state.taken -= 1;
        pool.tell_if_empty(&state);
    }
}
