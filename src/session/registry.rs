//! All clients being served: who they are, what they do, and how a CancelRequest reaches them.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::task::AtomicWaker;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::{Instant, timeout};

use crate::backend::CancelTarget;
use crate::error::Error;
use crate::wire::{CancelKey, Channel};

#[derive(Default)]
pub struct Registry {
    clients: Mutex<HashMap<i32, Arc<Client>, foldhash::fast::RandomState>>,
    ending: AtomicBool,
}

/// One client, as others see it.
pub struct Client {
    pub key: CancelKey,
    pub user: String,
    pub database: String,
    pub address: Option<SocketAddr>,
    /// Where it was accepted.
    pub local: Option<SocketAddr>,
    /// Protocol and cipher.
    pub encryption: Option<String>,
    pub since: Instant,
    units: AtomicU64,
    /// Of the last unit: microseconds since `since`.
    begun: AtomicU64,
    state: AtomicU8,
    bound: Mutex<Bound>,
    cancelled: Notify,
    /// Of its unit of work, as far as it concerns a CancelRequest: the flags below.
    cancelling: AtomicU8,
    /// Told when what such a request waits for has come.
    ripe: Notify,
    /// Its session is to end, whatever it is in the midst of.
    terminated: AtomicBool,
    /// Somebody ends processes of a server that it uses: losing that one, it has been ended.
    doomed: AtomicBool,
    /// Of its session while that waits for the client.
    waker: AtomicWaker,
}

/// A CancelRequest has come for the unit of work.
const CANCELLED: u8 = 1;
/// What the unit asks is still to be written. A server that is told of a CancelRequest before does nothing yet: the request
/// would be lost.
const UNWRITTEN: u8 = 2;
/// The CancelRequest waits for that.
const PATIENT: u8 = 4;
/// A CancelRequest has come between two units. It is for the next one if that had been sent before: then it is there to read.
const EARLY: u8 = 8;

/// So long a request waits for the session to see what there is to read, or for its statement to be written.
const RIPENING: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Bound {
    targets: Vec<Arc<CancelTarget>>,
    application: String,
    /// Since when there is more than one of them.
    several_since: Option<Instant>,
    /// Why a connection stays with the client.
    pinned: Option<&'static str>,
    /// The connection whose server told it the number of its process.
    asked: Weak<CancelTarget>,
    /// It was told its own number by a statement, too: which process it used last may be asked for.
    numbered: bool,
    last: Weak<CancelTarget>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Idle,
    Active,
    /// For a server connection.
    Waiting,
    InTransaction,
}

/// Takes the client out again when its session ends.
pub struct Registered {
    registry: Arc<Registry>,
    pub client: Arc<Client>,
}

impl Registry {
    /// A client under a key that nobody else has, as its minor version of the protocol has them; its process has the number
    /// that is `wanted`, unless somebody has it already.
    pub fn register(
        self: &Arc<Self>,
        (minor, mut wanted): (u32, Option<i32>),
        make: impl Fn(CancelKey) -> Client,
    ) -> Registered {
        let mut clients = self.lock();
        loop {
            // Above those of the servers' processes, which Linux gives up to 2²².
            let process = wanted.take().unwrap_or_else(|| rand::random_range((1 << 22)..=i32::MAX));
            let key = CancelKey::random(process, minor);
            if let std::collections::hash_map::Entry::Vacant(place) = clients.entry(key.process) {
                let client = Arc::clone(place.insert(Arc::new(make(key))));
                return Registered { registry: Arc::clone(self), client };
            }
        }
    }

    /// Ends what the client of this key runs or waits for. `false`: it is not here; nobody else is told, as PostgreSQL
    /// does.
    pub async fn cancel(&self, key: CancelKey) -> bool {
        let client = self.lock().get(&key.process).cloned();
        let Some(client) = client else { return false };
        if !client.key.is(&key) {
            return false;
        }
        client.cancel().await;
        true
    }

