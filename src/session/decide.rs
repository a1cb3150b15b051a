//! Where a unit of work goes, before any of it is sent.

use smallvec::SmallVec;

use super::cursors::CursorStep;
use super::digest::Step;
use super::effects::{self, Effect};
use super::planned::Planned;
use super::portals::portal_of;
use super::prepared::Prepared;
use super::run::not_utf8;
use super::snapshot::Snapshot;
use super::ties;
use super::transaction::{Begun, Cursor, Open, Transaction};
use super::unit::Frame;
use super::{Letters, Session};
use crate::cache::Touched;
use crate::error::{Error, SqlState};
use crate::plan::{
    Access, CopyIn, CopyOut, Draw, Gather, Keeping, Plan, Route, Scatter, Script, Spread, Staged, Template, Transfer,
    may_only_compute,
};
use crate::statement::{Analysis, Body, Isolation, Kind, LiteralSpan, Parameters, SettingControl, Statement, Values};
use crate::topology::{CrossShardWrites, ShardId};
use crate::wire::{Bind, Status};

/// Where a unit goes, and what it changes in the session if it succeeds.
#[derive(Debug)]
pub(super) struct Decided {
    pub way: Way,
    pub effects: Vec<Effect>,
    /// What it changes for readers, once its transaction commits.
    pub touched: Touched,
    /// Of a write of values that are unique over all shards.
    pub keeping: Option<Keeping>,
}

#[derive(Debug)]
pub(super) enum Way {
    One {
        shard: ShardId,
        access: Access,
    },
    Scatter(Box<Scatter>, Access),
    Gather(Box<Gather>, Access),
    Spread(Box<Spread>),
    Transfer(Box<Transfer>),
    CopyIn(Box<CopyIn>),
    CopyOut(Box<CopyOut>, Access),
    Draw(Box<Draw>),
    Staged(Box<Staged>),
    Script(Box<Script>),
    /// A cursor over several shards.
    Cursor(CursorStep),
}

impl Way {
    /// Of a statement that may be a read, and is none of several steps: the shards that it reads.
    pub(super) fn reads(&self) -> Option<(SmallVec<[ShardId; 4]>, Access)> {
        match self {
            Self::One { shard, access } => Some((SmallVec::from_slice(&[*shard]), *access)),
            Self::Scatter(scatter, access) => Some((scatter.parts.iter().map(|part| part.shard).collect(), *access)),
            Self::Gather(gather, access) => Some((gather.shards().into(), *access)),
            Self::Spread(_)
            | Self::Staged(_)
            | Self::Transfer(_)
            | Self::CopyIn(_)
            | Self::CopyOut(..)
            | Self::Draw(_)
            | Self::Script(_)
            | Self::Cursor(_) => None,
        }
    }
}

/// Where the statements of a unit want to go, taken together.
#[derive(Default)]
struct Wanted {
    /// The first statement that is bound to a shard by its rows.
    fixed: Option<ShardId>,
    /// Where statements go that may go anywhere.
    anywhere: Option<ShardId>,
    access: Option<Access>,
    several: Option<Way>,
    touched: Touched,
    keeping: Option<Keeping>,
    statements: usize,
}

impl Session {
    /// Decides for all statements of a Query.
    pub(super) fn decide_query(
        &self,
        text: &str,
        analysis: &Analysis,
        literals: &[LiteralSpan],
        planned: &Planned,
    ) -> Result<Decided, Error> {
        let (wanted, effects) = self.want(analysis, planned, &Values { text, literals, parameters: None })?;
        self.conclude(wanted, effects)
    }

    /// Decides for a text of the proxy's own making, with the parameters of the one that it was made of.
    pub(super) fn decide_text(&self, text: &str, parameters: Option<&Parameters<'_>>) -> Result<Decided, Error> {
        let (wanted, effects) = self.want_text(text, parameters)?;
        self.conclude(wanted, effects)
    }

    /// Decides for one message of a pipeline.
    pub(super) fn decide_one(&self, prepared: &Prepared, body: &[u8]) -> Result<Decided, Error> {
        let (mut wanted, mut effects) = (Wanted::default(), Vec::new());
        self.decide_bind(prepared, body, &mut wanted, &mut effects)?;
        self.conclude(wanted, effects)
    }

