"""What a training job does in its worker: Arrow rows in, a bundle and an outcome out.

    train.arrow → Dataset (canonical order) → split → encoder → feature matrices → fit → metrics
                → bundle/, heldout.arrow, TrainOutcome

Nothing here knows the database, the catalog or how the job was started.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.algorithms.metrics import Metrics, measure
from sqlml.algorithms.options import MAX_CATEGORIES, VALIDATION_FRACTION, check_options
from sqlml.bundles.manifest import NATIVE, ONNX, Manifest
from sqlml.contracts import Algorithm, FeatureMatrix, FitSpec, Predictor, Report, TrainingData
from sqlml.errors import TrainingDataError, count_of
from sqlml.features.dataset import Dataset, Values, read_dataset
from sqlml.features.encode import CODES, FeatureEncoder
from sqlml.features.profile import profile_notices
from sqlml.features.split import split_rows
from sqlml.features.target import encode_classes, find_classes, nothing_to_measure, plain_target, shown
from sqlml.plan import InputColumn, JobSpec, TrainOutcome
from sqlml.registry import get_algorithm
from sqlml.types import SQL_TYPE, Kind, Task, label_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

TRAIN, VALIDATION, BUNDLE, HELDOUT = "train.arrow", "validation.arrow", "bundle", "heldout.arrow"

_MOST_CLASSES = 1000
_MEASURED_ROWS = 1_000_000
"""Training metrics are of at most so many rows (in canonical order, which is as good as random)."""
_ONNX_ROWS = 1_500
_ONNX_TOLERANCE = 1e-5


@dataclass
class _Follower:
    """Passes a job's reports on, and keeps what belongs into the outcome."""

    report: Report
    curves: list[tuple[int, str, str, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            part, _, metric = name.partition("_")
            if np.isfinite(value):
                self.curves.append((step, part, metric, float(value)))
        self.report.step(step, total, metrics)

    def notice(self, text: str) -> None:
        self.notes.append(text)
        self.report.notice(text)

    def stage(self, name: str) -> None:
        self.report.stage(name)


@dataclass(frozen=True)
class _Learner:
    """Which algorithm, with which options, on which inputs and target."""

    algorithm: Algorithm
    options: Mapping[str, Any]
    inputs: tuple[InputColumn, ...]
    classes: tuple[Any, ...]
    seed: int
    threads: int


@dataclass(frozen=True)
class _Rows:
    """Some rows of a table: their numbers, and target and weight in the same order."""

    numbers: NDArray[np.int64]
    y: NDArray[Any] | None
    weight: NDArray[np.float64] | None

    def pick(self, mask: NDArray[np.bool_]) -> _Rows:
        """The rows where ``mask`` holds."""
        y = None if self.y is None else self.y[mask]
        return _Rows(self.numbers[mask], y, None if self.weight is None else self.weight[mask])

    def divide(self, fraction: float, seed: int, stratify: bool) -> tuple[_Rows, _Rows]:
        """(kept, taken) as ``split_rows`` says."""
        positions = np.arange(len(self.numbers))
        _, taken = split_rows(positions, fraction, seed, self.y if stratify else None)
        mask = np.zeros(len(positions), bool)
        mask[taken] = True
        return self.pick(~mask), self.pick(mask)


@dataclass(frozen=True)
class _Part:
    """Rows with their features."""

    rows: _Rows
    x: NDArray[np.float32]


def run_training(spec: JobSpec, report: Report) -> TrainOutcome:
    """Train as the job says.  Writes ``bundle/`` and ``heldout.arrow`` into the job's folder.

    Raises ``TrainingDataError`` for data that cannot be learnt from, ``BindError`` for options, ``JobCancelled`` from the report.
    """
    started = time.perf_counter()
    follower = _Follower(report)
    follower.stage("reading")
    threads = spec.limits.threads or available_cores()
    data = read_dataset(spec.folder / TRAIN, _columns(spec), threads)
    learner, rows = _settle(spec, data, threads, follower)
    train, valid, held = _divide(spec, learner, rows, follower)
    for text in profile_notices(data, learner.inputs, spec.target, train.numbers, train.y, learner.algorithm.task):
        follower.notice(text)
    encoder = _fit_encoder(data, learner, train)
    parts = _encode(spec, data, learner, encoder, (train, valid, held), follower)
    follower.stage("training")
    predictor = learner.algorithm.fit(_training_data(encoder, learner, parts), _fit_spec(learner), follower)
    predictor.threads = threads  # within the job nobody else computes
    follower.stage("evaluating")
    metrics = _evaluate(spec, data, learner, predictor, parts)
    follower.stage("saving")
    sha256 = _write_bundle(spec, data, learner, encoder, predictor, parts)
    return TrainOutcome(
        algorithm=learner.algorithm.name,
        task=learner.algorithm.task,
        options=dict(learner.options),
        rows=len(train.numbers) + len(valid.numbers),
        heldout_rows=len(parts[2].x),
        fingerprint=data.fingerprint,
        metrics=metrics,
        curves=tuple(follower.curves),
        bundle_sha256=sha256,
        duration=time.perf_counter() - started,
        peak_memory=_peak_memory(),
        libraries=_libraries(learner.algorithm),
        host=platform.node(),
        encodings=dict(encoder.describe()),
        notes=tuple(follower.notes),
    )


# --- what to learn ---------------------------------------------------------------------------------------------------


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_algorithm(target: str, values: Values) -> tuple[str, str]:
    """The algorithm for a target when the statement names none, and the notice that says so.

    Text, boolean or at most two values: ``xgboost_classifier``; other numbers: ``xgboost_regressor``.
    """
    plain = _need_plain(target, values)
    counts = pc.value_counts(pc.drop_null(plain))
    ranked = sorted(((c["counts"], c["values"]) for c in counts.to_pylist()), key=lambda item: -item[0])[:5]
    if not (pa.types.is_integer(plain.type) or pa.types.is_floating(plain.type)) or len(counts) <= 2:
        total = len(plain) - plain.null_count
        values_of = ", ".join(f"{shown(value)} ({100 * count / total:.1f} %)" for count, value in ranked)
        more = f", … ({len(counts) - 5} more)" if len(counts) > 5 else ""
        return "xgboost_classifier", f"{target} has the values {values_of}{more}: using xgboost_classifier"
    return "xgboost_regressor", f"{target} is a number with {len(counts):,} different values: using xgboost_regressor"


def _settle(spec: JobSpec, data: Dataset, threads: int, follower: _Follower) -> tuple[_Learner, _Rows]:
    """The algorithm, its options and classes, and the rows that can be used, in canonical order."""
    if not data.table.num_rows:
        raise TrainingDataError("the query gave no rows: there is nothing to learn from")
    rows = _Rows(data.order, None, _weights(spec.weight, data))
    values, name = None, spec.algorithm
    if spec.target is not None:
        values = _need_plain(spec.target, data.table.column(spec.target))
        if values.null_count == len(values):
            rows_of = "the only row" if len(values) == 1 else f"all {len(values):,} rows"
            raise TrainingDataError(f"target {spec.target} is NULL in {rows_of}: there is nothing to learn")
    if name is None:
        name, notice = choose_algorithm(spec.target or "", data.table.column(spec.target))
        follower.notice(notice)
    algorithm = get_algorithm(name)
    options = check_options(algorithm, {**spec.options, "seed": spec.seed})
    inputs = tuple(InputColumn(c.name, c.sql_type, c.kind) for c in spec.features if c.kind is not None)
    classes: tuple[Any, ...] = ()
    if values is not None and spec.target is not None and algorithm.task is not Task.CLUSTERING:
        present = ~pc.is_null(values).to_numpy(zero_copy_only=False)[data.order]
        if not present.all():
            follower.notice(f"{_left_out(~present, 'row')} {spec.target} is NULL")
        y, classes = _target_values(spec.target, values, algorithm)
        rows = _Rows(rows.numbers, y[data.order], rows.weight).pick(present)
    return _Learner(algorithm, options, inputs, classes, spec.seed, threads), rows


def _columns(spec: JobSpec) -> dict[str, Kind | None]:
    columns: dict[str, Kind | None] = {c.name: c.kind for c in spec.features if c.kind is not None}
    for name in (spec.target, spec.weight):
        if name is not None:
            columns.setdefault(name, None)
    return columns


def _need_plain(target: str, values: Values) -> Values:
    plain = plain_target(values)
    if plain is None:
        raise TrainingDataError(
            f"target {target} is of a type that cannot be learnt ({values.type})",
            hint="make it a number or classes in the query: extract(year FROM …), date_diff('day', …), CASE WHEN … END",
        )
    return plain


def _weights(name: str | None, data: Dataset) -> NDArray[np.float64] | None:
    """The weights in canonical order, checked."""
    if name is None:
        return None
    values = data.column(name)
    if data.kinds[name] not in (Kind.NUMBER, Kind.BOOLEAN):
        raise TrainingDataError(f"weight {name} is not a number")
    weight = _floats(values)
    if np.isnan(weight).any():
        raise TrainingDataError(
            f"weight {name} is NULL in {count_of(int(np.isnan(weight).sum()), 'row')}: use coalesce({name}, 1)"
        )
    if (weight < 0).any() or np.isinf(weight).any():
        ends = f"lowest {weight.min():g}, highest {weight.max():g}"
        raise TrainingDataError(f"weight {name} must be finite and not below 0 ({ends})")
    if not weight.any():
        raise TrainingDataError(f"weight {name} is 0 in all rows: there is nothing to learn from")
    return weight[data.order]


def _target_values(target: str, values: Values, algorithm: Algorithm) -> tuple[NDArray[Any], tuple[Any, ...]]:
    """Class codes with their classes, or the numbers of a regression; rows as they came."""
    if algorithm.task is Task.REGRESSION:
        return _numbers(target, values, algorithm), ()
    classes = find_classes(values)
    _check_classes(target, classes, values)
    return encode_classes(values, classes), classes


def _numbers(target: str, values: Values, algorithm: Algorithm) -> NDArray[np.float64]:
    _need_numbers(target, values, algorithm)
    y = _floats(values)
    known = y[~np.isnan(y)]
    if np.isinf(known).any():
        found = count_of(int(np.isinf(known).sum()), "row")
        raise TrainingDataError(f"target {target} is infinite in {found}: leave what is infinite out with WHERE")
    if known.min() == known.max():
        raise TrainingDataError(f"target {target} has one value only: {known[0]:g}; there is nothing to learn")
    return y


def _need_numbers(target: str, values: Values, algorithm: Algorithm) -> None:
    if pa.types.is_string(values.type):
        raise TrainingDataError(
            f"target {target} is text, and {algorithm.name} predicts numbers",
            hint=f"use a classifier, or TRY_CAST({target} AS DOUBLE) AS {target} in the query",
        )


def _check_classes(target: str, classes: tuple[Any, ...], values: Values) -> None:
    n, c = len(values) - values.null_count, len(classes)
    if c == 1:
        only = f"'{classes[0]}'" if isinstance(classes[0], str) else label_text(classes[0])
        raise TrainingDataError(f"target {target} has one value only: {only}; there is nothing to tell apart")
    if c >= n:
        raise TrainingDataError(f"target {target} has {c:,} different values in {n:,} rows: there must be more rows than classes")
    if c > _MOST_CLASSES or (c > 50 and c > n / 2):
        number = not isinstance(classes[0], str)
        hint = "use a regressor: USING xgboost_regressor" if number else "choose another target, or group its values with CASE"
        raise TrainingDataError(f"target {target} has {c:,} different values, too many for classes", hint=hint)


# --- rows and features -----------------------------------------------------------------------------------------------


def _divide(spec: JobSpec, learner: _Learner, rows: _Rows, follower: _Follower) -> tuple[_Rows, _Rows, _Rows]:
    """Rows to learn from, rows that decide when to stop, rows held out."""
    stratify = learner.algorithm.task is Task.CLASSIFICATION
    if stratify and rows.y is not None:
        counts = np.bincount(rows.y, minlength=len(learner.classes))
        alone = [shown(learner.classes[i]) for i in np.flatnonzero(counts == 1)]
        if alone and spec.split.method == "random":
            follower.notice(f"{spec.target} has one row only of {', '.join(alone[:5])}: it is kept for training")
    none = rows.pick(np.zeros(len(rows.numbers), bool))
    train, held = rows.divide(spec.split.fraction, spec.seed, stratify) if spec.split.method == "random" else (rows, none)
    early = learner.algorithm.early_stopping
    if early is None or learner.options.get(early) is None:
        return train, none, held
    train, valid = train.divide(learner.options[VALIDATION_FRACTION.name], spec.seed + 1, stratify)
    return train, valid, held


def _fit_encoder(data: Dataset, learner: _Learner, train: _Rows) -> FeatureEncoder:
    encoding = learner.algorithm.encoding
    most = learner.options[MAX_CATEGORIES.name] or (1000 if encoding == CODES else 100)
    encoder = FeatureEncoder.fit(learner.inputs, data.column, train.numbers, encoding, most)
    if not encoder.names:
        raise _no_features(learner.inputs)
    return encoder


def _no_features(inputs: tuple[InputColumn, ...]) -> TrainingDataError:
    if not inputs:
        return TrainingDataError("there are no feature columns left to learn from")
    one = f"the only feature column, {inputs[0].name}, does not vary"
    subject = one if len(inputs) == 1 else f"none of the {len(inputs):,} feature columns varies"
    return TrainingDataError(f"{subject} in the training rows: there is nothing to learn from")


def _encode(
    spec: JobSpec, data: Dataset, learner: _Learner, encoder: FeatureEncoder, rows: tuple[_Rows, _Rows, _Rows], report: Report
) -> tuple[_Part, _Part, _Part]:
    """The feature matrices of the three parts; with VALIDATE ON the third comes from its own file."""
    train, valid, held = rows
    if spec.split.method != "query":
        x = encoder.transform_rows(data.column, [r.numbers for r in rows])
        return _Part(train, x[0]), _Part(valid, x[1]), _Part(held, x[2])
    x = encoder.transform_rows(data.column, [train.numbers, valid.numbers])
    other = read_dataset(spec.folder / VALIDATION, _columns(spec), learner.threads)
    held = _validation_rows(spec, other, learner, report)
    held_x = encoder.transform_rows(other.column, [held.numbers])[0]
    return _Part(train, x[0]), _Part(valid, x[1]), _Part(held, held_x)


def _validation_rows(spec: JobSpec, data: Dataset, learner: _Learner, report: Report) -> _Rows:
    if not data.table.num_rows:
        raise TrainingDataError("the query of VALIDATE ON gave no rows: there is nothing to measure the model on")
    rows = _Rows(data.order, None, _weights(spec.weight, data))
    if spec.target is None or learner.algorithm.task is Task.CLUSTERING:
        return rows
    values = _need_plain(spec.target, data.table.column(spec.target))
    y: NDArray[Any]
    if learner.algorithm.task is Task.CLASSIFICATION:
        y = encode_classes(values, learner.classes)[data.order]
        known = y >= 0
    else:
        _need_numbers(spec.target, values, learner.algorithm)
        y = _floats(values)[data.order]
        known = np.isfinite(y)
    if not known.any():
        raise nothing_to_measure(spec.target, values, learner.classes, " of VALIDATE ON")
    if not known.all():
        why = "a class without training rows" if learner.classes else "infinite"
        report.notice(f"{_left_out(~known, 'validation row')} {spec.target} is NULL or {why}")
    return _Rows(rows.numbers, y, rows.weight).pick(known)


def _left_out(mask: NDArray[np.bool_], what: str) -> str:
    """``1 of 50 rows is left out: its``"""
    count = int(mask.sum())
    return f"{count:,} of {count_of(len(mask), what)} {'is left out: its' if count == 1 else 'are left out: their'}"


def _floats(values: Values) -> NDArray[np.float64]:
    return np.asarray(pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False), np.float64)


# --- fitting ---------------------------------------------------------------------------------------------------------


def _training_data(encoder: FeatureEncoder, learner: _Learner, parts: tuple[_Part, _Part, _Part]) -> TrainingData:
    train, valid, held = parts
    return TrainingData(
        features=FeatureMatrix(train.x, encoder.names, encoder.categorical),
        y=train.rows.y,
        weight=train.rows.weight,
        valid_x=valid.x if len(valid.x) else None,
        valid_y=valid.rows.y if len(valid.x) else None,
        heldout_x=held.x if len(held.x) else None,
        heldout_y=held.rows.y if len(held.x) else None,
        n_classes=len(learner.classes),
    )


def _fit_spec(learner: _Learner) -> FitSpec:
    own = {option.name for option in learner.algorithm.options}
    return FitSpec({name: value for name, value in learner.options.items() if name in own}, learner.seed, learner.threads)


def _evaluate(
    spec: JobSpec, data: Dataset, learner: _Learner, predictor: Predictor, parts: tuple[_Part, _Part, _Part]
) -> dict[str, Metrics]:
    """Figures of the training and the held-out rows; writes what EVALUATE needs of the latter."""
    train, _, held = parts
    task = learner.algorithm.task
    some = _Part(train.rows.pick(np.arange(len(train.x)) < _MEASURED_ROWS), train.x[:_MEASURED_ROWS])
    metrics = {"train": measure(task, predictor.predict(some.x), some.rows.y, some.rows.weight, x=some.x)}
    raw = predictor.predict(held.x)
    if len(held.x):
        metrics["heldout"] = measure(task, raw, held.rows.y, held.rows.weight, x=held.x)
    _write_heldout(spec.folder / HELDOUT, learner, held.rows, raw)
    return metrics


def _write_heldout(path: Path, learner: _Learner, rows: _Rows, raw: NDArray[Any]) -> None:
    """``actual`` (not for clusters), ``weight`` where there are weights, and ``raw``: a list of scores for each row."""
    columns: dict[str, pa.Array] = {}
    if rows.y is not None:
        columns["actual"] = pa.array(learner.classes).take(pa.array(rows.y)) if learner.classes else pa.array(rows.y)
    if rows.weight is not None:
        columns["weight"] = pa.array(rows.weight)
    scores = raw.reshape(len(raw), -1) if len(raw) else raw.reshape(0, max(1, len(learner.classes)))
    flat = pa.array(np.ascontiguousarray(scores, np.float64).ravel())
    columns["raw"] = pa.FixedSizeListArray.from_arrays(flat, scores.shape[1])
    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


# --- the bundle ------------------------------------------------------------------------------------------------------


def _write_bundle(
    spec: JobSpec,
    data: Dataset,
    learner: _Learner,
    encoder: FeatureEncoder,
    predictor: Predictor,
    parts: tuple[_Part, _Part, _Part],
) -> str:
    """Write the bundle's folder; its SHA-256."""
    folder = spec.folder / BUNDLE
    shutil.rmtree(folder, ignore_errors=True)
    (folder / NATIVE).mkdir(parents=True)
    predictor.save(folder / NATIVE)
    difference = _write_onnx(folder, predictor, parts)
    clustering = learner.algorithm.task is Task.CLUSTERING
    manifest = Manifest(
        algorithm=learner.algorithm.name,
        task=learner.algorithm.task,
        inputs=learner.inputs,
        target=None if clustering else spec.target,
        target_sql_type=None if clustering or spec.target is None else _target_sql_type(learner, data.kinds[spec.target]),
        classes=learner.classes,
        encoder=encoder.to_json(),
        options=dict(learner.options),
        example=_example(data, learner.inputs, parts[0].rows.numbers),
        onnx=difference is not None and difference <= _ONNX_TOLERANCE,
        onnx_max_difference=difference,
    )
    return manifest.write(folder)


def _target_sql_type(learner: _Learner, kind: Kind) -> str:
    """The SQL type of predictions."""
    if learner.algorithm.task is Task.CLASSIFICATION and all(type(value) is int for value in learner.classes):
        return "BIGINT"
    return SQL_TYPE[Kind.NUMBER if learner.algorithm.task is Task.REGRESSION else kind]


def _write_onnx(folder: Path, predictor: Predictor, parts: tuple[_Part, _Part, _Part]) -> float | None:
    """Export, compare on real rows, and keep the file only where it is exact; the largest difference, None without a converter.

    The difference is a part of the largest prediction where that is above 1: float32 sums are no better than that.
    """
    try:
        model = predictor.onnx()
        if model is None:
            return None
        difference = _onnx_difference(model, predictor, _sample(parts))
    except ModuleNotFoundError as error:
        print(f"no ONNX: the package {error.name} is not installed", file=sys.stderr)  # noqa: T201 - the job's log
        return None
    if difference <= _ONNX_TOLERANCE:
        (folder / ONNX).write_bytes(model)
    else:
        print(f"no ONNX: it differs from the model by {difference:g}", file=sys.stderr)  # noqa: T201 - the job's log
    return difference


def _onnx_difference(model: bytes, predictor: Predictor, x: NDArray[np.float32]) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    expected = predictor.predict(x)
    found = np.asarray(session.run(None, {"x": x})[0], np.float64).reshape(expected.shape)
    largest = np.max(np.abs(expected), initial=1.0)
    difference = float(np.max(np.abs(found - expected), initial=0.0) / largest)
    return difference if np.isfinite(difference) else sys.float_info.max


def _sample(parts: tuple[_Part, _Part, _Part]) -> NDArray[np.float32]:
    """Rows of every part, held-out ones first, and more of those with missing values."""
    x = np.concatenate([part.x[:_ONNX_ROWS] for part in (parts[2], parts[0])])[:_ONNX_ROWS]
    train = parts[0].x
    gaps = train[np.flatnonzero(np.isnan(train[: 100 * _ONNX_ROWS]).any(1))[: _ONNX_ROWS // 3]]
    return np.ascontiguousarray(np.concatenate([x, gaps]))


def _example(data: Dataset, inputs: tuple[InputColumn, ...], rows: NDArray[np.int64]) -> dict[str, Any]:
    """A training row without NULLs, or with few, as JSON values."""
    first = pa.array(rows[:1000])
    columns = {i.name: data.column(i.name).take(first) for i in inputs}
    nulls = sum(pc.is_null(c, nan_is_null=True).to_numpy(zero_copy_only=False).astype(int) for c in columns.values())
    best = int(np.argmin(nulls))
    whole = {i.name for i in inputs if pa.types.is_integer(data.table.schema.field(i.name).type)}
    return {name: _json_value(column[best], name in whole) for name, column in columns.items()}


def _json_value(scalar: pa.Scalar, whole: bool) -> Any:
    try:
        value = scalar.as_py()
    except (OverflowError, ValueError):  # a time beyond Python's years
        return None
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, float):
        if not np.isfinite(value):
            return None
        return int(value) if whole else value
    return value.isoformat()


# --- what it took ----------------------------------------------------------------------------------------------------


def _peak_memory() -> int:
    """The most memory that this process has held, in bytes."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024


def _libraries(algorithm: Algorithm) -> dict[str, str]:
    names = ("sqlml", *algorithm.libraries, "numpy", "pyarrow")
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def _version(name: str) -> str:
    for distribution in (name, f"{name}-cpu"):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    if name == "sqlml":
        from sqlml.version import __version__

        return __version__
    return "unknown"
