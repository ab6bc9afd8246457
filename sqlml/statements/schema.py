"""The schema ``sqlml`` inside the database: live views over the catalog.

Where the database calls Python functions, an attached in-memory database holds one view per relation; each reads a function that
returns the rows as a list of structs, so the rows are those of the moment, also in views of the user's own on top of them.  Of a
relation that lies in files the function returns their paths, and the database reads them itself.  Nothing is written to the
user's file.  Elsewhere a relation is copied for the statement that reads it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from sqlml_dialect import quote_identifier

from sqlml.contracts import HomeEngine, Notice
from sqlml.statements.log_relations import FileRelation
from sqlml.statements.own_database import calls_functions
from sqlml.statements.relations import TAGS, Relation

PREFERRED = "sqlml"
OTHERWISE = "sqlml_catalog"


def install_schema(
    engine: HomeEngine, relations: Sequence[Relation | FileRelation], catalog_url: str, wanted: str | None, notice: Notice
) -> str:
    """Make the schema, where it can be live; its name: ``wanted``, else ``sqlml`` unless the user has one of that name."""
    schema = wanted or PREFERRED
    if wanted is None and engine.has_schema(PREFERRED):
        schema = OTHERWISE
        notice(
            f"{PREFERRED} is your own schema or database: the models' relations are in {OTHERWISE} (connect(schema=…) renames it)"
        )
    if not calls_functions(engine):
        return schema
    engine.attach_schema(schema)
    mark = hashlib.sha256(catalog_url.encode()).hexdigest()[:8]  # two catalogs may share a process
    for relation in relations:
        function = f"__sqlml_{mark}_{relation.name}"
        fields = ", ".join(f"{quote_identifier(name)} {sql_type}" for name, sql_type in relation.columns)
        view = f"{quote_identifier(schema)}.main.{quote_identifier(relation.name)}"
        if isinstance(relation, FileRelation):
            engine.create_function(function, relation.sql, [], "VARCHAR", arrow=False)
            rows = f"SELECT * FROM query({quote_identifier(function)}())"  # noqa: S608
        else:
            engine.create_function(function, relation.rows, [], f"STRUCT({fields})[]", arrow=False)
            rows = f"SELECT unnest({quote_identifier(function)}(), max_depth := 2)"
        engine.define(f"CREATE VIEW IF NOT EXISTS {view} AS {rows}")
    return schema


_ARROW = {
    "VARCHAR": pa.string(),
    "BIGINT": pa.int64(),
    "DOUBLE": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "TIMESTAMP": pa.timestamp("us"),
    "VARCHAR[]": pa.list_(pa.string()),
    TAGS: pa.map_(pa.string(), pa.string()),
}


@dataclass(frozen=True)
class RelationTable:
    """A relation as it is at the moment, to be copied into the database for one statement."""

    relation: Relation | FileRelation

    def empty(self, parameters: Any) -> pa.Table:
        """Its columns."""
        return self._table([])

    def compute(self, parameters: Any) -> pa.Table | pa.RecordBatchReader:
        """Its rows now."""
        if isinstance(self.relation, FileRelation):
            return self.relation.reader()
        return self._table(self.relation.rows())

    def _table(self, rows: list[dict[str, Any]]) -> pa.Table:
        columns = {
            name: pa.array([_item(row.get(name)) for row in rows], _ARROW[sql_type]) for name, sql_type in self.relation.columns
        }
        return pa.table(columns)


def _item(value: Any) -> Any:
    return list(value.items()) if isinstance(value, dict) else value
