//! From the startup packet to ReadyForQuery: which database, which user, the proof, the greeting.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;

use super::demand::Demanded;
use super::greet::Opening;
use super::proof::{Claim, Proofs, Shown, kept, wrong};
use super::{Frontend, Served};
use crate::backend::Proof;
use crate::backend::settings::Settings;
use crate::error::{Error, SqlState};
use crate::session::settings::{check_readable, from_startup};
use crate::session::{Client, Learned, Registered, Session, Snapshot, Station, Welcome};
use crate::topology::{ADMIN, Credential, Topology, User, Visitor};
use crate::wire::message::{put_error, put_key_data, put_negotiate, put_parameter_status, put_ready};
use crate::wire::{AuthenticationRequest, Channel, Severity, Status};

/// What log-ins have found out, for the next ones.
#[derive(Default)]
pub(super) struct Logins {
    /// By database, user and startup settings.
    learned: Mutex<HashMap<(String, String, Settings), Learned>>,
    pub proofs: Arc<Proofs>,
}

impl Frontend {
    /// Authenticates a client and greets it.
    pub(super) async fn log_in(
        &self,
        mut channel: Channel,
        opening: Opening,
        station: &Arc<Station>,
    ) -> std::io::Result<Option<(Channel, Served)>> {
        match self.enter(&mut channel, &opening, station).await {
            Ok(served) => Ok(Some((channel, served))),
            Err(Refusal::Gone) => Ok(None),
            Err(Refusal::Lost(cause)) => Err(cause),
            Err(Refusal::Error(error)) => {
                self.log_refusal(&channel, &error);
                put_error(&mut channel.output, Severity::Fatal, &error);
                channel.flush().await.map(|()| None)
            }
        }
    }

    fn log_refusal(&self, channel: &Channel, error: &Error) {
        if self.shared.control.topology().process.log_connections {
            let address = channel.peer().map(tracing::field::display);
            tracing::info!(address, sqlstate = error.sqlstate.0, why = error.message, "log-in refused");
        }
    }

    async fn enter(&self, channel: &mut Channel, opening: &Opening, station: &Arc<Station>) -> Result<Served, Refusal> {
        let topology = self.shared.control.topology();
        let of =
            |name: &str| opening.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let Some(name) = of("user").filter(|name| !name.is_empty()) else {
            return Err(Error::new(SqlState::INVALID_AUTHORIZATION, "no user name in the startup packet").into());
        };
        let database = of("database").filter(|database| !database.is_empty()).unwrap_or(name);
        // Who only opens connections takes no place of those who are through.
        if self.shared.registry.count() >= topology.process.max_client_conn {
            let error = Error::new(SqlState::SATURATED, "too many clients");
            return Err(error.with_hint("Raise max_client_conn or retry later.").into());
        }
        negotiate(channel, opening);
        let visitor = visitor(channel, (name, database))?;
        let user = topology.user(name, database);
        let demand = Demanded::of(&topology, &visitor, user.as_deref())?;
        self.logins.proofs.follow(&topology);
        demand.check_certificate(channel, name)?;
        let asked = match demand.is_of_password() {
            true => self.ask(&topology, (name, database), user.as_ref()).await?,
            false => None,
        };
        let is_asked = |user: &&User| demand.is_of_password() && user.password == Credential::Query;
        let known = asked.as_ref().or(user.as_deref().filter(|user| !is_asked(user)));
        let claim = Claim { name, end_point: opening.end_point.as_deref(), way: demand.way };
        let shown = self.logins.proofs.check(channel, claim, known).await?;
        let Some(user) = user else { return Err(wrong(name).into()) };
        if database != ADMIN {
            self.shared.find(database).await?;
        }
        self.learn_proof(&topology, (&user, database), shown).await?;
        if database == ADMIN {
            let registered = self.register(channel, opening, (name, ADMIN), None);
            greet_admin(&mut channel.output, &registered.client);
            return Ok(Served::Console(user, registered));
        }
        Ok(self.begin(channel, opening, user, (database, station)).await?)
    }

