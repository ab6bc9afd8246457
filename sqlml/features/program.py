"""A compiled TRANSFORM: which steps lead from input columns to output columns, as values that JSON can hold.

    input columns → SELECT (inner arguments) → functions → SELECT → … → output columns

A *slot* names a column on its way: ``i:age`` an input, ``s:3`` the result of an expression, ``f:0`` of a function, ``n:0:age_s``
a column of a transform-only model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from sqlml.errors import BundleError
from sqlml.features.checking import TransformError, check_expression
from sqlml.features.database import ROWS, ComputeError, check_query, known_type
from sqlml.features.fitted.base import quoted
from sqlml.plan import InputColumn
from sqlml.types import Kind


@dataclass(frozen=True)
class Given:
    """A column that a SELECT reads: its name in SQL, where its values are, their type, and the type that SQL shall see."""

    name: str
    slot: str
    kind_type: str
    cast: str | None = None


@dataclass(frozen=True)
class Expression:
    """One expression of a SELECT, under a name; where ``slot`` is set, its value cast to ``sql_type`` is wanted."""

    name: str
    sql: str
    slot: str | None = None
    sql_type: str = ""


@dataclass(frozen=True)
class Select:
    """One query over the rows: expressions may use those before them by name."""

    given: tuple[Given, ...]
    expressions: tuple[Expression, ...]

    @cached_property
    def wanted(self) -> tuple[Expression, ...]:
        return tuple(e for e in self.expressions if e.slot is not None)

    @cached_property
    def types(self) -> list[Any]:
        """The Arrow types of what is wanted, once a first row has been computed and where Python values pass for them."""
        return []

    @cached_property
    def sql(self) -> str:
        """The query over the table ``__rows``, whose columns are c0, c1, …"""
        columns = ", ".join(
            (f"TRY_CAST(c{i} AS {g.cast})" if g.cast else f"c{i}") + f" AS {quoted(g.name)}" for i, g in enumerate(self.given)
        )
        inner = ", ".join(f"(\n{e.sql}\n) AS {quoted(e.name)}" for e in self.expressions)
        outer = ", ".join(f"CAST({quoted(e.name)} AS {e.sql_type}) AS s{i}" for i, e in enumerate(self.wanted))
        return f"SELECT {outer} FROM (SELECT {inner} FROM (SELECT {columns or '0'} FROM {ROWS}))"  # noqa: S608 - checked when planned


@dataclass(frozen=True)
class Call:
    """One function of ``FUNCTIONS`` over one column."""

    function: str
    options: Mapping[str, Any]
    source: str
    slot: str
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Nested:
    """A transform-only model, with its state: its inputs by name, its outputs to slots ``n:<number>:<name>``."""

    number: int
    document: Mapping[str, Any]
    inputs: Mapping[str, str]  # its input → slot


@dataclass(frozen=True)
class Output:
    """One output column: where it comes from (``path``: a field of a STRUCT), what it is, and the SQL it was written as."""

    name: str
    kind: Kind
    slot: str
    path: tuple[str, ...]
    sql: str
    sql_type: str


@dataclass(frozen=True)
class Program:
    """The whole, steps in order."""

    inputs: tuple[InputColumn, ...]
    steps: tuple[Select | Call | Nested, ...]
    outputs: tuple[Output, ...]

    def used(self, slot: str) -> bool:
        """Whether a later step reads a slot."""
        return any(
            slot == step.source if isinstance(step, Call) else isinstance(step, Select) and slot in {g.slot for g in step.given}
            for step in self.steps
        )

    def to_json(self) -> dict[str, Any]:
        steps = [{"step": type(step).__name__.lower(), **asdict(step)} for step in self.steps]
        return {"inputs": [asdict(i) for i in self.inputs], "steps": steps, "outputs": [asdict(o) for o in self.outputs]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Program:
        """The inverse of ``to_json``.  ``BundleError`` for SQL that planning would not have let through."""
        return cls(
            tuple(InputColumn(i["name"], i["sql_type"], Kind(i["kind"])) for i in document["inputs"]),
            tuple(_step(step) for step in document["steps"]),
            tuple(Output(**o | {"kind": Kind(o["kind"]), "path": tuple(o["path"])}) for o in document["outputs"]),
        )


def _step(document: Mapping[str, Any]) -> Select | Call | Nested:
    fields = {name: value for name, value in document.items() if name != "step"}
    if document["step"] == "call":
        return Call(**fields)
    if document["step"] == "nested":
        return Nested(**fields)
    return read_select_step(fields, "the model's TRANSFORM")


class _Tampered(Exception):
    """SQL that planning would not have let through."""


def read_select_step(document: Mapping[str, Any], what: str) -> Select:
    """A SELECT out of JSON, checked as it was when it was planned: a file may hold anything.

    ``BundleError`` says that ``what`` cannot be used.
    """
    select = Select(tuple(Given(**g) for g in document["given"]), tuple(Expression(**e) for e in document["expressions"]))
    try:
        _check_select(select)
    except _Tampered as error:
        raise BundleError(
            f"{what} cannot be used: {error}", hint="do not trust these files; make them again from what they were made of"
        ) from None
    return select


def _check_select(select: Select) -> None:
    for sql_type in (*(g.kind_type for g in select.given), *(g.cast for g in select.given if g.cast is not None)):
        _check_type(sql_type)
    known = {g.name.lower() for g in select.given}

    def resolve(names: Sequence[str]) -> None:
        if names[0].lower() not in known:
            raise _Tampered(f"there is no column {names[0]}")

    for expression in select.expressions:
        try:
            check_expression(expression.sql, expression.sql, resolve)
        except (TransformError, ComputeError) as error:
            raise _Tampered(f"{expression.sql}: {error.args[0]}") from None
        if expression.slot is not None:
            _check_type(expression.sql_type)
        known.add(expression.name.lower())
    try:
        check_query(select.sql)
    except ComputeError as error:
        raise _Tampered(str(error)) from None


def _check_type(sql_type: str) -> None:
    if known_type(sql_type) is None:
        raise _Tampered(f"there is no type {sql_type}")


def with_state(call: Call, state: Mapping[str, Any]) -> Call:
    """The same call, fitted."""
    return replace(call, state=state)
