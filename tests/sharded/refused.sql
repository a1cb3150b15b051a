-- a join that does not follow the shard key
select u.ctid from users u join orders o on o.note = u.full_name
-- FOR UPDATE or FOR SHARE of the first rows by an order
select id from users order by id limit 3 for update
select id from users order by balance offset 2 for share skip locked
-- a join that does not follow the shard key
select u.id from users u join orders o on o.note = u.full_name for update
-- an outer join or subquery that does not begin
select count(*) from (select id from users limit 7 for update) u
-- may write
select pg_advisory_lock(id) from users
-- CREATE TABLE AS
create table from_users as select * from orders
create table from_users as select id as user_id, handle from users
create table from_users(user_id) as select id from users
create table from_users as select o.* from (select user_id from orders) o
create table from_users as (select * from orders) with data
create table from_users as table orders
create table from_users as select id from users union select id from orders
-- changing the shard key
insert into users(id, handle, email, country) values (5, 'x', 'x', 'DE') on conflict (id) do update set id = 1005
with u as (update users set id = 1099 where id = 5 returning id) select * from u
-- an UPDATE with FROM or WITH and RETURNING that changes the shard key
update posts p set user_id = 1001, id = 71 from users u where u.id = p.user_id and u.id = 2 and p.id = 1 returning p.id, u.handle
-- an UPDATE with a volatile function that changes the shard key
update posts set user_id = 1001 + (random() * 10)::int where user_id = 3
-- a new shard key or RETURNING over rows of several shards
update posts set user_id = (select max(id) - 1 from users), id = 72 where user_id = 3 and id = 1
-- an UPDATE of this form that changes the shard key
update orders set (user_id, id) = (1001, 70) where user_id = 2 and id = 1
-- an UPDATE to DEFAULT
update posts set user_id = 1001, likes = default where user_id = 3
-- several new shard keys
update posts p set user_id = u.id, id = 90 from users u where p.user_id = 14 and p.id = 2 and u.id in (4, 1004)
-- a function that may differ
update products set id = id + (random() * 0)::int + 100, created_at = now() where id = 10
-- a function that may differ
with u as (update products set created_at = now() returning id) select * from u
-- a default which may differ
with i as (insert into products(id, sku, category_id, name, price) values (70, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a70', 1, 'x', 1) returning id) select * from i
-- MERGE on several shards
merge into carts c using (values (1::bigint, 2, 1), (1001, 2, 1)) v(u, p, q) on c.user_id = v.u and c.product_id = v.p when not matched then insert (user_id, product_id, quantity) values (v.u, v.p, v.q)
merge into carts c using follows f on c.user_id = f.user_id and c.product_id = f.followed_id when not matched then insert (user_id, product_id, quantity) values (f.followed_id, 1, 1)
-- a statement that reads and writes several shards
with i as (insert into posts(user_id, id, public_id, body) values (5, 97, 'b5d3cd54-0f37-4b54-8a47-4a0b0a0b0a0b', 'x'), (1005, 97, 'b5d3cd54-0f37-4b54-8a47-4a0b0a0b0a0b', 'y') returning *) select * from i
with d as (delete from follows where user_id = 5 returning *) insert into posts(user_id, id, public_id, body) select user_id, 96, 'b5d3cd54-0f37-4b54-8a47-4a0b0a0b0a0b', 'x' from d
-- COPY
copy users to '/tmp/users'
copy users (handle) from stdin
