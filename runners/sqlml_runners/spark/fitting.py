"""One fit on the cluster: TRANSFORM, encoder, predictor; and the scores of rows by what was learnt."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.contracts import Predictor, Report
from sqlml.errors import count_of
from sqlml.features.dataset import Values, canonical
from sqlml.features.encode import FeatureEncoder
from sqlml.features.split import TRAINING, VALIDATION
from sqlml.features.transform import Transform
from sqlml.plan import InputColumn, TrainPlan
from sqlml.training import rules
from sqlml.training.aims import Learner, class_factors
from sqlml.training.features import model_inputs
from sqlml.training.record import Record
from sqlml.types import SQL_TYPE
from sqlml_runners.spark import mllib
from sqlml_runners.spark.checks import is_boosted
from sqlml_runners.spark.cluster import Cluster
from sqlml_runners.spark.division import Division
from sqlml_runners.spark.encoders import Words, fit_encoder
from sqlml_runners.spark.executors import Columns, Score, encode_batches, read_files, score_batches, transform_batches
from sqlml_runners.spark.tables import SPARK_TYPE, Staged

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TRANSFORM_ROWS = 200_000
"""Functions of TRANSFORM are fitted on so many training rows at most: on this machine, since they need them all at once."""
INTERNAL = ("h", "u", "y", "w", "part")


@dataclass(frozen=True)
class FeatureRows:
    """Rows as the encoder reads them: ``frame`` with the columns of features, ``INTERNAL`` ones and keys."""

    frame: Any
    columns: Columns
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Fit:
    """What was learnt."""

    learner: Learner
    inputs: tuple[InputColumn, ...]
    positions: Mapping[str, tuple[str, ...]]
    transform: Transform | None
    encoder: FeatureEncoder
    predictor: Predictor
    rows: FeatureRows
    words: Mapping[str, Words]


def raw_columns(plan: TrainPlan, staged: Staged) -> Columns:
    """The model's inputs as they are staged."""
    return Columns(tuple((i.name, staged.columns[i.name], i.kind) for i in model_inputs(plan)))


def sample(frame: Any, columns: Columns, most: int, rows: int) -> dict[str, Values]:
    """At most ``most`` of the ``rows`` rows of a frame, those of the lowest ``u``: canonical columns by name."""
    return sample_with_y(frame, columns, most, rows)[0]


def sample_with_y(frame: Any, columns: Columns, most: int, rows: int) -> tuple[dict[str, Values], NDArray[np.float64]]:
    """The same, and the ``y`` of each row."""
    from pyspark.sql import functions as sf

    names = [column for _, column, _ in columns.items]
    picked = frame.select(*names, "u", "h", "y")
    if rows > most:
        low, high = picked.agg(sf.min("u"), sf.max("u")).first()
        picked = picked.where(sf.col("u") <= low + (high - low) * min(1.0, 1.2 * most / rows + 1e-3))
    table = picked.toArrow().sort_by([("u", "ascending"), ("h", "ascending")]).slice(0, most)
    found = {name: canonical(table.column(column), kind) for name, column, kind in columns.items}
    return found, np.asarray(table.column("y").to_numpy(zero_copy_only=False), np.float64)


# --- TRANSFORM --------------------------------------------------------------------------------------------------------


def fit_transform(plan: TrainPlan, staged: Staged, division: Division, record: Record) -> Transform | None:
    """TRANSFORM fitted on the training rows, or on a sample of them where there are many."""
    if plan.transform is None:
        return None
    record.stage("transforming")
    rows = division.size(TRAINING)
    columns = sample(division.rows(TRAINING), raw_columns(plan, staged), _TRANSFORM_ROWS, rows)
    taken = min(rows, _TRANSFORM_ROWS)
    if rows > taken:
        record.notice(f"the functions of TRANSFORM were fitted on {taken:,} of {count_of(rows, 'training row')}, drawn by seed")
    return Transform.fit(plan.transform, columns.__getitem__, np.arange(taken))


