//! Statements known by their keywords: everything but queries and data changes. Read from tokens, because a grammar
//! that is not PostgreSQL's own refuses too many of them.

use super::altering::alterations;
use super::copying::copy;
use super::procedural::body_of_do;
use super::scan::{Token, TokenKind};
use super::types::{
    Ddl, Isolation, Kind, OF_TRANSACTION, ObjectName, Reach, SettingControl, SettingValue, Tokens, TransactionControl,
    Vacated,
};

/// The tokens of one statement, to be read from the front.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'t> {
    pub text: &'t str,
    pub tokens: &'t [Token],
    /// The number of `tokens[0]` in the whole text.
    pub first: u32,
}

impl<'t> Cursor<'t> {
    /// The next token as written.
    pub(super) fn peek(&self) -> &'t str {
        self.nth(0)
    }

    pub(super) fn nth(&self, index: usize) -> &'t str {
        self.tokens.get(index).map_or("", |token| self.written(token))
    }

    pub(super) fn written(&self, token: &Token) -> &'t str {
        &self.text[token.start as usize..token.end as usize]
    }

    pub(super) fn skip(&mut self, count: usize) {
        let count = count.min(self.tokens.len());
        self.tokens = &self.tokens[count..];
        self.first += u32::try_from(count).expect("a text has fewer tokens than bytes");
    }

    /// Takes the keywords if they come next, in this order.
    pub(super) fn take(&mut self, words: &[&str]) -> bool {
        let there = words.iter().enumerate().all(|(index, word)| self.nth(index).eq_ignore_ascii_case(word));
        if there {
            self.skip(words.len());
        }
        there
    }

    /// Takes one of them.
    pub(super) fn take_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|word| self.take(&[word]))
    }

    /// A name, folded as PostgreSQL does.
    pub(super) fn name(&mut self) -> String {
        let name = self.tokens.first().map_or_else(String::new, |token| folded(self.written(token), token.kind));
        self.skip(1);
        name
    }

    /// `a.b.c` joined by points.
    fn dotted(&mut self) -> String {
        let mut name = self.name();
        while self.take(&["."]) {
            name.push('.');
            name.push_str(&self.name());
        }
        name
    }

    pub(super) fn object(&mut self) -> ObjectName {
        let dotted: Vec<String> = {
            let mut parts = vec![self.name()];
            while self.take(&["."]) {
                parts.push(self.name());
            }
            parts
        };
        let mut parts = dotted.into_iter().rev();
        let name = parts.next().unwrap_or_default();
        ObjectName { schema: parts.next(), name }
    }

    pub(super) fn has(&self, word: &str) -> bool {
        self.tokens.iter().any(|token| self.written(token).eq_ignore_ascii_case(word))
    }

    /// What is left, as written.
    fn rest(&self) -> &'t str {
        match (self.tokens.first(), self.tokens.last()) {
            (Some(first), Some(last)) => &self.text[first.start as usize..last.end as usize],
            _ => "",
        }
    }
}

pub(super) fn folded(written: &str, kind: TokenKind) -> String {
    match kind {
        TokenKind::QuotedName => {
            let inner = written.trim_start_matches(['u', 'U', '&']);
            inner.get(1..inner.len() - 1).unwrap_or_default().replace("\"\"", "\"")
        }
        TokenKind::Literal(_) => plain(written),
        _ => written.to_ascii_lowercase(),
    }
}

