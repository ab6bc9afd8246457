"""What is to be learnt, found from counts that the cluster makes: the algorithm, the classes, each row's ``y``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from sqlml.algorithms.options import check_options
from sqlml.contracts import Algorithm
from sqlml.features.target import find_classes, plain_target
from sqlml.plan import TargetColumn, TrainPlan
from sqlml.training import rules
from sqlml.training.aims import Learner, check_class_weight
from sqlml.training.record import Record
from sqlml.types import SQL_TYPE, Kind, Task, kind_of_arrow
from sqlml_runners.spark.checks import able_algorithms
from sqlml_runners.spark.tables import Staged


def find_learner(plan: TrainPlan, staged: Staged, threads: int, record: Record) -> tuple[Learner, int]:
    """The learner, its options and classes checked as a job on one machine checks them; how many rows have a target."""
    able = able_algorithms(plan)
    if not staged.rows:
        raise rules.no_rows()
    if not plan.targets:
        options = check_options(able[0], {**plan.options, "seed": plan.seed})
        return Learner(able[0], options, None, plan.seed, threads), staged.rows
    name = plan.targets[0]
    column = target_column(staged, name)
    known, different, counts = _counts(staged, column)
    if not known:
        raise rules.all_unknown(name, staged.rows)
    algorithm = able[0] if len(able) == 1 else _choose(name, able, counts, different, known, record)
    options = check_options(algorithm, {**plan.options, "seed": plan.seed})
    if algorithm.task is Task.REGRESSION:
        _check_numbers(name, staged, column, algorithm)
        target = TargetColumn(name, SQL_TYPE[Kind.NUMBER], algorithm.task)
        return Learner(algorithm, options, target, plan.seed, threads), known
    classes = find_classes(_plain(name, counts.column(0).combine_chunks()))
    rules.check_classes(name, classes, different, known)
    target = rules.class_target(name, classes, kind_of_arrow(staged.types[name]) or Kind.TEXT, algorithm.task)
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
        raise rules.unlearnable_type(name, values.type)
    return plain


def _counts(staged: Staged, column: Any) -> tuple[int, int, pa.Table]:
    """(rows whose target is known, different values, the most frequent of them with their counts)."""
    from pyspark.sql import functions as sf

    groups = staged.frame.select(column.alias("value")).where("value IS NOT NULL").groupBy("value").count()
    counts = groups.orderBy(sf.desc("count"), "value").limit(rules.MOST_CLASSES + 1).toArrow()
    if counts.num_rows <= rules.MOST_CLASSES:
        return sum(counts.column("count").to_pylist()), counts.num_rows, counts
    known, different = groups.agg(sf.sum("count"), sf.count(sf.lit(1))).first()
    return int(known or 0), int(different), counts


def _choose(name: str, able: Sequence[Algorithm], counts: pa.Table, different: int, known: int, record: Record) -> Algorithm:
    """Of a classifier and a regressor the one for the target."""
    kind = counts.schema.field(0).type
    some = [(row["value"], row["count"]) for row in counts.slice(0, 5).to_pylist()]
    is_number = not (pa.types.is_string(kind) or pa.types.is_boolean(kind))
    chosen, notice = rules.choose_algorithm(name, able, some, different, known, is_number=is_number)
    record.notice(notice)
    return chosen


def _check_numbers(name: str, staged: Staged, column: Any, algorithm: Algorithm) -> None:
    from pyspark.sql import functions as sf

    if pa.types.is_string(staged.types[name]):
        raise rules.text_for_numbers(name, algorithm)
    y = column.cast("double")
    infinite = sf.abs(y) == float("inf")
    low, high, wrong = staged.frame.agg(sf.min(y), sf.max(y), sf.count_if(infinite)).first()
    rules.check_numbers(name, int(wrong), low, high)


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
