"""What a careful person would say on seeing the training rows: notices, one line each, in SQL's words.

Everything is computed on at most 50,000 rows (the first in canonical order, as good as random), what costs most on fewer,
so that a wide table of a million rows costs a moment.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as t

from sqlml.errors import listing
from sqlml.features.column_code import read_parts
from sqlml.features.column_fit import count_values
from sqlml.features.dataset import Dataset, Values
from sqlml.features.parallel import side_by_side
from sqlml.plan import InputColumn
from sqlml.types import Kind, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SAMPLE = 50_000
_ALONE = 10_000
"""Of so many rows it is seen whether a column tells the target by itself."""
_GLANCE = 1_000
"""Of so many rows most columns show that they have more than one value."""
_FEWEST = 100
"""With fewer rows nothing is said about answers given away or about identifiers: chance does such things."""
_CATEGORIES = 1000
"""Text with more different values is no category, and its blanks do not matter."""
_PERFECT = 0.99
_EXACT = 0.99999
_NUMBER = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*")
_ZEROS = re.compile(r"\s*0\d")
_IDENTIFIER = re.compile(r"(?i:^|_|\s)(?i:id|uuid|guid|key|index|rownum|row_number|rowid)$|[a-z](Id|ID|Key)$")


@dataclass(frozen=True)
class _Sample:
    """Some training rows: the inputs, the target's name, codes or values, and what is learnt."""

    data: Dataset
    inputs: Sequence[InputColumn]
    target: str | None
    rows: NDArray[np.int64]
    y: NDArray[np.float64] | None
    classes: int

    def values(self, name: str) -> Values:
        return self.data.some(name, self.rows)

    def first(self, count: int) -> _Sample:
        """At most so many of its rows."""
        return replace(self, rows=self.rows[:count], y=None if self.y is None else self.y[:count])


def profile_notices(
    data: Dataset,
    inputs: Sequence[InputColumn],
    target: str | None,
    rows: NDArray[np.int64],
    y: NDArray[np.float64] | NDArray[np.int64] | None,
    task: Task,
    threads: int = 1,
) -> list[str]:
    """The notices for training rows ``rows`` of the data, with the target's class codes or values ``y`` in the same order."""
    picked = rows[:_SAMPLE]
    known = None if y is None or task is Task.CLUSTERING else np.asarray(y[:_SAMPLE], np.float64)
    classes = int(known.max()) + 1 if known is not None and task is Task.CLASSIFICATION else 0
    inputs = [i for i in inputs if i.kind not in (Kind.NUMBERS, Kind.TEXTS)]  # of lists there is nothing to say here
    sample = _Sample(data, inputs, target, picked, known, classes)
    texts = {i.name: _Words.of(sample.values(i.name)) for i in inputs if i.kind is Kind.TEXT}
    numbers = _numbers_as_text(texts)
    identifiers = _identifiers(sample, {name: words for name, words in texts.items() if name not in numbers})
    return [
        *_unused(sample, texts),
        *numbers.values(),
        *_blanks(sample, texts),
        *(f"{name} looks like a row identifier ({why}): EXCLUDE ({sql_name(name)})" for name, why in identifiers.items()),
        *_answers(sample, set(identifiers), threads),
    ]


def sql_name(name: str) -> str:
    """A column's name as it stands in SQL: quoted where it must be."""
    return name if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) else '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True)
class _Words:
    """The distinct texts of a column, how often each occurs, and the number of NULLs."""

    words: list[str]
    counts: list[int]
    absent: int

    @classmethod
    def of(cls, values: Values) -> _Words:
        return cls(*count_values(values, np.arange(len(values))))

    @property
    def total(self) -> int:
        return sum(self.counts)


def _unused(sample: _Sample, texts: dict[str, _Words]) -> list[str]:
    """Columns that cannot help: NULL everywhere, or one value only."""
    empty, constant = [], []
    near = np.sort(sample.rows)[:_GLANCE]  # side by side in the file
    for i in sample.inputs:
        if i.kind is Kind.NUMBER and _varies(sample.data.some(i.name, near)):
            continue
        values = sample.data.column(i.name)
        nulls = pc.is_null(values, nan_is_null=True)
        if pc.all(nulls).as_py():
            empty.append(i.name)
        elif not pc.any(nulls).as_py() and _is_constant(values, texts.get(i.name)):
            constant.append(i.name)
    notices = []
    if empty:
        notices.append(f"{listing(empty)} {'is' if len(empty) == 1 else 'are'} NULL in every row and not used")
    if constant:
        have, are = ("has", "is") if len(constant) == 1 else ("have", "are")
        notices.append(f"{listing(constant)} {have} one value only and {are} not used")
    return notices


def _varies(values: Values) -> bool:
    """Whether some numbers are not all the same."""
    ends = pc.min_max(values).as_py()
    return ends["min"] is not None and bool(ends["min"] < ends["max"])


