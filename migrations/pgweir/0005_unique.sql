-- Columns that are declared unique over all shards. The home shard has every value once; on each shard, triggers tell
-- which values a write gives and takes, and pgweir hands that on in the same transaction.

CREATE TABLE IF NOT EXISTS pgweir.unique_values (
    relation text NOT NULL,
    field text NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (relation, field, value)
);

-- Of transactions that run; each takes its own rows out again.
CREATE UNLOGGED TABLE IF NOT EXISTS pgweir.unique_changes (
    transaction xid8 NOT NULL DEFAULT pg_current_xact_id(),
    relation text NOT NULL,
    field text NOT NULL,
    value text NOT NULL,
    change integer NOT NULL
);
CREATE INDEX IF NOT EXISTS unique_changes_transaction ON pgweir.unique_changes (transaction);

CREATE OR REPLACE FUNCTION pgweir.note_unique() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET "TimeZone" = 'UTC' SET "DateStyle" = 'ISO, YMD'
AS $$
DECLARE
    kept text := current_setting('pgweir.unique_columns', true);
    relation text := format('%I.%I', TG_TABLE_SCHEMA, TG_TABLE_NAME);
    field text;
    changed text;
BEGIN
    IF kept = 'off' THEN
        RETURN NULL;
    ELSIF kept IS DISTINCT FROM 'kept' THEN
        RAISE EXCEPTION 'a write of "%" by which its unique columns are not kept is not supported across shards',
                TG_TABLE_NAME
            USING ERRCODE = '0A000', SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME,
                HINT = 'Write it through pgweir, by INSERT, UPDATE, DELETE, MERGE, COPY or TRUNCATE that names it.';
    END IF;
    FOREACH field IN ARRAY TG_ARGV LOOP
        changed := CASE TG_OP
            WHEN 'INSERT' THEN format('SELECT %1$I::text AS value, 1 AS change FROM new_rows', field)
            WHEN 'DELETE' THEN format('SELECT %1$I::text AS value, -1 AS change FROM old_rows', field)
            WHEN 'TRUNCATE' THEN format('SELECT %1$I::text AS value, -1 AS change FROM %2$s', field, relation)
            ELSE format('SELECT %1$I::text AS value, -1 AS change FROM old_rows '
                'UNION ALL SELECT %1$I::text, 1 FROM new_rows', field)
        END;
        EXECUTE 'INSERT INTO pgweir.unique_changes (relation, field, value, change) '
            'SELECT $1, $2, value, sum(change) FROM (' || changed || ') AS changed '
            'WHERE value IS NOT NULL GROUP BY value HAVING sum(change) <> 0' USING relation, field;
    END LOOP;
    RETURN NULL;
END $$;

-- What the statements since the last call have changed on this shard; it ends the permission to change more.
CREATE OR REPLACE FUNCTION pgweir.take_unique()
    RETURNS TABLE (relation text, field text, value text, change text)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('pgweir.unique_columns', '', true);
    RETURN QUERY WITH taken AS (
        DELETE FROM pgweir.unique_changes c WHERE c.transaction = pg_current_xact_id() RETURNING c.*)
    SELECT t.relation, t.field, t.value, sum(t.change)::text FROM taken t GROUP BY 1, 2, 3 HAVING sum(t.change) <> 0;
END $$;

-- On the home shard: all of it, of all shards. Who gives a value that another transaction is giving waits for its end.
CREATE OR REPLACE FUNCTION pgweir.keep_unique(relations text[], fields text[], vals text[], changes text[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    clash record;
    named text;
BEGIN
    WITH lost AS (
        SELECT r, f, v FROM unnest(relations, fields, vals, changes) AS t (r, f, v, c)
        GROUP BY r, f, v HAVING sum(c::int) < 0)
    DELETE FROM pgweir.unique_values u USING lost WHERE u.relation = r AND u.field = f AND u.value = v;
    WITH given AS (
        SELECT r, f, v, sum(c::int) AS times FROM unnest(relations, fields, vals, changes) AS t (r, f, v, c)
        GROUP BY r, f, v HAVING sum(c::int) > 0),
    added AS (
        INSERT INTO pgweir.unique_values SELECT r, f, v FROM given ORDER BY r, f, v
        ON CONFLICT DO NOTHING RETURNING relation, field, value)
    SELECT r, f, v INTO clash FROM given LEFT JOIN added ON (relation, field, value) = (r, f, v)
    WHERE value IS NULL OR times > 1 ORDER BY r, f, v LIMIT 1;
    IF FOUND THEN
        SELECT x.relname INTO named FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = to_regclass(clash.r) AND i.indisunique AND i.indnkeyatts = 1 AND a.attname = clash.f
        ORDER BY x.relname LIMIT 1;
        named := coalesce(named, (parse_ident(clash.r))[2] || '_' || clash.f || '_key');
        RAISE EXCEPTION 'duplicate key value violates unique constraint "%"', named
            USING ERRCODE = '23505', DETAIL = format('Key (%I)=(%s) already exists.', clash.f, clash.v),
                SCHEMA = (parse_ident(clash.r))[1], TABLE = (parse_ident(clash.r))[2], CONSTRAINT = named;
    END IF;
END $$;

REVOKE ALL ON pgweir.unique_values, pgweir.unique_changes FROM PUBLIC;
REVOKE ALL ON FUNCTION pgweir.take_unique(), pgweir.keep_unique(text[], text[], text[], text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgweir.take_unique(), pgweir.keep_unique(text[], text[], text[], text[]) TO PUBLIC;
