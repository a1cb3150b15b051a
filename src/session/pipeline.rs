//! A unit of the extended protocol whose statements do not all go to one shard: carried out message by message.
//!
//! PostgreSQL makes one transaction of it. So does this: one statement commits by itself; several are a block that
//! ends at the Sync, on as many shards as they need.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::time::Instant;

use super::block::{Came, concerns_all};
use super::carry::Stopped;
use super::control::nothing_to_end;
use super::cursors::read_by_cursor;
use super::decide::{Decided, Way, block_has_failed};
use super::digest::{Step, Steps};
use super::effects::Effect;
use super::local::{put_columns, slice};
use super::named::Wanted;
use super::names::Done;
use super::numbers::must_expect_copies;
use super::portals::{Pipeline, Portal, execute_of, portal_of};
use super::prepared::Prepared;
use super::run::{End, drop_frame};
use super::transaction::{Begun, Transaction};
use super::unit::{Frame, STATEMENT_BYTES};
use super::{Altered, Session};
use crate::cache::Touched;
use crate::error::{Error, SqlState};
use crate::executor::{BUFFER_BYTES, Broken, Ended, Reading, Request, Told, Writing, Written, describe, single};
use crate::figures::Route;
use crate::plan::{Access, Part, Surroundings, of_each_shard};
use crate::statement::{Kind, Statement, TransactionControl, constraints};
use crate::topology::ShardId;
use crate::wire::frame::{Header, client, put, server};
use crate::wire::message::{put_bare, put_command_complete, put_ready};
use crate::wire::{Bind, Channel, Status, put_formats};

impl Session {
    /// `frames` of `input` are the unit as far as it is there; the rest is read up to its Sync.
    pub(super) async fn serve_steps(
        &mut self,
        client: &mut Channel,
        steps: Steps,
        frames: &[Frame],
        input: &Bytes,
    ) -> Result<(), End> {
        self.send_answers(client).await?;
        let body = |frame: &Frame| input.slice_ref(frame.body(input));
        let mut pipeline = Pipeline {
            steps: steps.into_iter().zip(frames.iter().map(body)).collect(),
            portals: self.bound_portals(),
            implicit: false,
            named: 0,
            proven: 0,
            skipping: false,
        };
        loop {
            let Some((step, body)) = pipeline.steps.pop_front() else {
                match self.read_step(client, &mut pipeline).await? {
                    Some(query) => return self.end_by_query(client, &pipeline, query).await,
                    None => continue,
                }
            };
            if pipeline.skipping && !matches!(step, Step::Sync) {
                continue;
            }
            let is_end = matches!(step, Step::Sync);
            let is_rest = matches!(step, Step::Flush) && pipeline.has_only_prepared();
            if let Err(stopped) = self.take_step(client, &mut pipeline, step, body).await? {
                self.put_stopped(&mut client.output, &stopped);
                self.names.settle(Done::Some(pipeline.proven));
                pipeline.skipping = true;
            }
            if is_end {
                self.keep_portals(pipeline);
                self.names.settle(Done::All);
                self.put_news(&mut client.output);
                put_ready(&mut client.output, self.transaction.status());
                return Ok(());
            }
            if is_rest {
                // What follows need not go the same way.
                self.keep_portals(pipeline);
                self.names.settle(Done::All);
                return Ok(());
            }
            if client.output.len() >= BUFFER_BYTES {
                client.flush().await.map_err(End::Gone)?;
            }
        }
    }

