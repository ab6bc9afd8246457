"""Which rows each head learns from and which are held out, as SPLIT says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from sqlml.errors import TrainingDataError
from sqlml.features.dataset import Values, take
from sqlml.features.split import HELDOUT, TRAINING, UNMARKED, VALIDATION, fold_numbers, latest, read_marks, split_rows
from sqlml.features.target import nothing_to_measure, shown
from sqlml.plan import SplitPlan
from sqlml.training import rules
from sqlml.training.aims import Aim, Learner, other_values
from sqlml.training.record import Record
from sqlml.training.rows import HeadRows, Rows, known_targets
from sqlml.training.source import Source

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class HeadTask:
    """What one head has to do: its learner and its rows, before any are taken to decide when to stop.

    ``plain`` are training rows, ``marked`` those that SPLIT BY calls validation rows, ``held`` the held-out ones.
    """

    learner: Learner
    plain: Rows
    marked: Rows
    held: Rows


def divide(
    aims: tuple[Aim, ...], source: Source, other: Source | None, split: SplitPlan, seed: int, record: Record
) -> tuple[HeadTask, ...]:
    """The rows of each head.  Several heads share one division; one head's rows are divided class by class.

    ``other`` has the rows of VALIDATE ON.
    """
    alone = len(aims) == 1
    numbers = source.data.order
    if alone:
        known = known_targets(aims[0].y, source.size)
        numbers = numbers if known.all() else numbers[known[numbers]]
    classes = aims[0].y[numbers] if alone and aims[0].y is not None and aims[0].learner.stratifies else None
    marks = _marks(source, numbers, classes, split, seed, record)
    tasks = []
    for aim in aims:
        rows = _all_rows(aim, source, numbers)
        _tell(aim, source, rows, split, alone, record)
        plain, marked, held = (rows.pick(marks == part) for part in (TRAINING, VALIDATION, HELDOUT))
        held = held if other is None else _other_rows(aim.learner, other, alone, record)
        tasks.append(HeadTask(aim.learner, plain.pick(plain.known), marked.pick(marked.known), held))
    return tuple(tasks)


def _all_rows(aim: Aim, source: Source, numbers: NDArray[np.int64]) -> Rows:
    y = None if aim.y is None else aim.y[numbers]
    return Rows(numbers, y, None if source.weight is None else source.weight[numbers])


def _tell(aim: Aim, source: Source, rows: Rows, split: SplitPlan, alone: bool, record: Record) -> None:
    """Say which rows are left out for want of a target, and which classes are too rare to be held out."""
    learner = aim.learner
    known = known_targets(aim.y, source.size)
    if not known.all():
        of = "" if alone else f" for {learner.name}"
        left = rules.left_out(int((~known).sum()), len(known), "row", of)
        record.notice(f"{left} {learner.name} is NULL")
    if alone and learner.classes and rows.y is not None and split.method == "random":
        counts = np.bincount(rows.y, minlength=len(learner.classes))
        single = [shown(learner.classes[i]) for i in np.flatnonzero(counts == 1)]
        if single:
            record.notice(f"{learner.name} has one row only of {', '.join(single[:5])}: it is kept for training")


# --- the ways to split ------------------------------------------------------------------------------------------------


def _marks(
    source: Source, numbers: NDArray[np.int64], classes: NDArray[np.int64] | None, split: SplitPlan, seed: int, record: Record
) -> NDArray[np.int64]:
    """TRAINING, VALIDATION or HELDOUT for each of the rows numbered ``numbers``."""
    marks = np.full(len(numbers), TRAINING, np.int64)
    positions = np.arange(len(numbers))
    match split.method:
        case "random":
            marks[split_rows(positions, split.fraction, seed, classes)[1]] = HELDOUT
        case "fold":
            if split.folds > len(numbers):
                raise TrainingDataError(f"{split.folds} folds need as many rows; there are {len(numbers):,}")
            marks[fold_numbers(len(numbers), split.folds, seed, classes) == split.fold] = HELDOUT
        case "by":
            marks = _by_column(source, numbers, split, record)
        case "time":
            marks[_by_time(source, numbers, split, record)] = HELDOUT
    return marks


def _split_values(source: Source, numbers: NDArray[np.int64], split: SplitPlan) -> Values:
    return take(source.data.column(split.column or ""), numbers)


def _by_column(source: Source, numbers: NDArray[np.int64], split: SplitPlan, record: Record) -> NDArray[np.int64]:
    marks = read_marks(split.column or "", _split_values(source, numbers, split))
    found, counts = np.unique(marks, return_counts=True)
    rules.tell_marks(split.column or "", dict(zip(found.tolist(), counts.tolist(), strict=True)), record)
    marks[marks == UNMARKED] = TRAINING
    return marks


def _by_time(source: Source, numbers: NDArray[np.int64], split: SplitPlan, record: Record) -> NDArray[np.bool_]:
    values = _split_values(source, numbers, split)
    unknown = int(pc.sum(pc.is_null(values, nan_is_null=True)).as_py() or 0)
    rules.tell_times(split.column or "", unknown, record)
    held = latest(values, split.fraction)
    if not held.any():
        raise rules.no_latest(split.column or "", known=unknown < len(values))
    return held


# --- the rows of VALIDATE ON ------------------------------------------------------------------------------------------


def _other_rows(learner: Learner, other: Source, alone: bool, record: Record) -> Rows:
    if not other.size:
        raise rules.no_validation_rows()
    rows = Rows(other.data.order, None, None if other.weight is None else other.weight[other.data.order])
    if learner.name is None:
        return rows
    values = other.data.table.column(learner.name)
    y = other_values(learner, values)[other.data.order]
    rows = Rows(rows.numbers, y, rows.weight)
    known = rows.known
    if not known.any():
        raise nothing_to_measure(learner.name, values, learner.classes, " of VALIDATE ON")
    rules.tell_unmeasured(learner.name, int((~known).sum()), len(known), learner.classes, record)
    return rows.pick(known) if alone else rows


# --- what an algorithm gets -------------------------------------------------------------------------------------------


def arrange(task: HeadTask, source: Source, seed: int, fraction: float, record: Record | None) -> tuple[Learner, HeadRows]:
    """The rows of a head as its algorithm gets them, and the learner with those classes alone that can be learnt.

    Rows that decide when to stop are the marked ones where there are any, else a part of the training rows; where nothing stops
    early all are trained on.
    """
    learner, plain, valid = task.learner, task.plain, task.marked
    if not learner.stops_early:
        if len(valid) and record:
            rules.tell_trained_on(learner.algorithm, record)
        plain, valid = merge(source, plain, valid), valid.none()
    elif not len(valid):
        plain, valid = plain.divide(fraction, seed + 1, learner.stratifies)
    return _learnable(learner, HeadRows(plain, valid, task.held), record)


def merge(source: Source, *parts: Rows) -> Rows:
    """The rows of several parts together, in canonical order."""
    filled = [part for part in parts if len(part)] or [parts[0]]
    if len(filled) == 1:
        return filled[0]
    numbers = np.concatenate([part.numbers for part in filled])
    order = np.argsort(source.rank[numbers])
    y = None if filled[0].y is None else np.concatenate([part.y for part in filled if part.y is not None])[order]
    weight = None
    if filled[0].weight is not None:
        weight = np.concatenate([part.weight for part in filled if part.weight is not None])[order]
    return Rows(numbers[order], y, weight)


def _learnable(learner: Learner, rows: HeadRows, record: Record | None) -> tuple[Learner, HeadRows]:
    """Without the classes that have no training row: nothing could be learnt of them, unless an earlier version has."""
    y = rows.train.y
    if learner.name is not None and not len(rows.train):
        raise rules.no_training_target(learner.name)
    if not learner.classes or y is None or learner.fixed:
        return learner, rows
    present = rules.learnt_classes(learner.name or "", learner.classes, np.bincount(y, minlength=len(learner.classes)), record)
    if present is None:
        return learner, rows
    codes = np.full(len(learner.classes), -1)
    codes[present] = np.arange(len(present))
    classes = tuple(learner.classes[i] for i in present)
    valid, held = rows.valid.recoded(codes), rows.held.recoded(codes)
    return learner.with_classes(classes), HeadRows(rows.train.recoded(codes), valid.pick(valid.known), held)
