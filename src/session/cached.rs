//! Reads that the result cache answers, and answers that it keeps (see `cache`).

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::decide::Decided;
use super::digest::Step;
use super::lent::Lent;
use super::planned::Planned;
use super::prepared::Prepared;
use super::transaction::Transaction;
use super::unit::Frame;
use super::{SESSION_MODE, Session};
use crate::backend::settings::Settings;
use crate::balance::{self, Need, Unfit};
use crate::cache::{Answer, Cache, Entry, Fill, Found, KeyBytes, Lead, Origin, Place, Reason, TableTag};
use crate::error::Error;
use crate::figures::Route;
use crate::plan::{Access, Template};
use crate::statement::{Parameters, Values};
use crate::topology::{Consistency, Role, ShardId};
use crate::wire::frame::{Header, server};
use crate::wire::message::put_bare;
use crate::wire::{Bind, Channel};

/// A read as the client asked it: all that its answer's bytes depend on beside the session.
pub(super) struct Question<'a> {
    pub template: &'a Template,
    pub values: &'a Values<'a>,
    pub text: &'a [u8],
    pub extended: Option<Bound<'a>>,
}

/// What the extended protocol adds.
pub(super) struct Bound<'a> {
    pub types: &'a [u32],
    /// Of the Bind, behind its names: formats, values, formats of the result.
    pub bind: &'a [u8],
    /// The client asks for the portal's description.
    pub described: bool,
}

/// What looking a unit up came to.
pub(super) enum Looked {
    Hit(Arc<Entry>),
    /// It goes the way that was decided.
    Not(Decided),
}

/// An answer on its way into the cache.
pub(super) struct Filling {
    lead: Lead,
    ttl: Duration,
    sent: Instant,
    origins: SmallVec<[Origin; 1]>,
}

/// Where the tables are that a read reads.
type Places = SmallVec<[Place; 1]>;

enum Sought {
    Known(Option<Arc<Entry>>),
    /// Another client's same query is under way.
    Asked(Box<Asked>),
}

/// What is waited for.
struct Asked {
    cache: Arc<Cache>,
    key: KeyBytes,
    ttl: Duration,
    spaces: Places,
    tags: Vec<TableTag>,
}

/// The part of a key that changes with the session's state only.
#[derive(Default)]
pub(super) struct Prefix {
    /// What it was made of.
    settings: Settings,
    reported: super::transaction::Reported,
    epoch: u64,
    shard: Option<ShardId>,
    bytes: Option<Result<KeyBytes, Reason>>,
}

impl Session {
    /// Looks a Query up that has been decided.
    pub(super) async fn look_up_query(
        &mut self,
        decided: Result<Decided, Error>,
        planned: &Planned,
        values: &Values<'_>,
    ) -> Result<Looked, Error> {
        let decided = decided?;
        let template = match (&self.snapshot.cache, planned.templates.as_slice()) {
            (Some(_), [template]) => template,
            (Some(cache), [_, ..]) => {
                cache.pass(Reason::SeveralStatements);
                return Ok(Looked::Not(decided));
            }
            _ => return Ok(Looked::Not(decided)),
        };
        let question = Question { template, values, text: values.text.as_bytes(), extended: None };
        let sought = self.seek(&decided, &question);
        self.found(decided, sought).await
    }

    /// Looks a unit of the extended protocol up that has been decided.
    pub(super) async fn look_up_steps(
        &mut self,
        decided: Result<Decided, Error>,
        steps: &[Step],
        frames: &[Frame],
        input: &[u8],
    ) -> Result<Looked, Error> {
        let decided = decided?;
        let sought = self.seek_steps(&decided, steps, frames, input)?;
        self.found(decided, sought).await
    }

