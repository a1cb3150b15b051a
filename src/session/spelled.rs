//! PREPARE, EXECUTE and DEALLOCATE as SQL where there are shards. What PREPARE was given is kept here, and what EXECUTE
//! names is carried out as if the client had written it, with the values in it: so its shard is known.

use std::collections::HashMap;

use bytes::Buf;
use tokio::time::Instant;

use super::Session;
use super::carry::Stopped;
use super::control::Answer;
use super::local::put_answer;
use super::run::End;
use super::transaction::Transaction;
use crate::error::{Error, SqlState};
use crate::plan::Access;
use crate::statement::{Analysis, Kind, NameOfPrepared, Naming, SettingControl, executed, prepared_names};
use crate::wire::Channel;
use crate::wire::frame::Header;
use crate::wire::message::put_ready;

/// A statement that PREPARE has made.
#[derive(Debug)]
pub(super) struct Spelled {
    text: Box<str>,
    /// Of its parameters, as SQL names them.
    types: Vec<String>,
}

/// What has come of a text that names one.
pub(super) enum Done {
    /// It is done, and this its command tag.
    Tag(&'static str),
    /// This is to be carried out in its place.
    Written(String),
}

impl Done {
    pub(super) fn answer(&self, client: &mut Channel) {
        if let Self::Tag(tag) = self {
            put_answer(&mut client.output, &Answer::tag(tag), true);
        }
    }
}

/// By the client's names.
pub(super) type AllSpelled = HashMap<String, Spelled>;

impl Session {
    /// The one prepared statement that a text of one statement names, if that is to be looked for here.
    pub(super) fn spelled_in(&self, text: &str) -> Option<NameOfPrepared> {
        let mut found = prepared_names(text);
        let only = (found.len() == 1).then(|| found.remove(0))?;
        let is_ours = self.spelled.contains_key(&only.name) || self.names.find(&only.name).is_none();
        (is_ours && self.station.resolve(text).0.analysis.statements.len() == 1).then_some(only)
    }

    /// Serves the Query at the front of the input, which names a prepared statement.
    pub(super) async fn serve_spelled(
        &mut self,
        client: &mut Channel,
        header: Header,
        named: NameOfPrepared,
    ) -> Result<(), End> {
        let body = &client.input[Header::BYTES..header.length - 1];
        let text = std::str::from_utf8(body).unwrap_or_default().to_owned();
        let checked = self.check_block(&self.station.resolve(&text).0.analysis);
        let done = match checked {
            Ok(()) => self.do_spelled(&text, &named).await,
            Err(error) => Err(error.into()),
        };
        if let Ok(Done::Written(written)) = &done {
            return Box::pin(self.serve_instead(client, header, written)).await;
        }
        client.input.advance(header.length);
        match done {
            Ok(done) => {
                done.answer(client);
                put_ready(&mut client.output, self.transaction.status());
            }
            Err(stopped) => self.tell(client, &stopped),
        }
        Ok(())
    }

    /// PREPARE and DEALLOCATE are done with that.
    pub(super) async fn do_spelled(&mut self, text: &str, named: &NameOfPrepared) -> Result<Done, Stopped> {
        match &named.naming {
            Naming::Makes(body) => self.spell(text, named, &text[body.clone()]).await.map(|()| Done::Tag("PREPARE")),
            Naming::Ends => match self.spelled.remove(&named.name) {
                Some(_) => Ok(Done::Tag("DEALLOCATE")),
                None => Err(no_such(&named.name).into()),
            },
            Naming::Uses => Ok(Done::Written(self.written(text, named)?)),
        }
    }

    /// DEALLOCATE ALL and DISCARD ALL leave none.
    pub(super) fn forget_spelled(&mut self, analysis: &Analysis) {
        let forgets = |kind: &Kind| match kind {
            Kind::Deallocate { name: None } => true,
            Kind::Setting(SettingControl::Discard { what }) => what == "ALL",
            _ => false,
        };
        if !self.spelled.is_empty() && analysis.statements.iter().any(|statement| forgets(&statement.kind)) {
            self.spelled.clear();
        }
    }

    fn written(&self, text: &str, named: &NameOfPrepared) -> Result<String, Error> {
        let Spelled { text: body, types } = self.spelled.get(&named.name).ok_or_else(|| no_such(&named.name))?;
        executed(text, named, body, types).map_err(|given| {
            let message = format!("wrong number of parameters for prepared statement \"{}\"", named.name);
            let detail = format!("Expected {} parameters but got {given}.", types.len());
            Error::new(SqlState::SYNTAX, message).with_detail(detail)
        })
    }

    /// A server says what is wrong with it, and the types of its parameters.
    async fn spell(&mut self, text: &str, named: &NameOfPrepared, body: &str) -> Result<(), Stopped> {
        if self.spelled.contains_key(&named.name) {
            let message = format!("prepared statement \"{}\" already exists", named.name);
            return Err(Error::new(SqlState("42P05"), message).into());
        }
        let (before, behind) = (&text[..named.place.start], text[named.place.end..].trim_end_matches([';', ' ', '\n']));
        let question = format!("{before}{TRIED}{behind};{TYPES};DEALLOCATE {TRIED}");
        let said = if let Transaction::Open(open) = &mut self.transaction {
            open.lent.connection.ask_all(&question).await
        } else {
            let mut lent = self.lend_ready(self.snapshot.database.home, Access::PrimaryRead, None).await?;
            let said = lent.connection.ask_all(&question).await;
            self.part_with(lent, said.is_ok(), Instant::now());
            said
        };
        let types = said?.map_err(Stopped::Server)?;
        self.spelled.insert(named.name.clone(), Spelled { text: Box::from(body), types });
        Ok(())
    }
}

fn no_such(name: &str) -> Error {
    Error::new(SqlState("26000"), format!("prepared statement \"{name}\" does not exist"))
}

const TRIED: &str = "pgweir_tried";
const TYPES: &str = "SELECT of::pg_catalog.text FROM pg_catalog.pg_prepared_statements, \
     pg_catalog.unnest(parameter_types) WITH ORDINALITY AS each(of, place) WHERE name = 'pgweir_tried' ORDER BY place";
