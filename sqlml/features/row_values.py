"""The feature matrix of a few rows that are given as Python values: what ``FeatureEncoder.transform`` gives, without Arrow.

    rows of values → block (n, parts), NaN where missing → features, float32 (n, k)

Arrow's cost is by column and the same for one row as for a thousand; this one is by row, and a request has few.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.features.column_code import CODES, ColumnCode
from sqlml.features.encode import FeatureEncoder
from sqlml.types import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NAN = float("nan")
_LARGEST = float(np.finfo(np.float32).max)
_EPOCH = date(1970, 1, 1).toordinal()
_PACKED = 65_536
"""Up to so many values are laid out by ``struct``, which is the quickest for few."""

_PARTS: Mapping[str, Callable[[Any], float]] = {
    "days": lambda day: day.toordinal() - _EPOCH,
    "year": lambda day: day.year,
    "month": lambda day: day.month,
    "day": lambda day: day.day,
    "weekday": lambda day: day.isoweekday(),
    "hour": lambda moment: moment.hour,
    "minute": lambda moment: moment.minute,
}
_TIMES = (Kind.DATE, Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ)


class RowEncoder:
    """An encoder for rows that are sequences of values, ``names`` saying what stands where.  Safe to use from many threads.

    A value is None, or of its kind's Python type; NaN is missing, too.
    """

    def __init__(self, encoder: FeatureEncoder, names: Sequence[str]) -> None:
        place = {name: i for i, name in enumerate(names)}
        used = [column for column in encoder.columns if column.parts]
        numbers = [c for c in used if c.kind in (Kind.NUMBER, Kind.BOOLEAN)]
        texts = [c for c in used if c.kind is Kind.TEXT]
        times = [c for c in used if c.kind in _TIMES]
        self._places = [place[c.name] for c in numbers]
        self._numbers = _getter(self._places)
        self._whole = self._places == list(range(len(numbers)))
        self._texts = [(place[c.name], {word: float(i) for i, word in enumerate(c.categories)}.get) for c in texts]
        self._times = [(place[c.name], _time_reader(c.kind, c.parts)) for c in times]
        parts = [(column, part) for column in (*numbers, *texts, *times) for part in column.parts]
        self._width = len(parts)
        start = {column.name: i for i, (column, part) in reversed(list(enumerate(parts))) if part == column.parts[0]}
        self._dense = None if encoder.encoding == CODES else _Dense(encoder, start)
        order = [start[column.name] + i for column in used for i in range(len(column.parts))]
        self._order = None if order == list(range(self._width)) else np.array(order, np.intp)

    @staticmethod
    def takes(encoder: FeatureEncoder) -> bool:
        """Whether rows of values can be encoded: lists cannot, here."""
        return not any(column.kind in (Kind.NUMBERS, Kind.TEXTS) for column in encoder.columns)

    def block(self, rows: Sequence[Sequence[Any]]) -> NDArray[np.float64]:
        """(n, parts): numbers and flags first, then categories' codes, then the parts of times; NaN where missing."""
        if self._texts or self._times:
            return lay_out(chain.from_iterable(map(self._row, rows)), len(rows), self._width)
        if self._whole:
            return lay_out_numbers(rows, self._width)
        return lay_out(chain.from_iterable(map(self._numbers, rows)), len(rows), self._width)

    def features(self, block: NDArray[np.float64]) -> NDArray[np.float32]:
        """The feature matrix of a block."""
        within = np.minimum(np.maximum(block, -_LARGEST), _LARGEST)
        if self._dense is not None:
            return self._dense.features(within)
        x = within.astype(np.float32)
        return x if self._order is None else np.ascontiguousarray(x[:, self._order])

    def from_inputs(self, block: NDArray[np.float64]) -> NDArray[np.float32]:
        """The feature matrix of rows that are numbers alone: (n, inputs), in the order of the names."""
        if not self._whole or self._width != block.shape[1]:
            block = block[:, self._places]
        return self.features(block)

    def matrix(self, rows: Sequence[Sequence[Any]]) -> NDArray[np.float32]:
        """The feature matrix of some rows."""
        return self.features(self.block(rows))

    def _row(self, row: Sequence[Any]) -> list[Any]:
        values = [*self._numbers(row), *[code(row[place], _NAN) for place, code in self._texts]]
        for place, read in self._times:
            values += read(row[place])
        return values


