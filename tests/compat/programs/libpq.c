/* libpq: synchronous, pipeline and single-row modes, COPY, notices, notifications, large objects, cancel. Prints what
 * came of each step as "label => outcome". Its only argument is a connection string. */

#include <libpq-fe.h>
#include <libpq/libpq-fs.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static PGconn *conn;

static void say(const char *label, const char *came) {
    printf("%s => ", label);
    for (; *came; came++)
        putchar(*came == '\n' ? ' ' : *came);
    putchar('\n');
}

static void say_number(const char *label, long number) {
    char text[32];
    snprintf(text, sizeof text, "%ld", number);
    say(label, text);
}

static void tell(const char *label, PGresult *result) {
    char text[4096];
    int length = snprintf(text, sizeof text, "%s [%s]", PQresStatus(PQresultStatus(result)), PQcmdStatus(result));
    const char *code = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    if (code)
        length += snprintf(text + length, sizeof text - length, " %s %s at %s", code,
                           PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY),
                           PQresultErrorField(result, PG_DIAG_STATEMENT_POSITION)
                               ? PQresultErrorField(result, PG_DIAG_STATEMENT_POSITION) : "-");
    for (int column = 0; column < PQnfields(result); column++)
        length += snprintf(text + length, sizeof text - length, " %s:%u:%d:%d", PQfname(result, column),
                           PQftype(result, column), PQfmod(result, column), PQfformat(result, column));
    for (int row = 0; row < PQntuples(result) && row < 5; row++)
        for (int column = 0; column < PQnfields(result); column++)
            length += snprintf(text + length, sizeof text - length, " %s",
                               PQgetisnull(result, row, column) ? "NULL"
                               : PQfformat(result, column) ? "(binary)" : PQgetvalue(result, row, column));
    length += snprintf(text + length, sizeof text - length, " rows %d", PQntuples(result));
    for (int parameter = 0; parameter < PQnparams(result); parameter++)
        length += snprintf(text + length, sizeof text - length, " $%u", PQparamtype(result, parameter));
    say(label, text);
    PQclear(result);
}

static void run(const char *label, const char *sql) { tell(label, PQexec(conn, sql)); }