    /// Decides for the messages of a unit up to its Sync (or as many of them as are known).
    pub(super) fn decide_steps(
        &self,
        steps: &[Step],
        frames: &[Frame],
        input: &[u8],
        complete: bool,
    ) -> Result<Decided, Error> {
        let mut effects = Vec::new();
        let mut wanted = Wanted::default();
        let mut parsed = Wanted::default();
        for (step, frame) in steps.iter().zip(frames) {
            match step {
                Step::Bind { prepared, .. } => {
                    self.decide_bind(prepared, frame.body(input), &mut wanted, &mut effects)?;
                }
                Step::Parse { prepared, .. } | Step::DescribeStatement { prepared, .. } if !prepared.is_control() => {
                    parsed.add_parse(self, prepared);
                }
                Step::DescribePortal | Step::ClosePortal => {
                    let name = portal_of(&frame.body(input)[1..])?;
                    if let Some(shard) = self.shard_of_portal(name) {
                        parsed.fix(shard)?;
                    }
                }
                _ => {}
            }
        }
        if wanted.statements == 0 {
            wanted = parsed;
        }
        if !complete {
            // More may follow that is not a read.
            wanted.access = Some(Access::Write);
            wanted.touched = Touched::everything();
        }
        self.conclude(wanted, effects)
    }

    /// Decides for a Bind that came after its unit was sent on its way: it must go the same way.
    pub(super) fn check_bind(&self, prepared: &Prepared, body: &[u8], shard: ShardId) -> Result<Vec<Effect>, Error> {
        let (mut wanted, mut effects) = (Wanted::default(), Vec::new());
        self.decide_bind(prepared, body, &mut wanted, &mut effects)?;
        if wanted.several.is_some() || wanted.fixed.is_some_and(|wanted| wanted != shard) {
            return Err(second_shard(shard));
        }
        Ok(effects)
    }

    /// The same for a Query behind messages of the extended protocol.
    pub(super) fn check_query(&self, text: &str, shard: ShardId) -> Result<Vec<Effect>, Error> {
        let (wanted, effects) = self.want_text(text, None)?;
        if wanted.several.is_some() || wanted.fixed.is_some_and(|wanted| wanted != shard) {
            return Err(second_shard(shard));
        }
        Ok(effects)
    }