/// The kind of a command, or `None` for what the grammar must read.
pub(super) fn command(mut cursor: Cursor<'_>) -> Option<Kind> {
    let keyword = cursor.peek().to_ascii_uppercase();
    let whole = cursor;
    cursor.skip(1);
    Some(match keyword.as_str() {
        "BEGIN" | "START" | "COMMIT" | "END" | "ABORT" | "ROLLBACK" | "SAVEPOINT" | "RELEASE" => {
            // What is not all understood may be no statement at all: the server says so.
            transaction(&keyword, cursor).map_or_else(|| Kind::Unknown { keyword }, Kind::Transaction)
        }
        "PREPARE" if cursor.take(&["TRANSACTION"]) => Kind::Transaction(TransactionControl::TwoPhase),
        "PREPARE" => Kind::Prepare { name: cursor.name() },
        "EXECUTE" => Kind::Execute { name: cursor.name() },
        "DEALLOCATE" => {
            cursor.take(&["PREPARE"]);
            let all = cursor.take(&["ALL"]);
            Kind::Deallocate { name: (!all).then(|| cursor.name()) }
        }
        "SET" => set(cursor),
        "RESET" => reset(cursor),
        "SHOW" => Kind::Setting(SettingControl::Show { name: setting_name(&mut cursor) }),
        "DISCARD" => Kind::Setting(SettingControl::Discard { what: cursor.peek().to_ascii_uppercase() }),
        "LISTEN" => Kind::Listen { channel: cursor.name() },
        "UNLISTEN" => {
            let all = cursor.peek() == "*";
            Kind::Unlisten { channel: (!all).then(|| cursor.name()) }
        }
        "NOTIFY" => Kind::Notify { channel: cursor.name() },
        "FETCH" | "MOVE" => fetch(&keyword, cursor),
        "CLOSE" => {
            let all = cursor.take(&["ALL"]);
            Kind::CloseCursor { name: (!all).then(|| cursor.name()) }
        }
        "LOCK" => Kind::LockTable,
        "CALL" => Kind::Call,
        "DO" => Kind::Do(body_of_do(cursor)),
        "TRUNCATE" => truncate(cursor),
        "COPY" => Kind::Copy(copy(cursor)?),
        "VACUUM" => Kind::Utility { transactional: false },
        "REFRESH" if cursor.take(&["MATERIALIZED", "VIEW"]) => {
            cursor.take(&["CONCURRENTLY"]);
            let view = cursor.object();
            Kind::Refresh { view, empty: cursor.take(&["WITH", "NO", "DATA"]) }
        }
        "CLUSTER" | "CHECKPOINT" | "LOAD" | "ANALYZE" | "ANALYSE" => {
            Kind::Utility { transactional: !whole.has("CONCURRENTLY") && keyword != "CLUSTER" }
        }
        "REINDEX" => Kind::Utility { transactional: false },
        "CREATE" | "ALTER" | "DROP" | "GRANT" | "REVOKE" | "COMMENT" | "SECURITY" | "IMPORT" | "REASSIGN" => {
            Kind::Ddl(ddl(whole))
        }
        _ => return None,
    })
}

/// FETCH [direction] [FROM | IN] name
fn fetch(keyword: &str, mut cursor: Cursor<'_>) -> Kind {
    const ALL: i64 = i64::MAX;
    // Also a cursor may have the name of a direction.
    let reach = match cursor.tokens.len() {
        0 | 1 => Reach::Forward(1),
        _ if cursor.take(&["NEXT"]) => Reach::Forward(1),
        _ if cursor.take(&["PRIOR"]) => Reach::Backward(1),
        _ if cursor.take(&["FIRST"]) => Reach::Absolute(1),
        _ if cursor.take(&["LAST"]) => Reach::Absolute(-1),
        _ if cursor.take(&["ALL"]) => Reach::Forward(ALL),
        _ if cursor.take(&["ABSOLUTE"]) => Reach::Absolute(signed(&mut cursor).unwrap_or(0)),
        _ if cursor.take(&["RELATIVE"]) => Reach::Relative(signed(&mut cursor).unwrap_or(0)),
        _ if cursor.take(&["FORWARD", "ALL"]) => Reach::Forward(ALL),
        _ if cursor.take(&["BACKWARD", "ALL"]) => Reach::Backward(ALL),
        _ if cursor.take(&["FORWARD"]) => Reach::Forward(signed(&mut cursor).unwrap_or(1)),
        _ if cursor.take(&["BACKWARD"]) => Reach::Backward(signed(&mut cursor).unwrap_or(1)),
        _ => Reach::Forward(signed(&mut cursor).unwrap_or(1)),
    };
    if cursor.tokens.len() > 1 {
        cursor.take_any(&["FROM", "IN"]);
    }
    let name = cursor.name();
    if !cursor.tokens.is_empty() {
        return Kind::Unknown { keyword: keyword.to_owned() };
    }
    Kind::Fetch { name, reach, moves: keyword == "MOVE" }
}

