"""PEP 249, and what goes beyond it.  (The public-domain suite dbapi20 passes too; this says the same in fewer lines.)"""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import sqlml


@pytest.fixture(scope="module", params=["here", pytest.param("through a server", marks=pytest.mark.slow)])
def memory(request: pytest.FixtureRequest) -> Iterator[sqlml.Connection]:
    """A connection in memory, without models; and one through the server of another process."""
    connection = sqlml.connect() if request.param == "here" else sqlml.connect(request.getfixturevalue("served"))
    assert (connection.through is None) == (request.param == "here")
    yield connection
    connection.close()


def test_the_module() -> None:
    assert (sqlml.apilevel, sqlml.threadsafety, sqlml.paramstyle) == ("2.0", 1, "qmark")
    assert issubclass(sqlml.Warning, Exception)
    for name in ("InterfaceError", "DatabaseError"):
        assert issubclass(getattr(sqlml, name), sqlml.Error)
    for name in ("DataError", "OperationalError", "IntegrityError", "InternalError", "ProgrammingError", "NotSupportedError"):
        assert issubclass(getattr(sqlml, name), sqlml.DatabaseError)
        assert getattr(sqlml.Connection, name) is getattr(sqlml, name)
    assert sqlml.DateFromTicks(0) in (datetime.date(1970, 1, 1), datetime.date(1969, 12, 31))
    assert isinstance(sqlml.TimeFromTicks(0), datetime.time)
    assert isinstance(sqlml.TimestampFromTicks(0), datetime.datetime)
    assert sqlml.Binary(b"a") == b"a"


VALUES = (
    ("42", "INTEGER", 42, sqlml.NUMBER),
    ("true", "BOOLEAN", True, sqlml.NUMBER),
    ("1.50::DECIMAL(9, 2)", "DECIMAL(9,2)", decimal.Decimal("1.50"), sqlml.NUMBER),
    ("170141183460469231731687303715884105727::HUGEINT", "HUGEINT", 2**127 - 1, sqlml.NUMBER),
    ("'ä'", "VARCHAR", "ä", sqlml.STRING),
    ("'\\xFF'::BLOB", "BLOB", b"\xff", sqlml.BINARY),
    ("DATE '2024-02-29'", "DATE", datetime.date(2024, 2, 29), sqlml.DATETIME),
    ("TIME '01:02:03.4'", "TIME", datetime.time(1, 2, 3, 400000), sqlml.DATETIME),
    ("TIMESTAMP '2024-02-29 01:02:03'", "TIMESTAMP", datetime.datetime(2024, 2, 29, 1, 2, 3), sqlml.DATETIME),
    ("INTERVAL 36 HOURS", "INTERVAL", datetime.timedelta(hours=36), sqlml.DATETIME),
    ("'12345678-1234-5678-1234-567812345678'::UUID", "UUID", uuid.UUID("12345678-1234-5678-1234-567812345678"), sqlml.STRING),
    ("[1, NULL]", "INTEGER[]", [1, None], None),
    ("{'a': 1, 'b': [2]}", "STRUCT(a INTEGER, b INTEGER[])", {"a": 1, "b": [2]}, None),
    ("MAP {'k': 1}", "MAP(VARCHAR, INTEGER)", {"k": 1}, None),
    ("NULL", None, None, None),
)


@pytest.mark.parametrize(("sql", "code", "value", "group"), VALUES, ids=[sql for sql, *_ in VALUES])
def test_values(memory: sqlml.Connection, sql: str, code: str | None, value: Any, group: Any) -> None:
    cursor = memory.execute(f"SELECT {sql} AS v")
    assert cursor.description is not None
    [column] = cursor.description
    assert (column[0], len(column)) == ("v", 7)
    assert code is None or column.type_code == code
    assert group is None or column.type_code == group
    assert cursor.fetchone() == (value,)
    assert type(memory.execute(f"SELECT {sql} AS v").fetchall()[0][0]) is type(value)
    if isinstance(value, (int, str, bytes, decimal.Decimal, datetime.date, datetime.time, uuid.UUID)):
        assert memory.execute("SELECT ?", [value]).fetchone() == (value,)


def test_fetching(memory: sqlml.Connection) -> None:
    cursor = memory.cursor()
    cursor.execute("SELECT * FROM range(10)")
    assert cursor.fetchone() == (0,)
    assert cursor.fetchmany() == [(1,)]
    assert cursor.fetchmany(2) == [(2,), (3,)]
    cursor.arraysize = 3
    assert cursor.fetchmany() == [(4,), (5,), (6,)]
    assert cursor.fetchmany(0) == []
    assert next(cursor) == (7,)
    assert list(cursor) == [(8,), (9,)]
    assert (cursor.fetchone(), cursor.fetchmany(), cursor.fetchall()) == (None, [], [])


