"""Models inside DuckDB without Python: the same answers as the library's, and what the function refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xgboost
from sqlml_dialect import quote_identifier
from sqlml_udfs.duckdb.arrow import DuckDBTarget

import sqlml
from sqlml.binder.text import Sql
from sqlml.bundles.model import Model
from sqlml.contracts import UnfitArgument
from sqlml.engines.duckdb.engine import DuckDBEngine
from sqlml.errors import BindError, DatabaseError, NotSupportedError
from sqlml.native.duckdb_function import SWITCH, TREES, register, rows_scored
from sqlml.statements.queries import Queries

pytestmark = pytest.mark.skipif(not register(), reason="DuckDB takes no function of C here")

ROWS = """
    CREATE TABLE rows AS SELECT i AS id, sin(i * 1.7) AS a, (i * 7919 % 1000)::FLOAT AS b, i * 31 % 17 AS c, i % 3 = 0 AS d,
    [NULL, 'short', 'a text of many bytes', 'ß', ''][1 + i * 13 % 5] AS e, 'value ' || (i * 7 % 400) AS f,
    DATE '1899-12-25' + (i * 97 % 60000)::INTEGER AS g, TIME '00:00' + (i * 37) * INTERVAL 1 SECOND AS h,
    TIMESTAMP '1950-01-01' + (i * 7919) * INTERVAL 1 MINUTE AS t, i % 2 AS unused,
    sin(i * 1.7) + (i * 7919 % 1000) / 500.0 + (i * 31 % 17 > 8)::INTEGER + (i * 13 % 5) / 3.0
    + dayofweek(DATE '1899-12-25' + (i * 97 % 60000)::INTEGER) / 4.0 AS y
    FROM range(3000) r(i)
