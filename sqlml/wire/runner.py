"""Statements run in the session, their results in PostgreSQL's terms; and described without being run."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from sqlml_dialect import Statement, quote_identifier
from sqlml_dialect.tokens import name_value, scan

from sqlml.errors import Cancelled, Error
from sqlml.session import Session
from sqlml.statements.door import find_door
from sqlml.types import Column
from sqlml.wire.catalog.install import DATABASE, OID
from sqlml.wire.errors import Refused
from sqlml.wire.explain import plan_json, wants_json
from sqlml.wire.known_tables import KnownTables, Tables
from sqlml.wire.messages import Field
from sqlml.wire.origins import find_origins, may_have_origins
from sqlml.wire.parameters import infer_oids, typed_nulls
from sqlml.wire.portals import Outcome, iter_nothing
from sqlml.wire.tags import is_own, only_reads, parsed, tag_of, verb_of
from sqlml.wire.types import FLOAT8, INT8, JSON, TEXT, wire_type

if TYPE_CHECKING:
    import pyarrow as pa

    from sqlml.statements.result import Result

TRAINED = (
    Field("model", TEXT), Field("version", INT8), Field("algorithm", TEXT), Field("rows", INT8), Field("metrics", JSON),
    Field("seconds", FLOAT8),
)  # fmt: skip
"""What TRAIN MODEL is described with, before anybody knows which figures the model will have."""
RESULT = (Field("result", JSON),)
"""What else is described with before it runs: each row as one JSON object."""
PLAN = (Field("QUERY PLAN", JSON),)
"""What EXPLAIN (FORMAT JSON) gives."""


class Runner:
    """Runs and describes the statements of one session."""

    def __init__(self, session: Session, known: KnownTables) -> None:
        self.session = session
        self._known = known
        self._schema: str | None = "main"
        self._shadows = False  # temporary tables stand before those that are known
        self.sees_more: Callable[[], bool] = lambda: False  # than was committed

    def run(self, text: str, values: Sequence[Any] = (), described: tuple[Field, ...] | None = None) -> Outcome:
        """Run one statement.  ``described``: the columns that the client was told, which the result then has."""
        known = self._look_up(text)
        _, result = self.session.execute(text, list(values))
        verb = verb_of(text)
        self._note(verb, text)
        if result.columns is None or result.schema is None:
            return Outcome(None, None, lambda _: tag_of(text, verb, result.rowcount))
        fields = self._placed(_fields(result.columns, text), text, known)
        batches = result.batches or iter_nothing()
        if wants_json(text) and len(fields) == 2:
            fields, batches = PLAN, _plans(batches)
        elif described in (TRAINED, RESULT) and _names(described) != _names(fields):
            fields, batches = described, _told(batches, described)
        elif described is not None and _has_changed(described, fields, text, verb, values):
            batches.close()
            hint = "prepare it again: a table or a model that it reads has changed since"
            raise Refused("cached plan must not change result type", "0A000", hint=hint)
        elif described is not None and len(described) == len(fields):
            fields = described
        return Outcome(fields, batches, lambda rows: tag_of(text, verb, rows))

    def owned_sequences(self, text: str) -> list[str]:
        """The sequences of ``serial`` columns of a table that DROP TABLE is about to drop, which go with it."""
        tokens = [token for token in scan(text) if token.key not in ("IF", "EXISTS", "CASCADE", "RESTRICT", ";")]
        if [token.key for token in tokens[:2]] != ["DROP", "TABLE"]:
            return []
        name = [name_value(token) for token in tokens[2:] if token.key != "."]
        schema = None if len(name) < 2 else {"public": "main"}.get(name[-2].lower(), name[-2])
        _, result = self.session.execute(_OWNED, [name[-1] if name else "", schema])
        found = pa_rows(result.batches)
        return [f"{quote_identifier(schema)}.{quote_identifier(name)}" for schema, name in found]

    def infer(self, text: str, oids: Sequence[int]) -> tuple[int, ...]:
        """The types of a statement's parameters."""
        return infer_oids(text, oids, self.session.describe)

    def describe(self, text: str, oids: Sequence[int]) -> tuple[Field, ...] | None:
        """The columns of a statement; None where it gives no rows.  Nothing runs that changes anything."""
        statement = one_statement(text)
        if statement is None:
            return None
        if statement.node is not None:
            return self._describe_own(statement)
        if wants_json(text):
            return PLAN
        if verb_of(text) == "PRAGMA" or _analyzes(text):
            return RESULT
        plain = typed_nulls(text, oids) if oids else text
        if find_door(text, (0, len(text))) is not None:
            behind = self.session.describe(plain)
            return RESULT if behind is None else _fields(behind, text)
        columns = self.session.describe(plain) or self._described_otherwise(plain)
        if columns is None:
            return None
        return self._placed(_fields(columns, text), text, self._look_up(text))

    def _look_up(self, text: str) -> tuple[Tables, str] | None:
        """The tables that columns of a query may come straight from, and the current schema; to be asked before it runs."""
        if self._shadows or self.sees_more() or f"{DATABASE}." in text or not may_have_origins(text):
            return None
        tables, schema = self._known.look(), self._current_schema()
        return None if tables is None or schema is None else (tables, schema)

    def _placed(self, fields: tuple[Field, ...], text: str, known: tuple[Tables, str] | None) -> tuple[Field, ...]:
        """Columns with the tables that they come straight from."""
        if known is None:
            return fields
        origins = find_origins(text, [field.name for field in fields], *known)
        return tuple(
            replace(field, table=table, column=column) if table else field
            for field, (table, column) in zip(fields, origins, strict=True)
        )

    def _current_schema(self) -> str | None:
        """Where tables without a schema are looked for; None where the transaction has failed."""
        if self._schema is None:
            try:
                _, result = self.session.execute("SELECT lower(current_schema())")
                [(self._schema,)] = pa_rows(result.batches)
            except Cancelled:
                raise
            except Error:
                return None
        return self._schema

    def _note(self, verb: str, text: str) -> None:
        """What a statement means for the names of tables: SET moves the schema, a temporary table stands before others."""
        if verb in ("SET", "RESET", "USE"):
            self._schema = None
        elif verb == "CREATE" and "TEMP" in text[:40].upper():
            self._shadows = True

    def _described_otherwise(self, text: str) -> tuple[Column, ...] | None:
        verb = verb_of(text)
        if verb in ("SHOW", "DESCRIBE", "DESC", "EXPLAIN"):
            _, result = self.session.execute(text)
            return _columns_of(result)
        if verb in ("INSERT", "UPDATE", "DELETE"):
            from sqlml.wire.returning import returning_query

            query = returning_query(text)
            return None if query is None else self.session.describe(query)
        return None

    def _describe_own(self, statement: Statement) -> tuple[Field, ...] | None:
        if _analyzes(statement.text):
            return RESULT
        columns = self.session.answer_columns(statement.text)
        if columns is None:
            return TRAINED if statement.kind == "train" else RESULT
        return _fields(columns, statement.text) if columns else None


