"""A fitted model written as a bundle: each head's own files, ONNX where it is exact, the manifest over them."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.algorithms.shuffle import read_blocks
from sqlml.bundles.manifest import NATIVE, ONNX, HeadManifest, Manifest
from sqlml.contracts import Predictor
from sqlml.plan import InputColumn
from sqlml.training.features import Features
from sqlml.training.fit import FittedHead, Matrices
from sqlml.training.source import Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ONNX_ROWS = 1_500
_ONNX_TOLERANCE = 1e-5
_SHOWN = 100
"""Rows of which the one with the fewest NULLs is the bundle's example."""


def write_bundle(
    folder: Path,
    source: Source,
    inputs: Sequence[InputColumn],
    features: Features,
    heads: Sequence[FittedHead],
    rows: NDArray[np.int64],
) -> str:
    """Write the bundle's folder; its SHA-256.  One of ``rows`` is the example that it shows."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    one = len(heads) == 1
    manifest = Manifest(
        inputs=tuple(inputs),
        heads=tuple(_write_head(folder, head, "" if one else f"-{i}") for i, head in enumerate(heads)),
        example=_example(source, inputs, rows),
        transform=features.transform.to_json() if features.transform else None,
    )
    return manifest.write(folder)


def _write_head(folder: Path, head: FittedHead, suffix: str) -> HeadManifest:
    native, onnx = NATIVE + suffix, ONNX.replace(".", f"{suffix}.")
    (folder / native).mkdir()
    head.predictor.save(folder / native)
    difference = _write_onnx(folder / onnx, head.predictor, head.x)
    exact = difference is not None and difference <= _ONNX_TOLERANCE
    return HeadManifest(
        algorithm=head.learner.algorithm.name,
        task=head.learner.task,
        target=head.learner.target,
        encoder=head.encoder.to_json(),
        options=dict(head.learner.options),
        native=native,
        onnx=onnx if exact else None,
        onnx_max_difference=difference,
    )


# --- ONNX -------------------------------------------------------------------------------------------------------------


def _write_onnx(path: Path, predictor: Predictor, x: Matrices) -> float | None:
    """Export, compare on real rows, and keep the file only where it is exact; the largest difference, None without a converter.

    The difference is a part of the largest prediction where that is above 1: float32 sums are no better than that.
    """
    try:
        model = predictor.onnx()
        if model is None:
            return None
        difference = _onnx_difference(model, predictor, _some_rows(x))
    except ModuleNotFoundError as error:
        print(f"no ONNX: the package {error.name} is not installed", file=sys.stderr)  # noqa: T201 - the job's log
        return None
    if difference <= _ONNX_TOLERANCE:
        path.write_bytes(model)
    else:
        print(f"no ONNX: it differs from the model by {difference:g}", file=sys.stderr)  # noqa: T201 - the job's log
    return difference


def import_exporters() -> None:
    """Import what ONNX's files are written and run with, which takes longer than either: while something else is computed."""
    with suppress(ImportError):  # told when a file is to be written
        importlib.import_module("onnx")
        importlib.import_module("sqlml.algorithms.onnx_runtime").onnxruntime()


def _onnx_difference(model: bytes, predictor: Predictor, x: NDArray[np.float32]) -> float:
    from sqlml.algorithms.onnx_runtime import onnxruntime

    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    expected = predictor.predict(x)
    found = np.asarray(session.run(None, {"x": x})[0], np.float64)
    if found.size != expected.size:  # as of trees without a single split
        return sys.float_info.max
    found = found.reshape(expected.shape)
    largest = np.max(np.abs(expected), initial=1.0)
    difference = float(np.max(np.abs(found - expected), initial=0.0) / largest)
    return difference if np.isfinite(difference) else sys.float_info.max


def _some_rows(x: Matrices) -> NDArray[np.float32]:
    """Rows of every part, held-out ones first, and more of those with missing values."""
    some = np.concatenate([part[:_ONNX_ROWS] for part in (x.held, x.train)])[:_ONNX_ROWS]
    gaps: list[NDArray[np.float32]] = []
    for _, block in read_blocks(x.train[: 100 * _ONNX_ROWS]):
        gaps.append(block[np.isnan(block).any(1)])
        if sum(map(len, gaps)) >= _ONNX_ROWS // 3:
            break
    return np.ascontiguousarray(np.concatenate([some, np.concatenate([some[:0], *gaps])[: _ONNX_ROWS // 3]]))


# --- the example ------------------------------------------------------------------------------------------------------


def _example(source: Source, inputs: Sequence[InputColumn], rows: NDArray[np.int64]) -> dict[str, Any]:
    """A training row without NULLs, or with few, as JSON values."""
    columns = {i.name: source.data.some(i.name, rows[:_SHOWN]) for i in inputs}
    nulls = sum(pc.is_null(c, nan_is_null=True).to_numpy(zero_copy_only=False).astype(int) for c in columns.values())
    best = int(np.argmin(nulls))
    whole = {i.name for i in inputs if pa.types.is_integer(source.data.table.schema.field(i.name).type)}
    return {name: _json_value(_python(column[best]), name in whole) for name, column in columns.items()}


def _python(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (OverflowError, ValueError):  # a time beyond Python's years
        return None


def _json_value(value: Any, whole: bool) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, list):
        return [_json_value(item, whole) for item in value]
    if isinstance(value, float):
        if not np.isfinite(value):
            return None
        return int(value) if whole else value
    return value.isoformat()
