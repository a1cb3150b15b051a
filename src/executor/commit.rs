//! Two-phase commit of what is open on several connections, its decision kept in PostgreSQL.
//!
//! Every participant but home (the first) prepares; home's own commit carries the decision row; then the others commit
//! what they prepared. Whoever finds a prepared transaction later asks home (see `control::recovery`). The client is not
//! served meanwhile: what has begun is carried to its end, for one that has gone, too.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};

use super::failure::Failure;
use super::relay::Broken;
use super::scatter::Ended;
use crate::backend::{Connection, describe_failure};
use crate::control::{Phase, Ticket};
use crate::error::{Error, SqlState};
use crate::wire::message::{error_field, put_warning};
use crate::wire::{Channel, Status};

/// How what several shards have open is to be committed.
#[derive(Clone, Copy)]
pub struct Commit<'a> {
    /// Its name, under which recovery leaves it alone.
    pub ticket: &'a Ticket,
    /// So long the decision may take, and what follows it.
    pub timeout: Duration,
}

/// Commits the blocks that are open on `inputs`, home first, all or none. Nothing is open there afterwards; what has not
/// answered in the second phase is tainted.
pub async fn commit_blocks(
    client: &mut Channel,
    inputs: &mut [&mut Connection],
    terms: Commit<'_>,
) -> Result<Ended, Broken> {
    Ok(match commit(&mut client.output, inputs, terms).await? {
        None => Ended::Done,
        Some(failure) => failure.tell(client),
    })
}

/// Prepares, decides, commits. The failure of a step before the decision undoes everything.
pub(super) async fn commit(
    told: &mut BytesMut,
    inputs: &mut [&mut Connection],
    Commit { ticket, timeout }: Commit<'_>,
) -> Result<Option<Failure>, Broken> {
    let Some((home, others)) = inputs.split_first_mut() else { return Ok(None) };
    let (gid, deadline) = (ticket.gid(), Instant::now() + timeout);
    ticket.enter(Phase::Prepare);
    let mark = if ticket.is_marked() { format!("SELECT pgweir.decide('{gid}');") } else { String::new() };
    let prepare = format!("{mark}{RAISE};PREPARE TRANSACTION '{gid}'");
    let prepared = tell_all(told, others.iter_mut().map(|other| (&mut **other, prepare.as_str())), deadline).await;
    let mut failure = prepared.iter().find_map(Answer::failure_to_prepare);
    // A decision that is late is none: recovery, which may be another process's, has no patience either.
    if failure.is_none() && Instant::now() < deadline {
        let showing = ticket.show().await;
        ticket.enter(Phase::Decide);
        let decide = format!("SELECT pgweir.decide('{gid}');{RAISE};COMMIT");
        match tell(told, home, &decide, deadline).await {
            Answer::Done => {
                ticket.enter(Phase::Commit);
                finish(told, others, gid, Instant::now() + timeout).await;
                drop(showing);
                return Ok(None);
            }
            Answer::Failed(body) => failure = Some(name_aborted(body)),
            Answer::Lost(error) => return Err(unknown_outcome(&error, gid)),
        }
    }
    ticket.enter(Phase::Abort);
    let undo = format!("ROLLBACK PREPARED '{gid}'");
    let undone = others.iter_mut().zip(&prepared).filter_map(|(other, prepared)| match prepared {
        Answer::Done => Some((&mut **other, undo.as_str())),
        Answer::Failed(_) if other.status != Status::Idle => Some((&mut **other, "ROLLBACK")),
        Answer::Failed(_) | Answer::Lost(_) => None,
    });
    let home = (home.status != Status::Idle).then_some((&mut **home, "ROLLBACK"));
    for answer in tell_all(told, undone.chain(home), Instant::now() + timeout).await {
        if let Some(why) = answer.why() {
            tracing::warn!(gid, why, "undoing a prepared write");
        }
    }
    Ok(Some(failure.unwrap_or_else(|| Failure::Proxy(undecided()))))
}

