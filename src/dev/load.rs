//! Fills the shards with the demo's rows, all shards at once, with a progress bar.

use std::ops::Range;
use std::time::Duration;

use futures_util::future::try_join_all;
use indicatif::{ProgressBar, ProgressStyle};

use super::shop::{self, Rows};
use super::{Cluster, Error, Role};
use crate::control::connect::{Client, SqlError, connect};

/// First and last user of each shard, half open: the same number for each, the remainder for the first ones.
pub(super) fn ranges(users: u64, shards: u16) -> Vec<Range<u64>> {
    let (each, more) = (users / u64::from(shards), users % u64::from(shards));
    let start = |shard: u64| 1 + shard * each + shard.min(more);
    (0..u64::from(shards)).map(|shard| start(shard)..start(shard + 1)).collect()
}

/// Replaces the rows of all tables. Each shard is one transaction: a load that ends early leaves what was there.
pub(super) async fn load(cluster: &Cluster) -> Result<(), Error> {
    let state = cluster.state();
    let bar = ProgressBar::new(state.rows).with_message("loading users");
    let style = ProgressStyle::with_template("{msg} [{bar:40}] {human_pos}/{human_len} {eta}");
    bar.set_style(style.expect("the template is well formed").progress_chars("=> "));
    bar.enable_steady_tick(Duration::from_millis(200));
    let primaries = cluster.servers().filter(|server| server.role == Role::Primary);
    let loads = primaries.zip(ranges(state.rows, state.shards)).map(|(primary, range)| {
        let (login, bar) = (cluster.app(primary), bar.clone());
        async move { fill(&connect(&login).await?, range, state.rows, &bar).await }
    });
    try_join_all(loads).await?;
    bar.finish_and_clear();
    Ok(())
}

async fn fill(client: &Client, ids: Range<u64>, users: u64, bar: &ProgressBar) -> Result<(), SqlError> {
    client.batch(&format!("BEGIN; TRUNCATE {TABLES}")).await?;
    copy(client, shop::reference()).await?;
    let mut start = ids.start;
    while start < ids.end {
        let end = ids.end.min(start + CHUNK);
        copy(client, shop::sharded(start..end, users)).await?;
        bar.inc(end - start);
        start = end;
    }
    client.batch("COMMIT").await?;
    client.batch(&format!("ANALYZE {TABLES}")).await
}

async fn copy(client: &Client, rows: Rows) -> Result<(), SqlError> {
    for (table, text) in rows.0 {
        client.copy_in(&format!("COPY {table} FROM STDIN"), text.into()).await?;
    }
    Ok(())
}

const TABLES: &str = "users, orders, order_items, carts, posts, follows, products, categories";

/// Users generated at a time: a few hundred kilobytes of text.
const CHUNK: u64 = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_meet_and_differ_by_one_at_most() {
        assert_eq!(ranges(20_000, 2), [1..10_001, 10_001..20_001]);
        assert_eq!(ranges(10, 3), [1..5, 5..8, 8..11]);
        assert_eq!(ranges(3, 3), [1..2, 2..3, 3..4]);
    }
}