    /// Who has this process number, which is not that of its server process (see [`Registry::find_user`]).
    pub(super) fn find(&self, process: i32) -> Option<Arc<Client>> {
        let client = self.lock().get(&process).cloned()?;
        let is_of_server = client.lock().targets.iter().any(|target| target.process() == process);
        (!is_of_server).then_some(client)
    }

    /// Whose process that of this number is, on the server of `place`: of the one who uses it, `speaker` apart, else of the
    /// only one that was told it.
    pub(super) fn find_user(&self, process: i32, place: &CancelTarget, speaker: &Client) -> Option<Arc<Client>> {
        let is_it = |target: &Arc<CancelTarget>| target.process() == process && is_at(target, place);
        let clients = self.lock();
        let mut others = clients.values().filter(|client| client.key.process != speaker.key.process);
        if let Some(user) = others.find(|client| client.lock().targets.iter().any(is_it)) {
            return Some(Arc::clone(user));
        }
        let mut told = clients.values().filter(|client| client.lock().asked.upgrade().as_ref().is_some_and(is_it));
        told.next().filter(|_| told.next().is_none()).cloned()
    }

    /// `speaker` is about to end processes of the server of `place`, nobody knows which.
    pub(super) fn doom_users(&self, place: &CancelTarget, speaker: &Client) {
        let clients = self.lock();
        let others = clients.values().filter(|client| client.key.process != speaker.key.process);
        let users = others.filter(|client| client.lock().targets.iter().any(|target| is_at(target, place)));
        users.for_each(|client| client.doomed.store(true, Ordering::Release));
    }

    pub fn count(&self) -> usize {
        self.lock().len()
    }

    pub fn all(&self) -> Vec<Arc<Client>> {
        self.lock().values().cloned().collect()
    }

    /// Of those clients whom it holds for.
    pub(super) fn databases_of(&self, holds: impl Fn(&Client) -> bool) -> HashSet<String> {
        let clients = self.lock();
        clients.values().filter(|client| holds(client)).map(|client| client.database.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Arc<Client>, foldhash::fast::RandomState>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sessions that are between transactions are to end, now or when they get there.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Release);
        self.lock().values().for_each(|client| client.waker.wake());
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }
}

/// On the same server.
fn is_at(target: &CancelTarget, place: &CancelTarget) -> bool {
    let (one, other) = (target.server(), place.server());
    one.host == other.host && one.port == other.port
}