    /// A user of `auth = "query"`, with what the servers keep of the password. Where there are such users, it is asked
    /// for others, too, whom nobody knows: the time of an answer must not tell them apart.
    async fn ask(
        &self,
        topology: &Topology,
        (name, database): (&str, &str),
        user: Option<&Arc<User>>,
    ) -> Result<Option<User>, Error> {
        let is_asked = |user: &User| user.password == Credential::Query;
        let may_be = match user {
            Some(user) => is_asked(user),
            None => topology.users.iter().any(|user| is_asked(user)),
        };
        if !may_be {
            return Ok(None);
        }
        let place = asked_place(topology, database, user);
        if topology.database(place).is_none() {
            return Ok(None);
        }
        let kept = self.shared.control.password_kept(place, name).await?.and_then(kept);
        Ok(user.zip(kept).map(|(user, password)| User { password, ..User::clone(user) }))
    }

    /// Keeps what server connections can be opened by; what is not proved yet is, by that, or the log-in ends here.
    async fn learn_proof(
        &self,
        topology: &Topology,
        (user, database): (&Arc<User>, &str),
        shown: Shown,
    ) -> Result<(), Error> {
        let proof = match shown {
            Shown::Unproved(password) => {
                let place = asked_place(topology, database, Some(user));
                let server = self.shared.control.home(place).ok_or_else(|| wrong(&user.name))?;
                let asked = self.shared.pools.ask(&server, user, password.clone(), &topology.process).await;
                match asked.inspect_err(|cause| tracing::warn!(%cause, user = user.name, "passing a password on")) {
                    Ok(true) => Proof::Password(password),
                    Ok(false) => return Err(wrong(&user.name)),
                    Err(cause) => return Err(cause),
                }
            }
            Shown::Proof(proof) if matches!(user.password, Credential::Query | Credential::ScramVerifier(_)) => proof,
            // The passwords themselves are known, or none is needed.
            Shown::Proof(_) | Shown::Nothing => return Ok(()),
        };
        self.shared.pools.learn(database, &user.name, proof);
        Ok(())
    }

    async fn begin(
        &self,
        channel: &mut Channel,
        opening: &Opening,
        user: Arc<User>,
        (database, station): (&str, &Arc<Station>),
    ) -> Result<Served, Error> {
        let is_on = |value: &str| !matches!(value, "false" | "off" | "0" | "no");
        if opening.parameters.iter().any(|(name, value)| name == "replication" && is_on(value)) {
            return self.begin_replication(channel, opening, &user, database).await;
        }
        let settings = from_startup(&opening.parameters)?;
        let attendance = match self.shared.control.catalog(database) {
            Some(cell) => Some(cell.attend().await),
            None => None,
        };
        let snapshot = self.shared.snapshot(database)?;
        if snapshot.database.is_sharded() {
            settings.iter().try_for_each(|(name, value)| check_readable(name, value.trim_matches('\'')))?;
        }
        let (settings, learned) = self.learn(&snapshot, &user, settings, station).await?;
        let registered = self.register(channel, opening, (&user.name, database), None);
        AuthenticationOk::put(&mut channel.output, &learned.reported);
        channel.output.extend_from_slice(&learned.remarks);
        put_key_data(&mut channel.output, registered.client.key);
        put_ready(&mut channel.output, Status::Idle);
        let Learned { search_path, reported, isolation, .. } = learned;
        let welcome = Welcome { user, settings, search_path, reported, isolation, attendance };
        let session = Session::new(Arc::clone(station), Arc::clone(&registered.client), snapshot, welcome);
        Ok(Served::Session(Box::new(session), registered))
    }

    /// Its connection to the primary is no pool's, and nothing on it is looked at.
    async fn begin_replication(
        &self,
        channel: &mut Channel,
        opening: &Opening,
        user: &User,
        database: &str,
    ) -> Result<Served, Error> {
        let topology = self.shared.control.topology();
        if topology.database(database).is_some_and(|known| known.is_sharded()) {
            let what = "replication of a sharded database";
            return Err(Error::unsupported(what, "Connect to the server of each shard."));
        }
        let unavailable = || Error::new(SqlState::UNAVAILABLE, format!("database \"{database}\" has no primary"));
        let server = self.shared.control.home(database).ok_or_else(unavailable)?;
        let is_ours = |name: &str| matches!(name, "user" | "database") || name.starts_with("_pq_.");
        let parameters: Vec<_> = opening.parameters.iter().filter(|(name, _)| !is_ours(name)).cloned().collect();
        let connection = self.shared.pools.open_apart(&server, user, &topology.process, &parameters).await?;
        // Its server process is its own for good: `pg_stat_replication` has it by that number.
        let process = Some(connection.target().process()).filter(|process| *process > 0);
        let registered = self.register(channel, opening, (&user.name, database), process);
        AuthenticationOk::put(&mut channel.output, &connection.reported);
        channel.output.extend_from_slice(&connection.remarks);
        put_key_data(&mut channel.output, registered.client.key);
        put_ready(&mut channel.output, Status::Idle);
        Ok(Served::Replication(Box::new(connection), registered))
    }

