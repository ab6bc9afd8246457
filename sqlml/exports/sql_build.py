"""Pieces of SQL as sqlglot trees: exact numbers, names, sums that stay flat or short."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import sqlglot
from sqlglot import exp

from sqlml.errors import BindError, did_you_mean, listing
from sqlml.exports.blame import about

_RESERVED = frozenset(
    """all alter analyse analyze and any array as asc asymmetric between both by case cast check collate column constraint create
    cross current current_date current_time current_timestamp current_user default delete desc describe distinct do drop else end
    except exclude exists false fetch first following for foreign from full grant group having if in index inner insert intersect
    interval into is join key last lateral leading left like limit lambda natural not null of offset on only open or order outer
    over partition pivot placing preceding primary qualify range recursive references returning revoke right row rows select
    session_user set show some start summarize symmetric table tablesample then to top trailing true union unique unpivot update
    user using values view when where window with""".split()  # noqa: SIM905 - shorter to read
)
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

_FLOAT32 = frozenset(
    {"duckdb", "postgres", "redshift", "spark", "spark2", "databricks", "trino", "presto", "athena", "clickhouse"}
)
"""The dialects with a type of 32 bits in which sums are rounded as XGBoost rounds them."""

_NAN_EQUAL = frozenset({"duckdb", "postgres", "redshift", "snowflake", "spark", "spark2", "databricks"})
"""The dialects in which NaN = NaN, so that NULLIF removes it."""


def check_dialect(name: str) -> str:
    """The dialect under sqlglot's name for it.  ``BindError`` with the nearest where there is none."""
    known = sorted(d for d in sqlglot.Dialect.classes if d)
    found = {"postgresql": "postgres", "mssql": "tsql", "sqlserver": "tsql"}.get(name.lower(), name.lower())
    if found not in known:
        hint = f"{did_you_mean(name, known) or ''}\nthere are: {listing(known, 40)}".strip()
        raise about("dialect", BindError(f"unknown dialect {name}", hint=hint))
    return found


def has_float32(dialect: str) -> bool:
    """Whether sums can be rounded to 32 bits as the library's own are."""
    return dialect in _FLOAT32


def number(value: float) -> exp.Expression:
    """A literal that every database reads as exactly this double: with an exponent, so that none takes it for a decimal."""
    if not math.isfinite(value):
        raise ValueError(f"{value} has no literal")
    text = repr(abs(float(value)))
    literal = exp.Literal.number(text if "e" in text else f"{text}e0")
    return exp.Neg(this=literal) if value < 0 else literal


def integer(value: int) -> exp.Expression:
    """An integer literal."""
    return exp.Neg(this=exp.Literal.number(-value)) if value < 0 else exp.Literal.number(value)


def constant(value: Any) -> exp.Expression:
    """A class as a literal of its own type."""
    if isinstance(value, bool):
        return exp.Boolean(this=value)
    if isinstance(value, int):
        return integer(value)
    return number(value) if isinstance(value, float) else exp.Literal.string(str(value))


def name(text: str) -> exp.Identifier:
    """A name, in quotes only where it needs them: each database then finds it by its own rule for case."""
    return exp.to_identifier(text, quoted=not _PLAIN.match(text) or text.lower() in _RESERVED)


def column(text: str) -> exp.Column:
    """A column."""
    return exp.Column(this=name(text))


def double(value: exp.Expression) -> exp.Expression:
    """The value as a 64-bit float."""
    return exp.cast(value, exp.DataType.Type.DOUBLE)


def single(value: exp.Expression, dialect: str) -> exp.Expression:
    """The value rounded to a 32-bit float where the dialect has one, else as a 64-bit one."""
    return exp.cast(value, exp.DataType.Type.FLOAT if has_float32(dialect) else exp.DataType.Type.DOUBLE)


def rounded(value: exp.Expression, dialect: str) -> exp.Expression:
    """A column rounded to 32 bits, as a double again, where the dialect can: a feature matrix holds such numbers."""
    if not has_float32(dialect):
        return value
    if dialect in ("postgres", "redshift"):  # they raise where a cast gives 0, or where it is too large
        tiny = exp.LT(this=exp.Abs(this=value.copy()), expression=number(1e-37))
        huge = exp.GT(this=exp.Abs(this=value.copy()), expression=number(3e38))
        return when([(tiny, number(0.0)), (huge, value.copy())], double(single(value, dialect)))
    return double(single(value, dialect))


def without_nan(value: exp.Expression, dialect: str) -> exp.Expression:
    """NULL for NaN, where the dialect has such values."""
    if dialect in _NAN_EQUAL:
        return exp.Nullif(this=value, expression=double(exp.Literal.string("NaN")))
    if dialect == "bigquery":
        return when([(exp.IsNan(this=value), exp.null())], value.copy())
    return value