def feature_rows(plan: TrainPlan, staged: Staged, frame: Any, transform: Transform | None) -> FeatureRows:
    """The features of a frame's rows: the inputs, or what TRANSFORM makes of them on the executors."""
    keys = tuple(staged.keys.values())
    given = raw_columns(plan, staged)
    kept = [*INTERNAL, *keys]
    if transform is None:
        return FeatureRows(frame.select(*(column for _, column, _ in given.items), *kept), given, keys)
    outputs = Columns(tuple((c.name, f"f{i}", c.kind) for i, c in enumerate(transform.outputs)))
    fields = [f"{column} {SPARK_TYPE[kind]}" for _, column, kind in outputs.items]
    types = dict(frame.dtypes)
    fields += [f"{name} {types[name]}" for name in kept]
    run = partial(transform_batches, columns=given, document=json.dumps(transform.to_json()), outputs=outputs, kept=kept)
    picked = frame.select(*(column for _, column, _ in given.items), *kept)
    return FeatureRows(picked.mapInArrow(run, ", ".join(fields)), outputs, keys)


def transform_inputs(plan: TrainPlan, transform: Transform | None) -> tuple[InputColumn, ...]:
    """What the encoder reads."""
    if transform is None:
        return model_inputs(plan)
    return tuple(InputColumn(c.name, SQL_TYPE[c.kind], c.kind) for c in transform.outputs)


# --- learning ---------------------------------------------------------------------------------------------------------


def fit(
    plan: TrainPlan, staged: Staged, division: Division, cluster: Cluster, record: Record, report: Report, workers: int | None
) -> Fit:
    """Fit everything on the training rows of a division."""
    from pyspark.sql import functions as sf

    learner = division.learner
    transform = fit_transform(plan, staged, division, record)
    rows = feature_rows(plan, staged, division.frame, transform)
    if transform is not None:
        rows = FeatureRows(cluster.keep(rows.frame), rows.columns, rows.keys)
    positions = {c.name: tuple(c.features) for c in transform.outputs if c.features} if transform else {}
    trained = rows.frame.where((sf.col("part") == TRAINING) & sf.col("y").isNotNull())
    encoder, words = fit_encoder(trained, rows.columns, learner, positions)
    record.stage("training")
    used = rows.frame.where(sf.col("part").isin(TRAINING, VALIDATION) & sf.col("y").isNotNull())
    used = used.withColumn("w", _weights(learner, division))
    predictor = _learn(learner, used, rows.columns, encoder, division, cluster, report, workers)
    return Fit(learner, transform_inputs(plan, transform), positions, transform, encoder, predictor, rows, words)


def _weights(learner: Learner, division: Division) -> Any:
    """The rows' own weights times those of their classes."""
    from pyspark.sql import functions as sf

    factors = _class_factors(learner, division.counts[:, TRAINING])
    if factors is None:
        return sf.col("w")
    return sf.col("w") * sf.element_at(sf.array(*[sf.lit(float(f)) for f in factors]), sf.col("y").cast("int") + 1)


def _class_factors(learner: Learner, counts: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """What a row of each class weighs."""
    wanted = learner.options.get("class_weight")
    if wanted is None or not learner.classes:
        return None
    if wanted == "balanced":
        return rules.balanced(counts)
    return class_factors(learner, np.arange(len(learner.classes)))


def _learn(
    learner: Learner,
    used: Any,
    columns: Columns,
    encoder: FeatureEncoder,
    division: Division,
    cluster: Cluster,
    report: Report,
    workers: int | None,
) -> Predictor:
    from pyspark.sql import functions as sf

    boosted = is_boosted(learner.algorithm)
    used = used.withColumn("valid", sf.col("part") == VALIDATION)
    kept = ["y", "w", "valid"]
    if boosted:
        from sqlml_runners.spark import boosting

        count = boosting.workers_for(cluster, workers, learner.threads, division.size(TRAINING, VALIDATION))
        used = used.repartition(count, "u").sortWithinPartitions("u", "h")
    encode = partial(encode_batches, columns=columns, encoder=json.dumps(encoder.to_json()), kept=kept)
    picked = used.select(*(column for _, column, _ in columns.items), *kept)
    encoded = picked.mapInArrow(encode, "features array<float>, y double, w double, valid boolean")
    if boosted:
        encoded = encoded.persist()  # classes are counted once more before the training
        try:
            return boosting.boost(encoded, learner, encoder, cluster, count, report)
        finally:
            encoded.unpersist()
    mllib.tell_unused(learner, report)
    rows = mllib.Rows(picked, columns, encoder, encoded)
    fits: dict[str, Any] = {
        "logistic_regression": mllib.fit_logistic,
        "linear_regression": mllib.fit_linear,
        "kmeans": mllib.fit_kmeans,
    }
    made: Predictor = fits[learner.algorithm.name](rows, learner, report)
    return made


# --- scores -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scored:
    """Rows with what the predictor gave: raw scores, ``y`` (NaN: unknown), weights, keys by column; ``x`` where asked for."""

    raw: NDArray[np.float64]
    y: NDArray[np.float64]
    weight: NDArray[np.float64]
    keys: Mapping[str, Values]
    x: NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.y)


