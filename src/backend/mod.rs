//! Connections to servers: opened, logged in, pooled, lent, taken back.
//!
//! Knows one server at a time and the replies it owes; nothing of clients, statements or shards.

mod anew;
mod connection;
mod login;
mod numbering;
mod owed;
mod pool;
pub mod settings;
mod tls;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use anew::Anew;
pub use connection::{
    CancelTarget, Connection, PREFIX, Reported, Settled, StatementName, Writer, describe_failure, is_fatal,
    is_last_word, skip, statement_name,
};
pub use login::{Address, Learnt, Login, Proof, read_parameter};
pub use numbering::Looks;
pub use owed::{Cause, Event, Fault, Owed, Payee, Verdict};
pub use pool::{Limits, Pool, Seen, Usage};
pub use tls::check_authorities;
pub(crate) use tls::tls_to_server;

use tokio::sync::Semaphore;

use crate::error::Error;
use crate::topology::{Credential, Process, Secret, Server, Topology, User};

/// All pools of the process, made when first asked for.
pub struct Pools {
    all: Mutex<All>,
    /// See [`Pools::ask`].
    questions: Semaphore,
    roles: Arc<AtomicU64>,
}

#[derive(Default)]
struct All {
    pools: HashMap<Key, Arc<Pool>>,
    /// By database and user.
    learnt: HashMap<(String, String), Learnt>,
    /// Databases that lend nothing.
    paused: BTreeSet<String>,
}

/// Which connections are alike.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    database: String,
    host: String,
    port: u16,
    database_name: String,
    user: String,
}

impl Default for Pools {
    fn default() -> Self {
        Self { all: Mutex::default(), questions: Semaphore::new(QUESTIONS), roles: Arc::default() }
    }
}

impl Pools {
    pub fn pool(&self, server: &Arc<Server>, user: &User, process: &Process) -> Arc<Pool> {
        let key = Key::new(server, user);
        let All { pools, learnt, paused } = &mut *self.lock();
        if let Some(pool) = pools.get(&key).filter(|pool| fits(pool, server, user, process)) {
            return Arc::clone(pool);
        }
        let login = login_by(learnt, server, user);
        let limits = limits_of(server, user, process);
        let pool = Pool::new(Arc::clone(server), &user.name, login, limits, &self.roles);
        if paused.contains(&server.database) {
            pool.pause();
        }
        if let Some(outdated) = pools.insert(key, Arc::clone(&pool)) {
            outdated.close();
        }
        pool
    }

    /// A connection of no pool, with these parameters in its startup packet.
    pub async fn open_apart(
        &self,
        server: &Arc<Server>,
        user: &User,
        process: &Process,
        parameters: &[(String, String)],
    ) -> Result<Connection, Error> {
        let login = login_by(&mut self.lock().learnt, server, user);
        let (connect_timeout, keepalive) = (process.connect_timeout, process.tcp_keepalive);
        Connection::open(server, &login, connection::OpeningTerms { parameters, connect_timeout, keepalive, worker: 0 })
            .await
    }

    /// What a client has shown at its log-in: connections that are opened for this user from now on log in by it.
    pub fn learn(&self, database: &str, user: &str, proof: Proof) {
        let learnt = Arc::clone(self.lock().learnt.entry((database.to_owned(), user.to_owned())).or_default());
        *learnt.lock().unwrap_or_else(PoisonError::into_inner) = Some(proof);
    }

    /// Whether a server takes a password from this user of ours. It is asked anew each time: what it says may change.
    pub async fn ask(&self, server: &Server, user: &User, password: Secret, process: &Process) -> Result<bool, Error> {
        let name = user.server_user.as_ref().unwrap_or(&user.name);
        let asking = async {
            // Each question costs the server a process.
            let _turn = self.questions.acquire().await;
            login::takes(server, name, password, process.tcp_keepalive).await
        };
        let answer = tokio::time::timeout(process.connect_timeout, asking).await;
        answer.unwrap_or_else(|_| Err(login::refused(server, "connecting took too long")))
    }

