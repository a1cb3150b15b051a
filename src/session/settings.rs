//! The settings that a client wants, through transactions and savepoints (PostgreSQL documentation, SET).

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::snapshot::names;
use crate::backend::settings::{DATE_STYLE, SESSION_USER, Settings, date_style_over, is_identity, quoted};
use crate::error::{Error, SqlState};
use crate::statement::embeds_ascii;

/// What the client has set, and what rollback would make of it.
#[derive(Debug, Default)]
pub struct Tracked {
    /// What RESET goes back to: the startup packet's.
    startup: Settings,
    /// As of the last commit.
    committed: Settings,
    /// As of now.
    current: Settings,
    /// `current` as it was at each savepoint, oldest first.
    savepoints: Vec<(String, Settings)>,
}

/// A change that a statement makes if it succeeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Set { name: String, value: String },
    Reset(String),
    ResetAll,
}

impl Tracked {
    pub fn new(startup: Settings) -> Self {
        let current = Arc::clone(&startup);
        Self { committed: Arc::clone(&startup), startup, current, savepoints: Vec::new() }
    }

    /// What a connection must have before the next statement.
    pub fn current(&self) -> &Settings {
        &self.current
    }

    pub fn value(&self, name: &str) -> Option<&str> {
        self.current.get(name).map(String::as_str)
    }

    pub fn apply(&mut self, change: &Change) {
        alter(Arc::make_mut(&mut self.current), change, &self.startup);
    }

    /// The server's settings after `change` ran there: RESET goes back to the server's own, not to the startup's.
    #[must_use]
    pub fn on_server(applied: &Settings, change: &Change) -> Settings {
        let mut applied = BTreeMap::clone(applied);
        alter(&mut applied, change, &BTreeMap::new());
        Arc::new(applied)
    }

    pub fn commit(&mut self) {
        self.savepoints.clear();
        if !Arc::ptr_eq(&self.committed, &self.current) {
            self.committed = Arc::clone(&self.current);
        }
    }

    pub fn rollback(&mut self) {
        self.savepoints.clear();
        if !Arc::ptr_eq(&self.committed, &self.current) {
            self.current = Arc::clone(&self.committed);
        }
    }

    pub fn savepoint(&mut self, name: &str) {
        self.savepoints.push((name.to_owned(), Arc::clone(&self.current)));
    }

    pub fn release(&mut self, name: &str) {
        if let Some(position) = self.position(name) {
            self.savepoints.truncate(position);
        }
    }

    pub fn rollback_to(&mut self, name: &str) {
        if let Some(position) = self.position(name) {
            self.savepoints.truncate(position + 1);
            self.current = Arc::clone(&self.savepoints[position].1);
        }
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.savepoints.iter().rposition(|(known, _)| known == name)
    }
}

/// `startup` is what RESET goes back to.
fn alter(settings: &mut BTreeMap<String, String>, change: &Change, startup: &BTreeMap<String, String>) {
    match change {
        Change::Set { name, value } => {
            let value = match name.as_str() {
                DATE_STYLE => date_style_over(settings.get(name).map(String::as_str), value),
                _ => value.clone(),
            };
            // Who becomes another session user has no role any more.
            if name == SESSION_USER {
                settings.remove("role");
            }
            settings.insert(name.clone(), value);
        }
        Change::Reset(name) => {
            let also = (name == SESSION_USER).then_some("role");
            for name in [name.as_str()].into_iter().chain(also) {
                match startup.get(name) {
                    Some(value) => settings.insert(name.to_owned(), value.clone()),
                    None => settings.remove(name),
                };
            }
        }
        Change::ResetAll => {
            // RESET ALL leaves who the session is alone.
            settings.retain(|name, _| is_identity(name));
            let startup = startup.iter().filter(|(name, _)| !is_identity(name));
            settings.extend(startup.map(|(name, value)| (name.clone(), value.clone())));
        }
    }
}