"""
TARGETS = {"two": "y > 2.5 AS y", "many": "['x', 'y', 'z'][1 + (y > 1.5)::INTEGER + (y > 3)::INTEGER] AS y", "number": "y AS y"}


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlml.Connection]:
    """Rows of every kind of column, and a model of each kind of answer."""
    with sqlml.connect(tmp_path_factory.mktemp("trees") / "t.duckdb") as opened:
        opened.execute(ROWS)
        for name, target in TARGETS.items():
            kind = "regressor" if name == "number" else "classifier"
            opened.execute(
                f"TRAIN MODEL m_{name} USING xgboost_{kind} TARGET y EXCLUDE (id) SPLIT NONE WITH (n_estimators = 20) ON inline "
                f"AS SELECT * REPLACE ({target}) FROM rows"
            )
        yield opened


def model_of(connection: sqlml.Connection, name: str) -> Model:
    [(bundle,)] = connection.execute(f"SELECT bundle FROM sqlml.versions WHERE model = 'm_{name}'").fetchall()
    return Model.open(Path(bundle))


def odd_rows(model: Model) -> pa.Table:
    """Values at thresholds and beside them, infinite, absent, tiny, huge, unseen."""
    booster = model.predictor.booster  # type: ignore[attr-defined]
    splits = booster.trees_to_dataframe().dropna(subset=["Split"])
    first = splits[splits.Feature == splits.Feature.mode()[0]].Split.to_numpy(np.float32)
    beside = [np.nextafter(first, np.float32(way)) for way in (-np.inf, np.inf)]
    rounding = first.astype(np.float64) - np.spacing(first) / 4  # a double that becomes the threshold as a float
    odd = [np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, -1e-310, 1e-40, 1e308, -1e308, 3.5e38, 2.0**60 + 1]
    values = np.concatenate([first, *beside, rounding, odd]).astype(np.float64)
    n = len(values)
    rng = np.random.default_rng(0)
    with np.errstate(over="ignore"):
        floats = rng.permutation(values).astype(np.float32)

    def some(kind: Any, choice: list[Any]) -> pa.Array:
        return pa.array([choice[i] for i in rng.integers(0, len(choice), n)], kind)

    last = 2**31 - 1
    return pa.table(
        {
            "n": pa.array(range(n)),
            "a": pa.array(values),
            "b": pa.array(floats),
            "c": some(pa.int64(), [0, 8, 9, 16, None, -(2**62), 2**62 + 1]),
            "d": some(pa.bool_(), [True, False, None]),
            "e": some(pa.string(), ["short", "a text of many bytes", "a text of many byteS", "ß", "", "shor", None]),
            "f": some(pa.string(), ["value 7", "value 399", "value 400", "value", "value 7\0", None]),
            "g": some(pa.date32(), [0, -1, -719162, 11016, 20000, -25567, None, last, -last]),
            "h": some(pa.time64("us"), [0, 1, 86_399_999_999, 43_200_000_000, None]),
            "t": some(pa.timestamp("us"), [0, -1, -62_135_596_800_000_000, 951_782_399_999_999, None, 2**63 - 1, -(2**63) + 1]),
            "unused": some(pa.int64(), [1, None]),
        }
    )


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("plain", [False, True])
def test_odd_rows_as_the_library_has_them(connection: sqlml.Connection, name: str, plain: bool) -> None:
    model = model_of(connection, name)
    rows = odd_rows(model)
    engine = DuckDBEngine.open(":memory:")
    try:
        engine.register("given", rows)
        engine.run("CREATE TABLE t AS FROM given")
        target = DuckDBTarget(engine)

        def run(output: str) -> list[Any]:
            arguments = {i.name: quote_identifier(i.name) for i in model.inputs}
            sql = target.call_sql("u", output, model.signature, lambda: model, arguments, arguments if plain else ())
            assert ('CAST("a" AS DOUBLE)' in sql) is not plain or TREES not in sql
            if output not in ("probs", "full") or (name != "many" and output != "probs"):
                assert TREES in sql
            stream = engine.run(f"SELECT {sql} AS x FROM t ORDER BY n")
            return [row for batch in stream.batches for row in batch.column(0).to_pylist()]

        assert run("predict") == model.predict(rows).to_pylist()
        assert run("full") == model.full(rows).to_pylist() if name != "number" else True
        if name != "number":
            assert run("proba:0") == model.raw(rows)[:, 0].tolist()
            assert run("proba:1") == model.raw(rows)[:, 1].tolist()
            assert run("probs") == model.probs_map(model.raw(rows)).to_pylist()
    finally:
        engine.close()
    booster = model.predictor.booster  # type: ignore[attr-defined]
    kinds = ["c" if category else "q" for category in model.encoder.categorical]
    own = booster.predict(xgboost.DMatrix(model.encode(rows), feature_types=kinds, enable_categorical=True))
    found = model.raw(rows) if name != "two" else model.raw(rows)[:, 1]
    np.testing.assert_allclose(found, own, rtol=0, atol=1e-6)


ENDS: dict[str, tuple[str, ...]] = {
    **{f"{sign}{name}": ("0", "1", str(2 ** (bits - (not sign)) - 1))
       for name, bits in (("TINYINT", 8), ("SMALLINT", 16), ("INTEGER", 32), ("BIGINT", 64)) for sign in ("", "U")},
    "FLOAT": ("0", "1e-45", "'inf'", "'-inf'", "'nan'"),
    "DOUBLE": ("1e300", "-1e300", "'nan'", "0.1"),
    "BOOLEAN": ("true", "false"),
}  # fmt: skip
OTHERS = ("DECIMAL(9, 2)", "DECIMAL(38, 1)", "HUGEINT", "UHUGEINT", "VARCHAR", "ENUM('0', '1', '2', '3', '4')")


@pytest.fixture(scope="module")
def of_two(connection: sqlml.Connection) -> list[str]:
    """Trees and a line over two numbers; tables with a column of each type: numbers of up to 64 bits, and what must be cast."""
    connection.execute(
        "CREATE TABLE pairs AS SELECT sin(i) * 100 AS a, cos(i) * 1e6 AS b, a * 1e4 + b AS y FROM range(2000) r(i)"
    )
    for name, using in (("by_trees", "xgboost_regressor"), ("by_line", "linear_regression")):
        connection.execute(f"TRAIN MODEL {name} USING {using} TARGET y SPLIT NONE ON inline AS FROM pairs")
    columns = (f"unnest([{', '.join(f'{v}::{kind}' for v in values)}, NULL]) AS {kind}_" for kind, values in ENDS.items())
    connection.execute(f"CREATE TABLE ends AS SELECT {', '.join(columns)}")
    columns = (f'((i % 5)::VARCHAR)::{kind} AS "{kind}_"' for kind in OTHERS)
    connection.execute(f"CREATE TABLE others AS SELECT {', '.join(columns)} FROM range(3000) r(i)")
    return ["by_trees", "by_line"]


@pytest.mark.parametrize("kind", [*ENDS, *OTHERS])
def test_columns_of_every_type_are_read_as_if_they_were_cast(connection: sqlml.Connection, of_two: list[str], kind: str) -> None:
    connection.execute(
        f'CREATE OR REPLACE VIEW given AS SELECT "{kind}_" AS a, a AS b FROM {"ends" if kind in ENDS else "others"}'
    )
    for model in of_two:
        cast = f"PREDICT({model} USING a::DOUBLE AS a, b::DOUBLE AS b)"
        rows = connection.execute(f"SELECT PREDICT({model}), {cast} FROM given").fetchall()
        assert len(rows) >= 5
        assert all(plain == first for plain, first in rows)


def test_what_must_be_cast_is_told_when_a_query_is_bound(connection: sqlml.Connection, of_two: list[str]) -> None:
    [(bundle,)] = connection.execute("SELECT bundle FROM sqlml.versions WHERE model = 'by_trees'").fetchall()
    model = Model.open(Path(bundle))
    engine = DuckDBEngine.open(":memory:")
    try:
        arguments = {"a": '"a"', "b": '"b"'}
        sql = DuckDBTarget(engine).call_sql("u", "predict", model.signature, lambda: model, arguments, arguments)
        engine.run("CREATE TABLE t (a DECIMAL(9, 2), b INTEGER)")
        with pytest.raises(UnfitArgument):
            engine.run(f"SELECT {sql} FROM t")
        assert engine.describe(f"SELECT {sql} FROM (SELECT b AS a, b FROM t)")[0].sql_type == "DOUBLE"
    finally:
        engine.close()


def test_a_column_that_must_be_cast_harms_no_transaction_and_no_statement(
    connection: sqlml.Connection, of_two: list[str]
) -> None:
    connection.execute("CREATE OR REPLACE TABLE prices AS SELECT (i / 7)::DECIMAL(9, 2) AS a, i AS b FROM range(50) r(i)")
    expected = connection.execute("SELECT PREDICT(by_trees USING a::DOUBLE AS a, b::DOUBLE AS b) FROM prices").fetchall()
    query = "SELECT PREDICT(by_trees) AS p FROM prices"
    connection.execute("BEGIN")
    assert connection.execute(query).fetchall() == expected
    connection.execute("COMMIT")
    assert connection.execute(query).fetchall() == connection.execute(query).fetchall() == expected
    for made in ("TABLE", "VIEW", "MACRO"):
        name = "scored() AS TABLE" if made == "MACRO" else "scored AS"
        connection.execute(f"CREATE {made} {name} {query}")
        assert connection.execute(f"FROM {name.removesuffix(' AS').removesuffix(' AS TABLE')}").fetchall() == expected
        connection.execute(f"DROP {made} {'TABLE ' if made == 'MACRO' else ''}scored")
    connection.execute("ALTER TABLE prices ALTER a TYPE FLOAT")
    assert connection.execute(query).fetchall() == expected
    connection.execute("ALTER TABLE prices ALTER a TYPE VARCHAR")
    assert connection.execute(query).fetchall() == expected
    rows = connection.execute("SELECT PREDICT(by_line) FROM (SELECT ? AS a, ? AS b)", [Decimal("1.5"), 2]).fetchall()
    assert rows == connection.execute("SELECT PREDICT(by_line USING ? AS a, ? AS b)", [1.5, 2]).fetchall()
    connection.execute("UPDATE prices SET a = 'much' WHERE b = 7")
    with pytest.raises(DatabaseError, match="Could not convert string 'much'"):
        connection.execute(query).fetchall()


def test_columns_that_no_tree_looks_at_are_not_read(connection: sqlml.Connection) -> None:
    connection.execute("CREATE OR REPLACE TABLE noise AS SELECT i AS a, i % 2 AS b, i > 50 AS y FROM range(100) r(i)")
    connection.execute(
        "TRAIN MODEL narrow USING xgboost_classifier TARGET y SPLIT NONE WITH (n_estimators = 1) ON inline AS FROM noise"
    )
    [(_, plan)] = connection.execute("EXPLAIN SELECT PREDICT(narrow) FROM noise").fetchall()
    scan = plan[plan.index("Seq Scan") :]
    assert [line.strip("│ ") for line in scan.splitlines() if "Projections:" in line] == ["Projections: a"]
    with pytest.raises(BindError, match="b"):
        connection.execute("SELECT PREDICT(narrow) FROM (SELECT a FROM noise)")


MANY = "(SELECT r.* REPLACE (r.id * 10 + k AS id, CASE WHEN k % 4 > 0 THEN a END AS a) FROM rows r, range(10) s(k))"
"""Rows that differ in little, over many of DuckDB's chunks."""


