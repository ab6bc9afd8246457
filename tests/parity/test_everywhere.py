"""The same odd rows give the same answers wherever a version is asked: every algorithm, every kind of column, every place.

The yardstick is the version itself, read from its bundle.  Places that cannot compute a model say so; which, is asserted.
"""

from __future__ import annotations

import json
import math
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sqlml
from sqlml.bundles.model import Model
from sqlml.contracts import WritableEngine
from sqlml.errors import NotSupportedError
from sqlml.exports.onnx import difference, matrix_graph
from sqlml.registry import ALGORITHMS, get_algorithm
from sqlml.types import Task, label_text
from tests.parity.rows import SCHEMA, odd_rows, training_rows
from tests.servers import new_postgres, spark_session
from tests.sessions import session_of

pytestmark = pytest.mark.slow

OPTIONS = {
    "xgboost_classifier": "n_estimators = 12",
    "xgboost_regressor": "n_estimators = 12",
    "random_forest_classifier": "n_estimators = 6, max_depth = 5",
    "random_forest_regressor": "n_estimators = 6, max_depth = 5",
    "isolation_forest": "n_estimators = 8",
    "kmeans": "n_clusters = 4",
    "pca": "n_components = 3",
    "mlp_classifier": "max_epochs = 6",
    "mlp_regressor": "max_epochs = 6",
}
TARGETS = {Task.CLASSIFICATION: ("bought", "level"), Task.REGRESSION: ("spent",)}
CASES = {
    f"{name}_{target}" if target else name: (name, target)
    for name in ALGORITHMS
    if name != "transform_only"
    for target in TARGETS.get(get_algorithm(name).task, (None,))
}
NO_SQL_FORM = {name for name in CASES if name.startswith(("nearest_neighbors", "mlp"))}
"""Models that a function of plain SQL cannot compute."""


@dataclass(frozen=True)
class World:
    """A database with a version of every algorithm, and the same rows in every place."""

    connection: sqlml.Connection
    rows: pa.Table
    database: Path
    postgres: str
    parquet: Path

    def model(self, name: str) -> Model:
        version = session_of(self.connection)._catalog.resolve(name)
        return Model.open(version.bundle, version.sha256)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("parity")
    urls = new_postgres()
    url = next(urls)
    connection = sqlml.connect(folder / "parity.duckdb")
    _store(connection, "known", training_rows())
    for name, (algorithm, target) in CASES.items():
        others = [t for t in ("bought", "level", "spent") if t != target]
        given = f"TARGET {target} " if target else ""
        with_options = f" WITH ({OPTIONS[algorithm]})" if algorithm in OPTIONS else ""
        connection.execute(
            f"TRAIN MODEL {name} USING {algorithm} {given}EXCLUDE (id, {', '.join(others)}){with_options} ON inline AS FROM known"
        )
    rows = odd_rows(_thresholds(connection))
    _store(connection, "odd", rows)
    connection.execute(f"CREATE CONNECTION pg TYPE postgres WITH (url = '{url.replace('postgres:@', 'postgres@')}')")
    engine = session_of(connection)._places.engine("pg")
    assert isinstance(engine, WritableEngine)
    engine.write(("odd",), rows.schema, iter(rows.to_batches()), "create")
    parquet = folder / "odd.parquet"
    clock = rows.schema.get_field_index("clock")
    # Spark has no type for times of day
    pq.write_table(rows.set_column(clock, "clock", rows["clock"].cast(pa.string())), parquet)
    yield World(connection, rows, folder / "parity.duckdb", url, parquet)
    for endpoint in connection.execute("SELECT endpoint FROM sqlml.endpoints").fetchall():
        connection.execute(f'UNDEPLOY ENDPOINT "{endpoint[0]}"')
    connection.close()
    next(urls, None)


def _store(connection: sqlml.Connection, name: str, table: pa.Table) -> None:
    session_of(connection)._engine.write((name,), table.schema, iter(table.to_batches()), "create")


