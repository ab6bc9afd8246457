"""Columns to numbers: fitted on training rows, kept as JSON, applied again at every prediction.

    column → parts (a number, a category code, the year of a date …; NaN where missing) → features

With the encoding ``codes`` a part is a feature.  With ``dense`` numbers are filled with their mean and standardised, codes become
one column per category, and a column that had missing values in training gets one more that says so; no NaN is left.

A vector of numbers gives a feature for each position, standardised by itself with ``dense``; a list of texts one feature of 0
or 1 for each category.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.errors import count_of
from sqlml.features.dataset import Values, take
from sqlml.features.parallel import side_by_side
from sqlml.features.vectors import fit_set, fit_vector, position_names, vector_blocks, write_set
from sqlml.native.matrix import write_rows
from sqlml.plan import InputColumn
from sqlml.types import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

CODES = "codes"
DENSE = "dense"

_LARGEST = float(np.finfo(np.float32).max)
_DAY = 86_400_000_000  # microseconds
_DATE_PARTS = ("days", "year", "month", "day", "weekday")
_PARTS: dict[Kind, tuple[str, ...]] = {
    Kind.NUMBER: ("value",),
    Kind.BOOLEAN: ("value",),
    Kind.TEXT: ("code",),
    Kind.DATE: _DATE_PARTS,
    Kind.TIME: ("seconds",),
    Kind.TIMESTAMP: (*_DATE_PARTS, "hour", "minute"),
    Kind.TIMESTAMPTZ: (*_DATE_PARTS, "hour", "minute"),
}
_LISTS = (Kind.NUMBERS, Kind.TEXTS)
_GLANCE = 1_000
"""Of so many rows most columns show that they vary."""


@dataclass(frozen=True)
class ColumnCode:
    """How one input becomes features.  ``parts`` empty: it gives none, and ``note`` says why.

    ``categories`` in the order of their codes; ``others`` counts the values of the training rows that got no code; ``missing``:
    training rows had NULLs (or such values); ``means`` and ``scales``, one per part, only with ``dense``.  The parts of a vector
    of ``width`` numbers are the positions that vary, counted from 0; ``labels`` are their names, where they have any.
    """

    name: str
    kind: Kind
    parts: tuple[str, ...]
    missing: bool = False
    categories: tuple[str, ...] = ()
    others: int = 0
    means: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()
    note: str = ""
    width: int = 0
    labels: tuple[str, ...] = ()

    @cached_property
    def lookup(self) -> pa.Array:
        """The categories as Arrow values."""
        return pa.array(self.categories, pa.string())

    @cached_property
    def _positions(self) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
        """Of a vector: the positions used, and the mean and scale of each."""
        return np.array([int(part) for part in self.parts], np.intp), np.array(self.means), np.array(self.scales)

    def part_values(self, values: Values) -> list[NDArray[np.float64]]:
        """Each part of a column in its canonical type as float64 (n,), NaN where missing."""
        if not self.parts:
            return []
        if self.kind is Kind.TEXT:
            return [_floats(pc.index_in(values, value_set=self.lookup))]
        return read_parts(values, self.kind, self.parts)

    def plain_parts(self, values: Values) -> list[NDArray[Any]]:
        """The same as float32 or float64, numbers of any size: ``write_rows`` brings them within the range of float32."""
        if self.kind is Kind.NUMBER and self.parts:
            return [values.to_numpy(zero_copy_only=False)]
        return self.part_values(values)

    def features(self, encoding: str) -> list[str]:
        """The names of its features."""
        if self.kind in _LISTS and self.parts:
            flag = [f"{self.name} is missing"] if self.missing and encoding == DENSE else []
            if self.kind is Kind.NUMBERS:
                return [*position_names(self.name, self.labels, self.parts), *flag]
            return [*(f"{self.name} = {category}" for category in self.categories), *flag]
        if encoding == CODES or not self.parts:
            return [_feature_name(self.name, part) for part in self.parts]
        if self.kind is Kind.TEXT:
            names = [f"{self.name} = {category}" for category in self.categories]
        else:
            names = [_feature_name(self.name, part) for part in self.parts]
        return [*names, f"{self.name} is missing"] if self.missing else names

    def write(self, parts: Sequence[NDArray[np.float64]], out: NDArray[np.float32], encoding: str) -> None:
        """Write the features of some rows into their columns of the matrix, which are zero before."""
        if encoding == CODES:
            for j, part in enumerate(parts):
                out[:, j] = part
        elif parts:
            self._write_dense(parts, out)

    def write_list(self, values: Values, rows: NDArray[np.int64] | None, out: NDArray[np.float32], encoding: str) -> None:
        """The same for a column of lists; ``rows`` None: all of them.  ``BindError`` for a vector of another length."""
        features = out[:, : len(self.categories) or len(self.parts)]
        if self.kind is Kind.TEXTS:
            write_set(values, rows, self.lookup, features)
            if encoding == DENSE:
                absent = np.isnan(features[:, 0])
                features[absent] = 0
                if self.missing:
                    out[:, -1] = absent
            return
        kept, means, scales = self._positions
        for place, block in vector_blocks(self.name, values, rows, self.width):
            part = block[:, kept] if len(kept) < self.width else block
            if encoding == DENSE:
                part -= means
                part /= scales
                unknown = np.isnan(part)
                part[unknown] = 0.0
                if self.missing:
                    out[place, -1] = unknown.any(1)
            features[place] = part

    def _write_dense(self, parts: Sequence[NDArray[np.float64]], out: NDArray[np.float32]) -> None:
        absent = np.isnan(parts[0])
        if self.kind is Kind.TEXT:
            rows = np.flatnonzero(~absent)
            out[rows, parts[0][rows].astype(np.intp)] = 1.0
        else:
            for j, (part, mean, scale) in enumerate(zip(parts, self.means, self.scales, strict=True)):
                out[:, j] = np.where(absent, 0.0, (part - mean) / scale)
        if self.missing:
            out[:, -1] = absent

    def describe(self, encoding: str) -> str:
        """One line for people: ``12 categories; NULL as missing``."""
        if not self.parts:
            return self.note
        if self.kind in _LISTS:
            return self._describe_list(encoding)
        filled = {CODES: "NULL as missing", DENSE: "NULL as the mean and a flag"}[encoding]
        if self.kind is Kind.TEXT:
            text = count_of(len(self.categories), "category", "categories")
            text += f" ({count_of(self.others, 'rarer value')} as missing)" if self.others else ""
            text += ", one feature each" if encoding == DENSE else ""
            filled = "NULL as missing" if encoding == CODES else "NULL as a flag"
        elif self.kind is Kind.BOOLEAN:
            text = "false 0, true 1"
        elif self.kind is Kind.NUMBER:
            text = "number"
        elif self.kind is Kind.TIME:
            text = "time: seconds since midnight"
        else:
            text = f"{'date' if self.kind is Kind.DATE else 'time in UTC' if self.kind is Kind.TIMESTAMPTZ else 'time'}: "
            text += ", ".join(self.parts)
        scaled = ", standardised" if encoding == DENSE and self.kind is not Kind.TEXT else ""
        return f"{text}{scaled}; {filled}" if self.missing else text + scaled

    def _describe_list(self, encoding: str) -> str:
        if self.kind is Kind.TEXTS:
            rest = f" ({count_of(self.others, 'rarer one')} left out)" if self.others else ""
            text = f"list of {count_of(len(self.categories), 'category', 'categories')}{rest}, one feature each"
            filled = "NULL as missing" if encoding == CODES else "NULL as a flag"
        else:
            used = f", {len(self.parts):,} of them used" if len(self.parts) < self.width else ""
            text = f"vector of {count_of(self.width, 'number')}{used}" + (", standardised" if encoding == DENSE else "")
            filled = {CODES: "NULL as missing", DENSE: "NULL as the mean and a flag"}[encoding]
        return f"{text}; {filled}" if self.missing else text


class FeatureEncoder:
    """Fitted, immutable, safe to use from many threads.

    ``inputs`` are the input names, ``names`` and ``categorical`` describe the k features, ``input_of`` (k,) says which input each
    comes from; the features of an input stand side by side, inputs in order.
    """

    def __init__(self, columns: Sequence[ColumnCode], encoding: str) -> None:
        self.columns = tuple(columns)
        self.encoding = encoding
        features = [column.features(encoding) for column in self.columns]
        self.inputs = tuple(column.name for column in self.columns)
        self.names = tuple(name for group in features for name in group)
        self.categorical = tuple(
            encoding == CODES and column.kind is Kind.TEXT
            for column, group in zip(self.columns, features, strict=True)
            for _ in group
        )
        self.input_of = np.repeat(np.arange(len(features)), [len(group) for group in features]).astype(np.intp)
        ends = np.cumsum([len(group) for group in features], dtype=int) if features else np.zeros(0, int)
        self._spans = [(int(end) - len(group), int(end)) for end, group in zip(ends, features, strict=True)]

    @classmethod
    def fit(
        cls,
        inputs: Iterable[InputColumn],
        column: Callable[[str], Values],
        rows: NDArray[np.int64],
        encoding: str,
        max_categories: int,
        positions: Mapping[str, Sequence[str]] | None = None,
        threads: int = 1,
    ) -> FeatureEncoder:
        """Learn from the rows numbered ``rows`` of the canonical columns that ``column(name)`` gives (or ``narrow``).

        ``positions`` names the positions of vectors, by input.  ``TrainingDataError`` for vectors of several lengths.
        """
        named = positions or {}
        if encoding == CODES:
            rows = np.sort(rows)  # codes do not depend on the order of the rows; means do, in their last digits

        def fitted(i: InputColumn) -> ColumnCode:
            return _fit_column(i, column(i.name), rows, encoding, max_categories, named.get(i.name, ()))

        return cls(side_by_side(fitted, inputs, threads), encoding)

    def transform(self, columns: Mapping[str, Values], n: int) -> NDArray[np.float32]:
        """Canonical columns of n rows, by input name → float32 (n, k)."""
        out = self._matrix(n)
        for column, (start, end) in zip(self.columns, self._spans, strict=True):
            if start < end and column.kind in _LISTS:
                column.write_list(columns[column.name], None, out[:, start:end], self.encoding)
            elif start < end:
                column.write(column.part_values(columns[column.name]), out[:, start:end], self.encoding)
        return out

    def scatter(self, columns: Mapping[str, Values], places: NDArray[Any], out: NDArray[np.float32]) -> None:
        """Canonical (or ``narrow``) columns of m rows to the rows ``places`` (m,) of ``out`` (·, k); -1: to none."""
        if self.encoding == CODES and not any(column.kind in _LISTS for column in self.columns):
            parts = [part for column in self.columns for part in column.plain_parts(columns[column.name])]
            if write_rows(parts, places, out):
                return
        named = places >= 0
        rows = self.transform(columns, len(places))
        if named.all():
            out[places] = rows
        else:
            out[places[named]] = rows[named]

    def transform_rows(self, column: Callable[[str], Values], parts: Sequence[NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        """One matrix for each array of row numbers, column by column, so that no second copy of the table is made."""
        matrices = [self._matrix(len(rows)) for rows in parts]
        for code, (start, end) in zip(self.columns, self._spans, strict=True):
            if start < end and code.kind in _LISTS:
                lists = column(code.name)
                for rows, out in zip(parts, matrices, strict=True):
                    code.write_list(lists, rows, out[:, start:end], self.encoding)
                continue
            values = code.part_values(column(code.name)) if start < end else []
            for rows, out in zip(parts, matrices, strict=True):
                code.write([value[rows] for value in values], out[:, start:end], self.encoding)
        return matrices

    def transform_batches(
        self, rows: Callable[[int, int], Mapping[str, Values]], n: int, size: int
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """All n rows in the order in which they came, ``size`` at a time: the number of the first, and their matrix.

        ``rows(start, length)`` gives the canonical columns of some rows.
        """
        for start in range(0, n, size):
            length = min(size, n - start)
            yield start, self.transform(rows(start, length), length)

    def _matrix(self, n: int) -> NDArray[np.float32]:
        return (np.empty if self.encoding == CODES else np.zeros)((n, len(self.names)), np.float32)

    def sum_to_inputs(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """(…, k) per feature → (…, inputs), summed over the features of each input; 0 for an input without features."""
        total = np.zeros((*values.shape[:-1], len(self.columns)))
        for i, (start, end) in enumerate(self._spans):
            total[..., i] = values[..., start:end].sum(-1)
        return total

    def describe(self) -> tuple[tuple[str, str], ...]:
        """For each input, what was done to it, in a line."""
        return tuple((column.name, column.describe(self.encoding)) for column in self.columns)

    def to_json(self) -> dict[str, Any]:
        """The whole state; floats survive exactly."""
        return {"encoding": self.encoding, "columns": [asdict(column) for column in self.columns]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> FeatureEncoder:
        """The inverse of ``to_json``, after a trip through JSON."""
        lists = ("parts", "categories", "means", "scales", "labels")  # the last is younger than the rest
        return cls(
            [
                ColumnCode(**{**column, **{name: tuple(column.get(name, ())) for name in lists}, "kind": Kind(column["kind"])})
                for column in document["columns"]
            ],
            document["encoding"],
        )


def read_parts(values: Values, kind: Kind, parts: Sequence[str]) -> list[NDArray[np.float64]]:
    """Parts of a column that is not text, as float64 (n,), NaN where missing; numbers within the range of float32."""
    if kind is Kind.NUMBER:
        return [np.clip(_floats(values), -_LARGEST, _LARGEST)]
    if kind is Kind.BOOLEAN:
        return [_floats(pc.cast(values, pa.uint8()))]
    if kind is Kind.TIME:
        return [_floats(pc.cast(values, pa.int64())) / 1e6]
    return _time_parts(values, kind, parts)


def _time_parts(values: Values, kind: Kind, parts: Sequence[str]) -> list[NDArray[np.float64]]:
    absent = pc.is_null(values).to_numpy(zero_copy_only=False)
    if kind is Kind.DATE:
        whole = pc.fill_null(pc.cast(values, pa.int32()), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        micros = np.zeros(1, np.int64)
    else:
        stamp = pc.fill_null(pc.cast(values, pa.int64()), 0).to_numpy(zero_copy_only=False)
        whole, micros = np.divmod(stamp, _DAY)
    return [np.where(absent, np.nan, _time_part(whole, micros, part)) for part in parts]


def _time_part(days: NDArray[np.int64], micros: NDArray[np.int64], part: str) -> NDArray[Any]:
    """A part of days since 1970-01-01 and microseconds since midnight."""
    if part == "days":
        return days
    if part == "weekday":  # Monday 1 … Sunday 7
        return np.asarray((days + 3) % 7 + 1)
    if part == "hour":
        return np.asarray(micros // 3_600_000_000)
    if part == "minute":
        return np.asarray(micros // 60_000_000 % 60)
    date = days.astype("M8[D]")
    months = date.astype("M8[M]")
    if part == "day":
        return np.asarray((date - months.astype("M8[D]")).astype(np.int64) + 1)
    number = months.astype(np.int64)  # since January 1970
    return np.asarray(number // 12 + 1970 if part == "year" else number % 12 + 1)


def _fit_column(
    column: InputColumn,
    values: Values,
    rows: NDArray[np.int64],
    encoding: str,
    max_categories: int,
    names: Sequence[str],
) -> ColumnCode:
    if column.kind is Kind.TEXT:
        return _fit_text(column, values, rows, max_categories)
    if column.kind is Kind.TEXTS:
        return _fit_texts(column, values, rows, max_categories)
    if column.kind is Kind.NUMBERS:
        return _fit_numbers(column, values, rows, encoding, names)
    if column.kind is Kind.NUMBER and encoding == CODES and _is_plain(values, rows):
        return ColumnCode(column.name, column.kind, _PARTS[Kind.NUMBER])
    parts = _PARTS[column.kind]
    read = read_parts(values, column.kind, parts)
    if encoding != CODES or len(rows) < len(values):
        read = [part[rows] for part in read]
    absent = np.isnan(read[0])
    if absent.all():
        return ColumnCode(column.name, column.kind, (), note="not used: every training row is NULL")
    varies = [bool(np.fmin.reduce(part) < np.fmax.reduce(part)) for part in read]
    if not any(varies):
        if not absent.any():
            return ColumnCode(column.name, column.kind, (), note="not used: one value only in the training rows")
        varies[0] = True  # that it is missing is all there is to learn
    useful = [(part, value) for part, value, varied in zip(parts, read, varies, strict=True) if varied]
    code = ColumnCode(column.name, column.kind, tuple(part for part, _ in useful), bool(absent.any()))
    if encoding == CODES:
        return code
    kept = [(part, value[~absent]) for part, value in useful]
    means = tuple(float(value.mean()) for _, value in kept)
    scales = tuple(float(value.std()) or 1.0 for _, value in kept)
    return ColumnCode(code.name, code.kind, code.parts, code.missing, means=means, scales=scales)


def _is_plain(values: Values, rows: NDArray[np.int64]) -> bool:
    """Whether numbers have no NULL and no NaN at all, and vary among some of the first rows."""
    if values.null_count or not len(rows):
        return False
    some = read_parts(take(values, rows[:_GLANCE]), Kind.NUMBER, ("value",))[0]
    pieces = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    known = not any(
        np.isnan(np.min(piece.to_numpy(), initial=np.inf)) for piece in pieces
    )  # NaN is the least of any that has one
    return known and bool(some.min() < some.max())


def _fit_numbers(column: InputColumn, values: Values, rows: NDArray[np.int64], encoding: str, names: Sequence[str]) -> ColumnCode:
    """Every position of a vector that varies; the first, where all there is to learn is that it is missing."""
    fit = fit_vector(column.name, values, rows)
    if not fit.known:
        return ColumnCode(column.name, column.kind, (), note="not used: every training row is NULL")
    if not fit.width:
        return ColumnCode(column.name, column.kind, (), note="not used: its lists are empty")
    kept = np.flatnonzero(fit.varies)
    if not len(kept):
        if not fit.missing:
            return ColumnCode(column.name, column.kind, (), note="not used: one value only in the training rows")
        kept = np.zeros(1, np.intp)
    dense = encoding == DENSE
    return ColumnCode(
        column.name,
        column.kind,
        tuple(str(i) for i in kept),
        fit.missing,
        means=tuple(fit.means[kept].tolist()) if dense else (),
        scales=tuple(np.where(fit.deviations[kept] > 0, fit.deviations[kept], 1.0).tolist()) if dense else (),
        width=fit.width,
        labels=tuple(names[int(i)] for i in kept) if len(names) == fit.width else (),
    )


def _fit_texts(column: InputColumn, values: Values, rows: NDArray[np.int64], max_categories: int) -> ColumnCode:
    """The categories that most lists have, at most ``max_categories``."""
    fit = fit_set(values, rows, max_categories)
    if not fit.known:
        return ColumnCode(column.name, column.kind, (), note="not used: every training row is NULL")
    if not fit.categories:
        return ColumnCode(column.name, column.kind, (), note="not used: one value only in the training rows")
    return ColumnCode(column.name, column.kind, ("set",), fit.missing, fit.categories, fit.others)


def _fit_text(column: InputColumn, values: Values, rows: NDArray[np.int64], max_categories: int) -> ColumnCode:
    """The most frequent values, at most ``max_categories``; equally frequent ones in the order of their text."""
    words, counts, absent = count_values(values, rows)
    if not words:
        return ColumnCode(column.name, column.kind, (), note="not used: every training row is NULL")
    if len(words) == 1 and not absent:
        return ColumnCode(column.name, column.kind, (), note="not used: one value only in the training rows")
    ranked = sorted(range(len(words)), key=lambda i: (-counts[i], words[i]))
    kept = tuple(words[i] for i in ranked[:max_categories])
    others = len(words) - len(kept)
    return ColumnCode(column.name, column.kind, _PARTS[Kind.TEXT], bool(absent or others), kept, others)


def count_values(values: Values, rows: NDArray[np.int64]) -> tuple[list[str], list[int], int]:
    """The distinct texts of some rows, how often each occurs, and the number of NULLs."""
    whole = values if isinstance(values, pa.Array) else values.combine_chunks()
    pieces = whole.chunks if isinstance(whole, pa.ChunkedArray) else [whole]
    encoded = pa.chunked_array([p.dictionary_encode() for p in pieces], pa.dictionary(pa.int32(), pa.string()))
    table = encoded.unify_dictionaries()
    words = table.chunk(0).dictionary if table.num_chunks else pa.array([], pa.string())
    codes = np.concatenate([pc.fill_null(c.indices, -1).to_numpy() for c in table.chunks] or [np.zeros(0, np.int32)])[rows]
    counts = np.bincount(codes[codes >= 0], minlength=len(words))
    seen = np.flatnonzero(counts)
    return words.take(pa.array(seen)).to_pylist(), counts[seen].tolist(), int((codes < 0).sum())


def _floats(values: Values) -> NDArray[np.float64]:
    """Arrow numbers as float64, NaN for NULL."""
    return np.asarray(values.to_numpy(zero_copy_only=False), np.float64)


def _feature_name(name: str, part: str) -> str:
    return name if part in ("value", "code", "seconds") else f"{name}: {part}"