    fn decide_bind(
        &self,
        prepared: &Prepared,
        body: &[u8],
        wanted: &mut Wanted,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Error> {
        let text = prepared.readable().unwrap_or_default();
        self.check_views(prepared)?;
        let planned = prepared.plans.get(&prepared.analysis, &self.snapshot, &self.search_path);
        if let Some(by_name) = prepared.names() {
            self.add_effects_of_named(by_name, effects);
        }
        if let (Some((shard, access)), [statement], [template]) =
            (planned.plain, prepared.analysis.statements.as_slice(), planned.templates.as_slice())
        {
            self.check_made(statement)?;
            wanted.touched.merge(&template.touches().what);
            wanted.statements += 1;
            return wanted.add_plan(self, statement, template, Plan { route: Route::One(shard), access });
        }
        let parameters = Parameters::parse(Bind::after_names(body)?, &prepared.types)?;
        if self.letters != Letters::Readable
            && self.snapshot.database.has_text_keys()
            && parameters.each().any(|value| !value.is_ascii())
        {
            return Err(not_utf8());
        }
        let values = Values { text, literals: &prepared.literals, parameters: Some(&parameters) };
        self.want_all(&prepared.analysis, &planned, &values, (wanted, effects))
    }

    fn want_text(&self, text: &str, parameters: Option<&Parameters<'_>>) -> Result<(Wanted, Vec<Effect>), Error> {
        let (entry, literals) = self.station.resolve(text);
        let planned = entry.extra.get(&entry.analysis, &self.snapshot, &self.search_path);
        self.want(&entry.analysis, &planned, &Values { text, literals: &literals, parameters })
    }

    /// For all statements of a text of its own.
    fn want(
        &self,
        analysis: &Analysis,
        planned: &Planned,
        values: &Values<'_>,
    ) -> Result<(Wanted, Vec<Effect>), Error> {
        let (mut wanted, mut effects) = (Wanted::default(), Vec::new());
        self.want_all(analysis, planned, values, (&mut wanted, &mut effects))?;
        if let Some(by_name) = &self.by_name {
            self.add_effects_of_named(by_name, &mut effects);
        }
        Ok((wanted, effects))
    }

    fn want_all(
        &self,
        analysis: &Analysis,
        planned: &Planned,
        values: &Values<'_>,
        (wanted, effects): (&mut Wanted, &mut Vec<Effect>),
    ) -> Result<(), Error> {
        if analysis.body.as_ref().is_some_and(|body| self.want_body(body, (wanted, effects))) {
            return Ok(());
        }
        for (statement, template) in analysis.statements.iter().zip(&planned.templates) {
            if self.snapshot.database.is_sharded() {
                effects::check(statement, values)?;
            }
            self.check_made(statement)?;
            effects::of(statement, Some(values), effects);
            effects::of_template(template, effects);
            wanted.touched.merge(&template.touches().what);
            wanted.keeping = wanted.keeping.or(template.keeping());
            if let Kind::Do(body) = &statement.kind
                && self.want_body(body, (wanted, effects))
            {
                continue;
            }
            let plan = self.recall(statement, values).map_or_else(|| template.plan(values), Ok)?;
            wanted.add(self, statement, template, plan)?;
        }
        Ok(())
    }

    /// Where the statements go that stand in a body, if that is one shard. `false`: it is not known to be.
    fn want_body(&self, body: &Body, (wanted, effects): (&mut Wanted, &mut Vec<Effect>)) -> bool {
        let Snapshot { database, catalog, .. } = &self.snapshot;
        if body.statements.is_empty() || !database.is_sharded() || !may_only_compute(body, catalog) {
            return false;
        }
        let Ok(each) = body.statements.iter().map(|text| self.want_text(text, None)).collect::<Result<Vec<_>, _>>()
        else {
            return false;
        };
        let mut shards = each.iter().filter_map(|(one, _)| one.fixed).chain(wanted.fixed);
        let Some(shard) = shards.next() else { return false };
        let is_plain = |one: &Wanted| one.several.is_none() && one.keeping.is_none();
        if shards.any(|other| other != shard) || !each.iter().all(|(one, _)| is_plain(one)) {
            return false;
        }
        for (one, brought) in each {
            wanted.touched.merge(&one.touched);
            effects.extend(brought);
        }
        wanted.statements += 1;
        wanted.widen(Access::Write);
        wanted.fixed = Some(shard);
        true
    }

    fn conclude(&self, wanted: Wanted, effects: Vec<Effect>) -> Result<Decided, Error> {
        let home = self.snapshot.database.home;
        let (touched, keeping) = (wanted.touched, wanted.keeping);
        let access = wanted.access.unwrap_or(Access::Read);
        if let Transaction::Open(open) = &self.transaction
            && open.has_failed()
        {
            // Its server says so.
            return Ok(Decided { way: Way::One { shard: open.lent.shard, access }, effects, touched, keeping });
        }
        if let Some(way) = wanted.several {
            // What these come to is decided when it is known.
            if !matches!(way, Way::Draw(_) | Way::Script(_)) {
                self.check_several(&way, &effects)?;
            }
            return Ok(Decided { way, effects, touched, keeping });
        }
        let shard = match (&self.transaction, wanted.fixed) {
            (Transaction::Open(open), Some(fixed)) if fixed != open.lent.shard || open.spans() => {
                self.check_reach(open, fixed, access)?;
                fixed
            }
            (Transaction::Open(open), _) => open.lent.shard,
            (_, Some(fixed)) => fixed,
            (_, None) => self.pin.as_ref().map_or_else(|| wanted.anywhere.unwrap_or(home), |pin| pin.lent.shard),
        };
        if let Some(tied) = self.tied_shard().filter(|tied| *tied != shard) {
            self.check_settings_known()?;
            if effects.iter().any(binds) {
                return Err(tied_elsewhere(shard, tied));
            }
        }
        Ok(Decided { way: Way::One { shard, access }, effects, touched, keeping })
    }
}

impl Session {
    /// Where the tables are that a definition changes, if the catalog does not know them because they are temporary.
    fn shard_of_temporary(&self, kind: &Kind) -> Option<ShardId> {
        let Kind::Ddl(ddl) = kind else { return None };
        let made = |open: &Open| ddl.tables.iter().all(|table| open.temporary.contains(&table.name));
        let are_temporary =
            self.pinned == Some(ties::TEMPORARY) || matches!(&self.transaction, Transaction::Open(open) if made(open));
        self.tied_shard().filter(|_| are_temporary)
    }

