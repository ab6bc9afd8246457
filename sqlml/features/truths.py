"""What turned out to be true, told as texts: as places among a target's classes, or as numbers.  Pure functions.

truths of feedback + the target as the versions know it → codes or numbers, and the first truth that means nothing to any
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.errors import did_you_mean, listing
from sqlml.features.target import encode_classes
from sqlml.plan import TargetColumn
from sqlml.types import BOOLEAN_WORDS, Task, label_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
_SHOWN = 12
Known: TypeAlias = Callable[[str | None], Sequence[TargetColumn]]
"""Gives a target as some versions know it, by its name in lower case; None: what feedback is about that names none."""


class WrongTruth(NamedTuple):
    """A truth that means nothing: its place among the rows, what to say of it, and what to do."""

    place: int
    message: str
    hint: str


def class_codes(truth: pa.Array, classes: Sequence[Any]) -> NDArray[np.int64]:
    """Texts as places in ``classes``, -1 for what is none: ``yes`` is true where classes are booleans, ``3.0`` is 3."""
    if classes and all(isinstance(value, bool) for value in classes):
        words = pa.array(list(BOOLEAN_WORDS))
        values = pa.array(["true" if value else "false" for value in BOOLEAN_WORDS.values()])
        truth = pc.take(values, pc.index_in(pc.utf8_lower(truth), value_set=words, skip_nulls=True))
    elif classes and all(isinstance(value, int) for value in classes):
        truth = pc.replace_substring_regex(truth, r"\.0+$", "")
    elif classes and all(isinstance(value, float) for value in classes):
        truth = pa.array(number_truths(truth))  # one that is no number must not make texts of all others
    return encode_classes(truth, classes)


def number_truths(truth: pa.Array) -> NDArray[np.float64]:
    """Texts as numbers, NaN for what is none."""
    plain = pc.if_else(pc.match_substring_regex(truth, _NUMBER), pc.utf8_trim_whitespace(truth), pa.scalar(None, pa.string()))
    return numbers(pc.cast(plain, pa.float64()))


def numbers(values: pa.Array) -> NDArray[np.float64]:
    """Numbers as float64, NULL as NaN."""
    return np.asarray(pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def first_meaningless(truth: pa.Array, targets: Sequence[TargetColumn]) -> int | None:
    """The place of the first truth that no version can be measured by: none of its classes, or no number.

    ``targets``: the same column as each of some versions predicts it; one without classes means anything.
    """
    if any(target.task is Task.CLASSIFICATION and not target.classes for target in targets):
        return None
    means = np.zeros(len(truth), np.bool_)
    for target in targets:
        if target.task is Task.CLASSIFICATION:
            means |= class_codes(truth, target.classes) >= 0
        else:
            means |= np.isfinite(number_truths(truth))
    return None if not targets or means.all() else int(np.flatnonzero(~means)[0])


def find_wrong_truth(named: pa.Array, truth: pa.Array, known: Sequence[Known]) -> WrongTruth | None:
    """A truth of some rows of feedback that no version could be measured by, of each target the first; None: all mean something.

    ``named``: each row's target, NULL where it names none; ``known``: asked one after the other, as long as it is needed.
    """
    lowered = pc.utf8_lower(named)
    for name in pc.unique(lowered).to_pylist():
        places = np.flatnonzero(pc.is_null(lowered) if name is None else pc.fill_null(pc.equal(lowered, name), False))
        own, targets, wrong = truth.take(pa.array(places)), list[TargetColumn](), None
        for more in known:
            targets += more(name)
            wrong = first_meaningless(own, targets)
            if targets and wrong is None:
                break
        if wrong is not None:
            return WrongTruth(int(places[wrong]), *meaningless(own[wrong].as_py(), targets))
    return None


def meaningless(truth: str, targets: Sequence[TargetColumn]) -> tuple[str, str]:
    """What to say of such a truth, and what to do."""
    shown = repr(truth if len(truth) <= 40 else truth[:39] + "…")
    name = targets[0].name
    if any(target.task is not Task.CLASSIFICATION for target in targets):
        more = ", or yes or no of a probability" if len(targets) > 1 else ""
        return f"the truth {shown} is no number, and {name} is one", f"give the number that it turned out to be{more}"
    classes = tuple(dict.fromkeys(label_text(value) for target in targets for value in target.classes))
    hint = did_you_mean(truth, classes) or f"they are: {listing(classes, _SHOWN)}"
    return f"the truth {shown} is none of the classes of {name}", hint
