//! Chooses the server of a shard that serves a statement: health, lag, load, weight. No I/O.
