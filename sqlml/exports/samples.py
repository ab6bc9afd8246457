"""Rows made for a model, to compare an export with it: values at and beside its thresholds, NULLs, unseen words."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sqlml.algorithms.boosters import read_forest
from sqlml.algorithms.xgboost import TreePredictor
from sqlml.plan import InputColumn
from sqlml.types import Kind, arrow_type

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sqlml.bundles.model import Model

ROWS = 256
_UNSEEN = "never seen in training"
_TODAY = datetime.datetime(2024, 2, 29, 13, 37, 42)


def sample_rows(model: Model, n: int = ROWS, seed: int = 0) -> pa.Table:
    """Rows of the model's inputs, drawn by column: the same for the same model and seed."""
    random = np.random.default_rng(seed)
    pools = _pools(model)
    columns = {}
    for i in model.inputs:
        pool = pools.get(i.name) or _plain(i, model.manifest.example.get(i.name))
        drawn = [pool[j] for j in random.integers(0, len(pool), n)]
        columns[i.name] = pa.array([None if random.random() < 0.08 else value for value in drawn], arrow_type(i.kind))
    return pa.table(columns, schema=pa.schema([(i.name, arrow_type(i.kind)) for i in model.inputs]))


def _pools(model: Model) -> dict[str, list[Any]]:
    """For numbers and texts: what tells rows apart."""
    pools: dict[str, list[Any]] = {}
    for head in model.heads:
        thresholds = _thresholds(head.predictor, len(head.encoder.names))
        for j, code in enumerate(head.encoder.columns):
            pool = pools.setdefault(code.name, [])
            if code.kind is Kind.TEXT:
                pool += [*code.categories[:200], _UNSEEN]
            elif code.kind is Kind.NUMBER:
                features = np.flatnonzero(head.encoder.input_of == j)
                at = [float(t) for f in features for t in thresholds[f]]
                beside = [float(np.nextafter(np.float32(t), np.float32(s))) for t in at for s in (-np.inf, np.inf)]
                around = [m + s * d for m, s in zip(code.means, code.scales, strict=True) for d in (-2.0, -0.3, 0.0, 0.7, 2.0)]
                pool += [*at, *beside, *around]
                example = model.manifest.example.get(code.name)
                pool += [float(example)] if isinstance(example, int | float) else []
    return pools


def _thresholds(predictor: Any, features: int) -> list[NDArray[np.float32]]:
    found: list[list[np.float32]] = [[] for _ in range(features)]
    if isinstance(predictor, TreePredictor):
        for tree in read_forest(predictor.booster).trees:
            for node in np.flatnonzero(tree.left >= 0):
                if node not in tree.right_codes and np.isfinite(tree.value[node]):
                    found[int(tree.feature[node])].append(tree.value[node])
    return [np.unique(np.array(values, np.float32))[:500] for values in found]


def _plain(column: InputColumn, example: Any) -> Sequence[Any]:
    """Values of a kind, where nothing is known of the column."""
    days = [_TODAY + datetime.timedelta(days=float(d), hours=float(d) / 7) for d in (-20_000, -400, -31, 0, 1, 30, 366, 9000)]
    values: dict[Kind, list[Any]] = {
        Kind.NUMBER: [-1.5, 0.0, 1.0, 2.0, 41.0, 1000.25, *([float(example)] if isinstance(example, int | float) else [])],
        Kind.BOOLEAN: [False, True],
        Kind.TEXT: [_UNSEEN, "a", *([example] if isinstance(example, str) else [])],
        Kind.DATE: [d.date() for d in days],
        Kind.TIME: [d.time() for d in days],
        Kind.TIMESTAMP: days,
        Kind.TIMESTAMPTZ: [d.replace(tzinfo=datetime.UTC) for d in days],
        Kind.NUMBERS: [example] if isinstance(example, list) else [[0.0]],
        Kind.TEXTS: [example] if isinstance(example, list) else [["a"]],
    }
    return values[column.kind]
