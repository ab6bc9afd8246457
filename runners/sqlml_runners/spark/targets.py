"""What is to be learnt, found from counts that the cluster makes: the algorithm, the classes, each row's ``y``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from sqlml.algorithms.options import check_options
from sqlml.contracts import Algorithm
from sqlml.errors import NotSupportedError, TrainingDataError, count_of
from sqlml.features.target import find_classes, plain_target, shown
from sqlml.plan import TargetColumn, TrainPlan
from sqlml.registry import candidates
from sqlml.training.aims import Learner, check_class_weight, one_class
from sqlml.training.record import Record
from sqlml.types import SQL_TYPE, Kind, Task, kind_of_arrow
from sqlml_runners.spark.tables import Staged

ABLE = (
    "xgboost_classifier",
    "xgboost_regressor",
    "logistic_regression",
    "linear_regression",
    "kmeans",
)
"""The algorithms that learn on a cluster."""
_MOST_CLASSES = 1000


def able_algorithms(plan: TrainPlan) -> tuple[Algorithm, ...]:
    """What may be meant by the plan's algorithm.  ``NotSupportedError`` for one that does not learn on a cluster."""
    able = candidates(plan.algorithm)
    if any(algorithm.name not in ABLE for algorithm in able):
        named = plan.algorithm or able[0].name
        raise NotSupportedError(
            f"{named} does not learn on Spark", hint=f"ON process trains it; on Spark there are: {', '.join(ABLE)}"
        )
    return able


def find_learner(plan: TrainPlan, staged: Staged, threads: int, record: Record) -> tuple[Learner, int]:
    """The learner, its options and classes checked as a job on one machine checks them; how many rows have a target."""
    able = able_algorithms(plan)
    if not staged.rows:
        raise TrainingDataError("the query gave no rows: there is nothing to learn from")
    if not plan.targets:
        options = check_options(able[0], {**plan.options, "seed": plan.seed})
        return Learner(able[0], options, None, plan.seed, threads), staged.rows
    name = plan.targets[0]
    column = target_column(staged, name)
    known, different, counts = _counts(staged, column)
    if not known:
        rows_of = "the only row" if staged.rows == 1 else f"all {staged.rows:,} rows"
        raise TrainingDataError(f"target {name} is NULL in {rows_of}: there is nothing to learn")
    algorithm = able[0] if len(able) == 1 else _choose(name, able, counts, different, staged, record)
    options = check_options(algorithm, {**plan.options, "seed": plan.seed})
    if algorithm.task is Task.REGRESSION:
        _check_numbers(name, staged, column, algorithm)
        target = TargetColumn(name, SQL_TYPE[Kind.NUMBER], algorithm.task)
        return Learner(algorithm, options, target, plan.seed, threads), known
    classes = find_classes(_plain(name, counts.column(0).combine_chunks()))
    _check_classes(name, classes, different, known)
    whole = all(type(value) is int for value in classes)
    kind = kind_of_arrow(staged.types[name]) or Kind.TEXT
    target = TargetColumn(name, "BIGINT" if whole else SQL_TYPE[kind], algorithm.task, classes)
    learner = Learner(algorithm, options, target, plan.seed, threads)
    check_class_weight(learner)
    return learner, known


def target_column(staged: Staged, name: str) -> Any:
    """The target as string, boolean, long or double with NaN as NULL and -0.0 as 0.0.  ``TrainingDataError`` for other types."""
    from pyspark.sql import functions as sf

    kind = staged.types[name]
    column = sf.col(staged.columns[name])
    t = pa.types
    if t.is_boolean(kind) or t.is_string(kind) or t.is_large_string(kind):
        return column
    if t.is_integer(kind) or (t.is_decimal(kind) and kind.scale == 0 and kind.precision <= 18):
        return column.cast("bigint")
    if t.is_floating(kind) or t.is_decimal(kind) or t.is_null(kind):
        number = column.cast("double")
        return sf.when(~sf.isnan(number), number + sf.lit(0.0))
    _plain(name, pa.nulls(0, kind))
    raise AssertionError(f"{name} is {kind}")


def _plain(name: str, values: pa.Array) -> Any:
    plain = plain_target(values)
    if plain is None:
        raise TrainingDataError(
            f"target {name} is of a type that cannot be learnt ({values.type})",
            hint="make it a number or classes in the query: extract(year FROM …), date_diff('day', …), CASE WHEN … END",
        )
    return plain