    /// Sends what is due and waits for the next message. One that is not of the extended protocol stays where it is.
    async fn read_step(&mut self, client: &mut Channel, pipeline: &mut Pipeline) -> Result<Option<Header>, End> {
        client.flush().await.map_err(End::Gone)?;
        let header = loop {
            match Header::read(&client.input).map_err(End::Refused)? {
                Some(header) if header.length <= client.input.len() || header.length > STATEMENT_BYTES => break header,
                _ => self.read_within(client).await?,
            }
        };
        let skipped = pipeline.skipping && header.kind != client::SYNC;
        match header.kind {
            client::TERMINATE => return Err(End::Left),
            _ if skipped => return drop_frame(client, header).await.map(|()| None),
            client::QUERY | client::FUNCTION_CALL => return Ok(Some(header)),
            client::COPY_DATA | client::COPY_DONE | client::COPY_FAIL => {
                return drop_frame(client, header).await.map(|()| None);
            }
            _ => {}
        }
        if header.length > client.input.len() {
            drop_frame(client, header).await?;
            let message =
                format!("a message longer than {STATEMENT_BYTES} bytes is not supported on a sharded database");
            let hint = "Send the long value in a statement of its own, by COPY or in parts.";
            let error = Error::new(SqlState::TOO_LARGE, message).with_hint(hint);
            pipeline.steps.push_back((Step::Refused(Box::new(error)), Bytes::new()));
            return Ok(None);
        }
        let body = client.input.split_to(header.length).freeze().slice(Header::BYTES..);
        let step = self.digest(header.kind, &body);
        pipeline.steps.push_back((step, body));
        Ok(None)
    }

    /// A Query ends what came before it as a Sync does, and is in the same transaction: of which nothing may depend on
    /// it that is not its own.
    async fn end_by_query(&mut self, client: &mut Channel, pipeline: &Pipeline, query: Header) -> Result<(), End> {
        let came = match &self.transaction {
            Transaction::Open(open) if pipeline.implicit && open.has_written() => {
                let hint = "Send a Sync before the Query.";
                Ok(Err(Error::unsupported("a Query in the transaction of a pipeline that wrote", hint).into()))
            }
            _ => self.end_implicit(client, pipeline.implicit).await,
        };
        self.names.settle(Done::All);
        let Err(stopped) = came? else { return Ok(()) };
        self.put_stopped(&mut client.output, &stopped);
        if pipeline.implicit
            && let Err(stopped) = self.end_implicit(client, true).await?
        {
            self.put_stopped(&mut client.output, &stopped);
        }
        drop_frame(client, query).await?;
        put_ready(&mut client.output, self.transaction.status());
        Ok(())
    }

    async fn take_step(&mut self, client: &mut Channel, pipeline: &mut Pipeline, step: Step, body: Bytes) -> Came<()> {
        let out = &mut client.output;
        match step {
            Step::Parse { prepared, .. } => {
                // Whoever comes next finds out what is wrong with it.
                let used =
                    matches!(pipeline.steps.front(), Some((Step::Bind { .. } | Step::DescribeStatement { .. }, _)));
                if !used && !prepared.is_control() {
                    let came = self.describe_step(client, &prepared, true).await?;
                    if came.is_err() {
                        return Ok(came);
                    }
                    pipeline.proven = pipeline.named + 1;
                }
                pipeline.named += 1;
                put_bare(&mut client.output, server::PARSE_COMPLETE);
            }
            Step::Bind { prepared, .. } => {
                self.forget_portal(portal_of(&body).unwrap_or_default());
                if let Err(error) = pipeline.bind(prepared, body, out) {
                    return Ok(Err(error.into()));
                }
            }
            Step::DescribeStatement { prepared, .. } => {
                let came = self.describe_step(client, &prepared, false).await?;
                pipeline.prove(&came);
                return Ok(came);
            }
            Step::DescribePortal => {
                if let Some(described) = self.describe_kept(portal_of(&body[1..]).unwrap_or_default(), out) {
                    return Ok(described.map_err(Stopped::from));
                }
                match pipeline.describe(&body, out) {
                    Ok(None) => {}
                    Ok(Some(portal)) => return self.describe_apart(client, &portal).await,
                    Err(error) => return Ok(Err(error.into())),
                }
            }
            Step::Execute => {
                let portal = pipeline.portals.get(portal_of(&body).unwrap_or_default());
                pipeline.named += usize::from(portal.is_some_and(|portal| portal.prepared.forgets_all()));
                let came = self.execute_step(client, pipeline, &body).await?;
                pipeline.prove(&came);
                return Ok(came);
            }
            Step::CloseStatement => {
                pipeline.proven += usize::from(pipeline.proven == pipeline.named);
                pipeline.named += 1;
                put_bare(out, server::CLOSE_COMPLETE);
            }
            Step::ClosePortal => {
                let name = portal_of(&body[1..]).unwrap_or_default();
                pipeline.portals.remove(name);
                self.forget_portal(name);
                put_bare(out, server::CLOSE_COMPLETE);
            }
            Step::Flush => client.flush().await.map_err(End::Gone)?,
            Step::Sync => return self.end_implicit(client, pipeline.implicit).await,
            Step::Refused(error) | Step::Taken(error) => return Ok(Err((*error).into())),
        }
        Ok(Ok(()))
    }

