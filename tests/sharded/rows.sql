-- Users 1 to 20 live on one shard, 1001 to 1020 on another. Values repeat, are NULL, negative, empty and beyond ASCII.
insert into categories values
    (1, 'Books', null, 'books'), (2, 'Maps', 1, 'maps'), (3, 'Toys', null, 'toys'), (4, 'été', 3, 'ete');
insert into products
select n, md5(n::text)::uuid, 1 + n % 4, 'Product ' || n, nullif('text ' || n, 'text 3'), n * 3.5, nullif(n / 4.0, 0.5),
    array['a', 'b' || n], jsonb_build_object('n', n), n % 3 <> 0, timestamptz '2024-01-01 00:00:00+00' + n * interval '1 hour'
from generate_series(1, 10) n;
insert into users
select id, (array['ann', 'Bob', 'ümit', 'zoe', '', 'O''Hara'])[1 + n % 6] || n, 'u' || n || '@example.org',
    (array['Ann Lee', 'Bob Ray', null, 'ann lee'])[1 + n % 4], date '1990-01-01' + n * 37,
    (array['DE', 'FR', 'PL'])[1 + n % 3], (n * 7 % 11 - 5) * 1.25, n % 2 = 0, array['i' || n % 3],
    jsonb_build_object('theme', n % 2), decode(md5(n::text), 'hex'),
    case when n % 5 <> 0 then timestamptz '2024-03-01 12:00:00+00' + n * interval '7 minutes' end,
    timestamptz '2023-01-01 00:00:00+00' + n * interval '1 day'
from (select n, case when n <= 20 then n else 980 + n end as id from generate_series(1, 40) n) ids;
insert into orders
select u.id, k, md5(u.id || '/' || k)::uuid, (array['placed', 'paid', 'shipped'])[1 + (u.id + k) % 3],
    (u.id * k % 17) * 9.99, 'EUR', k % 2 = 0, nullif((array['', 'gift', 'Zürich', 'late'])[1 + (u.id + k) % 4], ''),
    timestamptz '2024-02-01 00:00:00+00' + (u.id * 13 + k) * interval '1 minute',
    case when k > 1 then timestamptz '2024-02-03 00:00:00+00' end
from users u, generate_series(1, 3) k where u.id % 4 <> 0;
insert into order_items
select user_id, id, line, 1 + (user_id + id + line) % 10, 1 + line, line * 2.50, case when line = 1 then 0.125 end
from orders, generate_series(1, 2) line;
insert into carts select id, 1 + id % 10, 1 + id % 3, '2024-02-01 00:00:00+00' from users where id % 3 = 0;
insert into posts
select u.id, k, md5(k || '-' || u.id)::uuid, 'post ' || k || ' of ' || u.handle, array['t' || k], null, (u.id * k % 9)::int,
    case when k = 1 then (u.id % 7) * 0.1 end, k <> 2, '2024-02-01 00:00:00+00', null
from users u, generate_series(1, 2) k;
insert into follows
select u.id, f.id, (u.id + f.id) % 2 = 0, timestamptz '2024-01-01 00:00:00+00' + f.id * interval '1 second'
from users u join users f on (u.id * 7 + f.id) % 10 = 0;
