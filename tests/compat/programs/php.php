<?php
// PHP's two clients: pgsql, function by function of libpq, and PDO, which prepares every statement on the server.

function say(string $label, mixed $came): void
{
    echo $label, " => ", str_replace("\n", " ", json_encode($came, JSON_INVALID_UTF8_SUBSTITUTE | JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES)), "\n";
}

function attempt(string $label, callable $work): void
{
    try {
        say($label, $work());
    } catch (Throwable $cause) {
        $told = $cause instanceof PDOException ? [$cause->errorInfo[0], $cause->errorInfo[2]] : $cause->getMessage();
        say($label, [get_class($cause), $told]);
    }
}

set_error_handler(fn ($number, $message) => error_reporting() & $number ? say("warning", $message) : true);
$text = sprintf("host=%s port=%s user=%s password=%s dbname=%s", ...array_map("getenv", ["PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE"]));

function rows(mixed $result): mixed
{
    return $result ? pg_fetch_all($result) : $result;
}

echo "part => pgsql\n";
$db = pg_connect("$text options='-c geqo=off -c statement_timeout=60s'");
say("geqo", rows(pg_query($db, "show geqo")));
say("encoding", [pg_client_encoding($db), pg_parameter_status($db, "standard_conforming_strings"), pg_parameter_status($db, "integer_datetimes")]);
say("made", pg_affected_rows(pg_query($db, "drop table if exists things; create table things (id serial primary key, name text not null, price numeric(8,2), data bytea, at timestamptz)")));
say("inserted", rows(pg_query_params($db, "insert into things (name, price, data) values ($1, $2, $3) returning id", ["a", 1.5, pg_escape_bytea($db, "\0\xff")])));
say("null", rows(pg_query_params($db, "select $1::int is null as n, $2::text as t", [null, "ä€"])));
say("prepared", pg_result_status(pg_prepare($db, "named", "select id, name from things where id = $1")));
for ($n = 0; $n < 3; $n++) {
    say("executed", rows(pg_execute($db, "named", [1])));
}
say("by sql", rows(pg_query($db, "execute named(1)")));
say("listed", rows(pg_query($db, "select name, statement, parameter_types from pg_prepared_statements order by name")));
say("again", @pg_prepare($db, "named", "select 1"));
say("why", pg_last_error($db));
$result = pg_query($db, "select id, name, price, data from things");
say("fields", array_map(fn ($n) => [pg_field_name($result, $n), pg_field_type($result, $n), pg_field_size($result, $n), pg_field_table($result, $n)], [0, 1, 2, 3]));
say("bytes", bin2hex(pg_unescape_bytea(pg_fetch_result($result, 0, "data"))));
say("several", pg_fetch_all(pg_query($db, "select 1 as one; select 2 as two")));
$failed = pg_send_query($db, "insert into things (name) values (null)") ? pg_get_result($db) : null;
say("error", array_map(fn ($field) => pg_result_error_field($failed, $field), [PGSQL_DIAG_SQLSTATE, PGSQL_DIAG_SEVERITY, PGSQL_DIAG_TABLE_NAME, PGSQL_DIAG_COLUMN_NAME, PGSQL_DIAG_MESSAGE_DETAIL === null ? 0 : PGSQL_DIAG_MESSAGE_PRIMARY]));
while (pg_get_result($db));
pg_send_query($db, "select 1; select 2 as b; select 1/0; select 3");
while ($one = pg_get_result($db)) {
    say("one of many", [pg_result_status($one), rows($one), pg_result_error_field($one, PGSQL_DIAG_SQLSTATE)]);
}
pg_send_query_params($db, "select $1::int + 1 as n", [41]);
say("busy", [pg_connection_busy($db) || true, rows(pg_get_result($db))]);
pg_send_prepare($db, "later", "select $1::text as t");
pg_get_result($db);
pg_send_execute($db, "later", ["x"]);
say("later", rows(pg_get_result($db)));
while (pg_get_result($db));
pg_query($db, "do $$ begin raise notice 'hello %', 1; raise warning 'careful'; end $$");
say("notices", pg_last_notice($db, PGSQL_NOTICE_ALL));
say("copied", pg_copy_from($db, "things", ["7\tseven\t7.00\t\\N\t\\N\n", "8\teight\t\\N\t\\N\t\\N\n"]));
say("copied out", pg_copy_to($db, "things", "|"));
pg_query($db, "copy things (id, name) from stdin");
pg_put_line($db, "9\tnine\n");
pg_put_line($db, "\\.\n");
say("by lines", [pg_end_copy($db), rows(pg_query($db, "select count(*) from things"))]);
pg_query($db, "copy things (id, name) from stdin");
pg_put_line($db, "x\tnine\n");
pg_put_line($db, "\\.\n");
say("wrong lines", [@pg_end_copy($db), preg_replace("/\n.*/s", "", pg_last_error($db))]);
say("status", pg_transaction_status($db));
pg_query($db, "begin");
say("in a block", pg_transaction_status($db));
@pg_query($db, "select nope");
say("failed", [pg_transaction_status($db), pg_last_error($db)]);
pg_query($db, "rollback");
say("helpers", [pg_insert($db, "things", ["id" => 20, "name" => "it's"]) !== false, pg_update($db, "things", ["name" => "new"], ["id" => 20]), pg_select($db, "things", ["id" => 20]), pg_delete($db, "things", ["id" => 20])]);
say("described", array_map(fn ($column) => [$column["type"], $column["not null"], $column["has default"]], pg_meta_data($db, "things")));
pg_query($db, "begin");
$oid = pg_lo_create($db);
$object = pg_lo_open($db, $oid, "w");
say("large", [pg_lo_write($object, "some text"), pg_lo_seek($object, 5), pg_lo_tell($object), pg_lo_read($object, 10), pg_lo_truncate($object, 4), pg_lo_close($object)]);
say("unlinked", pg_lo_unlink($db, $oid));
pg_query($db, "commit");
pg_query($db, "listen shop");
pg_query($db, "notify shop, 'open'");
for ($n = 0; $n < 100 && !($heard = pg_get_notify($db, PGSQL_ASSOC)); $n++) {
    usleep(20000);
}
say("heard", [$heard["message"], $heard["payload"], $heard["pid"] === pg_get_pid($db)]);
pg_query($db, "unlisten *");
pg_send_query($db, "select pg_sleep(5)");
say("cancelled", [pg_cancel_query($db), rows(pg_query($db, "select 1 as on_it_goes"))]);
say("escaped", [pg_escape_literal($db, "it's \\"), pg_escape_identifier($db, 'a"b'), pg_escape_string($db, "x'y")]);
say("reset", [pg_ping($db), pg_connection_reset($db), rows(pg_query($db, "select count(*) from pg_prepared_statements"))]);
say("latin", [pg_set_client_encoding($db, "LATIN1"), bin2hex(pg_fetch_result(pg_query($db, "select chr(228)"), 0, 0)), pg_fetch_result(pg_query($db, "select length('\xe4')"), 0, 0), pg_client_encoding($db)]);
pg_close($db);
say("refused", @pg_connect("$text application_name=x options='-c nope=1'") === false);