def test_many_rows_over_batches(memory: sqlml.Connection) -> None:
    cursor = memory.execute("SELECT * FROM range(300000)")
    found = [number for _ in range(3) for (number,) in cursor.fetchmany(100_000)]
    assert found == list(range(300_000))


def test_arrow_and_pandas(memory: sqlml.Connection) -> None:
    table = memory.execute("SELECT range AS a, NULL AS b FROM range(5)").fetch_arrow_table()
    assert (table.num_rows, table.column_names) == (5, ["a", "b"])
    assert memory.execute("SELECT 1 AS a WHERE false").fetch_arrow_table().column_names == ["a"]
    assert list(memory.execute("SELECT range AS a FROM range(3)").df()["a"]) == [0, 1, 2]


def test_rowcount_and_description(memory: sqlml.Connection) -> None:
    cursor = memory.cursor()
    assert (cursor.description, cursor.rowcount) == (None, -1)
    cursor.execute("CREATE OR REPLACE TABLE counted (a INTEGER, b VARCHAR)")
    assert (cursor.description, cursor.rowcount) == (None, -1)
    assert cursor.execute("INSERT INTO counted VALUES (1, 'x'), (2, 'y')").rowcount == 2
    assert cursor.execute("UPDATE counted SET a = 3 WHERE b = ?", ["x"]).rowcount == 1
    cursor.executemany("INSERT INTO counted VALUES (?, ?)", [(7, "z"), (8, None)])
    assert cursor.rowcount == 2
    assert cursor.execute("DELETE FROM counted").rowcount == 4
    assert cursor.execute("INSERT INTO counted VALUES (1, 'x') RETURNING a").fetchall() == [(1,)]


def test_two_cursors_at_once(memory: sqlml.Connection) -> None:
    one, two = memory.cursor(), memory.cursor()
    one.execute("SELECT * FROM range(400000)")
    assert one.fetchone() == (0,)
    two.execute("SELECT * FROM range(3)")
    assert two.fetchall() == [(0,), (1,), (2,)]
    assert len(one.fetchall()) == 399_999


def test_wrong_use(memory: sqlml.Connection) -> None:
    cursor = memory.execute("CREATE OR REPLACE TABLE nothing (a INTEGER)")
    for fetch in (cursor.fetchone, cursor.fetchmany, cursor.fetchall, cursor.fetch_arrow_table):
        with pytest.raises(sqlml.ProgrammingError, match="no result to fetch"):
            fetch()
    cursor.close()
    with pytest.raises(sqlml.InterfaceError, match="the cursor is closed"):
        cursor.execute("SELECT 1")
    connection = sqlml.connect()
    open_cursor = connection.execute("SELECT 1")
    connection.close()
    connection.close()
    for use in (connection.cursor, connection.commit, connection.rollback, open_cursor.fetchone):
        with pytest.raises(sqlml.InterfaceError, match="the connection is closed"):
            use()


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("SELEC 1", sqlml.ProgrammingError),
        ("SELECT * FROM nowhere", sqlml.ProgrammingError),
        ("SELECT 'x'::INTEGER", sqlml.DataError),
        ("INSERT INTO keyed VALUES (1)", sqlml.IntegrityError),
        ("COMMIT", sqlml.OperationalError),
        ("SELECT * FROM 'nothing.csv'", sqlml.OperationalError),
    ],
)
def test_errors_of_the_database(memory: sqlml.Connection, statement: str, error: type[Exception]) -> None:
    memory.execute("CREATE OR REPLACE TABLE keyed (a INTEGER PRIMARY KEY); INSERT INTO keyed VALUES (1)")
    with pytest.raises(error):
        memory.execute(statement).fetchall()


def test_transactions(memory: sqlml.Connection) -> None:
    memory.execute("CREATE OR REPLACE TABLE moved (a INTEGER)")
    memory.commit()
    memory.rollback()
    memory.begin()
    memory.execute("INSERT INTO moved VALUES (1)")
    memory.rollback()
    assert memory.execute("SELECT count(*) FROM moved").fetchone() == (0,)
    memory.begin()
    memory.execute("INSERT INTO moved VALUES (1)")
    memory.commit()
    assert memory.execute("SELECT count(*) FROM moved").fetchone() == (1,)


def test_scripts(memory: sqlml.Connection) -> None:
    cursor = memory.execute(
        "CREATE OR REPLACE TABLE s (a INT); INSERT INTO s SELECT * FROM range(3); -- and\nSELECT sum(a) FROM s;"
    )
    assert cursor.fetchone() == (3,)
    with pytest.raises(sqlml.ProgrammingError, match="one statement at a time; this text has 2"):
        memory.execute("SELECT 1; SELECT ?", [1])
    for nothing in ("", " ; ;", "-- nothing\n", "/* nothing */"):
        assert memory.execute(nothing).description is None


