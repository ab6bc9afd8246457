"""The expressions of TRANSFORM: which columns, earlier items and functions each uses, whether it is allowed, and its type."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

from sqlml_dialect.fitted import FittedCall, column_name, find_fitted, name_span, struct_sql

from sqlml.errors import Error, did_you_mean, listing
from sqlml.features.arguments import constant_options, value_argument
from sqlml.features.checking import TransformError, changing, check_expression
from sqlml.features.database import ComputeError, bind, functions, known_type
from sqlml.features.fitted import FUNCTIONS
from sqlml.features.fitted.base import quoted
from sqlml.features.program import Call, Expression, Given, Select
from sqlml.features.sqltypes import SPARSE, argument_type, fields
from sqlml.types import SQL_TYPE, Column


@dataclass(frozen=True)
class Uses:
    """What an expression needs: input columns, earlier units, results of functions, and columns of transform-only models."""

    inputs: frozenset[str] = frozenset()
    units: frozenset[int] = frozenset()
    calls: frozenset[int] = frozenset()
    given: frozenset[str] = frozenset()

    def __or__(self, other: Uses) -> Uses:
        return Uses(self.inputs | other.inputs, self.units | other.units, self.calls | other.calls, self.given | other.given)


@dataclass(frozen=True)
class Unit:
    """One expression: an item, or the argument of a function.  ``name`` is what others may call it, None for arguments."""

    number: int
    name: str | None
    sql: str
    uses: Uses
    level: int  # how many rounds of functions come before it
    sql_type: Any  # DuckDBPyType
    direct: str | None = None  # the slot that has its value already

    @property
    def is_call(self) -> bool:
        """Whether it is nothing but the result of a function."""
        return self.direct is not None and self.direct.startswith("f:")


@dataclass(frozen=True)
class _Placed:
    """A function's call with the type of its result and the round after which it is known."""

    call: Call
    sql_type: str
    level: int


