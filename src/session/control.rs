//! Statements that are answered here, without a server: the ends of blocks that never got one, and the proxy's own.

use tokio::time::Instant;

use super::STANDARD_STRINGS;
use super::Session;
use super::lending;
use super::prepared::Prepared;
use super::settings::Change;
use super::transaction::{Begun, Transaction};
use super::wishes;
use crate::balance::Candidate;
use crate::error::{Error, SqlState};
use crate::plan::{Plan, explain};
use crate::statement::{Kind, SettingControl, SettingValue, Statement, TransactionControl, Values};
use crate::topology::Role;
use crate::wire::Status;

/// What a statement that was answered here gives.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Answer {
    pub columns: Option<Vec<&'static str>>,
    pub rows: Vec<Vec<Option<String>>>,
    pub tag: String,
    pub warning: Option<Error>,
}

impl Answer {
    pub(super) fn tag(tag: &str) -> Self {
        Self { tag: tag.to_owned(), ..Self::default() }
    }

    fn warned(tag: &str, warning: Error) -> Self {
        Self { warning: Some(warning), ..Self::tag(tag) }
    }
}

impl Session {
    /// Carries a statement out here, if no server need know of it. `text` is the statement's own.
    pub(super) fn answer(&mut self, statement: &Statement, text: &str) -> Option<Result<Answer, Error>> {
        match &statement.kind {
            // A block that has failed lets nothing pass but its end.
            kind if self.has_failed() && !matches!(kind, Kind::Transaction(_)) => None,
            Kind::Transaction(control) => self.answer_transaction(control, text).map(Ok),
            Kind::Setting(control) => self.answer_setting(control, text),
            Kind::Deallocate { name: Some(name) } => {
                let name = self.own_name(name)?;
                self.names.deallocate(&name);
                Some(Ok(Answer::tag("DEALLOCATE")))
            }
            Kind::Deallocate { name: None } if self.pin.is_none() => {
                self.names.deallocate_all();
                Some(Ok(Answer::tag("DEALLOCATE ALL")))
            }
            _ => None,
        }
    }

