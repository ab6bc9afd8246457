"""A deployed query that is ready to answer: its steps run over the parameters of a request, all its rows at once.

    parameters by name → slots → look-ups, expressions, models in order → the columns of the answer

Expressions that have a formula are computed by numpy, the others by the private database; plain columns are not computed at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from sqlml.bundles.answers import texts
from sqlml.bundles.model import Model
from sqlml.composition.copies import Copy, copy_path, open_copy
from sqlml.composition.formulas import NUMBER, TEXT, TRUTH, Formula, evaluate, make_formula
from sqlml.composition.plan import Ask, Composition, LookUp, Result, Step
from sqlml.errors import BundleError, DataError
from sqlml.features.dataset import Values
from sqlml.features.program import Given, Select
from sqlml.features.selects import run_select
from sqlml.types import Kind, arrow_type

if TYPE_CHECKING:
    from numpy.typing import NDArray

MATRIX = "matrix"
"""The output of a model that only answers are made of: probabilities as an array (n, classes)."""
_TIMES = (Kind.DATE, Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ)
_ANSWERED = (pa.bool_(), pa.int64(), pa.float64(), pa.string())
_WHAT = "the query"

Column: TypeAlias = "Values | NDArray[Any]"
Raw: TypeAlias = "Callable[[Mapping[str, Values]], NDArray[Any]]"
"""From a model's inputs by name the raw scores of its only head."""


class Composed:
    """A composition with its models and copies: immutable, safe to use from many threads."""

    def __init__(
        self, composition: Composition, models: Sequence[Model], copies: Mapping[str, Copy], raws: Sequence[Raw | None] = ()
    ) -> None:
        self.composition = composition
        self._models = tuple(models)
        self._raws = tuple(raws) or (None,) * len(self._models)
        self._copies = copies
        self._formulas = {id(step): _checked(step) for step in composition.steps if isinstance(step, Select)}

    @classmethod
    def open(cls, composition: Composition, models: Sequence[Model], folder: Path, raws: Sequence[Raw | None] = ()) -> Composed:
        """Open the copies of its tables, which lie in a folder.  ``BundleError`` where one is missing.

        ``raws``: what gives the raw scores of each model's only head, where the model itself shall not.
        """
        copies = {}
        for look_up in composition.look_ups:
            path = copy_path(folder, look_up.copy)
            if not path.is_file():
                raise BundleError(f"the copy of {look_up.table} is not there: {path}", hint="REFRESH ENDPOINT makes it again")
            copies[look_up.copy] = open_copy(path)
        return cls(composition, models, copies, raws)

    def run(self, parameters: Mapping[str, pa.Array]) -> list[Column]:
        """The columns of the answer, in order: arrays of bool, int64, float64, text or lists, or probabilities (n, classes).

        Every array of ``parameters`` has the canonical type of its kind and the same length.  ``DataError`` for rows that an
        expression cannot compute.
        """
        slots = _Slots({f"p:{name}": values for name, values in parameters.items()})
        n = len(next(iter(parameters.values())))
        for step in self.composition.steps:
            self._run_step(step, slots, n)
        return [_answer(result, slots) for result in self.composition.results]

    def _run_step(self, step: Step, slots: _Slots, n: int) -> None:
        if isinstance(step, LookUp):
            values = [slots.arrow(slot) for slot in step.values]
            found = self._copies[step.copy].find(step.keys, values, step.columns)
            slots.put({f"l:{step.number}:{c.name}": array for c, array in zip(step.columns, found, strict=True)})
        elif isinstance(step, Ask):
            model, raw = self._models[step.part], self._raws[step.part]
            slots.put(_ask(model, raw, {name: slots.arrow(slot) for name, slot in step.inputs.items()}, step.answers))
        else:
            _compute(step, self._formulas[id(step)], slots, n)


class _Slots:
    """Columns by slot, as Arrow arrays and, where an expression needs them so, as plain numbers."""

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._columns: dict[str, Column] = dict(columns)
        self._clean: dict[str, NDArray[Any] | None] = {}

    def put(self, columns: Mapping[str, Column]) -> None:
        self._columns |= columns

    def column(self, slot: str) -> Column:
        return self._columns[slot]

    def arrow(self, slot: str) -> Values:
        """A column as Arrow has it."""
        column = self._columns[slot]
        if isinstance(column, np.ndarray):
            column = self._columns[slot] = (
                pa.array(column.astype(object), pa.string()) if column.dtype.kind in "UO" else pa.array(column)
            )
        return column

    def clean(self, slot: str) -> NDArray[Any] | None:
        """A column's values as numpy has them; None where one is NULL or not finite."""
        if slot not in self._clean:
            self._clean[slot] = _clean(self._columns[slot])
        return self._clean[slot]