@pytest.mark.parametrize(
    ("query", "times"),
    [
        ("SELECT id, PREDICT_PROBA(m_two, 1) AS p FROM many WHERE PREDICT_PROBA(m_two, 1) > 0.5", 1),
        ("SELECT id, PREDICT_PROBA(m_two, 1) AS p, PREDICT(m_two) AS q FROM many WHERE PREDICT_PROBA(m_two, 1) > 0.99", 1),
        ("SELECT id, PREDICT(m_many) AS p, PREDICT_PROBA(m_many, 'y') AS q FROM many WHERE PREDICT_PROBA(m_many, 'x') < 0.9", 1),
        ("SELECT id, PREDICT(m_number) AS p FROM many WHERE PREDICT(m_number) > 2 ORDER BY PREDICT(m_number)", 1),
        ("SELECT id, PREDICT_PROBA(m_two, 1) AS p, PREDICT(m_number) AS q FROM many WHERE PREDICT_PROBA(m_two, 1) > 0.5", 2),
    ],
)
def test_a_row_whose_call_is_repeated_is_scored_once(connection: sqlml.Connection, query: str, times: int) -> None:
    connection.execute(f"CREATE OR REPLACE TABLE many AS FROM {MANY}")
    before = rows_scored()
    found = sorted(connection.execute(query).fetchall())
    spent = rows_scored() - before
    assert 0 < len(found) < 30_000
    # where few rows of a chunk are left, DuckDB gathers those of several to a chunk that nobody has seen
    assert spent <= 30_000 * (times + 0.02) + (len(found) if len(found) < 1_000 else 0)
    columns, condition = query.removeprefix("SELECT ").split(" FROM many WHERE ")
    connection.execute(f"CREATE OR REPLACE TABLE scored AS SELECT *, {condition.split(' ORDER')[0]} AS kept FROM many")
    expected = connection.execute(f"SELECT {columns} FROM scored WHERE kept").fetchall()
    assert found == sorted(expected)


