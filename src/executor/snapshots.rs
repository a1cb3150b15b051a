//! Several shards at one state: a commit over several of them is seen wholly or not at all.
//!
//! Such a commit leaves its name in `pgweir.decisions` on every shard that takes part. What a snapshot does not show yet
//! was prepared on that shard when it was looked at before, or was prepared later: then the name has been decided lately
//! wherever it is seen. So the names that are prepared or decided lately are all that two snapshots can differ by.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use crate::backend::Connection;
use crate::control::participants;
use crate::error::Error;
use crate::statement::quoted_literal;
use crate::topology::ShardId;

/// What is known of the snapshots of some shards.
#[derive(Debug, Default)]
pub struct Sight {
    shards: Vec<ShardId>,
    prepared: HashSet<String>,
    /// What is seen on each.
    seen: Vec<HashSet<String>>,
}

/// What a look came to: a server's ErrorResponse body, or the loss of one, is in it.
type Looked<T> = Result<Result<T, Bytes>, Error>;

/// How much of a commit is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    None,
    Part,
    All,
}

impl Sight {
    /// Looks at the snapshots that `begin` (nothing, or a BEGIN) leads to; `lately`: what was decided within so long.
    pub async fn take(
        inputs: &mut [&mut Connection],
        shards: &[ShardId],
        begin: &str,
        lately: Duration,
    ) -> Looked<Self> {
        let recent = format!("{begin}SELECT pgweir.decided_since('{} s')", lately.as_secs());
        let looks = inputs.iter_mut().map(async |input| {
            let prepared = input.ask_all(PREPARED).await?;
            let seen = input.ask_all(&recent).await?;
            Ok(prepared.and_then(|prepared| Ok((prepared, seen?))))
        });
        let mut sight = Self { shards: shards.to_vec(), ..Self::default() };
        for look in join_all(looks).await {
            match look? {
                Ok((prepared, seen)) => {
                    sight.prepared.extend(prepared);
                    sight.seen.push(seen.into_iter().collect());
                }
                Err(body) => return Ok(Err(body)),
            }
        }
        let doubtful = sight.names().filter(|name| sight.share(name) != Share::All).cloned().collect();
        sight.look_for(inputs, doubtful).await.map(|looked| looked.map(|()| sight))
    }

    /// As [`Sight::take`] of the snapshots of later statements.
    pub async fn again(&self, inputs: &mut [&mut Connection], lately: Duration) -> Looked<Self> {
        let mut later = match Self::take(inputs, &self.shards, "", lately).await? {
            Ok(later) => later,
            Err(body) => return Ok(Err(body)),
        };
        later.prepared.extend(self.prepared.iter().cloned());
        let doubtful = self.prepared.iter().filter(|name| later.share(name) != Share::All).cloned().collect();
        later.look_for(inputs, doubtful).await.map(|looked| looked.map(|()| later))
    }

    /// Of these names it is asked whether they are seen, however old they are.
    async fn look_for(&mut self, inputs: &mut [&mut Connection], names: HashSet<String>) -> Looked<()> {
        if names.is_empty() {
            return Ok(Ok(()));
        }
        let names: Vec<String> = names.iter().map(|name| quoted_literal(name)).collect();
        let text = format!("SELECT pgweir.decided_of(ARRAY[{}])", names.join(","));
        let looks = inputs.iter_mut().map(async |input| input.ask_all(&text).await);
        for (look, seen) in join_all(looks).await.into_iter().zip(&mut self.seen) {
            match look? {
                Ok(found) => seen.extend(found),
                Err(body) => return Ok(Err(body)),
            }
        }
        Ok(Ok(()))
    }

    /// No commit is seen in part.
    pub fn is_whole(&self) -> bool {
        self.names().all(|name| self.share(name) != Share::Part)
    }

    /// Nor was one in between this look and a later one.
    pub fn is_as(&self, later: &Self) -> bool {
        let same = |name: &String| self.share(name) == later.share(name);
        self.is_whole() && later.is_whole() && later.names().all(same)
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.prepared.iter().chain(self.seen.iter().flatten())
    }

    fn share(&self, name: &str) -> Share {
        let parts = participants(name);
        let of = self.shards.iter().zip(&self.seen).filter(|(shard, _)| parts.contains(shard));
        let seen: Vec<bool> = of.map(|(_, seen)| seen.contains(name)).collect();
        match seen.iter().filter(|seen| **seen).count() {
            0 => Share::None,
            count if count == seen.len() => Share::All,
            _ => Share::Part,
        }
    }
}

const PREPARED: &str = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND gid LIKE 'pgweir:%'";

#[cfg(test)]
mod tests {
    use super::*;

    /// Names by shard: what is seen there, of a write that both take part in and one of shard 1 and another.
    fn sight(seen: [&[&str]; 2]) -> Sight {
        let seen = seen.map(|names| names.iter().map(|name| (*name).to_owned()).collect()).into();
        Sight { shards: vec![ShardId(0), ShardId(1)], prepared: HashSet::new(), seen }
    }

    const BOTH: &str = "pgweir:0:1.1:0000000000000001:1:3";
    const ONE: &str = "pgweir:2:1.1:0000000000000001:2:6";

    #[test]
    fn what_is_seen_on_one_of_two_is_a_part() {
        assert!(sight([&[], &[]]).is_whole());
        assert!(sight([&[BOTH], &[BOTH, ONE]]).is_whole());
        assert!(!sight([&[BOTH], &[]]).is_whole());
        assert!(!sight([&[], &[ONE, BOTH]]).is_whole());
    }

    #[test]
    fn what_was_committed_between_two_looks_may_have_been_seen_in_part() {
        assert!(sight([&[BOTH], &[BOTH]]).is_as(&sight([&[BOTH], &[BOTH]])));
        assert!(!sight([&[], &[]]).is_as(&sight([&[BOTH], &[BOTH]])));
        // What is on one of them alone is never seen in part.
        assert!(!sight([&[], &[]]).is_as(&sight([&[BOTH], &[BOTH, ONE]])));
    }
}
