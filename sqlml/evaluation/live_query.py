"""How a deployed query does: logged columns of its answer, each joined with what turned out to be true of it.

log (outputs by name) + feedback that names the column → answers and truths → Scores, by what the answers are
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.algorithms.metrics import Metrics, label_metrics
from sqlml.evaluation.live import LiveScores, RoleRows, Truths, read_feedback, rows_by_role
from sqlml.evaluation.scores import Scores
from sqlml.features.target import encode_classes
from sqlml.features.truths import class_codes, number_truths, numbers
from sqlml.home import Home
from sqlml.plan import TargetColumn
from sqlml.prediction_log import feedback_files, prediction_files
from sqlml.types import Task, label_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TWO = (False, True)
_WHOLE = r"^\s*([-+]?\d+)(\.0+)?\s*$"


@dataclass(frozen=True)
class AnswerColumn:
    """A column of a query's answer, by its name.

    ``classes``: of a column of probabilities, and of what a classifier answered as it is, in order.  ``label``: a number in it is
    a label.  ``sole``: feedback that names no column is about this one.  ``passed_on``: measured only where feedback names it.
    """

    name: str
    sql_type: str
    classes: tuple[Any, ...] = ()
    label: bool = False
    sole: bool = False
    passed_on: bool = False


@dataclass(frozen=True)
class LabelScores(Scores):
    """Labels alone: ``raw`` and ``actual`` are codes (n,); without probabilities there is no log_loss and no roc_auc."""

    def measure(self, threshold: float | None = None) -> Metrics:
        """The figures of labels; there is nothing for ``threshold`` to do."""
        own = self.known
        two = self.target is not None and len(self.target.classes) == 2
        return label_metrics(np.asarray(own.actual), own.raw, two=two)


def measure_query(
    home: Home,
    endpoint: str,
    columns: Mapping[str, Sequence[AnswerColumn]],
    by: Sequence[str] = (),
    since: datetime | None = None,
) -> list[LiveScores]:
    """The scores of the queries given, by uid with their columns, in order; of those that the log has.  As ``measure_live``."""
    files = {folder.name: paths for folder, paths in prediction_files(home, endpoint).items()}
    feedback = read_feedback(feedback_files(home, endpoint))
    found: list[LiveScores] = []
    for uid, own in columns.items():
        for column in own if uid in files else ():
            truths = Truths.of_target(feedback, column.name, only=column.sole)
            if column.passed_on and truths.none:
                continue
            rows = rows_by_role(files[uid], truths, by, since, partial(_pair, column.name))
            found += [_live(uid, role, part, column) for role, part in rows.items()]
    return found


def _pair(name: str, outputs: pa.StructArray, truth: pa.Array) -> pa.Table:
    return pa.table([pc.struct_field(outputs, name), truth], names=["answer", "truth"])


def _live(uid: str, role: str, rows: RoleRows[pa.Table], column: AnswerColumn) -> LiveScores:
    pairs = pa.concat_tables(rows.pieces, promote_options="permissive")
    scores = scores_of_answers(pairs["answer"].combine_chunks(), pairs["truth"].combine_chunks(), column)
    target = scores.target or TargetColumn(column.name, column.sql_type, scores.task)
    return LiveScores(uid, rows.version, role, target, rows.logged, scores, rows.kept)


# --- what the answers are ---------------------------------------------------------------------------------------------


def scores_of_answers(answers: pa.Array, truth: pa.Array, column: AnswerColumn) -> Scores:
    """Answers and truths (texts) of the same rows as scores: probabilities of classes, labels, or numbers.

    Numbers in [0, 1] whose truths are all 0 or 1, or words for it, are probabilities of the second of two classes; whole ones
    are labels.  A row whose answer is NULL or whose truth means nothing is not known.
    """
    if pa.types.is_struct(answers.type):
        return _struct_scores(answers, truth, column)
    if pa.types.is_boolean(answers.type):
        return _label_scores(encode_classes(answers, _TWO), _truth_codes(truth), column, _TWO)
    whole = pa.types.is_integer(answers.type)
    number = whole or pa.types.is_floating(answers.type) or pa.types.is_decimal(answers.type)
    if number and not column.label:
        return _number_scores(numbers(answers), truth, column, whole=whole)
    if column.classes:
        return _label_scores(encode_classes(answers, column.classes), class_codes(truth, column.classes), column, column.classes)
    texts, truths = pc.cast(answers, pa.string()), _plain_wholes(truth) if whole else truth
    labels = sorted({text for text in (*pc.unique(texts).to_pylist(), *pc.unique(truths).to_pylist()) if text is not None})
    return _label_scores(encode_classes(texts, labels), encode_classes(truths, labels), column, tuple(labels))


def _struct_scores(answers: pa.StructArray, truth: pa.Array, column: AnswerColumn) -> Scores:
    """Probabilities of all classes."""
    classes = column.classes or tuple(field.name for field in answers.type)
    raw = np.column_stack([numbers(pc.struct_field(answers, label_text(value))) for value in classes])
    actual = np.where(np.isfinite(raw).all(1), class_codes(truth, classes), -1)
    return Scores(Task.CLASSIFICATION, raw, actual, target=_target(column, Task.CLASSIFICATION, classes))


def _number_scores(raw: NDArray[np.float64], truth: pa.Array, column: AnswerColumn, *, whole: bool) -> Scores:
    answered = np.isfinite(raw)
    if not answered.any():  # what they would have been nobody can tell
        return Scores(Task.TRANSFORM, raw[:0], np.empty(0), target=_target(column, Task.TRANSFORM))
    codes = np.where(answered, _truth_codes(truth), -1)
    if (codes[answered] >= 0).all() and ((raw[answered] >= 0) & (raw[answered] <= 1)).all():
        if whole:
            return _label_scores(np.where(answered, raw, -1).astype(np.int64), codes, column, (0, 1))
        target = _target(column, Task.CLASSIFICATION, (0, 1))
        return Scores(Task.CLASSIFICATION, np.column_stack([1 - raw, raw]), codes, target=target)
    actual = np.where(answered, number_truths(truth), np.nan)
    return Scores(Task.REGRESSION, raw, actual, target=_target(column, Task.REGRESSION))


def _label_scores(
    chosen: NDArray[np.int64], actual: NDArray[np.int64], column: AnswerColumn, classes: tuple[Any, ...]
) -> LabelScores:
    known = np.where(chosen >= 0, actual, -1)
    return LabelScores(Task.CLASSIFICATION, chosen, known, target=_target(column, Task.CLASSIFICATION, classes))


def _target(column: AnswerColumn, task: Task, classes: Sequence[Any] = ()) -> TargetColumn:
    return TargetColumn(column.name, column.sql_type, task, tuple(classes))


def _truth_codes(truth: pa.Array) -> NDArray[np.int64]:
    """1 for what is true, 0 for what is not, -1 for what is neither: 0, 1.0, yes, false."""
    return class_codes(_plain_wholes(truth), _TWO)


def _plain_wholes(truth: pa.Array) -> pa.Array:
    """Whole numbers as they are written shortest: ``3`` for ``3.0``; any other text as it is."""
    return pc.replace_substring_regex(truth, _WHOLE, r"\1")
