"""What came for COPY FROM STDIN as text or CSV, read by the database; the binary form is read by ``copy_tuples``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlml_dialect import quote_identifier, quote_string

from sqlml.wire.copy_lines import LINE_BYTES

if TYPE_CHECKING:
    from sqlml.types import Column
    from sqlml.wire.copying import Format

_MARK = "\ue000"
"""Stands for a backslash while the other escapes are undone: of Unicode's private use."""


def insert_text(target: str, columns: Sequence[Column], form: Format, path: str) -> str:
    """One INSERT that reads a file of text or CSV, each value cast to its column's type."""
    names = [f"c{index}" for index in range(len(columns))]
    typed = ", ".join(f"{name}: 'VARCHAR'" for name in names)
    csv = form.name == "csv"
    lone = not csv and len(columns) == 1  # a line without anything is a text without anything
    null = "" if lone else form.null
    options = [
        "auto_detect = false", f"columns = {{{typed}}}", f"delim = {quote_string(form.delimiter)}",
        f"quote = {quote_string(form.quote if csv else '')}", f"escape = {quote_string(form.escape if csv else '')}",
        f"nullstr = {quote_string(null)}", f"header = {str(form.header).lower()}", "allow_quoted_nulls = false",
        f"max_line_size = {LINE_BYTES}", "parallel = false", "strict_mode = true",
    ]  # fmt: skip
    values = ", ".join(
        _value(name if csv else _lone(form.null) if lone else _unescaped(name), column.sql_type)
        for name, column in zip(names, columns, strict=True)
    )
    head = target if "(" in target else f"{target} ({', '.join(quote_identifier(c.name) for c in columns)})"
    rows = f"read_csv({quote_string(path)}, {', '.join(options)})"
    return f"INSERT INTO {head} SELECT {values} FROM {rows}"  # noqa: S608


def _unescaped(name: str) -> str:
    r"""``\t``, ``\n``, ``\\`` … of the text format."""
    found = f"replace({name}, '\\\\', '{_MARK}')"
    for letter, code in (("b", 8), ("f", 12), ("n", 10), ("r", 13), ("t", 9), ("v", 11)):
        found = f"replace({found}, '\\{letter}', chr({code}))"
    plain = f"replace(replace({found}, '\\', ''), '{_MARK}', '\\')"
    return f"CASE WHEN contains({name}, '\\') THEN {plain} ELSE {name} END"


def _lone(null: str) -> str:
    return f"CASE WHEN c0 IS NULL THEN '' WHEN c0 = {quote_string(null)} THEN NULL ELSE {_unescaped('c0')} END"


def _value(text: str, sql_type: str) -> str:
    if sql_type == "BLOB":
        return f"CASE WHEN starts_with({text}, '\\x') THEN from_hex(substr({text}, 3)) ELSE encode({text}) END"
    if sql_type.endswith("]"):
        text = f"translate({text}, '{{}}', '[]')"
    return f"CAST({text} AS {sql_type})"