    fn seek_steps(
        &mut self,
        decided: &Decided,
        steps: &[Step],
        frames: &[Frame],
        input: &[u8],
    ) -> Result<Sought, Error> {
        let Some(cache) = &self.snapshot.cache else { return Ok(Sought::Known(None)) };
        let Some((prepared, body, described)) = only_read(steps, frames, input) else {
            if steps.iter().any(|step| matches!(step, Step::Bind { .. })) {
                cache.pass(Reason::SeveralStatements);
            }
            return Ok(Sought::Known(None));
        };
        let planned = prepared.plans.get(&prepared.analysis, &self.snapshot, &self.search_path);
        let [template] = planned.templates.as_slice() else { return Ok(Sought::Known(None)) };
        let bind = Bind::after_names(body)?;
        let parameters = Parameters::parse(bind, &prepared.types)?;
        let text = prepared.readable().unwrap_or_default();
        let values = Values { text, literals: &prepared.literals, parameters: Some(&parameters) };
        let extended = Some(Bound { types: &prepared.types, bind, described });
        let question = Question { template, values: &values, text: &prepared.text, extended };
        Ok(self.seek(decided, &question))
    }

    /// Finds the answer to a read that has been decided, if it is one that may be kept. If it is not there, and the
    /// caller the one to ask a server, what that answers is kept.
    fn seek(&mut self, decided: &Decided, question: &Question<'_>) -> Sought {
        let Some(cache) = self.snapshot.cache.clone() else { return Sought::Known(None) };
        let asked = self.ask_cache(decided, question);
        let asked = asked.and_then(|(ttl, spaces)| Ok((ttl, spaces, self.key(question)?)));
        let (ttl, spaces, key) = match asked {
            Ok(asked) => asked,
            Err(reason) => {
                cache.pass(reason);
                return Sought::Known(None);
            }
        };
        let tags = question.template.cacheable(question.values).map_or(&[][..], |cacheable| &cacheable.tags);
        let stamp = || self.station.shared.control.spaces().stamp(&spaces, tags);
        match cache.find(&key, Instant::now(), stamp) {
            Found::Follow(_) => {
                let tags = tags.to_vec();
                Sought::Asked(Box::new(Asked { cache, key, ttl, spaces, tags }))
            }
            found => Sought::Known(self.take_found(decided, found, ttl)),
        }
    }

    fn take_found(&mut self, decided: &Decided, found: Found, ttl: Duration) -> Option<Arc<Entry>> {
        match found {
            Found::Hit(entry) => {
                self.meter.route = Route::Cache;
                self.note_hit(decided, &entry);
                Some(entry)
            }
            Found::Lead(lead) => {
                let filling = Filling { lead, ttl, sent: Instant::now(), origins: SmallVec::new() };
                self.filling = Some(Box::new(filling));
                None
            }
            Found::Follow(_) | Found::Pass(_) => None,
        }
    }

    async fn found(&mut self, decided: Decided, sought: Sought) -> Result<Looked, Error> {
        let entry = match sought {
            Sought::Known(entry) => entry,
            Sought::Asked(asked) => {
                let found = Box::pin(self.wait_for_answer(&asked)).await?;
                self.take_found(&decided, found, asked.ttl)
            }
        };
        Ok(entry.map_or(Looked::Not(decided), Looked::Hit))
    }

    /// A cancel request ends the wait.
    async fn wait_for_answer(&self, asked: &Asked) -> Result<Found, Error> {
        let stamp = || self.station.shared.control.spaces().stamp(&asked.spaces, &asked.tags);
        tokio::select! {
            biased;
            found = asked.cache.look(&asked.key, LONGEST_WAIT, stamp) => Ok(found),
            () = self.client.cancelled() => Err(Error::canceled()),
        }
    }

    /// Whether the cache may be asked, as the session stands; how long an answer lives, and where its tables are.
    fn ask_cache(&self, decided: &Decided, question: &Question<'_>) -> Result<(Duration, Places), Reason> {
        let cacheable = question.template.cacheable(question.values)?;
        if self.pinned.is_some_and(|reason| reason != SESSION_MODE) {
            return Err(Reason::Pinned);
        }
        if !decided.effects.is_empty() {
            return Err(Reason::NoQuery);
        }
        self.check_transaction()?;
        // A comment's wish is in what is cacheable.
        let wished = self.wishes.cache().filter(|_| question.template.cache_hint().is_none());
        let ttl = wished.unwrap_or_default().ttl(cacheable.ttl).ok_or(Reason::Unwanted)?;
        let consistency = self.wishes.consistency().or(self.user.consistency);
        if consistency.unwrap_or(self.snapshot.database.consistency) == Consistency::Strong {
            return Err(Reason::Unwanted);
        }
        let known = self.snapshot.spaces.as_ref().ok_or(Reason::Unready)?;
        let space = |shard: ShardId| known.get(usize::from(shard.0)).cloned();
        let (shards, access) = decided.way.reads().ok_or(Reason::Write)?;
        if access != Access::Read {
            return Err(Reason::Unwanted);
        }
        let spaces: Option<_> = shards.into_iter().map(space).collect();
        Ok((ttl, spaces.ok_or(Reason::Unready)?))
    }