impl Client {
    pub fn new(key: CancelKey, user: &str, database: &str) -> Self {
        Self {
            key,
            user: user.to_owned(),
            database: database.to_owned(),
            address: None,
            local: None,
            encryption: None,
            since: Instant::now(),
            units: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            state: AtomicU8::new(0),
            bound: Mutex::default(),
            cancelled: Notify::new(),
            cancelling: AtomicU8::new(0),
            ripe: Notify::new(),
            terminated: AtomicBool::new(false),
            doomed: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Where it comes from.
    #[must_use]
    pub fn at(mut self, channel: &Channel) -> Self {
        (self.address, self.local, self.encryption) = (channel.peer(), channel.local(), channel.encryption());
        self
    }

    /// What it calls itself (`application_name`).
    pub fn application(&self) -> String {
        self.lock().application.clone()
    }

    pub fn call_application(&self, name: &str) {
        name.clone_into(&mut self.lock().application);
    }

    /// Units of work so far.
    pub fn units(&self) -> u64 {
        self.units.load(Ordering::Relaxed)
    }

    /// When the last unit of work began.
    pub fn begun(&self) -> Instant {
        self.since + Duration::from_micros(self.begun.load(Ordering::Relaxed))
    }

    /// How long it has waited for a server connection, if it does.
    pub fn waits_since(&self, now: Instant) -> Option<Duration> {
        (self.state() == State::Waiting).then(|| now.saturating_duration_since(self.begun()))
    }

    /// A unit of work begins. Only the client's own worker counts.
    pub(super) fn begin_unit(&self, now: Instant) {
        let micros = now.saturating_duration_since(self.since).as_micros();
        self.begun.store(u64::try_from(micros).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.units.store(self.units() + 1, Ordering::Relaxed);
        self.doomed.store(false, Ordering::Relaxed);
        // One exchange: a request that comes at this moment is seen here, or sees that the unit has begun.
        if self.cancelling.swap(0, Ordering::AcqRel) & EARLY != 0 {
            self.cancelling.fetch_or(CANCELLED, Ordering::AcqRel);
            self.ripe.notify_waiters();
        }
        self.become_(State::Active);
    }

    /// What its unit asks of one server is about to be put, and will be [written](Client::has_written).
    pub(super) fn is_to_write(&self) {
        self.cancelling.fetch_or(UNWRITTEN, Ordering::AcqRel);
    }

    /// From now on its server knows what to end. `true`: it is to be told; the CancelRequest came before.
    pub(super) fn has_written(&self) -> bool {
        let was = self.cancelling.fetch_and(!UNWRITTEN, Ordering::AcqRel);
        if was & PATIENT != 0 {
            self.ripe.notify_waiters();
        }
        was & (CANCELLED | PATIENT) == CANCELLED
    }

    /// Refused where a CancelRequest has come for the unit.
    pub(super) fn check_cancelled(&self) -> Result<(), Error> {
        match self.cancelling.load(Ordering::Acquire) & CANCELLED {
            0 => Ok(()),
            _ => Err(Error::canceled()),
        }
    }

    /// A CancelRequest has come while it was between two units, and `has_sent`s the next one already or not.
    pub(super) fn meets_early_cancel(&self, has_sent: impl FnOnce() -> bool) {
        if self.cancelling.load(Ordering::Acquire) & EARLY != 0 && !has_sent() {
            self.cancelling.fetch_and(!EARLY, Ordering::AcqRel);
            self.ripe.notify_waiters();
        }
    }

    /// The connections that it uses.
    pub fn targets(&self) -> Vec<Arc<CancelTarget>> {
        self.lock().targets.clone()
    }

    pub fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            0 => State::Idle,
            1 => State::Active,
            2 => State::Waiting,
            _ => State::InTransaction,
        }
    }

    pub fn become_(&self, state: State) {
        let number = match state {
            State::Idle => 0,
            State::Active => 1,
            State::Waiting => 2,
            State::InTransaction => 3,
        };
        self.state.store(number, Ordering::Relaxed);
    }

    /// A CancelRequest ends what runs on this connection, until [`Client::unbind`].
    pub(super) fn bind(&self, target: &Arc<CancelTarget>) {
        let mut bound = self.lock();
        bound.targets.push(Arc::clone(target));
        if bound.targets.len() == 2 {
            bound.several_since = Some(Instant::now());
        }
    }

    /// No CancelRequest that comes from now on reaches the connection; one on its way keeps it from being used again.
    pub(super) fn unbind(&self, target: &Arc<CancelTarget>) {
        let mut bound = self.lock();
        if bound.numbered {
            bound.last = Arc::downgrade(target);
        }
        bound.targets.retain(|known| !Arc::ptr_eq(known, target));
        if bound.targets.len() < 2 {
            bound.several_since = None;
        }
    }

    /// It is told the number of this connection's process.
    pub(super) fn asks(&self, target: &Arc<CancelTarget>) {
        self.lock().asked = Arc::downgrade(target);
    }

    /// It was told the number of this connection's process last.
    pub(super) fn was_told(&self, target: &Arc<CancelTarget>) -> bool {
        self.lock().asked.upgrade().is_some_and(|asked| Arc::ptr_eq(&asked, target))
    }

    /// Who it is to those whom it notifies: by the number that it asked for last, else by its own.
    pub(super) fn number(&self) -> i32 {
        self.lock().asked.upgrade().map_or(self.key.process, |target| target.process())
    }

    /// A statement tells it its own number.
    pub(super) fn is_numbered(&self) {
        self.lock().numbered = true;
    }

    /// The number of the server's process that it uses, or did when it used one, as far as others can have asked.
    pub(super) fn process(&self) -> Option<i32> {
        let bound = self.lock();
        bound.targets.first().cloned().or_else(|| bound.last.upgrade()).map(|target| target.process())
    }

    /// Since when it uses more than one connection, if it does.
    pub fn several_since(&self) -> Option<Instant> {
        self.lock().several_since
    }

    pub(super) fn pin(&self, reason: Option<&'static str>) {
        self.lock().pinned = reason;
    }

    pub fn pinned(&self) -> Option<&'static str> {
        self.lock().pinned
    }

