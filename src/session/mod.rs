//! One client from its log-in to its end: transaction, settings, prepared statements, what it may read where.
//!
//! Knows what the client sent and where it goes; nothing of how a client is accepted or authenticated. Names down, rows
//! up: plans go to `executor`, replies to the client's output.

mod carried;
mod carry;
mod control;
mod decide;
mod digest;
mod effects;
mod lent;
mod local;
mod planned;
mod position;
mod prepared;
mod registry;
mod run;
pub mod settings;
mod snapshot;
mod station;
mod transaction;
mod unit;
mod wishes;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::BytesMut;

pub use registry::{Client, Registered, Registry, State};
pub use run::End;
pub use snapshot::Snapshot;
pub use station::{Learned, Shared, Station};

use crate::backend::settings::Settings;
use crate::statement::{Analysis, LiteralSpan};
use crate::topology::{PoolerMode, User};
use crate::wire::message::put_parameter_status;
use lent::Lent;
use position::Position;
use prepared::Prepared;
use settings::Tracked;
use transaction::{Reported, Transaction};
use wishes::Wishes;

pub struct Session {
    station: Arc<Station>,
    client: Arc<Client>,
    user: Arc<User>,
    snapshot: Snapshot,
    settings: Tracked,
    search_path: Arc<[String]>,
    /// What the server's default is, where the session sets none.
    default_search_path: Arc<[String]>,
    reported: Reported,
    /// ParameterStatus messages that the client has not been sent yet.
    news: BytesMut,
    statements: HashMap<Box<str>, Arc<Prepared>>,
    unnamed: Option<Arc<Prepared>>,
    /// Names that Parse messages of this unit gave, in order; `None` for the unnamed one.
    parsed: Vec<Option<Box<str>>>,
    transaction: Transaction,
    pin: Option<Pin>,
    wishes: Wishes,
    position: Position,
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
}

impl Session {
    pub fn new(station: Arc<Station>, client: Arc<Client>, snapshot: Snapshot, welcome: Welcome) -> Self {
        let settings = Tracked::new(welcome.settings);
        let mut session = Self {
            station,
            client,
            user: welcome.user,
            snapshot,
            settings,
            search_path: Arc::clone(&welcome.search_path),
            default_search_path: welcome.search_path,
            reported: Arc::new(welcome.reported.into_iter().collect()),
            news: BytesMut::new(),
            statements: HashMap::new(),
            unnamed: None,
            parsed: Vec::new(),
            transaction: Transaction::Idle,
            pin: None,
            wishes: Wishes::default(),
            position: Position::default(),
        };
        session.find_search_path();
        session
    }

    /// Notes a setting's new value. `true`: the client does not know yet.
    fn hear(&mut self, name: &str, value: &str) -> bool {
        // It is the server's business which kind of server it is; the client talks to all of them.
        if name == "in_hot_standby" || self.reported.get(name).is_some_and(|known| known == value) {
            return false;
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

    /// Reads `search_path` as the session has it now.
    fn find_search_path(&mut self) {
        let user = self.user.server_user.as_deref().unwrap_or(&self.user.name);
        let path = match self.settings.value("search_path") {
            None => Arc::clone(&self.default_search_path),
            Some(value) => snapshot::search_path(value, user),
        };
        if path != self.search_path {
            self.search_path = path;
        }
    }

    fn prepare_named(&self, text: &[u8], types: Arc<[u32]>) -> Arc<Prepared> {
        self.station.shared.interner.intern(text, types, || self.analysed(text))
    }

    fn prepare_unnamed(&self, text: &[u8], types: Arc<[u32]>) -> Arc<Prepared> {
        match &self.unnamed {
            Some(known) if *known.text == *text && known.types == types => Arc::clone(known),
            _ => self.station.shared.interner.make(text, types, || self.analysed(text)),
        }
    }

    fn analysed(&self, text: &[u8]) -> (Arc<Analysis>, Box<[LiteralSpan]>) {
        match std::str::from_utf8(text) {
            Ok(text) => self.station.analyse_for_long(text),
            Err(_) => (Arc::new(Analysis::unreadable()), Box::default()),
        }
    }

    fn is_session_pooled(&self) -> bool {
        self.user.pooler_mode.unwrap_or(self.snapshot.database.pooler_mode) == PoolerMode::Session
    }
}
