-- What a user types into psql; the whole of its output is compared.
\set VERBOSITY verbose
\set ON_ERROR_STOP off
\pset null '~'
\d users
\d+ orders
\dt
\dt+ products
\di orders*
\dn
\df nothing
\l nothing
select id, handle, born, balance, verified, interests, settings from users where id = 1003;
select handle from users where id = 3 \gx
select id, born from users where id = 4 \gdesc
select id, country from users where id in (2, 1002) order by id \gset user_
\echo :user_id
select count(*), min(id), max(id), sum(balance), avg(balance) from users;
select country, count(*) from users group by country order by country;
select id from users order by balance desc, id limit 3 offset 1;
insert into kinds (user_id, id, body) values (500, 5, 'a'), (1500, 5, 'b'), (501, 5, null) returning user_id, body;
begin;
update kinds set body = 'c' where user_id = 500;
savepoint s;
update kinds set body = 'c' where user_id = 1500;
select user_id, body from kinds where id = 5 order by user_id;
rollback to s;
select 1/0;
select 1;
rollback to s;
commit;
select user_id, body from kinds where id = 5 order by user_id;
begin;
delete from kinds where user_id = 500;
selec;
commit;
select count(*) from kinds where id = 5;
\set ON_ERROR_ROLLBACK on
begin;
insert into kinds (user_id, id) values (502, 5);
insert into kinds (user_id, id) values (502, 5);
insert into kinds (user_id, id) values (1502, 5);
commit;
\unset ON_ERROR_ROLLBACK
\set AUTOCOMMIT off
insert into kinds (user_id, id) values (503, 5);
rollback;
select count(*) from kinds where id = 5;
commit;
\set AUTOCOMMIT on
\copy (select id, handle from users where id = 1004) to stdout with csv header
\copy (select id, handle from users where id = 4 /* pgweir: shard=0 */) to stdout
copy (select id, handle from users where id = 1004) to stdout;
set timezone to 'Asia/Tokyo';
show timezone;
select created_at from users where id = 1001;
reset timezone;
declare c cursor for select 1;
begin;
declare c cursor for select id from orders where user_id = 3 order by id;
fetch 2 from c;
move 1 in c;
fetch all from c;
close c;
commit;
select * from nowhere;
select nonsense from users where id = 1;
selec;
insert into kinds (user_id, id) values (500, null);
insert into kinds (user_id, id, small) values (500, 6, 70000);
select 'x'::int;
;
select 1 as a \; select 2 as b;
explain (costs off) select handle from users where id = 1;
delete from kinds where id = 5;
\dt nothing