/// A number with its sign, if one comes next.
fn signed(cursor: &mut Cursor<'_>) -> Option<i64> {
    let negative = cursor.peek() == "-";
    let number: i64 = cursor.nth(usize::from(negative || cursor.peek() == "+")).parse().ok()?;
    cursor.skip(1 + usize::from(negative || cursor.peek() == "+"));
    Some(if negative { -number } else { number })
}

fn transaction(keyword: &str, mut cursor: Cursor<'_>) -> Option<TransactionControl> {
    use TransactionControl as Control;
    Some(match keyword {
        "START" if !cursor.peek().eq_ignore_ascii_case("TRANSACTION") => return None,
        "BEGIN" | "START" => {
            cursor.take_any(&["WORK", "TRANSACTION"]);
            let Modes { read_only, isolation, deferrable } = modes(cursor)?;
            Control::Begin { read_only, isolation, deferrable }
        }
        "COMMIT" | "ROLLBACK" if cursor.take(&["PREPARED"]) => Control::TwoPhase,
        "COMMIT" | "END" => {
            cursor.take_any(&["WORK", "TRANSACTION"]);
            Control::Commit { chain: chained(cursor)? }
        }
        "SAVEPOINT" => Control::Savepoint { name: cursor.name() },
        "RELEASE" => {
            cursor.take(&["SAVEPOINT"]);
            Control::Release { name: cursor.name() }
        }
        _ => {
            cursor.take_any(&["WORK", "TRANSACTION"]);
            if cursor.take(&["TO"]) {
                cursor.take(&["SAVEPOINT"]);
                return Some(Control::RollbackTo { name: cursor.name() });
            }
            Control::Rollback { chain: chained(cursor)? }
        }
    })
}

fn chained(mut cursor: Cursor<'_>) -> Option<bool> {
    let chain = cursor.take(&["AND", "CHAIN"]);
    if !chain {
        cursor.take(&["AND", "NO", "CHAIN"]);
    }
    cursor.tokens.is_empty().then_some(chain)
}

#[derive(Default)]
struct Modes {
    read_only: Option<bool>,
    isolation: Option<Isolation>,
    deferrable: Option<bool>,
}

/// `None`: there is something among them that is no mode.
fn modes(mut cursor: Cursor<'_>) -> Option<Modes> {
    let Modes { mut read_only, mut isolation, mut deferrable } = Modes::default();
    while !cursor.tokens.is_empty() {
        if cursor.take(&["ISOLATION", "LEVEL"]) {
            isolation = Some(isolation_level(&mut cursor)?);
        } else if cursor.take(&["READ", "ONLY"]) {
            read_only = Some(true);
        } else if cursor.take(&["READ", "WRITE"]) {
            read_only = Some(false);
        } else if cursor.take(&["NOT", "DEFERRABLE"]) {
            deferrable = Some(false);
        } else if cursor.take(&["DEFERRABLE"]) {
            deferrable = Some(true);
        } else {
            return None;
        }
        cursor.take(&[","]);
    }
    Some(Modes { read_only, isolation, deferrable })
}

fn isolation_level(cursor: &mut Cursor<'_>) -> Option<Isolation> {
    let mut is_next = |name: &str| cursor.take(&name.split(' ').collect::<Vec<_>>());
    LEVELS.into_iter().find(|(name, _)| is_next(name)).map(|(_, level)| level)
}

/// By the values of `transaction_isolation`.
const LEVELS: [(&str, Isolation); 4] = [
    ("read committed", Isolation::ReadCommitted),
    ("read uncommitted", Isolation::ReadUncommitted),
    ("repeatable read", Isolation::RepeatableRead),
    ("serializable", Isolation::Serializable),
];