def test_text_that_only_looks_like_ours(memory: sqlml.Connection) -> None:
    memory.execute("CREATE OR REPLACE TABLE train (model INTEGER, target INTEGER, predict INTEGER, label INTEGER)")
    memory.execute("INSERT INTO train VALUES (1, 2, 3, 4)")
    assert memory.execute("SELECT model, target, predict, label FROM train WHERE predict = 3").fetchone() == (1, 2, 3, 4)
    assert memory.execute("SELECT 'PREDICT(m)', $$TRAIN MODEL m$$ -- PREDICT(m)").fetchone() == ("PREDICT(m)", "TRAIN MODEL m")
    assert memory.execute("SELECT @ -3, 2 ** 3").fetchone() == (3, 8.0)


def test_names_for_completion(shared: sqlml.Connection) -> None:
    names = shared.names()
    assert "people" in names.tables
    assert {"age", "job"} <= set(names.columns)
    assert set(names.models) == {"buys", "groups", "spends"}
    assert not [name for name in (*names.tables, *names.columns) if "__sqlml" in name]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("DATE 'infinity'", datetime.date.max),
        ("TIMESTAMP '-infinity'", datetime.datetime.min),
        ("DATE '20000-01-01'", "20000-01-01"),
    ],
)
def test_dates_that_python_has_none_of(value: str, expected: object) -> None:
    with sqlml.connect() as connection:
        assert connection.execute(f"SELECT 1 AS a, {value} AS d").fetchall() == [(1, expected)]


def test_lists_of_dates_that_python_has_none_of() -> None:
    with sqlml.connect() as connection:
        with pytest.raises(
            sqlml.DataError, match="column d is a list or struct with a date or time that Python cannot hold"
        ) as raised:
            connection.execute("SELECT [DATE 'infinity'] AS d").fetchall()
        assert "fetch_arrow_table()" in str(raised.value)
        assert connection.execute("SELECT [DATE 'infinity'] AS d").fetch_arrow_table().num_rows == 1


def test_executemany_inserts_all_rows_or_none() -> None:
    with sqlml.connect() as connection:
        connection.execute("CREATE TABLE t (a INTEGER, b VARCHAR, c DECIMAL(9, 2))")
        rows = [(i, None if i % 7 == 0 else f"name {i}", decimal.Decimal(i) / 4) for i in range(5000)]
        assert connection.cursor().executemany("INSERT INTO t VALUES (?, ?, ?)", rows).rowcount == 5000
        assert connection.execute("FROM t ORDER BY a").fetchall() == rows
        connection.cursor().executemany("INSERT INTO t VALUES (?, ?, ?)", [])
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (5000,)
        mixed = [(1, "a", 1), ("no number", "b", 2)]  # no Arrow type in common: one by one
        late = [(1, "a", 1)] * 3000 + [(2**40, "b", 2)]
        for wrong in (mixed, late):
            with pytest.raises(sqlml.DataError):
                connection.cursor().executemany("INSERT INTO t VALUES (?, ?, ?)", wrong)
            assert connection.execute("SELECT count(*) FROM t").fetchone() == (5000,)
        with pytest.raises(sqlml.Error, match="3 parameters, 2 given"):
            connection.cursor().executemany("INSERT INTO t VALUES (?, ?, ?)", [(1, "a"), (2, "b")])
        connection.begin()
        connection.cursor().executemany("INSERT INTO t (a, b) VALUES (?, ?)", [(-1, "x"), (-2, "y")])
        connection.cursor().executemany("UPDATE t SET b = ? WHERE a = ?", [("z", -1), ("w", -2)])
        connection.rollback()
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (5000,)


@pytest.mark.parametrize("rows", [3, 10, 300_000])
@pytest.mark.parametrize("taken", ["none", "one", "many", "iterated", "all but one", "all"])
def test_what_is_left_comes_as_arrow(memory: sqlml.Connection, rows: int, taken: str) -> None:
    for _ in range(2):  # a text that comes again takes another road
        cursor = memory.execute(f"SELECT i FROM range({rows}) t(i)")
        given = [row[0] for row in _take(cursor, taken, rows)]
        left = cursor.fetch_arrow_table()["i"].to_pylist()
        assert [*given, *left] == list(range(rows))
        assert cursor.fetchone() is None


