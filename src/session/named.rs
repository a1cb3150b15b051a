//! PREPARE and EXECUTE as SQL on a sharded database: what is prepared is a statement as those of the extended protocol
//! are, and is executed with its arguments on whichever shards they belong to.

use std::fmt::Write;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::time::Instant;

use super::Session;
use super::block::Came;
use super::by_name::make_one_known;
use super::carry::Stopped;
use super::decide::{Decided, Way};
use super::digest::unknown;
use super::local::slice;
use super::portals::{Pipeline, Portal};
use super::prepared::Prepared;
use super::run::End;
use super::transaction::Transaction;
use crate::backend::Connection;
use crate::error::{Error, SqlState};
use crate::executor::Request;
use crate::plan::Access;
use crate::statement::{
    Analysis, Argument, Constant, Execution, Kind, NameOfPrepared, Naming, Statement, execution, prepared_names,
};
use crate::wire::frame::{Header, put_text};
use crate::wire::message::{put_command_complete, put_ready};
use crate::wire::{Bind, Channel};

/// How the answer of a statement is wanted that names another one.
#[derive(Clone, Copy, Default)]
pub(super) struct Wanted<'a> {
    /// Of an Execute: the body of the Bind of its portal, and the portal.
    pub bound: Option<(&'a [u8], &'a str)>,
    /// The client is to be told the columns.
    pub described: bool,
    /// So many rows at most; 0: all.
    pub rows: u32,
}

impl Session {
    /// On a sharded database a text that makes or uses a prepared statement is no server's.
    pub(super) fn names_statement(&self, text: &str, analysis: &Analysis) -> bool {
        analysis.names_prepared
            && self.snapshot.database.is_sharded()
            && analysis.statements.iter().any(|statement| names(text, statement))
    }

    /// A Query of one such statement, at the front of the input.
    pub(super) async fn serve_named(&mut self, client: &mut Channel, header: Header) -> Result<(), End> {
        let frame = client.input.split_to(header.length).freeze();
        let text = std::str::from_utf8(&frame[Header::BYTES..header.length - 1]).unwrap_or_default();
        let entry = Arc::clone(&self.station.resolve(text).0.analysis);
        let came = match (self.check_block(&entry), entry.statements.first()) {
            (Err(error), _) => Err(error.into()),
            (Ok(()), None) => Ok(()),
            (Ok(()), Some(statement)) => {
                self.run_named(client, &mut Pipeline::of_one(), (statement, text), Wanted::default()).await?
            }
        };
        match came {
            Ok(()) => {
                self.put_news(&mut client.output);
                put_ready(&mut client.output, self.transaction.status());
            }
            Err(stopped) => self.tell(client, &stopped),
        }
        Ok(())
    }

    /// Carries out a statement for which [`Session::names_statement`] holds. `text` has no other.
    pub(super) async fn run_named(
        &mut self,
        client: &mut Channel,
        pipeline: &mut Pipeline,
        (statement, text): (&Statement, &str),
        wanted: Wanted<'_>,
    ) -> Came<()> {
        let text = slice(text, statement.tokens);
        match &statement.kind {
            Kind::Prepare { .. } => self.prepare_by_sql(client, text).await,
            Kind::Execute { .. } => self.execute_by_name(client, pipeline, text, wanted).await,
            Kind::Explain { .. } => self.explain_by_name(client, text, wanted).await,
            _ => self.create_by_name(client, text).await,
        }
    }

    /// CREATE TABLE … AS EXECUTE is that of the query which is executed.
    async fn create_by_name(&mut self, client: &mut Channel, text: &str) -> Came<()> {
        let hint = "Create the table first, then insert into it.";
        let refused = || Ok(Err(Error::unsupported("this CREATE TABLE AS EXECUTE", hint).into()));
        let Some(named) = prepared_names(text).into_iter().next() else { return self.reject(text).await };
        let Some(prepared) = self.names.find(&named.name).cloned() else { return Ok(Err(unknown(&named.name).into())) };
        let (before, behind) = (&text[..named.place.start], text[named.place.end..].trim_start());
        let head = before.trim_end().len().checked_sub("EXECUTE".len());
        let (Some(head), Some(query), 0) = (head, prepared.readable(), prepared.analysis.parameters) else {
            return refused();
        };
        if behind.starts_with('(') {
            return refused();
        }
        let made = format!("{}{query} {behind}", &before[..head]);
        match self.decide_text(&made, None) {
            Ok(decided) => {
                Box::pin(self.carry_decided(client, decided, Request::Simple { text: made.as_bytes() })).await
            }
            Err(error) => Ok(Err(error.into())),
        }
    }

