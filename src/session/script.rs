//! A statement that is carried out as several, in one transaction: the client's, or one that is made for it.

use std::sync::Arc;

use bytes::Bytes;

use super::Session;
use super::block::Came;
use super::carry::Stopped;
use super::consistent::take_back_end;
use super::transaction::{Begun, Transaction};
use crate::cache::Touched;
use crate::error::{Error, SqlState};
use crate::executor::{Broken, Kept, Request, Writing, Written, parameter_types};
use crate::plan::{Outcome, Part, Places, Script, Spread, Tag, fill_marks};
use crate::topology::{ShardId, ShardSet};
use crate::wire::frame::Header;
use crate::wire::message::put_command_complete;
use crate::wire::{Bind, Channel};

impl Session {
    pub(super) async fn carry_script(&mut self, client: &mut Channel, plan: &Script, request: Request<'_>) -> Came<()> {
        if let Err(error) = self.check_styles() {
            return Ok(Err(error.into()));
        }
        let implicit = matches!(self.transaction, Transaction::Idle);
        if implicit {
            // Whatever its first act is, it may go on to other shards.
            self.transaction = Transaction::Begun(Begun { isolation: Some(self.isolation), ..Begun::implicit() });
        }
        let came = self.play(client, plan, request).await?;
        if !implicit {
            return Ok(came);
        }
        if came.is_err() {
            self.fail_transaction();
            return Ok(self.end_implicit(client, true).await?.and(came));
        }
        // The client hears of its end when it is committed.
        let end = take_back_end(&mut client.output);
        let ended = self.end_implicit(client, true).await?;
        if ended.is_ok() {
            end.into_iter().for_each(|end| client.output.extend_from_slice(&end));
        }
        Ok(ended)
    }

    /// Its acts, one after another.
    async fn play(&mut self, client: &mut Channel, plan: &Script, request: Request<'_>) -> Came<()> {
        let types = match request.bind() {
            Some(bind) if bind.parameters() > 0 => match self.parameters_of(client, request).await? {
                Ok(types) => types,
                Err(stopped) => return Ok(Err(stopped)),
            },
            _ => Vec::new(),
        };
        let request = request.with_types(&types);
        let request_of_client = request;
        let as_text = request.bind().map(Bind::as_text);
        let mut kept: Vec<(Kept, Vec<String>)> = Vec::new();
        let (mut count, mut answered) = (0, None);
        for act in &plan.acts {
            let text = match filled(&act.text, &kept) {
                Ok(text) => text,
                Err(error) => return Ok(Err(error.into())),
            };
            let text = self.without_views(&text).unwrap_or(text);
            let request = request.for_us(as_text.as_ref());
            let answer = match (act.outcome, &plan.places) {
                (Outcome::Answer, _) => {
                    let came = self.act(client, &text, request_of_client).await?;
                    if came.is_err() {
                        return Ok(came);
                    }
                    // The client hears of its end when all is done.
                    answered = Some(take_back_end(&mut client.output));
                    continue;
                }
                (Outcome::Place, Some(places)) => self.place(client, places, kept.last()).await?,
                (Outcome::Everywhere, _) => self.run_on(client, self.snapshot.database.all_shards(), &text).await?,
                (Outcome::Home, _) => self.run_on(client, ShardSet::one(self.snapshot.database.home), &text).await?,
                _ => self.aside(client, async |session, client| session.act(client, &text, request).await).await?,
            };
            let answer = match answer {
                Ok(answer) => answer,
                Err(stopped) => return Ok(Err(stopped)),
            };
            match act.outcome {
                Outcome::Keep => match self.types_of_kept(&answer).await {
                    Ok(types) => kept.push((answer, types)),
                    Err(stopped) => return Ok(Err(stopped)),
                },
                Outcome::Everywhere | Outcome::Home => {}
                _ => count += answer.count,
            }
        }
        if let Some(end) = answered {
            end.into_iter().for_each(|end| client.output.extend_from_slice(&end));
            return Ok(Ok(()));
        }
        request_of_client.put_head(&mut client.output, None);
        let tag = match plan.tag {
            Some((tag, true)) => format!("{tag} {count}"),
            Some((tag, false)) => tag.to_owned(),
            None => String::new(),
        };
        put_command_complete(&mut client.output, &tag);
        Ok(Ok(()))
    }

    async fn act(&mut self, client: &mut Channel, text: &str, request: Request<'_>) -> Came<()> {
        let parameters = match request.parameters() {
            Ok(parameters) => parameters,
            Err(error) => return Ok(Err(error.into())),
        };
        match self.decide_text(text, parameters.as_ref()) {
            Ok(decided) => Box::pin(self.carry_decided(client, decided, request.with_text(text.as_bytes()))).await,
            Err(error) => Ok(Err(error.into())),
        }
    }

