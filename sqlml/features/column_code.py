"""How one input becomes features: its parts as numbers, and what is made of them.

    column → parts (a number, a category code, the year of a date …; NaN where missing) → features

With the encoding ``codes`` a part is a feature.  With ``dense`` numbers are filled with their mean and standardised, codes become
one column per category, and a column that had missing values in training gets one more that says so; no NaN is left.

A vector of numbers gives a feature for each position, standardised by itself with ``dense``; a list of texts one feature of 0
or 1 for each category.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.errors import count_of
from sqlml.features.dataset import Values
from sqlml.features.vectors import position_names, vector_blocks, write_set
from sqlml.types import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

CODES = "codes"
DENSE = "dense"

_LARGEST = float(np.finfo(np.float32).max)
_DAY = 86_400_000_000  # microseconds
_DATE_PARTS = ("days", "year", "month", "day", "weekday")
PARTS: dict[Kind, tuple[str, ...]] = {
    Kind.NUMBER: ("value",),
    Kind.BOOLEAN: ("value",),
    Kind.TEXT: ("code",),
    Kind.DATE: _DATE_PARTS,
    Kind.TIME: ("seconds",),
    Kind.TIMESTAMP: (*_DATE_PARTS, "hour", "minute"),
    Kind.TIMESTAMPTZ: (*_DATE_PARTS, "hour", "minute"),
}
LISTS = (Kind.NUMBERS, Kind.TEXTS)


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
        if self.kind in LISTS and self.parts:
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
        if self.kind in LISTS:
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


def _floats(values: Values) -> NDArray[np.float64]:
    """Arrow numbers as float64, NaN for NULL."""
    return np.asarray(values.to_numpy(zero_copy_only=False), np.float64)


def _feature_name(name: str, part: str) -> str:
    return name if part in ("value", "code", "seconds") else f"{name}: {part}"
