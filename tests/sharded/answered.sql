-- one shard
select * from users where id = 5
select * from users where id = 1005
select id, handle from users where id = '1005'
select id from users where id = 5.0
select id from users where id = 5::int2
select * from orders where user_id = 1005 order by id desc
select u.handle, o.id, i.line from users u join orders o on o.user_id = u.id join order_items i on i.user_id = o.user_id and i.order_id = o.id where u.id = 1005 order by o.id, i.line
select count(*), sum(total), avg(total) from orders where user_id = 1005
select row_number() over (order by id), id from orders where user_id = 5 order by id
with o as (select * from orders where user_id = 5) select count(*) from o a join o b on a.id = b.id
select id from orders where user_id = 5 union select id from posts where user_id = 5
select distinct on (gift) gift, id from orders where user_id = 1005 order by gift, id desc
select u.id, (select count(*) from orders o where o.user_id = u.id) from users u where u.id in (5, 6)
select id from users where id = 5 for update
select status, count(*) from orders where user_id = 1005 group by rollup (status) order by status nulls last
-- no rows, or none that can be
select * from users where id = 0
select * from users where id = -7
select * from users where id = 99999999999999999999
select count(*) from users where id = 0
select count(*), sum(balance), max(id) from users where id = null
select * from users where id is null
select * from users where false
select * from users where id = 5 and id = 1005
select * from users where id > 99999999999999999999
-- rows appended
select id from users
select * from users
select * from users where id <> 5
select id from users where not (id = 5)
select id from users where id = 5 or handle like 'zoe%'
select id from users where id = 5 or id = 1005
select id from users where id in (5, 6, 1005, null)
select id from users where id not in (5, 6, 1005)
select id from users where id not in (5, null)
select id from users where id = any('{5,1005}')
select id from users where id = any(array[5, 1005, 7000])
select id from users where id <> all('{5,1005}')
select id from users where id between 15 and 1005
select id from users where id not between 15 and 1005
select id from users where id >= 18 and id < 1003
select id from users where id > 1000
select id from users where id <= 1001
select id from users where id = 5.5
select id from users where id < 5.5
select id from users where id::text = '1005'
select id from users where id + 1000 = 1005
select id from users where -id = -1005
select user_id, id from orders where (user_id, id) = (1005, 2)
select user_id, id from orders where (user_id, id) in ((5, 1), (1005, 2), (1006, 9))
select user_id, id from orders where (user_id, id) > (1017, 2)
select user_id, id from orders where (id, user_id) < (2, 3)
select id from users where (id = 5) is true
select id from users where (id = 5) is not true
select id from users where (id = null) is null
select id from users where id is distinct from 5
select id, coalesce(full_name, '-'), upper(handle), length(handle) from users
select id, case when balance < 0 then 'minus' else 'plus' end from users
table users
table products
-- order
select id from users order by id
select id from users order by id desc
select id, balance from users order by balance, id
select id, balance from users order by balance desc, id desc
select id, full_name from users order by full_name, id
select id, full_name from users order by full_name desc, id
select id, full_name from users order by full_name nulls first, id
select id, full_name from users order by full_name desc nulls last, id
select id, handle from users order by handle
select id, handle from users order by handle desc
select id, country from users order by country, id
select id, born from users order by born desc
select id, last_seen_at from users order by last_seen_at, id
select id, last_seen_at from users order by 2 desc nulls last, 1
select id, verified from users order by verified desc, id
select id as n from users order by n
select balance as id, id as balance from users order by id, balance
select id from users order by balance, id
select handle from users order by balance desc, id
select * from users order by balance, id
select * from users order by 1 desc
select *, balance from users order by id
select id, balance + 1 as more from users order by more, id
select id from users order by balance + id
select id from users order by lower(handle)
select id from users order by handle collate "C"
select id from users order by length(handle), id
select id from users order by avatar
select user_id, id, tracking from orders order by tracking
select user_id, id, score from posts order by score nulls first, user_id, id
select id, extract(year from created_at) from users order by extract(year from created_at), id
-- limit and offset
select id from users order by id limit 3
select id from users order by id desc limit 3 offset 4
select id from users order by id offset 35
select id from users order by id limit 3 offset 18
select id from users order by id limit 0
select id from users order by id limit 5 offset 100
select id from users order by id limit all offset 38
select id from users order by id limit null
select id from users order by id fetch first 3 rows only
select id from users order by id fetch first row only
select id from users order by id offset 2 rows fetch next 2 rows only
select handle from users order by balance, id limit 4
select * from users order by handle limit 2
select count(*) from users limit 1
select count(*) from users offset 1
-- aggregates
select count(*) from users
select count(*), count(full_name), count(id) from users
select sum(id), sum(balance), sum(likes) from users join posts on posts.user_id = users.id and posts.id = 1
select sum(quantity), sum(unit_price), sum(discount) from order_items
select min(id), max(id), min(balance), max(balance), min(handle), max(handle), min(born), max(last_seen_at) from users
select avg(id), avg(balance) from users
select avg(quantity), avg(unit_price), avg(discount), avg(line) from order_items
select avg(score) from posts
select sum(score) from posts where score > 100
select avg(balance), sum(balance), count(balance), min(full_name) from users where balance > 1000
select bool_and(verified), bool_or(verified), every(verified) from users
select count(*) filter (where verified), sum(balance) filter (where balance > 0), max(id) filter (where id < 0) from users
select country, count(*) from users group by country
select country, count(*) from users group by country order by country
select country, count(*) as n from users group by 1 order by n desc, country limit 2
select count(*) from users group by country
select country, verified, sum(balance), avg(balance), min(handle) from users group by country, verified order by 1, 2
select full_name, count(*) from users group by full_name order by full_name nulls first
select lower(country), count(*) from users group by lower(country) order by 1
select lower(full_name) as name, count(*) from users group by name order by name
select status, gift, count(*) from orders group by gift, status order by status, gift
select country from users group by country order by country desc
select born - born as zero, max(id) from users group by zero
select date_trunc('month', created_at), count(*) from users group by 1 order by 1
select user_id, count(*), sum(total) from orders group by user_id order by sum(total) desc, user_id limit 5
select user_id from orders group by user_id having count(*) > 2 order by user_id
select user_id, string_agg(note, ',' order by id) from orders group by user_id order by user_id
select user_id, count(distinct status) from orders group by user_id order by user_id
select user_id from orders group by user_id order by sum(total) desc, user_id limit 3
select user_id, gift, array_agg(id order by id) from orders group by user_id, gift order by user_id, gift
select u.country, count(*) from users u join orders o on o.user_id = u.id group by u.country order by u.country
select o.user_id, count(*) from users u join orders o on o.user_id = u.id group by o.user_id order by o.user_id
select p.name, sum(i.quantity) from order_items i join products p on p.id = i.product_id group by p.name order by p.name
select distinct country from users
select distinct country, verified from users order by country, verified desc
select distinct full_name from users order by full_name limit 2
select distinct country, count(*) from users group by country
select distinct note from orders order by note desc
select sum(total) from orders where user_id in (5, 1005)
-- joins by the key
select u.id, o.id from users u join orders o on o.user_id = u.id
select u.id, o.id from users u left join orders o on o.user_id = u.id order by u.id, o.id
select u.id from users u left join orders o on o.user_id = u.id where o.user_id is null order by u.id
select u.id, o.id from users u left join orders o on o.user_id = u.id and o.gift order by u.id, o.id
select u.id, o.id from orders o right join users u on o.user_id = u.id order by u.id, o.id
select user_id, o.id, line from orders o join order_items i using (user_id) where o.id = i.order_id order by user_id, o.id, line
select u.id, p.name from users u join carts c on c.user_id = u.id join products p on p.id = c.product_id order by u.id, p.name
select u.id, n from users u, generate_series(1, 2) n order by u.id, n
select u.id, c.slug from users u, categories c where c.id = u.id % 4 + 1 order by u.id
select u.handle, f.followed_id from users u join follows f on f.user_id = u.id where f.muted order by u.handle, f.followed_id
-- subqueries on the key
select id from users where id in (select user_id from orders where gift) order by id
select id from users u where exists (select 1 from orders o where o.user_id = u.id and o.total > 50) order by id
select id from users u where not exists (select 1 from orders o where o.user_id = u.id) order by id
select id, (select count(*) from orders o where o.user_id = u.id) as n from users u order by id
select id from users u where 2 <= (select count(*) from orders o where o.user_id = u.id and o.note is not null) order by id
select id from users where country in (select 'DE' from categories) order by id
select id, (select max(slug) from categories) from users order by id
select id from users u where exists (select from products p where p.id = u.id) order by id
select id from users u where not exists (select from products p where p.id = 1 and u.id = 5) order by id
select user_id, id from orders where user_id in (select user_id from carts) order by user_id, id
-- reference tables and none
select name from categories order by name
select c.name, count(p.id) from categories c left join products p on p.category_id = c.id group by c.name order by c.name
select 1 + 1, 'a' || 'b'
values (1, 'a'), (2, 'b')
select n from generate_series(1, 5) n where n % 2 = 1
with recursive t(n) as (select 1 union all select n + 1 from t where n < 5) select sum(n) from t
-- errors are the servers' own
select nosuch from users
select id from users where id = 'x'
select id from users where handle = 5
select 1 / 0
select id from users order by 99
insert into users(id, handle, email, country) values (5, 'x', 'x', 'DE')
insert into orders(user_id, id, tracking, total) values (8888, 1, 'b5d3cd54-0f37-4b54-8a47-4a0b0a0b0a0b', 1)
insert into orders(user_id, id, tracking, total, status) values (5, 99, 'b5d3cd54-0f37-4b54-8a47-4a0b0a0b0a0b', 1, 'lost')
update orders set status = 'lost'
-- writes
insert into users(id, handle, email, country, created_at) values (21, 'new', 'n@example.org', 'DE', '2024-05-01'), (1021, 'newer', 'o@example.org', 'FR', '2024-05-01'), (22, 'newest', 'p@example.org', 'PL', '2024-05-01')
insert into users(id, handle, email, country, created_at) values (23, 'a', 'n@example.org', 'DE', '2024-05-01'), (1023, 'b', 'o@example.org', 'FR', '2024-05-01') returning id, handle
insert into users(id, handle, email, country, created_at) values (5, 'again', 'x', 'DE', '2024-05-01'), (1005, 'again', 'x', 'DE', '2024-05-01'), (24, 'z', 'x', 'DE', '2024-05-01') on conflict (id) do nothing
insert into users(id, handle, email, country, created_at) values (5, 'again', 'x', 'DE', '2024-05-01'), (1005, 'again', 'x', 'DE', '2024-05-01') on conflict (id) do update set handle = excluded.handle || users.id, id = excluded.id
update users set balance = balance + 1 where id = 1021
update users set balance = balance * 2
update users set full_name = null where country = 'FR'
update users set full_name = 'x' where id in (5, 1006, 7777) returning id
update users set verified = not verified where id between 19 and 1002
update users u set full_name = o.note from orders o where o.user_id = u.id and o.id = 1 and o.note is not null
update order_items i set unit_price = p.price from products p where p.id = i.product_id
update orders o set total = (select sum(i.quantity * i.unit_price) from order_items i where i.user_id = o.user_id and i.order_id = o.id)
update users set id = id where id = 5
update users set balance = 0 where id = 4242
delete from carts where user_id in (3, 1002)
delete from posts where likes = 0
delete from follows f using users u where u.id = f.user_id and not u.verified
delete from order_items where user_id in (select user_id from carts)
delete from users where id = 24
delete from users where id = 4242
insert into categories values (5, 'Fünf', 3, 'five'), (6, 'Six', null, 'six')
insert into categories(id, name, slug) select 10 + id, name, 'copy-' || slug from categories where id < 3
update categories set parent_id = 1 where parent_id is null and id > 4
update products set price = price + 1, tags = tags || '{x}'
update products p set name = c.name from categories c where c.id = p.category_id and c.slug = 'maps'
delete from categories where slug = 'six'
insert into categories values (1, 'twice', null, 'twice')
insert into products values (11, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 99, 'no category', null, 1, null, '{}', '{}', true, '2024-01-01')
-- computed on one shard over rows of all
select a.id, b.id from users a join users b on a.full_name = b.full_name
select u.id from users u join follows f on f.followed_id = u.id
select u.id from users u cross join carts c
select u.id from users u natural join orders o
select u.id from users u left join orders o on o.note = u.handle where u.id = 5 and o.user_id is null
select id from users where handle in (select note from orders)
select id from users where id not in (select user_id from orders)
select id from users where balance > (select avg(balance) from users)
select id from users where id = 5 and id in (select user_id from orders order by total desc, user_id, id limit 10)
select u.id from users u, orders o where not exists (select from products p where u.id = o.user_id)
select u.id from users u join (select user_id from orders group by user_id) o on o.user_id = u.id
select p.name, i.line from products p left join order_items i on i.product_id = p.id
select p.name, (select count(*) from order_items i where i.product_id = p.id) from products p
select (select count(*) from users)
select * from (select * from orders order by total, user_id, id limit 3) o
with o as (select * from orders) select count(*) from o
select u.id from users u full join carts c on c.user_id = u.id
select (select sum(u.balance)) from users u
select id from users union select id from users
select id, row_number() over (order by id) from users
select id from users order by rank() over (order by balance), id
select count(*) + 1 from users
select coalesce(sum(balance), 0) from users
select 1 from users order by count(*)
select max(id) - min(id) from users
select country, count(*) from users group by country having count(*) > 5
select count(distinct country) from users
select string_agg(handle, ',' order by handle) from users
select array_agg(id order by id) from users
select stddev(balance) from users
select avg(balance) filter (where verified) from users
select country, count(*) from users group by rollup (country)
select distinct on (country) country, id from users order by country, id
select lower(handle) as handle, count(*) from users group by handle
select country from users group by country order by count(*), country
select *, balance * 2 as twice from users order by twice, id
select distinct settings from users
select id from (select id from users order by balance fetch first 3 rows with ties) t order by id
select id, settings from users order by settings, id
select id, interests from users order by interests, id
select full_name, id from users order by full_name, id
select full_name, count(*) from users group by full_name order by full_name
select max(full_name), min(handle) from users
select u.handle, o.total, rank() over (partition by u.country order by o.total desc, o.user_id, o.id) from users u join orders o on o.user_id = u.id order by 3, 1, 2, o.id
select u.*, count(o.id) from users u left join orders o on o.user_id = u.id group by u.id order by u.id
select u.handle, sum(o.total) from users u join orders o on o.note = u.full_name group by u.id order by u.id
select country, count(*), count(*) filter (where verified), count(distinct full_name) from users group by country having count(*) > 1 order by count(*) desc, country
select percentile_cont(0.5) within group (order by balance), mode() within group (order by country) from users
with recursive chain(id, depth) as (select 1::bigint, 0 union select f.followed_id, depth + 1 from follows f join chain c on f.user_id = c.id where depth < 3) select id, min(depth) from chain group by id order by id
with top as (select user_id, sum(total) spent from orders group by user_id order by 2 desc, 1 limit 5), other as (select id from users where country = 'DE') select t.user_id, t.spent, o.id from top t left join other o on o.id = t.user_id order by t.spent desc, t.user_id
select * from users u where exists (select from follows f where f.followed_id = u.id and f.user_id <> u.id) order by id
select u.id, l.id, l.total from users u left join lateral (select o.id, o.total from orders o where o.user_id = u.id order by o.total desc, o.id limit 2) l on true order by u.id, l.total desc nulls last, l.id
select id from users where country = 'DE' except select user_id from orders order by 1
(select id, handle from users where id < 5) union all (select user_id, note from orders where user_id > 1015) order by 1, 2
select u from users u where u.id in (select followed_id from follows) order by u.id
select row_to_json(u) from users u order by u.handle desc, u.id
select jsonb_agg(jsonb_build_object('h', handle, 'c', country) order by id) from users where verified
select a.id, b.id from users a, users b where a.country = b.country and a.id < b.id order by 1, 2
select distinct on (country) country, handle from users order by country, balance desc, id
select p.name, (select count(*) from order_items i where i.product_id = p.id and i.quantity > 1) from products p order by p.id
select avg(total), stddev(total), var_pop(total), sum(total)/count(*) from orders where gift
select count(*) from users u where balance > (select avg(balance) from users v where v.country = u.country)
select date_trunc('day', placed_at) d, sum(total), count(distinct user_id) from orders group by 1 order by 1
select case when verified then 'yes' else 'no' end v, width_bucket(balance, 0, 500, 4) b, count(*) from users group by 1, 2 order by 1, 2
select u.id, o.* from users u natural left join (select user_id as id, total from orders) o order by u.id, o.total
select lag(id) over w, id, lead(handle, 1, 'none') over w from users window w as (partition by country order by id) order by id
select country, verified, count(*) from users group by grouping sets ((country), (verified), ()) order by 1, 2, 3
select u.id from users as u where u.full_name like 'a%' and (u.id = 5 or u.id > 1000) and not exists (select 1 from orders o where o.user_id <> u.id and o.note = u.full_name) order by 1
select "u"."id" from "public"."users" "u" join public.orders as "o" on o.note = u.full_name where "o".gift order by 1
select max(t.n) from (select count(*) n from orders group by user_id) t
select users.id from users join orders on orders.note = users.full_name where users.id between 3 and 1004 and orders.total > 10 order by 1
select id, (select max(o.total) from orders o), (select count(*) from follows f where f.followed_id = users.id) from users order by id
values ((select count(*) from users)), ((select count(*) from orders))
select exists (select 1 from users where handle = 'nobody'), (select handle from users order by balance desc, id limit 1)
select id from (select id from users order by balance fetch first 3 rows with ties) t order by id
select string_agg(distinct country, ',' order by country), array_agg(distinct verified) from users
select nosuch from users u join orders o on o.note = u.full_name
select u.id / 0 from users u join orders o on o.note = u.full_name
select u.id from users u group by u.handle
-- writes over rows of all
update orders o set note = (select body from posts p where p.user_id = o.user_id order by p.id limit 1) where o.id = 2
update users set balance = (select round(avg(balance), 2) from users where country = 'DE') where id in (2, 1002) returning id, balance
update users u set full_name = v.full_name || '+' from users v where v.handle = u.handle and u.country = 'PL' and v.id = u.id
update users u set last_seen_at = o.placed_at from orders o where o.note = u.full_name and o.user_id = 5 and o.id = 1
delete from orders where total < (select avg(total) / 4 from orders) returning user_id, id
delete from carts c using users u where u.id = c.user_id + 1000 and u.country = 'DE'
delete from orders where user_id = 5 and id in (select max(id) from orders)
update orders set note = 'best' where (user_id, id) in (select user_id, id from orders order by total desc, user_id, id limit 7)
update posts p set body = body || ' (popular)' where (select count(*) from follows f where f.followed_id = p.user_id) > 2
with old as (select id from users where balance < 0) update users u set balance = 0 from old where old.id = u.id
update users set country = 'XX' where id in (select followed_id from follows group by followed_id having count(*) > 3)
declare c cursor for select * from users
select count(*), sum(balance), min(full_name), max(country), max(last_seen_at) from users
select user_id, id, note, total from orders order by 1, 2
-- INSERT … SELECT
insert into orders select 5, 9, 'b5d3cd54-0f37-4b54-8a47-4a0b0a0b0a0b', 'placed', 1, 'EUR', false, null, '2024-04-04'
insert into carts select * from carts
insert into orders(user_id, id, tracking, status, total, placed_at, note) select id, 77, md5(handle)::uuid, 'placed', balance + 100, '2024-05-05 10:00+00', 'it''s ' || handle from users where country = 'DE' returning user_id, id, note
insert into orders(user_id, id, tracking, status, total, placed_at) select o.user_id + 1000, 78, tracking, status, max(total) over (), placed_at from orders o where o.user_id < 4 and o.id = 1 order by 1
insert into follows(user_id, followed_id, since) select a.id, b.id, '2024-06-06' from users a join users b on a.full_name = b.full_name and a.id <> b.id on conflict do nothing
insert into orders(placed_at, user_id, id, tracking, status, total) select timestamptz '2024-06-06', user_id, id, tracking, status, total + 1 from orders where id = 1 on conflict (user_id, id) do update set total = excluded.total, note = 'again'
insert into orders(placed_at, user_id, id, tracking, status, total) select timestamptz '2024-06-06', user_id, id, tracking, status, total from orders where user_id = 999999
insert into orders(placed_at, user_id, id, tracking, status, total) select timestamptz '2024-06-06', id, handle, md5(handle)::uuid, 'placed', 1 from users
insert into orders(placed_at, user_id, id, tracking, status, total) select timestamptz '2024-06-06', id, 1, md5(handle)::uuid, 'placed', 1 from users where country = 'DE'
insert into orders(placed_at, user_id, id, tracking, status, total) with best as (select user_id, sum(total) s from orders group by user_id order by 2 desc, 1 limit 3) select timestamptz '2024-06-06', user_id, 80, gen.u, 'paid', s::int from best, (select md5('x')::uuid u) gen returning *
select user_id, id, note, total, placed_at from orders where placed_at < '2024-06-01' order by 1, 2
select * from follows order by 1, 2
select * from carts order by 1, 2
-- the first rows of each shard are enough
select full_name, id from users order by full_name, id limit 3
select id, lower(full_name) as handle from users where country = 'DE' order by handle, id desc limit 4 offset 2
select * from users where full_name like '%n%' order by full_name desc nulls last, id limit 5
select full_name from users where id > 3 and (select true) order by 1, id limit 2
select id, settings from users order by settings desc nulls first, 1 limit 2 offset 1
select u.full_name as n, u.id from users u where u.id in (select user_id from orders) order by n desc, 2 limit 3
-- one subquery in FROM, whose rows pass by themselves
select count(*) from (select * from users) u
select count(*), sum(total), max(total) from (select total from orders where total > 20) o
select o.user_id, o.total from (select * from orders order by total) o where o.total > 10 order by o.total, o.user_id, o.id limit 4
select count(*) from (select u.id, p.id as post from users u left join posts p on p.user_id = u.id) both_of_them
select distinct h.country from (select u.country, o.id from users u join orders o on o.user_id = u.id) h order by h.country
select o.status, count(*) from (select * from orders where total < 100) o group by o.status order by o.status
select * from (select id, handle from users where id in (5, 1005)) u order by id
select count(*) from (select distinct country from users) c
select count(*) from (select id from users order by id limit 3) u
select count(*) from (select user_id, count(*) from orders group by user_id) o
select count(*) from (select id from users union all select id from orders) b
select count(*) from (select * from (select * from users) a) b
-- texts of several statements
select id from users where id = 5; select id from users where id = 1005
select count(*) from users; select count(*) from orders
update users set country = 'NO' where id = 5; update users set country = 'SE' where id = 1005; select id, country from users where id in (5, 1005) order by id
update users set country = 'FI' where id in (6, 1006); select id, country from users where id in (6, 1006) order by id; select sum(total) from orders
update users set country = 'XX' where id = 5; update users set country = 'YY' where id = 1005; select 1 / (id - 5) from users where id = 5
select id, country from users where id in (5, 1005) order by id
begin; update users set country = 'DK' where id = 5; update users set country = 'DK' where id = 1005; commit
begin; update users set country = 'XX' where id = 5; update users set country = 'YY' where id = 1005; rollback
select id, country from users where id in (5, 1005) order by id
update users set country = 'IS' where id = 1005; commit; update users set country = 'XX' where id = 5; select 1 / (id - 5) from users where id = 5
select id, country from users where id in (5, 1005) order by id
update users set country = 'XX' where id = 5; begin; update users set country = 'YY' where id = 1005; rollback
select id, country from users where id in (5, 1005) order by id
begin; update users set country = 'EE' where id = 1005; savepoint a; update users set country = 'XX' where id = 5; rollback to a; update users set country = 'LV' where id = 6; commit
select id, country from users where id in (5, 6, 1005) order by id
begin; select id from users where id = 5; select id from users where id = 1005; select nosuch from users; commit
rollback
set application_name = 'several'; update users set country = 'LT' where id in (5, 1005); show application_name
reset application_name
create table made_in_a_text(id int, note text); insert into made_in_a_text values (1, 'x'); update users set country = 'PL' where id = 1005; select note from made_in_a_text
drop table made_in_a_text; select count(*) from users
-- views over sharded tables
create view adults as select id, handle, born, country from users where born < '2000-01-01'
create view buyers as select a.id, a.handle, count(o.id) as orders, sum(o.total) as spent from adults a left join orders o on o.user_id = a.id group by a.id, a.handle
create view countries(code, people) as select country, count(*) from users group by country
create view bestsellers as select p.id, p.name, sum(i.quantity) as sold from products p join order_items i on i.product_id = p.id group by p.id
select count(*) from adults
select * from adults where id = 5
select * from adults where id in (5, 1005) order by id
select a.id, o.id from adults a join orders o on o.user_id = a.id order by 1, 2 limit 5
select adults.handle, adults.born from adults order by adults.born, adults.id limit 4
select * from buyers order by id
select b.handle, b.spent from buyers b where b.id = 1005
select * from countries order by code
select c.people, u.id from countries c join users u on u.country = c.code order by u.id limit 5
select * from bestsellers order by sold desc, id limit 5
select id from adults where id > 1000 union select id from adults where id < 4 order by id
select id from users where id in (select id from adults) order by id limit 5
with a as (select * from adults) select count(*) from a where country = 'DE'
select exists (select from adults where id = 1005)
select count(*) from public.adults
insert into follows(user_id, followed_id, since) select id, 31, '2024-01-01' from adults where country = 'PL'
update users u set balance = balance + 1 from buyers b where b.id = u.id and b.orders > 1
delete from follows f using adults a where a.id = f.user_id and f.followed_id = 31
begin; declare c cursor for select id from adults order by id; fetch 2 from c; close c; commit
create or replace view adults as select id, handle, born, country from users where born < '1991-01-01'
select count(*) from adults
select count(*) from buyers
drop view bestsellers, countries, buyers, adults
-- types of the database's own
create type mood as enum ('sad', 'ok', 'happy')
create domain small as int check (value < 100)
create type pair as (a int, b text)
create table feelings(user_id bigint primary key, m mood, s small, p pair, ms mood[], ps pair[])
insert into feelings values (5, 'ok', 1, (1, 'x'), '{ok,sad}', null), (1005, 'happy', 2, '(2,y)', null, array[row(1,'q')::pair]), (1006, 'sad', 3, null, '{}', null)
select * from feelings
select * from feelings order by user_id
select * from feelings order by m, user_id
select * from feelings order by s desc
select user_id, (p).a, (p).b from feelings order by user_id
select m, count(*) from feelings group by m order by m
select m, count(*) from feelings group by m
select max(m), min(m) from feelings
select max(s), sum(s), avg(s) from feelings
select distinct m from feelings
select distinct m from feelings order by m desc
select array_agg(m order by m) from feelings
select string_agg(m::text, ',' order by m) from feelings
select user_id from feelings where m = 'happy'
select user_id from feelings where m > 'sad' order by user_id
select user_id from feelings where m in ('ok', 'sad') order by user_id
select user_id, unnest(ms) from feelings order by 1, 2
select count(distinct m) from feelings
select a.user_id, b.user_id from feelings a join feelings b on a.m <> b.m order by 1, 2
select m, p from feelings limit 1 offset 5
update feelings set m = 'ok' where user_id in (5, 1005) returning user_id, m
update feelings set m = case when m = 'ok' then 'sad'::mood else m end returning *
insert into feelings(user_id, m) values (7, 'sad'), (1007, 'ok') returning user_id, m
select user_id, m from feelings union all select user_id, 'ok' from feelings order by 1, 2
select coalesce(m, 'ok') c, count(*) from feelings group by 1 order by 1
delete from feelings where m = 'sad' returning user_id, m
drop table feelings
drop type pair
drop domain small
drop type mood
-- in a session that is tied to a server by a temporary table
create temp table tmp_x(a int)
insert into tmp_x values (1), (2)
select id from users where id = 1005
select count(*) from tmp_x
update users set country = 'PL' where id = 1005
select count(*) from tmp_x
select count(*) from users
select u.id from users u join tmp_x on tmp_x.a = u.id order by 1
insert into follows(user_id, followed_id, since) select a, 99, '2024-01-01' from tmp_x
insert into carts(user_id, product_id, quantity, added_at) values (5, 5, 1, '2024-01-01'), (1005, 5, 1, '2024-01-01')
select count(*) from tmp_x
create table made_while_tied(user_id bigint)
drop table made_while_tied
alter table tmp_x add column b int
create index on tmp_x (a)
select b from tmp_x
create temp table users(id int)
drop table pg_temp.users
drop table tmp_x
select count(*) from users
-- LOCK
lock table users in share mode
begin; lock table users, orders in exclusive mode; select count(*) from users; commit
begin; lock products; rollback
begin; lock nosuch; commit
rollback
-- ORDER BY a name that PostgreSQL gives
select id::text from users order by id
select id::numeric(10, 2) from users order by id limit 1
select (id::text) collate "C" from users order by id
select lower(handle) from users order by lower limit 3
select max(balance), country from users group by country order by max, country
select count(*), country from users group by country order by count desc, country
select case when verified then -id else id end from users order by id limit 4
select -id as id from users order by id limit 3
select -id id, id from users order by 1 limit 3
select extract(year from created_at), id from users order by extract, id limit 3
select id::text, country from users order by country, id
-- what the grammar has no words for
select id from users where last_seen_at isnull order by id
select id from users where id between symmetric 1010 and 4 order by id
select id from users where id between symmetric 4 and 1010 and country = 'DE' order by id
select id from users where not id between symmetric 1010 and 4 order by id
select sum(id) over (order by id range between 10 preceding and current row exclude current row) from users order by id
select count(*) over (order by country groups between 1 preceding and 1 following exclude ties) from users order by 1
insert into follows (user_id, followed_id, since) overriding system value values (5, 87, '2024-01-01'), (1005, 87, '2024-01-01')
delete from follows where followed_id = 87
update users set settings['x'] = '1' where id = 5
update users set interests[1] = 'z', full_name = 'w' where id in (5, 1005) returning id, interests, full_name
update users set full_name = 'v', interests[array_length(interests, 1) + 1] = country where country = 'DE' returning id, interests
-- rows whose shard key changes
update users set id = id + 1
update users set id = 1099 where id = 5
update users set id = 1099 where id = 4242
insert into users(id, handle, email, country, full_name, created_at) values (31, 'mover', 'm@example.org', 'DE', null, '2024-05-01'), (1033, 'other', 'o@example.org', 'FR', 'O''Hara', '2024-05-01')
update users set id = 1031 where id = 31 returning id, handle, balance + 1
update users set id = 32, balance = '12.345', interests = '{x,"y,z"}', settings = '{"a": "b"}', avatar = '\x00ff' where id = 1031 returning *
update users set id = 2 * 500 + id where handle = 'mover' returning *
update users set id = 1005 where id = 1032
update users set id = 5 where id = 1032
update users set id = id - 1000 where handle in ('mover', 'other') returning id, full_name
update users set id = id + 1000, handle = handle || '!', country = case id when 32 then 'PL' else country end where handle in ('mover', 'other') and id < 40
update users as "U" set id = case handle when 'mover!' then 33 else id + 100 end where "U".handle like '%r!' returning "U".id, upper(handle)
update users u set id = 1000 + id from categories c where c.id = 1 and u.handle = 'mover!' and c.slug = 'books'
update users set id = 40 where email = 'm@example.org' and exists (select from users x where x.id = 1033)
update posts set user_id = 1001
update posts set user_id = user_id + 1000, id = id + 50 where user_id in (1, 2, 3) returning user_id, id, likes, public_id, score
update posts set user_id = user_id - 1000 where id > 50 returning *
update posts set user_id = 4242 where user_id = 1
update posts set user_id = 1001, visible = 1 where user_id = 1
update posts set user_id = 1001, id = 60, likes = '7', score = 2, tags = array['a', null, ''], attachments = '[1]', edited_at = '2024-06-06' where user_id = 1 and id = 1 returning *
update posts set user_id = 1001, nosuch = 1 where user_id = 1
update posts set user_id = 1001, likes = null where user_id = 1
update posts set user_id = user_id where user_id = 1 returning id
update posts p set user_id = u.id, id = 61 from users u where u.id = p.user_id + 1000 and p.id = 2 and u.country = 'DE'
update posts p set user_id = f.followed_id, id = 62 from follows f where f.user_id = p.user_id and f.followed_id = 1001 and p.id = 1
update posts p set user_id = u.id, id = 63 + p.id from users u where u.handle = (select handle from users order by id desc limit 1) and p.likes = 3
update posts set user_id = 1002, id = 80, likes = (select count(*) from users) where user_id = 4 and id = 1
update posts set user_id = 7, id = 81 where user_id in (select id from users where balance > (select avg(balance) from users)) and id = 2 and likes > 4 and user_id = 1016
with old as (select id from users where country = 'FR' and id < 8) update posts p set user_id = old.id + 1000, id = 82 from old where old.id = p.user_id and p.id = 1
update posts set user_id = 1003 where false
update posts set user_id = 1003 where user_id = null
update posts set user_id = '1003', id = 83 where user_id = 8 and id = 1
update posts set user_id = 1003.4, id = 84 where user_id = 9 and id = 1
update posts set user_id = user_id + 1000.4, id = 85 where user_id = 11 and id = 1
update posts set user_id = user_id::text where user_id = 11
update orders set user_id = 1001, id = 70 where user_id = 2
update orders set user_id = 1001, id = 70, currency = 'toolong' where user_id = 2 and id = 1
insert into orders values (2, 70, '3fbe5a9e-0f37-4b54-8a47-4a0b0a0b0a0b', 'placed', 1, 'EUR', false, null, '2024-04-04'), (3, 71, '3fbe5a9e-0f37-4b54-8a47-4a0b0a0b0a0b', 'placed', 1, 'EUR', false, null, '2024-04-04')
update orders set user_id = user_id + 1000, total = total * 2, status = 'lost' where id in (70, 71)
update orders set user_id = user_id + 1000, total = total * 2, note = 'moved' where id in (70, 71) returning *
update orders set user_id = 1003, id = 72, placed_at = placed_at + interval '1 day' where note = 'moved' and user_id = 1002
update carts set user_id = 1004 where user_id = 6
update follows set user_id = followed_id, followed_id = user_id where user_id = 3 and followed_id > 1000
select * from users order by id
select * from posts order by 1, 2
select user_id, id, total, note, placed_at from orders order by 1, 2
select * from carts order by 1, 2
select * from follows order by 1, 2
-- rows that are locked
select id from users for update
select id, handle from users where balance > 0 order by balance, id for no key update
select id from users order by handle for share nowait
select id, full_name from users where id in (5, 6, 1005) order by full_name, id for key share skip locked
select u.id, o.id, o.total from users u join orders o on o.user_id = u.id where u.country = 'DE' order by 1, 2 for update of o
select u.id, o.id from users u join orders o on o.user_id = u.id order by 1, 2 for update of u for share of o nowait
select i.user_id, i.line, p.name from order_items i join products p on p.id = i.product_id order by 1, i.order_id, 2 for update of i skip locked
select id from users u where exists (select from orders o where o.user_id = u.id and gift) order by id for update
select count(*) from users for update
select country from users group by country for share
select distinct country from users for update
select id from users where id = 5 limit 1 for update
select 'x' as x from users limit 25 for update
select 'x' as x from users limit 25 offset 14 for update skip locked
select 'x' as x from users limit 2 for share
select 'x' as x from users limit 0 for share
select 'x' as x from users limit null for share
select 'x' as x from users offset 37 rows fetch next 9 rows only for share
select id / 0 from users limit 30 for update
select nosuch from users limit 30 for update
select id from users for update of nosuch
-- reference tables, written once for all shards
update products set price = price + 1 where id < 3 returning id, price
insert into categories(id, name, slug) values (60, 'a', 'a'), (61, 'b', 'b') returning *
delete from categories where id in (60, 61) returning id, name
insert into products(id, sku, category_id, name, price) values (12, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12', 1, 'x', 1)
insert into products(id, sku, category_id, name, price) values (12, gen_random_uuid(), 1, 'twice', 1)
insert into products(id, sku, category_id, name, price, tags) values (13, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a13', 1, 'y', 2, '{a,"b c"}'), (14, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a14', 99, 'y', 2, '{}')
insert into products(id, sku, category_id, name, price, tags) values (13, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a13', 1, 'y', 2, '{a,"b c"}') returning id, created_at > '2024-01-01', tags
insert into products as p(id, sku, category_id, name, price) values (13, gen_random_uuid(), 1, 'z', 3), (15, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a15', 2, 'new', 4) on conflict (id) do update set name = excluded.name || p.name, created_at = now() returning p.id, name, price
insert into products(id, sku, category_id, name, price) values (13, gen_random_uuid(), 1, 'z', 3), (16, gen_random_uuid(), 2, 'newer', 4) on conflict do nothing returning id
update products set created_at = now(), price = price + 1 where id in (2, 13) returning id, price
update products set created_at = current_timestamp where id = 999
update products set weight_kg = null, sku = gen_random_uuid(), description = 'it''s' where id > 12
update products p set price = t.total from (select product_id, sum(quantity) as total from order_items group by 1) t where t.product_id = p.id and p.id < 4 returning p.id, p.price, t.total
update products p set name = p.name || (select count(*) from users) where id = 5
update products set price = 0 where id in (select product_id from order_items order by user_id, order_id, line limit 1)
update products set created_at = '2024-07-07', sku = md5(id::text)::uuid where id > 11 or id = 2
insert into categories select 30 + id, name, null, 's' || id from categories order by id limit 2
insert into categories(id, name, slug) select 100 + id, handle, 'user-' || id from users where country = 'DE' and id < 1010 returning *
delete from categories where id > 100 and name in (select handle from users where balance > 0)
delete from categories where id > 90 returning id, slug
delete from products where id in (select id from products where id > 11 order by id desc limit 2) returning id
select * from products order by id
select * from categories order by id
-- writes in WITH, on one shard or of reference tables
with i as (insert into posts(user_id, id, public_id, body, published_at) values (5, 91, 'b5d3cd54-0f37-4b54-8a47-4a0b0a0b0a0b', 'x', '2024-08-08'), (6, 91, 'b5d3cd54-0f37-4b54-8a47-4a0b0a0b0a0b', 'y', '2024-08-08') returning *) select user_id, body || '!' from i order by 1
with i as (insert into posts values (1005, 91, 'b5d3cd54-0f37-4b54-8a47-4a0b0a0b0a0b', 'x', '{}', null, 0, null, true, '2024-08-08', null) returning *) select i.user_id, u.handle from i join users u on u.id = i.user_id where u.id = 1005
with i as (insert into posts(user_id, id, public_id, body, published_at) values (5, 91, 'b5d3cd54-0f37-4b54-8a47-4a0b0a0b0a0b', 'z', '2024-08-08') on conflict (user_id, id) do update set body = excluded.body returning id, body) select * from i
with d as (delete from posts where user_id = 6 and id = 91 returning *), u as (update users set balance = balance + 1 where id = 6 returning balance) select d.body, u.balance from d, u
with i as (insert into posts(user_id, id, public_id, body) values (5, 91, 'b5d3cd54-0f37-4b54-8a47-4a0b0a0b0a0b', 'z') returning *) select 1
with u as (update products set price = price + 1 where id < 4 returning id, price) select u.id, u.price, p.price from u join products p on p.id = u.id order by 1
with i as (insert into categories values (70, 'w', null, 'w') returning *), d as (delete from categories where id = 35 returning id) select name from i
with u as (update categories set name = name || '.' where id in (70, 1) returning *) insert into categories select id + 1, name, null, slug || '+' from u where id > 1 returning id, name
-- MERGE
merge into categories c using (values (70, 'seventy'), (72, 'seventytwo')) v(id, n) on c.id = v.id when matched then update set name = v.n when not matched then insert values (v.id, v.n, null, v.n)
merge into categories c using products p on p.id = c.id - 60 when matched then delete
merge into posts p using carts c on p.user_id = c.user_id and p.id = c.product_id when matched then update set likes = likes + c.quantity, body = body || '~' when not matched and c.quantity > 2 then insert (user_id, id, public_id, body, published_at) values (c.user_id, 1000 + c.product_id, md5(c.product_id::text)::uuid, 'of a cart', '2024-09-09')
merge into orders o using products p on p.id = o.id and p.price > 20 when matched and o.gift then update set note = p.name when matched and o.total > 100 then delete
merge into carts c using users u on u.id = c.user_id when matched and u.verified then delete when matched then do nothing
select * from categories order by id
select user_id, id, body, likes, published_at > '2020-01-01' from posts order by 1, 2
select user_id, id, note from orders order by 1, 2
select * from carts order by 1, 2
-- CREATE TABLE AS
create table from_users as select * from users where balance > 0
select * from from_users order by id
insert into from_users(id, handle, email, country, balance, verified, interests, settings, created_at) values (7777, 'x', 'x', 'DE', 0, true, '{}', '{}', '2024-01-01')
select count(*), max(id) from from_users
create table from_users as select 1 as a
create table if not exists from_users as select 1 as a
drop table from_users
create table totals(who, spent) as select u.handle, sum(o.total) from users u join orders o on o.note = u.full_name group by u.handle with data
select * from totals order by 1
select count(*) from totals t join categories c on c.id = t.spent
drop table totals
create table nobody as select id, handle from users with no data
select * from nobody
drop table nobody
create table pricey as select p.id, p.name, c.name as category from products p join categories c on c.id = p.category_id where p.price > 10
select * from pricey order by id
create table cheap as select p.id, (select count(*) from order_items i where i.product_id = p.id) as sold from products p where p.id not in (select id from pricey)
select * from cheap order by id
drop table cheap; drop table pricey
create table broken as select 1 / (id - 5) as x from users
select * from broken
begin; create table made as select id, handle from users where id < 1003; update made set handle = 'y' where id < 5; select count(*) from made; commit
select * from made order by id
drop table made
update users set id = 35 where id = 1033; select id from users where id in (35, 1033); update products set created_at = '2024-07-07' where random() < 2
-- cursors over shards, to and fro
begin; declare c cursor for select id, handle from users order by id; fetch c; fetch 3 from c; fetch forward 2 in c; fetch next from c; fetch all from c; fetch c; close c; commit
begin; declare c cursor for select id from users order by id; fetch 5 from c; fetch prior from c; fetch backward 2 from c; fetch backward all from c; fetch 2 from c; fetch first from c; fetch last from c; fetch next from c; fetch backward 1 from c; commit
rollback
begin; declare c cursor for select id from users order by id desc; fetch absolute 4 from c; fetch relative 3 from c; fetch relative -2 from c; fetch relative 0 from c; fetch absolute -2 from c; fetch absolute 0 from c; fetch c; fetch absolute 100000 from c; fetch backward c; commit
begin; declare c cursor for select id from users order by id; move 3 from c; fetch c; move backward 2 in c; fetch c; move all in c; fetch c; move first in c; fetch 2 from c; move last from c; fetch c; move relative -3 in c; fetch c; move 0 from c; commit
begin; declare c no scroll cursor for select id from users order by id; fetch 2 from c; fetch 2 from c; fetch backward 1 from c; commit
rollback
begin; declare c no scroll cursor for select id from users order by id; fetch 2 from c; fetch absolute 1 from c; commit
rollback
begin; declare c cursor for select id, balance from users order by balance desc, id limit 7 offset 3; fetch 4 from c; fetch 4 from c; fetch c; commit
begin; declare c cursor for select handle from users order by length(handle), id; fetch 6 from c; fetch all from c; close c; fetch c; commit
rollback
begin; declare c cursor for select country, count(*), sum(balance), avg(balance) from users group by country order by country; fetch 2 from c; fetch all from c; commit
begin; declare c cursor for select distinct country from users order by country nulls first; fetch 3 from c; fetch prior from c; fetch all from c; commit
begin; declare c cursor for select u.id, o.id, o.total from users u join orders o on o.user_id = u.id order by o.total, o.id, u.id; fetch 5 from c; fetch 5 from c; commit
begin; declare a cursor for select id from users order by id; declare b cursor for select user_id, id from orders order by user_id desc, id desc; fetch 2 from a; fetch 3 from b; fetch 2 from a; fetch 3 from b; close a; fetch b; close all; commit
begin; declare a cursor for select id from users order by id; fetch a; close all; fetch a; commit
rollback
begin; declare "My Cursor" cursor for select id from users order by id; fetch 2 from "My Cursor"; fetch 2 from my; commit
rollback
begin; declare c cursor for select id from users order by id; declare c cursor for select id from users; commit
rollback
begin; declare c cursor for select id from users where id = 7; fetch c; fetch c; commit
begin; declare c cursor for select id from users where id < 0 order by id; fetch c; fetch all from c; move 3 from c; commit
begin; savepoint s; declare c cursor for select id from users order by id; fetch 2 from c; rollback to s; fetch 2 from c; commit
rollback
begin; declare c cursor for select id from users order by id; fetch 2 from c; savepoint s; fetch 2 from c; rollback to s; fetch 2 from c; commit
rollback
begin; declare c cursor for select id, 10 / (id - 5) as q from users order by id; fetch 2 from c; fetch 100 from c; fetch c; commit
rollback
begin; declare c cursor for select id, balance from users order by id; update users set balance = balance + 1 where id < 5; fetch 5 from c; rollback
begin; declare c cursor for select id, balance from users order by id; fetch 2 from c; delete from carts where user_id = 3; select count(*) from users; fetch 5 from c; rollback
begin; declare c scroll cursor for select id from users order by id; fetch 5 from c; fetch absolute -1 from c; fetch prior from c; commit
begin; declare c cursor without hold for select id from users order by id; fetch 2 from c; commit
begin; declare c insensitive cursor for select id from users order by id; fetch 2 from c; commit
begin; declare next cursor for select id from users order by id; fetch next; fetch 2 from next; fetch next next; commit
begin; declare c cursor for select id from users order by id; fetch -1 from c; fetch 3 from c; fetch -2 from c; fetch forward -1 from c; fetch backward -3 from c; commit
begin; declare c cursor for select interests, settings, created_at, verified from users order by id; fetch 2 from c; fetch 2 from c; commit
begin; declare c cursor for select * from adults order by id; fetch 2 from c; commit
begin; declare c cursor for select id from users union all select id from products order by 1; fetch 3 from c; fetch 3 from c; commit
begin; declare c cursor for select id from nowhere; commit
rollback
fetch 3 from nothing
close nothing
declare c cursor for select id from users order by id; fetch 2 from c
-- joins, aliases, windows and aggregates of every kind
select a, b from users u(a, b) order by a limit 5
select u.a from users as u(a) where u.a > 1010 order by 1
select u.ident, o.no from users u(ident) join orders o(owner, no) on o.owner = u.ident order by 1, 2 limit 7
select count(*) from users u(a, b, c) where c like 'u1%'
select * from (select id, handle from users) t(x, y) order by x limit 3
select t.x from (values (1), (2), (1005)) t(x) join users u on u.id = t.x order by 1
select id from users where id = any (values (1), (5), (1005)) order by id
select id from users where id = any (select user_id from orders where gift) order by id
select id from users where id > all (select user_id from orders where user_id < 1000) order by id
select id from users where id <> all (select user_id from orders) order by id
select id from users where id = some (array[3, 1003]) order by 1
select id from users where (id, country) in (values (5, 'FR'), (1005, 'DE'), (1006, 'PL')) order by 1
select id from users where row(id, country) = row(5, 'FR')
select id from users where row(country, id) < row('FR', 10) order by id
select * from rows from (generate_series(1, 3), generate_series(10, 11)) as t(a, b)
select u.id, t.a, t.b from users u, rows from (generate_series(1, 2), unnest(u.interests)) as t(a, b) order by 1, 2
select u.id, i.x, i.ord from users u, unnest(u.interests) with ordinality as i(x, ord) order by 1, 3
select p.id, t.tag, t.n from products p cross join lateral unnest(p.tags) with ordinality t(tag, n) order by 1, 3
select u.id, e.key, e.value from users u, jsonb_each(u.settings) e order by 1, 2
select u.id, x.theme from users u, jsonb_to_record(u.settings) as x(theme int) order by 1
select u.id, l.* from users u cross join lateral (select count(*) n, max(o.total) m from orders o where o.user_id = u.id) l order by 1
select u.id, l.n from users u, lateral (select count(*) n from follows f where f.followed_id = u.id) l order by l.n desc, u.id limit 10
select u.id, p.id from users u left join posts p on p.user_id = u.id and p.likes > 5 order by 1, 2 nulls first
select u.id from users u left join posts p using (id) order by 1 limit 3
select user_id, o.id, p.id from orders o full join posts p using (user_id, id) order by user_id, id
select * from orders natural join carts order by user_id, id limit 5
select u.id, v.id from users u left join users v on v.id = u.id + 1000 order by 1
select u1.handle, u2.handle from users u1 join users u2 on u2.id = u1.id + 1000 where u1.verified order by 1
select u.id from (users u join orders o on o.user_id = u.id) join order_items i on i.user_id = o.user_id and i.order_id = o.id group by u.id having sum(i.quantity) > 10 order by 1
select j.handle, j.total from (users u join orders o on o.user_id = u.id) j order by j.total desc, j.handle limit 5
select c.name, sum(i.quantity * i.unit_price) revenue from categories c join products p on p.category_id = c.id join order_items i on i.product_id = p.id group by c.name order by revenue desc nulls last, 1
select p.name, count(distinct i.user_id) buyers from products p left join order_items i on i.product_id = p.id group by p.id order by buyers desc, p.id
select u.country, p.category_id, sum(i.quantity) from users u join order_items i on i.user_id = u.id join products p on p.id = i.product_id group by cube (u.country, p.category_id) order by 1, 2
select u.country, o.status, count(*), grouping(u.country, o.status) from users u join orders o on o.user_id = u.id group by rollup (u.country, o.status) order by 1, 2
select count(*) from users cross join categories
select count(*) from users a, users b, categories c
select distinct u.country from users u where u.id in (select f.followed_id from follows f join users x on x.id = f.user_id where x.country <> u.country) order by 1
select a.followed_id, count(*) from follows a join follows b on b.user_id = a.followed_id group by 1 order by 2 desc, 1 limit 5
select f.user_id, g.followed_id from follows f join follows g on g.user_id = f.followed_id where f.user_id = 3 and g.followed_id <> 3 order by 1, 2
select u.id from users u where (select count(*) from follows f where f.followed_id = u.id) > (select count(*) from follows f where f.user_id = u.id) order by 1
select id, sum(balance) over (order by id rows between 2 preceding and current row) from users order by id
select id, first_value(id) over w, last_value(id) over w, nth_value(id, 2) over w from users window w as (partition by country order by balance, id rows between unbounded preceding and unbounded following) order by id
select id, ntile(4) over (order by balance, id), percent_rank() over (order by balance), cume_dist() over (order by balance) from users order by id
select user_id, id, total, total - lag(total) over (partition by user_id order by id) as diff from orders order by 1, 2
select user_id, id, sum(total) over (partition by user_id order by placed_at range between interval '1 day' preceding and current row) from orders order by 1, 2
select * from (select user_id, id, row_number() over (partition by user_id order by total desc, id) rn from orders) t where rn = 1 order by user_id
select country, count(*) n, rank() over (order by count(*) desc) from users group by country order by 3, 1
select country, sum(sum(balance)) over (order by country) from users group by country order by 1
select id, count(*) filter (where verified) over (partition by country) from users order by 1
select dense_rank() over (order by country desc) r, count(*) over () n from users order by r, n limit 4
select id, avg(balance) over (order by id rows 3 preceding) from users where id > 1000 order by id
select string_agg(handle, ',') over (partition by country order by id) from users order by id limit 5
select stddev_pop(balance), stddev_samp(balance), variance(balance), var_samp(id) from users
select percentile_disc(0.25) within group (order by total), percentile_cont(array[0.25, 0.5, 0.75]) within group (order by total) from orders
select country, percentile_cont(0.5) within group (order by balance) from users group by country order by country
select mode() within group (order by status) from orders
select rank(100) within group (order by total), dense_rank(100) within group (order by total), cume_dist(100) within group (order by total) from orders
select bit_or(quantity), bit_and(quantity), bit_xor(quantity) from order_items
select bool_and(available), bool_or(available) from products
select array_agg(distinct country order by country) from users
select array_agg(id order by balance desc, id) filter (where verified) from users
select jsonb_object_agg(handle, balance order by id) from users where id < 5 or id > 1015
select json_agg(u order by u.id) from users u where id in (1, 1001)
select json_object_agg(id, handle order by id) from users
select string_agg(handle, '; ' order by handle desc) from users where balance > 0
select country, string_agg(distinct full_name, ',' order by full_name) from users group by country order by country
select count(distinct (country, verified)) from users
select count(distinct country), count(distinct verified), sum(distinct balance) from users
select country, count(distinct full_name), avg(balance)::numeric(10,3) from users group by country order by 1
select max(array[country, handle]), min(tracking::text) from users join orders on user_id = users.id
select max(tags), min(tags) from posts
select min(placed_at), max(placed_at), max(placed_at) - min(placed_at) from orders
select sum(shipped_at - placed_at) from orders
select min(balance) filter (where country = 'DE'), max(balance) filter (where country <> 'DE') from users
select sum(total) filter (where gift) / nullif(sum(total), 0) from orders
select round(avg(total), 2) as avg_total, count(*) as n from orders group by status order by status
select status, avg(total) over (partition by status) from orders order by status, 2 limit 3
select count(*) filter (where note is null) * 100.0 / count(*) from orders
select xmlagg(xmlelement(name x, id) order by id) from categories
select range_agg(int8range(id, id + 2) order by id) from users where id < 10
select sum(likes)::float / count(*) from posts
select status, sum(total) from orders group by status having sum(total) > (select avg(total) from orders) order by 1
select status, count(*) from orders group by status having count(*) = max(3) or true order by 1
select extract(isodow from placed_at) dow, count(*), sum(total) from orders group by 1 order by 1
select date_part('day', placed_at), count(*) from orders group by date_part('day', placed_at) order by 1
select count(*) from orders group by ()
select 1 from users group by ()
select country from users group by all country
select country, verified, count(*) from users group by distinct rollup (country), rollup (verified) order by 1, 2
select count(*) from users having count(*) > 100
select count(*), 'x' from users having true
select max(id) from users where id between 1 and 0
select sum(balance) from users where false
select min(born), max(born), avg(id)::int from users where country = 'ZZ'
select every(balance > -100) from users
select sum(quantity::bigint), sum(line), sum(discount::real), sum(discount::float8)::numeric(9,3) from order_items
select sum('1 day'::interval * id) from categories
-- values of every kind, set operations, DISTINCT ON, LIMIT
select id, settings->'theme', settings->>'theme', settings #>> '{theme}' from users order by id limit 4
select id from users where settings @> '{"theme": 1}' order by id
select id from users where settings ? 'theme' and id > 1015 order by 1
select id from users where settings ?| array['a', 'theme'] order by 1 limit 3
select id from users where settings @? '$.theme ? (@ > 0)' order by 1
select id from users where settings @@ '$.theme == 1' order by 1
select jsonb_path_query(settings, '$.theme') q, id from users order by id limit 3
select settings->>'theme' t, count(*) from users group by 1 order by 1
select jsonb_pretty(jsonb_set(settings, '{new}', to_jsonb(handle))) from users where id in (2, 1002) order by id
select id, settings || jsonb_build_object('c', country) from users order by id desc limit 2
select (settings->>'theme')::int + 1 as t from users order by t desc, id limit 2
select id from users where interests && array['i1'] order by id
select id from users where 'i2' = any (interests) order by id
select id from users where interests @> '{i0}' and not verified order by id
select array_length(interests, 1), cardinality(interests), interests[1], interests[1:1] from users order by id limit 2
select unnest(interests) i, count(*) from users group by 1 order by 1
select id, unnest(array[1, 2]) from users order by 1, 2 limit 5
select id, generate_series(1, 2) g from users where id < 3 or id > 1018 order by id, g
select distinct unnest(tags) from posts order by 1
select array(select o.id from orders o where o.user_id = u.id order by o.id) from users u order by u.id limit 4
select id, array_to_string(interests, '-') || '/' || coalesce(full_name, '?') from users order by 1 limit 3
select handle from users where handle ilike 'B%' order by handle
select handle from users where handle ~ '^[a-z]+1\d*$' order by 1
select handle from users where handle ~* 'O''HARA' order by 1
select handle from users where handle !~ '[0-9]' or handle similar to '%(1|2)' order by 1
select handle, regexp_replace(handle, '\d+', '#') from users order by id limit 4
select (regexp_match(handle, '(\d+)$'))[1]::int n from users order by 1 desc nulls last limit 3
select split_part(email, '@', 2) d, count(*) from users group by d order by d
select substring(handle from 2 for 3), overlay(handle placing 'XX' from 1 for 1), position('n' in handle), trim(both 'a' from handle) from users order by id limit 3
select initcap(handle), lpad(id::text, 6, '0'), md5(handle), left(email, 2), reverse(handle) from users order by id limit 3
select format('%s has %s', handle, balance) from users order by id limit 2
select to_tsvector('english', body) @@ to_tsquery('english', 'post & 1') from posts order by user_id, id limit 3
select user_id, id, ts_rank(to_tsvector('simple', body), plainto_tsquery('simple', 'post')) r from posts order by r desc, user_id, id limit 3
select count(*) from posts where to_tsvector('simple', body) @@ plainto_tsquery('simple', 'post 2')
select handle collate "C" from users order by 1 limit 3
select handle from users order by handle collate "C" desc limit 3
select encode(avatar, 'hex'), length(avatar), get_byte(avatar, 0), sha256(avatar) from users where id in (5, 1005) order by 1
select chr(65 + (id % 26)::int) c, count(*) from users group by c order by c
select handle || null, concat(handle, null, id), concat_ws('-', handle, full_name) from users order by id limit 3
select translate(handle, 'abc', 'xyz'), repeat('ab', (id % 3)::int), ascii(handle), strpos(handle, '1') from users order by id limit 4
select string_to_array(email, '@') from users order by id limit 2
select string_to_table(email, '@') t from users where id = 5 or id = 1005 order by t
select date_trunc('month', placed_at at time zone 'UTC') m, count(*) from orders group by 1 order by 1
select date_trunc('hour', placed_at, 'Europe/Berlin') m, count(*) from orders group by m order by m limit 3
select placed_at::date d, sum(total) from orders group by placed_at::date order by d
select to_char(placed_at, 'YYYY-MM-DD HH24:MI') from orders order by placed_at limit 3
select id from users where created_at > now() - interval '100 years' order by id limit 2
select id, age(timestamp '2024-01-01', born) from users order by born limit 3
select id from users where extract(year from born) = 1990 order by id
select id from users where born between date '1990-03-01' and date '1990-12-31' order by born
select (born, born + 10) overlaps (date '1990-02-01', date '1990-04-01') from users order by id limit 3
select daterange(born, born + 30) @> date '1990-02-10' from users order by id limit 3
select int8range(min(id), max(id)) from users
select d::date, count(o.id) from generate_series(timestamp '2024-02-01', timestamp '2024-02-03', interval '1 day') d left join orders o on o.placed_at::date = d::date group by d order by d
select g, u.handle from generate_series(1, 5) g left join users u on u.id = g order by g
select g.n, count(u.id) from generate_series(0, 3) as g(n) left join users u on u.id % 4 = g.n group by g.n order by g.n
select justify_interval(shipped_at - placed_at), extract(epoch from shipped_at - placed_at) from orders where shipped_at is not null order by user_id, id limit 3
select make_date(2024, (id % 12 + 1)::int, 1) d, count(*) from users group by d order by d
select current_date = now()::date, current_user = session_user from users limit 1
select id from users where id < 3 union all select id from users where id > 1018 order by id desc
(select id from users order by id limit 2) union (select id from users order by id desc limit 2) order by 1
select country from users intersect select 'DE' union select 'XX' order by 1
select country from users intersect all select country from users where verified order by 1
select user_id from orders except all select user_id from posts order by 1
((select id from users) except (select user_id from orders)) intersect (select user_id from posts) order by 1
select id, 'u' k from users where id < 3 union all select id, 'c' from categories union all values (0::bigint, 'v') order by 2, 1
values (1, 'a'), (2, null) order by 1 desc
select * from (values (1, 'one'), (1005, 'five')) v(id, w) left join users u using (id) order by 1
with u as (select * from users where verified), o as (select user_id, sum(total) t from orders group by 1) select u.handle, o.t from u left join o on o.user_id = u.id order by o.t desc nulls last, u.id limit 6
with u as materialized (select id from users) select count(*) from u
with u(a, b) as not materialized (select id, handle from users) select b from u where a in (5, 1005) order by 1
with recursive t(id, path) as (select id, array[id] from users where id = 1 union all select f.followed_id, path || f.followed_id from t join follows f on f.user_id = t.id where array_length(path, 1) < 3 and f.followed_id <> all (path)) select id, path from t order by path limit 10
with recursive cat(id, name, depth) as (select id, name, 0 from categories where parent_id is null union all select c.id, c.name, depth + 1 from categories c join cat on c.parent_id = cat.id) select * from cat order by depth, id
with recursive cat as (select id, name, parent_id from categories where parent_id is null union all select c.id, c.name, c.parent_id from categories c join cat on c.parent_id = cat.id) search depth first by id set ord select id, name from cat order by ord
with recursive g(f, t) as (select user_id, followed_id from follows where user_id = 3 union select g.t, x.followed_id from g join follows x on x.user_id = g.t where x.followed_id < 10) cycle f set is_cycle using path select f, t from g order by 1, 2 limit 5
with a as (select 1 x), b as (select x + 1 y from a) select y, count(*) from b, users group by y
select * from (with o as (select user_id, count(*) n from orders group by 1) select n, count(*) from o group by n) t order by 1
with x as (select id from users order by id limit 3) select * from x union all select * from x order by 1
select id from users where id in (with t as (select user_id from orders where gift) select user_id from t) order by id
select distinct on (user_id) user_id, id, total from orders order by user_id, total desc, id
select distinct on (country, verified) country, verified, handle from users order by country, verified, id
select distinct on (u.country) u.country, o.total from users u join orders o on o.user_id = u.id order by u.country, o.total desc
select distinct status from orders order by status desc
select distinct on (status) * from orders order by status, placed_at desc, user_id, id
select balance from users order by balance fetch first 3 rows with ties
select id from users order by balance using <, id limit 3
select id from users order by balance using >, id limit 3
select id from users order by 1 + 0, id limit 2
select id from users order by (select 1), id limit 2
select id from users order by case when country = 'DE' then 0 else 1 end, id limit 3
select id from users order by country = 'DE' desc, id limit 3
select id, last_seen_at from users order by last_seen_at desc nulls last, id limit 5 offset 2
select id from users order by id limit (select 3)
select id from users order by id limit 1 + 2
select id from users order by id limit 2::bigint offset 1::int
select id from users order by id limit -1
select id from users order by id offset -1
select id from users order by id limit null offset null
select id from users order by id offset 10 rows fetch first 5 rows only
select * from users order by nosuch
select id from users order by id, id desc limit 2
select handle h, count(*) from users group by h having count(*) > 1 order by h
select lower(country) as country from users group by country order by country
select id as handle from users order by handle limit 3
select tags from posts order by tags desc, user_id, id limit 2
select row(id, handle) from users order by row(id, handle) limit 2
select (id, handle) r from users order by r desc limit 2
select u from users u order by u limit 1
select u.* from users u order by u.* limit 1
select count(u) from users u
select count(u.*) from users u where u is not null
select (u).handle from users u order by (u).id limit 2
select users from users order by id limit 1
select to_jsonb(u) - 'created_at' from users u order by id limit 1
select null::int as x from users order by x limit 2
select true and null, id is null, id isnull, id notnull from users limit 1
-- conditions, errors, functions
select id from users where not exists (select from posts p where p.user_id = users.id and p.likes > 7) order by id
select id from users where id not in (select nullif(user_id, 5) from orders) order by id
select id from users where full_name not in ('Ann Lee', null)
select id from users where full_name is distinct from 'Ann Lee' order by id
select id from users where (balance > 0) is unknown
select id from users where verified is not false and balance < any (array[0, 1]) order by id
select id from users where balance between symmetric 3 and -3 order by id
select id from users where coalesce(full_name, handle) > 'b' order by id
select id from users where nullif(country, 'DE') is null order by id
select id from users where greatest(balance, 1) = least(balance, 100) order by id
select id from users where id::text like '10%' order by id
select id from users where id in (select o.user_id from orders o where o.total > (select avg(total) from orders p where p.user_id = o.user_id)) order by id
select id from users where 3 = (select count(*) from orders where user_id = users.id) order by id
select (select handle from users where id = 5), (select handle from users where id = 1005)
select (select handle from users) from categories
select (select array_agg(id order by id) from users where country = c.name) from categories c order by id
select id, (select o.total from orders o where o.user_id = u.id order by o.placed_at desc limit 1) latest from users u order by 1
select id, exists (select from carts c where c.user_id = u.id) has_cart from users u order by 1
select u.id, (select string_agg(p.name, ',' order by p.name) from order_items i join products p on p.id = i.product_id where i.user_id = u.id) from users u order by 1 limit 6
select case when exists (select from users where id = 1005) then 'y' else 'n' end
select case country when 'DE' then 1 when 'FR' then 2 end c, count(*) from users group by c order by c nulls first
select id from users where case when id > 1000 then balance else -balance end > 0 order by id
select 1 where 5 in (select id from users)
select 1 where not exists (select from users where id = 4242)
select user_id, id from orders where (user_id, id) between (3, 1) and (5, 2) order by 1, 2
select user_id, id from orders where user_id = 5 or (user_id = 1005 and id > 1) order by 1, 2
select user_id, id from orders where user_id in (5, 1005) and id = any (array[1, 3]) order by 1, 2
select id from users where id = 5 and id = 5.0
select id from users where id = 1e3 + 5
select id from users where id = '1005'::bigint
select id from users where id = cast('5' as smallint)
select id from users where id = (5)
select id from users where 5 = id
select id from users where id = +5
select id from users where id = 2 + 3
select id from users where id = length('12345')
select id from users where id = (select 5)
select id from users where id in ((select 5), 1005) order by 1
select id from users where id = 5 limit 1
select id from users where id = 5 for no key update
select id from users where -id = -5
select id from users where id is not distinct from 5
select id from users where id = 1005 and false
select id from users where (id = 5 or id = 6) and (id = 6 or id = 1006)
select id from users where not (id <> 5)
select id from users where id >= 5 and id <= 5
select id from users where id <@ int8range(4, 7) order by 1
select id from users where id = any ('{}')
select id from users where id = any (null)
select id from users where id in (null)
select id from users where id > 1019 or id < 2 order by 1
select id from only users order by id limit 2
select id from users * order by id limit 2
select tableoid::regclass from users limit 1
select count(*) from users tablesample bernoulli (100)
select pg_typeof(id), pg_typeof(balance), pg_typeof(u) from users u limit 1
select pg_column_size(id) from users limit 1
select id from public.users where public.users.id = 5
select id from "users" where "id" = 5
select "Id" from users
select u.id from users
select users.id from users u
select id from users where id = 5 and handle = 5
select id from nosuch
select nosuch(id) from users
select id from users where
select id users from users order by users limit 2
select sum(handle) from users
select id, count(*) from users
select id from users group by country
select id from users where count(*) > 1
select * from users u join orders o on u.id = o.user_id where id = 5
select 1 / (id - 1005) from users
select 1 / (id - 5) from users order by id
select handle::int from users
select id from users where handle::int = 5
select cast(balance as int), balance::text::numeric(4, 1), country::varchar(1) from users order by id limit 2
select balance::numeric(3, 2) from users
select ('{' || id || '}')::int[] from users order by id limit 2
select 9223372036854775807 + id from users
select id::smallint from orders
select (id * 100)::smallint from users order by id
select sqrt(balance) from users
select ln(id), exp(1), power(id, 2), mod(id, 7), id % 3, id ^ 2, |/ id, @ balance, id & 3, id | 1, id # 2, ~id, id << 1 from users order by id limit 2
select round(balance), ceil(balance), floor(balance), trunc(balance, 1), sign(balance), abs(balance), width_bucket(balance, -10, 10, 4) from users order by id limit 4
select to_number('12', '99') + id from users order by 1 limit 1
select to_date('2024', 'YYYY') - born from users order by 1 limit 1
select gcd(id, 12), lcm(id, 4), factorial(3), div(id, 2) from users order by id limit 2
select num_nulls(full_name, last_seen_at) n, count(*) from users group by n order by n
select current_setting('server_version_num')::int > 100000 from users limit 1
select quote_ident(handle), quote_literal(handle), quote_nullable(full_name) from users order by id limit 3
select inet '10.0.0.1' + id from users order by id limit 1
select point(id, id) <-> point(0, 0) from users order by id limit 1
select uuid_nil is null from (select null::uuid as uuid_nil from users limit 1) t
select B'101' | B'010', X'1F', 1_000
select 0x1F, 1e10, .5, 5., U&'\00e9', E'\n', $$dollar$$, $a$b$a$
select 'a' 'b'
select 'a'
select interval '1' year, date 'today' is not null, time '10:00', timestamp with time zone '2024-01-01 00:00+00'
select id, row_number() over () > 0 from users order by id limit 1
select all id from users order by id limit 1
select distinct all_of.id from users all_of order by 1 limit 1
select from users where id = 5
select from users
select count(*) from (select from users) x
select id from users where id operator(pg_catalog.=) 5
select id operator(pg_catalog.+) 1 from users order by 1 limit 1
select extract(day from born), position('a' in handle), substring(handle, 1, 2), cast(id as text), trim(handle), ltrim(handle, 'a'), overlay(handle placing 'x' from 1) from users order by id limit 1
select normalize(handle), handle is normalized from users order by id limit 1
select xmlelement(name foo, id) from users order by id limit 1
select xmlforest(id, handle) from users order by id limit 1
select json_build_object('id', id), json_build_array(id, handle), to_json(handle), row_to_json(row(id, handle)) from users order by id limit 1
select u.id from users u where u.id in (select id from users where u.country = country and u.id <> id) order by 1 limit 4
select min(id), max(id) from (select id from users union all select user_id from orders) t
select avg(n) from (select count(*) n from orders group by user_id) t
select country, (select count(*) from users u2 where u2.country = u.country) from users u group by country order by 1
select sum(c) from (select count(*) c from users union all select count(*) from orders) t
select x.country, x.n from (select country, count(*) n, rank() over (order by count(*) desc) r from users group by country) x where r = 1 order by 1
select id from users u where balance = (select max(balance) from users where country = u.country) order by id
select id, balance, balance - avg(balance) over (partition by country) from users order by id limit 5
select count(*) from users u join lateral (select 1 from orders o where o.user_id = u.id limit 1) x on true
select p.id, coalesce(s.q, 0) from products p left join (select product_id, sum(quantity) q from order_items group by product_id) s on s.product_id = p.id order by 1
select p.* from products p where p.id not in (select product_id from order_items where quantity > 2) order by id
select c.name, (select count(*) from products p where p.category_id = c.id), (select count(*) from order_items i join products p on p.id = i.product_id where p.category_id = c.id) from categories c order by c.id
select p.category_id, array_agg(distinct u.country order by u.country) from products p join order_items i on i.product_id = p.id join users u on u.id = i.user_id group by 1 order by 1
-- types written in front of their literals, subqueries of all kinds
select inet '10.0.0.1', id from users where id < 3 order by id
select cidr '10.0.0.0/8', id from users where id < 3 order by id
select int4range '[1,2)', id from users where id < 3 order by id
select daterange '[2024-01-01,2024-02-01)', id from users where id < 3 order by id
select tstzrange '[2024-01-01,2024-02-01)', id from users where id < 3 order by id
select jsonb '{"a":1}', id from users where id < 3 order by id
select json '{"a":1}', id from users where id < 3 order by id
select uuid 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', id from users where id < 3 order by id
select point '(1,2)', id from users where id < 3 order by id
select tsquery 'a & b', id from users where id < 3 order by id
select tsvector 'a b', id from users where id < 3 order by id
select bytea '\x00', id from users where id < 3 order by id
select numeric '1.5', id from users where id < 3 order by id
select money '1.5', id from users where id < 3 order by id
select text 'a', id from users where id < 3 order by id
select regclass 'users'::text, id from users where id < 3 order by id
select jsonpath '$.a', id from users where id < 3 order by id
select bit '101', id from users where id < 3 order by id
select int '5', bigint '5', float8 '1', real '1', boolean 't', char 'a', varchar 'b', id from users where id < 3 order by id
select interval '1 day 2 hours', interval '90' minute, interval '1-2' year to month, id from users where id < 3 order by id
select timestamp '2024-01-01', timestamptz '2024-01-01 00:00+00', time '10:00', timetz '10:00+00', id from users where id < 3 order by id
select double precision '1.5', id from users where id < 3 order by id
select id from users where id = any (select 5 union select 1005) order by id
select id from users where id = all (values (5))
select id from users where (id) in ((5), (1005)) order by 1
select id from users where id in ((select min(id) from users), (select max(id) from users)) order by 1
select id, handle from users where handle like any (array['a%', 'B%']) order by id limit 3
select id, handle from users where handle ilike all (array['a%', '%1%']) order by id limit 3
select id from users where handle ~~ 'a%' order by id
select id from users where handle !~~* 'a%' order by id limit 2
select id from users where handle like 'a!%%' escape '!' order by id
select u.id from users u join lateral unnest(u.interests) as x on true order by 1 limit 2
select u.id, x.v from users u cross join lateral jsonb_array_elements('[1,2]') as x(v) order by 1, 2 limit 3
select u.id, x from users u, lateral generate_series(1, (u.id % 3)::int) x order by 1, 2 limit 3
select * from json_to_recordset('[{"a":1,"b":"x"}]') as t(a int, b text)
select u.id, t.a from users u, json_to_recordset('[{"a":1,"b":"x"}]') as t(a int, b text) order by 1 limit 2
select jsonb_path_query_array(settings, '$.*') from users order by id limit 2
select id from users where settings->'theme' = '1' and settings ->> 'theme' is not null order by id limit 2
select id from users u where u = (select v from users v where v.id = u.id) order by 1 limit 2
select id from users order by id for read only
select array[[1,2],[3,4]][1:2][1:1], id from users order by id limit 1
select (array[1,2,3])[2], (interests)[1] from users order by id limit 1
select id::text || handle as x from users order by x limit 2
select id at time zone 'UTC' from users
select created_at at time zone 'UTC' at time zone 'Europe/Berlin' from users order by id limit 1
select created_at at local from users
select born + 1, born - interval '1 day', born + time '10:00' from users order by id limit 1
select id, count(*) over w from users window w as (order by id rows between 1 preceding and 1 following exclude current row) order by id limit 3
select percentile_cont(0.5) within group (order by balance) filter (where verified) from users
select array_agg(handle order by id)[1:2] from users
select (array_agg(handle order by id))[1:2] from users
select string_agg(handle, ',' order by id) over () from users
select count(*) from users, users
select u.*, o.* from users u, orders o where u.id = o.user_id and u.id = 5 order by o.id
select u.*, 1 as one from users u order by id limit 1
select *, * from users order by users.id limit 1
select distinct on (id % 3) id % 3 as m, id from users order by id % 3, id
select id from users where id in (1, 2, 3) and id not in (2) order by id
select * from users where row(id, handle) is not null order by id limit 1
select id from users where (id, handle) is distinct from (1, 'x') order by 1 limit 1
select 1 from users limit 1 offset 39
select sum(id) from users where id in (select id from users where country = 'DE' limit 5) and false
select id from users offset 5 limit 0
select id from users where verified order by id limit 3 offset (select 1)
with a(x) as (values (1), (2)) select x, id from a join users on id = x order by 1
select * from (values (1, 2), (3, 4)) as v order by column1
select v.column1, u.handle from (values (1), (1001)) v join users u on u.id = v.column1 order by 1
select * from users natural join (select 5::bigint as id) x
select lower(u.handle), upper(o.status) from users u inner join orders o on (u.id = o.user_id) where o.id = 1 order by 1, 2 limit 3
select cast(null as int), null::text, id from users order by 2, id limit 1
select nullif(1, 1), coalesce(null, id) from users order by id limit 1
select '{"a": {"b": [1, 2, 3]}}'::jsonb #> '{a,b}' -> 1, id from users order by id limit 1
select row_to_json(t) from (select id, handle from users order by id limit 2) t
select json_agg(t) from (select id, handle from users order by id limit 2) t
select jsonb_object_agg(k, n order by k) from (select country k, count(*) n from users group by 1) t
select unnest(array_agg(id order by id)) from users limit 3
select generate_series(1, 3), count(*) from users
select count(*), generate_series(1, 2) from users group by 2 order by 2
select id, lag(id, 1, 0::bigint) over (order by id) from users order by id limit 2
select country, array_agg(id order by id) filter (where verified) as v from users group by country order by country
select max(id) filter (where verified) - min(id) from users
select exists(select 1 from users where id = 5) and not exists(select 1 from users where id = 4242) ok
select count(*) = 40 from users
select ((select max(id) from users) - (select min(id) from users)) d
select * from generate_series(1, 3) with ordinality as g(v, o)
select to_char(sum(total), 'FM999,999.00') from orders
select to_char(balance, 'S999D99') from users order by id limit 2
select date '2024-01-01' + id::int from users order by id limit 1
-- more writes
insert into users(id, handle, email, country, created_at) values (41, 'new41', 'n41@example.org', 'DE', '2024-01-01'), (1041, 'new1041', 'n@example.org', 'FR', '2024-01-01') returning *
insert into users(id, handle, email, country, created_at) values (42, default, 'x', 'DE', default)
insert into users(id, handle, email, country, balance, created_at) values (43, 'd', 'd@e', 'DE', default, '2024-01-01'), (1043, 'e', 'e@e', 'DE', 1.5, '2024-01-01') returning id, balance, verified
insert into users(handle, email, country) values ('a', 'b', 'DE')
insert into users(id, handle, email, country) values (null, 'a', 'b', 'DE')
insert into users(id, handle, email, country) values ('abc', 'x', 'b', 'DE')
insert into users(id, handle, email, country, created_at) values (40 + 5, lower('UP'), 'a' || 'b', 'DE', timestamp '2024-01-01' + interval '1 day') returning id, handle, email, created_at
insert into users(id, handle, email, country, created_at) values ('46', 'q', 'q', 'DE', '2024-01-01') returning id
insert into users as u (id, handle, email, country, created_at) values (46, 'q2', 'q2', 'DE', '2024-01-01') on conflict (id) do update set handle = excluded.handle, balance = u.balance + 1 returning u.id, u.handle, u.balance
insert into users(id, handle, email, country, created_at) values (46, 'q3', 'q3', 'DE', '2024-01-01'), (1041, 'q3', 'q3', 'DE', '2024-01-01') on conflict (id) do update set handle = excluded.handle where users.country = 'FR' returning id, handle
insert into users(id, handle, email, country, created_at) values (46, 'q4', 'q4', 'DE', '2024-01-01'), (46, 'q5', 'q5', 'DE', '2024-01-01') on conflict (id) do update set handle = excluded.handle
insert into users(id, handle, email, country, created_at) values (46, 'q4', 'q4', 'DE', '2024-01-01') on conflict on constraint users_pkey do nothing
insert into users(id, handle, email, country, created_at) values (46, 'q4', 'q4', 'DE', '2024-01-01') on conflict (handle) do nothing
insert into users(id, handle, email, country, created_at) values (46, 'q4', 'q4', 'DE', '2024-01-01') on conflict do nothing returning id
insert into users(id, handle, email, country, created_at) values (5, 'a', 'b', 'DE', '2024-01-01'), (1099, 'c', 'd', 'DE', '2024-01-01')
insert into users(id, handle, email, country, created_at) select 50 + n, 'gen' || n, 'g', 'PL', '2024-01-01' from generate_series(1, 3) n returning id
insert into users(id, handle, email, country, created_at) select n, 'gen' || n, 'g', 'PL', '2024-01-01' from unnest(array[60, 1060]) n
insert into users(id, handle, email, country, created_at) select * from (values (61, 'v', 'v', 'PL', timestamptz '2024-01-01'), (1061, 'v', 'v', 'PL', timestamptz '2024-01-01')) v
insert into users(id, handle, email, country, created_at) select id + 100, handle, email, country, created_at from users where id in (1, 1001) returning id
insert into users(id, handle, email, country, created_at) with s as (select 62 as id) select id, 'cte', 'x', 'DE', '2024-01-01' from s
with s as (select 63 as id union all select 1063) insert into users(id, handle, email, country, created_at) select id, 'cte', 'x', 'DE', '2024-01-01' from s returning id
with s(id) as (values (64), (1064)) insert into users(id, handle, email, country, created_at) select id, 'cte', 'x', 'DE', '2024-01-01' from s
insert into orders(user_id, id, tracking, total, placed_at) select id, 50, md5(handle)::uuid, 10, '2024-05-01' from users where handle = 'cte' returning user_id, status, currency
insert into orders(user_id, id, tracking, total, placed_at) values (5, (select max(id) + 1 from orders where user_id = 5), 'b5d3cd54-0f37-4b54-8a47-4a0b0a0b0a0b', 12, '2024-05-01') returning id
insert into orders(user_id, id, tracking, total, placed_at) values (5, 60, 'b5d3cd54-0f37-4b54-8a47-4a0b0a0b0a0b', (select avg(total) from orders), '2024-05-01') returning total
insert into orders(user_id, id, tracking, total, placed_at) values ((select min(id) from users), 60, 'b5d3cd54-0f37-4b54-8a47-4a0b0a0b0a0b', 12, '2024-05-01') returning user_id
insert into orders(user_id, id, tracking, total, placed_at) values (5, 61, 'not a uuid', 12, '2024-05-01')
insert into orders(user_id, id, tracking, total, placed_at) values (5, 61, 'b5d3cd54-0f37-4b54-8a47-4a0b0a0b0a0b', 12345678901234, '2024-05-01')
insert into orders(user_id, id, tracking, total, placed_at) values (5, 1, 'b5d3cd54-0f37-4b54-8a47-4a0b0a0b0a0b', 12, '2024-05-01'), (1005, 1, 'b5d3cd54-0f37-4b54-8a47-4a0b0a0b0a0b', 12, '2024-05-01')
insert into orders(user_id, id, tracking, total, placed_at) values (77777, 1, 'b5d3cd54-0f37-4b54-8a47-4a0b0a0b0a0b', 12, '2024-05-01')
insert into order_items values (5, 1, 9, 999, 1, 1, null)
insert into order_items values (5, 1, 9, 1, 0, 1, null)
insert into order_items values (5, 1, 9, 1, 1, 1, 0.5), (1005, 1, 9, 1, 2, 2, null) returning *
insert into order_items(user_id, order_id, line, product_id, quantity, unit_price) select user_id, id, 20, 3, 1, 9.99 from orders where status = 'paid' and id = 2
insert into carts(user_id, product_id, quantity, added_at) values (5, 5, 1, '2024-01-01'), (1005, 5, 1, '2024-01-01') on conflict (user_id, product_id) do update set quantity = carts.quantity + excluded.quantity
insert into carts(user_id, product_id, quantity, added_at) values (5, 5, 1, '2024-01-01'), (1005, 5, 1, '2024-01-01') on conflict (user_id, product_id) do update set quantity = carts.quantity + excluded.quantity returning quantity
insert into carts(user_id, product_id, quantity, added_at) select user_id, product_id, quantity, added_at from carts on conflict (user_id, product_id) do update set quantity = carts.quantity + 1
insert into carts(user_id, product_id, quantity, added_at) values (5, 5, -1, '2024-01-01') on conflict (user_id, product_id) do update set quantity = excluded.quantity
insert into posts(user_id, id, public_id, body, tags, attachments, published_at) values (5, 50, 'b5d3cd54-0f37-4b54-8a47-4a0b0a0b0a0b', E'line\nbreak', array['x', 'y'], '{"a": [1, 2]}', '2024-01-01'), (1005, 50, 'b5d3cd54-0f37-4b54-8a47-4a0b0a0b0a0b', $$quo'te$$, '{}', null, '2024-01-01') returning body, tags, attachments
insert into follows(user_id, followed_id, since) values (5, 6, '2024-01-01'), (6, 5, '2024-01-01'), (1005, 5, '2024-01-01'), (5, 1005, '2024-01-01') on conflict do nothing
insert into follows(user_id, followed_id, since) select f.followed_id, f.user_id, '2024-02-02' from follows f where f.user_id < f.followed_id on conflict do nothing
insert into categories(id, name, slug) values (50, 'c50', 'c50') on conflict (id) do update set name = excluded.name returning *
insert into categories(id, name, slug) values (51, 'c51', 'books') on conflict (slug) do update set name = categories.name || '!' returning *
insert into categories(id, name, slug) values (51, 'c51', 'books')
insert into products(id, sku, category_id, name, price, created_at) values (50, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a50', 50, 'p50', 1.005, '2024-01-01') returning price
insert into products(id, sku, category_id, name, price) values (51, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a51', 4242, 'p', 1)
-- updates
update users set balance = balance + 10 where id = 5 returning id, balance
update users set balance = balance + 10, verified = true where country = 'DE' returning id, balance, verified
update users set (handle, email) = ('h', 'e') where id in (41, 1041) returning id, handle, email
update users set (handle, email) = row('h2', 'e2') where id in (41, 1041) returning id, handle, email
update users set (full_name, balance) = (select 'n', 5) where id in (41, 1041) returning id, full_name, balance
update users u set (full_name, balance) = (select max(o.note), sum(o.total) from orders o where o.user_id = u.id) where id in (5, 6, 1005, 1006) returning id, full_name, balance
update users u set balance = (select coalesce(sum(total), 0) from orders o where o.user_id = u.id)
update users set balance = default where country = 'PL' returning id, balance
update users set handle = null where id in (5, 1005)
update users set country = 'LONG' where id = 5
update users set balance = 'x' where id = 5
update users set nosuch = 1
update users set balance = balance / (id - 1005)
update users set settings = settings || '{"k": 1}', interests = array_append(interests, 'new') where id in (7, 1007) returning settings, interests
update users set settings = jsonb_set(settings, '{theme}', '9') where settings->>'theme' = '1' returning id, settings
update users set settings['a']['b'] = '5' where id = 8 returning settings
update users u set balance = u.balance + v.b from (values (5, 1), (1005, 2), (6, 3)) v(i, b) where v.i = u.id returning u.id, u.balance, v.b
update users u set balance = u.balance + s.n from (select user_id, count(*) n from orders group by user_id) s where s.user_id = u.id and u.country = 'FR' returning u.id, s.n
update users u set full_name = f.handle from users f where f.id = u.id + 1000 and u.id < 5 returning u.id, u.full_name
update orders o set note = u.handle from users u join follows f on f.user_id = u.id where u.id = o.user_id and f.muted and o.id = 1
update orders set status = case status when 'placed' then 'paid' when 'paid' then 'shipped' else status end, shipped_at = case when status = 'paid' then timestamptz '2024-06-01' end
update orders set status = 'bogus' where user_id = 1005
update orders set total = total * 1.1 where user_id in (select id from users where verified) and gift
update orders set total = total + 1 where (user_id, id) in ((5, 1), (1005, 1)) returning user_id, total
update order_items i set discount = 0.5 from orders o where o.user_id = i.user_id and o.id = i.order_id and o.gift and i.line = 1
update order_items set unit_price = p.price, quantity = quantity + 1 from products p where p.id = product_id and p.category_id = 2 returning user_id, order_id, line, unit_price
update order_items set product_id = 4242 where user_id = 5
update posts set likes = likes + 1 where id = 1 and exists (select from follows f where f.followed_id = posts.user_id)
update posts set tags = array_remove(tags, 't1'), edited_at = '2024-07-01' where 't1' = any (tags)
update carts set quantity = quantity * 2 where user_id > 1000 and product_id in (select id from products where available)
update follows set muted = not muted where user_id = 3 returning followed_id, muted
update products set price = round(price * 1.1, 2) where category_id = 3 returning id, price
update products set available = exists (select from order_items i where i.product_id = products.id)
update products p set attributes = p.attributes || jsonb_build_object('sold', (select sum(quantity) from order_items i where i.product_id = p.id))
update categories set parent_id = null where id = 2 returning *
update only users set verified = true where id = 9
update users set id = 2000 where id = 1041 returning id
update users set id = id + 1 where id = 2000
update users u set balance = 1 where u.id = 5 and exists (select from users x where x.id = 1005 and x.country <> 'QQ')
update users set balance = balance where false returning *
with t as (select user_id, max(total) m from orders group by user_id) update users u set balance = t.m from t where t.user_id = u.id returning u.id, t.m
with t as (update users set balance = balance + 1 where id = 5 returning *) select id, balance from t
-- deletes
delete from order_items where user_id = 5 and line = 9 returning *
delete from carts where user_id in (5, 1005) returning user_id, product_id
delete from posts p using users u where u.id = p.user_id and u.country = 'PL' and p.id = 2 returning p.user_id, u.handle
delete from follows where since < '2024-01-01 00:00:05+00' returning *
delete from orders o where not exists (select from order_items i where i.user_id = o.user_id and i.order_id = o.id)
delete from orders where (user_id, id) in (select user_id, max(id) from orders group by user_id having count(*) > 3)
delete from posts where (user_id, id) in (select user_id, id from posts order by likes desc, user_id, id limit 2) returning user_id, id
delete from users where id = 1042
delete from users where handle = 'cte' returning id
delete from products where id = 1
delete from products where id = 50 returning name
delete from categories where id = 1
delete from users where nosuch = 1
delete from users where id / 0 = 1
delete from follows f using follows g where g.user_id = f.followed_id and g.followed_id = f.user_id and f.user_id > g.user_id
delete from only carts where user_id = 3
with old as (select id from users where id in (60, 1060)) delete from users using old where users.id = old.id returning users.id
-- a table of the session's own, over rows of all
create temp table t1 as select * from users where verified
select count(*), min(id), max(id) from t1
select u.id from users u join t1 on t1.id = u.id where u.country = 'DE' order by 1
drop table t1
select id, handle into temp sel from users where country = 'DE'
select count(*) from sel
drop table sel
create temporary table t3 (id bigint, total numeric)
insert into t3 select user_id, sum(total) from orders group by user_id
select count(*), sum(total) from t3
insert into t3 select id, 0 from users where id not in (select id from t3) returning id
update t3 set total = u.balance from users u where u.id = t3.id and u.country = 'FR' returning t3.id, t3.total
delete from t3 using users u where u.id = t3.id and u.country = 'DE'
select u.country, sum(t3.total) from t3 join users u on u.id = t3.id group by 1 order by 1
select count(*) from users where id = 1005
drop table t3
select country, sum(balance) s into snap from users group by country
select * from snap order by country
drop table snap
-- PREPARE and EXECUTE
prepare p1 as select id, handle from users where id = $1
execute p1(5)
execute p1(1005)
execute p1(null)
execute p1('1006')
execute p1(2 + 3)
execute p1(5, 6)
execute p1('x')
prepare p1 as select 1
prepare p2(bigint, text) as select id from users where id > $1 and country = $2 order by id limit 3
execute p2(1000, 'DE')
deallocate p2
execute p2(1000, 'DE')
prepare p3 as insert into users(id, handle, email, country, created_at) values ($1, $2, 'p', 'DE', '2024-01-01') returning id
execute p3(95, 'p95')
execute p3(1095, 'p1095')
execute p3(95, 'again')
prepare p4 as update users set balance = $1 where id = any ($2) returning id, balance
execute p4(3, '{5,1005}')
prepare p5 as select country, count(*), $1 from users where balance > $1 group by country order by country
execute p5(0)
execute p5('1.5')
prepare bad as select nosuch from users
begin; execute p1(5); execute p1(1005); rollback
deallocate all
execute p1(5)
deallocate nosuch
-- cursors that last
declare h cursor with hold for select id from users order by id
fetch 2 from h
select count(*) from users where id = 1005
fetch 3 from h
close h
declare h3 scroll cursor with hold for select u.handle, o.total from users u join orders o on o.note = u.full_name order by 1, 2
fetch last from h3
close all
-- MERGE whose rows follow no key
merge into users u using (select user_id, sum(total) t from orders group by user_id) o on o.user_id = u.id when matched then update set balance = o.t
merge into users u using (select followed_id, count(*) n from follows group by followed_id) f on f.followed_id = u.id when matched and f.n > 2 then update set balance = f.n
merge into users u using (select handle, email from users where id = 1005) s on s.email = u.email when matched then update set full_name = 'merged'
merge into follows f using users u on f.followed_id = u.id when matched and u.country = 'FR' then delete
merge into carts c using follows f on c.user_id = f.followed_id when matched then delete
select * from users order by id
select * from follows order by 1, 2
-- errors of the text, whatever would be refused
select nextval('nosuch') from users
insert into orders(id) values (1)
insert into users default values
insert into users(id, handle, email, country) values (null, 'a', 'b', 'DE'), (1, 'a', 'b', 'DE')
insert into users(id, handle, email, country) select null, 'a', 'b', 'DE'
insert into users(id, handle, email, country) values (99999999999999999999, 'a', 'b', 'DE')
insert into users(id, handle, email, country) values ('abc', 'x', 'b', 'DE')
insert into users(id, handle, email) values (44, 'x', 'b', 'DE')
select nosuch(id) from users
-- what was refused before there were scripts
select id from users order by id limit 3 for update
select id from users order by balance, id offset 2 for share skip locked
create table from_users as select * from orders
select count(*), sum(user_id), sum(total) from from_users
drop table from_users
create table from_users as select id as user_id, handle from users
drop table from_users
create table from_users(user_id) as select id from users
drop table from_users
create table from_users as select o.* from (select user_id from orders) o
select count(*) from from_users where user_id > 1000
drop table from_users
create table from_users as (select * from orders) with data
drop table from_users
create table from_users as select id from users union select id from orders
drop table from_users
with u as (update users set id = 1099 where id = 5 returning id) select * from u
with u as (update products set created_at = '2024-01-01' where id < 3 returning id) select * from u
with i as (insert into posts(user_id, id, public_id, body, published_at) values (5, 97, 'b5d3cd54-0f37-4b54-8a47-4a0b0a0b0a0b', 'x', '2024-01-01'), (1005, 97, 'b5d3cd54-0f37-4b54-8a47-4a0b0a0b0a0b', 'y', '2024-01-01') returning *) select * from i
merge into carts c using follows f on c.user_id = f.user_id and c.product_id = f.followed_id when not matched then insert (user_id, product_id, quantity) values (f.followed_id, 1, 1)
-- writes in WITH
with moved as (delete from carts where quantity = 1 returning *) insert into follows(user_id, followed_id, since) select user_id, 500 + product_id, '2024-01-01' from moved
with x as (update users set balance = balance + 1 where country = 'DE' returning id, balance) select count(*), sum(balance) from x
with x as (update users set balance = balance + 1 where country = 'FR' returning id, balance) select * from x order by id
with n as (insert into users(id, handle, email, country, created_at) values (2001, 'n1', 'n', 'DE', '2024-01-01') returning id) insert into orders(user_id, id, tracking, total, placed_at) select id, 1, md5('n')::uuid, 5, '2024-01-01' from n
with n as (insert into users(id, handle, email, country, created_at) values (2002, 'n1', 'n', 'DE', '2024-01-01'), (102, 'n2', 'n', 'DE', '2024-01-01') returning id) insert into orders(user_id, id, tracking, total, placed_at) select id, 1, md5('n')::uuid, 5, '2024-01-01' from n returning user_id, id
with d as (delete from order_items where quantity = 2 returning user_id, order_id, unit_price) update orders o set total = total - d.unit_price from d where d.user_id = o.user_id and d.order_id = o.id
with d as (delete from follows where muted returning *) select user_id, count(*) from d group by user_id order by user_id
with d as (delete from posts where likes > 6 returning *), c as (select user_id, count(*) n from d group by 1) select * from c order by 1
with i as (insert into follows(user_id, followed_id, since) select id, 900, '2024-01-01' from users where country = 'PL' returning user_id) select count(*) from i
with d as (delete from follows where followed_id = 900 returning user_id) insert into carts(user_id, product_id, quantity, added_at) select user_id, 9, 1, '2024-01-01' from d on conflict do nothing
with u as (update orders set status = 'cancelled' where total < 20 returning user_id, total) update users set balance = balance + s.t from (select user_id, sum(total) t from u group by 1) s where s.user_id = users.id
with archived as (delete from posts where id = 2 and user_id in (7, 1007) returning *) select body from archived order by user_id
with a as (update products set price = price + 1 returning id), b as (delete from carts where quantity = 3 returning user_id) select (select count(*) from a), (select count(*) from b)
with top as (select user_id from orders group by 1 order by sum(total) desc, 1 limit 3) update users u set verified = true from top where top.user_id = u.id returning u.id
with top as (select id from users order by balance desc, id limit 2) delete from follows using top where top.id = follows.user_id returning follows.user_id, followed_id
with v(id, b) as (values (1, 5), (1001, 7)) update users u set balance = v.b from v where v.id = u.id returning u.id, u.balance
with upsert as (update users set full_name = 'up' where id = 3001 returning *) insert into users(id, handle, email, country, created_at) select 3001, 'up', 'up', 'DE', '2024-01-01' where not exists (select 1 from upsert)
select * from users order by id
select * from orders order by 1, 2
select * from follows order by 1, 2
select * from carts order by 1, 2
-- locks
begin; select id from users where not verified order by id limit 3 for update; update users set verified = true where id in (1, 3); commit
rollback
begin; select user_id, id from orders where status = 'placed' order by placed_at, user_id, id limit 2 for update skip locked; commit
rollback
select id from users order by balance desc, id limit 3 for update nowait
select id from users order by id limit 2 offset 1 for share
update orders set status = 'paid' where (user_id, id) in (select user_id, id from orders where status = 'placed' order by placed_at, user_id, id limit 2 for update skip locked) returning user_id, id, status
delete from posts where (user_id, id) = (select user_id, id from posts order by published_at, user_id, id limit 1 for update skip locked) returning *
with job as (select user_id, id from orders where status = 'placed' order by placed_at, user_id, id for update skip locked limit 1) update orders o set status = 'paid' from job where job.user_id = o.user_id and job.id = o.id returning o.user_id, o.id
select id from users where id in (5, 1005) order by id for update
select u.id from users u, orders o where o.user_id = u.id and o.id = 1 order by 1 limit 2 for update
select id from users order by id for update skip locked limit 3
-- merge
merge into carts c using (values (1::bigint, 2, 1), (1001, 2, 1)) v(u, p, q) on c.user_id = v.u and c.product_id = v.p when matched then update set quantity = c.quantity + v.q when not matched then insert (user_id, product_id, quantity, added_at) values (v.u, v.p, v.q, '2024-01-01')
merge into users t using (values (1::bigint, 'x'), (4001, 'y')) as s(id, h) on t.id = s.id when matched then update set handle = s.h when not matched then insert (id, handle, email, country, created_at) values (s.id, s.h, 'm', 'DE', '2024-01-01')
merge into carts c using (select user_id, 3 as product_id from orders where gift group by 1) s on s.user_id = c.user_id and s.product_id = c.product_id when matched then delete when not matched then insert (user_id, product_id, quantity, added_at) values (s.user_id, s.product_id, 1, '2024-01-01')
merge into carts c using follows f on c.user_id = f.followed_id and c.product_id = 4 when matched then do nothing when not matched and f.user_id = 3 then insert (user_id, product_id, quantity, added_at) values (f.followed_id, 4, 1, '2024-01-01')
merge into products p using (values (1, 9.99), (2, 19.99)) v(id, price) on p.id = v.id when matched then update set price = v.price
merge into users u using orders o on o.user_id = u.id and o.id = 1 when matched and o.total > 100 then update set balance = u.balance + o.total
merge into users u using (select 5 as id) s on u.id = s.id when matched then update set full_name = 'five' when not matched then insert (id, handle, email, country) values (s.id, 'a', 'b', 'DE')
select * from carts order by 1, 2
-- views
create materialized view by_country as select country, count(*) n, sum(balance) s from users group by country
select * from by_country order by country
select u.id, m.n from users u join by_country m on m.country = u.country order by u.id limit 5
create unique index on by_country (country)
update users set country = 'DE' where id = 1006
refresh materialized view by_country
select * from by_country order by country
refresh materialized view concurrently by_country
select count(*) from by_country
drop materialized view by_country
create materialized view later as select id, handle from users where id < 1003 with no data
select * from later
refresh materialized view later
select count(*) from later
drop materialized view if exists later
create view germans as select id, handle, email, country, balance from users where country = 'DE'
update germans set balance = balance + 1 where id < 10
update germans set balance = balance + 1 where id = 1005 returning id, balance
insert into germans(id, handle, email, country) values (2101, 'g1', 'g', 'DE'), (105, 'g2', 'g', 'DE')
select id, handle from germans order by id
delete from germans where id in (2101, 105) returning id
delete from germans where id = 4242
drop view germans
create view spent as select user_id, sum(total) t from orders group by user_id
select * from spent where user_id = 5
select * from spent order by t desc, user_id limit 3
drop view spent
create view nested as select * from (select id, country from users) x
select country, count(*) from nested group by 1 order by 1
create view nested2 as select country c, count(*) n from nested group by 1
select * from nested2 order by 1
drop view nested cascade
create recursive view nums(n) as values (1) union all select n + 1 from nums where n < 4
select * from nums
drop view nums
create view vp as select id, price from products where price > 20
select count(*) from vp
update vp set price = price + 1 where id = 9
drop view vp
-- TABLE, EXECUTE, cursors, DO, CALL
table users order by id
table users order by balance desc, id limit 3
(table categories) order by id
table categories order by id
table only carts
with t as (table users) select count(*) from t
table categories union all table categories order by 1
prepare px as select id, handle from users where id < 4
create table made_by as execute px
select * from made_by order by id
drop table made_by
create temp table made_by2 as execute px
select * from made_by2 order by id
drop table made_by2
deallocate px
rollback
begin; declare c cursor for select * from users where id = 5 for update; fetch c; update users set full_name = 'cur' where current of c returning id; delete from carts where user_id = 5; commit
rollback
rollback
do $$ begin raise notice 'hi'; end $$ language plpgsql
do $$ begin raise exception 'no' using errcode = '22012'; end $$
create function plus_one(a int) returns int language sql immutable as 'select a + 1'
select plus_one(1)
select id, plus_one(id::int) from users order by id limit 3
select plus_one(5) from categories
select id from users where id = plus_one(4)
create function fmt(u users) returns text language sql stable as $$ select u.handle || '!' $$
select u.fmt from users u where u.id = 5
drop function fmt(users)
create function series(n int) returns setof int language sql immutable as 'select generate_series(1, n)'
select * from series(3)
select u.id, s from users u, series(2) s where u.id < 3 order by 1, 2
drop function series(int)
drop function plus_one(int)
create function touch() returns trigger language plpgsql as $$ begin new.note := coalesce(new.note, 'touched'); return new; end $$
create trigger touching before insert on orders for each row execute function touch()
insert into orders(user_id, id, tracking, total, placed_at) values (5, 501, md5('t')::uuid, 1, '2024-01-01'), (1005, 501, md5('t')::uuid, 1, '2024-01-01')
select user_id, note from orders where id = 501 order by 1
insert into orders(user_id, id, tracking, total, placed_at) select id, 502, md5('t')::uuid, 1, '2024-01-01' from users where id in (6, 1006) returning note
update orders set total = 2 where id = 501 returning note, total
drop trigger touching on orders
drop function touch()
create aggregate total_of(numeric) (sfunc = numeric_add, stype = numeric, initcond = '0')
select total_of(balance) from users
select country, total_of(balance) from users group by country order by country
drop aggregate total_of(numeric)
-- isolation
begin isolation level repeatable read; select count(*) from users; select id from users where id = 1005; select max(total) from orders; commit
rollback
begin isolation level repeatable read read only; select count(*) from users; select count(*) from orders; select u.handle from users u join orders o on o.note = u.full_name order by 1 limit 3; commit
rollback
begin isolation level repeatable read; update users set balance = balance + 1 where id = 5; select balance from users where id = 5; commit
rollback
begin isolation level repeatable read; update users set balance = balance + 1 where id in (5, 1005); select id, balance from users where id in (5, 1005) order by 1; rollback
rollback
begin; set transaction isolation level repeatable read; select count(*) from users; commit
rollback
set default_transaction_isolation = 'repeatable read'
select count(*) from users
update users set balance = balance + 1 where country = 'DE'
begin; select count(*) from users; select count(*) from orders; commit
rollback
reset default_transaction_isolation
set session characteristics as transaction isolation level read committed
begin read only; select count(*) from users; update users set balance = 0; commit
rollback
begin; select count(*) from users; set transaction read only; select 1; commit
rollback
show transaction_isolation
select current_setting('transaction_isolation')
-- texts and errors
select 1; selec 2
select count(*) from users; select from where
selec 1
begin; select nosuch; 
selec 1
select 1
rollback
begin; insert into categories(id, name, slug) values (90, 'n', 'n90'); selec 1
rollback
select count(*) from categories where id = 90
insert into categories(id, name, slug) values (91, 'n', 'n91'); select 1 / 0
select count(*) from categories where id = 91
insert into users(id, handle, email, country) values (6001, 'a', 'a', 'DE'); insert into users(id, handle, email, country) values (6001, 'a', 'a', 'DE')
select count(*) from users where id = 6001
update users set balance = 1 where id = 5; update users set balance = 2 where id = 1005; select id, balance from users where id in (5, 1005) order by 1
select id from users where id = 5; select id from users where id = 1005
select 1;;select 2
select count(*) from users; select count(*) from orders; select count(*) from categories
-- CTAS
create table c1 as select * from orders
select count(*), sum(total) from c1
select user_id, id from c1 where user_id = 1005 order by id
insert into c1 select * from orders where user_id = 3
select count(*) from c1
drop table c1
create table c1 as select user_id, count(*) n, sum(total) s from orders group by user_id
select * from c1 order by user_id desc limit 3
select u.handle, c1.n from users u join c1 on c1.user_id = u.id order by u.id limit 4
update c1 set n = n + 1 where user_id = 1001 returning *
drop table c1
create table c1(user_id, what) as select id, handle from users where country = 'DE' with data
select * from c1 order by 1
drop table c1
create table c1(user_id) as select id, handle from users
select * from c1 order by 1 limit 2
drop table c1
create table c1 as table orders
select count(*) from c1
drop table c1
create table c1 as select id as user_id from users union select user_id from follows
select count(*) from c1
drop table c1
drop table c1
create table if not exists c1 as select user_id, id from orders
drop table if exists c1
create table c1 as with t as (select user_id, max(total) m from orders group by 1) select * from t where m > 50
select count(*) from c1
create index on c1 (m)
alter table c1 add primary key (user_id)
insert into c1 values (1001, 1), (5, 2) on conflict (user_id) do update set m = excluded.m returning *
drop table c1
select user_id, id, total into c2 from orders where gift
select count(*), max(total) from c2
drop table c2
select * from c3
-- WITH
with a as (delete from follows where user_id = 3 returning followed_id), b as (select count(*) n from a) select * from b
with a as (insert into carts(user_id, product_id, quantity, added_at) select id, 10, 2, '2024-02-02' from users where country = 'DE' on conflict do nothing returning *) select a.user_id, u.handle, a.quantity from a join users u on u.id = a.user_id order by 1
with a as (update posts set likes = likes + 1 where id = 1 returning user_id, likes) select country, sum(likes) from a join users u on u.id = a.user_id group by country order by country
with gone as (delete from carts where product_id = 10 returning user_id, quantity) update users u set balance = balance + gone.quantity from gone where gone.user_id = u.id returning u.id, u.balance
with rich as (select id from users where balance > 20), paid as (update orders set status = 'paid' where user_id in (select id from rich) and status = 'placed' returning user_id, id, total) select r.id, count(p.id), sum(p.total) from rich r left join paid p on p.user_id = r.id group by r.id order by r.id
with i as (insert into users(id, handle, email, country, created_at) values (601, 'cte', 'c', 'DE', '2024-01-01'), (1601, 'cte', 'c', 'FR', '2024-01-01') returning id, handle), o as (insert into orders(user_id, id, tracking, total, placed_at) select id, 1, md5(handle)::uuid, 10, '2024-01-01' from i returning user_id, total) select i.handle, o.total from i join o on o.user_id = i.id order by i.id
select id from users where id in (601, 1601) order by 1
with d as (delete from users where id in (601, 1601) returning *) select id, handle, country from d order by id
with d as (delete from posts where id = 2 and user_id < 4 returning *) insert into posts select user_id, id + 100, public_id, body, tags, attachments, likes, score, visible, published_at, edited_at from d returning user_id, id
with d as (delete from posts where user_id = 4 returning *) insert into posts select 1004, id + 200, public_id, body, tags, attachments, likes, score, visible, published_at, edited_at from d
select user_id, id from posts where user_id in (4, 1004) order by 1, 2
with t as (select id from users order by id limit 2) delete from carts using t where carts.user_id = t.id
with u as (update users set verified = true where not verified returning id) select count(*) > 0 from u
with x as (select 1 as a), y as (update users set balance = balance where id = 5 returning id) select x.a, y.id from x, y
with u as (update users set balance = balance + 1 returning id, balance) select id from u where id not in (select user_id from orders) order by id
with u as (update users set balance = balance + 1 returning id) select count(*) from users
with recursive r(n) as (select 1 union all select n + 1 from r where n < 3), d as (delete from follows where user_id = 6 returning *) select (select count(*) from r), (select count(*) from d)
with x(a, b) as (update orders set note = 'n' where id = 2 returning user_id, total) select a, b from x order by a limit 3
with x as (update orders set note = 'n' where id = 3) select 1
with x as (delete from carts where user_id = -1 returning *) select count(*), max(user_id) from x
with x as (delete from carts where user_id = -1 returning *) insert into carts select * from x
with x as (update users set full_name = null where id in (2, 1002) returning id, full_name, born, interests, settings, avatar, last_seen_at) select * from x order by id
with x as (select * from users where id < 3 for update) select id, handle from x order by id
with x as (insert into users(id, handle, email, country) values (5, 'dup', 'd', 'DE') returning id) select * from x
with x as (insert into users(id, handle, email, country) values (5, 'dup', 'd', 'DE'), (1700, 'dup', 'd', 'DE') returning id) select * from x
select count(*) from users where id = 1700
begin; with x as (delete from follows where user_id in (7, 1007) returning *) select count(*) from x; select count(*) from follows; rollback
rollback
select count(*) from follows
-- merge
merge into posts p using users u on p.user_id = u.id and p.id = 777 when not matched and u.country = 'DE' then insert (user_id, id, public_id, body, published_at) values (u.id, 777, md5(u.handle)::uuid, 'hi ' || u.handle, '2024-01-01')
merge into posts p using users u on p.user_id = u.id and p.id = 777 when matched and u.verified then delete when matched then update set likes = 100 when not matched then do nothing
merge into carts c using (select 1004::bigint u, 7 p union all select 4, 7) s on c.user_id = s.u and c.product_id = s.p when matched then update set quantity = quantity + 1 when not matched and s.u > 1000 then insert values (s.u, s.p, 1, '2024-01-01') when not matched then insert (user_id, product_id, quantity, added_at) values (s.u, s.p, 5, '2024-01-01')
select * from carts where product_id = 7 order by 1
merge into users u using (values (5, 'DE'), (1005, 'XX')) v(i, c) on u.id = v.i when matched then update set country = v.c
merge into follows f using (select user_id, followed_id from follows where user_id < 3) s on f.user_id = s.followed_id and f.followed_id = s.user_id when not matched then insert (user_id, followed_id, since) values (s.followed_id, s.user_id, '2024-05-05')
select * from follows order by 1, 2
-- views
create view v1 as select id, handle, country, balance from users where balance > 0
update v1 set handle = upper(handle) where country = 'DE' returning *
update v1 as v set balance = v.balance + o.total from orders o where o.user_id = v.id and o.id = 1 and v.country = 'FR' returning v.id, v.balance
delete from v1 where id = 18 and country = 'ZZ'
insert into v1(id, handle, country, balance) values (801, 'no email', 'DE', 1)
create view v2 as select id, handle, email, country from users
insert into v2 values (801, 'v', 'v@x', 'DE'), (1801, 'v', 'v@x', 'FR') returning *
insert into v2(id, handle, email, country) select id + 1, handle, email, country from v2 where id in (801, 1801) returning id
update v2 set handle = 'w' where id = 801
delete from v2 where id in (801, 802, 1801, 1802) returning id
create view v3 as select * from v2 where country = 'DE'
update v3 set handle = handle where id = 5 returning id, country
delete from v3 where id = 4242
create view v4 as select u.id, o.total from users u join orders o on o.user_id = u.id
delete from v4 where id = 1
drop view v4, v3, v2, v1
create materialized view m1 as select u.id as user_id, count(o.id) n from users u left join orders o on o.user_id = u.id group by u.id
select * from m1 where user_id = 1005
select m1.user_id, u.handle from m1 join users u on u.id = m1.user_id where n = 3 order by 1 limit 3
create index m1_n on m1 (n)
refresh materialized view m1
select sum(n) from m1
alter materialized view m1 rename to m2
refresh materialized view m2
select count(*) from m2
insert into m2 values (1, 1)
drop materialized view m2
create materialized view m3(a, b) as select country, max(balance) from users group by country with data
select a from m3 order by b desc, a
drop materialized view m3
create materialized view m4 as select id, name from products where price > 10
select count(*) from m4
refresh materialized view m4
drop materialized view m4
create materialized view if not exists m5 as select count(*) c from users
drop materialized view if exists m5
-- functions
create function add_tax(n numeric, rate numeric default 0.19) returns numeric language sql immutable as $$ select round(n * (1 + rate), 2) $$
select user_id, id, add_tax(total) from orders order by 1, 2 limit 4
select sum(add_tax(total)) from orders
select id from orders where user_id = 5 and add_tax(total, 0) > 10 order by 1
update orders set total = add_tax(total) where id = 3 returning user_id, total
create or replace function add_tax(n numeric, rate numeric default 0.19) returns numeric language plpgsql immutable as $$ begin return round(n * (1 + rate), 2); end $$
select add_tax(100), add_tax(100, 0.07)
create index orders_taxed on orders (add_tax(total))
drop index orders_taxed
drop function add_tax
create function initials(t text) returns text language sql stable as $$ select upper(left(t, 1)) || '.' $$
select initials(handle) i, count(*) from users group by 1 order by 1
drop function initials(text)
create function log_it() returns trigger language plpgsql as $$ begin raise notice '% on %', tg_op, tg_table_name; return coalesce(new, old); end $$
create trigger logging after insert or update or delete on carts for each row execute function log_it()
insert into carts(user_id, product_id, quantity, added_at) values (15, 2, 1, '2024-01-01'), (1015, 2, 1, '2024-01-01')
delete from carts where product_id = 2 and user_id in (15, 1015)
alter table carts disable trigger logging
alter table carts enable trigger logging
drop trigger logging on carts
drop function log_it()
-- temp tables in blocks
begin; create temp table w1 on commit drop as select id, balance from users where country = 'DE'; select count(*) from w1; update users u set balance = 0 from w1 where w1.id = u.id; select sum(balance) from users; rollback
rollback
begin; create temp table w2 (id bigint, n int) on commit drop; insert into w2 select user_id, count(*) from orders group by 1; select u.handle, w2.n from users u join w2 on w2.id = u.id order by 2 desc, u.id limit 3; delete from w2 where n < 3; select count(*) from w2; commit
rollback
select * from w2
create temp table w3 as select user_id, sum(total) t from orders group by 1
begin; select count(*) from w3; select count(*) from users; insert into follows(user_id, followed_id, since) select user_id, 700, '2024-01-01' from w3; select count(*) from follows where followed_id = 700; rollback
rollback
select count(*) from follows where followed_id = 700
begin; update w3 set t = 0; update users set balance = balance + 1 where id in (5, 1005); commit
rollback
select sum(t) from w3
drop table w3
begin; create temp table w4 (a int); commit
rollback
insert into w4 values (1)
begin; drop table w4; select count(*) from users; rollback
rollback
select count(*) from w4
discard temp
select count(*) from w4
-- RR
begin isolation level repeatable read; update users set balance = balance + 1 where id = 5; update users set balance = balance + 1 where id = 1005; select sum(balance) from users; commit
rollback
begin; set transaction isolation level repeatable read, read only; select count(*) from orders; select id from users where id = 1005; update users set balance = 0; rollback
rollback
begin isolation level repeatable read; savepoint a; insert into users(id, handle, email, country, created_at) values (901, 'rr', 'r', 'DE', '2024-01-01'), (1901, 'rr', 'r', 'DE', '2024-01-01'); rollback to a; select count(*) from users where handle = 'rr'; commit
rollback
begin isolation level repeatable read; set local timezone = 'UTC'; select max(placed_at) from orders; declare c cursor for select id from users order by id; fetch 2 from c; close c; show transaction_isolation; commit
rollback
set session characteristics as transaction isolation level repeatable read
begin; select count(*) from users; select count(*) from orders where user_id = 5; commit
rollback
select count(*) from users
update users set balance = balance where country = 'DE'
set session characteristics as transaction isolation level read committed
begin; set transaction isolation level read committed; select count(*) from users; commit
rollback
-- locks
begin; select id, handle from users where country = 'DE' order by last_seen_at desc nulls last, id limit 3 for update skip locked; commit
rollback
begin; select user_id, id from orders where status = 'placed' order by placed_at, user_id, id for update skip locked limit 2; commit
rollback
select id from users order by id offset 2 for share skip locked
select id from users order by balance, id limit 3 offset 2 for no key update
update posts set likes = likes + 1 where (user_id, id) in (select user_id, id from posts where likes < 5 order by published_at, user_id, id limit 2 for update skip locked) returning user_id, id, likes
delete from follows f using (select user_id, followed_id from follows order by since, user_id, followed_id limit 3 for update skip locked) x where x.user_id = f.user_id and x.followed_id = f.followed_id returning f.user_id, f.followed_id
with j as (select user_id, id from orders where status = 'paid' order by placed_at, user_id, id limit 1 for update skip locked) update orders o set status = 'shipped', shipped_at = '2024-03-03' from j where o.user_id = j.user_id and o.id = j.id returning o.user_id, o.id, o.status
-- misc
select pg_try_advisory_lock(5)
select pg_advisory_unlock(5)
begin; select pg_advisory_xact_lock(7); select count(*) from users; commit
rollback
prepare q1 as with d as (delete from follows where user_id = $1 returning *) select count(*) from d
execute q1(8)
execute q1(1008)
prepare q2(text) as with d as (update orders set note = $1 where id = 1 returning user_id, note) select count(*), min(note) from d
execute q2('noted')
prepare q3(int) as merge into carts c using (values (3::bigint, $1), (1003, $1)) v(u, p) on c.user_id = v.u and c.product_id = v.p when not matched then insert values (v.u, v.p, 1, '2024-01-01') when matched then update set quantity = 9
execute q3(8)
execute q3(8)
select * from carts where product_id = 8 order by 1
deallocate all
table users order by id limit 2
(table users order by id limit 1) union all (table users order by id desc limit 1) order by id
select count(*) from (table orders) o
insert into follows(user_id, followed_id, since) (table follows) on conflict do nothing
select id from users where id in (table users)
with t as (table orders) select user_id, count(*) from t group by 1 order by 1 limit 2
select 1; selec 2
select count(*) from users; select count(*) form orders
begin; select 1 / 0
selec 1
select 1
rollback
do $$ declare x int := 1; begin x := x + 1; raise notice 'x = %', x; end $$
do $$ begin raise exception 'no' using errcode = '22012'; end $$
-- written by rows of temporary tables, by the row of a cursor, through views
create temp table w5 (who bigint, n int)
insert into w5 values (5, 1), (1005, 2), (7, 3)
update users set balance = n from w5 where who = id returning id, balance
update users u set balance = w.n from w5 w where w.who = u.id and u.id > 1000 returning u.id
delete from follows using w5 where w5.who = follows.user_id and followed_id = -1
delete from follows where user_id in (select who from w5 where n = 3)
drop table w5
begin; create temp table w1 on commit drop as select id, balance from users where country = 'DE'; select count(*) from w1; update users u set balance = 0 from w1 where w1.id = u.id; select sum(balance) from users; rollback
rollback
create view v4 as select u.id, o.total from users u join orders o on o.user_id = u.id
delete from v4 where id = 1
insert into v4 values (1, 1)
drop view v4
begin; declare c cursor for select * from users where id = 5 for update; fetch c; update users set full_name = 'cur' where current of c returning id; delete from carts where user_id = 5; commit
rollback
begin; declare c cursor for select * from users where id = 1005 for update; fetch c; delete from users where current of c; rollback
rollback
update users set full_name = 'x' where current of nosuch
begin isolation level repeatable read; select 1; select count(*) from users; commit
rollback
with u as (update users set balance = balance + 1 returning id, balance) select count(*), sum(balance) from users
with u as (update products set price = price + 1 returning id, price) select id, price from products order by id
-- definitions of all kinds
create table events (user_id bigint, at date not null, n int, primary key (user_id, at)) partition by range (at)
create table events_2023 partition of events for values from ('2023-01-01') to ('2024-01-01')
create table events_2024 partition of events for values from ('2024-01-01') to ('2025-01-01')
insert into events values (5, '2023-05-05', 1), (5, '2024-05-05', 2), (1005, '2023-05-05', 3), (1005, '2024-05-05', 4)
select * from events order by 1, 2
select at, sum(n) from events group by at order by at
insert into events values (5, '2030-01-01', 1)
create table events_default partition of events default
insert into events values (5, '2030-01-01', 1), (1005, '2030-01-01', 2)
select count(*) from events_default
select count(*) from events_2024
update events set at = '2024-06-06' where n = 1 and at = '2023-05-05' returning *
delete from events where at < '2024-01-01' returning *
alter table events detach partition events_2023
alter table events attach partition events_2023 for values from ('2023-01-01') to ('2024-01-01')
drop table events
create table base_t (user_id bigint primary key, a int)
create table child_t (b int) inherits (base_t)
insert into child_t values (5, 1, 2), (1005, 2, 3)
insert into base_t values (6, 1), (1006, 1)
select * from base_t order by user_id
select * from only base_t order by user_id
select tableoid::regclass, user_id from base_t order by user_id
update base_t set a = a + 1 where user_id in (5, 1006) returning user_id, a
delete from base_t where a = 2 returning user_id
drop table base_t cascade
create type color as enum ('red', 'green')
alter type color add value 'blue'
alter type color rename value 'red' to 'crimson'
create table shirts (user_id bigint, c color, primary key (user_id))
insert into shirts values (1, 'blue'), (1001, 'crimson'), (2, 'green')
select * from shirts order by c desc
select c, count(*) from shirts group by c order by c
select enum_range(null::color)
select user_id from shirts where c >= 'green' order by user_id
insert into shirts values (3, 'nosuch')
drop type color
drop type color cascade
select * from shirts order by 1
drop table shirts
create domain positive as int constraint pos check (value > 0)
create table counts (user_id bigint primary key, n positive)
insert into counts values (1, 5), (1001, 6)
insert into counts values (2, -1)
select sum(n) from counts
alter domain positive drop constraint pos
insert into counts values (2, -1), (1002, -2)
select * from counts order by n
alter table counts alter column n type bigint using n * 10
select * from counts order by n
drop table counts; drop domain positive
create sequence ticket start 100 increment 5
alter sequence ticket restart with 7
select last_value, is_called from ticket
drop sequence ticket
create table tickets (user_id bigint not null, no serial, title text, unique (user_id, no))
insert into tickets(user_id, title) values (1, 'a'), (1001, 'b'), (2, 'c') returning no
insert into tickets(user_id, title) select id, handle from users where id in (3, 1003) order by id returning user_id, no
select user_id, no from tickets order by no
select pg_get_serial_sequence('tickets', 'no')
insert into tickets values (1, default, 'z') returning no
alter table tickets alter column no drop default
drop table tickets
create table composite_pk (user_id bigint, k text, v int, constraint cpk primary key (user_id, k), constraint vv check (v > 0))
insert into composite_pk values (1, 'a', 1), (1001, 'b', 2) on conflict on constraint cpk do update set v = excluded.v
insert into composite_pk values (1, 'a', 5), (1001, 'b', 6), (2, 'c', 7) on conflict on constraint cpk do update set v = excluded.v returning *
insert into composite_pk values (1, 'z', 0)
drop table composite_pk
alter table users add column nick text default 'n'
select nick, count(*) from users group by nick
update users set nick = handle where id in (1, 1001)
alter table users alter column nick set not null
alter table users drop column nick
begin; alter table users add column tmp int; update users set tmp = 1 where id in (1, 1001); select sum(tmp) from users; rollback
rollback
select tmp from users
begin; drop table carts; rollback
rollback
select count(*) > 0 from carts
begin; truncate carts; select count(*) from carts; rollback
rollback
select count(*) > 0 from carts
begin; savepoint a; create table sp (user_id bigint); rollback to a; select * from sp; rollback
rollback
alter table orders add column discount_code text, add column pct numeric(4, 2) default 1.5, alter column note set default 'none'
insert into orders(user_id, id, tracking, total, placed_at) values (5, 601, md5('t')::uuid, 1, '2024-01-01'), (1005, 601, md5('t')::uuid, 1, '2024-01-01') returning note, pct
alter table orders drop column discount_code, drop column pct, alter column note drop default
delete from orders where id = 601
create table categories_again as table categories
select * from categories_again order by id
drop table categories_again
create table vals (a, b) as values (1, 'x'), (2, 'y')
select * from vals order by 1
drop table vals
create temp table tt on commit drop as select 1 as x
begin; create temp table tt2 (a int) on commit drop; insert into tt2 select id from users where id < 5; select count(*) from tt2; commit
rollback
select * from tt2
create temp table tt3 (a int) on commit delete rows
insert into tt3 values (1)
select count(*) from tt3
drop table tt3
create table nums_t (n int check (n between 1 and 10), m int not null)
insert into nums_t values (1, 1), (2, 2)
insert into nums_t values (11, 1)
select n.n, u.id from nums_t n join users u on u.id = n.n order by 1
update nums_t set m = (select count(*) from users where id <= n)
select * from nums_t order by 1
insert into nums_t select id, 1 from users where id between 3 and 6 returning *
delete from nums_t where n in (select id from users where country = 'DE')
update users set balance = nums_t.m from nums_t where nums_t.n = users.id returning id
insert into follows(user_id, followed_id, since) select n, 800, '2024-01-01' from nums_t
delete from follows using nums_t where nums_t.n = follows.user_id and followed_id = 800
select (select max(n) from nums_t) m, count(*) from users
drop table nums_t
