-- a join that does not follow the shard key
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
-- an outer join or subquery that does not begin with a sharded table
select p.name, i.line from products p left join order_items i on i.product_id = p.id
select p.name, (select count(*) from order_items i where i.product_id = p.id) from products p
select (select count(*) from users)
select * from (select * from orders order by total limit 3) o
with o as (select * from orders) select count(*) from o
select u.id from users u full join carts c on c.user_id = u.id
-- an aggregate in a subquery
select (select sum(u.balance)) from users u
-- UNION, INTERSECT or EXCEPT
select id from users union select id from users
-- a window function
select id, row_number() over (order by id) from users
select id from users order by rank() over (order by balance), id
-- an expression over aggregates
select count(*) + 1 from users
select coalesce(sum(balance), 0) from users
select 1 from users order by count(*)
select max(id) - min(id) from users
-- HAVING
select country, count(*) from users group by country having count(*) > 5
-- an aggregate of DISTINCT values
select count(distinct country) from users
-- aggregate
select string_agg(handle, ',') from users
select array_agg(id) from users
select stddev(balance) from users
select avg(balance) filter (where verified) from users
-- grouping sets
select country, count(*) from users group by rollup (country)
-- DISTINCT ON
select distinct on (country) country, id from users order by country, id
-- GROUP BY a name that an input column may have
select lower(handle) as handle, count(*) from users group by handle
-- ORDER BY
select country from users group by country order by count(*), country
select *, balance * 2 as twice from users order by twice
select id, settings from users order by settings, id
select id, interests from users order by interests, id
-- SELECT DISTINCT
select distinct settings from users
-- WITH TIES
select id from users order by balance fetch first 3 rows with ties
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
-- without VALUES
insert into orders select 5, 9, 'b5d3cd54-0f37-4b54-8a47-4a0b0a0b0a0b', 'placed', 1
-- INSERT … SELECT
insert into carts select * from carts
-- shard is not known
insert into orders(id) values (1)
-- changing the shard key
update users set id = id + 1
insert into users(id, handle, email, country) values (5, 'x', 'x', 'DE') on conflict (id) do update set id = 1005
with u as (update users set id = 1099 where id = 5 returning id) select * from u
-- a write with
update users set balance = (select avg(balance) from users)
update users u set full_name = v.full_name from users v where v.handle = u.handle
update orders o set note = (select body from posts p where p.user_id = o.user_id limit 1)
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
copy users to stdout
copy (select * from users) to stdout
-- a cursor
declare c cursor for select * from users
