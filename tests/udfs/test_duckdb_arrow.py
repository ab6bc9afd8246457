"""Versions as functions of DuckDB, and their parity with the library itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sqlml_udfs.duckdb_arrow import DuckDBTarget

import sqlml
from sqlml.bundles.model import Model
from sqlml.data import sample
from sqlml.engines.duckdb import DuckDBEngine
from tests.kits import check_target


@pytest.fixture
def engine() -> Iterator[DuckDBEngine]:
    opened = DuckDBEngine.open(":memory:")
    yield opened
    opened.close()


@pytest.mark.parametrize("name", ["buys", "spends", "groups"])
def test_the_contract(shared: sqlml.Connection, engine: DuckDBEngine, name: str) -> None:
    [(bundle,)] = shared.execute(f"SELECT bundle FROM sqlml.versions WHERE model = '{name}'").fetchall()

    def run(query: str) -> list[Any]:
        return [row for batch in engine.run(query).batches for row in batch.column(0).to_pylist()]

    check_target(DuckDBTarget(engine), run, Model.open(Path(bundle)))


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
