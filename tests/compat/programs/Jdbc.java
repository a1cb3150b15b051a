// pgjdbc with its defaults (prepareThreshold 5, extended protocol), and with its other ways: simple queries, binary
// always, autosave, cursors by fetch size, rewritten batches. Prints "label => outcome".

import java.nio.charset.StandardCharsets;
import java.sql.*;
import java.util.*;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyManager;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;

public class Jdbc {
    interface Work { Object now() throws Exception; }

    static String url;

    static void say(String label, Object came) {
        System.out.println(label + " => " + String.valueOf(came).replace("\n", " "));
    }

    static void attempt(String label, Work work) {
        try {
            say(label, work.now());
        } catch (BatchUpdateException cause) {
            say(label, "batch " + Arrays.toString(cause.getUpdateCounts()) + " " + cause.getSQLState());
        } catch (SQLException cause) {
            say(label, cause.getSQLState() + " " + cause.getMessage());
        } catch (Exception cause) {
            say(label, cause.getClass() + " " + cause.getMessage());
        }
    }

    static List<String> rows(ResultSet result) throws SQLException {
        List<String> rows = new ArrayList<>();
        int columns = result.getMetaData().getColumnCount();
        while (result.next()) {
            StringBuilder row = new StringBuilder();
            for (int column = 1; column <= columns; column++) row.append(column > 1 ? "|" : "").append(result.getString(column));
            rows.add(row.toString());
        }
        return rows;
    }

