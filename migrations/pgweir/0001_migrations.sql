-- What pgweir keeps on every shard, and which files a shard has had.

CREATE SCHEMA IF NOT EXISTS pgweir;
COMMENT ON SCHEMA pgweir IS 'Bookkeeping of the pgweir proxy';

CREATE TABLE IF NOT EXISTS pgweir.migrations (
    name text PRIMARY KEY,
    sha256 text NOT NULL,
    -- The run that applied the file: the same on all shards that it changed.
    run text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