def _take(cursor: sqlml.Cursor, how: str, rows: int) -> list[Any]:
    """Some rows, one by one."""
    match how:
        case "one":
            return [cursor.fetchone()]
        case "many":
            return cursor.fetchmany(2) + cursor.fetchmany(1)
        case "iterated":
            return [next(iter(cursor)), next(iter(cursor))]
        case "all but one":
            return cursor.fetchmany(rows - 1)
        case "all":
            return cursor.fetchall()
    return []


def test_the_largest_whole_numbers(memory: sqlml.Connection) -> None:
    largest = [2**127 - 1, -(2**127) + 1, 2**127, 2**128 - 1, 0]
    query = "SELECT " + ", ".join(f"{n}::{'HUGEINT' if n < 2**127 else 'UHUGEINT'}" for n in largest)
    for _ in range(2):
        assert memory.execute(query).fetchone() == tuple(largest)


@pytest.mark.parametrize("query", ["SELECT DATE '12000-01-01' AS d", "SELECT union_value(x := 1) AS u"])
def test_what_pandas_cannot_hold(memory: sqlml.Connection, query: str) -> None:
    with pytest.raises(sqlml.DataError, match="pandas cannot hold the result") as raised:
        memory.execute(query).df()
    assert "fetch_arrow_table()" in str(raised.value)
    assert memory.execute(query).fetch_arrow_table().num_rows == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("rounds = 20", "xgboost has no option rounds"),
        ("objective = 'poisson'", "option objective of xgboost_regressor"),
        ("n_estimators = 'many'", "option n_estimators of xgboost_classifier"),
    ],
)
def test_an_option_of_two_algorithms(memory: sqlml.Connection, options: str, message: str) -> None:
    """Which of the two it will be is only known by the values: who has the option says what is wrong with it."""
    with pytest.raises(sqlml.Error, match=message):
        memory.execute(f"TRAIN MODEL m USING xgboost TARGET y WITH ({options}) AS SELECT i AS x, i / 3 AS y FROM range(100) t(i)")


def test_infinite_numbers_are_told(memory: sqlml.Connection) -> None:
    table = "SELECT i % 7 AS a, CASE WHEN i % 10 = 3 THEN 'inf'::DOUBLE ELSE i % 13 END AS w, i % 3 > 0 AS y FROM range(200) t(i)"
    cursor = memory.execute(f"TRAIN MODEL m USING naive_bayes TARGET y ON inline AS {table}")
    told = [notice for notice in cursor.notices if "infinite" in notice]
    assert [notice.split(":")[0] for notice in told] == [
        "w has infinite values, which count as the largest float of 32 bits, 3.4e38"
    ]
    assert not [n for n in memory.execute(f"TRAIN MODEL m TARGET y EXCLUDE (w) ON inline AS {table}").notices if "infinite" in n]


def test_threads_that_share_a_connection_get_their_own_answers() -> None:
    with sqlml.connect() as connection:
        connection.execute("CREATE TABLE numbers AS SELECT i FROM range(5000) r(i)")

        def ask(number: int) -> list[bool]:
            found = []
            for i in range(20):
                cursor = connection.cursor().execute(f"SELECT i, {number} FROM numbers WHERE i >= {i}")
                rows = cursor.fetchall() if i % 2 else list(cursor)
                found.append(rows == [(j, number) for j in range(i, 5000)])
            return found

        with ThreadPoolExecutor(6) as pool:
            assert all(all(found) for found in pool.map(ask, range(12)))


@pytest.mark.parametrize("text", ["SELECT i, i / 2.0::DOUBLE AS h, 'n' || i AS n FROM range(5) t(i)", "SELECT 1 WHERE false"])
def test_a_few_rows_by_any_way_of_fetching(memory: sqlml.Connection, text: str) -> None:
    """From the second time on they are Python's values already."""
    whole = memory.execute(text).fetch_arrow_table()
    rows = [tuple(row.values()) for row in whole.to_pylist()]
    for _ in range(3):
        assert memory.execute(text).fetchall() == rows
        assert list(memory.execute(text)) == rows
        assert memory.execute(text).fetchmany(2) == rows[:2]
        assert memory.execute(text).fetch_arrow_table() == whole
        assert memory.execute(text).df().shape == (whole.num_rows, whole.num_columns)
        for taken in range(len(rows) + 2):
            cursor = memory.execute(text)
            assert [row for row in (cursor.fetchone() for _ in range(taken)) if row is not None] == rows[:taken]
            assert cursor.fetch_arrow_table().to_pylist() == whole.slice(min(taken, len(rows))).to_pylist()
            assert cursor.fetchall() == []
            assert cursor.fetch_arrow_table().num_rows == 0
        begun = memory.execute(text)
        first = begun.fetchone()
        memory.execute("SELECT 42").fetchall()
        assert [row for row in (first, *begun) if row is not None] == rows