static void on_notice(void *where, const PGresult *result) {
    char text[512];
    snprintf(text, sizeof text, "%s %s %s", PQresultErrorField(result, PG_DIAG_SEVERITY),
             PQresultErrorField(result, PG_DIAG_SQLSTATE), PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
    say("notice", text);
    (void)where;
}

/* All results up to the one that ends the pipeline, or the query. */
static void drain(const char *label) {
    for (int empty = 0; empty < 2;) {
        PGresult *result = PQgetResult(conn);
        if (!result) {
            empty++;
            continue;
        }
        empty = 0;
        ExecStatusType status = PQresultStatus(result);
        tell(label, result);
        if (status == PGRES_PIPELINE_SYNC)
            return;
    }
}

static void plain(void) {
    say("part", "plain");
    run("create", "create table items (id int primary key, name text, price numeric(8, 2), raw bytea)");
    run("insert", "insert into items values (1, 'one', 1.5, '\\x00ff'), (2, null, null, null) returning id, name");
    run("select", "select * from items order by id");
    run("several", "select 1 as a; select 2 as b; insert into items values (3, 'three', 3, null)");
    run("several with an error", "insert into items values (4, 'x', 1, null); select 1/0; select 2");
    run("nothing of it stayed", "select count(*) from items");
    run("empty", "");
    run("a mistake", "selec 1");
    run("unknown column", "select nothing from items");
    run("begin", "begin");
    say_number("status", PQtransactionStatus(conn));
    run("savepoint", "savepoint s");
    run("fails", "insert into items values (1)");
    say_number("status", PQtransactionStatus(conn));
    run("back", "rollback to s");
    run("commit", "commit");
    say_number("status", PQtransactionStatus(conn));
    run("notice", "do $$ begin raise notice 'heard'; raise warning 'and this'; end $$");
    run("set", "set application_name = 'libpq trial'; set datestyle = 'german'");
    run("show", "select current_setting('application_name'), date '2024-02-03'");
    say("reported", PQparameterStatus(conn, "DateStyle"));
    say("name reported", PQparameterStatus(conn, "application_name"));
    run("reset", "reset all");
    say("reported", PQparameterStatus(conn, "DateStyle"));
    say("standby", PQparameterStatus(conn, "in_hot_standby") ? PQparameterStatus(conn, "in_hot_standby") : "nothing");
}

static void extended(void) {
    say("part", "extended");
    const char *values[] = {"1", "2"};
    tell("parameters", PQexecParams(conn, "select $1::int + $2::int as sum", 2, NULL, values, NULL, NULL, 0));
    tell("binary", PQexecParams(conn, "select $1::int, name from items where id = $2", 2, NULL, values, NULL, NULL, 1));
    tell("prepare", PQprepare(conn, "by id", "select name, price from items where id = $1", 1, NULL));
    tell("describe", PQdescribePrepared(conn, "by id"));
    tell("execute", PQexecPrepared(conn, "by id", 1, values, NULL, NULL, 0));
    tell("execute another", PQexecPrepared(conn, "by id", 1, values + 1, NULL, NULL, 0));
    tell("prepare again", PQprepare(conn, "by id", "select 1", 0, NULL));
    tell("bad parameter", PQexecParams(conn, "select $1::int", 1, NULL, (const char *[]){"x"}, NULL, NULL, 0));
    tell("too few", PQexecPrepared(conn, "by id", 0, NULL, NULL, NULL, 0));
    run("forget", "deallocate \"by id\"");
    tell("forgotten", PQexecPrepared(conn, "by id", 1, values, NULL, NULL, 0));
    run("begin", "begin");
    run("cursor", "declare c scroll cursor for select id from items order by id");
    run("fetch", "fetch 2 from c");
    run("back", "move backward all in c");
    run("fetch", "fetch 1 from c");
    tell("describe portal", PQdescribePortal(conn, "c"));
    run("commit", "commit");
    run("fetch", "fetch 1 from c");
}

static void pipeline(void) {
    say("part", "pipeline");
    const char *one[] = {"1"}, *bad[] = {"0"};
    say_number("enter", PQenterPipelineMode(conn));
    PQsendQueryParams(conn, "select $1::int as first", 1, NULL, one, NULL, NULL, 0);
    PQsendQueryParams(conn, "insert into items values (10 + $1::int, 'p', 1, null) returning id", 1, NULL, one, NULL, NULL, 0);
    PQsendPrepare(conn, "kept", "select id from items where id > $1 order by id", 1, NULL);
    PQsendDescribePrepared(conn, "kept");
    PQsendQueryPrepared(conn, "kept", 1, one, NULL, NULL, 0);
    PQpipelineSync(conn);
    drain("first");
    PQsendQueryParams(conn, "insert into items values (20, 'q', 1, null)", 0, NULL, NULL, NULL, NULL, 0);
    PQsendQueryParams(conn, "select 1 / $1::int", 1, NULL, bad, NULL, NULL, 0);
    PQsendQueryParams(conn, "select 'not run'", 0, NULL, NULL, NULL, NULL, 0);
    PQpipelineSync(conn);
    PQsendQueryParams(conn, "select count(*) from items where id = 20", 0, NULL, NULL, NULL, NULL, 0);
    PQpipelineSync(conn);
    drain("with an error");
    drain("behind it");
    PQsendQueryParams(conn, "select 'flushed'", 0, NULL, NULL, NULL, NULL, 0);
    PQsendFlushRequest(conn);
    PQflush(conn);
    tell("flushed", PQgetResult(conn));
    PQclear(PQgetResult(conn));
    PQsendQueryParams(conn, "select 'after the flush'", 0, NULL, NULL, NULL, NULL, 0);
    PQpipelineSync(conn);
    drain("after");
    PQsendQueryParams(conn, "begin", 0, NULL, NULL, NULL, NULL, 0);
    PQsendQueryParams(conn, "insert into items values (30, 'r', 1, null)", 0, NULL, NULL, NULL, NULL, 0);
    PQpipelineSync(conn);
    drain("begun");
    say_number("status", PQtransactionStatus(conn));
    PQsendQueryParams(conn, "rollback", 0, NULL, NULL, NULL, NULL, 0);
    PQpipelineSync(conn);
    drain("rolled back");
    for (int number = 0; number < 2000; number++)
        PQsendQueryParams(conn, "select repeat('x', 1000)", 0, NULL, NULL, NULL, NULL, 0);
    PQpipelineSync(conn);
    long rows = 0;
    for (;;) {
        PGresult *result = PQgetResult(conn);
        if (!result)
            continue;
        rows += PQntuples(result);
        ExecStatusType status = PQresultStatus(result);
        PQclear(result);
        if (status == PGRES_PIPELINE_SYNC)
            break;
    }
    say_number("two thousand", rows);
    say_number("leave", PQexitPipelineMode(conn));
    run("after", "select 'plain again'");
}

static void single_row(void) {
    say("part", "single row");
    PQsendQuery(conn, "select n, repeat('y', 10) from generate_series(1, 5) n; select 'second'");
    say_number("mode", PQsetSingleRowMode(conn));
    drain("row");
    PQsendQuery(conn, "select 10 / (3 - n) from generate_series(1, 5) n");
    PQsetSingleRowMode(conn);
    drain("up to an error");
    PQsendQuery(conn, "select n from generate_series(1, 200000) n");
    PQsetSingleRowMode(conn);
    long sum = 0;
    for (PGresult *result; (result = PQgetResult(conn)); PQclear(result))
        sum += PQntuples(result) ? atol(PQgetvalue(result, 0, 0)) : 0;
    say_number("many", sum);
}

static void copying(void) {
    say("part", "copy");
    run("table", "create table copied (id int primary key, name text)");
    run("in", "copy copied from stdin");
    say_number("put", PQputCopyData(conn, "1\tone\n2\t\\N\n", 11));
    say_number("end", PQputCopyEnd(conn, NULL));
    drain("ended");
    run("in", "copy copied from stdin");
    PQputCopyData(conn, "3\tthree\n", 8);
    say_number("give up", PQputCopyEnd(conn, "the client has changed its mind"));
    drain("given up");
    run("in", "copy copied from stdin");
    PQputCopyData(conn, "1\ttwice\n", 8);
    PQputCopyEnd(conn, NULL);
    drain("twice");
    run("in", "copy copied from stdin (format csv, header)");
    PQputCopyData(conn, "id,name\n7,\"a \"\"quoted\"\" one\"\n", 28);
    PQputCopyEnd(conn, NULL);
    drain("csv");
    run("out", "copy copied to stdout");
    char *line;
    int length;
    while ((length = PQgetCopyData(conn, &line, 0)) > 0) {
        say("line", line);
        PQfreemem(line);
    }
    say_number("end", length);
    drain("ended");
    run("out of a query", "copy (select n from generate_series(1, 3) n) to stdout (format binary)");
    long bytes = 0;
    while ((length = PQgetCopyData(conn, &line, 0)) > 0) {
        bytes += length;
        PQfreemem(line);
    }
    say_number("bytes", bytes);
    drain("ended");
    run("a query where copy was meant", "select 1");
}

static void large_objects(void) {
    say("part", "large objects");
    run("begin", "begin");
    Oid oid = lo_creat(conn, INV_READ | INV_WRITE);
    say_number("made", oid != 0);
    int fd = lo_open(conn, oid, INV_READ | INV_WRITE);
    say_number("open", fd);
    say_number("write", lo_write(conn, fd, "hello large world", 17));
    say_number("seek", lo_lseek(conn, fd, 6, SEEK_SET));
    char text[32] = "";
    say_number("read", lo_read(conn, fd, text, 5));
    say("text", text);
    say_number("tell", lo_tell64(conn, fd));
    say_number("truncate", lo_truncate(conn, fd, 5));
    say_number("close", lo_close(conn, fd));
    run("commit", "commit");
    run("begin", "begin");
    fd = lo_open(conn, oid, INV_READ);
    say_number("read", lo_read(conn, fd, text, sizeof text));
    say_number("no such one", lo_open(conn, 1, INV_READ));
    run("commit", "rollback");
    say_number("unlink", lo_unlink(conn, oid));
}

static void notifications(const char *way) {
    say("part", "notifications");
    run("listen", "listen news");
    run("notify", "notify news, 'to myself'");
    PGnotify *note = PQnotifies(conn);
    say("own", note ? note->extra : "nothing");
    say_number("from myself", note && note->be_pid == PQbackendPID(conn));
    PQfreemem(note);
    PGconn *other = PQconnectdb(way);
    PQclear(PQexec(other, "begin"));
    PQclear(PQexec(other, "select pg_notify('news', 'from ' || 'another')"));
    PQclear(PQexec(other, "commit"));
    struct pollfd socket = {.fd = PQsocket(conn), .events = POLLIN};
    while (!(note = PQnotifies(conn)) && poll(&socket, 1, 10000) > 0)
        PQconsumeInput(conn);
    say("other", note ? note->extra : "nothing");
    say_number("from it", note && note->be_pid == PQbackendPID(other));
    PQfreemem(note);
    PQclear(PQexec(other, "begin; notify news, 'never'; rollback"));
    run("unlisten", "unlisten *");
    PQclear(PQexec(other, "notify news, 'unheard'"));
    run("after", "select 1");
    say_number("nothing more", PQnotifies(conn) == NULL);
    PQfinish(other);
}

static void cancelling(void) {
    say("part", "cancel");
    char error[256] = "";
    PGcancel *cancel = PQgetCancel(conn);
    PQsendQuery(conn, "select pg_sleep(30)");
    /* Until it lands: the first may come before the statement has begun. */
    struct pollfd socket = {.fd = PQsocket(conn), .events = POLLIN};
    do
        PQcancel(cancel, error, sizeof error);
    while (poll(&socket, 1, 100) == 0);
    drain("cancelled");
    PQfreeCancel(cancel);
    run("after", "select 'goes on'");
}

static void sessions(void) {
    say("part", "session");
    run("temporary", "create temporary table mine (id int)");
    run("insert", "insert into mine select generate_series(1, 3)");
    run("count", "select count(*) from mine");
    run("lock", "select pg_advisory_lock(42)");
    run("unlock", "select pg_advisory_unlock(42)");
    run("unlock again", "select pg_advisory_unlock(42)");
    run("held", "declare h cursor with hold for select generate_series(1, 4)");
    run("fetch", "fetch 3 from h");
    run("close", "close h");
    run("prepare", "prepare plan (int) as select $1 * 2");
    run("execute", "execute plan(21)");
    run("deallocate", "deallocate plan");
    run("sequence", "create sequence counter; select nextval('counter')");
    run("current", "select currval('counter')");
    run("discard", "discard all");
    run("gone", "select count(*) from mine");
    PQreset(conn);
    say_number("connected anew", PQstatus(conn));
    run("after", "select 1");
    say_number("protocol", PQprotocolVersion(conn));
    say("encoding", PQparameterStatus(conn, "client_encoding"));
    say_number("latin", PQsetClientEncoding(conn, "LATIN1"));
    say("encoding", PQparameterStatus(conn, "client_encoding"));
    run("bytes", "select octet_length(convert_to('\xe4', 'UTF8'))");
    say_number("utf", PQsetClientEncoding(conn, "UTF8"));
    run("drop", "drop table items, copied; drop sequence counter");
}

int main(int count, char **arguments) {
    if (count != 2)
        return 2;
    conn = PQconnectdb(arguments[1]);
    if (PQstatus(conn) != CONNECTION_OK) {
        fprintf(stderr, "%s", PQerrorMessage(conn));
        return 1;
    }
    PQsetNoticeReceiver(conn, on_notice, NULL);
    plain();
    extended();
    pipeline();
    single_row();
    copying();
    large_objects();
    notifications(arguments[1]);
    cancelling();
    sessions();
    PQfinish(conn);
    return 0;
}
