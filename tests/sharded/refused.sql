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
select nextval('nosuch') from users
select pg_advisory_lock(id) from users
-- SELECT INTO
select id into copied from users
-- CREATE TABLE AS
create table copied as select * from users
create temp table copied as select * from users
-- shard is not known
insert into orders(id) values (1)
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
-- written by MERGE or in WITH
with u as (update products set price = 1 returning id) select * from u
-- EXPLAIN
explain select * from users
-- COPY
copy users to stdout
-- a cursor
declare c cursor with hold for select * from users
