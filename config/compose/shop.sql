-- The shop's rows of one shard: users :first to :last with what hangs on them, and the reference tables, which are
-- the same on every shard. Nothing is random; a shard that has users is left alone.
\pset tuples_only on
SELECT EXISTS (SELECT FROM users) AS loaded \gset
\if :loaded
    \echo Rows are there already.
    \quit
\endif

BEGIN;

INSERT INTO categories (id, name, parent_id, slug) VALUES
    (1, 'Home', NULL, 'home'), (2, 'Kitchen', 1, 'kitchen'), (3, 'Garden', 1, 'garden'),
    (4, 'Books', NULL, 'books'), (5, 'Comics', 4, 'comics'), (6, 'Toys', NULL, 'toys');

INSERT INTO products (id, sku, category_id, name, price, tags, created_at)
SELECT id, md5('product ' || id)::uuid, 1 + id % 6,
       (ARRAY['Sturdy', 'Quiet', 'Bright', 'Folding', 'Tiny'])[1 + id % 5] || ' '
           || (ARRAY['lamp', 'kettle', 'tent', 'chair', 'radio', 'atlas', 'kite'])[1 + id % 7] || ' ' || id,
       1.99 + id * 37 % 200, ARRAY['new', 'sale'], timestamptz '2023-01-01 00:00+00' + id * interval '1 hour'
FROM generate_series(1, 200) AS id;

INSERT INTO users (id, handle, email, full_name, country, balance, verified, created_at)
SELECT id, lower(first) || id, lower(first) || '.' || id || '@example.com', first || ' ' || last,
       (ARRAY['DE', 'FR', 'PL', 'NG', 'BR', 'JP', 'IT', 'TR', 'DK', 'GB'])[1 + id % 10],
       id * 7919 % 100000 / 100.0, id % 3 = 0, timestamptz '2023-01-01 00:00+00' + id * interval '1 hour'
FROM generate_series(:first, :last) AS id,
     LATERAL (SELECT (ARRAY['Ada', 'Bruno', 'Chidi', 'Dana', 'Elif', 'Farid', 'Grace'])[1 + id % 7] AS first,
                     (ARRAY['Okafor', 'Nowak', 'Silva', 'Tanaka', 'Weber'])[1 + id % 5] AS last) AS name;

INSERT INTO orders (user_id, id, tracking, status, total, placed_at)
SELECT users.id, n, md5(users.id || ' order ' || n)::uuid,
       (ARRAY['placed', 'paid', 'shipped', 'delivered', 'cancelled'])[1 + (users.id + n) % 5], 0,
       users.created_at + n * interval '1 day'
FROM users, generate_series(1, users.id % 5) AS n;

INSERT INTO order_items (user_id, order_id, line, product_id, quantity, unit_price)
SELECT orders.user_id, orders.id, line, products.id, 1 + line, products.price
FROM orders, generate_series(1, 1 + orders.id % 3) AS line,
     LATERAL (SELECT * FROM products WHERE id = 1 + (orders.user_id * 13 + orders.id * 7 + line) % 200) AS products;

UPDATE orders SET total = items.total
FROM (SELECT user_id, order_id, sum(quantity * unit_price) AS total FROM order_items GROUP BY 1, 2) AS items
WHERE (orders.user_id, orders.id) = (items.user_id, items.order_id);

INSERT INTO carts (user_id, product_id, quantity, added_at)
SELECT id, 1 + id % 200, 1 + id % 3, created_at FROM users WHERE id % 2 = 0;

INSERT INTO posts (user_id, id, public_id, body, tags, likes, published_at)
SELECT users.id, n, md5(users.id || ' post ' || n)::uuid, 'My kettle ' || n || ' is wonderful', ARRAY['home'],
       users.id * n % 500, users.created_at + n * interval '1 hour'
FROM users, generate_series(1, users.id % 4) AS n;

-- Whom a user follows may live on the other shard.
INSERT INTO follows (user_id, followed_id, since)
SELECT id, 1 + (id * 31 + n * 4999) % 20000, created_at
FROM users, generate_series(1, id % 4) AS n
ON CONFLICT DO NOTHING;

COMMIT;
ANALYZE categories, products, users, orders, order_items, carts, posts, follows;
