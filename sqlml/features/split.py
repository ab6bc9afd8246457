"""Which rows are held out, and which decide when to stop: seeded, by class, by a column's marks, by time, by folds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.errors import TrainingDataError, listing
from sqlml.features.dataset import Values

if TYPE_CHECKING:
    from numpy.typing import NDArray

TRAINING, VALIDATION, HELDOUT, UNMARKED = 0, 1, 2, -1
"""What a mark of SPLIT BY says of a row; UNMARKED for NULL."""

MARKS = (
    dict.fromkeys(("train", "training"), TRAINING)
    | dict.fromkeys(("valid", "validation"), VALIDATION)
    | dict.fromkeys(("eval", "test", "heldout", "holdout"), HELDOUT)
)
"""The words that SPLIT BY understands, in any case of letters."""


def split_rows(
    rows: NDArray[np.int64], fraction: float, seed: int, classes: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide ``rows`` into (kept, taken), each in the order given; ``taken`` is about ``fraction`` of them.

    ``classes`` (n,) are class codes of the rows: each class is divided by itself and keeps at least one row.  Without them at
    least one row is kept.
    """
    taken = np.zeros(len(rows), bool)
    generator = np.random.default_rng(seed)
    groups = [np.arange(len(rows))] if classes is None else [np.flatnonzero(classes == c) for c in np.unique(classes)]
    for group in groups:
        count = min(round(len(group) * fraction), len(group) - 1)
        if count > 0:
            taken[generator.permutation(group)[:count]] = True
    return rows[~taken], rows[taken]


def fold_numbers(n: int, folds: int, seed: int, classes: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """(n,): the fold 0 … folds-1 of each row; folds differ by one row at most, and so does each class within them."""
    generator = np.random.default_rng(seed)
    numbers = np.empty(n, np.int64)
    groups = [np.arange(n)] if classes is None else [np.flatnonzero(classes == c) for c in np.unique(classes)]
    dealt = 0
    for group in groups:
        numbers[generator.permutation(group)] = (dealt + np.arange(len(group))) % folds
        dealt += len(group)
    return numbers


def read_marks(column: str, values: Values) -> NDArray[np.int64]:
    """What each value of SPLIT BY's column says of its row: TRAINING, VALIDATION, HELDOUT or UNMARKED.

    True or 1 means held out, false or 0 training; words are those of ``MARKS``.  ``TrainingDataError`` lists other values.
    """
    distinct = pc.unique(values)
    meaning = [(value, _mark(value)) for value in distinct.to_pylist()]
    wrong = [value for value, mark in meaning if mark is None]
    if wrong:
        raise TrainingDataError(
            f"SPLIT BY {column} does not understand {listing(sorted(_shown(value) for value in wrong))}",
            hint="true or 1: held out, false or 0: training; or the words 'train', 'validation' and 'test'",
            about="split",
        )
    codes = pc.index_in(values, value_set=distinct).to_numpy(zero_copy_only=False).astype(np.int64)
    marks = np.array([mark for _, mark in meaning], np.int64)
    return np.asarray(marks[codes])


def _mark(value: object) -> int | None:
    if value is None or value != value:  # NaN
        return UNMARKED
    if isinstance(value, str):
        return MARKS.get(value.strip().lower())
    numbers: dict[object, int] = {0: TRAINING, 1: HELDOUT}  # false and true as well
    return numbers.get(value) if isinstance(value, bool | int | float) else None


def _shown(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return f"'{value}'" if isinstance(value, str) else str(value)


def latest(values: Values, fraction: float) -> NDArray[np.bool_]:
    """(n,): which rows are the latest ``fraction`` of those whose time is known; ties at the border are not among them.

    ``values`` are times, dates or numbers; NULL is not known.
    """
    times = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    known = ~pc.is_null(times, nan_is_null=True).to_numpy(zero_copy_only=False)
    taken = np.zeros(len(times), bool)
    count = int(known.sum())
    kept = count - min(round(count * fraction), count - 1)
    if not count or kept == count:
        return taken
    plain = _plain_numbers(times)
    border = np.partition(plain[known], kept - 1)[kept - 1]
    taken[known] = plain[known] > border
    return taken


def _plain_numbers(times: pa.Array) -> NDArray[np.generic]:
    """Times as whole numbers, numbers as they are; NULL as 0."""
    if pa.types.is_floating(times.type):
        return np.asarray(pc.fill_null(times, 0.0).to_numpy(zero_copy_only=False))
    width = pa.int32() if pa.types.is_date32(times.type) else pa.int64()
    return np.asarray(pc.fill_null(pc.cast(times, width), 0).to_numpy(zero_copy_only=False))