    /// In a block only while it has read, each statement what is current (READ COMMITTED).
    fn check_transaction(&self) -> Result<(), Reason> {
        // What is set within a block is for the next one.
        let set = self.settings.value("default_transaction_isolation").is_some();
        let default = !set && !self.default_isolation.has_one_snapshot();
        match &self.transaction {
            Transaction::Idle => Ok(()),
            Transaction::Begun(begun) if default && begun.is_plain() => Ok(()),
            Transaction::Open(open) if open.has_written() => Err(Reason::Wrote),
            Transaction::Open(open) if default && open.reads_plainly => Ok(()),
            Transaction::Begun(_) | Transaction::Open(_) | Transaction::Failed(_) => Err(Reason::Isolation),
        }
    }

    fn key(&mut self, question: &Question<'_>) -> Result<KeyBytes, Reason> {
        let mut key = self.key_prefix()?.clone();
        key.bytes(question.text);
        match &question.extended {
            None => {
                key.number(0);
            }
            Some(Bound { types, bind, described }) => {
                key.number(if *described { 2 } else { 1 }).list(types.len());
                types.iter().for_each(|&oid| {
                    key.number(u64::from(oid));
                });
                key.bytes(bind);
            }
        }
        if key.is_too_long() { Err(Reason::LongKey) } else { Ok(key) }
    }

    fn key_prefix(&mut self) -> Result<&KeyBytes, Reason> {
        if self.local_variant != 0 {
            return Err(Reason::Setting);
        }
        let prefix = &self.prefix;
        let holds = prefix.bytes.is_some()
            && Arc::ptr_eq(&prefix.settings, self.settings.current())
            && Arc::ptr_eq(&prefix.reported, &self.reported)
            && (prefix.epoch, prefix.shard) == (self.snapshot.epoch, self.wishes.shard());
        if !holds {
            let (settings, reported) = (Arc::clone(self.settings.current()), Arc::clone(&self.reported));
            let (epoch, shard, bytes) = (self.snapshot.epoch, self.wishes.shard(), Some(self.make_prefix()));
            self.prefix = Prefix { settings, reported, epoch, shard, bytes };
        }
        match &self.prefix.bytes {
            Some(Ok(key)) => Ok(key),
            Some(Err(reason)) => Err(*reason),
            None => Err(Reason::Setting),
        }
    }

    fn make_prefix(&self) -> Result<KeyBytes, Reason> {
        let mut key = KeyBytes::default();
        key.text(&self.snapshot.name).text(&self.user.name);
        key.number(self.snapshot.topology.epoch).number(self.snapshot.catalog.epoch);
        key.list(self.search_path.len());
        self.search_path.iter().for_each(|schema| {
            key.text(schema);
        });
        let settings = self.settings.current().iter().filter(|(name, _)| !changes_no_answer(name));
        for (name, value) in settings {
            if !KEYED.contains(&name.as_str()) {
                return Err(Reason::Setting);
            }
            key.text(name).text(value);
        }
        // What the server has where the session sets nothing.
        for name in REPORTED {
            key.optional(self.reported.get(name).map(String::as_bytes));
        }
        key.optional(self.wishes.shard().map(|shard| shard.0.to_be_bytes()).as_ref().map(<[u8; 2]>::as_slice));
        Ok(key)
    }

    /// The reads that follow are to show no less than an entry did.
    fn note_hit(&mut self, decided: &Decided, entry: &Entry) {
        let shards = decided.way.reads().map(|(shards, _)| shards).unwrap_or_default();
        shards.into_iter().for_each(|shard| self.position.saw(shard, entry.ended()));
    }

