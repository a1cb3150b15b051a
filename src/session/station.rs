//! What sessions share: of one worker, and of the whole process.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwapOption;
use bytes::{Bytes, BytesMut};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::again::Budget;
use super::planned::Plans;
use super::prepared::Interner;
use super::registry::Registry;
use super::snapshot::Snapshot;
use super::ties::Told;
use crate::backend::settings::Settings;
use crate::backend::{Connection, Pool, Pools, Reported};
use crate::balance::{Access, Choice, Fleet, InFlight, Need, Unfit};
use crate::cache::Cache;
use crate::control::{Cluster, Control, Defaults};
use crate::error::{Error, SqlState};
use crate::figures::{DatabaseFigures, Figures};
use crate::statement::{Analysis, Entry, Isolation, LiteralSpan, ShapeCache};
use crate::topology::{Consistency, Database, ServerId, Topology, User};
use crate::wire::message::error_field;

/// One worker's own.
pub struct Station {
    pub worker: usize,
    pub shared: Arc<Shared>,
    /// Only this worker's thread locks it.
    shapes: Mutex<ShapeCache<Plans>>,
    spill: Arc<Spill>,
}

/// Whether sessions of a worker are to go on at another one.
#[derive(Default)]
pub struct Spill {
    to: AtomicUsize,
    /// How many.
    left: AtomicUsize,
}

/// The process's.
pub struct Shared {
    pub control: Arc<Control>,
    pub pools: Pools,
    pub registry: Arc<Registry>,
    pub figures: Figures,
    /// Turns `true` when nobody is let in any more.
    pub closing: watch::Receiver<bool>,
    pub(super) interner: Interner,
    /// Of answers; nothing where none is kept.
    cache: ArcSwapOption<Cache>,
    retries: Budget,
    /// Of sessions that are tied to a server connection.
    pub(super) told: Told,
}

/// See [`Shared::learn`].
#[derive(Clone)]
pub struct Learned {
    pub reported: Vec<(String, String)>,
    pub search_path: Arc<[String]>,
    /// Of transactions that say nothing of it.
    pub isolation: Isolation,
    /// What the server remarked, as NoticeResponse frames.
    pub remarks: Bytes,
    /// Holds while the topology is this one and the pool hears nothing new.
    epoch: u64,
    pool: Weak<Pool>,
    heard: Reported,
}

/// The pools that a session has used: it need not look them up again.
#[derive(Default)]
pub(super) struct KnownPools {
    epoch: u64,
    pools: Vec<(ServerId, Arc<Pool>)>,
}

/// For whom a connection is wanted.
pub(super) struct Borrower<'a> {
    pub snapshot: &'a Snapshot,
    pub user: &'a User,
    pub worker: usize,
    pub figures: &'a DatabaseFigures,
    /// Now, or a moment ago.
    pub begun: Instant,
    /// The server that has just failed it: any other is better.
    pub without: Option<ServerId>,
    /// The client, where it may ask for numbers which it drew: where it wrote last is better then.
    pub writer: Option<i32>,
    /// It has drawn some.
    pub counts: bool,
    /// It asks for them now.
    pub recalls: bool,
}

/// A connection that was lent, and where it leads.
pub(super) struct Borrowed {
    pub connection: Box<Connection>,
    pub pool: Arc<Pool>,
    pub choice: Choice,
    pub in_flight: InFlight,
}

impl Station {
    pub fn new(worker: usize, shared: Arc<Shared>, spill: Arc<Spill>) -> Self {
        Self { worker, shared, shapes: Mutex::new(ShapeCache::new(SHAPE_BYTES)), spill }
    }

    /// The worker at which a session of this one is to go on.
    pub(super) fn elsewhere(&self) -> Option<usize> {
        self.spill.take()
    }

    pub(super) fn resolve(&self, text: &str) -> (Arc<Entry<Plans>>, smallvec::SmallVec<[LiteralSpan; 8]>) {
        let mut shapes = self.shapes();
        let (entry, literals) = shapes.resolve(text);
        (entry, literals.into())
    }

    pub(super) fn analyse_for_long(&self, text: &str) -> (Arc<Analysis>, Box<[LiteralSpan]>) {
        let mut shapes = self.shapes();
        let (entry, literals) = shapes.resolve(text);
        (Arc::clone(&entry.analysis), literals.into())
    }

