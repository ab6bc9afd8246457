"""``SELECT * FROM sqlml('TRAIN MODEL …')``: a statement of ours as a table, for tools that let nothing but a SELECT through."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sqlml_dialect import Span
from sqlml_dialect.tokens import Kind, Token, scan, string_value

from sqlml.errors import BindError, Error
from sqlml.statements.result import Result

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlglot import exp

DOOR = "SQLML"
_BEFORE = ("FROM", "JOIN", ",")


class Door(NamedTuple):
    """The statement in the call, and where the call stands."""

    statement: str
    place: Span


def find_door(source: str, span: Span) -> Door | None:
    """The first such call of a query; None where there is none."""
    if DOOR.lower() not in source[slice(*span)].lower():
        return None
    tokens = list(scan(source, *span))
    for index in _calls(tokens):
        behind = tokens[index + 1 : index + 4]
        if [t.text for t in behind[::2]] == ["(", ")"] and behind[1].kind is Kind.STRING:
            return Door(string_value(behind[1].text), (tokens[index].start, behind[2].end))
    return None


def _calls(tokens: Sequence[Token]) -> Iterator[int]:
    """Where the name stands as a table's."""
    for index, token in enumerate(tokens):
        if token.key == DOOR and token.kind is Kind.WORD and index and tokens[index - 1].key in _BEFORE:
            yield index


def without_door(source: str, span: Span, place: Span, instead: str) -> str:
    """The query with SQL in place of the call."""
    return f"{source[span[0] : place[0]]}{instead}{source[place[1] : span[1]]}"


def wants_no_rows(source: str, span: Span, place: Span) -> bool:
    """Whether a query takes no row of the call, as tools ask that only want to know its columns: ``LIMIT 0``, ``WHERE 1 = 0``,
    of the query itself or of one around it.
    """
    text = source[slice(*span)]
    if not _MAY_BE_EMPTY.search(text):
        return False
    import sqlglot
    from sqlglot import exp

    name = "__sqlml_door"
    try:
        tree = sqlglot.parse_one(without_door(source, span, place, name), read="duckdb")
        node: exp.Expr | None = next((table for table in tree.find_all(exp.Table) if table.name == name), None)
        while node is not None:
            if _is_empty(node):
                return True
            node = node.parent
    except (sqlglot.errors.SqlglotError, RecursionError, ValueError):
        return False
    return False


_MAY_BE_EMPTY = re.compile(r"(?i)\bwhere\b|\blimit\s*\(?\s*0|\bfetch\b")


def _is_empty(node: exp.Expr) -> bool:
    from sqlglot import exp
    from sqlglot.optimizer.simplify import simplify

    limit = node.args.get("limit")
    count = limit and (limit.args.get("count") if isinstance(limit, exp.Fetch) else limit.expression)
    if isinstance(count, exp.Expr) and count.unnest().name == "0":
        return True
    where = node.args.get("where")
    return isinstance(where, exp.Where) and simplify(where.this.copy()) in (exp.false(), exp.null())


def door_error(error: Error, source: str, span: Span) -> Error:
    """The database's error about a function ``sqlml`` that it does not have as one that says how the call is meant; any other
    as it is.
    """
    if DOOR.lower() not in error.message.lower() or "does not exist" not in error.message:
        return error
    tokens = list(scan(source, *span))
    for index in _calls(tokens):
        if index + 1 == len(tokens) or tokens[index + 1].text != "(":
            continue
        end = _closing(tokens, index + 1)
        given = source[tokens[index + 1].end : tokens[end].start].strip()
        return BindError(
            f"sqlml(…) takes one statement as a text in quotes, got {given if given else 'nothing'}",
            source=source, span=(tokens[index].start, tokens[end].end), hint="SELECT * FROM sqlml('SHOW MODELS')",
        )  # fmt: skip
    return error


def _closing(tokens: Sequence[Token], opening: int) -> int:
    """Where the bracket is closed that opens there; the last token where it is not."""
    depth = 0
    for index in range(opening, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[index].text, 0)
        if depth == 0:
            return index
    return len(tokens) - 1


def door_table(result: Result, kind: str) -> pa.Table:
    """What the statement answered, as a table; one row that says so where it answered nothing."""
    import pyarrow as pa

    if result.columns is None or result.schema is None:
        return pa.table({"result": [kind.replace("_", " ")], "rows": pa.array([max(result.rowcount, 0)], pa.int64())})
    return pa.Table.from_batches(list(result.batches or ()), result.schema)
