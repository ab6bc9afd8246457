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

from sqlml.binder.text import Sql
from sqlml.bundles.model import Model
from sqlml.catalog import Version
from sqlml.contracts import RowModel, Stream
from sqlml.statements.scoring import Runs
from sqlml.types import Column, kind_of_arrow, sql_type

if TYPE_CHECKING:
    from sqlml.plan import InputColumn

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
    schema = pa.schema([*(stream.schema.field(i) for i in kept), *added])
    columns = (*(stream.columns[i] for i in kept), *(Column(f.name, sql_type(f.type), kind_of_arrow(f.type)) for f in added))

    def batches() -> Generator[pa.RecordBatch, None, None]:
        with closing(stream.batches) as source:
            for batch in source:
                arrays = [batch.column(place) for place in places.values()]
                rows = pa.StructArray.from_arrays(arrays, names=list(places)) if places else _no_columns(batch.num_rows)
                answer = add(model, rows)
                yield pa.RecordBatch.from_arrays([*(batch.column(i) for i in kept), *answer.columns], schema=schema)

    return Stream(columns, schema, batches())


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