    /// For an answer that may be kept: from a replica only if that has seen what was written, else from the primary.
    pub(super) fn need_of_fill<'n>(&self, need: Need<'n>, now: Instant) -> Need<'n> {
        let Some(filling) = &self.filling else { return need };
        let later = Need { wrote: need.wrote.max(filling.lead.floor()), ..need };
        match self.snapshot.fleet.choose(&later, now, &[]) {
            Err(Unfit::Wait) => Need { access: balance::Access::Primary, ..need },
            _ => later,
        }
    }

    /// What may be kept is about to be asked for, on these connections.
    pub(super) fn record<'l>(&mut self, client: &mut Channel, lents: impl IntoIterator<Item = &'l Lent>) {
        let most = self.most_kept();
        if let Some(filling) = &mut self.filling {
            lents.into_iter().for_each(|lent| filling.asks(lent));
            client.record(most);
        }
    }

    /// The unit has been answered: keeps what may be kept of it.
    pub(super) fn fill_cache(&mut self, client: &mut Channel) {
        if let Some(filling) = self.filling.take() {
            filling.finish(client.recorded());
        }
    }

    /// Bytes of frames that may become an entry: ReadyForQuery and the like are not of it, but are recorded.
    fn most_kept(&self) -> usize {
        self.snapshot.cache.as_ref().map_or(0, |cache| cache.limits().max_result + EXTRA_BYTES)
    }
}

impl Filling {
    /// The query is about to be sent on this connection.
    fn asks(&mut self, lent: &Lent) {
        let server = u32::from(lent.server.0);
        self.origins.push(match lent.role {
            Role::Primary => Origin::primary(server),
            Role::Replica => Origin::replica(server, lent.caught_up),
        });
    }

    /// Keeps the answer that the client was given, if it was a whole and plain one.
    fn finish(self, recorded: Option<Bytes>) {
        let now = Instant::now();
        if self.origins.is_empty() {
            return self.lead.give_up(Reason::Error);
        }
        let Some(recorded) = recorded else { return self.lead.give_up(Reason::TooLarge) };
        match answer(&recorded) {
            Err(reason) => self.lead.give_up(reason),
            Ok(answer) => {
                let Self { lead, ttl, sent, origins } = self;
                // Why it was not kept is counted; the client has its answer either way.
                drop(lead.keep(Fill { answer, sent, ended: now, origins, ttl }, now));
            }
        }
    }
}

/// The answer among the frames that a client was sent.
fn answer(frames: &Bytes) -> Result<Answer, Reason> {
    let mut answer = Answer::default();
    let (mut at, mut rows) = (0, None);
    while let Ok(Some(header)) = Header::whole(&frames[at..]) {
        let end = at + header.length;
        match header.kind {
            server::ERROR => return Err(Reason::Error),
            server::NOTICE => return Err(Reason::Notice),
            server::PARSE_COMPLETE
            | server::BIND_COMPLETE
            | server::PARAMETER_STATUS
            | server::NOTIFICATION
            | server::READY => {}
            _ if !answer.tag.is_empty() => return Err(Reason::SeveralStatements),
            server::ROW_DESCRIPTION => answer.columns = Some(frames.slice(at..end)),
            server::DATA_ROW => {
                answer.row_count += 1;
                let (start, before) = rows.unwrap_or((at, at));
                if before != at {
                    return Err(Reason::Notice);
                }
                rows = Some((start, end));
            }
            server::COMMAND_COMPLETE => answer.tag = frames.slice(at..end),
            _ => return Err(Reason::NoQuery),
        }
        at = end;
    }
    if at != frames.len() || answer.tag.is_empty() {
        return Err(Reason::Cancelled);
    }
    answer.rows = rows.map_or_else(Bytes::new, |(start, end)| frames.slice(start..end));
    Ok(answer)
}