/// Second phase. The write has happened: what cannot be told now, recovery tells later.
async fn finish(told: &mut BytesMut, others: &mut [&mut Connection], gid: &str, deadline: Instant) {
    let commit = format!("COMMIT PREPARED '{gid}'");
    let ended = tell_all(told, others.iter_mut().map(|other| (&mut **other, commit.as_str())), deadline).await;
    let mut late = None;
    for (other, answer) in others.iter_mut().zip(ended) {
        if let Some(why) = answer.why().filter(|_| !answer.is_of_none_such()) {
            // Until recovery has seen to it, its write is under way.
            other.taint();
            late.get_or_insert(why);
        }
    }
    if let Some(why) = late {
        let warning =
            Error::new(SqlState::OUTCOME_UNKNOWN, "the write is committed; a shard will show it a little later");
        put_warning(told, &warning.with_detail(why));
    }
}

/// What a server said to a text of ours.
enum Answer {
    Done,
    /// The body of its ErrorResponse.
    Failed(Bytes),
    /// Nothing, and no more is to be expected.
    Lost(Error),
}

impl Answer {
    fn failure_to_prepare(&self) -> Option<Failure> {
        match self {
            Self::Done => None,
            Self::Failed(body) => Some(name_disabled(body.clone())),
            Self::Lost(error) => Some(Failure::Proxy(error.clone().with_hint("Nothing was written on any shard."))),
        }
    }

    fn why(&self) -> Option<String> {
        match self {
            Self::Done => None,
            Self::Failed(body) => Some(describe_failure(body)),
            Self::Lost(error) => Some(error.detail.clone().unwrap_or_else(|| error.message.clone())),
        }
    }

    /// Whoever else has ended what was prepared knew the decision.
    fn is_of_none_such(&self) -> bool {
        matches!(self, Self::Failed(body) if error_field(body, b'C') == Some(UNDEFINED_OBJECT))
    }
}

async fn tell_all<'a>(
    told: &mut BytesMut,
    texts: impl Iterator<Item = (&'a mut Connection, &'a str)>,
    deadline: Instant,
) -> Vec<Answer> {
    let answers = join_all(texts.map(async |(input, sql)| {
        let mut notices = BytesMut::new();
        (tell(&mut notices, input, sql, deadline).await, notices)
    }));
    let each = answers.await.into_iter().map(|(answer, notices)| {
        told.extend_from_slice(&notices);
        answer
    });
    each.collect()
}

async fn tell(told: &mut BytesMut, input: &mut Connection, sql: &str, deadline: Instant) -> Answer {
    match timeout_at(deadline, input.run_telling(sql, told)).await {
        Ok(Ok(Ok(()))) => Answer::Done,
        Ok(Ok(Err(body))) => Answer::Failed(body),
        Ok(Err(error)) => Answer::Lost(error),
        Err(_) => Answer::Lost(input.lost(&std::io::Error::other("no answer within commit_timeout"))),
    }
}

fn unknown_outcome(error: &Error, gid: &str) -> Broken {
    let message = "the server was lost while committing; whether the write happened is decided by recovery";
    let why = error.detail.as_deref().unwrap_or(&error.message);
    let error = Error::new(SqlState::OUTCOME_UNKNOWN, message).with_detail(format!("{gid}: {why}"));
    Broken::Server { error, midway: false }
}

/// Servers without room for prepared transactions cannot take part at all: say so in the proxy's words.
fn name_disabled(body: Bytes) -> Failure {
    if error_field(&body, b'C') == Some(SqlState::NOT_IN_STATE.0) {
        let error = Error::unsupported("a write on several shards", "Set max_prepared_transactions on every server.");
        return Failure::Proxy(error.with_detail(describe_failure(&body)));
    }
    Failure::server(&body)
}

/// Recovery of another process has been quicker, and has decided against it.
fn name_aborted(body: Bytes) -> Failure {
    match (error_field(&body, b's'), error_field(&body, b't'), error_field(&body, b'C')) {
        (Some("pgweir"), Some("decisions"), Some("23505")) => Failure::Proxy(undecided()),
        _ => Failure::server(&body),
    }
}

fn undecided() -> Error {
    Error::new(SqlState::SERIALIZATION_FAILURE, "preparing the write on all of its shards took too long")
        .with_hint("Nothing was written on any shard. Try again.")
}

/// A commit that the client has been told of must outlive a crash, whatever the session's `synchronous_commit` is.
const RAISE: &str = "SELECT set_config('synchronous_commit','on',true) \
                     WHERE current_setting('synchronous_commit') IN ('off','local','remote_write')";
const UNDEFINED_OBJECT: &str = "42704";