    /// The shard with what the session cannot take along, or with what may have made such.
    fn tied_shard(&self) -> Option<ShardId> {
        match (&self.pin, &self.transaction) {
            (Some(pin), _) => Some(pin.lent.shard),
            (None, Transaction::Open(open)) => open.tied_shard(),
            _ => None,
        }
    }

    fn check_settings_known(&self) -> Result<(), Error> {
        match self.pinned == Some(ties::SET_CONFIG) {
            true => Err(Error::unsupported(
                "a statement on another shard in a session with settings that only one server knows",
                "Name the setting and its value in the text of set_config or SET; DISCARD ALL forgets all settings.",
            )),
            false => Ok(()),
        }
    }

    /// Where the cursor is that a FETCH, MOVE or CLOSE names.
    fn shard_of_cursor(&self, kind: &Kind) -> Option<ShardId> {
        match kind {
            Kind::Fetch { name, .. } | Kind::CloseCursor { name: Some(name) } | Kind::Positioned { cursor: name } => {
                self.shard_of_portal(name)
            }
            _ => None,
        }
    }

    fn has_merged_cursor(&self, name: &str) -> bool {
        let Transaction::Open(open) = &self.transaction else { return false };
        open.cursors.iter().any(|cursor| cursor.name() == name)
    }

    /// A cursor is a portal, too.
    fn shard_of_portal(&self, name: &str) -> Option<ShardId> {
        match &self.transaction {
            Transaction::Open(open) => {
                open.cursors.iter().rev().find(|cursor| cursor.name() == name).and_then(|cursor| match cursor {
                    Cursor::On(_, shard) => Some(*shard),
                    Cursor::Merged { .. } => None,
                })
            }
            _ => None,
        }
    }
}

/// Over how many shards a transaction may go.
impl Session {
    /// Of a statement on several shards at once.
    fn check_several(&self, way: &Way, effects: &[Effect]) -> Result<(), Error> {
        self.check_settings_known()?;
        let is_write = match way {
            Way::Spread(_) | Way::Transfer(_) | Way::Staged(_) => true,
            Way::CopyIn(copy) => copy.shards.len() > 1,
            // Locks are held until all is committed.
            Way::Scatter(_, Access::Write) => !matches!(self.transaction, Transaction::Idle),
            _ => false,
        };
        if is_write {
            self.check_two_phase()?;
        }
        // What makes a temporary table of rows of all shards does so on the first of its connections.
        let ties_its_own = matches!(way, Way::Staged(plan) if matches!(**plan, Staged::Local(_)));
        let binds = |effect: &Effect| binds(effect) && !(ties_its_own && *effect == Effect::Pin(ties::TEMPORARY));
        match &self.transaction {
            Transaction::Idle => Ok(()),
            Transaction::Begun(_) | Transaction::Open(_) if effects.iter().any(binds) => Err(tied()),
            Transaction::Begun(begun) => self.check_isolation(begun, true),
            Transaction::Open(open) => match &open.begun {
                Some(begun) => self.check_isolation(begun, self.is_everywhere(open)),
                None => Err(second_shard(open.lent.shard)),
            },
            Transaction::Failed(_) => Err(second_shard(self.snapshot.database.home)),
        }
    }

    /// Of a statement on one shard, which need not be the first that the block reaches.
    fn check_reach(&self, open: &Open, shard: ShardId, access: Access) -> Result<(), Error> {
        let begun = open.begun.as_ref().ok_or_else(|| second_shard(open.lent.shard))?;
        if access == Access::Write && open.wrote_elsewhere(shard) {
            self.check_two_phase()?;
        }
        self.check_isolation(begun, self.is_everywhere(open))
    }

    fn is_everywhere(&self, open: &Open) -> bool {
        open.others.len() + 1 == self.snapshot.database.shards.len()
    }