def _is_constant(values: Values, words: _Words | None) -> bool:
    if words is not None and len(words.words) > 1:
        return False
    ends = pc.min_max(values)
    return bool(ends["min"] == ends["max"])


def _numbers_as_text(texts: dict[str, _Words]) -> dict[str, str]:
    """Text that is numbers but for a few values, blanks, ``?``, ``n/a``: name → notice."""
    notices = {}
    for name, column in texts.items():
        numbers = [(w, c) for w, c in zip(column.words, column.counts, strict=True) if _NUMBER.fullmatch(w)]
        rest = sorted({w for w in column.words if not _NUMBER.fullmatch(w)})
        share = sum(c for _, c in numbers) / column.total if column.total else 0
        if len(numbers) < 3 or len(rest) > 5 or share < 0.8 or any(_ZEROS.match(w) for w, _ in numbers):
            continue
        shown = f"{_percent(share)} of its values are numbers (the rest: {_quoted(rest)})" if rest else "its values are numbers"
        notices[name] = f"{name} is text, but {shown}: TRY_CAST({sql_name(name)} AS DOUBLE) would make it a number"
    return notices


def _blanks(sample: _Sample, texts: dict[str, _Words]) -> list[str]:
    """Texts that begin or end with blanks: ' State-gov' is another value than 'State-gov'."""
    columns = dict(texts)
    if sample.target is not None and sample.data.kinds.get(sample.target) is Kind.TEXT and sample.classes:
        columns[sample.target] = _Words.of(sample.values(sample.target))
    found, example = [], ""
    for name, column in columns.items():
        padded = [(c, w) for w, c in zip(column.words, column.counts, strict=True) if w.strip() and w != w.strip()]
        if len(column.words) <= _CATEGORIES and padded and sum(c for c, _ in padded) >= 0.01 * column.total:
            found.append(name)
            example = example or max(padded)[1]
    if not found:
        return []
    return [
        f"values of {listing(found)} begin or end with blanks ({_quoted([example])}): trim({sql_name(found[0])}) takes them off"
    ]


def _identifiers(sample: _Sample, texts: dict[str, _Words]) -> dict[str, str]:
    """Columns with another value in every row that are not measurements: name → why."""
    found: dict[str, str] = {}
    n = len(sample.rows)
    if n < _FEWEST:
        return found
    for i in sample.inputs:
        if i.kind is Kind.TEXT:
            words = texts.get(i.name)
            if words is not None and len(words.words) >= 0.9 * n:
                found[i.name] = (
                    "a different text in every row" if len(words.words) == n else "a different text in nearly every row"
                )
        elif i.kind is Kind.NUMBER and _is_row_number(sample, i.name):
            found[i.name] = "a different whole number in every row"
    return found


def _is_row_number(sample: _Sample, name: str) -> bool:
    """Whole numbers, all different, and either numbered through, or in the order of the rows, or called id."""
    kind = sample.data.table.schema.field(name).type
    if not (t.is_integer(kind) or (t.is_decimal(kind) and kind.scale == 0)):
        return False
    values = sample.values(name)
    if values.null_count or len(pc.unique(values)) < len(values):
        return False
    column = sample.data.column(name)
    ends = pc.min_max(column)
    if ends["max"].as_py() - ends["min"].as_py() < 2 * len(column) or _IDENTIFIER.search(name):
        return True
    whole = column.to_numpy(zero_copy_only=False)
    return bool((np.diff(whole) > 0).all())


# --- columns that give the answer away --------------------------------------------------------------------------------


def _answers(sample: _Sample, skip: set[str], threads: int) -> list[str]:
    """Columns that predict the target almost perfectly by themselves, or add up to it."""
    sample = sample.first(_ALONE)
    y = sample.y
    if y is None or len(sample.rows) < _FEWEST or np.ptp(y) == 0:
        return []
    figure = "AUC" if sample.classes else "R²"
    asked = [i for i in sample.inputs if i.name not in skip]
    scores = side_by_side(lambda i: _alone(_plain_column(sample, i), i.kind is Kind.TEXT, y, sample.classes), asked, threads)
    notices = [
        f"{i.name} alone tells {sample.target} almost perfectly ({figure} {min(score, 0.9999):.4g}): "
        f"EXCLUDE ({sql_name(i.name)}) if it is not known at prediction time"
        for i, score in zip(asked, scores, strict=True)
        if score > _PERFECT
    ]
    return notices or ([] if sample.classes else _sums(sample, skip))


