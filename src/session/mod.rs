//! One client from its log-in to its end: transaction, settings, prepared statements, what it may read where.
//!
//! Knows what the client sent and where it goes; nothing of how a client is accepted or authenticated. Names down, rows
//! up: plans go to `executor`, replies to the client's output.

mod again;
mod block;
mod by_name;
mod cached;
mod carried;
mod carry;
mod consistent;
mod control;
mod copying;
mod cursors;
mod deadlock;
mod decide;
mod describing;
mod digest;
mod ears;
mod effects;
mod extended;
mod late;
mod lending;
mod lent;
mod listed;
mod local;
mod made;
mod meter;
mod named;
mod names;
mod numbering;
mod numbers;
mod pipeline;
mod planned;
mod portals;
mod position;
mod prepared;
mod processes;
mod recall;
mod registry;
mod replan;
mod replicating;
mod run;
mod script;
pub mod settings;
mod settling;
mod several;
mod signals;
mod snapshot;
mod station;
mod texts;
mod ties;
mod transaction;
mod transfer;
mod unit;
mod vacating;
mod views;
mod wishes;
mod writes;

use std::sync::Arc;

use bytes::BytesMut;

pub use deadlock::watch as watch_deadlocks;
pub use registry::{Client, Registered, Registry, State};
pub use replicating::replicate;
pub use run::End;
pub use snapshot::Snapshot;
pub use station::{Learned, Shared, Spill, Station};

use crate::backend::Writer;
use crate::backend::settings::Settings;
use crate::control::Attendance;
use crate::statement::{Analysis, Isolation, LiteralSpan, embeds_ascii};
use crate::topology::{PoolerMode, User};
use crate::wire::message::put_parameter_status;
use cached::{Filling, Prefix};
use ears::Ears;
use lent::Lent;
use meter::Meter;
use names::Names;
use position::Position;
use prepared::Prepared;
use settings::Tracked;
use station::KnownPools;
use transaction::{Reported, Transaction};
use wishes::Wishes;

pub struct Session {
    station: Arc<Station>,
    client: Arc<Client>,
    user: Arc<User>,
    snapshot: Snapshot,
    _attendance: Option<Attendance>,
    settings: Tracked,
    search_path: Arc<[String]>,
    idling: settings::IdleLimits,
    /// The settings that `search_path` and `variant` were read from.
    derived_from: Settings,
    variant: u64,
    /// While settings hold until the end of the transaction: a variant of its own.
    local_variant: u64,
    /// What the server's default is, where the session sets none.
    default_search_path: Arc<[String]>,
    reported: Reported,
    /// See [`crate::statement::standardized`].
    escapes: bool,
    /// What the client's letters are, whatever they look like.
    letters: Letters,
    /// What connections report that agrees with what the client was told.
    met: Vec<crate::backend::Reported>,
    /// ParameterStatus messages that the client has not been sent yet.
    news: BytesMut,
    names: Names,
    transaction: Transaction,
    /// Of the BEGIN, while no server has been asked.
    portal: Option<Box<local::Bound>>,
    /// Of statements on several shards, within the open block.
    portals: Option<Box<portals::Kept>>,
    pin: Option<Pin>,
    /// Why it lasts, as others are shown by [`Client::pinned`].
    pinned: Option<&'static str>,
    /// Whether something ties the session to the connection is to be asked between transactions.
    doubtful: bool,
    /// The unit that is served asks for numbers which the session drew.
    recalls: bool,
    /// So did one before, or it counted a sequence on: writes go where the last one went, if they can.
    counts: bool,
    /// It has asked before.
    asks: bool,
    last_write: Writer,
    /// By what has run since everybody was told.
    altered: Altered,
    /// By statements of that kind, see [`effects::Effect::Renews`].
    renews: bool,
    /// Of a session that listens to notifications.
    ears: Option<Box<Ears>>,
    /// The epoch of the topology that `user` is of.
    user_of: u64,
    wishes: Wishes,
    position: Position,
    known_pools: KnownPools,
    /// Of keys in the result cache.
    prefix: Prefix,
    /// What the text that is served names of prepared statements.
    by_name: Option<Box<by_name::ByName>>,
    /// Of a session for which numbers were drawn.
    recalled: Option<Box<recall::Recalled>>,
    /// What the unit that is served may give to the result cache.
    filling: Option<Box<Filling>>,
    /// Of transactions that say nothing of it: as the session has set it, else the server's default.
    isolation: Isolation,
    default_isolation: Isolation,
    meter: Meter,
    late: Vec<late::Late>,
    /// The unit at the front of the input is there for the second time.
    again: Option<again::Again>,
    /// So is the one being served.
    retrying: Option<again::Again>,
}

