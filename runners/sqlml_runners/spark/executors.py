"""What runs in Spark's Python workers: batches of rows in, batches out.  No session, no files of the driver's.

Each function takes Arrow batches and a plain value that says what to do; what it needs of a model travels within that value.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sqlml.features.dataset import Values, canonical
from sqlml.features.encode import FeatureEncoder
from sqlml.types import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sqlml.bundles.model import Model
    from sqlml.contracts import Predictor
    from sqlml.features.transform import Transform

Batches = Iterator[pa.RecordBatch]


@dataclass(frozen=True)
class Columns:
    """Which columns of a batch hold which inputs: (name, column, kind)."""

    items: tuple[tuple[str, str, Kind], ...]

    def read(self, batch: pa.RecordBatch) -> dict[str, Values]:
        """The inputs by name, in the Arrow types of their kinds."""
        return {name: canonical(batch.column(column), kind) for name, column, kind in self.items}


@dataclass(frozen=True)
class Score:
    """A predictor and its encoder, as text and files; ``x``: give the feature matrix as well."""

    algorithm: str
    encoder: str
    files: Mapping[str, bytes]
    x: bool


# --- TRANSFORM --------------------------------------------------------------------------------------------------------


def transform_batches(batches: Batches, columns: Columns, document: str, outputs: Columns, kept: Sequence[str]) -> Batches:
    """Input columns → the columns that TRANSFORM makes of them, and the ``kept`` ones."""
    transform = _transform(document)
    for batch in batches:
        made = transform.apply(columns.read(batch), batch.num_rows)
        arrays = [_exchanged(made[name], kind) for name, _, kind in outputs.items]
        arrays += [batch.column(name) for name in kept]
        yield pa.RecordBatch.from_arrays(arrays, names=[*(column for _, column, _ in outputs.items), *kept])


@lru_cache(maxsize=4)
def _transform(document: str) -> Transform:
    from sqlml.features.transform import Transform

    return Transform.from_json(json.loads(document))


def _exchanged(values: Values, kind: Kind) -> pa.Array:
    """Values in a type that Spark knows; times as microseconds since midnight."""
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks)
    return whole.cast(pa.int64()) if kind is Kind.TIME else whole


# --- features ---------------------------------------------------------------------------------------------------------


def encode_batches(batches: Batches, columns: Columns, encoder: str, kept: Sequence[str]) -> Batches:
    """Rows → ``features``, a list of float32 for each, and the ``kept`` columns."""
    coder = _encoder(encoder)
    for batch in batches:
        if batch.num_rows:
            x = coder.transform(columns.read(batch), batch.num_rows)
            arrays = [_lists(x, pa.float32()), *(batch.column(name) for name in kept)]
            yield pa.RecordBatch.from_arrays(arrays, names=["features", *kept])


def moment_batches(batches: Batches, columns: Columns, encoder: str) -> Batches:
    """For each partition one row: the sum of the weights ``w``, of the weighted features, and of their squares."""
    coder = _encoder(encoder)
    k = len(coder.names)
    weight, sums, squares = 0.0, np.zeros(k), np.zeros(k)
    for batch in batches:
        x = np.asarray(coder.transform(columns.read(batch), batch.num_rows), np.float64)
        w = np.asarray(batch.column("w").to_numpy(zero_copy_only=False), np.float64)
        weight += float(w.sum())
        sums += w @ x
        squares += w @ (x * x)
    arrays = [pa.array([weight]), _lists(sums[None], pa.float64()), _lists(squares[None], pa.float64())]
    yield pa.RecordBatch.from_arrays(arrays, names=["weight", "sums", "squares"])


@lru_cache(maxsize=4)
def _encoder(document: str) -> FeatureEncoder:
    return FeatureEncoder.from_json(json.loads(document))


def _lists(x: NDArray[Any], kind: pa.DataType) -> pa.ListArray:
    """A matrix as one list for each row; 0-dimensional rows (n,) as lists of one."""
    flat = x.reshape(len(x), -1)
    offsets = pa.array(np.arange(len(flat) + 1) * flat.shape[1], pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(flat).ravel(), kind))


# --- scores -----------------------------------------------------------------------------------------------------------


def score_batches(batches: Batches, columns: Columns, score: Score, kept: Sequence[str]) -> Batches:
    """Rows → ``raw``, a list of what the predictor gives for each, perhaps ``features``, and the ``kept`` columns."""
    coder = _encoder(score.encoder)
    predictor = _predictor(score)
    for batch in batches:
        x = coder.transform(columns.read(batch), batch.num_rows)
        raw = np.asarray(predictor.predict(x), np.float64)
        arrays = [_lists(raw, pa.float64()), *([_lists(x, pa.float32())] if score.x else [])]
        arrays += [batch.column(name) for name in kept]
        yield pa.RecordBatch.from_arrays(arrays, names=["raw", *(["features"] if score.x else []), *kept])


_predictors: dict[str, Predictor] = {}


def _predictor(score: Score) -> Predictor:
    key = _digest(score.files)
    if key not in _predictors:
        from sqlml.registry import get_algorithm

        with tempfile.TemporaryDirectory(prefix="sqlml-") as folder:
            write_files(Path(folder), score.files)
            _predictors.clear()  # the one before is of another job
            _predictors[key] = get_algorithm(score.algorithm).load(Path(folder))
    return _predictors[key]


# --- predictions ------------------------------------------------------------------------------------------------------


def predict_batches(
    batches: Batches, files: Mapping[str, bytes], sha256: str, times: Sequence[str], zones: Mapping[str, str]
) -> Batches:
    """Rows → all their columns, then those that PREDICT MODEL adds.

    ``times`` are times as microseconds since midnight; ``zones`` the time zones of moments, where not the session's.
    """
    model = bundle_model(files, sha256)
    for batch in batches:
        given = {name: batch.column(name) for name in batch.schema.names}
        rows = {name: canonical(array, Kind.TIME) if name in times else array for name, array in given.items()}
        rows |= {name: given[name].cast(pa.timestamp("us", zone)) for name, zone in zones.items()}
        added = model.full(rows)
        names = [*given, *added.schema.names]
        arrays = [*given.values(), *(added.column(i) for i in range(added.num_columns))]
        yield pa.RecordBatch.from_arrays(arrays, names=names)


_models: dict[str, Model] = {}


def bundle_model(files: Mapping[str, bytes], sha256: str) -> Model:
    """The model of a bundle's files; opened once in each worker."""
    if sha256 not in _models:
        from sqlml.bundles.model import Model

        with tempfile.TemporaryDirectory(prefix="sqlml-") as folder:
            write_files(Path(folder), files)
            _models.clear()
            _models[sha256] = Model.open(Path(folder), sha256)
    return _models[sha256]


def read_files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its name within."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """The inverse of ``read_files``."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return digest.hexdigest()
