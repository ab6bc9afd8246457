"""Versions as functions of DuckDB, and their parity with the library itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sqlml_dialect import quote_identifier
from sqlml_udfs.duckdb.arrow import DuckDBTarget

import sqlml
from sqlml.bundles.model import Model
from sqlml.data import sample
from sqlml.engines.duckdb.engine import DuckDBEngine
from sqlml.errors import DatabaseError
from sqlml.types import sql_type
from tests.bundles.handmade import HEADS, N, fit_transform, open_bundle, open_sort, rows_of, same
from tests.kits import check_target


@pytest.fixture
def engine() -> Iterator[DuckDBEngine]:
    opened = DuckDBEngine.open(":memory:")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    """A model of each sort, made when it is first asked for."""
    return cache(lambda sort: open_sort(tmp_path_factory.mktemp("bundle"), sort))


def run(engine: DuckDBEngine, query: str) -> list[Any]:
    """The first column of a query's rows."""
    return [row for batch in engine.run(query).batches for row in batch.column(0).to_pylist()]


def call(engine: DuckDBEngine, model: Model, output: str) -> str:
    """The call of one output over columns of the inputs' own names."""
    arguments = {i.name: quote_identifier(i.name) for i in model.inputs}
    return DuckDBTarget(engine).call_sql(f"u{id(model)}", output, model.signature, lambda: model, arguments)


def make_table(engine: DuckDBEngine, table: pa.Table, times: int = 1) -> None:
    """The table ``t``: the rows, each ``times`` over, with their number ``row``."""
    engine.connection.register("given", table.append_column("row", pa.array(range(table.num_rows))))
    engine.connection.execute(f"CREATE TABLE t AS SELECT g.* FROM given g, range({times})")
    engine.connection.unregister("given")


def outputs_of(model: Model, table: pa.Table) -> dict[str, pa.Array]:
    """Every output of a model's functions, as the model itself gives it."""
    found = {"predict": model.predict(table), "full": model.full(table).to_struct_array()}
    if len(model.heads) == 1 and model.classes:
        raw = model.raw(table)
        found |= {"probs": model.probs_map(raw), "proba:1": pa.array(np.asarray(raw[:, 1], np.float64))}
    if len(model.heads) == 1 and model.head.explains:
        found |= {"reasons:2": model.reasons(table, 2), "explain:2": model.explain(table, 2).to_struct_array()}
    return found


@pytest.mark.parametrize("sort", HEADS)
def test_the_contract(models: Callable[[str], Model], engine: DuckDBEngine, sort: str) -> None:
    check_target(DuckDBTarget(engine), lambda query: run(engine, query), models(sort))


@pytest.mark.parametrize("sort", HEADS)
def test_every_output_is_the_models_own(models: Callable[[str], Model], engine: DuckDBEngine, sort: str) -> None:
    model, rows = models(sort), rows_of(sort)
    make_table(engine, rows)
    for output, expected in outputs_of(model, rows).items():
        sql = call(engine, model, output)
        assert same(run(engine, f"SELECT {sql} FROM t"), expected.to_pylist()), output
        assert run(engine, f"SELECT {sql} FROM t WHERE false") == []


@pytest.mark.parametrize("sort", HEADS)
def test_types_are_the_models_own(models: Callable[[str], Model], engine: DuckDBEngine, sort: str) -> None:
    model, rows = models(sort), rows_of(sort)
    make_table(engine, rows)
    for output, expected in outputs_of(model, rows).items():
        typed = [f"typeof({call(engine, model, output)})", f"typeof(CAST(NULL AS {sql_type(expected.type)}))"]
        assert len(set(run(engine, f"SELECT unnest([{', '.join(typed)}]) FROM (FROM t LIMIT 1)"))) == 1, output


@pytest.mark.parametrize("sort", ["text", "several", "components", "transformed", "only transform", "lists"])
def test_many_threads(models: Callable[[str], Model], engine: DuckDBEngine, sort: str) -> None:
    model, rows = models(sort), rows_of(sort)
    engine.connection.execute("SET threads = 4")
    make_table(engine, rows, 800)
    if sort != "components":  # the last bits of a sum of products depend on how many rows are summed at once
        answers = f"SELECT row, count(DISTINCT {call(engine, model, 'predict')}) AS n FROM t GROUP BY row"
        assert run(engine, f"SELECT {{'rows': count(*), 'most': max(n)}} FROM ({answers})") == [{"rows": N, "most": 1}]
    cursors = [engine.connection.cursor() for _ in range(4)]
    query = f"SELECT {call(engine, model, 'full')} FROM (FROM t LIMIT 3000)"
    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(lambda cursor: cursor.execute(query).fetchall(), cursors)
    assert all(same(other, first) for other in others)