fn set(mut cursor: Cursor<'_>) -> Kind {
    if cursor.take(&["TRANSACTION"]) || cursor.take(&["LOCAL", "TRANSACTION"]) {
        let is_snapshot = cursor.peek().eq_ignore_ascii_case("SNAPSHOT");
        let modes = if is_snapshot { Some(Modes::default()) } else { modes(cursor) };
        let Some(Modes { read_only, isolation, deferrable }) = modes else {
            return Kind::Unknown { keyword: "SET".to_owned() };
        };
        return Kind::Transaction(TransactionControl::SetTransaction { read_only, isolation, deferrable });
    }
    if cursor.take(&["CONSTRAINTS"]) {
        // Lasts until the end of the transaction, as what it sets.
        return setting("constraints".to_owned(), None, true);
    }
    if cursor.take(&["SESSION", "CHARACTERISTICS", "AS", "TRANSACTION"]) {
        return characteristics(cursor);
    }
    let local = cursor.take(&["LOCAL"]);
    // SESSION may also begin SESSION AUTHORIZATION.
    if !cursor.nth(1).eq_ignore_ascii_case("AUTHORIZATION") {
        cursor.take(&["SESSION"]);
    }
    let name = setting_name(&mut cursor);
    cursor.take_any(&["TO", "="]);
    if let Some(modes) = modes_by_setting(&name, cursor) {
        return modes;
    }
    // SET NAMES alone means the default.
    let is_default = cursor.tokens.is_empty()
        || cursor.peek().eq_ignore_ascii_case("DEFAULT")
        || (name == "role" && cursor.peek().eq_ignore_ascii_case("NONE"))
        || (name == "timezone" && cursor.peek().eq_ignore_ascii_case("LOCAL"));
    let sql = cursor.rest().to_owned();
    let value = (!is_default).then(|| SettingValue { plain: plain_list(cursor), sql });
    setting(name, value, local)
}

/// What sets a setting of the transaction's own is SET TRANSACTION.
fn modes_by_setting(name: &str, cursor: Cursor<'_>) -> Option<Kind> {
    if !OF_TRANSACTION.contains(&name) {
        return None;
    }
    let value = plain_list(cursor).to_ascii_lowercase();
    let switch = |setting| match value.as_str() {
        "on" | "true" | "yes" | "1" if setting == name => Some(true),
        "off" | "false" | "no" | "0" if setting == name => Some(false),
        _ => None,
    };
    let known = LEVELS.into_iter().find(|(level, _)| name == "transaction_isolation" && value == *level);
    let isolation = known.map(|(_, isolation)| isolation);
    let (read_only, deferrable) = (switch("transaction_read_only"), switch("transaction_deferrable"));
    if (read_only, deferrable, isolation) == (None, None, None) && value != "default" {
        return Some(Kind::Unknown { keyword: "SET".to_owned() });
    }
    Some(Kind::Transaction(TransactionControl::SetTransaction { read_only, isolation, deferrable }))
}

fn setting(name: String, value: Option<SettingValue>, local: bool) -> Kind {
    Kind::Setting(SettingControl::Set { name, value, local })
}

/// Each mode is a setting of its own.
fn characteristics(cursor: Cursor<'_>) -> Kind {
    let Modes { read_only, isolation, deferrable } = modes(cursor).unwrap_or_default();
    let switch = |on: bool| if on { "on" } else { "off" };
    let level = LEVELS.into_iter().find(|(_, level)| isolation == Some(*level)).map(|(name, _)| name);
    let settings = [("isolation", level), ("read_only", read_only.map(switch)), ("deferrable", deferrable.map(switch))];
    let set = |(mode, value): (&str, Option<&str>)| {
        let value = value?;
        let value = SettingValue { sql: format!("'{value}'"), plain: value.to_owned() };
        Some((format!("default_transaction_{mode}"), value))
    };
    let mut settings: Vec<_> = settings.into_iter().filter_map(set).collect();
    match (settings.len(), settings.pop()) {
        (1, Some((name, value))) => setting(name, Some(value), false),
        (_, Some(last)) => Kind::Setting(SettingControl::Several(settings.into_iter().chain([last]).collect())),
        (_, None) => Kind::Unknown { keyword: "SET".to_owned() },
    }
}

fn reset(mut cursor: Cursor<'_>) -> Kind {
    let name = setting_name(&mut cursor);
    Kind::Setting(if name == "all" { SettingControl::ResetAll } else { SettingControl::Reset { name } })
}