    async fn prepare_by_sql(&mut self, client: &mut Channel, text: &str) -> Came<()> {
        let found = prepared_names(text).into_iter().next();
        let Some(NameOfPrepared { name, place, naming: Naming::Makes(body) }) = found else {
            return self.reject(text).await;
        };
        let body = &text[body];
        let by_sql = self.made_by_sql(text, &place, body);
        let number = by_sql.number ^ self.variant();
        self.renamed_to(text, &place, (&name, number, &by_sql));
        let types = match self.types_by(number, &by_sql).await? {
            Ok(types) => types,
            Err(stopped) => return Ok(Err(stopped)),
        };
        self.by_name = None;
        if self.names.find(&name).is_some() {
            return Ok(Err(taken(&name).into()));
        }
        let prepared = self.prepare_named(body.as_bytes(), types.into());
        let prepared = self.prepared_without_views(&prepared).unwrap_or(prepared);
        self.names.keep(&name, prepared, text);
        put_command_complete(&mut client.output, "PREPARE");
        Ok(Ok(()))
    }

    async fn execute_by_name(
        &mut self,
        client: &mut Channel,
        pipeline: &mut Pipeline,
        text: &str,
        wanted: Wanted<'_>,
    ) -> Came<()> {
        let (prepared, body) = match self.bind_by_name(text, wanted.bound).await? {
            Ok(bound) => bound,
            Err(stopped) => return Ok(Err(stopped)),
        };
        let described = match wanted.bound {
            Some(_) => wanted.described,
            None => gives_rows(&prepared),
        };
        let portal = Portal { prepared, body, announced: true, described, is_new: true };
        let name = wanted.bound.map_or("", |(_, portal)| portal);
        self.execute_routed(client, pipeline, &portal, (name, wanted.rows)).await
    }

    /// On the one shard where the statement would be executed.
    async fn explain_by_name(&mut self, client: &mut Channel, text: &str, wanted: Wanted<'_>) -> Came<()> {
        let (prepared, body) = match self.bind_by_name(text, None).await? {
            Ok(bound) => bound,
            Err(stopped) => return Ok(Err(stopped)),
        };
        let (way, effects, touched) = match self.decide_one(&prepared, &body) {
            Ok(Decided { way: Way::One { shard, access }, effects, touched, keeping: None }) => {
                ((shard, access), effects, touched)
            }
            Ok(_) => {
                let hint = "Use EXPLAIN ROUTE, or give it a shard key.";
                return Ok(Err(Error::unsupported("EXPLAIN of a statement on several shards", hint).into()));
            }
            Err(error) => return Ok(Err(error.into())),
        };
        let Some((sent, by_name)) = self.rename(text) else { return self.reject(text).await };
        self.by_name = Some(Box::new(by_name));
        let bind = match wanted.bound.map(|(body, _)| Bind::read(body)).transpose() {
            Ok(bind) => bind,
            Err(error) => return Ok(Err(error.into())),
        };
        let Wanted { described, rows, .. } = wanted;
        let request = match &bind {
            None => Request::Simple { text: sent.as_bytes() },
            Some(bind) => Request::Extended { text: sent.as_bytes(), types: &[], bind, described, bound: true, rows },
        };
        self.carry_single(client, way, (&effects, &touched), request).await
    }

    /// The statement that the text executes, and the body of a Bind of its arguments; `outer`: that of the text itself.
    async fn bind_by_name(&mut self, text: &str, outer: Option<(&[u8], &str)>) -> Came<(Arc<Prepared>, Bytes)> {
        let Some(Execution { name, arguments }) = execution(text) else { return self.reject(text).await };
        let Some(prepared) = self.names.find(&name).filter(|_| !name.is_empty()).cloned() else {
            return Ok(Err(unknown(&name).into()));
        };
        if !is_preparable(&prepared) {
            let hint = "Execute it by the driver's own call (extended protocol).";
            return Ok(Err(Error::unsupported(format!("EXECUTE of what \"{name}\" is"), hint).into()));
        }
        let types = match self.types_of(&prepared).await? {
            Ok(types) => types,
            Err(stopped) => return Ok(Err(stopped)),
        };
        if types.len() != arguments.len() {
            return Ok(Err(wrong_number(&name, types.len(), arguments.len()).into()));
        }
        let constants: Option<Vec<_>> =
            arguments.iter().zip(&*types).map(|(argument, &of)| as_text(&argument.constant, of)).collect();
        let values = match constants {
            Some(values) => values,
            None => match self.compute(text, &name, (&arguments, &types)).await? {
                Ok(values) => values,
                Err(stopped) => return Ok(Err(stopped)),
            },
        };
        let formats = match outer.map(|(body, _)| Bind::read(body)).transpose() {
            Ok(bind) => bind.map(|bind| bind.result_formats).unwrap_or_default(),
            Err(error) => return Ok(Err(error.into())),
        };
        Ok(Ok((prepared, bind_of(&values, &formats))))
    }

