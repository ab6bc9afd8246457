"""The tables that are measured: drawn, with different rows throughout, since repeated ones let a processor learn the branches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

import sqlml

FEATURES = 28
CATEGORIES = (5, 50, 500, 5_000)
"""How many values the texts of the mixed table have, column by column."""
PART = 1_000_000
"""Rows drawn at a time: large tables never stand in memory."""


def make_data(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """28 floats (rows, 28) and a class of two that follows from some of them."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, FEATURES), dtype=np.float32)
    y = (x[:, 0] * x[:, 1] + np.sin(x[:, 2] * 2) + x[:, 3] + rng.standard_normal(rows) > 0).astype(np.int64)
    return x, y


def floats(rows: int, seed: int = 0) -> pa.Table:
    """``id``, ``f0`` to ``f27``, ``y``."""
    x, y = make_data(rows, seed)
    return pa.table({"id": _ids(rows, seed)} | {f"f{i}": x[:, i] for i in range(FEATURES)} | {"y": y})


def mixed(rows: int, seed: int = 0) -> pa.Table:
    """Twelve doubles, twelve integers, four texts of 5 to 5,000 values; a tenth of every column but the target is NULL."""
    rng = np.random.default_rng(seed)
    columns: dict[str, pa.Array] = {"id": _ids(rows, seed)}
    score = np.zeros(rows)

    def with_nulls(values: np.ndarray) -> pa.Array:
        return pa.array(values, mask=rng.random(rows) < 0.1)

    for i in range(12):
        number = rng.standard_normal(rows)
        score += number * (i < 4)
        columns[f"n{i}"] = with_nulls(number)
    for i in range(12):
        whole = rng.integers(0, 10 ** (1 + i // 2), rows)
        score += (whole % 7 > 3) * (i < 3)
        columns[f"i{i}"] = with_nulls(whole)
    for i, count in enumerate(CATEGORIES):
        code = rng.integers(0, count, rows)
        score += (code * 7919 % count > count // 2) * 1.5
        texts = pa.array([f"value {j:05d}" for j in range(count)]).take(pa.array(code, mask=rng.random(rows) < 0.1))
        columns[f"t{i}"] = texts
    y = (score + rng.standard_normal(rows) > 4.5).astype(np.int64)
    return pa.table(columns | {"y": pa.array(y)})


TABLES = {"floats": floats, "mixed": mixed}


def load_table(connection: sqlml.Connection, name: str, rows: int, folder: Path) -> None:
    """A table of ``TABLES`` in the database, and as ``name.parquet`` in the folder."""
    import pyarrow.parquet as pq

    file = folder / f"{name}.parquet"
    with pq.ParquetWriter(file, TABLES[name](0).schema) as writer:
        for first in range(0, rows, PART):
            writer.write_table(TABLES[name](min(PART, rows - first), first), row_group_size=122_880)
    connection.execute(f"CREATE TABLE {name} AS FROM '{file}'")


def _ids(rows: int, first: int) -> np.ndarray:
    return np.arange(first, first + rows)
