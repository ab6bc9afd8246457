"""TRANSFORM before anything runs: every item checked and bound, its columns found, its steps settled.

items → units (stars spread out) → expressions and calls of functions (checked one by one) → Program
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from sqlml_dialect import DialectError
from sqlml_dialect.fitted import StarItem, default_name, name_span, parse_star

from sqlml.errors import did_you_mean, listing
from sqlml.features.checking import TransformError
from sqlml.features.expressions import ExpressionCompiler
from sqlml.features.program import Call, Nested, Output, Program, Select
from sqlml.features.sqltypes import canonical_type, is_sparse, kind_of, leaves
from sqlml.plan import InputColumn, TransformItem, TransformPlan
from sqlml.types import SQL_TYPE, Column, Kind

__all__ = ["TransformError", "compile_transform", "plan_transform"]


def plan_transform(
    items: Sequence[TransformItem],
    columns: Sequence[Column],
    frozen: Mapping[str, Mapping[str, Any]],
    others: Mapping[str, str] | None = None,
) -> tuple[TransformPlan, tuple[Column, ...]]:
    """The plan of a TRANSFORM list over the columns of a query, and the columns that it gives.

    ``columns`` are those that may be learnt from (a kind of None: only to be named in an error); ``others`` are the query's
    further columns, each with what it is: ``{"y": "the target"}``: a star does not hold them, EXCLUDE may name them, and an
    expression may not.  ``others`` None: the list was planned before, and ``columns`` are only those that it reads.

    ``frozen`` maps the text of an item that calls a transform-only model to that model's ``Transform.to_json()``.  Output columns
    have the database's type of the expression; a vector has the kind NUMBERS.

    Raises ``TransformError`` with the number of the item and the place in its text.
    """
    program = compile_transform(items, columns, frozen, others)
    read = {i.name for i in program.inputs}
    plan = TransformPlan(tuple(items), tuple(c for c in columns if c.name in read), dict(frozen))
    return plan, tuple(Column(o.name, o.sql_type, o.kind) for o in program.outputs)


def compile_transform(
    items: Sequence[TransformItem],
    columns: Sequence[Column],
    frozen: Mapping[str, Mapping[str, Any]],
    others: Mapping[str, str] | None = None,
) -> Program:
    """The steps of a TRANSFORM list.  ``others`` None: it was planned before, over more columns than those that it reads."""
    compiler = _Compiler(columns, frozen, others)
    for number, item in enumerate(items):
        try:
            compiler.add_item(number, item)
        except TransformError as error:
            raise error.of_item(number, item.text) from error.__cause__
        except DialectError as error:
            inside = error.text == item.text
            raise TransformError(
                error.message, item=number, source=item.text, span=error.span if inside else None, hint=error.hint
            ) from None
    return compiler.program()


@dataclass(frozen=True)
class _Draft:
    """An output before its slot is known: a unit's own column, or a field of its STRUCT."""

    name: str
    kind: Kind
    unit: int | None
    path: tuple[str, ...]
    sql: str
    sql_type: str
    slot: str = ""


