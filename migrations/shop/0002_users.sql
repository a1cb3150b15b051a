-- Sharded by id. The application gives the id, and the id decides the shard.

CREATE TABLE users (
    id bigint PRIMARY KEY,
    handle text NOT NULL,
    email text NOT NULL,
    full_name text,
    born date,
    country char(2) NOT NULL,
    balance numeric(12, 2) NOT NULL DEFAULT 0,
    verified boolean NOT NULL DEFAULT false,
    interests text[] NOT NULL DEFAULT '{}',
    settings jsonb NOT NULL DEFAULT '{}',
    avatar bytea,
    last_seen_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX users_email ON users (lower(email));
CREATE INDEX users_created_at ON users (created_at);