    /// `everywhere`: where it sees one state, it is one of all shards.
    fn check_isolation(&self, begun: &Begun, everywhere: bool) -> Result<(), Error> {
        match self.level_of(begun) {
            Isolation::Serializable => Err(Error::unsupported(
                "a transaction of isolation SERIALIZABLE that reaches several shards",
                "Give every statement of the transaction the same shard key, or use REPEATABLE READ.",
            )),
            Isolation::RepeatableRead if !everywhere => Err(Error::unsupported(
                "a transaction of isolation REPEATABLE READ that has begun on one shard and reaches another",
                "Say BEGIN ISOLATION LEVEL REPEATABLE READ: it then sees one state of all shards.",
            )),
            _ => Ok(()),
        }
    }

    fn check_two_phase(&self) -> Result<(), Error> {
        match self.snapshot.database.cross_shard_writes {
            CrossShardWrites::TwoPhase => self.station.shared.check_two_phase(&self.snapshot.database.name),
            CrossShardWrites::Refuse => Err(Error::unsupported(
                "a write on several shards, by cross_shard_writes = \"refuse\",",
                "Give every statement of the transaction the same shard key.",
            )),
        }
    }
}

/// The server session would keep something that the other shards do not have.
fn binds(effect: &Effect) -> bool {
    ties::makes(effect) || *effect == Effect::Discard
}

fn tied() -> Error {
    Error::unsupported(
        "a statement on several shards that binds the session to one, in a transaction",
        "It makes a temporary table, advisory lock, LISTEN or the like: do that outside of the transaction.",
    )
}

fn tied_elsewhere(shard: ShardId, other: ShardId) -> Error {
    Error::unsupported(
        format!("a session that is tied to shards {} and {} at once", other.0, shard.0),
        "It holds a temporary table, advisory lock, LISTEN or the like: end that first, or make both on one shard.",
    )
}

impl Wanted {
    fn add(&mut self, session: &Session, statement: &Statement, template: &Template, plan: Plan) -> Result<(), Error> {
        self.statements += 1;
        if let Some(shard) = session.shard_of_cursor(&statement.kind) {
            if let Kind::Positioned { .. } = statement.kind {
                self.widen(Access::Write);
            }
            return self.fix(shard);
        }
        if let Kind::Positioned { cursor } = &statement.kind
            && session.has_merged_cursor(cursor)
        {
            let what = "WHERE CURRENT OF a cursor over several shards";
            return Err(Error::unsupported(what, "Name the row by its key."));
        }
        if let Some(step) = session.cursor_step(&statement.kind) {
            self.widen(Access::PrimaryRead);
            return self.add_several(Way::Cursor(step));
        }
        if statement.kind == Kind::LockTable && matches!(session.transaction, Transaction::Idle) {
            // A server says that this is of no use outside of a block.
            return self.fix(session.snapshot.database.home);
        }
        if is_control(&statement.kind) {
            if begins_writing(&statement.kind) {
                self.widen(Access::Write);
            }
            return Ok(());
        }
        if is_ours(&statement.kind) {
            let hint = "Send it in a text or pipeline of its own.";
            return Err(Error::unsupported("a setting of pgweir's own together with other statements", hint));
        }
        self.add_plan(session, statement, template, plan)
    }

    fn add_plan(
        &mut self,
        session: &Session,
        statement: &Statement,
        template: &Template,
        plan: Plan,
    ) -> Result<(), Error> {
        if template.changes_unknown()
            && let Some(shard) = session.shard_of_temporary(&statement.kind)
        {
            self.widen(Access::Write);
            return self.fix(shard);
        }
        let Plan { route, access } = session.wishes.apply(plan, statement);
        self.widen(match statement.kind {
            // They are not read anything from, and mean the same on every server.
            Kind::Setting(_) => Access::PrimaryRead,
            _ => access,
        });
        let several = match route {
            Route::One(shard) if template.floats() => {
                self.anywhere.get_or_insert(shard);
                return Ok(());
            }
            Route::One(shard) => return self.fix(shard),
            Route::Scatter(scatter) => Way::Scatter(scatter, access),
            Route::Gather(gather) => Way::Gather(gather, access),
            Route::Spread(spread) => Way::Spread(spread),
            Route::Transfer(transfer) => Way::Transfer(transfer),
            Route::CopyIn(copy) => Way::CopyIn(copy),
            Route::CopyOut(copy) => Way::CopyOut(copy, access),
            Route::Draw(draw) => Way::Draw(draw),
            Route::Staged(staged) => Way::Staged(staged),
            Route::Script(script) => Way::Script(script),
        };
        self.add_several(several)
    }