echo "part => PDO\n";
$dsn = sprintf("pgsql:host=%s;port=%s;dbname=%s", getenv("PGHOST"), getenv("PGPORT"), getenv("PGDATABASE"));
$open = fn (array $options = []) => new PDO($dsn, getenv("PGUSER"), getenv("PGPASSWORD"), $options + [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION, PDO::ATTR_DEFAULT_FETCH_MODE => PDO::FETCH_ASSOC]);
$db = $open();
say("attributes", [$db->getAttribute(PDO::ATTR_DRIVER_NAME), $db->getAttribute(PDO::ATTR_CONNECTION_STATUS) !== ""]);
say("exec", $db->exec("drop table if exists pdo_things; create table pdo_things (id serial primary key, name text, flag boolean, data bytea)"));
$insert = $db->prepare("insert into pdo_things (name, flag, data) values (:name, :flag, :data)");
foreach ([["a", true], ["b", false], ["c", null]] as [$name, $flag]) {
    $insert->bindValue("name", $name);
    $insert->bindValue("flag", $flag, $flag === null ? PDO::PARAM_NULL : PDO::PARAM_BOOL);
    $insert->bindValue("data", "\0" . $name, PDO::PARAM_LOB);
    $insert->execute();
    say("inserted", [$insert->rowCount(), $db->lastInsertId()]);
}
$select = $db->prepare("select id, name, flag, data from pdo_things where id >= ? order by id");
for ($n = 1; $n <= 3; $n++) {
    $select->execute([$n]);
    say("selected", array_map(fn ($row) => [$row["id"], $row["name"], $row["flag"], bin2hex(stream_get_contents($row["data"]))], $select->fetchAll()));
}
say("columns", array_map(fn ($n) => array_intersect_key($select->getColumnMeta($n), ["native_type" => 1, "name" => 1, "table" => 1]), [0, 1, 2]));
say("query", $db->query("select count(*) from pdo_things")->fetchColumn());
attempt("twice", fn () => $db->exec("insert into pdo_things (id) values (1)"));
attempt("syntax", fn () => $db->prepare("selec ?")->execute([1]));
attempt("wrong value", fn () => $db->prepare("select ?::int")->execute(["x"]));
$db->beginTransaction();
$db->exec("delete from pdo_things");
say("within", [$db->inTransaction(), $db->query("select count(*) from pdo_things")->fetchColumn()]);
$db->rollBack();
say("after", [$db->inTransaction(), $db->query("select count(*) from pdo_things")->fetchColumn()]);
attempt("failed block", function () use ($db) {
    $db->beginTransaction();
    try {
        $db->query("select 1/0");
    } catch (PDOException) {
        return $db->query("select 1")->fetchColumn();
    } finally {
        $db->rollBack();
    }
});
$scroll = $db->prepare("select id from pdo_things order by id", [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
$db->beginTransaction();
$scroll->execute();
say("scrolled", [$scroll->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_LAST), $scroll->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_PRIOR), $scroll->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_ABS, 1)]);
$scroll->closeCursor();
$db->commit();
say("copied", [$db->pgsqlCopyFromArray("pdo_things", ["10|ten", "11|eleven"], "|", "\\N", "id, name"), $db->pgsqlCopyToArray("pdo_things", "|", "-", "id, name")]);
attempt("copied wrongly", fn () => $db->pgsqlCopyFromArray("pdo_things", ["x|ten"], "|", "\\N", "id, name"));
$db->beginTransaction();
$oid = $db->pgsqlLOBCreate();
$stream = $db->pgsqlLOBOpen($oid, "w+");
fwrite($stream, "large");
rewind($stream);
say("large", [fread($stream, 100), $db->pgsqlLOBUnlink($oid)]);
unset($stream);
$db->rollBack();
$db->exec("listen pdo");
$db->exec("notify pdo, 'x'");
$heard = $db->pgsqlGetNotify(PDO::FETCH_ASSOC, 2000);
say("heard", [$heard["message"], $heard["payload"], $heard["pid"] === $db->pgsqlGetPid()]);
$plain = $open([PDO::PGSQL_ATTR_DISABLE_PREPARES => true]);
$once = $plain->prepare("select name from pdo_things where id = ?");
$once->execute([1]);
say("not prepared", [$once->fetchColumn(), $plain->query("select count(*) from pg_prepared_statements")->fetchColumn()]);
$emulated = $open([PDO::ATTR_EMULATE_PREPARES => true]);
$once = $emulated->prepare("select name, ? as quoted from pdo_things where id = ?");
$once->execute(["it's \\", 2]);
say("emulated", $once->fetchAll());
$kept = $open([PDO::ATTR_PERSISTENT => true]);
say("persistent", $kept->query("select 1")->fetchColumn());
$db->exec("alter table pdo_things drop column flag");
attempt("other columns", function () use ($db) {
    $again = $db->prepare("select * from pdo_things where id = ?");
    $again->execute([1]);
    return array_keys($again->fetch());
});
$db->exec("set search_path to pg_catalog");
attempt("other path", fn () => $db->query("select count(*) from pdo_things")->fetchColumn());
$db->exec("drop table public.pdo_things, public.things");
