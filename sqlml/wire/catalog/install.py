"""The statements that make the system catalog: schemas in a database in memory, tables from data files, views, macros.

Every relation of PostgreSQL's catalog is there with its own columns; what ``views.sql`` has a query for has rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from typing import NamedTuple

from sqlml_dialect import quote_identifier, quote_string

from sqlml.types import Column
from sqlml.wire.types import SCALARS, wire_type

DATABASE = "__pg"
SCHEMAS = {"pg_catalog": "cat", "information_schema": "info"}
OID = "UINTEGER"
"""What a number of the catalog is to DuckDB, and nothing else of it: so results tell clients of an ``oid``."""

_TYPES = {
    "bigint": "BIGINT", "boolean": "BOOLEAN", "integer": "INTEGER", "smallint": "SMALLINT", "double precision": "DOUBLE",
    "real": "FLOAT", "oid": OID, "timestamp with time zone": "TIMESTAMPTZ", "interval": "INTERVAL", "numeric": "DECIMAL",
    "int2vector": "INTEGER[]", "oidvector": f"{OID}[]", "bytea": "BLOB", "oid[]": f"{OID}[]", "smallint[]": "INTEGER[]",
    "real[]": "FLOAT[]", "double precision[]": "DOUBLE[]", "integer[]": "INTEGER[]", "boolean[]": "BOOLEAN[]", "xid": "BIGINT",
    "information_schema.cardinal_number": "INTEGER",
}  # fmt: skip


class Relation(NamedTuple):
    """A relation of PostgreSQL's catalog: its columns with DuckDB's types."""

    schema: str
    name: str
    oid: int
    kind: str
    columns: tuple[tuple[str, str], ...]


def system_relations() -> list[Relation]:
    """Every relation, as PostgreSQL 15 has it."""
    found = []
    for line in _lines("relations.tsv"):
        schema, name, oid, kind, columns = line.split("\t")
        pairs = (column.rsplit(":", 1) for column in columns.split(","))
        found.append(Relation(SCHEMAS[schema], name, int(oid), kind, tuple((n, _duckdb_type(t)) for n, t in pairs)))
    return found


def _duckdb_type(name: str) -> str:
    return _TYPES.get(name, "VARCHAR[]" if name.endswith("[]") else "VARCHAR")


def statements(schema_of_models: str, describe: Callable[[str], Sequence[Column]]) -> Iterator[str]:
    """What is to be run, in order; ``describe`` tells the columns of a query of what was made before."""
    models = quote_identifier(schema_of_models)
    for schema in SCHEMAS.values():
        yield f"CREATE SCHEMA IF NOT EXISTS {DATABASE}.{schema}"
    relations = system_relations()
    yield from _type_table()
    yield from _duckdb_types()
    yield from _system_tables(relations)
    macros = _macros()
    yield from macros["before"]
    known = {(relation.schema, relation.name): relation for relation in relations}
    made = set()
    for schema, name, query in _views(models):
        relation = known.get((schema, name))
        if name == "pg_class":
            yield from macros["of indexes"]
        if relation is None:
            yield f"CREATE VIEW {DATABASE}.{schema}.{name} AS {query}"
        else:
            made.add((schema, name))
            yield _view(relation, query, [column.name for column in describe(query)])
    for relation in relations:
        if (relation.schema, relation.name) not in made:
            columns = ", ".join(f"NULL::{kind} AS {quote_identifier(name)}" for name, kind in relation.columns)
            yield f"CREATE VIEW {DATABASE}.{relation.schema}.{relation.name} AS SELECT {columns} WHERE false"
    yield from macros["after"]


def _view(relation: Relation, query: str, given: list[str]) -> str:
    columns = ", ".join(
        f"{quote_identifier(name)}::{kind} AS {quote_identifier(name)}"
        if name in given
        else f"NULL::{kind} AS {quote_identifier(name)}"
        for name, kind in relation.columns
    )
    return f"CREATE VIEW {DATABASE}.{relation.schema}.{relation.name} AS SELECT {columns} FROM ({query})"  # noqa: S608


_TYPE_COLUMNS = (
    "oid BIGINT, typname VARCHAR, typlen INTEGER, typbyval BOOLEAN, typtype VARCHAR, typcategory VARCHAR, "
    "typispreferred BOOLEAN, typdelim VARCHAR, typrelid BIGINT, typelem BIGINT, typarray BIGINT, typinput VARCHAR, "
    "typoutput VARCHAR, typreceive VARCHAR, typsend VARCHAR, typalign VARCHAR, typstorage VARCHAR, typcollation BIGINT, "
    "sql_name VARCHAR"
)


def _type_table() -> Iterator[str]:
    rows = [f"({', '.join(quote_string(value) for value in line.split(chr(9)))})" for line in _lines("types.tsv")]
    yield f"CREATE TABLE {DATABASE}.cat.types ({_TYPE_COLUMNS})"
    yield f"INSERT INTO {DATABASE}.cat.types VALUES {', '.join(rows)}"  # noqa: S608


def _duckdb_types() -> Iterator[str]:
    """The number of PostgreSQL's type for each of DuckDB's and for lists of them, as results have them."""
    names = [*SCALARS, "DECIMAL", "ENUM", "STRUCT", "MAP", "UNION", "VARIANT"]
    rows = [f"({quote_string(name)}, {wire_type(name).oid})" for one in names for name in (one, f"{one}[]")]
    yield f"CREATE TABLE {DATABASE}.cat.duckdb_types (name VARCHAR, oid BIGINT)"
    yield f"INSERT INTO {DATABASE}.cat.duckdb_types VALUES {', '.join(rows)}"  # noqa: S608


def _system_tables(relations: list[Relation]) -> Iterator[str]:
    namespaces = {"cat": 11, "info": 13000}
    yield (
        f"CREATE TABLE {DATABASE}.cat.system_relations "
        "(oid BIGINT, relname VARCHAR, namespace BIGINT, relkind VARCHAR, natts INTEGER)"
    )
    rows = ", ".join(
        f"({r.oid}, {quote_string(r.name)}, {namespaces[r.schema]}, {quote_string(r.kind)}, {len(r.columns)})" for r in relations
    )
    yield f"INSERT INTO {DATABASE}.cat.system_relations VALUES {rows}"  # noqa: S608
    yield f"CREATE TABLE {DATABASE}.cat.system_columns (relation BIGINT, name VARCHAR, type BIGINT, number SMALLINT)"
    oids = {OID: 26, "BIGINT": 20, "BOOLEAN": 16, "INTEGER": 23, "SMALLINT": 21, "DOUBLE": 701, "FLOAT": 700, "TIMESTAMPTZ": 1184}
    columns = ", ".join(
        f"({r.oid}, {quote_string(name)}, {oids.get(kind, 25)}, {number})"
        for r in relations
        for number, (name, kind) in enumerate(r.columns, 1)
    )
    yield f"INSERT INTO {DATABASE}.cat.system_columns VALUES {columns}"  # noqa: S608


def _views(models: str) -> Iterator[tuple[str, str, str]]:
    """The schema, the name and the query of each view."""
    text = files(__package__).joinpath("views.sql").read_text(encoding="utf-8")
    for part in text.split("--: ")[1:]:
        head, _, query = part.partition("\n")
        schema, _, name = head.strip().partition(".")
        yield schema, name, query.strip().replace("{schema}", models)


def _macros() -> dict[str, list[str]]:
    """Statements by when they are run."""
    text = files(__package__).joinpath("macros.sql").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for part in text.split("--: ")[1:]:
        head, _, body = part.partition("\n")
        found[head.strip()] = ["CREATE MACRO " + macro.strip() for macro in body.split("CREATE MACRO ")[1:]]
    return found


def macro_names() -> frozenset[str]:
    """The functions that are macros."""
    return frozenset(statement.partition("(")[0].rpartition(".")[2] for part in _macros().values() for statement in part)


def _lines(name: str) -> list[str]:
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line]
