-- a join that does not follow the shard key
select u.ctid from users u join orders o on o.note = u.full_name
-- a join that does not follow the shard key
select u.id from users u join orders o on o.note = u.full_name for update
-- an outer join or subquery that does not begin
select count(*) from (select id from users limit 7 for update) u
-- may write
select pg_advisory_lock(id) from users
-- changing the shard key
insert into users(id, handle, email, country) values (5, 'x', 'x', 'DE') on conflict (id) do update set id = 1005
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
-- COPY
copy users to '/tmp/users'
copy users (handle) from stdin
-- whose parts read what other parts of it may change
with u as (update users set balance = 1 where id < 3 or id = 1001 returning id) delete from users using u where u.id = users.id
-- with RECURSIVE
with recursive r(n) as (select 1 union all select n + 1 from r where n < 3), d as (delete from follows where user_id in (3, 1003) returning *) select (select count(*) from r), (select count(*) from d)
-- a temporary view
create temp view seen as select * from users where verified
-- MERGE on several shards
explain merge into carts c using (values (1::bigint, 2), (1001, 2)) v(u, p) on c.user_id = v.u and c.product_id = v.p when not matched then insert (user_id, product_id, quantity) values (v.u, v.p, 1)