    /// Roles may have been dropped and made anew: what connections have set by name is set again.
    pub fn doubt_roles(&self) {
        self.roles.fetch_add(1, Ordering::AcqRel);
    }

    /// Roles are gone, or sessions begin with other settings: connections that are there already, of those pools whom this
    /// concerns, serve no session more.
    pub fn renew(&self, concerns: impl Fn(&Pool) -> bool) {
        self.all().iter().filter(|pool| concerns(pool)).for_each(|pool| pool.renew());
    }

    pub fn all(&self) -> Vec<Arc<Pool>> {
        self.lock().pools.values().cloned().collect()
    }

    /// No connection to a server of this database is lent any more. Gives the pools: see [`Pool::emptied`].
    pub fn pause(&self, database: &str) -> Vec<Arc<Pool>> {
        let mut all = self.lock();
        all.paused.insert(database.to_owned());
        let pools = all.of(database);
        pools.iter().for_each(|pool| pool.pause());
        pools
    }

    /// Ends a pause. `false`: there was none.
    pub fn resume(&self, database: &str) -> bool {
        let mut all = self.lock();
        let was_paused = all.paused.remove(database);
        all.of(database).iter().for_each(Pool::resume);
        was_paused
    }

    pub fn paused(&self) -> BTreeSet<String> {
        self.lock().paused.clone()
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes pools of servers and users that a new topology does not have, or has in another way.
    pub fn retain(&self, topology: &Topology) {
        self.lock().pools.retain(|key, pool| {
            let servers = topology.servers.iter().filter(|server| key.is_of(server));
            let stays = topology
                .user(&key.user, &key.database)
                .is_some_and(|user| servers.clone().any(|server| fits(pool, server, &user, &topology.process)));
            if !stays {
                pool.close();
            }
            stays
        });
    }
}

impl All {
    fn of(&self, database: &str) -> Vec<Arc<Pool>> {
        self.pools.values().filter(|pool| pool.server.database == database).cloned().collect()
    }
}

impl Key {
    fn new(server: &Server, user: &User) -> Self {
        Self {
            database: server.database.clone(),
            host: server.host.clone(),
            port: server.port,
            database_name: server.database_name.clone(),
            user: user.name.clone(),
        }
    }

    fn is_of(&self, server: &Server) -> bool {
        (&self.database, &self.host, self.port, &self.database_name)
            == (&server.database, &server.host, server.port, &server.database_name)
    }
}

/// Whether a pool is as this server and user want it.
fn fits(pool: &Pool, server: &Server, user: &User, process: &Process) -> bool {
    let login = login_of(user);
    pool.login.user == login.user
        && pool.login.passwords == login.passwords
        && *pool.limits() == limits_of(server, user, process)
        && pool.server.tls == server.tls
        && pool.server.tls_ca == server.tls_ca
        && pool.server.tls_negotiation == server.tls_negotiation
}

fn login_by(learnt: &mut HashMap<(String, String), Learnt>, server: &Server, user: &User) -> Login {
    let learnt = learnt.entry((server.database.clone(), user.name.clone())).or_default();
    Login { learnt: Arc::clone(learnt), ..login_of(user) }
}

/// Who a user of the proxy is on the servers.
pub(crate) fn login_of(user: &User) -> Login {
    let passwords = match (&user.server_password, &user.password) {
        (Some(password), _) => vec![password.clone()],
        (None, Credential::Passwords(passwords)) => passwords.clone(),
        (None, _) => Vec::new(),
    };
    Login { user: user.server_user.clone().unwrap_or_else(|| user.name.clone()), passwords, learnt: Learnt::default() }
}

fn limits_of(server: &Server, user: &User, process: &Process) -> Limits {
    let size = user.pool_size_at(server, process);
    Limits {
        size,
        min_size: user.min_pool_size.min(size),
        lifetime: process.server_lifetime,
        idle_timeout: process.server_idle_timeout,
        wait_timeout: process.query_wait_timeout,
        connect_timeout: process.connect_timeout,
        keepalive: process.tcp_keepalive,
    }
}

/// Servers are asked about so many passwords at once.
const QUESTIONS: usize = 16;