    /// As declared, or as a server has found them.
    pub(super) async fn types_of(&mut self, prepared: &Arc<Prepared>) -> Came<Arc<[u32]>> {
        if prepared.types.len() >= prepared.analysis.parameters && !prepared.types.contains(&0) {
            return Ok(Ok(Arc::clone(&prepared.types)));
        }
        let number = prepared.number ^ self.variant();
        Ok(self.types_by(number, prepared).await?.map(Into::into))
    }

    async fn types_by(&mut self, number: u64, prepared: &Arc<Prepared>) -> Came<Vec<u32>> {
        let limit = self.snapshot.topology.process.prepared_statements_limit;
        let prepared = Arc::clone(prepared);
        self.ask_any(async move |connection| match make_one_known(connection, (number, &prepared), limit).await? {
            Ok(()) => connection.parameter_types(number).await,
            Err(body) => Ok(Err(body)),
        })
        .await
    }

    /// Arguments that are no constants: a server computes each once, and makes it of its parameter's type.
    async fn compute(
        &mut self,
        text: &str,
        name: &str,
        (arguments, types): (&[Argument], &Arc<[u32]>),
    ) -> Came<Vec<Option<Vec<u8>>>> {
        let written: Vec<&str> = arguments.iter().map(|argument| &text[argument.place.clone()]).collect();
        if let Err(error) = self.check_computed(&format!("SELECT {}", written.join(", "))) {
            return Ok(Err(error.into()));
        }
        let mut probe = "SELECT pg_catalog.unnest(ARRAY[".to_owned();
        for parameter in 1..=arguments.len() {
            let comma = if parameter > 1 { ", " } else { "" };
            // A server tells NULL from an empty text by the sign in front.
            let _ = write!(probe, "{comma}'=' || ${parameter}::pg_catalog.text");
        }
        probe.push_str("])");
        let probing = self.prepare_named(probe.as_bytes(), Arc::clone(types));
        let number = probing.number ^ self.variant();
        let limit = self.snapshot.topology.process.prepared_statements_limit;
        let Some(place) = prepared_names(text).into_iter().next().map(|named| named.place) else {
            return self.reject(text).await;
        };
        // Not what stands in front of the EXECUTE.
        let in_front = text[..place.start].to_ascii_uppercase().rfind("EXECUTE").unwrap_or_default();
        let sent = self.renamed_to(text, &place, (name, number, &probing)).split_off(in_front);
        let asked =
            self.ask_any(async move |connection| match make_one_known(connection, (number, &probing), limit).await? {
                Ok(()) => connection.ask_all(&sent).await,
                Err(body) => Ok(Err(body)),
            });
        let came = asked.await?;
        if came.is_ok() {
            self.by_name = None;
        }
        let value = |value: String| value.strip_prefix('=').map(|value| value.as_bytes().to_vec());
        Ok(came.map(|values| values.into_iter().map(value).collect()))
    }

    /// What any server may compute.
    fn check_computed(&self, text: &str) -> Result<(), Error> {
        let hint = "Compute it first, and execute the statement with the value.";
        match self.decide_text(text, None)? {
            Decided { way: Way::One { shard, .. }, effects, .. } if effects.is_empty() => match &self.transaction {
                Transaction::Open(open) if open.lent.shard != shard => {
                    Err(Error::unsupported("an argument of EXECUTE that is computed on another shard", hint))
                }
                _ => Ok(()),
            },
            _ => Err(Error::unsupported("this argument of EXECUTE", hint)),
        }
    }

    /// A server says what is wrong with a text that is not understood.
    async fn reject<T>(&mut self, text: &str) -> Came<T> {
        let sent = text.to_owned();
        let said = self.ask_any(async move |connection| connection.check(&sent).await).await?;
        let hint = "Use the driver's prepared statements (extended protocol).";
        Ok(Err(said.err().unwrap_or_else(|| Error::unsupported("this use of a prepared statement", hint).into())))
    }