def _thresholds(connection: sqlml.Connection) -> dict[str, list[float]]:
    """Where the boosted trees split the plain number: the values that a wrong comparison gets wrong."""
    version = session_of(connection)._catalog.resolve("xgboost_regressor_spent")
    model = Model.open(version.bundle, version.sha256)
    [place] = [i for i, name in enumerate(model.encoder.names) if name == "number"]
    frame = json.loads(model.predictor.booster.save_raw("json"))  # type: ignore[attr-defined]
    trees = frame["learner"]["gradient_booster"]["model"]["trees"]
    found = {
        split for tree in trees for i, split in enumerate(tree["split_conditions"])
        if tree["split_indices"][i] == place and tree["left_children"][i] >= 0
    }  # fmt: skip
    return {"number": sorted(found)[:12]}


def expected(world: World, name: str) -> list[Any]:
    """The version's own answers: a probability for each class, or what it predicts."""
    model = world.model(name)
    if model.classes:
        return [dict(zip(model.class_names, row, strict=True)) for row in model.raw(world.rows).tolist()]
    return list(model.predict(world.rows).to_pylist())


def assert_same(found: list[Any], wanted: list[Any], name: str, rows: list[int] | None = None) -> None:
    """Equal to 1e-6 (1e-5 for neural nets), relative to the value where it is over 1."""
    tolerance = 1e-5 if name.startswith("mlp") else 1e-6
    assert len(found) == len(wanted)
    off = [i for i, (a, b) in enumerate(zip(found, wanted, strict=True)) if not _close(a, b, tolerance)]
    shown = [(rows[i] if rows else i, found[i], wanted[i]) for i in off[:3]]
    assert not off, f"{len(off)} of {len(found)} rows differ: {shown}"


def _close(a: Any, b: Any, tolerance: float) -> bool:
    if isinstance(b, dict):
        return isinstance(a, dict) and a.keys() == b.keys() and all(_close(a[k], b[k], tolerance) for k in b)
    if isinstance(b, list | tuple):
        return len(a) == len(b) and all(_close(x, y, tolerance) for x, y in zip(a, b, strict=True))
    if isinstance(b, float) and a is not None:
        if math.isnan(b) or math.isinf(b):
            return (math.isnan(a) and math.isnan(b)) or a == b
        return bool(abs(a - b) <= tolerance * max(1.0, abs(b)))
    return bool(a == b)


def asks_probabilities(world: World, name: str) -> bool:
    return bool(session_of(world.connection)._catalog.resolve(name).classes)


# --- the places ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_duckdbs_functions(world: World, name: str) -> None:
    call = f"PREDICT_PROBA({name})" if asks_probabilities(world, name) else f"PREDICT({name})"
    found = [row[0] for row in world.connection.execute(f"SELECT {call} FROM odd ORDER BY id").fetchall()]
    assert_same([_plain(value) for value in found], expected(world, name), name)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("place", ["odd", "pg.odd"])
def test_predict_into(world: World, name: str, place: str) -> None:
    """Scored inside DuckDB, and on this side of a connection to PostgreSQL."""
    world.connection.execute(f"PREDICT MODEL {name} INTO answers REPLACE AS SELECT * FROM {place}")
    table = world.connection.execute("SELECT * FROM answers ORDER BY id").fetch_arrow_table()
    full = world.model(name).full(world.rows)
    for field in full.schema:
        wanted = full.column(field.name).to_pylist()
        if field.name.endswith("_probs"):
            wanted, found = [_listed(v) for v in wanted], [_listed(v) for v in table[field.name].to_pylist()]
        elif pa.types.is_string(field.type) and asks_probabilities(world, name):
            continue  # the likeliest class: the probabilities say more
        else:
            found = table[field.name].to_pylist()
        assert_same(found, wanted, name)


@pytest.mark.parametrize("name", CASES)
def test_postgresqls_function(world: World, name: str) -> None:
    statement = f"DEPLOY MODEL {name} TO DATABASE pg AS FUNCTION {name}"
    if name in NO_SQL_FORM:
        with pytest.raises(NotSupportedError, match="no form in SQL"):
            world.connection.execute(statement)
        return
    world.connection.execute(statement)
    probabilities = asks_probabilities(world, name)
    inputs = ", ".join(SCHEMA.names[1:])
    with psycopg.connect(world.postgres) as plain:
        found = plain.execute(f"SELECT {name}{'_proba' if probabilities else ''}({inputs}) FROM odd ORDER BY id").fetchall()
    assert_same([_plain(row[0]) for row in found], expected(world, name), name)


