"""A PostgreSQL connection as the functions' target sees an engine, rows of every kind in its tables, answers compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
from sqlml_dialect import quote_identifier
from sqlml_udfs.postgres.target import PostgresTarget
from sqlml_udfs.postgres.text import TYPES

from sqlml.bundles.model import Model
from sqlml.contracts import Stream
from sqlml.errors import EngineError
from sqlml.types import Kind, Task, kind_of_arrow

_EPOCH = """(SELECT timestamp '1970-01-01' + (n / 86400000000)::integer * interval '1 day'
    + (n %% 86400000000) * interval '1 microsecond' FROM (SELECT %s::bigint AS n) AS given)"""
_GIVEN = {
    Kind.DATE: "date '1970-01-01' + %s::integer",
    Kind.TIME: "time '00:00' + %s::float8 * interval '1 microsecond'",
    Kind.TIMESTAMP: _EPOCH,
    Kind.TIMESTAMPTZ: f"{_EPOCH} AT TIME ZONE 'UTC'",
}
"""How a value goes in: dates and times as numbers, since Python has none before the year 1."""


class Client:
    """One session."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True, prepare_threshold=None)

    def run(self, text: str) -> Stream:
        """Run one statement; the database's errors as an engine has them."""
        try:
            cursor = self.connection.execute(text.encode())
        except psycopg.Error as error:
            raise EngineError(error.diag.message_primary or str(error)) from error
        if cursor.description is None:
            return Stream((), pa.schema([]), (batch for batch in pa.table({}).to_batches()), has_rows=False)
        rows = cursor.fetchall()
        names = [d.name for d in cursor.description]
        table = pa.table({name: [row[i] for row in rows] for i, name in enumerate(names)})
        return Stream((), table.schema, (batch for batch in table.to_batches()))

    def transaction(self) -> int | None:
        """1 while a transaction is open."""
        return None if self.connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE else 1

    def values(self, query: str, parameters: Sequence[Any] | None = None) -> list[Any]:
        """The first column of a query's rows."""
        return [row[0] for row in self.connection.execute(query.encode(), parameters).fetchall()]

    def load(self, rows: pa.Table, name: str = "rows") -> None:
        """Make a table of the rows, with their number ``n__``."""
        kinds = [kind_of_arrow(field.type) or Kind.TEXT for field in rows.schema]
        columns = [f"{quote_identifier(f.name)} {TYPES[kind]}" for f, kind in zip(rows.schema, kinds, strict=True)]
        self.run(f"DROP TABLE IF EXISTS {name}")
        self.run(f"CREATE TABLE {name} (n__ integer, {', '.join(columns)})")
        given = ", ".join(_GIVEN.get(kind, f"%s::{TYPES[kind]}") for kind in kinds)
        plain = [_plain(column.combine_chunks(), kind) for column, kind in zip(rows.columns, kinds, strict=True)]
        with self.connection.cursor() as cursor:
            cursor.executemany(f"INSERT INTO {name} VALUES (%s, {given})", list(zip(range(rows.num_rows), *plain, strict=True)))

    def close(self) -> None:
        """End the session."""
        self.connection.close()


def _plain(values: pa.Array, kind: Kind) -> list[Any]:
    if kind not in _GIVEN:
        return list(values.to_pylist())
    return list(values.cast(pa.int32() if kind is Kind.DATE else pa.int64()).to_pylist())


_named: dict[int, Model] = {}
"""The models that functions are called after: a number that Python gave is given again when its object is gone."""


def call(client: Client, model: Model, output: str) -> str:
    """The call of one output over columns of the inputs' own names."""
    _named[id(model)] = model
    arguments = {i.name: quote_identifier(i.name) for i in model.inputs}
    return PostgresTarget(client).call_sql(f"u{id(model)}", output, model.signature, lambda: model, arguments)


def answers(client: Client, model: Model, output: str, rows: pa.Table) -> list[Any]:
    """What the function gives for each row."""
    client.load(rows)
    return client.values(f"SELECT {call(client, model, output)} FROM rows ORDER BY n__")


def check_parity(client: Client, model: Model, rows: pa.Table) -> None:
    """Every output, to 1e-6; labels wherever there is no near tie."""
    found, expected = answers(client, model, "predict", rows), model.predict(rows).to_pylist()
    raw = np.asarray(model.raw(rows), np.float64)
    if model.task in (Task.REGRESSION, Task.PROJECTION):
        np.testing.assert_allclose(np.array(found), np.array(expected), rtol=1e-6, atol=1e-6)
        return
    if raw.ndim > 1 and raw.shape[1] > 1:
        two = np.sort(raw if model.task is Task.CLUSTERING else -raw, axis=1)[:, :2]
        clear = two[:, 1] - two[:, 0] > 1e-6
        assert clear.mean() > 0.3
        found, expected = (np.array(values, object)[clear].tolist() for values in (found, expected))
    assert found == expected
    assert {type(value) for value in found} == {type(value) for value in expected}
    if model.classes:
        maps = answers(client, model, "probs", rows)
        np.testing.assert_allclose([[m[name] for name in model.class_names] for m in maps], raw, rtol=0, atol=1e-6)
        one = answers(client, model, "proba:1", rows)
        np.testing.assert_allclose(one, raw[:, 1], rtol=0, atol=1e-6)
