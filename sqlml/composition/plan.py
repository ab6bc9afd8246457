"""What a deployed query computes, as values that JSON can hold: parameters, steps in order, outputs.

    parameters of the request → look-ups by key → expressions → models → expressions → … → outputs

A *slot* names a column on its way: ``p:age`` a parameter, ``l:0:balance`` a column of the first look-up, ``a:1:proba:0`` an
answer of the second question to a model, ``s:3`` the value of an expression.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from sqlml.errors import BundleError
from sqlml.features.program import Select, read_select_step
from sqlml.plan import InputColumn
from sqlml.types import Kind

FORMAT = 1


@dataclass(frozen=True)
class Part:
    """A version that the query asks, pinned; in the order of the endpoint's arms."""

    uid: str
    name: str  # churn@3, as it was called at DEPLOY


@dataclass(frozen=True)
class LookUp:
    """A table that is read by key: ``values`` are the slots whose values are compared with the columns ``keys``, in order.

    ``copy`` is the name of its copy in the home's folder.  Where no row has the key, every column is NULL, the key's own too.
    """

    number: int
    table: str  # as it was written
    copy: str
    keys: tuple[InputColumn, ...]
    values: tuple[str, ...]
    columns: tuple[InputColumn, ...]  # what is taken from it: sql_type is the table's own


@dataclass(frozen=True)
class Ask:
    """A question to one model: its inputs' slots by name; where its answers go, by output as ``contracts.Target`` has it."""

    part: int
    inputs: Mapping[str, str]
    answers: Mapping[str, str]


Step: TypeAlias = LookUp | Select | Ask


@dataclass(frozen=True)
class Result:
    """A column of the answer; ``classes`` are those of a column of probabilities, in order."""

    name: str
    slot: str
    kind: Kind
    sql_type: str  # the expression's own
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Composition:
    """A deployed query."""

    sql: str
    parameters: tuple[InputColumn, ...]
    parts: tuple[Part, ...]
    steps: tuple[Step, ...]
    results: tuple[Result, ...]
    example: Mapping[str, Any]  # one row of parameters, JSON values

    @property
    def look_ups(self) -> tuple[LookUp, ...]:
        """The tables that it reads."""
        return tuple(step for step in self.steps if isinstance(step, LookUp))

    def to_json(self) -> dict[str, Any]:
        steps = [{"step": type(step).__name__.lower(), **asdict(step)} for step in self.steps]
        return {"format": FORMAT, **asdict(self), "steps": steps}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Composition:
        """The inverse of ``to_json``.  ``BundleError`` for another format, or SQL that DEPLOY would not have let through."""
        if document.get("format") != FORMAT:
            raise BundleError(
                f"a deployed query of format {document.get('format')}, and this version of sqlml reads format {FORMAT}",
                hint="deploy it again",
            )
        return cls(
            document["sql"],
            _columns(document["parameters"]),
            tuple(Part(**part) for part in document["parts"]),
            tuple(_step(step) for step in document["steps"]),
            tuple(Result(**r | {"kind": Kind(r["kind"]), "classes": tuple(r["classes"])}) for r in document["results"]),
            document["example"],
        )


def _step(document: Mapping[str, Any]) -> Step:
    fields = {name: value for name, value in document.items() if name != "step"}
    if document["step"] == "ask":
        return Ask(**fields)
    if document["step"] == "lookup":
        columns = {"keys": _columns(fields["keys"]), "columns": _columns(fields["columns"])}
        return LookUp(**fields | columns | {"values": tuple(fields["values"])})
    return read_select_step(fields, "the endpoint's query")


def _columns(documents: Any) -> tuple[InputColumn, ...]:
    return tuple(InputColumn(c["name"], c["sql_type"], Kind(c["kind"])) for c in documents)
