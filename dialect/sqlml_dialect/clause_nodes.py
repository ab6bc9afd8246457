# ruff: noqa: RUF009 - at() makes a new field for each class, which is what dataclasses want
"""What statements are made of: names, values, queries, and the clauses of TRAIN, each knowing where it stands in the text.

Every ``span`` is a pair of character offsets ``(start, end)`` into the text that was parsed, so that whoever finds a fault
later can point at it.  Spans take no part in equality: two texts that say the same give equal trees.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
Span: TypeAlias = tuple[int, int]
NOWHERE: Span = (0, 0)


def at() -> Any:
    """The field that every node ends with: its place in the text, ignored by equality and hash."""
    return field(default=NOWHERE, compare=False, repr=False, kw_only=True)


# --- names and values -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ident:
    """One name as the user means it: quotes removed, case kept."""

    name: str
    quoted: bool = field(default=False, compare=False)
    span: Span = at()


@dataclass(frozen=True)
class QualifiedName:
    """A dotted name: a table, a schema-qualified model."""

    parts: tuple[Ident, ...]
    span: Span = at()

    @property
    def text(self) -> str:
        return ".".join(part.name for part in self.parts)


@dataclass(frozen=True)
class ModelRef:
    """``churn``, ``sales.churn``, ``churn@3`` (version), ``churn@champion`` (alias), ``"my model"@3``."""

    name: QualifiedName
    version: int | None = None
    alias: str | None = None
    span: Span = at()

    @property
    def text(self) -> str:
        suffix = "" if self.version is None and self.alias is None else f"@{self.version or self.alias}"
        return self.name.text + suffix


@dataclass(frozen=True)
class Placeholder:
    """A prepared parameter: ``?`` (index counts from 1 over the whole statement), ``$2`` or ``$name``."""

    index: int | None = None
    name: str | None = None
    span: Span = at()


Given: TypeAlias = T | Any
"""A literal outside options: a Placeholder where a parameter was written, until ``fill_parameters`` puts its value there."""


# What an option may hold.  A struct is a tuple of pairs so that the node stays hashable.
Scalar: TypeAlias = "str | int | float | Decimal | bool | timedelta | Placeholder | None"
Value: TypeAlias = "Scalar | tuple[Value, ...] | Struct"


@dataclass(frozen=True)
class Struct:
    """``{'a': 1, 'b': [2, 3]}``"""

    items: tuple[tuple[str, Value], ...]


@dataclass(frozen=True)
class Option:
    """One ``name = value`` of a WITH clause; ``span`` covers both, ``value_span`` the value alone."""

    name: Ident
    value: Value
    value_span: Span = field(default=NOWHERE, compare=False, repr=False)
    span: Span = at()


@dataclass(frozen=True)
class Query:
    """SQL of the database, kept byte for byte; ``span`` says where it stands in the statement's source."""

    text: str
    span: Span = at()


@dataclass(frozen=True)
class Expression:
    """An SQL expression of the database, kept byte for byte (TRANSFORM items, call arguments)."""

    text: str
    alias: Ident | None = None
    span: Span = at()


# --- clauses of TRAIN -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SplitRandom:
    fraction: Given[float | None] = None  # None: the default, 0.2
    span: Span = at()


@dataclass(frozen=True)
class SplitBy:
    column: Ident
    span: Span = at()


@dataclass(frozen=True)
class SplitTime:
    column: Ident
    fraction: Given[float | None] = None
    span: Span = at()


@dataclass(frozen=True)
class SplitNone:
    span: Span = at()


Split: TypeAlias = SplitRandom | SplitBy | SplitTime | SplitNone


@dataclass(frozen=True)
class TuneRange:
    """``param BETWEEN low AND high [LOG]``"""

    param: Ident
    low: Value
    high: Value
    log: bool = False
    span: Span = at()


@dataclass(frozen=True)
class TuneChoice:
    """``param IN (a, b, …)``"""

    param: Ident
    values: tuple[Value, ...]
    span: Span = at()


@dataclass(frozen=True)
class Tune:
    space: tuple[TuneRange | TuneChoice, ...]
    method: str | None = None  # random, grid, bayesian
    trials: Given[int | None] = None
    direction: str | None = None  # maximize, minimize
    metric: Ident | None = None
    span: Span = at()


@dataclass(frozen=True)
class Limit:
    """``LIMIT (TIME '10 min', MEMORY '8 GB', ROWS n)``; seconds, bytes, rows."""

    time: Given[timedelta | None] = None
    memory: Given[int | None] = None
    rows: Given[int | None] = None
    span: Span = at()
