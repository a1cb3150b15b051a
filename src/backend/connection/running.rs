//! Texts of the proxy's own on a connection, and the settings that a session wants there.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{Connection, is_last_word};
use crate::backend::login;
use crate::backend::owed::{Cause, Event, Payee, Verdict};
use crate::backend::settings::{LoginRole, Settings, difference};
use crate::error::Error;
use crate::wire::frame::{Header, client, malformed, put, server};
use crate::wire::message::{put_bare, put_query};

impl Connection {
    /// Runs statements of the proxy's own and waits for their end; gives the body of the first error.
    pub async fn run(&mut self, sql: &str) -> Result<Result<(), Bytes>, Error> {
        self.run_all(&[sql], &mut |_, _| {}).await
    }

    /// As [`Connection::run`] for several texts in one go; `report` hears of ParameterStatus messages.
    pub async fn run_all(
        &mut self,
        texts: &[&str],
        report: &mut (dyn FnMut(&str, &str) + Send),
    ) -> Result<Result<(), Bytes>, Error> {
        self.put_texts(texts)?;
        self.finish(report).await
    }

    /// As [`Connection::run`]; notices are appended to what a client is told.
    pub async fn run_telling(&mut self, sql: &str, told: &mut BytesMut) -> Result<Result<(), Bytes>, Error> {
        self.put_texts(&[sql])?;
        self.hear(&mut |_, _| {}, &mut |_, kind, body| put_notice(told, kind, body)).await
    }

    fn put_texts(&mut self, texts: &[&str]) -> Result<(), Error> {
        self.check_unasked()?;
        self.unnamed = None;
        for sql in texts {
            put_query(&mut self.channel.output, sql);
            self.owed.push(Cause::Query, Payee::Nobody);
        }
        Ok(())
    }

    /// What has come without being asked for is none of the replies to what is asked next.
    fn check_unasked(&self) -> Result<(), Error> {
        let mut rest = &self.channel.input[..];
        while let Some(kind) = rest.first() {
            let header = Header::whole(rest)?;
            match (*kind, header) {
                // The server ends the session, and says why.
                (server::ERROR, Some(header)) => return Err(self.ended(&rest[Header::BYTES..header.length])),
                (server::ERROR, None) => return Err(self.lost(&std::io::ErrorKind::ConnectionAborted.into())),
                (server::NOTICE | server::NOTIFICATION | server::PARAMETER_STATUS, _) => {}
                _ => return Err(malformed("a reply that nobody asked for")),
            }
            let Some(header) = header else { break };
            rest = &rest[header.length..];
        }
        Ok(())
    }

    /// What the server has against a statement, which is not run.
    pub async fn check(&mut self, sql: &str) -> Result<Result<(), Bytes>, Error> {
        self.put_parse("", sql.as_bytes(), &[]);
        put_bare(&mut self.channel.output, client::SYNC);
        self.owed.push(Cause::Parse(None), Payee::Nobody);
        self.owed.push(Cause::Sync, Payee::Nobody);
        self.finish(&mut |_, _| {}).await
    }

    /// Sends what waits and reads everything that is owed.
    async fn finish(&mut self, report: &mut (dyn FnMut(&str, &str) + Send)) -> Result<Result<(), Bytes>, Error> {
        self.hear(report, &mut |_, _, _| {}).await
    }

