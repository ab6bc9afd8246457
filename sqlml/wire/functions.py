"""PostgreSQL's functions and operators that DuckDB has under other names, replaced where they stand in a query.

Only calls that DuckDB would refuse are touched, and only where the same is meant: a format of ``to_char`` that DuckDB has no
words for stays as it is, for the error that tells of it.  What is written is DuckDB's own, so a view that a client makes works
without this server, too.

to_timestamp(x, 'YYYY-MM-DD')     CAST(strptime(x, '%Y-%m-%d') AS TIMESTAMPTZ); to_date, to_char in the same way
date_bin('5 minutes', t, origin)  time_bucket(INTERVAL '5 minutes', t, origin)
substring(x FROM 'a+')            nullif(regexp_extract(x, 'a+'), '')
encode(b, 'hex')                  lower(hex(b)); base64, and decode
btrim, every, clock_timestamp     trim, bool_and, now
d #>> ARRAY['a', 'b']             d ->> '$."a"."b"'
'{a,b}'::text[]                   ['a', 'b']::text[]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sqlml_dialect import quote_string
from sqlml_dialect.tokens import Kind, Token, scan, string_value

from sqlml.wire.array_literals import list_literal
from sqlml.wire.date_formats import duckdb_format
from sqlml.wire.items import is_unnamed_item

_MENTIONED = re.compile(
    r"\b(?:to_timestamp|to_date|to_char|date_bin|substring|encode|decode|btrim|every|(?:clock|statement)_timestamp)\s*\(|#>"
    r"|'\{[^']*\}'",
    re.IGNORECASE,
)
_RENAMED = {"BTRIM": "trim", "EVERY": "bool_and", "CLOCK_TIMESTAMP": "now", "STATEMENT_TIMESTAMP": "now"}
_CODED = {
    ("ENCODE", "hex"): ("lower(hex", ")"), ("ENCODE", "base64"): ("base64", ""),
    ("DECODE", "hex"): ("unhex", ""), ("DECODE", "base64"): ("from_base64", ""),
}  # fmt: skip

Change = tuple[int, int, str]
"""Where a text begins, where it ends, and what comes in its place."""


class _Call(NamedTuple):
    """A call: its tokens, and the places of its name, of its brackets and of the commas between its arguments."""

    tokens: Sequence[Token]
    name: int
    opening: int
    closing: int
    commas: tuple[int, ...]

    def replaced(self, index: int, text: str) -> Change:
        """The change that writes a text in a token's place."""
        return self.tokens[index].start, self.tokens[index].end, text

    def single(self, argument: int) -> int | None:
        """The place of an argument that is one token; None for any other."""
        edges = (self.opening, *self.commas, self.closing)
        if argument + 1 >= len(edges) or edges[argument + 1] - edges[argument] != 2:
            return None
        return edges[argument] + 1

    def literal(self, argument: int) -> str | None:
        """The text of an argument that is a literal."""
        place = self.single(argument)
        return string_value(self.tokens[place].text) if place is not None and self.tokens[place].kind is Kind.STRING else None


def translate_functions(text: str) -> str:
    """The text in which these calls are DuckDB's."""
    if not _MENTIONED.search(text):
        return text
    tokens = list(scan(text))
    changes: list[Change] = []
    for index, token in enumerate(tokens):
        if token.key in _CALLS and index + 1 < len(tokens) and tokens[index + 1].key == "(" and _is_bare(tokens, index):
            call = _read_call(tokens, index)
            found = _CALLS[token.key](call) if call is not None else ()
            changes += found
            if found and call is not None and is_unnamed_item(tokens, index, call.closing):
                changes.append((tokens[call.closing].end, tokens[call.closing].end, f" AS {token.text.lower()}"))
        elif token.key == "#" and index + 1 < len(tokens) and tokens[index + 1].start == token.end:
            changes += _json_path(tokens, index)
        elif token.kind is Kind.STRING:
            changes += _array(tokens, index)
    return _changed(text, changes)


def _is_bare(tokens: Sequence[Token], index: int) -> bool:
    return index == 0 or tokens[index - 1].key not in (".", "AS", "FUNCTION", "MACRO")


def _read_call(tokens: Sequence[Token], name: int) -> _Call | None:
    commas: list[int] = []
    depth = 0
    for index in range(name + 1, len(tokens)):
        key = tokens[index].key
        if key in ("(", "["):
            depth += 1
        elif key in (")", "]"):
            depth -= 1
            if not depth:
                return _Call(tokens, name, name + 1, index, tuple(commas))
        elif key == "," and depth == 1:
            commas.append(index)
    return None


# --- functions ----------------------------------------------------------------------------------------------------------


def _read_time(kind: str) -> Callable[[_Call], Sequence[Change]]:
    """``to_timestamp(text, format)``, ``to_date(text, format)``"""

    def change(call: _Call) -> Sequence[Change]:
        form, place = _format(call)
        if form is None or place is None:
            return ()
        return (
            call.replaced(call.name, "CAST(strptime"),
            call.replaced(place, quote_string(form)),
            call.replaced(call.closing, f") AS {kind})"),
        )

    return change


def _show_time(call: _Call) -> Sequence[Change]:
    """``to_char(time, format)``"""
    form, place = _format(call)
    if form is None or place is None:
        return ()
    return call.replaced(call.name, "strftime"), call.replaced(place, quote_string(form))


def _format(call: _Call) -> tuple[str | None, int | None]:
    written = call.literal(1)
    return (None, None) if written is None or len(call.commas) != 1 else (duckdb_format(written), call.single(1))