def _plain_column(sample: _Sample, column: InputColumn) -> NDArray[np.float64]:
    """One number for each row, NaN where missing: a code for text, days with their fraction for times."""
    values = sample.values(column.name)
    if column.kind is Kind.TEXT:
        whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        return np.asarray(whole.dictionary_encode().indices.to_numpy(zero_copy_only=False), np.float64)
    if column.kind in (Kind.TIMESTAMP, Kind.TIMESTAMPTZ):
        days, hour = read_parts(values, column.kind, ("days", "hour"))
        return np.asarray(days + hour / 24)
    return read_parts(values, column.kind, ("days",))[0]  # the only part, but for dates


def _alone(x: NDArray[np.float64], category: bool, y: NDArray[np.float64], classes: int) -> float:
    """How well one column predicts: a rule learnt on the even rows (the target's mean in each bin), measured on the odd ones."""
    bins = _bins(x, category, len(x) // 2)
    learn, test = np.arange(0, len(x), 2), np.arange(1, len(x), 2)
    if not classes:
        return max(_r2(y[test], _bin_means(bins, learn, y)[test]), 0.0 if category else _line(x, y, learn, test))
    if not 2 <= classes <= 20:
        return 0.0
    codes = range(1 if classes == 2 else 0, classes)
    return float(np.mean([_area(y[test] == c, _bin_means(bins, learn, (y == c).astype(float))[test]) for c in codes]))


def _bins(x: NDArray[np.float64], category: bool, learning: int) -> NDArray[np.int64]:
    """A bin for each row: the category itself, or one of at most 500 ranges that hold 20 rows or more; 0 for missing."""
    absent = np.isnan(x)
    known = x[~absent]
    bins = np.zeros(len(x), np.int64)
    if not len(known):
        return bins
    if category:
        bins[~absent] = known.astype(np.int64) + 1
        return bins
    count = int(np.clip(learning // 20, 2, 500))
    order = np.argsort(known)
    rising = known[order]  # a third of the time that it takes to find quantiles, and places among them, in any order
    edges = np.unique(np.interp(np.linspace(0, len(rising) - 1, count + 1), np.arange(len(rising)), rising))
    own = np.empty(len(rising), np.int64)
    own[order] = np.searchsorted(edges, rising, side="right") + 1
    bins[~absent] = own
    return bins


def _bin_means(bins: NDArray[np.int64], learn: NDArray[np.int64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each row's prediction: the mean target of its bin among the rows learnt from; the overall mean where there were none."""
    size = int(bins.max()) + 1
    counts = np.bincount(bins[learn], minlength=size)
    sums = np.bincount(bins[learn], y[learn], minlength=size)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), y[learn].mean())
    return np.asarray(means[bins])


def _area(truth: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
    """The area under the ROC curve (ties count half); 0 where either side has fewer than 10 rows."""
    positive = int(truth.sum())
    negative = len(truth) - positive
    if min(positive, negative) < 10:
        return 0.0
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))


def _line(x: NDArray[np.float64], y: NDArray[np.float64], learn: NDArray[np.int64], test: NDArray[np.int64]) -> float:
    """R² of a straight line: bins are coarse at the ends of a long-tailed column."""
    centred = x - x[learn].mean()
    spread = centred[learn] @ centred[learn]
    if not 0 < spread < np.inf:  # constant, tiny beyond float64, or NaN somewhere
        return 0.0
    slope = (centred[learn] @ (y[learn] - y[learn].mean())) / spread
    return _r2(y[test], y[learn].mean() + slope * centred[test])


def _r2(y: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    spread = ((y - y.mean()) ** 2).sum()
    return 1 - float(((y - predicted) ** 2).sum() / spread) if spread > 0 else 0.0


def _sums(sample: _Sample, skip: set[str]) -> list[str]:
    """Number columns of which the target is exactly a weighted sum, such as the parts of a total."""
    names = [i.name for i in sample.inputs if i.kind is Kind.NUMBER and i.name not in skip]
    if len(names) < 2 or sample.y is None:
        return []
    columns = [np.nan_to_num(_plain_column(sample, i)[:5000]) for i in sample.inputs if i.name in names]
    x = np.column_stack([*columns, np.ones(len(columns[0]))])
    scale = np.maximum(x.std(0), 1e-300)
    y = sample.y[:5000]
    learn, test = slice(0, None, 2), slice(1, None, 2)
    weights = np.linalg.lstsq(x[learn] / scale.clip(1e-9), y[learn], rcond=None)[0]
    if _r2(y[test], (x[test] / scale.clip(1e-9)) @ weights) < _EXACT:
        return []
    parts = [name for name, weight in zip(names, weights[:-1], strict=True) if abs(weight) > 0.01 * y.std()]
    if len(parts) < 2:
        return []
    return [
        f"{sample.target} is exactly a weighted sum of {listing(parts)}: EXCLUDE ({', '.join(map(sql_name, parts))}) "
        "if they are not known at prediction time"
    ]


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)


def _percent(share: float) -> str:
    return f"{100 * min(share, 0.999):.1f} %"