    /// The end of what PostgreSQL makes one transaction of by itself, if it is open (`implicit`).
    pub(super) async fn end_implicit(&mut self, client: &mut Channel, implicit: bool) -> Came<()> {
        if !implicit {
            return Ok(Ok(()));
        }
        match std::mem::replace(&mut self.transaction, Transaction::Idle) {
            Transaction::Open(open) => Ok(self.end_block_of_all(client, open, true, false).await?.map(|_| ())),
            Transaction::Failed(Some(open)) => Ok(self.end_block_of_all(client, open, false, false).await?.map(|_| ())),
            other => {
                self.end_unreached(matches!(other, Transaction::Begun(_)));
                Ok(Ok(()))
            }
        }
    }

    /// What a portal gives that is not executed yet: the columns of its statement, in the formats that its Bind asks for.
    async fn describe_apart(&mut self, client: &mut Channel, portal: &Portal) -> Came<()> {
        let place = client.put_so_far();
        let held = client.hold(usize::MAX);
        let came = self.describe_step(client, &portal.prepared, false).await;
        client.hold(held);
        let (Ok(Ok(())), Some(told)) = (&came, client.put_since(place).map(BytesMut::from)) else { return came };
        client.take_back(place);
        match Bind::read(&portal.body) {
            Ok(bind) => put_columns_of_portal(&mut client.output, told, &bind.result_formats),
            Err(error) => return Ok(Err(error.into())),
        }
        came
    }

    /// Any shard knows what a statement's parameters and columns are.
    async fn describe_step(&mut self, client: &mut Channel, prepared: &Arc<Prepared>, quiet: bool) -> Came<()> {
        if let Transaction::Failed(_) = self.transaction {
            return Ok(self.check_block(&prepared.analysis).map_err(Stopped::from));
        }
        if let Some(columns) = self.columns_of_cursor(prepared) {
            put(&mut client.output, server::PARAMETER_DESCRIPTION, |body| body.put_u16(0));
            put(&mut client.output, server::ROW_DESCRIPTION, |body| body.extend_from_slice(&columns));
            return Ok(Ok(()));
        }
        if prepared.is_control() {
            put(&mut client.output, server::PARAMETER_DESCRIPTION, |body| body.put_u16(0));
            put_columns(&mut client.output, prepared);
            return Ok(Ok(()));
        }
        let other = self.executed_by(prepared);
        let prepared = other.as_ref().unwrap_or(prepared);
        let statement = (&*prepared.text, &*prepared.types);
        let told = match (quiet, other.is_some()) {
            (true, _) => Told::Nothing,
            // An EXECUTE has no parameters of its own.
            (false, true) => Told::Columns,
            (false, false) => Told::All,
        };
        let described = if let Transaction::Open(open) = &mut self.transaction {
            describe(client, &mut open.lent.connection, statement, told).await
        } else {
            let mut lent = match self.lend_ready(self.snapshot.database.home, Access::PrimaryRead, None).await {
                Ok(lent) => lent,
                Err(stopped) => return Ok(Err(stopped)),
            };
            let described = describe(client, &mut lent.connection, statement, told).await;
            self.part_with(lent, described.is_ok(), Instant::now());
            described
        };
        match described {
            Ok(Ended::Done) => Ok(Ok(())),
            Ok(Ended::Failed(frame)) => {
                self.meter.failed(&frame[Header::BYTES..]);
                Ok(Err(Stopped::Told))
            }
            Ok(Ended::Refused(error)) => Ok(Err(error.into())),
            Err(broken) => match std::mem::replace(&mut self.transaction, Transaction::Idle) {
                Transaction::Open(open) => self.break_off(*open, broken),
                other => {
                    self.transaction = other;
                    end_of(broken)
                }
            },
        }
    }