    /// What this worker counts of the snapshot's database.
    pub(super) fn figures(&self, snapshot: &Snapshot) -> Arc<DatabaseFigures> {
        self.shared.figures.of(self.worker, &snapshot.name, snapshot.database.shards.len())
    }

    fn shapes(&self) -> MutexGuard<'_, ShapeCache<Plans>> {
        self.shapes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spill {
    /// A worker's number, and how many sessions are to go there.
    pub fn set(&self, spill: Option<(usize, usize)>) {
        let (to, left) = spill.unwrap_or_default();
        self.to.store(to, Ordering::Relaxed);
        self.left.store(left, Ordering::Relaxed);
    }

    /// Called on the worker's own thread, as [`Spill::set`] is.
    fn take(&self) -> Option<usize> {
        let left = self.left.load(Ordering::Relaxed).checked_sub(1)?;
        self.left.store(left, Ordering::Relaxed);
        Some(self.to.load(Ordering::Relaxed))
    }
}

impl Shared {
    pub fn new(control: Arc<Control>, closing: watch::Receiver<bool>) -> Self {
        let limits = control.topology().process.cache;
        let cache = limits.map(|limits| Cache::new((&limits).into()));
        Self {
            cache: ArcSwapOption::new(cache),
            control,
            pools: Pools::default(),
            registry: Arc::default(),
            figures: Figures::default(),
            closing,
            interner: Interner::default(),
            retries: Budget::default(),
            told: Told::default(),
        }
    }

    /// Follows a new topology, before that is the control plane's: other limits begin with an empty cache.
    pub fn renew_cache(&self, topology: &Topology) {
        let known = self.cache.load_full();
        let next = match (&known, topology.process.cache) {
            (_, None) => None,
            (None, Some(limits)) => Some(Cache::new((&limits).into())),
            (Some(cache), Some(limits)) if *cache.limits() == (&limits).into() => return,
            (Some(cache), Some(limits)) => Some(cache.replaced((&limits).into())),
        };
        self.cache.store(next);
    }

    pub fn cache(&self) -> Option<Arc<Cache>> {
        self.cache.load_full()
    }

    /// A database that is to be logged in to may have to be looked for.
    pub async fn find(&self, database: &str) -> Result<(), Error> {
        match self.control.find(database).await? {
            true => Ok(()),
            false => Err(self.unknown(database)),
        }
    }

    /// Closes what leads to a database that was found, unless it is in use.
    pub(super) fn release(&self, database: &str) {
        self.control.release(database);
        self.pools.retain(&self.control.topology());
    }

    fn unknown(&self, database: &str) -> Error {
        let error = Error::new(SqlState::UNKNOWN_DATABASE, format!("database \"{database}\" does not exist"));
        match self.control.topology().others() {
            Some(_) => error,
            None => error
                .with_detail("pgweir's configuration does not name it.")
                .with_hint("Add it to [[databases]], or one by the name \"*\"."),
        }
    }

    /// Topology, database and catalog as they are now.
    pub fn snapshot(&self, database: &str) -> Result<Snapshot, Error> {
        let epoch = self.control.epoch();
        let Cluster { topology, fleet } = self.control.cluster();
        let known = topology.database(database).cloned().ok_or_else(|| self.unknown(database))?;
        let catalog = self.control.catalog(database).map(|cell| cell.current()).unwrap_or_default();
        let (cache, spaces) = (self.cache(), self.control.spaces_of(database));
        Ok(Snapshot { epoch, topology, fleet, database: known, catalog, cache, spaces, name: Arc::from(database) })
    }

    /// Brings a snapshot up to date. `true`: something had changed.
    pub(super) fn refresh(&self, snapshot: &mut Snapshot) -> Result<bool, Error> {
        let outdated = snapshot.epoch != self.control.epoch();
        if outdated {
            let name = Arc::clone(&snapshot.name);
            *snapshot = Snapshot { name, ..self.snapshot(&snapshot.name)? };
        }
        Ok(outdated)
    }

    /// A connection to the server that serves `need` best, if nothing need be waited for.
    pub(super) fn lend_at_once(
        &self,
        borrower: &Borrower<'_>,
        need: &Need<'_>,
        known: &mut KnownPools,
    ) -> Option<Borrowed> {
        let Borrower { snapshot, user, worker, begun, without, writer, recalls, counts, .. } = *borrower;
        if without.is_some() {
            return None;
        }
        let choice = snapshot.fleet.choose(need, begun, &[]).ok()?;
        let pool = known.get(choice.server, &snapshot.topology, |server| self.pool(server, user, snapshot));
        let written = writer.and_then(|writer| pool.lend_of(writer, (recalls, counts), worker, begun));
        let connection = match written {
            Some(connection) => connection,
            None => pool.lend_at_once(worker, begun)?,
        };
        let pool = Arc::clone(pool);
        Some(Borrowed { connection, pool, choice, in_flight: snapshot.fleet.begin(&choice, begun) })
    }

