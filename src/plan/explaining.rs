//! EXPLAIN of statements on several shards: the plans of the servers, one after another.

use std::sync::Arc;

use super::{Access, Gather, Part, Plan, Route, Scatter, Spread, Tag};
use crate::error::Error;
use crate::merge::Merge;

/// `plan`: of the statement that is explained, EXPLAIN in front of each of its texts. `analyze`: it runs.
pub(super) fn explaining(plan: Plan, analyze: bool, access: Access) -> Result<Plan, Error> {
    let route = match plan.route {
        Route::One(shard) => Route::One(shard),
        Route::Scatter(scatter) => one_after_another(scatter.parts),
        // The same on all of them.
        Route::Spread(spread) if !analyze && spread.tag == Tag::First => {
            spread.parts.first().map_or_else(|| one_after_another(Vec::new()), |part| Route::One(part.shard))
        }
        Route::Spread(spread) if analyze => Route::Spread(Box::new(Spread { row_order: Vec::new(), ..*spread })),
        Route::Spread(spread) if spread.fetches.is_empty() => one_after_another(spread.parts),
        Route::Gather(gather) if analyze => Route::Gather(gather),
        // Nothing is fetched, as nothing is run.
        Route::Gather(gather) => {
            let fetches = gather.fetches.into_iter().map(|fetch| {
                let parts = fetch.parts.into_iter().map(|part| Part { text: part.text.map(none_of), ..part });
                super::Fetch { parts: parts.collect(), narrowed: None, ..fetch }
            });
            Route::Gather(Box::new(Gather { fetches: fetches.collect(), ..*gather }))
        }
        _ => {
            let what = "EXPLAIN of a write in several steps over several shards";
            return Err(Error::unsupported(what, "Use EXPLAIN ROUTE, or a routing hint."));
        }
    };
    Ok(Plan { route, access })
}

fn one_after_another(parts: Vec<Part>) -> Route {
    let scatter = Scatter {
        parts,
        merge: Merge::default(),
        cursor: None,
        in_turn: true,
        explains: true,
        copied: None,
        otherwise: None,
    };
    Route::Scatter(Box::new(scatter))
}

fn none_of(text: Arc<str>) -> Arc<str> {
    Arc::from(format!("SELECT * FROM ({text}) AS fetched LIMIT 0"))
}