def test_views_over_every_sort(models: Callable[[str], Model], engine: DuckDBEngine) -> None:
    make_table(engine, rows_of("several"))
    for i, sort in enumerate(sort for sort in HEADS if sort != "lists"):
        full = call(engine, models(sort), "full")
        engine.connection.execute(f"CREATE VIEW v{i} AS SELECT unnest({full}) FROM t")
        found = engine.connection.cursor().execute(f"FROM v{i} LIMIT 3000")
        assert [d[0] for d in found.description] == models(sort).full_schema.names
        assert len(found.fetchall()) == rows_of("several").num_rows


@pytest.mark.parametrize("cast", ["DOUBLE[]", "FLOAT[3]", "INTEGER[]", "DECIMAL(9,2)[]"])
def test_lists_of_every_type(models: Callable[[str], Model], engine: DuckDBEngine, cast: str) -> None:
    sql = call(engine, models("lists"), "proba:1")
    row = f"(SELECT CAST([1, 2, 3] AS {cast}) AS vec, CAST(['t1'] AS VARCHAR[]) AS tags, 1 AS n)"
    expected = models("lists").probabilities({"vec": pa.array([[1.0, 2, 3]]), "tags": pa.array([["t1"]]), "n": pa.array([1])})
    assert run(engine, f"SELECT {sql} FROM {row}") == pytest.approx([expected[0, 1]])


def test_wide_vectors(tmp_path: Path, engine: DuckDBEngine) -> None:
    """A chunk of 2,048 rows of 1,500 numbers each, in and out."""
    small = pa.table({"vec": pa.array([[1.0, 2.0]] * 5)})
    transform = fit_transform(small, vec="vec", total="list_sum(vec)", doubled="list_transform(vec, lambda x: x * 2)")
    model = open_bundle(tmp_path, small, transform=transform)
    engine.connection.execute(
        "CREATE TABLE t AS SELECT list_transform(range(1500), lambda x: x + i)::FLOAT[1500] AS vec FROM range(5000) r(i)"
    )
    full = call(engine, model, "full")
    found = run(engine, f"SELECT {{'n': len(f.vec), 'total': f.total, 'last': f.doubled[1500]}} FROM (SELECT {full} AS f FROM t)")
    totals = [1500 * 1499 / 2 + 1500 * i for i in range(5000)]
    assert sorted((row["n"], row["total"], row["last"]) for row in found) == [
        (1500, total, 2.0 * (1499 + i)) for i, total in enumerate(totals)
    ]


def test_a_row_that_a_transform_cannot_compute(tmp_path: Path, engine: DuckDBEngine) -> None:
    small = pa.table({"word": pa.array(["1", "2"])})
    model = open_bundle(tmp_path, small, transform=fit_transform(small, number="CAST(word AS DOUBLE)"))
    make_table(engine, pa.table({"word": ["3", "x"]}))
    with pytest.raises(DatabaseError, match="TRANSFORM cannot compute a row: Could not convert string 'x' to DOUBLE"):
        run(engine, f"SELECT {call(engine, model, 'predict')} FROM t")


@pytest.mark.slow
def test_equal_to_xgboost_itself(tmp_path: Path) -> None:
    """Held against the library's own predictions from the bundle's native file, with NULLs and unseen categories."""
    import xgboost

    with sqlml.connect(tmp_path / "bank.duckdb") as connection:
        connection.execute(f"CREATE TABLE bank AS FROM '{sample('bank_marketing')}'")
        connection.execute("TRAIN MODEL deposit TARGET y EXCLUDE (duration) WITH (n_estimators = 40) AS FROM bank")
        connection.execute("""
            CREATE TABLE rows AS SELECT * REPLACE (if(hash(age, balance) % 5 = 0, NULL, age) AS age,
            if(hash(balance, day) % 7 = 0, NULL, if(hash(balance, age) % 3 = 0, 'astronaut', job)) AS job)
            FROM bank LIMIT 20000""")
        [(bundle,)] = connection.execute("SELECT bundle FROM sqlml.versions").fetchall()
        found = connection.execute("SELECT PREDICT_PROBA(deposit, 'yes') AS p FROM rows").fetch_arrow_table()["p"].to_numpy()
        data = connection.execute("FROM rows").fetch_arrow_table()
    model = Model.open(Path(bundle))
    booster = xgboost.Booster(model_file=next(Path(bundle, "native").glob("model.*")))
    kinds = ["c" if is_category else "q" for is_category in model.encoder.categorical]
    matrix = xgboost.DMatrix(model.encode(pa.table(data)), feature_types=kinds, enable_categorical=True)
    assert np.abs(booster.predict(matrix) - found).max() < 1e-6