    /// Asks a server that has all names: the block's, if it has one, else home's primary.
    pub(super) async fn ask_any<T>(
        &mut self,
        ask: impl AsyncFnOnce(&mut Connection) -> Result<Result<T, Bytes>, Error>,
    ) -> Came<T> {
        let asked = if let Transaction::Open(open) = &mut self.transaction {
            ask(&mut open.lent.connection).await
        } else {
            let mut lent = match self.lend_ready(self.snapshot.database.home, Access::PrimaryRead, None).await {
                Ok(lent) => lent,
                Err(stopped) => return Ok(Err(stopped)),
            };
            let asked = ask(&mut lent.connection).await;
            self.part_with(lent, asked.is_ok(), Instant::now());
            asked
        };
        match (asked, std::mem::replace(&mut self.transaction, Transaction::Idle)) {
            (Err(error), Transaction::Open(open)) => {
                self.lose(*open, true, &[]);
                Ok(Err(error.into()))
            }
            (asked, transaction) => {
                self.transaction = transaction;
                Ok(asked.map_err(Stopped::from).and_then(|said| said.map_err(Stopped::Server)))
            }
        }
    }

    /// What a statement is to be described by that executes another; `None`: by nothing.
    pub(super) fn executed_by(&self, prepared: &Prepared) -> Option<Arc<Prepared>> {
        let text = prepared.readable()?;
        let Some(Kind::Execute { .. }) = prepared.analysis.statements.first().map(|statement| &statement.kind) else {
            return None;
        };
        self.names.find(&execution(text)?.name).cloned()
    }
}

/// It makes or uses a prepared statement.
fn names(text: &str, statement: &Statement) -> bool {
    match &statement.kind {
        Kind::Prepare { .. } | Kind::Execute { .. } => true,
        Kind::Explain { inner, .. } => matches!(**inner, Kind::Execute { .. }),
        Kind::Ddl(_) => !prepared_names(slice(text, statement.tokens)).is_empty(),
        _ => false,
    }
}

/// What PREPARE takes.
fn is_preparable(prepared: &Prepared) -> bool {
    let [only] = prepared.analysis.statements.as_slice() else { return false };
    matches!(
        only.kind,
        Kind::Query
            | Kind::Insert(_)
            | Kind::Update(_)
            | Kind::Delete { .. }
            | Kind::Merge
            | Kind::ModifyingQuery { into: false }
    )
}

fn gives_rows(prepared: &Prepared) -> bool {
    prepared.analysis.statements.first().is_some_and(|only| match &only.kind {
        Kind::Query | Kind::ModifyingQuery { .. } => true,
        Kind::Insert(insert) => insert.returning,
        Kind::Update(update) => update.returning,
        Kind::Delete { returning } => *returning,
        _ => false,
    })
}

/// The value as text, if nobody need be asked what it becomes as one of the type. `None`: a server must say.
fn as_text(constant: &Constant, of: u32) -> Option<Option<Vec<u8>>> {
    match constant {
        Constant::Null => Some(None),
        // What is no number, a server refuses with its place in the text.
        Constant::Text(value) if INTEGERS.contains(&of) => {
            value.parse().is_ok_and(|value| fits(value, of)).then(|| Some(value.clone().into_bytes()))
        }
        Constant::Text(value) => Some(Some(value.clone().into_bytes())),
        Constant::Integer(value) => fits(*value, of).then(|| Some(value.to_string().into_bytes())),
        Constant::Computed => None,
    }
}

fn fits(value: i64, of: u32) -> bool {
    match of {
        INT2 => i16::try_from(value).is_ok(),
        INT4 => i32::try_from(value).is_ok(),
        INT8 | NUMERIC => true,
        _ => false,
    }
}

fn bind_of(values: &[Option<Vec<u8>>], result_formats: &[u16]) -> Bytes {
    let mut body = BytesMut::new();
    put_text(&mut body, "");
    put_text(&mut body, "");
    body.put_u16(0);
    body.put_u16(u16::try_from(values.len()).expect("as many as the statement has parameters"));
    for value in values {
        let length = value.as_ref().map_or(-1, |value| i32::try_from(value.len()).expect("it came in a message"));
        body.put_i32(length);
        body.extend_from_slice(value.as_deref().unwrap_or_default());
    }
    body.put_u16(u16::try_from(result_formats.len()).expect("they came in a message"));
    result_formats.iter().for_each(|&format| body.put_u16(format));
    body.freeze()
}

fn taken(name: &str) -> Error {
    Error::new(SqlState::DUPLICATE_STATEMENT, format!("prepared statement \"{name}\" already exists"))
}

fn wrong_number(name: &str, expected: usize, given: usize) -> Error {
    let message = format!("wrong number of parameters for prepared statement \"{name}\"");
    Error::new(SqlState::SYNTAX, message).with_detail(format!("Expected {expected} parameters but got {given}."))
}

const INT2: u32 = 21;
const INT4: u32 = 23;
const INT8: u32 = 20;
const INTEGERS: [u32; 3] = [INT2, INT4, INT8];
const NUMERIC: u32 = 1700;