def lay_out_numbers(rows: Sequence[Sequence[Any]], width: int) -> NDArray[np.float64]:
    """The first ``width`` values of each row, all numbers or None, as float64 (n, width)."""
    n = len(rows)
    if not n:
        return np.empty((0, width))
    whole = len(rows[0])
    packed = _pack(list(chain.from_iterable(rows)), n, whole)  # what stands behind them is mostly NaN, and then in no way
    if packed is not None:
        return packed if whole == width else packed[:, :width]
    return lay_out(chain.from_iterable(row[:width] for row in rows), n, width)


def lay_out(values: Iterable[Any], n: int, width: int) -> NDArray[np.float64]:
    """n * width numbers, row by row, as float64 (n, width); None is NaN."""
    flat = list(values)
    packed = _pack(flat, n, width)
    return np.array(flat, np.float64).reshape(n, width) if packed is None else packed


def _pack(flat: list[Any], n: int, width: int) -> NDArray[np.float64] | None:
    """The same for few values, by ``struct``, which is the quickest; None where one is no number."""
    if len(flat) > _PACKED:
        return None
    try:
        return np.frombuffer(bytearray(struct.pack(f"{n * width}d", *flat))).reshape(n, width)
    except struct.error:
        return None


class _Dense:
    """Where the parts of a block go in a dense matrix; ``start`` is the place of each column's first part in the block."""

    def __init__(self, encoder: FeatureEncoder, start: Mapping[str, int]) -> None:
        self._width = len(encoder.names)
        numbers: list[tuple[int, int, float, float]] = []  # place in the block, feature, mean, scale
        self._texts: list[tuple[int, int]] = []  # place in the block, first feature
        flags: list[tuple[int, int]] = []
        feature = 0
        for column in encoder.columns:
            width = len(column.features(encoder.encoding))
            if column.parts:
                self._add(column, start[column.name], feature, numbers)
                if column.missing:
                    flags.append((start[column.name], feature + width - 1))
            feature += width
        self._from, self._to = _places(numbers)
        self._means = np.array([mean for _, _, mean, _ in numbers])
        self._scales = np.array([scale for _, _, _, scale in numbers])
        self._flag_from, self._flag_to = _places(flags)

    def _add(self, column: ColumnCode, place: int, feature: int, numbers: list[tuple[int, int, float, float]]) -> None:
        if column.kind is Kind.TEXT:
            self._texts.append((place, feature))
            return
        for i, (mean, scale) in enumerate(zip(column.means, column.scales, strict=True)):
            numbers.append((place + i, feature + i, mean, scale))

    def features(self, block: NDArray[np.float64]) -> NDArray[np.float32]:
        """float32 (n, k), without NaN."""
        out = np.zeros((len(block), self._width), np.float32)
        if len(self._from):
            values = (block[:, self._from] - self._means) / self._scales
            values[np.isnan(values)] = 0.0
            out[:, self._to] = values
        for place, feature in self._texts:
            codes = block[:, place]
            rows = np.flatnonzero(~np.isnan(codes))
            out[rows, feature + codes[rows].astype(np.intp)] = 1.0
        if len(self._flag_from):
            out[:, self._flag_to] = np.isnan(block[:, self._flag_from])
        return out


def _places(pairs: Sequence[tuple[Any, ...]]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return np.array([pair[0] for pair in pairs], np.intp), np.array([pair[1] for pair in pairs], np.intp)


def _getter(places: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    if len(places) > 1:
        return itemgetter(*places)
    return lambda row: [row[place] for place in places]


def _time_reader(kind: Kind, parts: Sequence[str]) -> Callable[[Any], list[float]]:
    missing = [_NAN] * len(parts)
    if kind is Kind.TIME:
        return lambda value: missing if value is None else [_micros(value) / 1e6]
    readers = [_PARTS[part] for part in parts]
    if kind is Kind.TIMESTAMPTZ:
        return lambda value: missing if value is None else _read(readers, value.astimezone(UTC))
    return lambda value: missing if value is None else _read(readers, value)


def _read(readers: Sequence[Callable[[Any], float]], value: date | datetime) -> list[float]:
    return [read(value) for read in readers]


def _micros(value: time) -> int:
    return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond
