"""The types of a statement's parameters, found without running it; drivers such as asyncpg ask for them.

A parameter beside a column or an expression has its type, in IN and BETWEEN too; a cast has its target; LIMIT counts; VALUES and
SET have the column's.  What stands beside it is asked of the database, which binds it as it would in the statement.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sqlml_dialect.tokens import Kind, scan

from sqlml.errors import Error
from sqlml.types import Column
from sqlml.wire.types import ARRAY_OIDS, OID, TEXT, duckdb_type, wire_type

if TYPE_CHECKING:
    from sqlglot import exp

Describe = Callable[[str], tuple[Column, ...] | None]


def count_parameters(text: str) -> int:
    """The largest number behind a ``$``."""
    return max((int(t.text[1:]) for t in scan(text) if t.kind is Kind.PARAM and t.text[1:].isdigit()), default=0)


_OID_CAST = re.compile(r"\$(\d+)\s*::\s*(?:pg_catalog\.)?oid\b\s*(\[\s*\])?", re.IGNORECASE)


def with_oid_casts(text: str, given: Sequence[int]) -> tuple[int, ...]:
    """The types that the client gave, and those of ``$1::oid``: the database has no such type."""
    found = list(given)
    for match in _OID_CAST.finditer(text):
        place = int(match[1]) - 1
        found += [0] * (place + 1 - len(found))
        found[place] = found[place] or (ARRAY_OIDS[OID.oid] if match[2] else OID.oid)
    return tuple(found)


def infer_oids(text: str, given: Sequence[int], describe: Describe) -> tuple[int, ...]:
    """The types of all parameters: those that the client gave, else what the statement says, else text."""
    count = max(count_parameters(text), len(given))
    found = [oid if oid != 705 else 0 for oid in given] + [0] * (count - len(given))
    if all(found):
        return tuple(found)
    for number, sql_type in [*_cast_types(text).items(), *_told_types(text, describe).items()]:
        if number <= count and not found[number - 1]:
            found[number - 1] = wire_type(sql_type).oid
    return tuple(oid or TEXT.oid for oid in found)


def typed_nulls(text: str, oids: Sequence[int]) -> str:
    """The statement with a NULL of its type in place of each parameter: to be described, not to be run."""
    parts, at = [], 0
    for token in scan(text):
        if token.kind is Kind.PARAM and token.text[1:].isdigit() and 0 < int(token.text[1:]) <= len(oids):
            parts += [text[at : token.start], f"(NULL::{duckdb_type(oids[int(token.text[1:]) - 1])})"]
            at = token.end
    return "".join(parts) + text[at:]


_CAST = re.compile(
    r"\$(\d+)\s*::\s*([A-Za-z_][\w]*(?: precision| varying| with(?:out)? time zone)?(?:\s*\([\d, ]+\))?)\s*((?:\[\s*\d*\s*\])*)"
)


def _cast_types(text: str) -> dict[int, str]:
    """Of ``$1::type`` the type, in a text of whatever grammar."""
    return {int(m[1]): _sql_name(m[2]) + ("[]" if m[3] else "") for m in _CAST.finditer(text)}


def _sql_name(name: str) -> str:
    """DuckDB's name for one of PostgreSQL's types."""
    bare = re.sub(r"\s*\(.*\)", "", name).lower()
    return _NAMES.get(bare, bare.upper())


_NAMES = {
    "int": "INTEGER", "int2": "SMALLINT", "int4": "INTEGER", "int8": "BIGINT", "float4": "FLOAT", "float8": "DOUBLE",
    "real": "FLOAT", "double precision": "DOUBLE", "bool": "BOOLEAN", "text": "VARCHAR", "string": "VARCHAR",
    "character varying": "VARCHAR", "char": "VARCHAR", "bpchar": "VARCHAR", "bytea": "BLOB", "numeric": "DECIMAL(38,10)",
    "decimal": "DECIMAL(38,10)", "timestamptz": "TIMESTAMP WITH TIME ZONE", "timetz": "TIME WITH TIME ZONE", "jsonb": "JSON",
    "timestamp without time zone": "TIMESTAMP", "time without time zone": "TIME", "oid": "BIGINT", "name": "VARCHAR",
    "regclass": "VARCHAR", "regtype": "VARCHAR", "varbinary": "BLOB", "varbit": "BIT",
}  # fmt: skip


def _told_types(text: str, describe: Describe) -> dict[int, str]:
    import sqlglot
    from sqlglot import exp

    try:
        tree = sqlglot.parse_one(re.sub(r"(\$\d+)", r"\1 ", text), read="postgres")
    except (sqlglot.errors.SqlglotError, RecursionError, ValueError):
        return {}
    found: dict[int, str] = {}
    for parameter in tree.find_all(exp.Parameter):
        number = _number(parameter)
        if number and number not in found:
            sql_type = _type_of(parameter, describe)
            if sql_type:
                found[number] = sql_type
    return found


def _number(parameter: exp.Expression) -> int:
    name = parameter.this.name if parameter.this is not None else ""
    return int(name) if name.isdigit() else 0


def _type_of(parameter: exp.Expression, describe: Describe) -> str | None:
    from sqlglot import exp

    node, parent = parameter, parameter.parent
    while isinstance(parent, exp.Paren | exp.Neg):
        node, parent = parent, parent.parent
    if isinstance(parent, exp.Cast):
        name, bracket, _ = parent.to.sql("duckdb").partition("[")
        return _sql_name(name) + ("[]" if bracket else "")
    if isinstance(parent, exp.Limit | exp.Offset | exp.Fetch):
        return "BIGINT"
    if isinstance(parent, exp.Tuple):
        return _of_tuple(node, parent, describe)
    if isinstance(parent, exp.EQ) and isinstance(parent.parent, exp.Update) and parent.arg_key == "expressions":
        return _described(parent.this, parent.parent, describe)
    if isinstance(parent, exp.Like | exp.ILike | exp.RegexpLike | exp.DPipe):
        return "VARCHAR"
    if isinstance(parent, exp.In):
        others = [parent.this, *parent.expressions]
    elif isinstance(parent, exp.Between):
        others = [parent.this, parent.args.get("low"), parent.args.get("high")]
    elif isinstance(parent, exp.Coalesce):
        others = [parent.this, *parent.expressions]
    elif isinstance(parent, exp.Any):
        return _of_any(parent, describe)
    elif isinstance(parent, exp.Binary):
        others = [parent.left, parent.right]
    else:
        return None
    for other in others:
        if other is not None and other is not node and not other.find(exp.Parameter):
            return _described(other, other.find_ancestor(exp.Select, exp.Update, exp.Delete, exp.Insert), describe)
    return None


def _of_any(parent: exp.Expression, describe: Describe) -> str | None:
    """``column = ANY($1)``: an array of the column's type."""
    from sqlglot import exp

    compared = parent.parent
    if not isinstance(compared, exp.Binary):
        return None
    other = compared.left if compared.right is parent else compared.right
    element = _described(other, other.find_ancestor(exp.Select, exp.Update, exp.Delete), describe)
    return f"{element}[]" if element else None


def _of_tuple(node: exp.Expression, parent: exp.Expression, describe: Describe) -> str | None:
    """A place in VALUES of an INSERT: the column's type."""
    from sqlglot import exp

    insert = parent.find_ancestor(exp.Insert)
    if insert is None or not isinstance(parent.parent, exp.Values):
        return None
    table = insert.this
    names = [name.sql("duckdb") for name in table.expressions] if isinstance(table, exp.Schema) else ["*"]
    source = (table.this if isinstance(table, exp.Schema) else table).sql("duckdb")
    columns = _asked(f"SELECT {', '.join(names)} FROM {source}", describe)  # noqa: S608
    place = next(index for index, item in enumerate(parent.expressions) if item is node)
    return columns[place].sql_type if columns and place < len(columns) else None


def _described(other: exp.Expr, around: exp.Expr | None, describe: Describe) -> str | None:
    """The type of an expression where it stands: selected alone from what its query selects from."""
    from sqlglot import exp

    sql = other.sql("duckdb")
    if around is None:
        columns = _asked(f"SELECT {sql}", describe)
    elif isinstance(around, exp.Select):
        parts = [around.args.get("from") or around.args.get("from_"), *(around.args.get("joins") or [])]
        withs = around.find_ancestor(exp.With) and None
        root = around.root()
        clause = root.args.get("with") or root.args.get("with_") or withs
        before = f"{clause.sql('duckdb')} " if clause is not None and around.find_ancestor(exp.CTE) is None else ""
        columns = _asked(f"{before}SELECT {sql} {' '.join(p.sql('duckdb') for p in parts if p is not None)}", describe)
    else:
        columns = _asked(f"SELECT {sql} FROM {around.this.sql('duckdb')}", describe)  # noqa: S608
    found = columns[0].sql_type if columns else None
    return None if found == "NULL" else found


def _asked(text: str, describe: Describe) -> tuple[Column, ...] | None:
    try:
        return describe(text)
    except Error:
        return None