class ExpressionCompiler:
    """Collects expressions; ``rounds`` then gives the steps.  ``slots`` says where each wanted unit's value is."""

    def __init__(self, columns: Sequence[Column], others: Mapping[str, tuple[str, str]]) -> None:
        self.columns = {c.name.lower(): c for c in columns}
        self.others = others
        self.inputs: set[str] = set()
        self.slots: dict[int, str] = {}
        self._units: list[Unit] = []
        self._named: dict[str, int] = {}  # lower-case names that later items may use → unit
        self._calls: list[_Placed] = []
        self._given: dict[str, Given] = {}
        self._wanted: dict[int, str] = {}  # unit → the type that its value is cast to
        self._arguments: set[int] = set()

    # --- collecting ---

    def read(self, column: Column) -> str:
        """Note that an input is read; its slot."""
        self.inputs.add(column.name)
        return f"i:{column.name}"

    def add_given(self, name: str, slot: str, sql_type: str) -> None:
        """Make a column of a transform-only model known to later items."""
        if name.lower() not in self.columns:
            self._given.setdefault(name.lower(), Given(name, slot, sql_type))

    def add_unit(self, text: str, name: str | None) -> Unit:
        """Check and bind an expression.  Raises ``TransformError`` with a place in ``text``."""
        sql, calls = self._replace_calls(text)
        written = struct_sql(sql)
        uses = self._check(text, written, sql == text == written) | Uses(calls=frozenset(calls))
        uses = self._closure(uses)
        level = max((self._calls[i].level for i in uses.calls), default=0)
        sql_type = self._bind(text, written, uses)
        unit = Unit(len(self._units), name, written, uses, level, sql_type, self._direct(written, uses))
        self.inputs |= uses.inputs
        self._units.append(unit)
        if name is not None and name.lower() not in self.columns:
            self._named.setdefault(name.lower(), unit.number)
        return unit

    def want(self, unit: Unit, sql_type: str) -> str:
        """Ask for a unit's value, cast to a type; its slot."""
        if unit.direct is not None and self._is_direct(unit, sql_type):
            self.slots[unit.number] = unit.direct
        else:
            self._wanted[unit.number] = sql_type
            self.slots[unit.number] = f"s:{unit.number}"
        return self.slots[unit.number]

    def _is_direct(self, unit: Unit, sql_type: str) -> bool:
        """Whether the value lies there as it is wanted."""
        slot = unit.direct or ""
        if slot.startswith("i:"):
            kind = self.columns[slot[2:].lower()].kind
            return kind is not None and SQL_TYPE[kind] == sql_type
        if slot.startswith("f:"):
            found = self._calls[int(slot[2:])].sql_type
            return found == sql_type or (found, sql_type) == ("BIGINT", "DOUBLE")
        return True

    def _direct(self, sql: str, uses: Uses) -> str | None:
        name = column_name(sql)
        if name is None or uses.units:
            return None
        if uses.calls:
            return f"f:{next(iter(uses.calls))}" if name.startswith("__f") else None
        if uses.given:
            return self._given[name.lower()].slot
        return f"i:{self.columns[name.lower()].name}" if name.lower() in self.columns else None

    def _closure(self, uses: Uses) -> Uses:
        """With everything that the earlier items need which it uses."""
        for number in uses.units:
            uses = uses | self._units[number].uses
        return uses

    # --- functions ---

    def _replace_calls(self, text: str) -> tuple[str, list[int]]:
        """The text with a name in place of each outermost call, and the numbers of the calls."""
        found, numbers = find_fitted(text), []
        for call in found:
            numbers.append(self._add_call(text, call))
        for call, number in reversed(list(zip(found, numbers, strict=True))):
            text = f"{text[: call.span[0]]}__f{number}{text[call.span[1] :]}"
        return text, numbers

    def _add_call(self, text: str, call: FittedCall) -> int:
        function = FUNCTIONS.get(call.name)
        shown = f"ML.{call.name}"
        if function is None:
            near = did_you_mean(shown, [f"ML.{name}" for name in FUNCTIONS])
            raise TransformError(
                f"there is no function {shown} for TRANSFORM", span=call.name_span, hint=near or f"there are: {_all_functions()}"
            )
        if function.over and not call.over:
            hint = f"write {shown}(…) OVER (): it learns from all training rows"
            raise TransformError(f"{shown} needs OVER () behind it", span=call.span, hint=hint)
        if call.over and not function.over:
            raise TransformError(f"{shown} takes no OVER ()", span=call.over_span, hint="it works on one row at a time")
        if call.window:
            raise TransformError(
                "OVER must be empty",
                span=call.over_span,
                hint=f"write {shown}(…) OVER (): the function learns from all training rows",
            )
        try:
            value = value_argument(function, call)
            options = constant_options(function, call)
        except Error as error:
            raise TransformError(error.message, span=error.span or call.span, hint=error.hint) from None
        try:
            unit = self.add_unit(value.text, None)
        except TransformError as error:
            raise error.inside(value.span) from error.__cause__
        wanted = argument_type(unit.sql_type, function.takes)
        if wanted is None:
            raise TransformError(
                f"{shown} takes {function.takes}, and {value.text} is {unit.sql_type}",
                span=value.span,
                hint=_cast_hint(value.text, str(function.takes)),
            )
        names = [name for name, _ in fields(unit.sql_type)] if unit.sql_type.id == "struct" else []
        try:
            result = function.result(options, names, _arrow(wanted))
        except ValueError as error:
            raise TransformError(f"{shown}: {error}", span=call.span) from None
        number = len(self._calls)
        self._arguments.add(unit.number)
        placed = Call(call.name, options, self.want(unit, wanted), f"f:{number}")
        self._calls.append(_Placed(placed, result, unit.level + 1))
        return number

    def add_sparse(self, unit: Unit) -> str:
        """Turn a unit's sparse vectors into dense ones, as long as the training rows need; the slot of the result."""
        number = len(self._calls)
        self._arguments.add(unit.number)
        self._calls.append(_Placed(Call("SPARSE", {}, self.want(unit, SPARSE), f"f:{number}"), "DOUBLE[]", unit.level + 1))
        return f"f:{number}"

    # --- checking ---

    def _check(self, text: str, sql: str, as_written: bool) -> Uses:
        """What an expression uses; refuses what TRANSFORM cannot have."""
        found: list[Uses] = []
        try:
            check_expression(text, sql, lambda names: found.append(self.resolve(text, names)))
        except ComputeError as error:
            at = None if error.at is None else min(max(error.at, 0), len(text))
            span = (at, min(at + 1, len(text))) if as_written and at is not None else None
            raise TransformError(str(error), span=span) from None
        return reduce(or_, found, Uses())

    def resolve(self, text: str, names: Sequence[str]) -> Uses:
        """What a reference means: a column, an earlier item, a function's result, or nothing."""
        name = names[0]
        key = name.lower()
        if name.startswith("__f") and name[3:].isdigit():
            return Uses(calls=frozenset([int(name[3:])]))
        column = self.columns.get(key)
        if column is not None:
            if column.kind is None:
                hint = "compute something of it in the query"
                raise TransformError(
                    f"{column.name} is of a type that no model can use ({column.sql_type})", span=name_span(text, name), hint=hint
                )
            return Uses(inputs=frozenset([column.name]))
        if key in self._named:
            return Uses(units=frozenset([self._named[key]])) | Uses(units=self._units[self._named[key]].uses.units)
        if key in self._given:
            return Uses(given=frozenset([key]))
        if len(names) == 1 and key in functions().changing:
            raise changing(text, name)
        span = name_span(text, name)
        if key in self.others:
            raise TransformError(f"{name} is {self.others[key][1]}, and no feature can use it", span=span)
        known = [c.name for c in self.columns.values()]
        if len(names) > 1 and names[1].lower() in self.columns:
            raise TransformError("there are no tables in TRANSFORM, only columns", span=span, hint=f"write {names[1]}")
        hint = did_you_mean(name, known) or f"there are: {listing(known) or 'none'}"
        if f'"{name}"' in text:
            hint = f"a text stands between single quotes: '{name}'; " + hint
        raise TransformError(f"there is no column {name}", span=span, hint=hint)

    # --- binding ---

    def _bind(self, text: str, sql: str, uses: Uses) -> Any:
        """The type of an expression over typed columns of no rows."""
        given = ", ".join(f"CAST(NULL AS {g.cast or g.kind_type}) AS {quoted(g.name)}" for g in self._columns_of(uses)) or "0"
        before = "".join(f"(\n{self._units[n].sql}\n) AS {quoted(self._units[n].name or '')}, " for n in sorted(uses.units))
        query = f"SELECT __x FROM (SELECT {before}(\n{sql}\n) AS __x FROM (SELECT {given}) WHERE (\n{sql}\n) IS NULL)"  # noqa: S608
        try:
            return bind(query)[0]
        except ComputeError as error:
            raise _bind_error(text, str(error)) from None

    def _columns_of(self, uses: Uses) -> Iterator[Given]:
        """The columns that a SELECT needs for some uses."""
        for column in self.columns.values():
            if column.name in uses.inputs and column.kind is not None:
                canonical, own = SQL_TYPE[column.kind], known_type(column.sql_type)
                yield Given(column.name, f"i:{column.name}", canonical, own if own and own != canonical else None)
        for number in sorted(uses.calls):
            yield Given(f"__f{number}", f"f:{number}", self._calls[number].sql_type)
        for key in sorted(uses.given):
            yield self._given[key]

    # --- steps ---

    def rounds(self) -> Iterator[tuple[Select | None, list[Call]]]:
        """For each round the SELECT that computes what is wanted by then, and the functions that it allows."""
        needed = {self._units[n].level for n in self._wanted if n in self._arguments}
        last = max((self._units[n].level for n in self._wanted), default=0)
        levels = sorted(needed | ({last} if self._wanted else set()))
        for level in range(max([last, *(placed.level for placed in self._calls)], default=0) + 1):
            numbers = [n for n in sorted(self._wanted) if self._round_of(n, levels) == level]
            calls = [placed.call for placed in self._calls if placed.level == level + 1]
            yield (self._select(numbers) if numbers else None), calls

    def _round_of(self, number: int, levels: Sequence[int]) -> int:
        """An argument is computed as soon as it can be; an item in the first SELECT from then on that is there anyway."""
        own = self._units[number].level
        return own if number in self._arguments else next(level for level in levels if level >= own)

    def _select(self, numbers: Sequence[int]) -> Select:
        uses = Uses()
        for number in numbers:
            uses = uses | self._units[number].uses
        expressions = []
        for number in sorted({*uses.units, *numbers}):
            unit = self._units[number]
            slot, sql_type = (f"s:{number}", self._wanted[number]) if number in numbers else (None, "")
            if number in uses.units:
                expressions.append(Expression(unit.name or "", unit.sql, slot, sql_type))
            else:
                expressions.append(Expression(f"__x{number}", unit.sql, slot, sql_type))
        return Select(tuple(self._columns_of(uses)), tuple(expressions))


def _bind_error(text: str, message: str) -> TransformError:
    first = re.sub(r"^\w+ Error: ", "", message.strip()).split("\n")[0].rstrip()
    if "aggregates" in first or "window functions" in first:
        return TransformError("an aggregate looks at several rows", hint="a feature is computed from one row")
    return TransformError(first)


def _all_functions() -> str:
    return ", ".join(f"ML.{name}" for name in FUNCTIONS)


def _cast_hint(text: str, takes: str) -> str | None:
    if takes == "a number":
        return f"TRY_CAST({text} AS DOUBLE) would make it one"
    if takes == "a list of texts":
        return f"a text becomes words by string_split({text}, ' ')"
    if "STRUCT" in takes:
        return "write STRUCT(a, b)"
    return f"CAST({text} AS VARCHAR) would make it one" if takes == "a text" else None


def _arrow(sql_type: str) -> Any:
    import pyarrow as pa

    return pa.string() if sql_type == "VARCHAR" else pa.float64()