    /// As [`Connection::finish`]; `each` sees what every frame brought about, its kind and body.
    pub(in crate::backend) async fn hear(
        &mut self,
        report: &mut (dyn FnMut(&str, &str) + Send),
        each: &mut (dyn FnMut(Event, u8, &[u8]) + Send),
    ) -> Result<Result<(), Bytes>, Error> {
        let mut failure = None;
        self.channel.flush().await.map_err(|cause| self.lost(&cause))?;
        while !self.owed.is_empty() {
            let Some((settled, header)) = self.settle_whole()? else {
                if self.channel.fill().await.map_err(|cause| self.lost(&cause))? == 0 {
                    return Err(self.lost(&std::io::ErrorKind::UnexpectedEof.into()));
                }
                continue;
            };
            let body = self.channel.input.split_to(header.length).freeze().slice(Header::BYTES..);
            if settled.verdict == Verdict::Parameter {
                let (name, value) = login::read_parameter(&body)?;
                report(&name, &value);
            }
            each(settled.event, header.kind, &body);
            if matches!(settled.event, Event::Failed(_)) {
                let instead = self.instead_of(&body).map(|frame| frame.slice(Header::BYTES..));
                failure.get_or_insert(instead.unwrap_or(body));
            }
        }
        Ok(failure.map_or(Ok(()), Err))
    }

    /// The first value of the first row that a text of the proxy's own gives.
    pub async fn ask(&mut self, sql: &str) -> Result<Option<String>, Error> {
        Ok(self.ask_all(sql).await?.ok().and_then(|values| values.into_iter().next()))
    }

    /// The first value of each row that a text of the proxy's own gives, or the body of the error.
    pub async fn ask_all(&mut self, sql: &str) -> Result<Result<Vec<String>, Bytes>, Error> {
        self.put_texts(&[sql])?;
        let mut values = Vec::new();
        // Behind the count of columns and a length.
        let value = |row: &[u8]| row.get(6..).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let mut each = |_, kind, body: &[u8]| values.extend(value(body).filter(|_| kind == server::DATA_ROW));
        let outcome = self.hear(&mut |_, _| {}, &mut each).await?;
        Ok(outcome.map(|()| values))
    }

    /// Whether [`Connection::apply`] would have nothing to do.
    pub fn has(&self, wanted: &Settings) -> bool {
        !self.unclean && !self.outdated && Arc::ptr_eq(&self.applied, wanted)
    }

    /// Makes the server's settings what a session wants. An error of the server leaves the connection unusable.
    pub async fn apply(
        &mut self,
        wanted: &Settings,
        report: &mut (dyn FnMut(&str, &str) + Send),
    ) -> Result<Result<(), Bytes>, Error> {
        self.apply_telling(wanted, report, &mut BytesMut::new()).await
    }

    /// The same; notices are appended to what a client is told.
    pub async fn apply_telling(
        &mut self,
        wanted: &Settings,
        report: &mut (dyn FnMut(&str, &str) + Send),
        told: &mut BytesMut,
    ) -> Result<Result<(), Bytes>, Error> {
        if std::mem::take(&mut self.outdated) {
            self.close_statements(report).await?;
        }
        let sql = match self.unclean {
            true => CLEARING.to_owned() + &difference(&Settings::default(), wanted, self.login_role()),
            false => difference(&self.applied, wanted, self.login_role()),
        };
        if !sql.is_empty() {
            self.put_texts(&[&sql])?;
            if let Err(failure) = self.hear(report, &mut |_, kind, body| put_notice(told, kind, body)).await? {
                self.taint();
                return Ok(Err(failure));
            }
        }
        self.applied = Arc::clone(wanted);
        self.unclean = false;
        Ok(Ok(()))
    }

    fn login_role(&self) -> LoginRole {
        let is_superuser = self.reported.iter().any(|(name, value)| name == "is_superuser" && value == "on");
        if is_superuser { LoginRole::Superuser } else { LoginRole::Other }
    }
}

fn put_notice(told: &mut BytesMut, kind: u8, body: &[u8]) {
    if kind == server::NOTICE && !is_last_word(body) {
        put(told, kind, |out| out.extend_from_slice(body));
    }
}

/// As DISCARD ALL (PostgreSQL documentation, DISCARD), but for plans and prepared statements, and within a text of more.
const CLEARING: &str = "RESET ROLE;SET SESSION AUTHORIZATION DEFAULT;RESET ALL;CLOSE ALL;UNLISTEN *;\
                        SELECT pg_advisory_unlock_all();DISCARD TEMP;DISCARD SEQUENCES;";
