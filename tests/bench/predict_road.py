"""One road of ``predict``, in a process of its own: ``python -m tests.bench.predict_road FOLDER CASE TABLE ROAD RUNS``."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

import sqlml
from sqlml.algorithms.xgboost import TreePredictor
from sqlml.bundles.model import Model
from sqlml.errors import NotSupportedError
from sqlml.exports.sql import model_sql
from tests.bench.measuring import Figure, compare, peak_growth, tell

CORES = os.cpu_count() or 1
BLOCK = 16_384
ROADS = {
    "SELECT avg(PREDICT_PROBA)": "SELECT avg(PREDICT_PROBA({m}, 1)) FROM {t}",
    "CREATE TABLE AS PREDICT_PROBA": "CREATE OR REPLACE TABLE s AS SELECT id, PREDICT_PROBA({m}, 1) AS p FROM {t}",
    "… from Parquet": "CREATE OR REPLACE TABLE s AS SELECT id, PREDICT_PROBA({m}, 1) AS p FROM '{p}'",
    "PREDICT INTO": "PREDICT MODEL {m} INTO s REPLACE AS FROM {t}",
    "PREDICT INTO from Parquet": "PREDICT MODEL {m} INTO s REPLACE AS FROM '{p}'",
    "ML.PREDICT": "CREATE OR REPLACE TABLE s AS SELECT id, predicted_y FROM ML.PREDICT(MODEL {m}, (FROM {t}))",
    "WHERE, a twentieth of the rows": "SELECT count(*) FROM {t} WHERE id % 20 = 0 AND PREDICT_PROBA({m}, 1) > 0.5",
    "WHERE and SELECT repeat the call": (
        "CREATE OR REPLACE TABLE s AS SELECT id, PREDICT_PROBA({m}, 1) AS p FROM {t} WHERE PREDICT_PROBA({m}, 1) > 0.5"
    ),
    "LIMIT 1000": "SELECT PREDICT_PROBA({m}, 1) FROM {t} LIMIT 1000",
    "pandas": "",
    "EXPORT … FORMAT sql": "",
}
PEERS = {"onnxruntime": "onnxruntime", "daal4py": "daal4py", "treelite": "treelite"}
"""Other kernels, on the same ready array, and the module that each needs."""


def main() -> None:
    folder, case, table, road, runs = sys.argv[1:]
    place, name = Path(folder), case.replace(" ", "_")
    with sqlml.connect(place / "bench.duckdb") as connection:
        row = connection.execute(f"SELECT bundle FROM sqlml.versions WHERE model = '{name}'").fetchone()
        assert row is not None
        model = Model.open(Path(row[0]))
        figure = Figure(case, road)
        if road in PEERS:
            action: Callable[[], object] | str = peer(road, model, connection, table)
        elif road == "EXPORT … FORMAT sql":
            action = exported(connection, model, table)
        elif road == "pandas":
            action = lambda: pandas_road(connection, model, table, place / "pandas.duckdb")  # noqa: E731
        else:
            query = ROADS[road].format(m=name, t=table, p=place / f"{table}.parquet")
            action = lambda: run(connection, query)  # noqa: E731
        if isinstance(action, str):
            figure.skipped = action
            tell(figure)
            return
        run(connection, f"SELECT * FROM {table} LIMIT 1")
        grown = peak_growth(action)
        x = matrix(connection, model, table)
        figure.memory = None if grown is None else grown / x.nbytes
        tell(compare(figure, bare(model, x), action, int(runs)))


def exported(connection: sqlml.Connection, model: Model, table: str) -> Callable[[], object] | str:
    """The model as one SELECT, which the database computes by itself."""
    try:
        query = model_sql(model, table=table, keep=["id"])
    except NotSupportedError as error:
        return str(error).splitlines()[0][:80]
    return lambda: run(connection, f"CREATE OR REPLACE TABLE s AS {query}")


def run(connection: sqlml.Connection, query: str) -> object:
    cursor = connection.execute(query)
    return cursor.fetch_arrow_table() if cursor.description else None


def matrix(connection: sqlml.Connection, model: Model, table: str) -> np.ndarray:
    """The features as the library takes them: float32, categories as codes."""
    return model.encode(connection.execute(f"FROM {table}").fetch_arrow_table())


def bare(model: Model, x: np.ndarray) -> Callable[[], object]:
    """The library itself on the ready array, with all cores."""
    predictor = model.predictor
    predictor.threads = CORES
    if isinstance(predictor, TreePredictor):
        return lambda: predictor.booster.inplace_predict(x)
    return lambda: predictor.predict(x)


def pandas_road(connection: sqlml.Connection, model: Model, table: str, database: Path) -> None:
    """What people write: a frame, its texts as codes, the library, the frame written back."""
    frame = connection.execute(f"FROM {table}").fetch_arrow_table().to_pandas()
    columns: list[Any] = []
    for column in model.encoder.columns:
        values = frame[column.name]
        if column.categories:
            codes = values.astype(_categorical(column.categories)).cat.codes.to_numpy(np.float32)
            codes[codes < 0] = np.nan
            columns.append(codes)
        else:
            columns.append(values.to_numpy(np.float32))
    dense = model.encoder.encoding == "dense"
    x = model.encode(pa.Table.from_pandas(frame)) if dense else np.column_stack(columns)
    scores = np.asarray(bare(model, x)())
    frame["p"] = scores if scores.ndim == 1 else scores[:, 1]
    with duckdb.connect(database) as own:
        own.register("frame", frame)
        own.execute("CREATE OR REPLACE TABLE s AS FROM frame")


def _categorical(categories: tuple[str, ...]) -> Any:
    import pandas as pd

    return pd.CategoricalDtype(list(categories))


def peer(name: str, model: Model, connection: sqlml.Connection, table: str) -> Callable[[], object] | str:
    """Another kernel of the same model on the same array, or why there is none."""
    try:
        importlib.import_module(PEERS[name])
    except ImportError:
        return "not installed"
    x = matrix(connection, model, table)
    if name == "onnxruntime":
        return _onnxruntime(model, x)
    if not isinstance(model.predictor, TreePredictor):
        return "for trees only"
    if name == "daal4py":
        import daal4py  # type: ignore[import-not-found]

        try:
            own = daal4py.mb.convert_model(model.predictor.booster)
        except (TypeError, ValueError, RuntimeError) as error:
            return f"it cannot convert the model: {error}"[:80]
        return lambda: own.predict_proba(x)
    import treelite  # type: ignore[import-not-found]

    try:
        trees = treelite.frontend.from_xgboost(model.predictor.booster)
    except treelite.TreeliteError as error:
        return str(error).strip().splitlines()[0][:80]
    return lambda: treelite.gtil.predict(trees, x, nthread=CORES)


def _onnxruntime(model: Model, x: np.ndarray) -> Callable[[], object] | str:
    import onnxruntime

    graph = model.predictor.onnx()
    if graph is None:
        return "the model has no ONNX form"
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return lambda: [session.run(None, {session.get_inputs()[0].name: x[i : i + BLOCK]}) for i in range(0, len(x), BLOCK)]


if __name__ == "__main__":
    main()