def when(branches: Iterable[tuple[exp.Expression, exp.Expression]], otherwise: exp.Expression | None = None) -> exp.Case:
    """``CASE WHEN … THEN … ELSE … END``"""
    return exp.Case(ifs=[exp.If(this=condition, true=value) for condition, value in branches], default=otherwise)


def choose(
    value: exp.Expression, branches: Sequence[tuple[exp.Expression, exp.Expression]], otherwise: exp.Expression | None
) -> exp.Expression:
    """``CASE value WHEN … THEN … ELSE … END``"""
    if not branches:
        return otherwise or exp.null()
    return exp.Case(this=value, ifs=[exp.If(this=key, true=result) for key, result in branches], default=otherwise)


def is_null(value: exp.Expression) -> exp.Expression:
    """``value IS NULL``"""
    return exp.Is(this=value, expression=exp.null())


def total(items: Sequence[exp.Expression]) -> exp.Expression:
    """A sum, in parentheses two by two, so that its depth grows with the logarithm of the number of items."""
    if not items:
        return number(0.0)
    while len(items) > 1:
        pairs = [items[i : i + 2] for i in range(0, len(items), 2)]
        items = [exp.Paren(this=exp.Add(this=pair[0], expression=pair[1])) if len(pair) > 1 else pair[0] for pair in pairs]
    return items[0]


def chain(items: Sequence[exp.Expression]) -> exp.Expression:
    """A sum from left to right."""
    result = items[0]
    for item in items[1:]:
        result = exp.Add(this=result, expression=item)
    return result


def times(left: exp.Expression, right: exp.Expression) -> exp.Expression:
    """A product; each side is a column, a literal, a call or in parentheses."""
    return exp.Mul(this=left, expression=right)


def minus(left: exp.Expression, value: float) -> exp.Expression:
    """``left - value`` in parentheses."""
    if value < 0:
        return exp.Paren(this=exp.Add(this=left, expression=number(-value)))
    return exp.Paren(this=exp.Sub(this=left, expression=number(value)))


def exp_call(value: exp.Expression) -> exp.Expression:
    """``EXP(value)``"""
    return exp.Exp(this=value)


def sigmoid(margin: exp.Expression, most: float) -> exp.Expression:
    """The logistic function; the margin is kept within ``most`` of 0, as some databases raise where an exponential overflows."""
    low = exp.Greatest(this=margin, expressions=[number(-most)])
    bounded = exp.Least(this=low, expressions=[number(most)])
    below = exp.Add(this=number(1.0), expression=exp.Exp(this=exp.Neg(this=bounded)))
    return exp.Div(this=number(1.0), expression=exp.Paren(this=below), typed=False, safe=False)


class Stages:
    """A query in named steps: each reads the one before, keeps its columns and adds more."""

    def __init__(self, table: str, kept: Sequence[str], taken: Iterable[str]) -> None:
        self._table = table
        self._kept = list(kept)
        self._steps: list[tuple[str, list[exp.Expression]]] = []
        self._taken = {text.lower() for text in taken} | {text.lower() for text in kept} | {table.lower()}
        self._count = 0

    def fresh(self, stem: str) -> str:
        """A name that no column of the query has yet."""
        while True:
            text, self._count = f"{stem}{self._count}", self._count + 1
            if text not in self._taken:
                self._taken.add(text)
                return text

    def add(self, stem: str, columns: Sequence[tuple[str, exp.Expression]]) -> None:
        """A step that computes columns from those before it; none where there is nothing to compute."""
        if columns:
            named: list[Any] = [exp.alias_(e, name(text), copy=False) for text, e in columns]
            self._steps.append((self.fresh(stem), named))

    def finish(self, outputs: Sequence[tuple[str, exp.Expression]], dialect: str) -> exp.Select:
        """The whole query: the kept columns and the outputs."""
        keep = [column(text) for text in self._kept]
        before: exp.Table = exp.to_table(self._table, dialect=dialect)
        steps = []
        for i, (step, columns) in enumerate(self._steps):
            own: list[Any] = [exp.Star()] if i else [k.copy() for k in keep]
            query = exp.Select(expressions=[*own, *columns]).from_(before, copy=False)
            # these two put a step's text into the next wherever it is used, and plan for a long time
            once = True if dialect in ("postgres", "duckdb") else None
            steps.append(exp.CTE(this=query, alias=exp.TableAlias(this=name(step)), materialized=once))
            before = exp.Table(this=name(step))
        answers = [exp.alias_(e, name(text), copy=False) for text, e in outputs]
        query = exp.Select(expressions=[*keep, *answers]).from_(before, copy=False)
        if steps:
            query.set("with_", exp.With(expressions=steps))
        return query