/// The setting that SET, RESET and SHOW mean, by its name in `pg_settings`.
fn setting_name(cursor: &mut Cursor<'_>) -> String {
    if cursor.take(&["TIME", "ZONE"]) {
        return "timezone".to_owned();
    }
    if cursor.take(&["SESSION", "AUTHORIZATION"]) {
        return "session_authorization".to_owned();
    }
    if cursor.take(&["TRANSACTION", "ISOLATION", "LEVEL"]) {
        return "transaction_isolation".to_owned();
    }
    if cursor.take(&["XML", "OPTION"]) {
        return "xmloption".to_owned();
    }
    if cursor.take(&["NAMES"]) {
        return "client_encoding".to_owned();
    }
    if cursor.take(&["SCHEMA"]) {
        return "search_path".to_owned();
    }
    ours(cursor).unwrap_or_else(|| cursor.dotted().to_lowercase())
}

/// The proxy's own settings in PgCat's and PgDog's spelling.
fn ours(cursor: &mut Cursor<'_>) -> Option<String> {
    let known = ALIASES.iter().find(|(words, _)| cursor.take(words));
    known.map(|(_, name)| (*name).to_owned())
}

const ALIASES: [(&[&str], &str); 6] = [
    (&["SHARDING", "KEY"], "pgweir.key"),
    (&["SERVER", "ROLE"], "pgweir.role"),
    (&["SHARD"], "pgweir.shard"),
    (&["pgdog", ".", "sharding_key"], "pgweir.key"),
    (&["pgdog", ".", "shard"], "pgweir.shard"),
    (&["pgdog", ".", "role"], "pgweir.role"),
];

fn plain_list(cursor: Cursor<'_>) -> String {
    let mut plain = String::new();
    for token in cursor.tokens {
        match token.kind {
            TokenKind::Punctuation(b',') => plain.push_str(", "),
            kind => plain.push_str(&match kind {
                TokenKind::QuotedName | TokenKind::Literal(_) => folded(cursor.written(token), kind),
                _ => cursor.written(token).to_owned(),
            }),
        }
    }
    plain
}

fn plain(literal: &str) -> String {
    match literal.strip_prefix('\'').and_then(|inner| inner.strip_suffix('\'')) {
        Some(inner) => inner.replace("''", "'"),
        None => literal.to_owned(),
    }
}

fn truncate(mut cursor: Cursor<'_>) -> Kind {
    cursor.take(&["TABLE"]);
    let mut tables = Vec::new();
    loop {
        cursor.take(&["ONLY"]);
        tables.push(cursor.object());
        cursor.take(&["*"]);
        if !cursor.take(&[","]) {
            return Kind::Truncate { tables };
        }
    }
}

fn ddl(mut cursor: Cursor<'_>) -> Ddl {
    let verb = cursor.peek().to_ascii_uppercase();
    let concurrently = cursor.has("CONCURRENTLY");
    cursor.skip(1);
    cursor.take(&["OR", "REPLACE"]);
    cursor.take_any(&["GLOBAL", "LOCAL"]);
    let temporary = cursor.take_any(&["TEMP", "TEMPORARY"]) || (verb == "CREATE" && cursor.has("pg_temp"));
    let materialized = if cursor.take(&["MATERIALIZED"]) { "MATERIALIZED " } else { "" };
    cursor.take_any(&["UNLOGGED", "UNIQUE", "FOREIGN", "RECURSIVE", "EVENT", "TRUSTED", "PROCEDURAL"]);
    let object = cursor.peek().to_ascii_uppercase();
    let outside = matches!(object.as_str(), "DATABASE" | "TABLESPACE" | "SYSTEM" | "SUBSCRIPTION")
        && matches!(verb.as_str(), "CREATE" | "DROP" | "ALTER");
    let makes = (temporary && object == "TABLE").then(|| name_of_new(cursor));
    let vacates = (object == "DATABASE").then(|| vacated(&verb, cursor)).flatten();
    let renews = match (&*verb, &*object) {
        ("DROP", "ROLE" | "USER" | "GROUP") => true,
        ("ALTER", "ROLE" | "USER" | "DATABASE") => cursor.has("SET") || cursor.has("RESET"),
        _ => false,
    };
    let index = index_if_not_exists(&verb, &object, cursor);
    let tables = changed_tables(&verb, &object, &mut cursor);
    let alters = if (&*verb, &*object) == ("ALTER", "TABLE") { alterations(cursor) } else { Vec::new() };
    let (what, transactional) = (format!("{verb} {materialized}{object}"), !concurrently && !outside);
    Ddl { what, transactional, temporary, makes, tables, alters, index, filled: None, vacates, renews }
}

