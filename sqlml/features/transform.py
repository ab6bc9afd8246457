"""TRANSFORM: the features of a model as SQL plus what was fitted on the training rows, applied again at every prediction.

    input columns → steps of the Program (SELECTs in a private database, functions in numpy and Arrow) → output columns

The same class computes training rows, views, endpoints and workers; nothing of the user's database is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.errors import DataError, TrainingDataError, count_of
from sqlml.features.dataset import Values, canonical, take
from sqlml.features.fitted import STEPS
from sqlml.features.fitted.base import Apply
from sqlml.features.program import Call, Nested, Output, Program, Select, with_state
from sqlml.features.selects import run_select
from sqlml.features.transform_plan import TransformError, compile_transform, plan_transform
from sqlml.plan import InputColumn, TransformPlan
from sqlml.types import Kind, arrow_type

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Transform", "TransformColumn", "TransformError", "plan_transform"]

FORMAT = 1
_BLOCK = 1 << 26
"""Numbers that one vector array holds at most: Arrow counts the elements of a list array with 32 bits."""
_MOST = 1 << 30
"""Numbers that the vectors of the training rows may have in all: 8 GiB."""


@dataclass(frozen=True)
class TransformColumn:
    """One output: its name and kind, the SQL as written, and what was fitted, for people.

    ``features`` are the names of a vector's positions, empty where they have none.
    """

    name: str
    kind: Kind
    sql: str
    state: str
    features: tuple[str, ...] = ()


class Transform:
    """Fitted, immutable, safe to use from many threads."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._calls: dict[str, tuple[Apply, int]] = {}
        self._nested = {step.number: Transform.from_json(step.document) for step in program.steps if isinstance(step, Nested)}
        for step in program.steps:
            if isinstance(step, Call):
                function = STEPS[step.function]
                width = len(function.features(step.options, step.state)) or 1
                self._calls[step.slot] = (function.bind(step.options, step.state), width)
        self._outputs = tuple(self._column(output) for output in program.outputs)

    @property
    def inputs(self) -> tuple[InputColumn, ...]:
        """The columns that it reads, in the query's order."""
        return self._program.inputs

    @property
    def outputs(self) -> tuple[TransformColumn, ...]:
        """The columns that it gives, in the order of the items."""
        return self._outputs

    @classmethod
    def fit(cls, plan: TransformPlan, column: Callable[[str], Values], rows: NDArray[np.int64]) -> Transform:
        """Learn from the rows numbered ``rows`` of the canonical columns that ``column(name)`` gives, and from these alone.

        ``TrainingDataError`` where an expression fails on a row, or where vectors would not fit into memory.
        """
        program = compile_transform(plan.items, plan.inputs, plan.frozen)
        env: dict[str, Values] = {}
        values = _Fetched(env, lambda name: take(column(name), rows))
        steps: list[Select | Call | Nested] = []
        for step in program.steps:
            if isinstance(step, Call):
                step = _fit_call(step, values(step.source), len(rows))
                if program.used(step.slot):
                    function = STEPS[step.function]
                    width = len(function.features(step.options, step.state)) or 1
                    env[step.slot] = _call(function.bind(step.options, step.state), width, values(step.source))
            elif isinstance(step, Nested):
                inner = Transform.from_json(step.document)
                found = inner.apply({name: values(slot) for name, slot in step.inputs.items()}, len(rows))
                env |= {f"n:{step.number}:{name}": array for name, array in found.items()}
            else:
                env |= run_select(step, values, len(rows), TrainingDataError)
            steps.append(step)
        return cls(replace(program, steps=tuple(steps)))

    def apply(self, columns: Mapping[str, Values], n: int) -> dict[str, Values]:
        """Canonical input columns of n rows, by name → output columns in the Arrow types of their kinds.

        ``DataError`` where an expression fails on a row.
        """
        env: dict[str, Values] = {}
        values = _Fetched(env, columns.__getitem__)
        for step in self._program.steps:
            if isinstance(step, Call):
                env[step.slot] = _call(*self._calls[step.slot], values(step.source))
            elif isinstance(step, Nested):
                found = self._nested[step.number].apply({name: values(slot) for name, slot in step.inputs.items()}, n)
                env |= {f"n:{step.number}:{name}": array for name, array in found.items()}
            else:
                env |= run_select(step, values, n, DataError)
        return {output.name: _output(output, values(output.slot)) for output in self._program.outputs}

    def describe(self) -> tuple[tuple[str, str], ...]:
        """For each output, in a line, what it is made of and what was fitted."""
        return tuple((c.name, f"{c.sql}: {c.state}" if c.state else c.sql) for c in self.outputs)

    def to_json(self) -> dict[str, Any]:
        """The whole: SQL and fitted state; floats survive exactly."""
        return {"format": FORMAT, "program": self._program.to_json(), "outputs": [asdict(c) for c in self.outputs]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Transform:
        """The inverse of ``to_json``, after a trip through JSON."""
        if document.get("format") != FORMAT:
            raise DataError(
                f"a transform of format {document.get('format')}, and this version of sqlml reads format {FORMAT}",
                hint="install the version of sqlml that wrote it, or train the model again",
            )
        return cls(Program.from_json(document["program"]))

    def _column(self, output: Output) -> TransformColumn:
        """What there is to say about an output."""
        state = ""
        features: tuple[str, ...] = ()
        if output.slot.startswith("n:"):
            _, number, name = output.slot.split(":", 2)
            inner = next(c for c in self._nested[int(number)].outputs if c.name == name)
            return replace(inner, name=output.name)
        calls = {step.slot: step for step in self._program.steps if isinstance(step, Call)}
        for slot in self._calls_of(output.slot, calls):
            call = calls[slot]
            function = STEPS[call.function]
            text = function.describe(call.options, call.state)
            state = f"{state}; {text}" if state and text else state or text
            if slot == output.slot and not output.path:
                features = function.features(call.options, call.state)
        return TransformColumn(output.name, output.kind, output.sql, state, features)

    def _calls_of(self, slot: str, calls: Mapping[str, Call]) -> list[str]:
        """The functions whose results a slot is made of, inner ones first."""
        if slot in calls:
            return [*self._calls_of(calls[slot].source, calls), slot]
        for step in self._program.steps:
            if isinstance(step, Select) and any(e.slot == slot for e in step.wanted):
                sql = next(e.sql for e in step.wanted if e.slot == slot)
                found = [g.slot for g in step.given if g.slot in calls and g.name in sql]
                return [inner for one in found for inner in self._calls_of(one, calls)]
        return []


class _Fetched:
    """Columns by slot: what steps have computed, and inputs as they are first asked for."""

    def __init__(self, env: dict[str, Values], column: Callable[[str], Values]) -> None:
        self.env = env
        self.column = column

    def __call__(self, slot: str) -> Values:
        if slot not in self.env:
            self.env[slot] = self.column(slot[2:])
        return self.env[slot]


# --- functions --------------------------------------------------------------------------------------------------------


def _fit_call(call: Call, values: Values, n: int) -> Call:
    function = STEPS[call.function]
    state = function.fit(_whole(values), call.options)
    width = len(function.features(call.options, state))
    if width * n > _MOST:
        size = f"{width * n * 8 / 2**30:,.0f} GiB"
        raise TrainingDataError(
            f"ML.{call.function} gives {count_of(width, 'number')} for each of {count_of(n, 'row')}: {size}",
            hint="give a smaller top_k, or a larger frequency_threshold",
            about="transform",
        )
    return with_state(call, state)


def _call(apply: Apply, width: int, values: Values) -> Values:
    """A function's results; vectors too many for one array come in blocks of rows."""
    whole = _whole(values)
    if len(whole) * width <= _BLOCK:
        return apply(whole)
    step = max(1, _BLOCK // width)
    return pa.chunked_array([apply(whole.slice(start, step)) for start in range(0, len(whole), step)])


def _whole(values: Values) -> pa.Array:
    """A column as one array."""
    if isinstance(values, pa.Array):
        return values
    if values.num_chunks == 1:
        return values.chunk(0)
    combined = values.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


# --- outputs ----------------------------------------------------------------------------------------------------------

_ARROW = {kind: arrow_type(kind) for kind in Kind}


def _output(output: Output, values: Values) -> Values:
    """An output column in the Arrow type of its kind."""
    for name in output.path:
        values = _field(values, name)
    return values if values.type == _ARROW[output.kind] else canonical(values, output.kind)


def _field(values: Values, name: str) -> Values:
    """A field of a STRUCT column, NULL where the whole is NULL."""
    return pc.struct_field(values, [values.type.get_field_index(name)])
