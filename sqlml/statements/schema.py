"""The schema ``sqlml`` inside the database: live views over the catalog.

An attached in-memory database holds one view per relation; each reads a function that returns the rows as a list of structs, so
the rows are those of the moment, also in views of the user's own on top of them.  Nothing is written to the user's file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from sqlml_dialect import quote_identifier

from sqlml.contracts import FunctionEngine
from sqlml.statements.relations import Relation

PREFERRED = "sqlml"
OTHERWISE = "sqlml_catalog"


def install_schema(
    engine: FunctionEngine, relations: Sequence[Relation], catalog_url: str, wanted: str | None, notice: Callable[[str], None]
) -> str:
    """Make the schema; its name: ``wanted``, else ``sqlml`` unless the user has a schema or database of that name."""
    schema = wanted or PREFERRED
    if wanted is None and engine.has_schema(PREFERRED):
        schema = OTHERWISE
        notice(
            f"{PREFERRED} is your own schema or database: the models' relations are in {OTHERWISE} (connect(schema=…) renames it)"
        )
    engine.attach_schema(schema)
    mark = hashlib.sha256(catalog_url.encode()).hexdigest()[:8]  # two catalogs may share a process
    for relation in relations:
        function = f"__sqlml_{mark}_{relation.name}"
        fields = ", ".join(f"{quote_identifier(name)} {sql_type}" for name, sql_type in relation.columns)
        engine.create_function(function, relation.rows, [], f"STRUCT({fields})[]", arrow=False)
        view = f"{quote_identifier(schema)}.main.{quote_identifier(relation.name)}"
        engine.define(f"CREATE VIEW IF NOT EXISTS {view} AS SELECT unnest({quote_identifier(function)}(), max_depth := 2)")
    return schema
