-- Which writes over several shards a snapshot shows: where reads are to be consistent, each leaves its name on every
-- shard that takes part, to be seen when the rest of it is.

-- By the clock, not by when the client's transaction began: a snapshot is compared by what was decided lately.
CREATE OR REPLACE FUNCTION pgweir.decide(gid text) RETURNS void
    LANGUAGE sql VOLATILE STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO pgweir.decisions (gid, outcome, decided_at) VALUES (decide.gid, 'committed', clock_timestamp())
$$;

-- Names only, for whoever reads: as the caller's snapshot shows them.
CREATE OR REPLACE FUNCTION pgweir.decided_since(age interval) RETURNS SETOF text
    LANGUAGE sql STABLE STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$ SELECT gid FROM pgweir.decisions WHERE outcome = 'committed' AND decided_at > now() - decided_since.age $$;

CREATE OR REPLACE FUNCTION pgweir.decided_of(gids text[]) RETURNS SETOF text
    LANGUAGE sql STABLE STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$ SELECT gid FROM pgweir.decisions WHERE outcome = 'committed' AND gid = ANY (decided_of.gids) $$;

REVOKE ALL ON FUNCTION pgweir.decided_since(interval), pgweir.decided_of(text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgweir.decided_since(interval), pgweir.decided_of(text[]) TO PUBLIC;
