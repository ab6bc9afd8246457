"""The encoder in PL/pgSQL: inputs cleaned, numbers rounded to float32 as the feature matrix holds them, categories as codes.

Where a cast or an operation of PostgreSQL raises (overflow, underflow, an infinite date), the expression gives what the encoder
gives instead: the end of float32's range, 0, or missing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from sqlml.features.column_code import CODES, ColumnCode
from sqlml.features.encode import FeatureEncoder
from sqlml.types import Kind
from sqlml_udfs.postgres.body import Body
from sqlml_udfs.postgres.text import double, jsonb, string

_LARGEST = repr(float(np.finfo(np.float32).max))
_LEAST = 2.0**-150
"""What is not further from 0 rounds to 0 in float32, where PostgreSQL's cast raises."""
_TOO_LARGE = 3.4028235e38
"""What is as far from 0 is infinite in float32."""
_FEW = 12
"""So many categories are told apart by a CASE; more are looked up in a jsonb object, in logarithmic time."""


@dataclass(frozen=True)
class Codes:
    """A variable that holds the number of a category, NULL where it is missing: ``count`` features from ``start`` on.

    ``flag``: one more feature says that it is missing.  With the encoding ``codes`` the variable itself is the feature.
    """

    variable: str
    start: int
    count: int
    flag: bool


@dataclass(frozen=True)
class Number:
    """A variable that holds the feature ``start``, a number."""

    variable: str
    start: int


Feature = Codes | Number


def encode(body: Body, encoder: FeatureEncoder, source: Mapping[str, str], used: Collection[int]) -> list[Feature]:
    """Compute the features numbered ``used`` from ``source``, the SQL of each input: ``$1``, or a variable.

    With the encoding ``codes`` numbers are of type real, NULL where missing; with ``dense`` they are float8 and never NULL.
    """
    found: list[Feature] = []
    start = 0
    for code in encoder.columns:
        width = len(code.features(encoder.encoding))
        own = [j for j in range(width) if start + j in used]
        if own:
            found += _Column(body, code, encoder.encoding != CODES, start, width, own).features(source[code.name])
        start += width
    return found


@dataclass(frozen=True)
class _Column:
    """One input on its way into ``width`` features from ``start`` on, of which ``own``, counted from 0, are wanted."""

    body: Body
    code: ColumnCode
    dense: bool
    start: int
    width: int
    own: list[int]

    def features(self, source: str) -> list[Feature]:
        """The features, from the SQL of the input."""
        kind = self.code.kind
        if kind is Kind.TEXT:
            variable = self.body.declare("integer", _code_of(source, self.code.categories))
            return [Codes(variable, self.start, len(self.code.categories), self.dense and self.code.missing)]
        if kind is Kind.TEXTS:
            return self._set(source)
        if kind is Kind.NUMBERS:
            return self._vector(source)
        absent, parts = _parts(self.body, source, self.code)
        return self._numbers(parts, absent, clipped=kind is Kind.NUMBER)

    def _numbers(self, parts: list[str], absent: str, *, clipped: bool) -> list[Feature]:
        """A feature for each part that is wanted, and the flag."""
        found: list[Feature] = []
        for j in self.own:
            if j == len(parts):
                found.append(self._flag(absent))
            elif self.dense:
                value = _clipped(parts[j]) if clipped else parts[j]
                found.append(Number(self._standardised(value, self.code.means[j], self.code.scales[j]), self.start + j))
            else:
                value = _number_as_real(parts[j]) if clipped else f"({parts[j]})::real"
                found.append(Number(self.body.declare("real", value), self.start + j))
        return found

    def _standardised(self, value: str, mean: float, scale: float) -> str:
        """A variable that holds a value less its mean, by its scale, rounded to float32; 0 where it is missing."""
        apart = self.body.declare("float8", f"({value})::float8-{double(mean)}")
        within = f"CASE WHEN abs({apart})>'{scale * _LEAST!r}' THEN ({apart}/'{scale!r}')::real::float8 ELSE 0 END"
        beyond = f"WHEN {apart}>0 THEN 'Infinity' WHEN {apart}<0 THEN '-Infinity' ELSE 0"
        return self.body.declare("float8", f"CASE WHEN abs({apart})<'{scale * _TOO_LARGE!r}' THEN {within} {beyond} END")

    def _flag(self, absent: str) -> Number:
        """The feature that says that the value is missing: the last."""
        return Number(self.body.declare("float8", f"CASE WHEN {absent} THEN 1 ELSE 0 END"), self.start + self.width - 1)

    def _set(self, source: str) -> list[Feature]:
        kind, missing = ("float8", "0") if self.dense else ("real", "NULL")
        found: list[Feature] = []
        for j in self.own:
            if j == len(self.code.categories):
                found.append(self._flag(f"{source} IS NULL"))
                continue
            word = self.code.categories[j]
            there = f'({source} COLLATE "C")@>ARRAY[{string(word)}]' if _reachable(word) else "false"
            start = f"CASE WHEN {source} IS NULL THEN {missing} WHEN {there} THEN 1 ELSE 0 END"
            found.append(Number(self.body.declare(kind, start), self.start + j))
        return found

    def _vector(self, source: str) -> list[Feature]:
        """Positions count from 1 whatever the array's own bounds; another length than in training is an error."""
        before = string(f"{self.code.name} has ")
        after = string(f" numbers in a row, and the model was trained with {self.code.width}")
        wrong = f"cardinality({source})<>{self.code.width} OR array_ndims({source})<>1"
        complain = f"RAISE data_exception USING MESSAGE = {before} || cardinality({source}) || {after};"
        self.body.add(f"IF {wrong} THEN {complain} END IF;")
        vector = self.body.declare("float8[]", f"CASE WHEN array_lower({source},1)=1 THEN {source} ELSE ({source})[:] END")
        parts = [f"{vector}[{int(part) + 1}]" for part in self.code.parts]
        absent = " OR ".join(f"nullif({part},'NaN') IS NULL" for part in parts) if self.code.missing else ""
        return self._numbers(parts, absent, clipped=True)