    fn register(
        &self,
        channel: &Channel,
        opening: &Opening,
        (user, database): (&str, &str),
        process: Option<i32>,
    ) -> Registered {
        let make = |key| Client::new(key, user, database).at(channel);
        let registered = self.shared.registry.register((opening.minor, process), make);
        let application = opening.parameters.iter().find(|(name, _)| name == "application_name");
        application.iter().for_each(|(_, name)| registered.client.call_application(name));
        registered
    }

    /// Equal settings become the same ones, so that connections are seen at a glance to have them.
    async fn learn(
        &self,
        snapshot: &Snapshot,
        user: &User,
        settings: Settings,
        station: &Station,
    ) -> Result<(Settings, Learned), Error> {
        let key = (snapshot.name.to_string(), user.name.clone(), settings);
        let known = || self.logins.learned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(((.., settings), learned)) = known().get_key_value(&key)
            && learned.holds(snapshot)
        {
            return Ok((Arc::clone(settings), learned.clone()));
        }
        let learned = self.shared.learn(snapshot, user, &key.2, station.worker).await?;
        let mut all = known();
        if all.len() >= MOST_LEARNED {
            all.clear();
        }
        let settings = Arc::clone(&key.2);
        all.insert(key, learned.clone());
        Ok((settings, learned))
    }
}

/// Why a client does not get in.
pub(super) enum Refusal {
    Error(Error),
    Gone,
    Lost(std::io::Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<std::io::Error> for Refusal {
    fn from(cause: std::io::Error) -> Self {
        Self::Lost(cause)
    }
}

/// AuthenticationOk and what a session is told after it.
struct AuthenticationOk;

impl AuthenticationOk {
    fn put(out: &mut BytesMut, reported: &[(String, String)]) {
        AuthenticationRequest::Ok.put(out);
        reported.iter().for_each(|(name, value)| put_parameter_status(out, name, value));
    }
}

/// The console is no database of a server: its users are those of their first one.
fn asked_place<'t>(topology: &'t Topology, database: &'t str, user: Option<&Arc<User>>) -> &'t str {
    let mut known = topology.servers.iter().map(|server| server.database.as_str());
    let first = || known.find(|&known| user.is_none_or(|user| user.may_use(known)));
    let others = || topology.others().map(|others| &*others.name);
    let is_there = |database: &&str| topology.database(database).is_some();
    Some(database).filter(is_there).or_else(others).or_else(first).unwrap_or(database)
}

fn visitor<'a>(channel: &Channel, (user, database): (&'a str, &'a str)) -> Result<Visitor<'a>, Refusal> {
    let address = match channel.is_local() {
        true => None,
        // What came to an IPv6 socket from an IPv4 address came from an IPv4 address.
        false => Some(channel.peer().ok_or(Refusal::Gone)?.ip().to_canonical()),
    };
    Ok(Visitor { database, user, address, is_encrypted: channel.is_encrypted() })
}

fn greet_admin(out: &mut BytesMut, client: &Client) {
    let told = [
        ("server_version", "15.0 (pgweir)"),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO"),
        ("TimeZone", "GMT"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
    ];
    AuthenticationOk::put(out, &told.map(|(name, value)| (name.to_owned(), value.to_owned())));
    put_key_data(out, client.key);
    put_ready(out, Status::Idle);
}

/// Newer minor versions and unknown options of the protocol are answered by what is served.
fn negotiate(channel: &mut Channel, opening: &Opening) {
    let unknown = opening.parameters.iter().filter(|(name, _)| name.starts_with("_pq_."));
    let unknown: Vec<String> = unknown.map(|(name, _)| name.clone()).collect();
    if opening.minor > NEWEST_MINOR || !unknown.is_empty() {
        put_negotiate(&mut channel.output, opening.minor.min(NEWEST_MINOR), &unknown);
    }
}

/// Of protocol 3: that of PostgreSQL 18.
const NEWEST_MINOR: u32 = 2;
/// Different startup settings that are remembered.
const MOST_LEARNED: usize = 10_000;
