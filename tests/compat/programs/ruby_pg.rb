# Ruby's pg: synchronous and asynchronous queries, prepared statements, pipelines, single rows, COPY, large objects,
# notifications, cancellation, encodings.

require "pg"

$stdout.sync = true

def say(label, came)
  puts "#{label} => #{came.inspect}".gsub("\n", " ")
end

def attempt(label)
  say(label, yield)
rescue PG::Error => cause
  result = cause.respond_to?(:result) ? cause.result : nil
  state = result&.error_field(PG::Result::PG_DIAG_SQLSTATE)
  say(label, [cause.class, state, result ? result.error_field(PG::Result::PG_DIAG_MESSAGE_PRIMARY) : cause.message])
end

def shape(result)
  [result.cmd_status, result.cmd_tuples, result.fields, result.nfields.times.map { |n| result.ftype(n) }, result.values]
end

conn = PG.connect
puts "part => statements"
say("create", shape(conn.exec("create table kept (id int primary key, t text, n numeric, b bytea)")))
say("insert", shape(conn.exec_params("insert into kept values ($1, $2, $3, $4) returning id", [1, "it's", "1.50", { value: "\0\xff".b, format: 1 }])))
say("select", shape(conn.exec_params("select * from kept where id = $1", [1])))
say("binary", shape(conn.exec_params("select 7::int4", [], 1)))
say("several", shape(conn.exec("select 1; select 2; insert into kept (id) values (2)")))
conn.prepare("by id", "select t from kept where id = $1")
say("described", [conn.describe_prepared("by id").nparams, conn.describe_prepared("by id").paramtype(0)])
6.times { |n| say("prepared", shape(conn.exec_prepared("by id", [1 + n % 2]))) }
attempt("again") { conn.prepare("by id", "select 1") }
conn.exec('deallocate "by id"')
attempt("gone") { conn.exec_prepared("by id", [1]) }
attempt("unique") { conn.exec("insert into kept (id) values (1)") }
attempt("mistake") { conn.exec("selec") }
attempt("type") { conn.exec_params("select $1::int", ["x"]) }
say("empty", conn.exec("").result_status == PG::PGRES_EMPTY_QUERY)
conn.type_map_for_results = PG::BasicTypeMapForResults.new(conn)
say("typed", conn.exec("select 1, 2.5::float8, true, date '2024-02-29', array[1, 2]").values)
conn.type_map_for_results = PG::TypeMapAllStrings.new

puts "part => transactions"
say("block", conn.transaction { |inner| inner.exec("insert into kept (id) values (10)"); inner.transaction_status })
begin
  conn.transaction { |inner| inner.exec("insert into kept (id) values (11)"); raise "out" }
rescue RuntimeError
  say("rolled back", conn.exec("select count(*) from kept where id = 11").values)
end
attempt("failed") { conn.transaction { |inner| inner.exec("insert into kept (id) values (10)") } }
say("status", conn.transaction_status)

puts "part => rows"
conn.send_query("select n from generate_series(1, 4) n")
conn.set_single_row_mode
conn.get_result.stream_each { |row| say("row", row) }
while conn.get_result; end
say("each", conn.exec("select n, n * 2 as m from generate_series(1, 3) n").map(&:to_h))
sum = 0
conn.send_query("select n from generate_series(1, 20000) n")
conn.set_single_row_mode
conn.get_result.stream_each_row { |row| sum += row[0].to_i }
while conn.get_result; end
say("streamed", sum)
conn.exec("begin")
conn.exec("declare c cursor for select n from generate_series(1, 20) n")
say("cursor", [conn.exec("fetch 3 from c").column_values(0), conn.exec("fetch 2 from c").column_values(0)])
say("portal", conn.describe_portal("c").nfields)
conn.exec("commit")

puts "part => pipeline"
conn.enter_pipeline_mode
conn.send_query_params("select $1::int", [1])
conn.send_query_params("select 1 / $1::int", [0])
conn.send_query_params("select 'not run'", [])
conn.pipeline_sync
conn.send_query_params("select 'behind'", [])
conn.pipeline_sync
syncs = 0
while syncs < 2
  result = begin
    conn.get_result
  rescue PG::Error => cause
    say("error", cause.class)
    next
  end
  next unless result
  syncs += 1 if result.result_status == PG::PGRES_PIPELINE_SYNC
  say("result", [result.result_status, (result.values rescue nil)])
end
conn.exit_pipeline_mode
say("after", conn.exec("select 1").values)

puts "part => copy"
conn.exec("create table copied (id int primary key, t text)")
conn.copy_data("copy copied from stdin") { conn.put_copy_data("1\tone\n2\t\\N\n") }
conn.copy_data("copy copied from stdin", PG::TextEncoder::CopyRow.new) { conn.put_copy_data([3, "three"]) }
conn.copy_data("copy copied to stdout") { while (line = conn.get_copy_data); say("line", line); end }
attempt("twice") { conn.copy_data("copy copied from stdin") { conn.put_copy_data("1\tagain\n") } }
begin
  conn.copy_data("copy copied from stdin") { conn.put_copy_data("9\tx\n"); raise "changed its mind" }
rescue RuntimeError => cause
  say("given up", cause.message)
end
say("as before", conn.exec("select count(*) from copied").values)

puts "part => large objects"
conn.transaction do |inner|
  oid = inner.lo_creat
  fd = inner.lo_open(oid, PG::INV_READ | PG::INV_WRITE)
  say("write", inner.lo_write(fd, "a large object"))
  say("seek", inner.lo_lseek(fd, 2, PG::SEEK_SET))
  say("read", [inner.lo_read(fd, 5), inner.lo_tell(fd)])
  inner.lo_close(fd)
  say("unlink", inner.lo_unlink(oid))
end

puts "part => notifications"
other = PG.connect
conn.exec("listen news")
other.exec("notify news, 'from another'")
conn.wait_for_notify(10) { |channel, pid, payload| say("heard", [channel, payload, pid == other.backend_pid]) }
conn.exec("notify news, 'own'")
conn.wait_for_notify(10) { |channel, pid, payload| say("own", [channel, payload, pid == conn.backend_pid]) }
conn.exec("unlisten *")
say("nothing", conn.notifies)
heard = []
conn.set_notice_processor { |message| heard << message }
conn.exec("do $$ begin raise notice 'of the server'; end $$")
say("notices", heard)
conn.send_query("select pg_sleep(30)")
sleep 0.5
say("cancel", conn.cancel)
attempt("cancelled") { conn.get_last_result }
say("goes on", conn.exec("select 'yes'").values)

puts "part => session"
conn.set_client_encoding("LATIN1")
say("encoding", [conn.get_client_encoding, conn.exec("show client_encoding").values])
conn.set_client_encoding("UTF8")
conn.exec("set application_name = 'of the trial'")
say("reported", conn.parameter_status("application_name"))
conn.exec("create temporary table mine (id int); insert into mine values (1)")
say("temporary", conn.exec("select count(*) from mine").values)
conn.exec("discard all")
attempt("gone") { conn.exec("select * from mine") }
conn.reset
say("reset", [conn.status, conn.exec("show application_name").values])
say("pings", PG::Connection.ping(conn.conninfo_hash.slice(:host, :port).compact))
options = PG.connect(options: "-c work_mem=8MB -c search_path=pg_catalog", application_name: "named")
say("options", options.exec("select current_setting('work_mem'), current_setting('search_path'), current_setting('application_name')").values)
[options, other, conn].each(&:close)