    static List<String> query(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) { return rows(statement.executeQuery(sql)); }
    }

    static int update(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) { return statement.executeUpdate(sql); }
    }

    static Connection connect(String more) throws SQLException {
        return DriverManager.getConnection(url + more);
    }

    static void statements(Connection connection) throws Exception {
        say("part", "statements");
        update(connection, "create table kept (id int primary key, n numeric, t text, b bytea, at timestamptz, u uuid, a int[], j jsonb, f float8, ok boolean)");
        try (PreparedStatement insert = connection.prepareStatement("insert into kept values (?, ?, ?, ?, ?, ?, ?, ?::jsonb, ?, ?)")) {
            for (int id = 1; id <= 8; id++) {
                insert.setInt(1, id);
                insert.setBigDecimal(2, new java.math.BigDecimal(id + ".50"));
                insert.setString(3, id % 2 == 0 ? null : "text " + id);
                insert.setBytes(4, new byte[] {0, (byte) id});
                insert.setObject(5, java.time.OffsetDateTime.parse("2024-02-29T12:00:00Z"));
                insert.setObject(6, new UUID(0, id));
                insert.setArray(7, connection.createArrayOf("int4", new Integer[] {id, null}));
                insert.setString(8, "{\"id\": " + id + "}");
                insert.setDouble(9, id / 10.0);
                insert.setBoolean(10, id % 3 == 0);
                say("insert", insert.executeUpdate());
            }
        }
        try (PreparedStatement select = connection.prepareStatement("select * from kept where id = ?")) {
            ResultSetMetaData described = select.getMetaData();
            for (int column = 1; column <= described.getColumnCount(); column++) say("column", described.getColumnName(column) + " " + described.getColumnTypeName(column));
            for (int time = 1; time <= 12; time++) {
                select.setInt(1, 1 + time % 8);
                say("by id", rows(select.executeQuery()));
            }
        }
        try (PreparedStatement returning = connection.prepareStatement("insert into kept (id) values (?)", Statement.RETURN_GENERATED_KEYS)) {
            returning.setInt(1, 50);
            returning.executeUpdate();
            say("keys", rows(returning.getGeneratedKeys()));
        }
        try (Statement statement = connection.createStatement()) {
            boolean more = statement.execute("select 1 as a; update kept set f = 0 where id < 3; select 2 as b");
            for (int count = 0; more || statement.getUpdateCount() != -1; more = statement.getMoreResults()) {
                say("several", more ? rows(statement.getResultSet()) : statement.getUpdateCount());
            }
        }
        try (PreparedStatement batch = connection.prepareStatement("insert into kept (id, t) values (?, ?)")) {
            for (int id = 100; id < 110; id++) {
                batch.setInt(1, id);
                batch.setString(2, "batch");
                batch.addBatch();
            }
            say("batch", Arrays.toString(batch.executeBatch()));
            batch.setInt(1, 200); batch.setString(2, "x"); batch.addBatch();
            batch.setInt(1, 100); batch.setString(2, "x"); batch.addBatch();
            batch.setInt(1, 201); batch.setString(2, "x"); batch.addBatch();
            attempt("batch with an error", () -> Arrays.toString(batch.executeBatch()));
        }
        say("after it", query(connection, "select id from kept where id >= 200 order by id"));
        attempt("unique", () -> update(connection, "insert into kept (id) values (1)"));
        attempt("mistake", () -> query(connection, "selec"));
        attempt("type", () -> {
            try (PreparedStatement bad = connection.prepareStatement("select ?::int")) { bad.setString(1, "x"); return rows(bad.executeQuery()); }
        });
        try (CallableStatement call = connection.prepareCall("{? = call length(?)}")) {
            call.registerOutParameter(1, Types.INTEGER);
            call.setString(2, "seven !");
            call.execute();
            say("call", call.getInt(1));
        }
        try (Statement scroll = connection.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE)) {
            ResultSet result = scroll.executeQuery("select id, t from kept where id < 5 order by id");
            result.last();
            say("last", result.getInt(1));
            result.absolute(2);
            result.updateString("t", "updated");
            result.updateRow();
            result.moveToInsertRow();
            result.updateInt("id", 300);
            result.insertRow();
        }
        say("updated", query(connection, "select id, t from kept where id in (2, 300) order by id"));
        try (Statement timed = connection.createStatement()) {
            timed.setQueryTimeout(1);
            attempt("timeout", () -> rows(timed.executeQuery("select pg_sleep(20)")));
        }
        try (Statement limited = connection.createStatement()) {
            limited.setMaxRows(3);
            say("at most three", rows(limited.executeQuery("select n from generate_series(1, 10) n")));
        }
        try (Statement noticed = connection.createStatement()) {
            noticed.execute("do $$ begin raise notice 'heard'; end $$");
            for (SQLWarning warning = noticed.getWarnings(); warning != null; warning = warning.getNextWarning()) say("warning", warning.getMessage());
        }
    }

    static void transactions(String more) throws Exception {
        say("part", "transactions" + more);
        try (Connection connection = connect(more)) {
            connection.setAutoCommit(false);
            update(connection, "insert into kept (id) values (400)");
            Savepoint savepoint = connection.setSavepoint("s");
            attempt("fails", () -> update(connection, "insert into kept (id) values (400)"));
            attempt("next", () -> query(connection, "select count(*) from kept where id = 400"));
            attempt("back", () -> { connection.rollback(savepoint); return "done"; });
            attempt("commit", () -> { connection.commit(); return "done"; });
            say("stayed", query(connection, "select count(*) from kept where id = 400"));
            update(connection, "delete from kept where id = 400");
            connection.commit();
            try (PreparedStatement repeated = connection.prepareStatement("select t from kept where id = ?")) {
                for (int time = 0; time < 8; time++) {
                    repeated.setInt(1, 1);
                    attempt("repeated", () -> rows(repeated.executeQuery()));
                }
                update(connection, "alter table kept alter column t type varchar(" + (100 + more.length()) + ")");
                connection.commit();
                attempt("altered", () -> rows(repeated.executeQuery()));
            }
            connection.rollback();
            for (int level : new int[] {Connection.TRANSACTION_REPEATABLE_READ, Connection.TRANSACTION_SERIALIZABLE, Connection.TRANSACTION_READ_COMMITTED}) {
                connection.setTransactionIsolation(level);
                say("level", connection.getTransactionIsolation() + " " + query(connection, "show transaction_isolation"));
                connection.commit();
            }
            connection.setReadOnly(true);
            attempt("read only", () -> update(connection, "insert into kept (id) values (401)"));
            connection.rollback();
            connection.setReadOnly(false);
            Statement cursor = connection.createStatement();
            cursor.setFetchSize(10);
            ResultSet result = cursor.executeQuery("select n from generate_series(1, 95) n");
            int sum = 0;
            while (result.next()) sum += result.getInt(1);
            say("cursor", sum);
            result = cursor.executeQuery("select n from generate_series(1, 1000) n");
            result.next();
            result.close();
            say("closed early", query(connection, "select 1"));
            connection.commit();
            connection.setAutoCommit(true);
            connection.setSchema("pg_catalog");
            say("schema", connection.getSchema() + query(connection, "show search_path"));
            connection.setSchema("public");
            connection.setClientInfo("ApplicationName", "of the trial");
            say("name", query(connection, "show application_name"));
            connection.setNetworkTimeout(Runnable::run, 60000);
            say("valid", connection.isValid(5));
        }
    }

    static void special(Connection connection) throws Exception {
        say("part", "special");
        PGConnection own = connection.unwrap(PGConnection.class);
        CopyManager copies = own.getCopyAPI();
        update(connection, "create table copied (id int primary key, t text)");
        say("copy in", copies.copyIn("copy copied from stdin", new java.io.StringReader("1\tone\n2\t\\N\n")));
        java.io.StringWriter out = new java.io.StringWriter();
        say("copy out", copies.copyOut("copy copied to stdout", out) + " " + out);
        attempt("twice", () -> copies.copyIn("copy copied from stdin", new java.io.StringReader("1\tone\n")));
        attempt("given up", () -> {
            org.postgresql.copy.CopyIn copy = copies.copyIn("copy copied from stdin");
            copy.writeToCopy("7\tx\n".getBytes(StandardCharsets.UTF_8), 0, 4);
            copy.cancelCopy();
            return query(connection, "select count(*) from copied");
        });
        connection.setAutoCommit(false);
        LargeObjectManager objects = own.getLargeObjectAPI();
        long oid = objects.createLO();
        LargeObject object = objects.open(oid);
        object.write("a large object".getBytes(StandardCharsets.UTF_8));
        object.seek(2);
        say("large object", new String(object.read(5), StandardCharsets.UTF_8) + object.tell() + object.size());
        object.close();
        objects.delete(oid);
        connection.commit();
        connection.setAutoCommit(true);
        update(connection, "listen news");
        try (Connection other = connect("")) {
            update(other, "notify news, 'hello'");
            PGNotification[] notes = own.getNotifications(10000);
            say("notified", notes.length + notes[0].getName() + notes[0].getParameter());
            say("by it", notes[0].getPID() == other.unwrap(PGConnection.class).getBackendPID());
        }
        update(connection, "unlisten *");
        Thread cancel = new Thread(() -> {
            try { Thread.sleep(500); own.cancelQuery(); } catch (Exception cause) { say("cancel", cause); }
        });
        cancel.start();
        attempt("cancelled", () -> query(connection, "select pg_sleep(30)"));
        cancel.join();
        DatabaseMetaData catalog = connection.getMetaData();
        say("tables", names(catalog.getTables(null, "public", "%", new String[] {"TABLE"}), "TABLE_NAME"));
        say("columns", names(catalog.getColumns(null, "public", "kept", "%"), "COLUMN_NAME"));
        say("keys", names(catalog.getPrimaryKeys(null, "public", "kept"), "COLUMN_NAME"));
        say("indexes", names(catalog.getIndexInfo(null, "public", "kept", false, false), "INDEX_NAME"));
        say("types", names(catalog.getTypeInfo(), "TYPE_NAME").size() > 50);
        say("product", catalog.getDatabaseProductName() + catalog.getDatabaseMajorVersion());
        say("parameters", new TreeMap<>(own.getParameterStatuses()).keySet());
    }

    static List<String> names(ResultSet result, String column) throws SQLException {
        List<String> names = new ArrayList<>();
        while (result.next()) names.add(result.getString(column));
        return names;
    }

    static void ways() throws Exception {
        for (String more : new String[] {"&preferQueryMode=simple", "&preferQueryMode=extendedForPrepared", "&prepareThreshold=-1", "&prepareThreshold=0", "&reWriteBatchedInserts=true", "&defaultRowFetchSize=3", "&targetServerType=primary", "&options=-c%20work_mem=8MB", "&currentSchema=pg_catalog", "&assumeMinServerVersion=15&ApplicationName=named", "&binaryTransfer=false", "&readOnly=true"}) {
            say("part", more);
            try (Connection connection = connect(more)) {
                try (PreparedStatement select = connection.prepareStatement("select n, n::text || ?, current_setting('work_mem') from generate_series(1, ?) n")) {
                    for (int time = 0; time < 7; time++) {
                        select.setString(1, "x");
                        select.setInt(2, 5);
                        say("rows", rows(select.executeQuery()));
                    }
                }
                try (PreparedStatement insert = connection.prepareStatement("insert into public.copied values (?, ?)")) {
                    for (int id = 1000; id < 1005; id++) { insert.setInt(1, id); insert.setString(2, "b"); insert.addBatch(); }
                    attempt("batch", () -> Arrays.toString(insert.executeBatch()));
                }
                attempt("delete", () -> update(connection, "delete from public.copied where id >= 1000"));
            }
        }
        say("part", "refused");
        attempt("wrong database", () -> DriverManager.getConnection(url.replaceAll("/[^/?]*\\?", "/nowhere?")));
    }

    public static void main(String[] arguments) throws Exception {
        url = "jdbc:postgresql://" + arguments[0] + ":" + arguments[1] + "/" + arguments[2] + "?user=" + System.getenv("PGUSER") + "&password=" + System.getenv("PGPASSWORD") + "&sslmode=disable";
        try (Connection connection = connect("")) {
            statements(connection);
            for (String more : new String[] {"", "&autosave=always", "&autosave=conservative", "&autosave=always&cleanupSavepoints=true"}) transactions(more);
            special(connection);
            ways();
        }
    }
}