/// The settings of a startup packet: every parameter that is not the protocol's own, and `options`
/// (PostgreSQL documentation, 55.2.1 and 20.1.4).
pub fn from_startup(parameters: &[(String, String)]) -> Result<Settings, Error> {
    let mut settings = BTreeMap::new();
    // What is given by its own name counts for more, wherever it stands.
    for (_, value) in parameters.iter().filter(|(name, _)| name == "options") {
        settings.extend(options(value)?.into_iter().map(|(name, value)| (name.clone(), as_set_takes(&name, &value))));
    }
    for (name, value) in parameters {
        match name.as_str() {
            "user" | "database" | "replication" | "options" => {}
            _ if name.starts_with("_pq_.") => {}
            _ => {
                let name = name.to_ascii_lowercase();
                let value = as_set_takes(&name, value);
                settings.insert(name, value);
            }
        }
    }
    Ok(Arc::new(settings))
}

/// SET takes one text for one name: a list of names becomes a list of texts.
pub(super) fn as_set_takes(name: &str, value: &str) -> String {
    if !LISTS_OF_NAMES.contains(&name) {
        return quoted(value);
    }
    let names: Vec<_> = names(value).iter().map(|name| quoted(name)).collect();
    if names.is_empty() { quoted("") } else { names.join(", ") }
}

/// Tells apart under which settings a text may mean different things to the server's parser; 0 for the server's own.
/// Dates, say, are read when a statement is prepared.
pub(super) fn variant(settings: &Settings) -> u64 {
    let telling = |(name, _): &(&String, &String)| !SILENT.contains(&name.as_str());
    if !settings.iter().any(|setting| telling(&setting)) {
        return 0;
    }
    let mut hasher = foldhash::fast::FixedState::default().build_hasher();
    settings.iter().filter(telling).for_each(|setting| setting.hash(&mut hasher));
    hasher.finish()
}

/// Limits that a session has set for itself; zero: none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct IdleLimits {
    pub session: Duration,
    pub in_transaction: Duration,
}

impl IdleLimits {
    pub(super) fn of(settings: &Settings) -> Self {
        let limit = |name: &str| settings.get(name).and_then(|value| span(value)).unwrap_or_default();
        Self { session: limit("idle_session_timeout"), in_transaction: limit("idle_in_transaction_session_timeout") }
    }
}