/// `DATABASE …`
fn vacated(verb: &str, mut cursor: Cursor<'_>) -> Option<Vacated> {
    cursor.skip(1);
    cursor.take(&["IF", "EXISTS"]);
    let name = cursor.name();
    let database = match verb {
        "DROP" => Some(name),
        "ALTER" => (cursor.take(&["RENAME"]) || cursor.take(&["SET", "TABLESPACE"])).then_some(name),
        _ => Some(template(cursor)),
    };
    database.map(|database| Vacated { database, forced: verb == "DROP" && cursor.has("FORCE") })
}

/// What CREATE DATABASE copies.
fn template(mut cursor: Cursor<'_>) -> String {
    while !cursor.tokens.is_empty() && !cursor.take(&["TEMPLATE"]) {
        cursor.skip(1);
    }
    cursor.take(&["="]);
    if cursor.tokens.is_empty() || cursor.take(&["DEFAULT"]) { "template1".to_owned() } else { cursor.name() }
}

/// `TABLE [IF NOT EXISTS] name`
fn name_of_new(mut cursor: Cursor<'_>) -> String {
    cursor.skip(1);
    cursor.take(&["IF", "NOT", "EXISTS"]);
    cursor.object().name
}

fn index_if_not_exists(verb: &str, object: &str, mut cursor: Cursor<'_>) -> Option<String> {
    cursor.skip(1);
    cursor.take(&["CONCURRENTLY"]);
    ((verb, object) == ("CREATE", "INDEX") && cursor.take(&["IF", "NOT", "EXISTS"])).then(|| cursor.name())
}

/// Of DROP TABLE, ALTER TABLE and CREATE INDEX, behind the verb and what comes with it: takes them off.
fn changed_tables(verb: &str, object: &str, cursor: &mut Cursor<'_>) -> Vec<ObjectName> {
    cursor.skip(1);
    match (verb, object) {
        ("DROP" | "ALTER", "TABLE") | ("DROP", "VIEW") => {
            cursor.take(&["IF", "EXISTS"]);
        }
        ("CREATE", "INDEX") => {
            while !cursor.tokens.is_empty() && !cursor.take(&["ON"]) {
                cursor.skip(1);
            }
        }
        _ => return Vec::new(),
    }
    cursor.take(&["ONLY"]);
    let mut tables = vec![cursor.object()];
    cursor.take(&["*"]);
    while verb == "DROP" && cursor.take(&[","]) {
        tables.push(cursor.object());
    }
    tables
}

/// The tokens of what EXPLAIN explains, and whether it runs.
pub(super) fn explained(mut cursor: Cursor<'_>) -> (bool, bool, Tokens) {
    cursor.skip(1);
    let route = cursor.take(&["ROUTE"]);
    let mut analyze = false;
    if cursor.peek() == "(" && !is_query(cursor.nth(1)) {
        let end = cursor.tokens.iter().position(|token| token.kind == TokenKind::Punctuation(b')'));
        let options = Cursor { tokens: &cursor.tokens[..end.unwrap_or(0)], ..cursor };
        analyze = options.has("ANALYZE");
        cursor.skip(end.map_or(0, |end| end + 1));
    }
    loop {
        if cursor.take_any(&["ANALYZE", "ANALYSE"]) {
            analyze = true;
        } else if !cursor.take(&["VERBOSE"]) {
            break;
        }
    }
    let end = cursor.first + u32::try_from(cursor.tokens.len()).expect("fewer tokens than bytes");
    (route, analyze, Tokens { start: cursor.first, end })
}

fn is_query(word: &str) -> bool {
    ["SELECT", "WITH", "VALUES", "TABLE", "("].iter().any(|known| word.eq_ignore_ascii_case(known))
}