_CALL = re.compile(r'(?:\w+\.)*"?([a-zA-Z_]\w*)"?\(.*\)', re.DOTALL)
_CALLED = {"count_star": "count", "quantile_cont": "percentile_cont", "quantile_disc": "percentile_disc"}
_CAST = re.compile(r"CAST\((.*) AS ([A-Za-z][A-Za-z0-9 ]*(?:\(.*\))?(?:\[\])?)\)", re.DOTALL)


def _fields(columns: Sequence[Column], text: str) -> tuple[Field, ...]:
    """Columns as a client is told them.  A call without an alias is called by its function, as PostgreSQL does it."""
    fields = []
    of_catalog = f"{DATABASE}." in text
    for column in columns:
        sql_type = column.sql_type
        kind = wire_type(sql_type.replace(OID, "OID") if of_catalog and sql_type.startswith(OID) else sql_type)
        name = column.name if f'"{column.name}"' in text else _column_name(column.name, kind.name)
        fields.append(Field(name, kind))
    return tuple(fields)


def _column_name(name: str, type_name: str) -> str:
    """``count`` for ``count_star()``; a cast is called as what it casts, or by its type."""
    cast = _CAST.fullmatch(name)
    if cast:
        is_column = re.fullmatch(r'\w+|"[^"]+"', cast[1]) and not cast[1].isdigit()
        return cast[1].strip('"') if is_column else type_name.removeprefix("_")
    if re.fullmatch(r"-?[0-9.]+|'.*'", name, re.DOTALL):
        return "?column?"
    call = _CALL.fullmatch(name)
    return _CALLED.get(call[1], call[1].lower()) if call else name