/// Whether catalogs are others than they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Altered {
    Not,
    /// By a statement that is not understood.
    Maybe,
    Surely,
}

/// A connection that stays with the session between transactions. It is in `Transaction::Open` while a block is.
struct Pin {
    lent: Lent,
}

/// What a log-in found out.
pub struct Welcome {
    pub user: Arc<User>,
    pub settings: Settings,
    pub search_path: Arc<[String]>,
    pub reported: Vec<(String, String)>,
    /// The server's default for transactions that say nothing of it.
    pub isolation: Isolation,
    /// `None`: the database has no catalog.
    pub attendance: Option<Attendance>,
}

impl Session {
    pub fn new(station: Arc<Station>, client: Arc<Client>, snapshot: Snapshot, welcome: Welcome) -> Self {
        let settings = Tracked::new(welcome.settings);
        let meter = Meter::new(station.figures(&snapshot));
        let user_of = snapshot.topology.epoch;
        let reported = |name: &str| welcome.reported.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
        let escapes = reported(STANDARD_STRINGS) == Some("off");
        let letters = reported("client_encoding").map_or(Letters::Readable, Letters::of);
        let client_number = client.key.process;
        let mut session = Self {
            escapes,
            letters,
            user_of,
            station,
            client,
            user: welcome.user,
            snapshot,
            _attendance: welcome.attendance,
            settings,
            search_path: Arc::clone(&welcome.search_path),
            idling: settings::IdleLimits::default(),
            derived_from: Settings::default(),
            variant: 0,
            local_variant: 0,
            met: Vec::new(),
            default_search_path: welcome.search_path,
            reported: Arc::new(welcome.reported.into_iter().collect()),
            news: BytesMut::new(),
            names: Names::default(),
            transaction: Transaction::Idle,
            portal: None,
            portals: None,
            pin: None,
            pinned: None,
            doubtful: false,
            altered: Altered::Not,
            renews: false,
            recalls: false,
            counts: false,
            asks: false,
            last_write: Writer { client: client_number, nth: 0 },
            ears: None,
            wishes: Wishes::default(),
            position: Position::default(),
            known_pools: KnownPools::default(),
            prefix: Prefix::default(),
            by_name: None,
            recalled: None,
            filling: None,
            isolation: welcome.isolation,
            default_isolation: welcome.isolation,
            meter,
            late: Vec::new(),
            again: None,
            retrying: None,
        };
        // It may have been made a moment ago, and not be on every replica.
        let found = session.snapshot.topology.found_at(&session.snapshot.name);
        found.into_iter().for_each(|at| session.position.saw(session.snapshot.database.home, at));
        session.derive();
        session
    }

    /// Goes on at another worker; on its thread.
    pub fn move_to(&mut self, station: Arc<Station>) {
        self.station = station;
        self.meter.figures = self.station.figures(&self.snapshot);
    }

    /// Notes a setting's new value. `true`: the client does not know yet.
    fn hear(&mut self, name: &str, value: &str) -> bool {
        // It is the server's business which kind of server it is; the client talks to all of them.
        if name == "in_hot_standby" || self.reported.get(name).is_some_and(|known| known == value) {
            return false;
        }
        self.met.clear();
        match name {
            "application_name" => self.client.call_application(value),
            STANDARD_STRINGS => self.escapes = value == "off",
            "client_encoding" => self.letters = Letters::of(value),
            _ => {}
        }
        Arc::make_mut(&mut self.reported).insert(name.to_owned(), value.to_owned());
        true
    }

    /// As [`Session::hear`], and tells the client with the next reply.
    fn hear_and_tell(&mut self, name: &str, value: &str) {
        if self.hear(name, value) {
            put_parameter_status(&mut self.news, name, value);
        }
    }

    /// What the client is to hear with the next reply.
    fn put_news(&mut self, out: &mut BytesMut) {
        if !self.news.is_empty() {
            out.extend_from_slice(&self.news.split());
        }
    }