    /// Whether [`Session::answer`] would, as the session stands.
    pub(super) fn would_answer(&self, prepared: &Prepared) -> bool {
        use TransactionControl as Control;
        let Some(statement) = prepared.analysis.statements.first() else { return true };
        match (&statement.kind, &self.transaction) {
            (Kind::Transaction(Control::Begin { .. }), transaction) => {
                matches!(transaction, Transaction::Idle | Transaction::Begun(_))
            }
            (Kind::Transaction(Control::Commit { chain } | Control::Rollback { chain }), transaction) => {
                match transaction {
                    Transaction::Idle => !chain,
                    Transaction::Begun(_) | Transaction::Failed(None) => true,
                    Transaction::Open(_) | Transaction::Failed(Some(_)) => false,
                }
            }
            _ if self.has_failed() => false,
            (Kind::Deallocate { name: Some(name) }, _) => self.own_name(name).is_some(),
            (Kind::Deallocate { name: None }, _) => self.pin.is_none(),
            _ => true,
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.transaction.status() == Status::Failed
    }

    fn answer_transaction(&mut self, control: &TransactionControl, text: &str) -> Option<Answer> {
        use TransactionControl as Control;
        let sharded = self.snapshot.database.is_sharded();
        match (&mut self.transaction, control) {
            (Transaction::Idle, Control::Begin { read_only, isolation, .. }) => {
                let begun = Begun {
                    texts: vec![text.to_owned()],
                    read_only: read_only.unwrap_or(false),
                    isolation: *isolation,
                };
                self.transaction = Transaction::Begun(begun);
                Some(Answer::tag(begin_tag(text)))
            }
            (Transaction::Begun(_), Control::Begin { .. }) => Some(already_begun(text)),
            (Transaction::Begun(begun), Control::SetTransaction { read_only, isolation, .. }) => {
                begun.read_only = read_only.unwrap_or(begun.read_only);
                begun.isolation = isolation.or(begun.isolation);
                begun.texts.push(text.to_owned());
                Some(Answer::tag("SET"))
            }
            (Transaction::Begun(begun), Control::Savepoint { name }) if sharded => {
                begun.texts.push(text.to_owned());
                let name = name.clone();
                self.settings.savepoint(&name);
                Some(Answer::tag("SAVEPOINT"))
            }
            (Transaction::Idle, Control::Commit { chain: false }) => Some(nothing_to_end("COMMIT")),
            (Transaction::Idle, Control::Rollback { chain: false }) => Some(nothing_to_end("ROLLBACK")),
            (Transaction::Begun(_), Control::Commit { chain }) => Some(self.end_begun(*chain, true)),
            (Transaction::Begun(_), Control::Rollback { chain }) => Some(self.end_begun(*chain, false)),
            (Transaction::Failed(None), Control::Commit { .. } | Control::Rollback { .. }) => {
                self.transaction = Transaction::Idle;
                self.end_unreached(false);
                Some(Answer::tag("ROLLBACK"))
            }
            _ => None,
        }
    }

    /// What a block leaves that no server knows of.
    pub(super) fn end_unreached(&mut self, commit: bool) {
        if commit {
            self.settings.commit();
        } else {
            self.settings.rollback();
        }
        self.wishes.end(commit);
    }

    /// Ends a block that no server knows of.
    fn end_begun(&mut self, chain: bool, commit: bool) -> Answer {
        self.end_unreached(commit);
        let ended = std::mem::replace(&mut self.transaction, Transaction::Idle);
        if let (true, Transaction::Begun(mut begun)) = (chain, ended) {
            // Its modes are those of the one before.
            let mut is_first = true;
            begun.texts.retain(|text| std::mem::take(&mut is_first) || sets_transaction(text));
            self.transaction = Transaction::Begun(begun);
        }
        Answer::tag(if commit { "COMMIT" } else { "ROLLBACK" })
    }

    fn answer_setting(&mut self, control: &SettingControl, text: &str) -> Option<Result<Answer, Error>> {
        let is_ours = |name: &str| name.starts_with("pgweir.");
        match control {
            SettingControl::Set { name, value, local } if is_ours(name) => {
                let value = value.as_ref().map(|value| value.plain.as_str());
                let in_block = !matches!(self.transaction, Transaction::Idle);
                let setting = wishes::Setting { name, value, local: *local };
                let set = self.wishes.set(&setting, in_block, &self.snapshot.database);
                Some(set.map(|()| match *local && !in_block {
                    true => Answer::warned("SET", Error::new(SqlState("25P01"), LOCAL_OUTSIDE)),
                    false => Answer::tag("SET"),
                }))
            }
            SettingControl::Reset { name } if is_ours(name) => {
                let in_block = !matches!(self.transaction, Transaction::Idle);
                let setting = wishes::Setting { name, value: None, local: false };
                Some(self.wishes.set(&setting, in_block, &self.snapshot.database).map(|()| Answer::tag("RESET")))
            }
            // Every table would be looked for where the session's own path leads (see `plan`).
            SettingControl::Set { name, local: true, .. }
                if name == "search_path" && self.snapshot.database.is_sharded() =>
            {
                let hint = "Use SET, and RESET when the transaction has ended.";
                Some(Err(Error::unsupported("SET LOCAL search_path", hint)))
            }
            SettingControl::Show { name } if is_ours(name) => Some(Ok(Answer {
                columns: Some(vec!["setting"]),
                rows: vec![vec![Some(self.wishes.show(name))]],
                tag: "SHOW".to_owned(),
                warning: None,
            })),
            SettingControl::Set { name, value: Some(SettingValue { plain, .. }), .. }
                if self.snapshot.database.is_sharded() && super::settings::check_readable(name, plain).is_err() =>
            {
                super::settings::check_readable(name, plain).err().map(Err)
            }
            // What comes next is read by it: a server says first what it takes of it.
            SettingControl::Set { name, .. } if name == STANDARD_STRINGS => None,
            SettingControl::Set { name, value: Some(value), local } if self.snapshot.database.is_sharded() => {
                // Which shard the block will be on is not known yet: carried out when it is.
                let Transaction::Begun(begun) = &mut self.transaction else { return None };
                if *local {
                    begun.texts.push(text.to_owned());
                } else {
                    self.settings.apply(&Change::Set { name: name.clone(), value: value.sql.clone() });
                }
                Some(Ok(Answer::tag("SET")))
            }
            _ => None,
        }
    }

    /// `EXPLAIN ROUTE`: what would be done, and why.
    pub(super) fn explain_route(&self, text: &str) -> Result<Answer, Error> {
        let written = self.without_views(text);
        let text = written.as_deref().unwrap_or(text);
        let (entry, literals) = self.station.resolve(text);
        let planned = entry.extra.get(&entry.analysis, &self.snapshot, &self.search_path);
        let mut rows = Vec::new();
        let values = Values { text, literals: &literals, parameters: None };
        for (statement, template) in entry.analysis.statements.iter().zip(&planned.templates) {
            rows.extend(explain::explain(template, &values));
            if let Ok(plan) = template.plan(&values) {
                let wished = self.wishes.apply(plan.clone(), statement);
                if wished != plan {
                    rows.push(("session".to_owned(), wished.render().replace('\n', ", ")));
                }
                self.candidates(&wished, &mut rows);
            }
        }
        Ok(Answer {
            columns: Some(vec!["property", "value"]),
            rows: rows.into_iter().map(|(name, value)| vec![Some(name), Some(value)]).collect(),
            tag: "EXPLAIN".to_owned(),
            warning: None,
        })
    }

    /// The servers of each shard, as they are now and for this session.
    fn candidates(&self, plan: &Plan, rows: &mut Vec<(String, String)>) {
        let (fleet, now) = (self.station.shared.control.fleet(), Instant::now());
        for shard in plan.shards() {
            let place = (&*self.snapshot.database, shard, plan.access);
            let need = lending::need(&self.wishes, &self.user, &self.position, place);
            for Candidate { address, role, lag, score, unfit } in fleet.candidates(&need, now) {
                let role = role.map_or("unknown", |role| if role == Role::Primary { "primary" } else { "replica" });
                let lag = lag.map(|lag| format!(", lag {} ms", lag.as_millis())).unwrap_or_default();
                let fit = unfit.unwrap_or("fit");
                let told = format!("shard {}: {role} {address}{lag}, score {score}: {fit}", shard.0);
                rows.push(("candidate".to_owned(), told));
            }
        }
    }
}

/// `BEGIN` and `START TRANSACTION` are answered as they were written.
pub(super) fn begin_tag(text: &str) -> &'static str {
    if text.trim_start().starts_with(['s', 'S']) { "START TRANSACTION" } else { "BEGIN" }
}
const LOCAL_OUTSIDE: &str = "SET LOCAL can only be used in transaction blocks";

/// SET TRANSACTION, as the client wrote it.
fn sets_transaction(text: &str) -> bool {
    let mut words = text.split_ascii_whitespace();
    let mut is_next = |word: &str| words.next().is_some_and(|next| next.eq_ignore_ascii_case(word));
    is_next("set") && is_next("transaction")
}

pub(super) fn already_begun(text: &str) -> Answer {
    let warning = Error::new(SqlState::ACTIVE_TRANSACTION, "there is already a transaction in progress");
    Answer::warned(begin_tag(text), warning.of_routine("BeginTransactionBlock"))
}

pub(super) fn nothing_to_end(tag: &str) -> Answer {
    let routine = if tag == "COMMIT" { "EndTransactionBlock" } else { "UserAbortTransactionBlock" };
    let warning = Error::new(SqlState("25P01"), "there is no transaction in progress");
    Answer::warned(tag, warning.of_routine(routine))
}
