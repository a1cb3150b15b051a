-- Reference tables: the same rows on every shard.

CREATE TABLE categories (
    id integer PRIMARY KEY,
    name text NOT NULL,
    parent_id integer REFERENCES categories (id),
    slug text NOT NULL UNIQUE
);

CREATE TABLE products (
    id integer PRIMARY KEY,
    sku uuid NOT NULL UNIQUE,
    category_id integer NOT NULL REFERENCES categories (id),
    name text NOT NULL,
    description text,
    price numeric(10, 2) NOT NULL,
    weight_kg real,
    tags text[] NOT NULL DEFAULT '{}',
    attributes jsonb NOT NULL DEFAULT '{}',
    available boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX products_category ON products (category_id, price);
CREATE INDEX products_tags ON products USING gin (tags);