def test_others_cannot_harm_by_it(connection: sqlml.Connection) -> None:
    connection.execute("SELECT PREDICT(m_two) FROM rows").fetchall()
    for arguments in ("0", "0, 0", "-1, 0, 1", "99999, 0, 1.0", "0, 0, 1, 'x'", "0, 99, 1.0", "NULL, NULL, NULL", "0, 0, [1], 2"):
        with pytest.raises(DatabaseError):
            connection.execute(f"SELECT {TREES}({arguments})").fetchall()


def test_without_it_all_is_the_same(tmp_path: Path) -> None:
    """With the native road switched off: in another process, since what is registered stays."""
    database = tmp_path / "t.duckdb"
    query = "SELECT id, PREDICT(m) AS p, PREDICT_PROBA(m, 'true') AS q FROM rows ORDER BY id"
    with sqlml.connect(database) as connection:
        connection.execute(ROWS)
        connection.execute(f"TRAIN MODEL m TARGET y EXCLUDE (id) ON inline AS SELECT * REPLACE ({TARGETS['two']}) FROM rows")
        expected = [list(row) for row in connection.execute(query).fetchall()]
    code = f"import sqlml, json\nwith sqlml.connect({str(database)!r}) as c: print(json.dumps(c.execute({query!r}).fetchall()))"
    environment = os.environ | {SWITCH: "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("CREATE TABLE kept (a DOUBLE, b DOUBLE, p DOUBLE GENERATED ALWAYS AS (PREDICT(by_line)))", "a table's definition"),
        ("CREATE TABLE kept (a DOUBLE, b DOUBLE, p AS (PREDICT(by_line)))", "a table's definition"),
        ("CREATE TABLE kept (a DOUBLE, b DOUBLE, CHECK (PREDICT(by_line) > 0))", "a table's definition"),
        ("ALTER TABLE pairs ADD COLUMN p DOUBLE DEFAULT PREDICT(by_line USING 1 AS a, 2 AS b)", "a table's definition"),
        ("CREATE INDEX kept ON pairs (PREDICT(by_line))", "an index"),
    ],
)
def test_what_would_keep_a_slot_in_the_file_is_refused(
    connection: sqlml.Connection, of_two: list[str], statement: str, what: str
) -> None:
    with pytest.raises(NotSupportedError, match=f"^{what} in duckdb cannot call by_line@1.*\n.*\n.*\n  a view may"):
        connection.execute(statement)