    fn add_several(&mut self, several: Way) -> Result<(), Error> {
        if self.statements > 1 || self.several.is_some() {
            return Err(Error::unsupported(
                "more than one statement in a text or pipeline that reaches several shards",
                "Send the statements one by one.",
            ));
        }
        self.several = Some(several);
        Ok(())
    }

    fn fix(&mut self, shard: ShardId) -> Result<(), Error> {
        match self.fixed {
            Some(fixed) if fixed != shard => Err(second_shard(fixed)),
            _ => {
                self.fixed = Some(shard);
                Ok(())
            }
        }
    }

    /// A statement that is only prepared: any shard knows its types.
    fn add_parse(&mut self, session: &Session, prepared: &Prepared) {
        let planned = prepared.plans.get(&prepared.analysis, &session.snapshot, &session.search_path);
        let reads = planned.templates.iter().all(Template::is_proven_read);
        self.widen(if reads { Access::Read } else { Access::PrimaryRead });
    }

    /// One write makes the unit a write; one read that needs the primary sends it there.
    fn widen(&mut self, access: Access) {
        self.access = Some(match (self.access, access) {
            (None, access) => access,
            (Some(Access::Write), _) | (_, Access::Write) => Access::Write,
            (Some(Access::PrimaryRead), _) | (_, Access::PrimaryRead) => Access::PrimaryRead,
            (Some(Access::ReplicaOnly), _) | (_, Access::ReplicaOnly) => Access::ReplicaOnly,
            (Some(Access::Read), Access::Read) => Access::Read,
        });
    }
}

/// Statements that say nothing about where they run.
fn is_control(kind: &Kind) -> bool {
    matches!(kind, Kind::Transaction(_) | Kind::Fetch { .. } | Kind::CloseCursor { .. })
}

/// A block is whole on the primary unless it promises to write nothing. A standby has no serializable ones.
fn begins_writing(kind: &Kind) -> bool {
    use crate::statement::{Isolation, TransactionControl as Control};
    match kind {
        Kind::Transaction(Control::Begin { read_only, isolation, .. }) => {
            *read_only != Some(true) || *isolation == Some(Isolation::Serializable)
        }
        Kind::Transaction(Control::SetTransaction { isolation, .. }) => *isolation == Some(Isolation::Serializable),
        // What was prepared is on the primary.
        Kind::Transaction(Control::TwoPhase) => true,
        _ => false,
    }
}

/// A setting that no server knows. Alone it is answered here.
fn is_ours(kind: &Kind) -> bool {
    use SettingControl as Control;
    let Kind::Setting(Control::Set { name, .. } | Control::Reset { name } | Control::Show { name }) = kind else {
        return false;
    };
    name.starts_with("pgweir.")
}

fn second_shard(first: ShardId) -> Error {
    Error::unsupported(
        format!("a transaction or pipeline that has begun on shard {} and reaches another one", first.0),
        "Give every statement of the transaction the same shard key.",
    )
}

/// What the failed state of a transaction lets pass: its end, and going back to a savepoint.
pub(super) fn check_failed(analysis: &Analysis) -> Result<(), Error> {
    use crate::statement::TransactionControl as Control;
    let ends = |kind: &Kind| {
        matches!(
            kind,
            Kind::Transaction(Control::Commit { .. } | Control::Rollback { .. } | Control::RollbackTo { .. })
        )
    };
    match analysis.statements.first() {
        Some(first) if ends(&first.kind) => Ok(()),
        _ => Err(block_has_failed()),
    }
}

pub(super) fn block_has_failed() -> Error {
    let message = "current transaction is aborted, commands ignored until end of transaction block";
    Error::new(SqlState::FAILED_TRANSACTION, message)
}

/// Where the session stands, as the client is told.
impl Transaction {
    pub(super) fn status(&self) -> Status {
        match self {
            Self::Idle => Status::Idle,
            Self::Begun { .. } => Status::InTransaction,
            Self::Open(open) => open.lent.connection.status,
            Self::Failed(_) => Status::Failed,
        }
    }
}