    /// Tells the client where a server's own settings are others than it was told.
    fn meet(&mut self, reported: &crate::backend::Reported) {
        if self.met.iter().any(|known| Arc::ptr_eq(known, reported)) {
            return;
        }
        for (name, value) in reported.iter().filter(|(name, _)| !WHO_ONE_IS.contains(&name.as_str())) {
            if self.settings.value(&name.to_ascii_lowercase()).is_none() {
                self.hear_and_tell(name, value);
            }
        }
        self.met.truncate(MOST_MET);
        self.met.push(Arc::clone(reported));
    }

    fn pin_for(&mut self, reason: Option<&'static str>) {
        self.pinned = reason;
        self.client.pin(reason);
    }

    /// See [`settings::variant`].
    fn variant(&self) -> u64 {
        self.variant ^ self.local_variant
    }

    /// Reads from the settings, where they have changed, what the session itself needs of them.
    fn derive(&mut self) {
        if Arc::ptr_eq(&self.derived_from, self.settings.current()) {
            return;
        }
        self.derived_from = Arc::clone(self.settings.current());
        self.variant = settings::variant(&self.derived_from);
        let user = self.user.server_user.as_deref().unwrap_or(&self.user.name);
        let path = match self.settings.value("search_path") {
            None => Arc::clone(&self.default_search_path),
            Some(value) => snapshot::search_path(value, user),
        };
        if path != self.search_path {
            self.search_path = path;
        }
        self.idling = settings::IdleLimits::of(&self.derived_from);
        let isolation = self.settings.value("default_transaction_isolation").map(|level| level.trim_matches('\''));
        self.isolation = isolation.map_or(self.default_isolation, |level| {
            // Set by a way of writing that is not understood: the strictest.
            Isolation::named(level).unwrap_or(Isolation::Serializable)
        });
    }

    fn prepare_named(&self, text: &[u8], types: Arc<[u32]>) -> Arc<Prepared> {
        self.station.shared.interner.intern(self.snapshot.epoch, text, types, || self.analysed(text))
    }

    fn prepare_unnamed(&self, text: &[u8], types: Arc<[u32]>) -> Arc<Prepared> {
        match self.names.find("") {
            Some(known) if *known.text == *text && known.types == types => Arc::clone(known),
            _ => self.station.shared.interner.make(text, types, || self.analysed(text)),
        }
    }

    /// Kept by this session alone: for others the same bytes may be a text.
    fn prepare_unread(&self, text: &[u8], types: Arc<[u32]>) -> Arc<Prepared> {
        self.station.shared.interner.make(text, types, || (Arc::new(Analysis::unreadable()), Box::default()))
    }

    fn analysed(&self, text: &[u8]) -> (Arc<Analysis>, Box<[LiteralSpan]>) {
        match std::str::from_utf8(text) {
            Ok(text) => self.station.analyse_for_long(text),
            Err(_) => (Arc::new(Analysis::unreadable()), Box::default()),
        }
    }

    /// The bytes cannot be read for what they do; nor for where they belong, on a sharded database.
    fn is_unreadable(&self, text: &[u8]) -> bool {
        let is_read = match self.letters {
            Letters::Readable => true,
            Letters::Foreign => !self.snapshot.database.is_sharded(),
            Letters::Embedding => false,
        };
        !is_read && !text.is_ascii()
    }

    fn is_session_pooled(&self) -> bool {
        self.user.pooler_mode.unwrap_or(self.snapshot.database.pooler_mode) == PoolerMode::Session
    }
}

/// A client's encoding, as far as its texts are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Letters {
    /// UTF-8, or none: sent as they are, such texts are read as the server's own.
    Readable,
    /// Another one, in which what looks like ASCII is ASCII.
    Foreign,
    /// A byte of a longer character may look like a quote or backslash.
    Embedding,
}

impl Letters {
    fn of(encoding: &str) -> Self {
        match encoding {
            "UTF8" | "SQL_ASCII" => Self::Readable,
            other if embeds_ascii(other) => Self::Embedding,
            _ => Self::Foreign,
        }
    }
}

/// Off: backslashes are escapes in plain literals.
const STANDARD_STRINGS: &str = "standard_conforming_strings";
/// Why a client in session mode keeps its connection.
const SESSION_MODE: &str = "session mode";
/// They follow from settings that the server reports under other names.
const WHO_ONE_IS: [&str; 2] = ["is_superuser", "session_authorization"];
/// Lists of reported values that a session keeps in mind: one for each server, as a rule.
const MOST_MET: usize = 7;