def test_a_query_makes_a_table_of_predictions_whatever_its_columns_are_called(
    connection: sqlml.Connection, of_two: list[str]
) -> None:
    connection.execute('CREATE OR REPLACE TEMP TABLE kept("check", p) AS (SELECT a AS generated, PREDICT(by_line) FROM pairs)')
    connection.execute("ALTER TABLE kept ALTER p SET DATA TYPE FLOAT USING PREDICT(by_line USING p AS a, 0 AS b)")
    assert connection.execute("SELECT count(p) FROM kept").fetchall() == [(2000,)]


def test_a_kept_text_is_cast_in_a_transaction(connection: sqlml.Connection, of_two: list[str]) -> None:
    """What is kept may meet columns of other types: in a transaction that would be its end."""
    query = "SELECT PREDICT(by_line) FROM (SELECT ? AS a, ? AS b)"
    expected = connection.execute("SELECT PREDICT(by_line USING 1.5 AS a, 2 AS b)").fetchall()
    connection.execute(query, [1, 2]).fetchall()
    connection.execute("CREATE OR REPLACE TABLE written (n INTEGER)")
    connection.execute(query, [1, 2]).fetchall()
    connection.execute("BEGIN")
    connection.execute("INSERT INTO written VALUES (1)")
    assert connection.execute(query, [Decimal("1.5"), 2]).fetchall() == expected
    connection.execute("COMMIT")
    assert connection.execute("FROM written").fetchall() == [(1,)]
    assert connection.execute(query, [Decimal("1.5"), 2]).fetchall() == expected


def test_calls_of_tables_are_computed_once(connection: sqlml.Connection, of_two: list[str]) -> None:
    connection.execute("CREATE OR REPLACE TABLE sums AS SELECT a::DECIMAL(18, 6) AS a, b, y FROM pairs")
    seen: list[str] = []
    run = Queries._run_with_tables

    def noted(self: Queries, sql: Sql, parameters: Any) -> Any:
        seen.append(sql.text)
        return run(self, sql, parameters)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Queries, "_run_with_tables", noted)
        query = "FROM ML.EVALUATE(MODEL by_trees, (SELECT a, b, PREDICT(by_line) AS y FROM sums))"
        assert len(connection.execute(query).fetchall()) == 1
    assert len(seen) == 1