    /// Ends what the client runs or waits for, as a CancelRequest does; returns when its servers have sent their signals.
    pub(super) async fn cancel(&self) {
        let unit = self.units();
        let is_between = matches!(self.state(), State::Idle | State::InTransaction);
        if is_between && !self.is_terminated() && self.cancel_early(unit).await {
            return;
        }
        let (unit, ripe) = (self.units(), self.ripe.notified());
        let noted = |was| Some(was | CANCELLED | if was & UNWRITTEN != 0 { PATIENT } else { 0 });
        let noted = self.cancelling.fetch_update(Ordering::AcqRel, Ordering::Acquire, noted);
        let mut targets = self.targets_to_cancel();
        self.cancelled.notify_waiters();
        // Who is to go need not write anything.
        if noted.is_ok_and(|was| was & UNWRITTEN != 0) && !self.is_terminated() {
            let _ = timeout(RIPENING, ripe).await;
            targets = if self.units() == unit { self.targets_to_cancel() } else { Vec::new() };
        }
        let outcomes = join_all(targets.iter().map(|target| target.cancel())).await;
        for cause in outcomes.into_iter().filter_map(Result::err) {
            tracing::debug!(%cause, "cancel request");
        }
    }

    /// It does nothing after so many units; what it has sent meanwhile is what is meant. What it sends afterwards is not.
    /// `false`: the next one has begun.
    async fn cancel_early(&self, units: u64) -> bool {
        let ripe = self.ripe.notified();
        self.cancelling.fetch_or(EARLY, Ordering::AcqRel);
        if self.units() != units {
            // It has taken the request up, or not seen it.
            return self.cancelling.fetch_and(!EARLY, Ordering::AcqRel) & EARLY == 0;
        }
        self.waker.wake();
        let _ = timeout(RIPENING, ripe).await;
        self.cancelling.fetch_and(!EARLY, Ordering::AcqRel);
        true
    }

    /// Ends its session, as the server does that of a process which is terminated.
    pub(super) async fn terminate(&self) {
        self.terminated.store(true, Ordering::Release);
        self.waker.wake();
        self.cancel().await;
    }

    pub(super) fn is_terminated(&self) -> bool {
        self.terminated.load(Ordering::Acquire)
    }

    pub(super) fn is_doomed(&self) -> bool {
        self.doomed.load(Ordering::Acquire)
    }

    /// Before its session waits: what the registry wants to tell wakes it.
    pub(super) fn waits(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Returns when a CancelRequest comes, from now on.
    pub fn cancelled(&self) -> Notified<'_> {
        self.cancelled.notified()
    }

    /// Waits in the client's name; a CancelRequest ends that.
    pub(super) async fn wait_for<T>(&self, waited: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let cancelled = self.cancelled();
        self.check_cancelled()?;
        self.become_(State::Waiting);
        let outcome = tokio::select! {
            biased;
            outcome = waited => outcome,
            () = cancelled => Err(Error::canceled()),
        };
        self.become_(State::Active);
        outcome
    }

    fn targets_to_cancel(&self) -> Vec<Arc<CancelTarget>> {
        let bound = self.lock();
        bound.targets.iter().for_each(|target| target.announce());
        bound.targets.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Bound> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.lock().remove(&self.client.key.process);
    }
}