def score(fitted: Fit, rows: FeatureRows, counts: Mapping[int, int], most: int, *, x: bool) -> dict[int, Scored]:
    """Score the rows of some parts on the executors: of each at most ``most`` of its rows, those with the lowest ``u``.

    ``counts`` maps the parts to how many rows they have.
    """
    with tempfile.TemporaryDirectory(prefix="sqlml-") as folder:
        fitted.predictor.save(Path(folder))
        files = read_files(Path(folder))
    task = Score(fitted.learner.algorithm.name, json.dumps(fitted.encoder.to_json()), files, x)
    kept = ["part", "u", "h", "y", "w", *rows.keys]
    frame = _lowest(rows.frame, counts, most)
    types = dict(frame.dtypes)
    fields = ["raw array<double>", *(["features array<float>"] if x else []), *(f"{name} {types[name]}" for name in kept)]
    run = partial(score_batches, columns=rows.columns, score=task, kept=kept)
    picked = frame.select(*(column for _, column, _ in rows.columns.items), *kept)
    table = picked.mapInArrow(run, ", ".join(fields)).toArrow().sort_by([("u", "ascending"), ("h", "ascending")])
    return {part: _scored(fitted, table.filter(pc.equal(table.column("part"), part)), rows.keys) for part in counts}


def _lowest(frame: Any, counts: Mapping[int, int], most: int) -> Any:
    """Of each part about ``most`` rows."""
    from pyspark.sql import functions as sf

    wanted = sf.lit(False)
    for part, count in counts.items():
        own = sf.col("part") == part
        if count > most:
            low, high = frame.where(own).agg(sf.min("u"), sf.max("u")).first()
            own = own & (sf.col("u") <= low + (high - low) * most / count)
        wanted = wanted | own
    return frame.where(wanted)


def _scored(fitted: Fit, table: pa.Table, keys: Sequence[str]) -> Scored:
    raw = _matrix(table.column("raw"), np.float64) if table.num_rows else _no_scores(fitted)
    wide = fitted.learner.classes or fitted.learner.target is None
    y = np.asarray(table.column("y").to_numpy(zero_copy_only=False), np.float64)
    weight = np.asarray(table.column("w").to_numpy(zero_copy_only=False), np.float64)
    x = _matrix(table.column("features"), np.float32) if "features" in table.column_names else None
    return Scored(raw if wide else raw.ravel(), y, weight, {name: table.column(name) for name in keys}, x)


def _no_scores(fitted: Fit) -> NDArray[np.float64]:
    none = fitted.predictor.predict(np.zeros((0, len(fitted.encoder.names)), np.float32))
    return np.asarray(none, np.float64)


def _matrix(lists: pa.ChunkedArray, kind: Any) -> NDArray[Any]:
    n = len(lists)
    flat = np.concatenate([np.asarray(chunk.flatten().to_numpy(zero_copy_only=False)) for chunk in lists.chunks] or [np.zeros(0)])
    return np.ascontiguousarray(flat.reshape(n, -1) if n else np.zeros((0, 0)), kind)
