-- a join that does not follow the shard key
select u.ctid from users u join orders o on o.note = u.full_name
-- FOR UPDATE or FOR SHARE
select id from users for update
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
update users set id = id + 1
insert into users(id, handle, email, country) values (5, 'x', 'x', 'DE') on conflict (id) do update set id = 1005
with u as (update users set id = 1099 where id = 5 returning id) select * from u
-- a default which may differ
insert into products(id, sku, category_id, name, price) values (12, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12', 1, 'x', 1)
-- a function that may differ
update products set created_at = now()
update products set created_at = current_timestamp
-- LIMIT in a write
insert into categories select 30 + id, name, null, 's' || id from categories limit 2
-- written by MERGE or in WITH
with u as (update products set price = 1 returning id) select * from u
-- EXPLAIN
explain select * from users
-- COPY
copy users to '/tmp/users'
copy users (handle) from stdin
-- a cursor
declare c cursor with hold for select * from users