/// A span of time as settings have it, in milliseconds if it says nothing else (PostgreSQL documentation, 20.1.1).
fn span(value: &str) -> Option<Duration> {
    let value = value.trim_matches('\'').trim();
    let digits = value.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(value.len());
    let number: f64 = value[..digits].parse().ok()?;
    let seconds = match value[digits..].trim() {
        "us" => 1e-6,
        "" | "ms" => 1e-3,
        "s" => 1.0,
        "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * seconds).ok()
}

/// Whether statements mean the same whatever its value is.
pub(super) fn is_silent(name: &str) -> bool {
    SILENT.contains(&name)
}

const LISTS_OF_NAMES: [&str; 4] =
    ["search_path", "temp_tablespaces", "session_preload_libraries", "local_preload_libraries"];

/// Settings that say nothing about what a text means. The server itself follows changes of `search_path` and `role`.
const SILENT: [&str; 20] = [
    "application_name",
    "client_encoding",
    "client_min_messages",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "extra_float_digits",
    "geqo",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "jit",
    "lock_timeout",
    "maintenance_work_mem",
    "role",
    "search_path",
    "session_authorization",
    "statement_timeout",
    "synchronous_commit",
    "temp_tablespaces",
    "work_mem",
];

/// `-c name=value` and `--name=value`, words separated by blanks, a backslash taking the next byte as it is.
fn options(text: &str) -> Result<Vec<(String, String)>, Error> {
    let mut words = words(text).into_iter();
    let mut found = Vec::new();
    while let Some(word) = words.next() {
        let pair = match (word.strip_prefix("-c"), word.strip_prefix("--")) {
            (Some(""), _) => words.next().ok_or_else(|| bad_option(&word))?,
            (Some(pair), _) | (_, Some(pair)) => pair.to_owned(),
            _ => return Err(bad_option(&word)),
        };
        let (name, value) = pair.split_once('=').ok_or_else(|| bad_option(&word))?;
        found.push((name.replace('-', "_").to_ascii_lowercase(), value.to_owned()));
    }
    Ok(found)
}

fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => word.get_or_insert_default().extend(letters.next()),
            letter if letter.is_ascii_whitespace() => words.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

fn bad_option(word: &str) -> Error {
    Error::new(SqlState::INVALID_VALUE, format!("startup option \"{word}\" is not understood"))
        .with_hint("Options are given as -c name=value.")
}

/// Refuses values under which the proxy would read a text otherwise than the server does: where there are shards, it must.
pub fn check_readable(name: &str, plain: &str) -> Result<(), Error> {
    let plain = plain.to_ascii_lowercase();
    let refuse = |what: String| {
        let hint = "The proxy could not tell texts from statements any more.";
        Err(Error::new(SqlState::UNSUPPORTED, what).with_hint(hint))
    };
    match name {
        "client_encoding" => {
            if embeds_ascii(&plain) {
                return refuse(format!("client encoding \"{plain}\" is not supported"));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> Change {
        Change::Set { name: name.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn rollback_takes_settings_back() {
        let mut tracked = Tracked::new(Arc::new(BTreeMap::from([("a".to_owned(), "1".to_owned())])));
        tracked.apply(&set("a", "2"));
        tracked.commit();
        tracked.apply(&set("a", "3"));
        tracked.savepoint("s");
        tracked.apply(&set("a", "4"));
        tracked.rollback_to("s");
        assert_eq!(tracked.value("a"), Some("3"));
        tracked.rollback();
        assert_eq!(tracked.value("a"), Some("2"));
        tracked.apply(&Change::Reset("a".to_owned()));
        assert_eq!(tracked.value("a"), Some("1"), "RESET goes back to the startup packet's value");
    }

    #[test]
    fn reset_all_keeps_who_one_is() {
        let mut tracked = Tracked::default();
        [set("role", "r"), set("x", "1")].iter().for_each(|change| tracked.apply(change));
        tracked.apply(&Change::ResetAll);
        assert_eq!((tracked.value("role"), tracked.value("x")), (Some("r"), None));
    }

    #[test]
    fn startup_options_become_settings() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let given = [pair("user", "u"), pair("TimeZone", "O'Hare"), pair("options", r"-c a=b\ c --x-y=1 -cz=2")];
        let settings = from_startup(&given).unwrap();
        let expected = [pair("a", "'b c'"), pair("timezone", "'O''Hare'"), pair("x_y", "'1'"), pair("z", "'2'")];
        assert_eq!(settings.iter().map(|(name, value)| pair(name, value)).collect::<Vec<_>>(), expected);
        assert!(from_startup(&[pair("options", "-x")]).is_err());
        let twice = from_startup(&[pair("a", "by name"), pair("options", "-c a=option")]).unwrap();
        assert_eq!(twice["a"], "'by name'");
    }

    #[test]
    fn only_what_the_parser_minds_makes_a_variant() {
        let variant_of =
            |name: &str, value: &str| variant(&from_startup(&[(name.to_owned(), value.to_owned())]).unwrap());
        assert_eq!((variant_of("user", "u"), variant_of("application_name", "a")), (0, 0));
        assert_ne!(variant_of("DateStyle", "DMY"), 0);
        assert_ne!(variant_of("DateStyle", "DMY"), variant_of("DateStyle", "MDY"));
        assert_eq!(variant_of("DateStyle", "DMY"), variant_of("options", "-c datestyle=DMY"));
    }

    #[test]
    fn a_list_of_names_is_no_single_name() {
        let given = [("search_path".to_owned(), "One, \"Two\"".to_owned())];
        assert_eq!(from_startup(&given).unwrap()["search_path"], "'one', 'Two'");
    }

    #[test]
    fn encodings_that_embed_ascii_are_refused() {
        assert!(check_readable("client_encoding", "SJIS").is_err());
        assert!(check_readable("client_encoding", "Shift_JIS").is_err());
        assert!(check_readable("client_encoding", "UTF8").is_ok());
    }
}