    fn pool(&self, server: ServerId, user: &User, snapshot: &Snapshot) -> Arc<Pool> {
        let topology = &snapshot.topology;
        self.pools.pool(topology.server(server), user, &topology.process)
    }

    /// A connection to the server that serves `need` best.
    pub(super) async fn lend(
        &self,
        borrower: &Borrower<'_>,
        need: &Need<'_>,
        known: &mut KnownPools,
    ) -> Result<Borrowed, Error> {
        let Borrower { snapshot, user, worker, figures, begun, mut without, .. } = *borrower;
        let Snapshot { topology, fleet, .. } = snapshot;
        let mut tried = Vec::from_iter(without);
        let mut failed = None;
        loop {
            let now = if tried.is_empty() { begun } else { Instant::now() };
            let choice = match choose(fleet, need, &tried, now).await {
                // There is no other.
                Err(_) if tried.len() == 1 && without.take().is_some() => {
                    tried.clear();
                    continue;
                }
                // Why the last one could not be reached tells more than that nobody is left.
                Err(error) => return Err(failed.unwrap_or(error)),
                Ok(choice) => choice,
            };
            let server = choice.server;
            let in_flight = fleet.begin(&choice, now);
            let pool = Arc::clone(known.get(server, topology, |server| self.pool(server, user, snapshot)));
            match pool.lend(worker).await {
                Ok(connection) => return Ok(Borrowed { connection, pool, choice, in_flight }),
                Err(error) if error.sqlstate == SqlState::UNAVAILABLE => {
                    fleet.suspect(topology.server(server));
                    tried.push(server);
                    // A read finds another server; a write has but one.
                    if need.access == Access::Primary || tried.len() > MOST_TRIED {
                        return Err(error);
                    }
                    figures.retried();
                    failed = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What a client of this user is told at log-in, and where its unqualified names are looked for, once the server has
    /// taken its settings.
    pub async fn learn(
        &self,
        snapshot: &Snapshot,
        user: &User,
        settings: &Settings,
        worker: usize,
    ) -> Result<Learned, Error> {
        let need = Need {
            database: &snapshot.database,
            shard: snapshot.database.home,
            access: Access::Primary,
            consistency: Consistency::Eventual,
            wrote: None,
            read: None,
            last: None,
        };
        let mut known = KnownPools::default();
        let figures = &*self.figures.of(worker, &snapshot.name, snapshot.database.shards.len());
        let borrower = Borrower {
            snapshot,
            user,
            worker,
            figures,
            begun: Instant::now(),
            without: None,
            writer: None,
            counts: false,
            recalls: false,
        };
        let borrowed = match self.lend(&borrower, &need, &mut known).await {
            Err(error) if error.sqlstate == SqlState::UNAVAILABLE => {
                // A replica knows the same; the primary may be away.
                let any = Need { access: Access::Read, ..need };
                self.lend(&borrower, &any, &mut known).await.map_err(|_| error)?
            }
            other => other?,
        };
        let Borrowed { mut connection, pool, in_flight, .. } = borrowed;
        let heard = pool.reported();
        let mut told: BTreeMap<String, String> = connection.reported.iter().cloned().collect();
        let mut report = |name: &str, value: &str| {
            told.insert(name.to_owned(), value.to_owned());
        };
        // The connection's own settings first: what it reported at its log-in is then what holds.
        connection.apply(&Settings::default(), &mut report).await?.map_err(refused)?;
        let mut remarks = BytesMut::from(&*connection.remarks);
        connection.apply_telling(settings, &mut report, &mut remarks).await?.map_err(refused)?;
        let remarks = remarks.freeze();
        let path = connection.ask("SHOW search_path").await?.unwrap_or_default();
        let isolation = connection.ask("SHOW default_transaction_isolation").await?;
        // Of one that is not known, the strictest: it promises most.
        let isolation = isolation.and_then(|level| Isolation::named(&level)).unwrap_or(Isolation::Serializable);
        let now = Instant::now();
        in_flight.finish(now);
        pool.take_back(connection, now);
        let pool = Arc::downgrade(&pool);
        // Whichever server was asked: drivers look here for the one that takes writes.
        if let Some(standby) = told.get_mut("in_hot_standby") {
            "off".clone_into(standby);
        }
        let name = user.server_user.as_deref().unwrap_or(&user.name);
        let search_path = super::snapshot::search_path(&path, name);
        let epoch = snapshot.topology.epoch;
        Ok(Learned { reported: told.into_iter().collect(), search_path, isolation, remarks, epoch, pool, heard })
    }

    /// Within the budget of second attempts.
    pub(super) fn may_try_again(&self) -> bool {
        self.retries.spend(self.control.fleet().states().iter().map(|state| state.served()).sum())
    }

    /// Before anything of such a write is done.
    pub(super) fn check_two_phase(&self, database: &str) -> Result<(), Error> {
        self.control.check_write(database)
    }

    /// Connections that began with other settings than sessions of their role begin with now are lent no more. `known`: what
    /// was found before, of each database.
    pub fn follow_defaults(&self, known: &mut HashMap<String, Defaults>) {
        for name in self.control.topology().databases.keys() {
            let Some(now) = self.control.catalog(name).and_then(|cell| cell.defaults()) else { continue };
            let Some(before) = known.insert(name.clone(), Arc::clone(&now)).filter(|before| *before != now) else {
                continue;
            };
            let lines = |defaults: &Defaults| defaults.lines().map(str::to_owned).collect::<HashSet<_>>();
            let changed: Vec<_> = lines(&before).symmetric_difference(&lines(&now)).cloned().collect();
            let concerns =
                |user: &str| changed.iter().any(|line| line.split_once(' ').is_none_or(|(_, role)| role == user));
            self.pools.renew(|pool| pool.server.database == *name && concerns(&pool.login.user));
        }
    }

    /// DDL has run: nobody's next statement is to go by what was there before.
    pub(super) async fn catalog_changed(&self, database: &Database, is_sure: bool) {
        if is_sure {
            self.pools.doubt_roles();
        }
        self.control.catalog_changed(database, is_sure).await;
    }
}

impl Learned {
    pub fn holds(&self, snapshot: &Snapshot) -> bool {
        let hears_the_same = |pool: Arc<Pool>| Arc::ptr_eq(&pool.reported(), &self.heard);
        self.epoch == snapshot.topology.epoch && self.pool.upgrade().is_some_and(hears_the_same)
    }
}

impl KnownPools {
    fn get(&mut self, server: ServerId, topology: &Topology, find: impl FnOnce(ServerId) -> Arc<Pool>) -> &Arc<Pool> {
        if self.epoch != topology.epoch {
            self.pools.clear();
            self.epoch = topology.epoch;
        }
        let position = self.pools.iter().position(|(known, _)| *known == server).unwrap_or_else(|| {
            self.pools.push((server, find(server)));
            self.pools.len() - 1
        });
        &self.pools[position].1
    }
}

/// The server that serves `need` best. Where a replica may catch up in a moment, it is waited for.
async fn choose(fleet: &Fleet, need: &Need<'_>, tried: &[ServerId], mut now: Instant) -> Result<Choice, Error> {
    let deadline = now + need.database.causal_wait;
    let shard = fleet.shard(&need.database.name, need.shard);
    loop {
        let moved = shard.map(|shard| shard.moved.notified());
        match fleet.choose(need, now, tried) {
            Ok(choice) => return Ok(choice),
            Err(Unfit::Nobody(error)) => return Err(error),
            Err(Unfit::Wait) => {}
        }
        now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        let waited = match moved {
            Some(moved) if !left.is_zero() => timeout(left, moved).await.is_ok(),
            _ => false,
        };
        if !waited {
            let primary = Need { access: Access::Primary, ..*need };
            return match fleet.choose(&primary, Instant::now(), tried) {
                Ok(choice) => Ok(choice),
                Err(Unfit::Nobody(error)) => Err(error),
                Err(Unfit::Wait) => unreachable!("nobody waits for a primary"),
            };
        }
    }
}

/// A server's refusal of a startup parameter.
fn refused(body: Bytes) -> Error {
    let message = error_field(&body, b'M').unwrap_or("the server refused a startup parameter");
    Error::new(SqlState::INVALID_VALUE, message)
}

/// Shapes and their analyses that a worker keeps, about.
const SHAPE_BYTES: usize = 64 << 20;
const MOST_TRIED: usize = 3;
