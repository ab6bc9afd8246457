"""What rows a model can be learnt from, decided from counts: the same whether this machine has counted them or a cluster.

Each rule raises a ``TrainingDataError``, tells a notice, or gives what follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.contracts import Algorithm
from sqlml.errors import TrainingDataError, count_of
from sqlml.features.split import HELDOUT, TRAINING, UNMARKED
from sqlml.features.target import shown
from sqlml.plan import TargetColumn
from sqlml.training.record import Record
from sqlml.types import SQL_TYPE, Kind, Task, label_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_CLASSES = 1000
_SHOWN = 5


# --- the target -------------------------------------------------------------------------------------------------------


def no_rows() -> TrainingDataError:
    """The error for a query that gave none."""
    return TrainingDataError("the query gave no rows: there is nothing to learn from", about="query")


def all_unknown(name: str, rows: int) -> TrainingDataError:
    """The error for a target that is NULL everywhere."""
    where = "the only row" if rows == 1 else f"all {rows:,} rows"
    return TrainingDataError(f"target {name} is NULL in {where}: there is nothing to learn")


def unlearnable_type(name: str, data_type: object) -> TrainingDataError:
    """The error for a target that is neither a number nor classes."""
    return TrainingDataError(
        f"target {name} is of a type that cannot be learnt ({data_type})",
        hint="make it a number or classes in the query: extract(year FROM …), date_diff('day', …), CASE WHEN … END",
    )


def choose_algorithm(
    name: str, two: Sequence[Algorithm], counts: Sequence[tuple[Any, int]], different: int, known: int, *, is_number: bool
) -> tuple[Algorithm, str]:
    """Of a classifier and a regressor the one for a target, and the notice that says so.

    Text, boolean or at most two values: the classifier; other numbers: the regressor.  ``counts`` are the most frequent of the
    ``different`` values, the first first, of ``known`` rows.
    """
    if is_number and different > 2:
        chosen = next(a for a in two if a.task is Task.REGRESSION)
        return chosen, f"{name} is a number with {different:,} different values: using {chosen.name}"
    chosen = next(a for a in two if a.task is Task.CLASSIFICATION)
    values = ", ".join(f"{shown(value)} ({100 * count / known:.1f} %)" for value, count in counts[:_SHOWN])
    more = f", … ({different - _SHOWN:,} more)" if different > _SHOWN else ""
    return chosen, f"{name} has the values {values}{more}: using {chosen.name}"


def text_for_numbers(name: str, algorithm: Algorithm) -> TrainingDataError:
    """The error for a regressor's target that is text."""
    return TrainingDataError(
        f"target {name} is text, and {algorithm.name} predicts numbers",
        hint=f"use a classifier, or TRY_CAST({name} AS DOUBLE) AS {name} in the query",
    )


def check_numbers(name: str, infinite: int, low: float, high: float) -> None:
    """A regressor's target: how many values are infinite, the lowest and the highest."""
    if infinite:
        found = count_of(infinite, "row")
        raise TrainingDataError(f"target {name} is infinite in {found}: leave what is infinite out with WHERE")
    if low == high:
        raise TrainingDataError(f"target {name} has one value only: {low:g}; there is nothing to learn")


def check_classes(name: str, classes: Sequence[Any], different: int, known: int) -> None:
    """A classifier's target: its ``different`` values, of which ``classes`` are known here, in ``known`` rows."""
    if different == 1:
        raise one_class(name, classes)
    if different >= known:
        raise TrainingDataError(
            f"target {name} has {different:,} different values in {known:,} rows: there must be more rows than classes"
        )
    if different > MOST_CLASSES or (different > 50 and different > known / 2):
        number = not isinstance(classes[0], str)
        hint = "use a regressor: USING xgboost_regressor" if number else "choose another target, or group its values with CASE"
        raise TrainingDataError(f"target {name} has {different:,} different values, too many for classes", hint=hint)


def one_class(name: str, classes: Sequence[Any], of: str = "") -> TrainingDataError:
    """The error for a target of one class; ``of`` says in which rows."""
    only = f"'{classes[0]}'" if isinstance(classes[0], str) else label_text(classes[0])
    return TrainingDataError(f"target {name} has one value only{of}: {only}; there is nothing to tell apart")


def class_target(name: str, classes: tuple[Any, ...], kind: Kind, task: Task) -> TargetColumn:
    """A target of classes; of whole numbers the predictions are whole, too."""
    whole = all(type(value) is int for value in classes)
    return TargetColumn(name, "BIGINT" if whole else SQL_TYPE[kind], task, classes)