/// The statement, the body of its Bind and whether its portal is described, where a unit binds and executes one
/// statement and does nothing else.
fn only_read<'s, 'i>(
    steps: &'s [Step],
    frames: &[Frame],
    input: &'i [u8],
) -> Option<(&'s Arc<Prepared>, &'i [u8], bool)> {
    let rest = match steps {
        [Step::Parse { .. }, rest @ ..] => rest,
        rest => rest,
    };
    let (bound, described, execute) = match rest {
        [Step::Bind { prepared, .. }, Step::DescribePortal, Step::Execute, Step::Sync] => (prepared, true, 2),
        [Step::Bind { prepared, .. }, Step::Execute, Step::Sync] => (prepared, false, 1),
        _ => return None,
    };
    let first = steps.len() - rest.len();
    let body = |step: usize| frames.get(first + step).map(|frame| frame.body(input));
    // The unnamed portal, and all its rows.
    let (bind, execute) = (body(0)?, body(execute)?);
    (bind.first() == Some(&0) && execute == [0; 5] && bound.kin.is_none()).then_some((bound, bind, described))
}

/// Writes the answer of an entry as the server would.
pub(super) fn put_entry(out: &mut BytesMut, entry: &Entry) {
    let Answer { columns, rows, tag, .. } = entry.answer();
    out.reserve(entry.answer().bytes() + READY_BYTES);
    columns.iter().for_each(|columns| out.extend_from_slice(columns));
    out.extend_from_slice(rows);
    out.extend_from_slice(tag);
}

/// The same behind the replies to Parse and Bind.
pub(super) fn put_bound_entry(out: &mut BytesMut, entry: &Entry, steps: &[Step]) {
    if matches!(steps.first(), Some(Step::Parse { .. })) {
        put_bare(out, server::PARSE_COMPLETE);
    }
    put_bare(out, server::BIND_COMPLETE);
    put_entry(out, entry);
}

fn changes_no_answer(name: &str) -> bool {
    HARMLESS.contains(&name) || name.starts_with("enable_")
}

/// How long a client waits for another one's same query.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Of replies around an answer.
const EXTRA_BYTES: usize = 1024;
/// Of a ReadyForQuery.
const READY_BYTES: usize = 6;

/// Settings on which an answer's bytes may depend, and which are part of the key.
const KEYED: [&str; 18] = [
    "array_nulls",
    "bytea_output",
    "client_encoding",
    "datestyle",
    "default_text_search_config",
    "extra_float_digits",
    "intervalstyle",
    "lc_messages",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "quote_all_identifiers",
    "role",
    "search_path",
    "session_authorization",
    "timezone",
    "xmlbinary",
    "xmloption",
];

/// Settings that change how a query is carried out, never what it gives.
const HARMLESS: [&str; 22] = [
    "application_name",
    "client_min_messages",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "effective_cache_size",
    "geqo",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "jit",
    "lock_timeout",
    "maintenance_work_mem",
    "max_parallel_workers_per_gather",
    "plan_cache_mode",
    "random_page_cost",
    "seq_page_cost",
    "standard_conforming_strings",
    "statement_timeout",
    "synchronous_commit",
    "temp_buffers",
    "transaction_timeout",
    "work_mem",
];

/// ParameterStatus names of those among them that servers report.
const REPORTED: [&str; 4] = ["DateStyle", "IntervalStyle", "TimeZone", "client_encoding"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::put;
    use bytes::BufMut;

    fn frames(kinds: &[u8]) -> Bytes {
        let mut out = BytesMut::new();
        for &kind in kinds {
            put(&mut out, kind, |body| body.put_u8(b'x'));
        }
        out.freeze()
    }

    #[test]
    fn only_a_whole_and_plain_answer_is_kept() {
        let kept = answer(&frames(b"12TDDCZ")).unwrap();
        assert_eq!((kept.columns.unwrap(), kept.rows, kept.tag), (frames(b"T"), frames(b"DD"), frames(b"C")));
        assert_eq!(kept.row_count, 2);
        assert_eq!(answer(&frames(b"2C")).unwrap().rows, Bytes::new());
        for (kinds, reason) in [
            (&b"2DEZ"[..], Reason::Error),
            (b"2DNDC", Reason::Notice),
            (b"2DSDC", Reason::Notice),
            (b"2DD", Reason::Cancelled),
            (b"2Ds", Reason::NoQuery),
            (b"TDCTDC", Reason::SeveralStatements),
        ] {
            assert_eq!(answer(&frames(kinds)).unwrap_err(), reason, "{}", String::from_utf8_lossy(kinds));
        }
        let whole = frames(b"TDC");
        assert_eq!(answer(&whole.slice(..whole.len() - 1)).unwrap_err(), Reason::Cancelled);
    }
}
