"""DuckDB as an engine: the contract, errors with their places, functions that outlive their connection."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from sqlml.engines.duckdb.engine import BATCH_ROWS, DuckDBEngine
from sqlml.engines.duckdb.types import kind_of_type
from sqlml.errors import DatabaseError, EngineError, OperationalError
from sqlml.types import Kind
from tests.kits import check_engine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[DuckDBEngine]:
    opened = DuckDBEngine.open(str(tmp_path / "a.duckdb"))
    yield opened
    opened.close()


def test_the_contract(engine: DuckDBEngine) -> None:
    check_engine(engine)


def test_an_interrupt_while_a_statement_is_about_to_begin(engine: DuckDBEngine) -> None:
    """DuckDB itself forgets it."""

    def interrupt() -> None:
        while not engine.interrupts.running:
            pass
        engine.interrupt()

    for _ in range(20):
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(OperationalError, match="cancelled"):
            engine.run(
                "SELECT sum(1.0 * a.i * b.i) FROM generate_series(1, 1000000000) AS a(i), generate_series(1, 1000) AS b(i)"
            )
        thread.join()
    assert [batch.to_pylist() for batch in engine.run("SELECT 1 AS a").batches] == [[{"a": 1}]]


@pytest.mark.parametrize(
    ("sql_type", "kind"),
    [
        ("BIGINT", Kind.NUMBER), ("DECIMAL(9,2)", Kind.NUMBER), ("ENUM('a', 'b')", Kind.TEXT), ("UUID", Kind.TEXT),
        ("TIMESTAMP WITH TIME ZONE", Kind.TIMESTAMPTZ), ("TIMESTAMP_NS", Kind.TIMESTAMP), ("INTEGER[]", Kind.NUMBERS),
        ("BLOB", None),
        ("STRUCT(a INTEGER)", None), ("MAP(VARCHAR, INTEGER)", None), ("INTERVAL", None), ("INTEGER[3]", Kind.NUMBERS),
        ("VARCHAR[]", Kind.TEXTS),
    ],
)  # fmt: skip
def test_kinds(sql_type: str, kind: Kind | None) -> None:
    assert kind_of_type(sql_type) == kind


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("SELECT nothing", "nothing"),
        ("SELECT 1,\n  nothing\nFROM range(3)", "nothing"),
        ("SELECT 'ä日本', nothing", "nothing"),
        (f"SELECT {'1 + ' * 100} nothing {'+ 1' * 100}", "nothing"),
        ("SELECT * FROM nowhere", "nowhere"),
        ("SELECT 'x'::INTEGER", "::INTEGER"),
        ("SELECT * FRO t", "t"),
    ],
)
def test_errors_point_at_their_place(engine: DuckDBEngine, text: str, place: str) -> None:
    with pytest.raises(DatabaseError) as raised:
        list(engine.run(text).batches)
    error = raised.value
    assert error.span is not None
    assert place in text[slice(error.span[0], error.span[1] + len(place))]
    assert "LINE" not in str(error.message)
    assert "\n" not in error.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ATTACH '/nowhere/x.db' AS y", "Cannot open file"),
        ("DETACH nowhere", "Failed to detach database"),
        ("USE nowhere", 'No catalog + schema named "nowhere"'),
    ],
)
def test_errors_of_what_cannot_be_explained(engine: DuckDBEngine, text: str, message: str) -> None:
    """Binding them again, to find the place, fails for another reason than they did."""
    with pytest.raises(DatabaseError, match=re.escape(message)):
        list(engine.run(text).batches)


def test_batches_are_bounded(engine: DuckDBEngine) -> None:
    batches = engine.run(f"SELECT * FROM range({3 * BATCH_ROWS})").batches
    sizes = [batch.num_rows for batch in batches]
    assert sum(sizes) == 3 * BATCH_ROWS
    assert max(sizes) <= BATCH_ROWS


def test_a_question_about_many_statements_runs_none(engine: DuckDBEngine) -> None:
    with pytest.raises(DatabaseError, match="must be one SELECT"):
        engine.describe("SELECT 1; CREATE TABLE t (a INTEGER)")
    assert engine.table_rows(["t"]) is None


def test_table_rows(engine: DuckDBEngine) -> None:
    engine.run('CREATE TABLE "odd ""name" AS FROM range(3)')
    engine.run("CREATE TEMP TABLE passing AS FROM range(2)")
    engine.run("CREATE VIEW v AS FROM range(4)")
    found = [engine.table_rows(parts) for parts in (['odd "name'], ["main", 'ODD "name'], ["passing"], ["v"], ["nowhere", "v"])]
    assert found == [3, 3, 2, 4, None]


def test_transactions_are_seen(engine: DuckDBEngine) -> None:
    assert engine.transaction() is None
    engine.run("BEGIN")
    assert engine.transaction() is not None
    with pytest.raises(EngineError):
        engine.run("SELECT * FROM nowhere")
    assert engine.transaction() is not None
    engine.run("ROLLBACK")
    assert engine.transaction() is None


def test_functions_of_the_database(engine: DuckDBEngine) -> None:
    engine.run("CREATE MACRO mine(a) AS a + 1")
    engine.run("CREATE MACRO mine_too() AS TABLE SELECT 1")
    for name in ("mine", "MINE_TOO", "read_csv", "row_number", "coalesce", "values", "in", "struct_pack"):
        assert engine.has_function(name), name
    for name in ("predict", "churn", "sales.churn", 'quo"te', "two\nlines"):
        assert not engine.has_function(name), name


def double(x: pa.Array) -> pa.Array:
    return pa.compute.multiply(x, 2)


def test_a_function_outlives_the_connection_that_made_it(tmp_path: Path) -> None:
    path = str(tmp_path / "a.duckdb")
    one, two = DuckDBEngine.open(path), DuckDBEngine.open(path)

    def make_double() -> object:
        def body(x: pa.Array) -> pa.Array:
            return double(x)

        return body

    one.create_function("twice", make_double(), ["BIGINT"], "BIGINT", arrow=True)  # type: ignore[arg-type]
    two.create_function("twice", make_double(), ["BIGINT"], "BIGINT", arrow=True)  # type: ignore[arg-type]
    one.close()
    for _ in range(20):
        [batch] = two.run("SELECT sum(twice(range)) AS s FROM range(1000)").batches
        assert batch.to_pylist() == [{"s": 999_000}]
    two.close()
    again = DuckDBEngine.open(path)
    assert not again.has_function("twice")
    again.close()