    async fn execute_step(&mut self, client: &mut Channel, pipeline: &mut Pipeline, body: &[u8]) -> Came<()> {
        let (name, rows) = match execute_of(body) {
            Ok(execute) => execute,
            Err(error) => return Ok(Err(error.into())),
        };
        if self.has_read_portal(name) {
            if self.has_failed() {
                return Ok(Err(block_has_failed().into()));
            }
            self.read_on_portal(client, name, rows);
            return Ok(Ok(()));
        }
        if self.has_merged_portal(name) {
            if self.has_failed() {
                return Ok(Err(block_has_failed().into()));
            }
            return self.read_on_merged(client, name, rows, Request::more(&Bind::default())).await;
        }
        let Some(portal) = pipeline.take(name) else {
            let message = format!("portal \"{name}\" does not exist");
            return Ok(Err(Error::new(SqlState::UNKNOWN_PORTAL, message).into()));
        };
        let prepared = &portal.prepared;
        if let Err(error) = self.check_block(&prepared.analysis) {
            return Ok(Err(error.into()));
        }
        let text = prepared.readable().unwrap_or_default();
        match prepared.analysis.statements.first().map(|statement| (statement, &statement.kind)) {
            Some((statement, Kind::Transaction(control))) => {
                self.execute_control(client, &mut pipeline.implicit, (statement, text), control).await
            }
            _ if self.is_answered_here(prepared) => {
                Ok(self.execute_here(prepared, &mut client.output).map_err(Stopped::from))
            }
            Some((statement, _)) if self.names_statement(text, &prepared.analysis) => {
                let bound = Some((&*portal.body, name));
                let wanted = Wanted { bound, described: portal.described, rows };
                Box::pin(self.run_named(client, pipeline, (statement, text), wanted)).await
            }
            Some((statement, kind)) if concerns_all(kind) && self.has_open_block() => {
                self.execute_in_all(client, (statement, text)).await
            }
            _ => self.execute_routed(client, pipeline, &portal, (name, rows)).await,
        }
    }

    pub(super) fn has_open_block(&self) -> bool {
        matches!(self.transaction, Transaction::Open(_) | Transaction::Failed(Some(_)))
    }

    /// BEGIN, COMMIT and their kin. `implicit`: the block that is open, if any, is PostgreSQL's own.
    pub(super) async fn execute_control(
        &mut self,
        client: &mut Channel,
        implicit: &mut bool,
        (statement, text): (&Statement, &str),
        control: &TransactionControl,
    ) -> Came<()> {
        use TransactionControl as Control;
        let is_implicit = *implicit && !matches!(self.transaction, Transaction::Failed(_));
        if is_implicit && matches!(control, Control::Begin { .. }) {
            // What ran before belongs to the block that begins.
            *implicit = false;
            if self.has_open_block() {
                put_command_complete(&mut client.output, "BEGIN");
                return Ok(Ok(()));
            }
            self.transaction = Transaction::Idle;
        }
        if is_implicit && matches!(control, Control::Commit { .. } | Control::Rollback { .. }) {
            *implicit = false;
            let tag = if matches!(control, Control::Commit { .. }) { "COMMIT" } else { "ROLLBACK" };
            let warning = nothing_to_end(tag).warning;
            warning.iter().for_each(|warning| self.warn(&mut client.output, warning));
            if !self.has_open_block() {
                self.transaction = Transaction::Begun(Begun::implicit());
            }
        }
        if self.has_open_block() {
            return self.execute_in_all(client, (statement, text)).await;
        }
        Ok(self.execute_statement_here(text, statement, &mut client.output).map_err(Stopped::from))
    }