_OWNED = """
SELECT s.schema_name, s.sequence_name FROM duckdb_columns() AS c JOIN duckdb_sequences() AS s
    ON s.schema_oid = c.schema_oid AND s.sequence_name = c.table_name || '_' || c.column_name || '_seq'
WHERE lower(c.table_name) = lower($1) AND contains(c.column_default, 'nextval')
    AND c.database_name = current_database() AND lower(c.schema_name) = lower(coalesce($2, current_schema()))
"""


def _has_changed(described: Sequence[Field], fields: Sequence[Field], text: str, verb: str, values: Sequence[Any]) -> bool:
    """Whether a query gives other columns than it was described with.

    With parameters their types may differ, as described without values, and so may a name that is made of one.  What writes has
    written by now, and is left alone.
    """
    own = is_own(text)
    if not own and not only_reads(verb):
        return False
    if len(described) != len(fields):
        return True
    pairs = list(zip(described, fields, strict=True))
    if own and any(told.name != field.name and "$" not in field.name for told, field in pairs):
        return True
    return not values and any(told.type.name != field.type.name for told, field in pairs)


def _names(fields: tuple[Field, ...]) -> list[str]:
    return [field.name for field in fields]


def pa_rows(batches: Generator[pa.RecordBatch, None, None] | None) -> list[tuple[Any, ...]]:
    """The few rows of a question of ours."""
    return [tuple(row.values()) for batch in batches or () for row in batch.to_pylist()]


def one_statement(text: str) -> Statement | None:
    """The one statement of a text; None where it is empty.  ``Refused`` where there are several."""
    found = parsed(text)
    if len(found) > 1:
        raise Refused("cannot insert multiple commands into a prepared statement", "42601")
    return found[0] if found else None


def _analyzes(text: str) -> bool:
    """Whether a text is EXPLAIN with ANALYZE, in any of its spellings: as that runs, it is not run to be described."""
    keys = [token.key for token in islice(scan(text), 40)]
    if keys[:1] != ["EXPLAIN"]:
        return False
    if keys[1:2] == ["("]:
        return "ANALYZE" in keys[: keys.index(")")] if ")" in keys else True
    return "ANALYZE" in keys[1:3]


def _columns_of(result: Result) -> tuple[Column, ...] | None:
    if result.batches is not None:
        result.batches.close()
    return result.columns


def _told(batches: Generator[pa.RecordBatch, None, None], fields: tuple[Field, ...]) -> Generator[pa.RecordBatch, None, None]:
    """Rows in the columns that were told before they were known: what has none of its own goes into the JSON column."""
    import pyarrow as pa

    from sqlml.engines.postgres.json import json_texts

    for batch in batches:
        names = batch.schema.names
        own = [field.name for field in fields if field.name in names and field.type is not JSON]
        rest = [name for name in names if name not in own]
        columns: list[Any] = []
        for field in fields:
            if field.name in own:
                columns.append(batch.column(field.name))
            elif field.type is JSON:
                pieces = [batch.column(name) for name in rest]
                columns.append(json_texts(pa.StructArray.from_arrays([_plain(p) for p in pieces], rest)))
            else:
                columns.append(pa.nulls(batch.num_rows, pa.string()))
        yield pa.RecordBatch.from_arrays(columns, names=[field.name for field in fields])


def _plans(batches: Generator[pa.RecordBatch, None, None]) -> Generator[pa.RecordBatch, None, None]:
    """The plans of EXPLAIN (FORMAT JSON), of which DuckDB's second column has the text."""
    import pyarrow as pa

    for batch in batches:
        plans = [plan_json(text) for text in batch.column(1).to_pylist()]
        yield pa.RecordBatch.from_arrays([pa.array(plans, pa.string())], names=[PLAN[0].name])


def _plain(array: pa.Array) -> pa.Array:
    import pyarrow as pa

    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
