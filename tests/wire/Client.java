import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Properties;

/** Operations of pgjdbc, one line of output each; the same program runs on a PostgreSQL and on sqlml. */
public class Client {
    interface Work {
        Object run() throws Exception;
    }

    static void operation(String name, Work work) {
        String found;
        try {
            found = String.valueOf(work.run());
        } catch (SQLException error) {
            found = "SQLSTATE " + error.getSQLState();
        } catch (Exception error) {
            found = error.toString();
        }
        System.out.println(name + "\t" + found.replace("\n", " "));
    }

    static List<String> rows(ResultSet found, String... columns) throws SQLException {
        List<String> lines = new ArrayList<>();
        while (found.next()) {
            List<String> values = new ArrayList<>();
            for (String column : columns) {
                values.add(found.getString(column));
            }
            lines.add(String.join("|", values));
        }
        Collections.sort(lines);
        return lines;
    }

    public static void main(String[] arguments) throws Exception {
        Properties how = new Properties();
        how.setProperty("user", "me");
        try (Connection connection = DriverManager.getConnection(arguments[0], how); Statement statement = connection.createStatement()) {
            DatabaseMetaData about = connection.getMetaData();
            operation("product", () -> about.getDatabaseProductName());
            operation("select", () -> rows(statement.executeQuery("SELECT id, name FROM parents ORDER BY id"), "id", "name"));
            operation("update count", () -> statement.executeUpdate("UPDATE parents SET name = name"));
            operation("prepared", () -> {
                try (PreparedStatement prepared = connection.prepareStatement("SELECT name FROM parents WHERE id = ? AND ok = ?")) {
                    prepared.setInt(1, 1);
                    prepared.setBoolean(2, true);
                    return rows(prepared.executeQuery(), "name");
                }
            });
            operation("prepared many times", () -> {
                int sum = 0;
                try (PreparedStatement prepared = connection.prepareStatement("SELECT ?::int + 1 AS n")) {
                    for (int i = 0; i < 12; i++) {
                        prepared.setInt(1, i);
                        ResultSet found = prepared.executeQuery();
                        found.next();
                        sum += found.getInt("n");
                    }
                }
                return sum;
            });
            operation("metadata before it runs", () -> {
                try (PreparedStatement prepared = connection.prepareStatement("SELECT id, name, amount FROM parents WHERE id > ?")) {
                    ResultSetMetaData columns = prepared.getMetaData();
                    return columns.getColumnName(1) + columns.getColumnTypeName(2) + columns.getPrecision(3) + columns.getScale(3);
                }
            });
            operation("batch", () -> {
                try (PreparedStatement prepared = connection.prepareStatement("INSERT INTO kids (a, b, pid, note) VALUES (?, ?, ?, ?)")) {
                    for (int i = 0; i < 20; i++) {
                        prepared.setInt(1, 1000 + i);
                        prepared.setInt(2, i);
                        prepared.setInt(3, 1);
                        prepared.setString(4, "n" + i);
                        prepared.addBatch();
                    }
                    int sum = 0;
                    for (int one : prepared.executeBatch()) {
                        sum += one;
                    }
                    return sum;
                }
            });
            operation("fetch size", () -> {
                connection.setAutoCommit(false);
                int count = 0;
                try (Statement slow = connection.createStatement()) {
                    slow.setFetchSize(7);
                    ResultSet found = slow.executeQuery("SELECT a FROM kids ORDER BY a");
                    while (found.next()) {
                        count++;
                    }
                }
                connection.commit();
                connection.setAutoCommit(true);
                return count;
            });
            operation("rollback", () -> {
                connection.setAutoCommit(false);
                statement.executeUpdate("DELETE FROM kids");
                connection.rollback();
                connection.setAutoCommit(true);
                return rows(statement.executeQuery("SELECT count(*) AS n FROM kids"), "n");
            });
            operation("unique", () -> statement.executeUpdate("INSERT INTO parents (id, name) VALUES (1, 'again')"));
            operation("not null", () -> statement.executeUpdate("INSERT INTO parents (id) VALUES (99)"));
            operation("no table", () -> statement.executeQuery("SELECT * FROM nowhere"));
            operation("syntax", () -> statement.executeQuery("SELEC 1"));
            operation("tables", () -> rows(about.getTables(null, "public", "%", new String[] {"TABLE", "VIEW"}), "TABLE_SCHEM", "TABLE_NAME", "TABLE_TYPE"));
            operation("columns", () -> rows(about.getColumns(null, "public", "parents", "%"), "COLUMN_NAME", "TYPE_NAME", "COLUMN_SIZE", "NULLABLE", "ORDINAL_POSITION"));
            operation("primary keys", () -> rows(about.getPrimaryKeys(null, "public", "kids"), "COLUMN_NAME", "KEY_SEQ", "PK_NAME"));
            operation("imported keys", () -> rows(about.getImportedKeys(null, "public", "kids"), "PKTABLE_NAME", "PKCOLUMN_NAME", "FKCOLUMN_NAME", "FK_NAME"));
            operation("exported keys", () -> rows(about.getExportedKeys(null, "public", "parents"), "FKTABLE_NAME", "FKCOLUMN_NAME"));
            operation("indexes", () -> rows(about.getIndexInfo(null, "public", "kids", false, false), "INDEX_NAME", "COLUMN_NAME", "NON_UNIQUE"));
            operation("types", () -> {
                List<String> names = rows(about.getTypeInfo(), "TYPE_NAME");
                names.retainAll(List.of("int4", "text", "numeric", "timestamptz", "bool", "uuid", "bytea"));
                return names;
            });
            operation("time and bytes", () -> {
                try (PreparedStatement prepared = connection.prepareStatement("SELECT ?::timestamp AS t, ?::bytea AS b, ?::numeric AS n, ?::date AS d")) {
                    prepared.setTimestamp(1, java.sql.Timestamp.valueOf("2026-03-01 12:30:00.5"));
                    prepared.setBytes(2, new byte[] {1, 2});
                    prepared.setBigDecimal(3, new java.math.BigDecimal("12.50"));
                    prepared.setDate(4, java.sql.Date.valueOf("2026-03-01"));
                    ResultSet found = prepared.executeQuery();
                    found.next();
                    return found.getTimestamp("t") + " " + found.getBytes("b").length + " " + found.getBigDecimal("n").stripTrailingZeros() + " " + found.getDate("d");
                }
            });
            operation("cancel", () -> {
                try (Statement slow = connection.createStatement()) {
                    slow.setQueryTimeout(1);
                    return slow.executeQuery("SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b WHERE a * b % 7 = 3");
                }
            });
            operation("clean up", () -> statement.executeUpdate("DELETE FROM kids WHERE a >= 1000"));
            operation("alive", () -> rows(statement.executeQuery("SELECT 1 AS one"), "one"));
        }
    }
}