@pytest.mark.parametrize("name", CASES)
def test_sparks_function(world: World, name: str) -> None:
    spark = spark_session()
    sqlml.spark.register(spark, name, database=world.database)
    spark.read.parquet(str(world.parquet)).createOrReplaceTempView("odd")
    call = f"PREDICT_PROBA({name})" if asks_probabilities(world, name) else f"{name}(*)"
    table = spark.sql(f"SELECT {call} AS answer FROM odd ORDER BY id").toArrow()
    assert_same([_plain(value) for value in table["answer"].to_pylist()], expected(world, name), name)


@pytest.mark.parametrize("name", CASES)
def test_the_endpoint(world: World, name: str) -> None:
    """JSON has no infinities, of numbers or of days: rows with one are left out, and counted."""
    [(url,)] = [row[3:4] for row in world.connection.execute(f"DEPLOY MODEL {name}").fetchall()]
    rows, kept = _json_rows(world)
    assert len(world.rows) - len(kept) == 8  # of 11 odd numbers: two infinite, one no number, two beyond float32; 3 infinite days
    body = json.dumps({"rows": rows}).encode()
    address = url.replace("/v2/models/", "/models/") + "/predict"
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        answers = json.loads(response.read())["predictions"]
    wanted = expected(world, name)
    found = [_answer(answer, wanted[i]) for answer, i in zip(answers, kept, strict=True)]
    assert_same(found, [wanted[i] for i in kept], name, kept)


@pytest.mark.parametrize("name", CASES)
def test_onnx_runtime(world: World, name: str) -> None:
    model = world.model(name)
    if model.predictor.onnx() is None:
        assert name.startswith(("nearest_neighbors", "isolation_forest", "random_forest", "naive_bayes"))
        return
    rows = world.rows.filter(pa.array([i in _finite(world) for i in range(len(world.rows))]))
    assert difference(model, matrix_graph(model, model.head), rows, columns=False) <= 1e-5


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("xgboost")])
def test_the_library_itself(world: World, name: str) -> None:
    import xgboost

    model = world.model(name)
    [file] = [path for path in model.folder.rglob("*") if path.suffix in (".ubj", ".json") and path.name != "manifest.json"]
    booster = xgboost.Booster(model_file=str(file))
    types = ["c" if c else "float" for c in _categorical(booster)]
    matrix = xgboost.DMatrix(model.encode(world.rows), feature_types=types, enable_categorical=True, missing=np.nan)
    raw = booster.predict(matrix)
    own = model.raw(world.rows)
    assert np.allclose(raw if raw.ndim == own.ndim else own[:, 1], raw if raw.ndim != own.ndim else own, atol=1e-6)


# --- forms --------------------------------------------------------------------------------------------------------------


def _categorical(booster: Any) -> list[bool]:
    return [kind == "c" for kind in booster.feature_types]


def _plain(value: Any) -> Any:
    """A map, JSON or list of pairs as a dictionary; everything else as it is."""
    if isinstance(value, str) and value.startswith("{"):
        return json.loads(value)
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return dict(value)
    return value


def _listed(value: Any) -> Any:
    """The list of labels with their probabilities, whatever the order of equal ones."""
    items = json.loads(value) if isinstance(value, str) else value
    return {label_text(item["label"]): float(item["prob"]) for item in items}


def _answer(answer: dict[str, Any], wanted: Any) -> Any:
    """Of what an endpoint says of a row: the probabilities, the value, or the components."""
    probs = [value for key, value in answer.items() if key.endswith("_probs")]
    if probs:
        return probs[0]
    values = list(answer.values())
    return values[: len(wanted)] if isinstance(wanted, list) else values[0]


def _finite(world: World) -> list[int]:
    limit = float(np.finfo(np.float32).max)
    numbers = world.rows["number"].to_pylist()
    return [i for i, v in enumerate(numbers) if v is None or abs(v) <= limit]


def _json_rows(world: World) -> tuple[list[dict[str, Any]], list[int]]:
    days = world.rows["day"].cast(pa.int32()).to_pylist()
    kept = [i for i in _finite(world) if abs(days[i] or 0) < 2**31 - 1]
    rows = []
    for index in kept:
        row = world.rows.slice(index, 1).to_pylist()[0]
        del row["id"]
        rows.append({name: _json_value(value) for name, value in row.items()})
    return rows, kept


def _json_value(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str | list):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else float(value)
