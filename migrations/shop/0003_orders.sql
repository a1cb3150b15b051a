-- Sharded by user_id. Ids count up within one user, so no sequence spans the shards; foreign keys follow the user.

CREATE TABLE orders (
    user_id bigint NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    id bigint NOT NULL,
    tracking uuid NOT NULL,
    status text NOT NULL DEFAULT 'placed'
        CHECK (status IN ('placed', 'paid', 'shipped', 'delivered', 'cancelled')),
    total numeric(12, 2) NOT NULL,
    currency char(3) NOT NULL DEFAULT 'EUR',
    gift boolean NOT NULL DEFAULT false,
    note text,
    placed_at timestamptz NOT NULL DEFAULT now(),
    shipped_at timestamptz,
    PRIMARY KEY (user_id, id)
);
CREATE INDEX orders_placed_at ON orders (placed_at);
CREATE INDEX orders_status ON orders (status, placed_at);

CREATE TABLE order_items (
    user_id bigint NOT NULL,
    order_id bigint NOT NULL,
    line smallint NOT NULL,
    product_id integer NOT NULL REFERENCES products (id),
    quantity integer NOT NULL CHECK (quantity > 0),
    unit_price numeric(10, 2) NOT NULL,
    discount numeric(4, 3),
    PRIMARY KEY (user_id, order_id, line),
    FOREIGN KEY (user_id, order_id) REFERENCES orders (user_id, id) ON DELETE CASCADE
);
CREATE INDEX order_items_product ON order_items (product_id);

CREATE TABLE carts (
    user_id bigint NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    product_id integer NOT NULL REFERENCES products (id),
    quantity integer NOT NULL CHECK (quantity > 0),
    added_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, product_id)
);
