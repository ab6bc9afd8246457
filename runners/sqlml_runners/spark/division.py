"""Which rows are trained on, decide when to stop, or are held out: ``part`` of each row, from its hash, a mark or a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sqlml.algorithms.options import VALIDATION_FRACTION
from sqlml.errors import TrainingDataError
from sqlml.features.split import HELDOUT, TRAINING, UNMARKED, VALIDATION, read_marks
from sqlml.plan import TrainPlan
from sqlml.training import rules
from sqlml.training.aims import Learner
from sqlml.training.record import Record
from sqlml_runners.spark.tables import Staged
from sqlml_runners.spark.targets import with_y

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BINS = 4096
"""A part of the rows is met to one bin of so many, of each class."""
_EXACT_ROWS = 1_000_000
_MOST_MARKS = 100


@dataclass(frozen=True)
class Division:
    """The rows with ``y`` (a double; NULL: unknown), ``w`` and ``part``, and how many of each class are in each part.

    ``counts`` (classes or 1, 3): rows of TRAINING, VALIDATION, HELDOUT; ``held``: the held-out ones, those of a class that
    cannot be learnt included.
    """

    frame: Any
    learner: Learner
    counts: NDArray[np.int64]
    held: int

    def rows(self, *parts: int) -> Any:
        """The rows of some parts."""
        from pyspark.sql import functions as sf

        return self.frame.where(sf.col("part").isin(*parts))

    def size(self, *parts: int) -> int:
        return int(self.counts[:, list(parts)].sum())


def divide(plan: TrainPlan, staged: Staged, learner: Learner, known: int, record: Record, validated: bool) -> Division:
    """The rows of a learner, of which ``known`` have a target; with VALIDATE ON (``validated``) none of them is held out."""
    from pyspark.sql import functions as sf

    frame = with_y(staged, learner)
    unknown = staged.rows - known
    if unknown:
        record.notice(f"{rules.left_out(unknown, staged.rows, 'row')} {learner.name} is NULL")
    weight = sf.col(staged.columns[plan.weight]).cast("double") if plan.weight else sf.lit(1.0)
    frame = frame.where("y IS NOT NULL").withColumn("w", weight)
    frame = frame.withColumn("part", _part(plan, staged, frame, learner, record, validated))
    counts = _count(frame, learner)
    fraction = learner.options.get(VALIDATION_FRACTION.name) or VALIDATION_FRACTION.default
    if not learner.stops_early:
        if counts[:, VALIDATION].any():
            rules.tell_trained_on(learner.algorithm, record)
            frame = frame.withColumn("part", sf.when(sf.col("part") == VALIDATION, TRAINING).otherwise(sf.col("part")))
            counts[:, TRAINING] += counts[:, VALIDATION]
            counts[:, VALIDATION] = 0
    elif not counts[:, VALIDATION].any():
        taken = _taken(frame.where(sf.col("part") == TRAINING), "v", fraction, learner)
        frame = frame.withColumn("part", sf.when((sf.col("part") == TRAINING) & taken, VALIDATION).otherwise(sf.col("part")))
        counts = _count(frame, learner)
    return _learnable(Division(frame, learner, counts, int(counts[:, HELDOUT].sum())), record)


def everything(division: Division) -> Division:
    """All rows to train on, for a second fit."""
    from pyspark.sql import functions as sf

    counts = np.zeros_like(division.counts)
    counts[:, TRAINING] = division.counts.sum(1)
    return Division(division.frame.withColumn("part", sf.lit(TRAINING)), division.learner, counts, 0)


def other_rows(plan: TrainPlan, other: Staged, learner: Learner, record: Record) -> Division:
    """The rows of VALIDATE ON, all held out."""
    from pyspark.sql import functions as sf

    if not other.rows:
        raise rules.no_validation_rows()
    weight = sf.col(other.columns[plan.weight]).cast("double") if plan.weight else sf.lit(1.0)
    frame = with_y(other, learner).where("y IS NOT NULL").withColumn("w", weight).withColumn("part", sf.lit(HELDOUT))
    counts = _count(frame, learner)
    left = other.rows - int(counts.sum())
    if left == other.rows:
        wanted = "class that the model knows" if learner.classes else "finite number"
        raise TrainingDataError(
            f"none of the {other.rows:,} rows of VALIDATE ON has as {learner.name} a {wanted}", about="validate"
        )
    rules.tell_unmeasured(learner.name or "", left, other.rows, learner.classes, record)
    return Division(frame, learner, counts, int(counts.sum()))


def _count(frame: Any, learner: Learner) -> NDArray[np.int64]:
    """(classes or 1, 3): the rows of each class in each part."""
    from pyspark.sql import functions as sf

    code = sf.col("y").cast("int") if learner.classes else sf.lit(0)
    counts = np.zeros((max(len(learner.classes), 1), 3), np.int64)
    for row in frame.groupBy(code.alias("class"), "part").count().collect():
        counts[int(row[0]), int(row[1])] = int(row[2])
    return counts


def _part(plan: TrainPlan, staged: Staged, frame: Any, learner: Learner, record: Record, validated: bool) -> Any:
    from pyspark.sql import functions as sf

    if validated or plan.split.method in ("none", "query"):
        return sf.lit(TRAINING)
    match plan.split.method:
        case "random":
            held = _taken(frame, "u", plan.split.fraction, learner)
        case "by":
            return _by_column(plan, staged, frame, record)
        case "time":
            held = _by_time(plan, staged, frame, record)
        case method:
            raise TrainingDataError(f"the split {method} cannot be made on Spark")
    return sf.when(held, HELDOUT).otherwise(TRAINING)


def _taken(frame: Any, number: str, fraction: float, learner: Learner) -> Any:
    """Whether a row is among the ``fraction`` of its class with the lowest numbers ``u`` or ``v``; each class keeps one row."""
    from pyspark.sql import functions as sf

    code = sf.col("y").cast("int") if learner.classes else sf.lit(0)
    cell = sf.floor(sf.col(number) * _BINS).cast("int")
    found = frame.groupBy(code.alias("class"), cell.alias("cell")).count().toArrow()
    classes, cells, counts = (np.asarray(column.to_numpy(), np.int64) for column in found.columns)
    borders = [_border(cells[classes == c], counts[classes == c], fraction) for c in range(max(len(learner.classes), 1))]
    border = sf.element_at(sf.array(*[sf.lit(b) for b in borders]), code + 1)
    return sf.col(number) < border


def _border(cells: NDArray[np.int64], counts: NDArray[np.int64], fraction: float) -> float:
    """The border below which lie about ``fraction`` of the rows, and never all of them."""
    order = np.argsort(cells)
    below = np.concatenate([[0], np.cumsum(counts[order])])
    total = int(below[-1])
    wanted = min(round(total * fraction), total - 1)
    if wanted <= 0:
        return 0.0
    able = np.flatnonzero(below < total)
    best = int(able[np.argmin(np.abs(below[able] - wanted))])
    return 0.0 if best == 0 else float((cells[order][best - 1] + 1) / _BINS)


def _by_column(plan: TrainPlan, staged: Staged, frame: Any, record: Record) -> Any:
    from pyspark.sql import functions as sf

    name = plan.split.column or ""
    column = sf.col(staged.columns[name])
    groups = frame.groupBy(column.alias("mark")).count().limit(_MOST_MARKS + 1).toArrow()
    values = groups.column(0).combine_chunks()
    if pa.types.is_decimal(values.type):
        column, values = column.cast("double"), values.cast(pa.float64())
    marks = read_marks(name, values)
    counts: dict[int, int] = {}
    for mark, count in zip(marks.tolist(), groups.column(1).to_pylist(), strict=True):
        counts[mark] = counts.get(mark, 0) + count
    rules.tell_marks(name, counts, record)
    marks[marks == UNMARKED] = TRAINING
    part = sf.lit(TRAINING)
    for value, mark in zip(values.to_pylist(), marks.tolist(), strict=True):
        if mark != TRAINING:
            part = sf.when(column.eqNullSafe(sf.lit(value)), mark).otherwise(part)
    return part


def _by_time(plan: TrainPlan, staged: Staged, frame: Any, record: Record) -> Any:
    """Later than the border, at which the wanted part of the rows is earlier; ties at the border are not held out."""
    from pyspark.sql import functions as sf

    name = plan.split.column or ""
    time = _number_of_time(sf.col(staged.columns[name]), staged.types[name])
    total, known, high = frame.agg(sf.count(sf.lit(1)), sf.count(time), sf.max(time)).first()
    rules.tell_times(name, int(total - known), record)
    kept = known - min(round(known * plan.split.fraction), known - 1)
    if known and kept < known:
        error = 0.0 if known <= _EXACT_ROWS else 1e-4
        border = frame.select(time.alias("time")).where("time IS NOT NULL").approxQuantile("time", [kept / known], error)[0]
        if border < high:
            return sf.coalesce(time > border, sf.lit(False))
    raise rules.no_latest(name, known=bool(known))


def _number_of_time(column: Any, data_type: pa.DataType) -> Any:
    """A time, date or number as a double that sorts the same."""
    from pyspark.sql import functions as sf

    t = pa.types
    if t.is_timestamp(data_type):
        if data_type.tz:
            return sf.unix_micros(column).cast("double")
        return sf.timestamp_diff("MICROSECOND", sf.lit("1970-01-01").cast("timestamp_ntz"), column).cast("double")
    if t.is_date(data_type):
        return sf.unix_date(column).cast("double")
    if t.is_time(data_type):
        return sf.time_to_micros(column).cast("double")
    number = column.cast("double")
    return sf.when(~sf.isnan(number), number)


def _learnable(division: Division, record: Record) -> Division:
    """Without the classes that have no training row."""
    from pyspark.sql import functions as sf

    learner, counts = division.learner, division.counts
    trained = counts[:, TRAINING]
    if not trained.sum():
        raise rules.no_training_target(learner.name or "")
    kept = rules.learnt_classes(learner.name or "", learner.classes, trained, record) if learner.classes else None
    if kept is None:
        return division
    classes = tuple(learner.classes[i] for i in kept)
    places = {int(old): float(new) for new, old in enumerate(kept)}
    codes = sf.array(*[sf.lit(places.get(i)).cast("double") for i in range(len(learner.classes))])
    frame = division.frame.withColumn("y", sf.element_at(codes, sf.col("y").cast("int") + 1))
    return Division(frame, learner.with_classes(classes), counts[kept], division.held)