def _counts(staged: Staged, column: Any) -> tuple[int, int, pa.Table]:
    """(rows whose target is known, different values, the most frequent of them with their counts)."""
    from pyspark.sql import functions as sf

    groups = staged.frame.select(column.alias("value")).where("value IS NOT NULL").groupBy("value").count()
    counts = groups.orderBy(sf.desc("count"), "value").limit(_MOST_CLASSES + 1).toArrow()
    if counts.num_rows <= _MOST_CLASSES:
        return sum(counts.column("count").to_pylist()), counts.num_rows, counts
    known, different = groups.agg(sf.sum("count"), sf.count(sf.lit(1))).first()
    return int(known or 0), int(different), counts


def _choose(name: str, able: Sequence[Algorithm], counts: pa.Table, different: int, staged: Staged, record: Record) -> Algorithm:
    """Of a classifier and a regressor the one for the target: as ``choose_algorithm``, from counts."""
    kind = counts.schema.field(0).type
    if pa.types.is_string(kind) or pa.types.is_boolean(kind) or different <= 2:
        chosen = next(a for a in able if a.task is Task.CLASSIFICATION)
        rows = sum(counts.column(1).to_pylist())
        some = counts.slice(0, 5).to_pylist()
        values = ", ".join(f"{shown(c['value'])} ({100 * c['count'] / rows:.1f} %)" for c in some)
        more = f", … ({different - 5:,} more)" if different > 5 else ""
        record.notice(f"{name} has the values {values}{more}: using {chosen.name}")
        return chosen
    chosen = next(a for a in able if a.task is Task.REGRESSION)
    record.notice(f"{name} is a number with {different:,} different values: using {chosen.name}")
    return chosen


def _check_numbers(name: str, staged: Staged, column: Any, algorithm: Algorithm) -> None:
    from pyspark.sql import functions as sf

    if pa.types.is_string(staged.types[name]):
        raise TrainingDataError(
            f"target {name} is text, and {algorithm.name} predicts numbers",
            hint=f"use a classifier, or try_cast({name} AS DOUBLE) AS {name} in the query",
        )
    y = column.cast("double")
    infinite = sf.abs(y) == float("inf")
    low, high, wrong = staged.frame.agg(sf.min(y), sf.max(y), sf.count_if(infinite)).first()
    if wrong:
        found = count_of(int(wrong), "row")
        raise TrainingDataError(f"target {name} is infinite in {found}: leave what is infinite out with WHERE")
    if low == high:
        raise TrainingDataError(f"target {name} has one value only: {low:g}; there is nothing to learn")


def _check_classes(name: str, classes: tuple[Any, ...], different: int, known: int) -> None:
    if len(classes) == 1:
        raise one_class(name, classes)
    if different >= known:
        raise TrainingDataError(
            f"target {name} has {different:,} different values in {known:,} rows: there must be more rows than classes"
        )
    if different > _MOST_CLASSES or (different > 50 and different > known / 2):
        number = not isinstance(classes[0], str)
        hint = "use a regressor: USING xgboost_regressor" if number else "choose another target, or group its values with CASE"
        raise TrainingDataError(f"target {name} has {different:,} different values, too many for classes", hint=hint)


def with_y(staged: Staged, learner: Learner) -> Any:
    """The frame with ``y``: the class code or the value, as a double; NULL where the target is not known."""
    from pyspark.sql import functions as sf

    if learner.target is None:
        return staged.frame.withColumn("y", sf.lit(0.0))
    column = target_column(staged, learner.target.name)
    if not learner.classes:
        y = column.cast("double")
        return staged.frame.withColumn("y", sf.when(sf.abs(y) < float("inf"), y))
    return staged.frame.withColumn("y", class_codes(column, staged.types[learner.target.name], learner.classes))


def class_codes(column: Any, data_type: pa.DataType, classes: Sequence[Any]) -> Any:
    """Each value's place in ``classes`` as a double, NULL for what is not there; other types are compared as text."""
    from pyspark.sql import functions as sf

    text = isinstance(classes[0], str)
    like = {bool: "boolean", int: "bigint", float: "double"}.get(type(classes[0]), "string")
    if text != (pa.types.is_string(data_type) or pa.types.is_large_string(data_type)):
        column, classes = (
            column.cast("string"),
            [str(value).lower() if isinstance(value, bool) else str(value) for value in classes],
        )
        like = "string"
    pairs = [item for i, value in enumerate(classes) for item in (sf.lit(value).cast(like), sf.lit(float(i)))]
    return sf.try_element_at(sf.create_map(*pairs), column.cast(like))