    pub(super) async fn execute_in_all(
        &mut self,
        client: &mut Channel,
        (statement, text): (&Statement, &str),
    ) -> Came<()> {
        let came = self.control_block(client, statement, slice(text, statement.tokens)).await?;
        self.put_news(&mut client.output);
        Ok(came.map(|answer| self.put_answer(&mut client.output, &answer, false)))
    }

    /// The proxy's own statements, and what needs no server as the session stands.
    fn is_answered_here(&self, prepared: &Prepared) -> bool {
        match prepared.analysis.statements.first() {
            None => true,
            Some(_) => prepared.is_control() && self.would_answer(prepared),
        }
    }

    /// On its shard, or its shards.
    pub(super) async fn execute_routed(
        &mut self,
        client: &mut Channel,
        pipeline: &mut Pipeline,
        portal: &Portal,
        (name, rows): (&str, u32),
    ) -> Came<()> {
        let prepared = &portal.prepared;
        let statement = prepared.analysis.statements.first();
        let takes_rows = statement.is_some_and(|only| matches!(&only.kind, Kind::Copy(copy) if copy.from));
        // What the client sends behind its rows is in the same transaction.
        if matches!(self.transaction, Transaction::Idle) && (takes_rows || !pipeline.ends_now()) {
            self.transaction = Transaction::Begun(Begun::implicit());
            pipeline.implicit = true;
        }
        let bound = Bind::read(&portal.body);
        let (mut decided, bind) =
            match self.decide_one(prepared, &portal.body).and_then(|decided| Ok((decided, bound?))) {
                Ok(decided) => decided,
                Err(error) => return Ok(Err(error.into())),
            };
        let types = match self.types_of_values(prepared, &portal.body).await? {
            Ok(types) => types,
            Err(stopped) => return Ok(Err(stopped)),
        };
        let is_copy = statement.is_some_and(|statement| matches!(statement.kind, Kind::Copy(_)));
        let is_query = statement.is_some_and(|statement| statement.kind == Kind::Query);
        // Where the transaction goes on, the client may come back for more.
        let is_cut = rows > 0 && is_query && !matches!(self.transaction, Transaction::Idle);
        let request = match (is_copy, &decided.way) {
            (false, _) => Request::Extended {
                text: &prepared.text,
                types: &types,
                bind: &bind,
                described: portal.described,
                bound: portal.announced,
                rows: if is_cut { 0 } else { rows },
            },
            // It has no parameters and gives no columns: the servers are asked in the simple protocol.
            (true, Way::Gather(..) | Way::Scatter(..) | Way::CopyOut(..) | Way::CopyIn(_)) => {
                if takes_rows && !pipeline.hand_back(&mut client.input) {
                    let hint = "Send what comes before it or behind its rows by itself.";
                    return Ok(Err(Error::unsupported("COPY FROM STDIN with messages before its rows", hint).into()));
                }
                if !portal.announced {
                    put_bare(&mut client.output, server::BIND_COMPLETE);
                }
                if portal.described {
                    put_bare(&mut client.output, server::NO_DATA);
                }
                Request::Simple { text: &prepared.text }
            }
            (true, _) => {
                let hint = "Send it by itself, or by the simple protocol.";
                return Ok(Err(Error::unsupported("COPY within a pipeline", hint).into()));
            }
        };
        if !is_cut {
            return self.carry_decided(client, decided, request).await;
        }
        let cursor = read_by_cursor(&mut decided.way, &prepared.text);
        // The rows may turn out to be no cursor's after all; then they are all held here.
        let place = client.put_so_far();
        client.hold(client.output.len() + self.limits().merge);
        let came = self.carry_decided(client, decided, request).await;
        client.hold(0);
        if !matches!(came, Ok(Ok(()))) {
            return came;
        }
        match cursor.filter(|cursor| self.description_of(cursor).is_some()) {
            Some(cursor) => self.begin_portal(client, cursor, (name, rows), request).await,
            None => {
                self.cut_answer(client, name, (place, rows));
                came
            }
        }
    }

