"""Rows scored on this side of the connection, batch by batch: for a database that cannot call models itself.

Stream of a query → its inputs by name → the model → the same rows with the answer's columns beside them
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from sqlml.binder.select_items import ItemPiece
from sqlml.binder.text import Sql
from sqlml.bundles.answers import answer
from sqlml.bundles.model import Model
from sqlml.catalog import Version
from sqlml.contracts import RowModel, Stream
from sqlml.errors import InternalError
from sqlml.statements.scoring import Runs
from sqlml.types import Column, arrow_type, kind_of_arrow, sql_type

if TYPE_CHECKING:
    from sqlml.plan import InputColumn

SQL_TYPE_KEY = "sqlml.sql_type"
"""In a field's metadata: the type that the column has in the database it comes from."""
Add: TypeAlias = Callable[[Any, pa.StructArray], pa.RecordBatch]
"""What a model answers to some rows, as columns."""


def add_predictions(model: RowModel, rows: pa.StructArray) -> pa.RecordBatch:
    """What PREDICT MODEL adds."""
    return model.full(rows)


def fast_model(version: Version) -> Model:
    """A version's bundle for one reader of large batches: it may use all cores."""
    model = Model.open(version.bundle, version.sha256)
    for head in model.heads:
        head.predictor.threads = os.cpu_count() or 1
    return model


def scored(
    stream: Stream, model: RowModel, inputs: Sequence[InputColumn], add: Add = add_predictions, *, drops_inputs: bool = False
) -> Stream:
    """A stream with a model's answers beside its columns; ``drops_inputs`` leaves out what the model reads."""
    names = {name.lower(): name for name in stream.schema.names}
    places = {column.name: stream.schema.get_field_index(names[column.name.lower()]) for column in inputs}
    kept = [i for i in range(len(stream.schema)) if not (drops_inputs and i in places.values())]
    empty = [pa.array([], stream.schema.field(place).type) for place in places.values()]
    added = add(model, pa.StructArray.from_arrays(empty, names=list(places)) if places else _no_columns(0)).schema
    own = [stream.schema.field(i).with_metadata({SQL_TYPE_KEY: stream.columns[i].sql_type}) for i in kept]
    schema = pa.schema([*own, *added])
    columns = (*(stream.columns[i] for i in kept), *(Column(f.name, sql_type(f.type), kind_of_arrow(f.type)) for f in added))

    def batches() -> Generator[pa.RecordBatch, None, None]:
        with closing(stream.batches) as source:
            for batch in source:
                arrays = [batch.column(place) for place in places.values()]
                rows = pa.StructArray.from_arrays(arrays, names=list(places)) if places else _no_columns(batch.num_rows)
                answer = add(model, rows)
                yield pa.RecordBatch.from_arrays([*(batch.column(i) for i in kept), *answer.columns], schema=schema)

    return Stream(columns, schema, batches())


def answered(stream: Stream, items: Sequence[ItemPiece]) -> Stream:
    """A stream whose items are computed from their arguments, which leave it."""
    names = stream.schema.names
    found = [(item, _places(names, item.prefix), _answers(item)) for item in items]
    arguments = {place for _, places, _ in found for place in places}
    made = {places[-1] + 1: answer for _, places, answer in found}
    kept = [i for i in range(len(names)) if i not in arguments]
    columns = answered_columns(stream.columns, items)
    inputs = {places[-1] + 1: places for _, places, _ in found}
    nothing = pa.RecordBatch.from_arrays([pa.array([], f.type) for f in stream.schema], schema=stream.schema)

    def answer(batch: pa.RecordBatch) -> list[pa.Array]:
        return [made[i]([batch.column(p) for p in inputs[i]]) if i in made else batch.column(i) for i in kept]

    schema = pa.schema([pa.field(c.name, array.type) for c, array in zip(columns, answer(nothing), strict=True)])

    def batches() -> Generator[pa.RecordBatch, None, None]:
        with closing(stream.batches) as source:
            for batch in source:
                yield pa.RecordBatch.from_arrays(answer(batch), schema=schema)

    return Stream(columns, schema, batches())


def answered_columns(columns: Sequence[Column], items: Sequence[ItemPiece]) -> tuple[Column, ...]:
    """The columns of a statement without its items' arguments; items have the types of their answers."""
    names = [column.name for column in columns]
    types = {_places(names, item.prefix)[-1] + 1: _answers(item)(None).type for item in items}
    arguments = {place for item in items for place in _places(names, item.prefix)}
    return tuple(
        Column(c.name, sql_type(types[i]), kind_of_arrow(types[i])) if i in types else c
        for i, c in enumerate(columns) if i not in arguments
    )  # fmt: skip


def _places(names: Sequence[str], prefix: str) -> list[int]:
    return [index for index, name in enumerate(names) if name.startswith(prefix)]


def _answers(item: ItemPiece) -> Callable[[Sequence[pa.Array] | None], pa.Array]:
    """From an item's arguments (None: no rows) its answers."""
    version = item.version
    if version is None:
        raise InternalError("an item without a model")
    model = Model.open(version.bundle, version.sha256)
    names = [column.name for column in version.inputs]

    def answers(arguments: Sequence[pa.Array] | None) -> pa.Array:
        arrays = [pa.array([], arrow_type(c.kind)) for c in version.inputs] if arguments is None else list(arguments)
        return answer(model, item.output, pa.StructArray.from_arrays(arrays, names=names))

    return answers


def _no_columns(rows: int) -> pa.StructArray:
    return pa.array([{}] * rows, pa.struct([]))


@dataclass(frozen=True)
class ScoredTable:
    """A call such as ML.PREDICT whose rows are scored here before its statement runs."""

    body: Sql
    inputs: Sequence[InputColumn]
    load: Callable[[], RowModel]
    add: Add
    drops_inputs: bool
    runs: Runs
    values: Callable[[str, Any], Any]

    def empty(self, parameters: Any) -> pa.Table:
        """Its columns: what the model answers to no rows."""
        columns = self.runs.run(self.body.wrapped("SELECT * FROM (", "\n) AS __sqlml_rows LIMIT 0"), self._values(parameters))
        return self._table(columns)

    def compute(self, parameters: Any) -> pa.Table:
        """Every row of its query, scored."""
        return self._table(self.runs.run(self.body, self._values(parameters)))

    def _values(self, parameters: Any) -> Any:
        return self.values(self.body.text, parameters)

    def _table(self, stream: Stream) -> pa.Table:
        answered = scored(stream, self.load(), self.inputs, self.add, drops_inputs=self.drops_inputs)
        return pa.Table.from_batches(answered.batches, answered.schema)