def _clean(column: Column) -> NDArray[Any] | None:
    if not isinstance(column, np.ndarray):
        if column.null_count:
            return None
        column = np.asarray(column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False))
    return None if column.dtype.kind == "f" and not np.isfinite(column).all() else column


# --- models -----------------------------------------------------------------------------------------------------------


def _ask(model: Model, raw_of: Raw | None, inputs: Mapping[str, Values], answers: Mapping[str, str]) -> dict[str, Column]:
    """What a model answers, by slot."""
    if len(model.heads) != 1:
        return {slot: model.predict(inputs) for slot in answers.values()}
    raw = (raw_of or model.raw)(inputs)
    return {slot: _asked(model, inputs, raw, output) for output, slot in answers.items()}


def _asked(model: Model, inputs: Mapping[str, Values], raw: NDArray[Any], output: str) -> Column:
    what, _, argument = output.partition(":")
    match what:
        case "predict":
            return model.labels(raw)
        case "proba":
            return np.asarray(raw[:, int(argument)], np.float64)
        case "reasons":
            return model.reasons(inputs, int(argument))
        case "probs":
            return model.probs_map(raw)
    return np.asarray(raw, np.float64)


# --- expressions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fast:
    """The expressions of a SELECT that have formulas, by slot; what they read, name → slot; the SELECT of the others."""

    formulas: Mapping[str, Formula]
    given: Mapping[str, str]
    rest: Select | None


def _type_of(given: Given) -> str:
    return given.cast or given.kind_type


def _checked(step: Select) -> _Fast:
    """The formulas of a SELECT: those that give exactly what the database does for some numbers, tried here."""
    types = {g.name.lower(): _type_of(g) for g in step.given}
    found = {e.slot or "": (e, make_formula(e.sql, types)) for e in step.wanted}
    formulas = {slot: formula for slot, (e, formula) in found.items() if formula is not None and formula.sql_type == e.sql_type}
    if formulas:
        read = {name for formula in formulas.values() for name in formula.reads}
        some = Select(
            tuple(g for g in step.given if g.name.lower() in read), tuple(e for e in step.expressions if e.slot in formulas)
        )
        trial = _Slots({g.slot: _trial_values(_type_of(g)) for g in some.given})
        wanted = run_select(some, trial.arrow, _TRIES, DataError, _WHAT)
        given = {g.name.lower(): g.slot for g in some.given}
        formulas = {slot: f for slot, f in formulas.items() if _agrees(f, given, trial, wanted[slot])}
    rest = tuple(e for e in step.expressions if (e.slot or "") not in formulas)
    slow = Select(step.given, rest) if rest else None
    return _Fast(formulas, {g.name.lower(): g.slot for g in step.given if types[g.name.lower()] in (NUMBER, TRUTH, TEXT)}, slow)


_TRIES = 32


def _trial_values(sql_type: str) -> Column:
    """Values of a type to try a formula on."""
    numbers = np.random.default_rng(0).normal(0.5, 1, _TRIES)
    if sql_type == NUMBER:
        return numbers
    if sql_type == TRUTH:
        return numbers > 0
    return np.array(["a", "b", "yes", "no"] * (_TRIES // 4), object)


def _agrees(formula: Formula, given: Mapping[str, str], trial: _Slots, wanted: Values) -> bool:
    values = _evaluate(formula, given, trial, _TRIES)
    return values is not None and values.tolist() == wanted.to_pylist()


def _evaluate(formula: Formula, given: Mapping[str, str], slots: _Slots, n: int) -> NDArray[Any] | None:
    columns = {}
    for name in formula.reads:
        values = slots.clean(given[name])
        if values is None:
            return None
        columns[name] = values
    return evaluate(formula, columns, n)


def _compute(step: Select, fast: _Fast, slots: _Slots, n: int) -> None:
    """Put what a SELECT computes into its slots."""
    found = {}
    for slot, formula in fast.formulas.items():
        values = _evaluate(formula, fast.given, slots, n)
        if values is None:
            slots.put(run_select(step, slots.arrow, n, DataError, _WHAT))
            return
        found[slot] = values
    slots.put(found)
    if fast.rest is not None:
        slots.put(run_select(fast.rest, slots.arrow, n, DataError, _WHAT))


# --- the answer -------------------------------------------------------------------------------------------------------


def _answer(result: Result, slots: _Slots) -> Column:
    """A column in the form that requests are answered in: dates and times as texts."""
    if result.classes:
        return slots.column(result.slot)
    values = slots.arrow(result.slot)
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if result.kind in _TIMES:
        return texts(whole.cast(arrow_type(result.kind)), result.kind)
    if whole.type in _ANSWERED or result.kind in (Kind.NUMBERS, Kind.TEXTS):
        return whole
    return whole.cast(pa.int64() if pa.types.is_integer(whole.type) else arrow_type(result.kind))