    /// A statement that is not relayed, on its shard or its shards.
    pub(super) async fn carry_decided(
        &mut self,
        client: &mut Channel,
        decided: Decided,
        request: Request<'_>,
    ) -> Came<()> {
        let ddl = decided.effects.contains(&Effect::Ddl);
        let Decided { way, effects, touched, keeping } = decided;
        let doubts = if ddl { self.doubts(&way, request.text()) } else { HashSet::new() };
        let came = match way {
            Way::One { shard, access } => {
                self.carry_single(client, (shard, access), (&effects, &touched), request).await?
            }
            Way::Scatter(plan, access) => self.carry_read(client, Reading::Scatter(&plan), access, request).await?,
            Way::Gather(plan, access) => self.carry_read(client, Reading::Gather(&plan), access, request).await?,
            Way::Transfer(plan) => self.carry_transfer(client, (&plan, keeping), request, &touched).await?,
            Way::Spread(plan) => {
                if self.pin.is_some() {
                    self.doubt_ties(&effects);
                }
                self.carry_write(client, Writing { plan: Written::Spread(&plan), keeping }, request, &touched).await?
            }
            Way::Script(plan) => self.carry_script(client, &plan, request).await?,
            Way::Draw(plan) => self.carry_draw(client, &plan, request).await?,
            Way::CopyIn(plan) => self.carry_copy_in(client, (&plan, keeping), request, &touched).await?,
            Way::CopyOut(plan, access) => self.carry_read(client, Reading::Copy(&plan), access, request).await?,
            Way::Staged(plan) => {
                self.carry_write(client, Writing { plan: Written::Staged(&plan), keeping }, request, &touched).await?
            }
            Way::Cursor(step) => self.carry_cursor(client, &step, request).await?,
        };
        if let (Ok(()), Transaction::Open(open)) = (&came, &mut self.transaction) {
            open.note_temporary(&effects);
        }
        if ddl {
            if let Ok(()) = came {
                self.note_doubts(doubts);
                self.warn_of_constraints(client, request.text());
            }
            self.renews |= effects.contains(&Effect::Renews);
            self.note_ddl(&[]);
            self.settle_catalog().await;
        }
        Ok(came)
    }

    /// DDL has run, by the statements of these effects.
    pub(super) fn note_ddl(&mut self, effects: &[Effect]) {
        let how = if effects.contains(&Effect::Unseen) { Altered::Maybe } else { Altered::Surely };
        self.altered = self.altered.max(how);
        self.renews |= effects.contains(&Effect::Renews);
        self.names.hold_to_told();
    }

    /// Once the transaction is over in which DDL has run.
    pub(super) async fn settle_catalog(&mut self) {
        if self.altered != Altered::Not && matches!(self.transaction, Transaction::Idle) {
            let is_sure = std::mem::replace(&mut self.altered, Altered::Not) == Altered::Surely;
            if std::mem::take(&mut self.renews) {
                self.station.shared.pools.renew(|_| true);
            }
            self.station.shared.catalog_changed(&self.snapshot.database, is_sure).await;
            self.meter.answered();
        }
    }

