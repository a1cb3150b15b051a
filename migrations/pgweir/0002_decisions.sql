-- How transactions over several shards ended. A row's presence is the decision; absence decides nothing.

CREATE TABLE IF NOT EXISTS pgweir.decisions (
    gid text PRIMARY KEY CHECK (length(gid) BETWEEN 1 AND 199),
    outcome text NOT NULL CHECK (outcome IN ('committed', 'aborted')),
    decided_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS decisions_decided_at ON pgweir.decisions (decided_at);

-- Called inside the client's own transaction, under whatever role the session has set: hence with the rights of its
-- owner. It can only add a decision to commit, never change or read one.
CREATE OR REPLACE FUNCTION pgweir.decide(gid text) RETURNS void
    LANGUAGE sql VOLATILE STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$ INSERT INTO pgweir.decisions (gid, outcome) VALUES (decide.gid, 'committed') $$;

REVOKE ALL ON pgweir.migrations, pgweir.decisions FROM PUBLIC;
REVOKE ALL ON FUNCTION pgweir.decide(text) FROM PUBLIC;
GRANT USAGE ON SCHEMA pgweir TO PUBLIC;
GRANT EXECUTE ON FUNCTION pgweir.decide(text) TO PUBLIC;