class _Compiler:
    """Collects items; ``program`` then puts their steps in order."""

    def __init__(
        self, columns: Sequence[Column], frozen: Mapping[str, Mapping[str, Any]], others: Mapping[str, str] | None
    ) -> None:
        self.columns = tuple(columns)
        self.frozen = frozen
        self.planned = others is None
        self.others = {name.lower(): (name, what) for name, what in (others or {}).items()}
        self.expressions = ExpressionCompiler(self.columns, self.others)
        self.drafts: list[_Draft] = []
        self.nested: list[Nested] = []
        self.number = 0  # of the item
        self.taken: dict[str, tuple[int, str]] = {}  # output in lower case → number and text of its item

    # --- items ---

    def add_item(self, number: int, item: TransformItem) -> None:
        self.number = number
        if item.text in self.frozen:
            self._add_nested(item, self.frozen[item.text])
            return
        star = parse_star(item.text)
        if star is not None:
            if item.name is not None:
                raise TransformError("a star has no name of its own", hint="name its columns: * RENAME (old AS new)")
            self._add_star(item.text, star)
            return
        self._add_expression(item.text, item.name or default_name(item.text), item.name is None)

    def _add_expression(self, text: str, name: str, unnamed: bool, place: tuple[int, int] | None = None) -> None:
        """``place`` is where the text stands in its item."""
        try:
            unit = self.expressions.add_unit(text, name)
        except TransformError as error:
            raise error.inside(place) if place is not None else error from error.__cause__
        if is_sparse(unit.sql_type):
            self._take(name, text)
            slot = self.expressions.add_sparse(unit)
            self.drafts.append(_Draft(name, Kind.NUMBERS, None, (), text, "DOUBLE[]", slot))
            return
        found = list(leaves(unit.sql_type))
        if unit.sql_type.id == "struct" and not found:
            raise TransformError(f"{name} is a STRUCT without fields")
        for path, sql_type in found:
            kind = kind_of(sql_type)
            whole = () if unnamed and path and unit.is_call else (name,)  # f1_f2 of a cross says enough
            column = "_".join((*whole, *path))
            if kind is None:
                raise _unusable(column, str(sql_type))
            self._take(column, text)
            self.drafts.append(_Draft(column, kind, unit.number, path, text, str(sql_type)))
        self.expressions.want(unit, canonical_type(unit.sql_type))

    def _add_star(self, text: str, star: StarItem) -> None:
        known = {c.name.lower(): c for c in self.columns}
        for name, span in (*star.exclude, *((n, s) for n, _, s in star.replace), *((n, s) for n, _, s in star.rename)):
            optional = self.planned or (name.lower() in self.others and (name, span) in star.exclude)
            if name.lower() not in known and not optional:
                self._unknown(name, name_span(text, name) or span)
        excluded = {name.lower() for name, _ in star.exclude}
        replaced = {name.lower(): (sql, span) for name, sql, span in star.replace}
        renamed = {old.lower(): new for old, new, _ in star.rename}
        for column in self.columns:
            key = column.name.lower()
            if key in excluded:
                continue
            if key in replaced:
                self._add_expression(replaced[key][0], column.name, False, replaced[key][1])
            elif column.kind is not None:
                name = renamed.get(key, column.name)
                self._take(name, text)
                slot = self.expressions.read(column)
                self.drafts.append(_Draft(name, column.kind, None, (), column.name, column.sql_type, slot))

    def _add_nested(self, item: TransformItem, document: Mapping[str, Any]) -> None:
        program, number = Program.from_json(document["program"]), len(self.nested)
        known = {c.name.lower(): c for c in self.columns}
        absent = [i.name for i in program.inputs if i.name.lower() not in known]
        if absent:
            raise TransformError(
                f"{item.text} needs columns that are not there: {listing(absent)}",
                hint=f"there are: {listing(c.name for c in self.columns) or 'none'}",
            )
        wrong = [i for i in program.inputs if known[i.name.lower()].kind is not i.kind]
        if wrong:
            column = known[wrong[0].name.lower()]
            raise TransformError(
                f"{item.text} was fitted with {column.name} as {wrong[0].kind}, and here it is {column.sql_type}"
            )
        slots = {i.name: self.expressions.read(known[i.name.lower()]) for i in program.inputs}
        self.nested.append(Nested(number, document, slots))
        one = len(program.outputs) == 1
        for output in program.outputs:
            name = output.name if item.name is None else item.name if one else f"{item.name}_{output.name}"
            slot = f"n:{number}:{output.name}"
            self._take(name, item.text)
            self.drafts.append(_Draft(name, output.kind, None, (), output.sql, output.sql_type, slot))
            self.expressions.add_given(name, slot, SQL_TYPE[output.kind])

    def _take(self, name: str, text: str) -> None:
        """Note an output's name; refuse one that is there already."""
        before = self.taken.get(name.lower())
        if before is None:
            self.taken[name.lower()] = (self.number, text)
            return
        if before[0] == self.number:
            raise TransformError(f"{text} gives two features called {name}", hint="name one with AS")
        stars = any(t.lstrip().startswith("*") for t in (before[1], text))
        hint = f"leave it out of the star: * EXCLUDE ({name}); or name the expression with AS" if stars else "name one with AS"
        raise TransformError(f"two features are called {name}", hint=hint)

    def _unknown(self, name: str, span: tuple[int, int] | None) -> NoReturn:
        hint = did_you_mean(name, [c.name for c in self.columns]) or f"there are: {listing(c.name for c in self.columns)}"
        raise TransformError(f"there is no column {name}", span=span, hint=hint)

    # --- steps ---

    def program(self) -> Program:
        """The steps in order: each round is a SELECT, where one is needed, and the functions that its results allow."""
        inputs = tuple(
            InputColumn(c.name, c.sql_type, c.kind)
            for c in self.columns
            if c.kind is not None and c.name in self.expressions.inputs
        )
        steps: list[Select | Call | Nested] = list(self.nested)
        for select, calls in self.expressions.rounds():
            if select is not None:
                steps.append(select)
            steps += calls
        slots = self.expressions.slots
        outputs = (
            Output(d.name, d.kind, d.slot if d.unit is None else slots[d.unit], d.path, d.sql, d.sql_type) for d in self.drafts
        )
        return Program(inputs, tuple(steps), tuple(outputs))


_REMEDY = {
    "INTERVAL": "as seconds: extract(epoch FROM …)",
    "BLOB": "take numbers or texts out of it",
    "MAP": "take single values out of it: m['key']",
    "BIT": "bit_count(…), or CAST to a number",
}


def _unusable(name: str, sql_type: str) -> TransformError:
    hint = next((text for start, text in _REMEDY.items() if sql_type.startswith(start)), None)
    return TransformError(
        f"{name} would be of a type that no model can use ({sql_type})",
        hint=hint or "a feature is a number, a boolean, a text, a date or time, or a list of numbers or of texts",
    )