    /// What a constraint of the DDL does not promise.
    fn warn_of_constraints(&self, client: &mut Channel, text: &[u8]) {
        let (database, catalog) = (&self.snapshot.database, &self.snapshot.catalog);
        let surroundings = Surroundings { database, catalog, search_path: &self.search_path };
        let found = constraints(std::str::from_utf8(text).unwrap_or_default());
        let warnings = of_each_shard(&found, &surroundings);
        warnings.iter().for_each(|warning| self.warn(&mut client.output, warning));
    }

    /// A statement on one shard.
    pub(super) async fn carry_single(
        &mut self,
        client: &mut Channel,
        (shard, access): (ShardId, Access),
        (effects, touched): (&[Effect], &Touched),
        request: Request<'_>,
    ) -> Came<()> {
        let mut open = match self.take_connection(shard, access).await {
            Ok(open) => open,
            Err(stopped) => return Ok(Err(stopped)),
        };
        if self.by_name.is_some() {
            open = match self.make_named_known(open).await {
                Ok(open) => open,
                Err(stopped) => return Ok(Err(stopped)),
            };
        }
        self.meter.route = Route::One(open.lent.shard, open.lent.role);
        self.put_news(&mut client.output);
        let was_in_block = open.lent.connection.status != Status::Idle;
        open.wrote |= access == Access::Write;
        self.touch(&mut open.lent, touched, !was_in_block);
        self.record(client, [&open.lent]);
        if must_expect_copies(&open, effects) {
            let copies = self.copies_in(request.text());
            open = match Box::pin(self.expect_copies(copies, open)).await {
                Ok(open) => open,
                Err(stopped) => return Ok(Err(stopped)),
            };
        }
        let part = Part { shard, text: None, parameters: None };
        request.put(&mut open.lent.connection, &part, 0, request.rows());
        let mut heard = Vec::new();
        let mut report = |name: &str, value: &str| heard.push((name.to_owned(), value.to_owned()));
        let ended = single(client, &mut open.lent.connection, request, &mut report).await;
        heard.iter().for_each(|(name, value)| self.hear_and_tell(name, value));
        open.heard.append(&mut heard);
        match ended {
            Ok(Ended::Done) => {
                self.settle(open, effects, false, was_in_block);
                Ok(Ok(()))
            }
            Ok(Ended::Failed(frame)) => {
                self.meter.failed(&frame[Header::BYTES..]);
                self.settle(open, effects, true, was_in_block);
                Ok(Err(Stopped::Told))
            }
            Ok(Ended::Refused(error)) => {
                self.settle(open, effects, true, was_in_block);
                Ok(Err(error.into()))
            }
            Err(broken) if was_in_block => self.break_off(*open, broken),
            Err(Broken::Server { error, midway: false }) => {
                self.lose(*open, false, &[]);
                Ok(Err(error.into()))
            }
            Err(broken) => {
                open.abandon();
                end_of(broken)
            }
        }
    }
}

/// Of what was told of a statement, what is to be told of its portal.
fn put_columns_of_portal(out: &mut BytesMut, mut told: BytesMut, formats: &[u16]) {
    while let Ok(Some(header)) = Header::whole(&told) {
        let mut frame = told.split_to(header.length);
        match header.kind {
            server::PARAMETER_DESCRIPTION => continue,
            server::ROW_DESCRIPTION => put_formats(&mut frame[Header::BYTES..], formats),
            _ => {}
        }
        out.extend_from_slice(&frame);
    }
}

/// Of a connection that was outside of a block.
fn end_of(broken: Broken) -> Came<()> {
    match broken {
        Broken::Server { error, midway: false } => Ok(Err(error.into())),
        Broken::Server { error, .. } | Broken::Refused(error) => Err(End::Refused(error)),
        Broken::Client(cause) => Err(End::Gone(cause)),
    }
}