def _bin(call: _Call) -> Sequence[Change]:
    """``date_bin(stride, source, origin)``"""
    place = call.single(0)
    if len(call.commas) != 2:
        return ()
    stride = () if place is None or call.literal(0) is None else (call.replaced(place, f"INTERVAL {call.tokens[place].text}"),)
    return call.replaced(call.name, "time_bucket"), *stride


def _substring(call: _Call) -> Sequence[Change]:
    """``substring(text FROM pattern)``: what matches, or the first group of it; NULL where nothing does."""
    between = call.closing - 2
    key, pattern = call.tokens[between].key, call.tokens[call.closing - 1]
    if key not in ("FROM", ",") or pattern.kind is not Kind.STRING or len(call.commas) > 1:
        return ()
    has_group = re.search(r"(?<!\\)\((?!\?)", string_value(pattern.text))
    return (
        call.replaced(call.name, "nullif(regexp_extract"),
        call.replaced(between, ","),
        call.replaced(call.closing, ", 1), '')" if has_group else "), '')"),
    )


def _coded(call: _Call) -> Sequence[Change]:
    """``encode(bytes, 'hex')``, ``decode(text, 'base64')``"""
    found = _CODED.get((call.tokens[call.name].key, (call.literal(1) or "").lower()))
    if found is None:
        return ()
    start, end = call.tokens[call.commas[0]].start, call.tokens[call.closing].end
    return call.replaced(call.name, found[0]), (start, end, ")" + found[1])


def _renamed(call: _Call) -> Sequence[Change]:
    return (call.replaced(call.name, _RENAMED[call.tokens[call.name].key]),)


_CALLS: dict[str, Callable[[_Call], Sequence[Change]]] = {
    "TO_TIMESTAMP": _read_time("TIMESTAMPTZ"), "TO_DATE": _read_time("DATE"), "TO_CHAR": _show_time, "DATE_BIN": _bin,
    "SUBSTRING": _substring, "ENCODE": _coded, "DECODE": _coded, **dict.fromkeys(_RENAMED, _renamed),
}  # fmt: skip


# --- operators and literals -----------------------------------------------------------------------------------------------


def _json_path(tokens: Sequence[Token], index: int) -> Sequence[Change]:
    """``#>> ARRAY['a', 1]`` and ``#>> '{a,1}'``: a path of DuckDB's."""
    marks = 0
    while index + 1 + marks < len(tokens) and tokens[index + 1 + marks].key == ">":
        marks += 1
    first = index + 1 + marks
    if not 1 <= marks <= 2 or first >= len(tokens):
        return ()
    steps, last = _steps(tokens, first)
    if steps is None:
        return ()
    last = last + 4 if [token.key for token in tokens[last + 1 : last + 5]] == ["::", "TEXT", "[", "]"] else last
    path = " || ".join(["'$'", *steps])
    return ((tokens[index].start, tokens[last].end, f"{'->' if marks == 1 else '->>'} ({path})"),)


def _steps(tokens: Sequence[Token], first: int) -> tuple[list[str] | None, int]:
    """The steps of a path as SQL, and the last token of them."""
    if tokens[first].kind is Kind.STRING:
        listed = list_literal(string_value(tokens[first].text))
        return (None if listed is None else [_step(step or "") for step in listed]), first
    if [token.key for token in tokens[first : first + 2]] != ["ARRAY", "["]:
        return None, first
    steps = []
    for index in range(first + 2, len(tokens), 2):
        token, behind = tokens[index], tokens[index + 1].key if index + 1 < len(tokens) else ""
        if token.kind is Kind.STRING or token.kind is Kind.NUMBER:
            steps.append(_step(string_value(token.text) if token.kind is Kind.STRING else token.text))
        elif token.kind is Kind.PARAM:
            steps.append(f"""'."' || {token.text} || '"'""")
        else:
            return None, first
        if behind == "]":
            return steps, index + 1
        if behind != ",":
            return None, first
    return None, first


def _step(name: str) -> str:
    return quote_string(f"[{name}]" if name.isdecimal() else f'."{name}"')


def _array(tokens: Sequence[Token], index: int) -> Sequence[Change]:
    """``'{a,b}'::text[]``, ``CAST('{a,b}' AS text[])`` and ``ANY('{a,b}')``: a list of DuckDB's."""
    text = tokens[index].text
    is_array = _is_cast_to_array(tokens, index) or (
        index > 1 and tokens[index - 1].key == "(" and tokens[index - 2].key in ("ANY", "ALL", "SOME")
    )
    listed = list_literal(string_value(text)) if text.startswith("'{") and is_array else None
    if listed is None:
        return ()
    written = ", ".join("NULL" if each is None else quote_string(each) for each in listed)
    return ((tokens[index].start, tokens[index].end, f"[{written}]"),)


def _is_cast_to_array(tokens: Sequence[Token], index: int) -> bool:
    if index + 2 >= len(tokens) or tokens[index + 1].key not in ("::", "AS"):
        return False
    behind = [token.key for token in tokens[index + 2 : index + 8]]
    return "[" in behind and all(key.isidentifier() or key in (".", "") for key in behind[: behind.index("[")])


def _changed(text: str, changes: Sequence[Change]) -> str:
    parts, at = [], 0
    for start, end, new in sorted(changes, key=lambda change: change[:2]):
        parts += [text[at:start], new]
        at = end
    return "".join(parts) + text[at:]
