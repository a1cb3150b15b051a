-- Sharded by user_id. Whom a user follows may live on another shard: no foreign key there.

CREATE TABLE posts (
    user_id bigint NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    id bigint NOT NULL,
    public_id uuid NOT NULL,
    body text NOT NULL,
    tags text[] NOT NULL DEFAULT '{}',
    attachments jsonb,
    likes integer NOT NULL DEFAULT 0,
    score double precision,
    visible boolean NOT NULL DEFAULT true,
    published_at timestamptz NOT NULL DEFAULT now(),
    edited_at timestamptz,
    PRIMARY KEY (user_id, id)
);
CREATE INDEX posts_published_at ON posts (published_at DESC);
CREATE INDEX posts_tags ON posts USING gin (tags);

CREATE TABLE follows (
    user_id bigint NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    followed_id bigint NOT NULL,
    muted boolean NOT NULL DEFAULT false,
    since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, followed_id)
);
CREATE INDEX follows_followed ON follows (followed_id);