def _reachable(word: str) -> bool:
    """Whether a text of PostgreSQL can be this one."""
    return "\0" not in word


def _code_of(source: str, categories: tuple[str, ...]) -> str:
    """The number of a text among the categories, from 0; NULL where it is none.  Compared byte by byte."""
    known = {word: i for i, word in enumerate(categories) if _reachable(word)}
    if not known:
        return "NULL"
    if len(known) > _FEW:
        return f"({jsonb(known)}->{source})::integer"
    return f'CASE {source} COLLATE "C" {" ".join(f"WHEN {string(word)} THEN {i}" for word, i in known.items())} END'


def _number_as_real(value: str) -> str:
    """A float8 as the feature matrix holds it; NULL for NaN."""
    within = f"CASE WHEN abs({value})>'{_LEAST!r}' THEN {value}::real ELSE 0 END"
    beyond = f"WHEN {value}<0 THEN '-{_LARGEST}' WHEN {value}<='Infinity' THEN '{_LARGEST}'"
    return f"CASE WHEN abs({value})<'{_LARGEST}' THEN {within} {beyond} END"


def _clipped(value: str) -> str:
    """A float8 within float32's range; NULL for NaN."""
    return (
        f"CASE WHEN abs({value})<='{_LARGEST}' THEN {value} WHEN {value}<0 THEN '-{_LARGEST}'"
        f" WHEN {value}<='Infinity' THEN '{_LARGEST}' END"
    )


def _parts(body: Body, source: str, code: ColumnCode) -> tuple[str, list[str]]:
    """When the input is missing, and its parts, of any numeric type."""
    if code.kind is Kind.NUMBER:
        return f"nullif({source},'NaN') IS NULL", [source]
    if code.kind is Kind.BOOLEAN:
        return f"{source} IS NULL", [f"{source}::integer"]
    if code.kind is Kind.TIME:
        return f"{source} IS NULL", [f"date_part('epoch',{source})"]
    moment = f"timezone('UTC',{source})" if code.kind is Kind.TIMESTAMPTZ else source
    kind = "date" if code.kind is Kind.DATE else "timestamp"
    known = body.declare(kind, f"CASE WHEN isfinite({source}) THEN {moment} END")
    day = known if code.kind is Kind.DATE else body.declare("date", f"{known}::date")
    return f"{known} IS NULL", [_time_part(known, day, part) for part in code.parts]


def _time_part(known: str, day: str, part: str) -> str:
    if part == "days":
        return f"{day}-date '1970-01-01'"
    if part == "year":  # the year before 1 is 0 to the encoder, and -1 to PostgreSQL
        return f"date_part('year',{day})+CASE WHEN {day}<date '0001-01-01' THEN 1 ELSE 0 END"
    return f"date_part('{'isodow' if part == 'weekday' else part}',{known if part in ('hour', 'minute') else day})"