def balanced(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """What a row of each class weighs, by how many there are: n / (classes x count), scikit-learn's formula."""
    return np.asarray(counts.sum() / (len(counts) * np.maximum(counts, 1)), np.float64)


# --- weights ----------------------------------------------------------------------------------------------------------


def weight_is_no_number(name: str) -> TrainingDataError:
    """The error for a WEIGHT of another type."""
    return TrainingDataError(f"weight {name} is not a number", about="weight")


def check_weights(name: str, absent: int, low: float, high: float) -> None:
    """The column of WEIGHT: how many values are NULL, the lowest and the highest of the others."""
    if absent:
        raise TrainingDataError(f"weight {name} is NULL in {count_of(absent, 'row')}: use coalesce({name}, 1)", about="weight")
    if low < 0 or high == float("inf"):
        ends = f"lowest {low:g}, highest {high:g}"
        raise TrainingDataError(f"weight {name} must be finite and not below 0 ({ends})", about="weight")
    if high == 0:
        raise TrainingDataError(f"weight {name} is 0 in all rows: there is nothing to learn from", about="weight")


# --- which rows are held out ------------------------------------------------------------------------------------------


def left_out(count: int, rows: int, what: str, of: str = "") -> str:
    """``1 of 50 rows is left out: its``"""
    verb, whose = ("is", "its") if count == 1 else ("are", "their")
    return f"{count:,} of {count_of(rows, what)} {verb} left out{of}: {whose}"


def tell_marks(column: str, counts: Mapping[int, int], record: Record) -> None:
    """SPLIT BY: how many rows have each mark.  Rows without one are training rows."""
    record.notice(f"{column} says which rows are held out: it is no feature")
    if counts.get(UNMARKED):
        record.notice(f"{count_of(counts[UNMARKED], 'row')} without a {column} (NULL): training rows")
    if not counts.get(TRAINING) and not counts.get(UNMARKED):
        raise TrainingDataError(f"SPLIT BY {column} leaves no row to train on", about="split")
    if not counts.get(HELDOUT):
        record.notice(f"SPLIT BY {column} holds no row out")


def tell_times(column: str, unknown: int, record: Record) -> None:
    """SPLIT TIME: how many rows have no time."""
    record.notice(f"{column} says which rows are held out: it is no feature")
    if unknown:
        record.notice(f"{count_of(unknown, 'row')} without a {column} (NULL): training rows")


def no_latest(column: str, *, known: bool) -> TrainingDataError:
    """The error for times of which none can be held out."""
    what = "has too few different values to hold out the latest" if known else "is NULL in every row"
    return TrainingDataError(f"SPLIT TIME {column}: the column {what}", hint="SPLIT RANDOM 0.2 needs no times", about="split")


def no_validation_rows() -> TrainingDataError:
    """The error for a query of VALIDATE ON that gave none."""
    return TrainingDataError("the query of VALIDATE ON gave no rows: there is nothing to measure the model on", about="validate")


def tell_unmeasured(name: str, count: int, rows: int, classes: Sequence[Any], record: Record) -> None:
    """Rows of VALIDATE ON that a model cannot be measured on."""
    if count:
        why = "a class without training rows" if classes else "infinite"
        record.notice(f"{left_out(count, rows, 'validation row')} {name} is NULL or {why}")


def tell_trained_on(algorithm: Algorithm, record: Record) -> None:
    """Rows that would decide when to stop, for an algorithm that does not stop early."""
    record.notice(f"{algorithm.name} does not stop early here: the validation rows are trained on")


def learnt_classes(
    name: str, classes: Sequence[Any], trained: NDArray[np.int64], record: Record | None
) -> NDArray[np.int64] | None:
    """Which classes have training rows, by their places; None where all have.  ``trained``: how many rows of each there are."""
    if trained.all():
        return None
    kept = np.flatnonzero(trained)
    if len(kept) == 1:
        raise one_class(name, [classes[int(kept[0])]], " in the training rows")
    if record:
        gone = [shown(classes[i]) for i in np.flatnonzero(trained == 0).tolist()][:_SHOWN]
        record.notice(f"{name} has no training row of {', '.join(gone)}: rows of such a class are not measured")
    return kept


def no_training_target(name: str) -> TrainingDataError:
    """The error for training rows none of which has a target."""
    return TrainingDataError(f"target {name} is NULL in every training row: there is nothing to learn")
