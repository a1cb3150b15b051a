-- Which connections on which shards are one client's, while it takes long: so that instances that look for deadlocks see
-- circles that go through several of them. Of no use after a crash.
CREATE UNLOGGED TABLE IF NOT EXISTS pgweir.parties (
    instance text NOT NULL,
    client integer NOT NULL,
    shard integer NOT NULL,
    process integer NOT NULL,
    commits boolean NOT NULL,
    seen timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (instance, client, shard, process)
);
REVOKE ALL ON pgweir.parties FROM PUBLIC;