    /// Runs something of whose answer the client hears nothing but what is wrong.
    async fn aside(
        &mut self,
        client: &mut Channel,
        run: impl AsyncFnOnce(&mut Self, &mut Channel) -> Came<()>,
    ) -> Came<Kept> {
        let (place, limit) = (client.put_so_far(), self.limits().gather);
        let held = client.hold(usize::MAX);
        let came = run(self, client).await;
        client.hold(held);
        let answer = client.put_since(place).map(Bytes::copy_from_slice).unwrap_or_default();
        client.take_back(place);
        let came = came?;
        let length = answer.len();
        let kept = match Kept::read(answer) {
            Ok(kept) => kept,
            Err(error) => return Ok(Err(error.into())),
        };
        client.output.extend_from_slice(&kept.told);
        if length > limit {
            let message =
                format!("the rows that a part of the statement gives to others exceed gather_limit ({limit} B)");
            return Ok(Err(Error::new(SqlState::TOO_LARGE, message).into()));
        }
        Ok(came.map(|()| kept))
    }

    /// Inserts what was kept into a new table, of which the catalog does not know yet.
    async fn place(&mut self, client: &mut Channel, places: &Places, kept: Option<&(Kept, Vec<String>)>) -> Came<Kept> {
        let Some((kept, types)) = kept else { return Ok(Ok(Kept::default())) };
        let shards = match kept.rows().and_then(|rows| places.shards(&kept.names(), &rows)) {
            Ok(shards) => shards,
            Err(error) => return Ok(Err(error.into())),
        };
        let mut distinct = shards.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let part = |&shard: &ShardId| {
            let query = kept.query_of(types, &|index| shards[index] == shard)?;
            Ok(Part { shard, text: Some(places.insert(&query).into()), parameters: Some(Vec::new()) })
        };
        let parts = match distinct.iter().map(part).collect::<Result<Vec<_>, Error>>() {
            Ok(parts) if parts.is_empty() => return Ok(Ok(Kept::default())),
            Ok(parts) => parts,
            Err(error) => return Ok(Err(error.into())),
        };
        self.run_parts(client, (parts, Tag::Sum)).await
    }

    async fn run_on(&mut self, client: &mut Channel, shards: ShardSet, text: &str) -> Came<Kept> {
        let text: Arc<str> = Arc::from(text);
        let part = |shard| Part { shard, text: Some(Arc::clone(&text)), parameters: Some(Vec::new()) };
        let parts = shards.iter().map(part).collect();
        self.run_parts(client, (parts, Tag::First)).await
    }

    async fn run_parts(&mut self, client: &mut Channel, (parts, tag): (Vec<Part>, Tag)) -> Came<Kept> {
        let spread = Spread { parts, tag, row_order: Vec::new(), one_by_one: None, fetches: Vec::new() };
        self.aside(client, async |session, client| {
            let writing = Writing { plan: Written::Spread(&spread), keeping: None };
            session.write_in_block(client, writing, Request::Simple { text: &[] }, &Touched::everything()).await
        })
        .await
    }

    /// By their names.
    async fn types_of_kept(&mut self, kept: &Kept) -> Result<Vec<String>, Stopped> {
        let types: Vec<String> =
            kept.types().iter().map(|(of, modifier)| format!("pg_catalog.format_type({of}, {modifier})")).collect();
        self.ask_home(&format!("SELECT pg_catalog.unnest(ARRAY[{}])", types.join(", "))).await
    }

    /// What a server takes them for in the client's own text.
    async fn parameters_of(&mut self, client: &mut Channel, request: Request<'_>) -> Came<Vec<u32>> {
        let Request::Extended { text, types, .. } = request else { return Ok(Ok(Vec::new())) };
        self.ask_any(async |connection| match parameter_types(client, connection, (text, types)).await {
            Ok(Ok(types)) => Ok(Ok(types)),
            Ok(Err(frame)) => Ok(Err(frame.slice(Header::BYTES..))),
            Err(Broken::Server { error, .. } | Broken::Refused(error)) => Err(error),
            Err(Broken::Client(cause)) => Err(Error::new(SqlState::CONNECTION_LOST, cause.to_string())),
        })
        .await
    }
}

/// The text with the rows that were kept.
fn filled(text: &str, kept: &[(Kept, Vec<String>)]) -> Result<String, Error> {
    fill_marks(text, |number, out| {
        let lost = || Error::new(SqlState::INTERNAL, "rows that were not kept are wanted");
        let (rows, types) = kept.get(number).ok_or_else(lost)?;
        out.push_str(&rows.query(types)?);
        Ok(())
    })
}
