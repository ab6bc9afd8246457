# ruff: noqa: RUF009 - at() makes a new field for each class, which is what dataclasses want
"""The items of TRANSFORM: calls of ML functions, stars, BigQuery's STRUCT; found by reading tokens, nothing is written anew."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlml_dialect.clause_nodes import Span, at
from sqlml_dialect.cursor import NAMES, Cursor, check_closed
from sqlml_dialect.errors import DialectError
from sqlml_dialect.names import name_sql
from sqlml_dialect.tokens import Kind, Token, scan

SCHEMA = "ML"
_NAMED = frozenset({"=>", ":="})


@dataclass(frozen=True)
class FittedArgument:
    """One argument as written; ``name`` where it is given by ``name => value``; ``span`` is the value's."""

    text: str
    name: str | None = None
    span: Span = at()


@dataclass(frozen=True)
class FittedCall:
    """``ML.NAME(argument, …) [OVER (…)]``: the text between ``span`` is what a fitted value replaces.

    ``name`` is in capitals, without ``ML.``; ``window`` is what stands inside the brackets of OVER, empty as a rule.
    ``inner`` are the calls inside the arguments, with spans in the same text.
    """

    name: str
    arguments: tuple[FittedArgument, ...] = ()
    over: bool = False
    window: str = ""
    inner: tuple[FittedCall, ...] = ()
    name_span: Span = at()
    over_span: Span = at()
    span: Span = at()


@dataclass(frozen=True)
class StarItem:
    """``* EXCLUDE (…) REPLACE (expression AS name, …) RENAME (name AS name, …)``; EXCEPT is EXCLUDE.

    ``exclude``: each name with its span.  ``replace``: name → the expression's text and span.  ``rename``: old name → new name.
    """

    exclude: tuple[tuple[str, Span], ...] = ()
    replace: tuple[tuple[str, str, Span], ...] = ()
    rename: tuple[tuple[str, str, Span], ...] = ()


def find_fitted(text: str) -> tuple[FittedCall, ...]:
    """The outermost ML calls of an expression, in order.

    >>> [(call.name, call.over, call.arguments[0].text) for call in find_fitted("ML.STANDARD_SCALER(age) OVER () * 2")]
    [('STANDARD_SCALER', True, 'age')]

    Raises DialectError for brackets and strings that do not close.
    """
    tokens = list(scan(text))
    check_closed(text, tokens)
    return tuple(_find(text, tokens, 0, len(tokens)))


def _find(text: str, tokens: Sequence[Token], first: int, last: int) -> list[FittedCall]:
    calls, index = [], first
    while index < last:
        if _is_call(tokens, index) and not (index and tokens[index - 1].key == "."):
            call, index = _call(text, tokens, index)
            calls.append(call)
        else:
            index += 1
    return calls


def _is_call(tokens: Sequence[Token], index: int) -> bool:
    """Whether ``ML . NAME (`` stands here."""
    keys = [token.key for token in tokens[index : index + 4]]
    return len(keys) == 4 and keys[:2] == [SCHEMA, "."] and tokens[index + 2].kind in NAMES and keys[3] == "("


def _call(text: str, tokens: Sequence[Token], index: int) -> tuple[FittedCall, int]:
    """The call whose name begins here, and the token behind it."""
    cursor = Cursor(text, tokens, index + 3)
    closing = cursor.closing()
    cursor.position += 1
    ranges = cursor.split_at_commas(closing) if cursor.position < closing else []
    end, window, over = closing + 1, "", (0, 0)
    if [token.key for token in tokens[end : end + 2]] == ["OVER", "("]:
        bracket = Cursor(text, tokens, end + 1).closing()
        window = text[tokens[end + 1].end : tokens[bracket].start].strip()
        over = (tokens[end].start, tokens[bracket].end)
        end = bracket + 1
    name = tokens[index + 2]
    call = FittedCall(
        name.key or name.text[1:-1].upper(),
        tuple(_argument(text, tokens, *both) for both in ranges),
        over != (0, 0),
        window,
        tuple(inner for both in ranges for inner in _find(text, tokens, *both)),
        name_span=(tokens[index].start, name.end),
        over_span=over,
        span=(tokens[index].start, tokens[end - 1].end),
    )
    return call, end


def _argument(text: str, tokens: Sequence[Token], first: int, last: int) -> FittedArgument:
    if first >= last:
        place = tokens[min(first, len(tokens) - 1)]
        raise DialectError("expected an argument", text, (place.start, place.end), "an argument")
    name = None
    if last - first > 2 and tokens[first + 1].key in _NAMED and tokens[first].kind in NAMES:
        name, first = _name(tokens[first]), first + 2
    span = (tokens[first].start, tokens[last - 1].end)
    return FittedArgument(text[slice(*span)], name, span=span)


def parse_star(text: str) -> StarItem | None:
    """What a star item says; None for an expression.

    >>> [name for name, _ in parse_star("* EXCEPT (id, name)").exclude]
    ['id', 'name']

    Raises DialectError for a star with anything else behind it, and for ``t.*``.
    """
    tokens = list(scan(text))
    if [token.key for token in tokens[1:3]] == [".", "*"]:
        raise DialectError("there are no tables in TRANSFORM, only columns", text, (0, len(text)), "*", "write * for all columns")
    if not tokens or tokens[0].key != "*":
        return None
    check_closed(text, tokens)
    cursor = Cursor(text, tokens, 1)
    exclude: list[tuple[str, Span]] = []
    replace: list[tuple[str, str, Span]] = []
    rename: list[tuple[str, str, Span]] = []
    while cursor.peek().kind is not Kind.END:
        word = cursor.choose("part of a star", ("EXCLUDE", "EXCEPT", "REPLACE", "RENAME"))
        if word in ("EXCLUDE", "EXCEPT"):
            exclude += _names(cursor)
        elif word == "RENAME":
            rename += _renamed(cursor)
        else:
            replace += _replaced(cursor)
    return StarItem(tuple(exclude), tuple(replace), tuple(rename))


def _names(cursor: Cursor) -> list[tuple[str, Span]]:
    """``(a, b)`` or a single name."""
    if cursor.peek().key != "(":
        ident = cursor.ident("a column")
        return [(ident.name, ident.span)]
    return [(ident.name, ident.span) for ident in cursor.in_parens(lambda: cursor.ident("a column"))]


def _renamed(cursor: Cursor) -> list[tuple[str, str, Span]]:
    def one() -> tuple[str, str, Span]:
        old = cursor.ident("a column")
        cursor.expect("AS")
        return old.name, cursor.ident("a name").name, old.span

    return list(cursor.in_parens(one) if cursor.peek().key == "(" else [one()])


def _replaced(cursor: Cursor) -> list[tuple[str, str, Span]]:
    """``(expression AS name, …)``."""
    if cursor.peek().key != "(":
        cursor.fail('"("')
    closing = cursor.closing()
    cursor.position += 1
    found = []
    for first, last in cursor.split_at_commas(closing):
        if last - first < 3 or cursor.tokens[last - 2].key != "AS" or cursor.tokens[last - 1].kind not in NAMES:
            cursor.fail("expression AS column", cursor.tokens[min(first, closing)])
        span = (cursor.tokens[first].start, cursor.tokens[last - 3].end)
        found.append((_name(cursor.tokens[last - 1]), cursor.text[slice(*span)], span))
    cursor.position = closing + 1
    return found


def column_name(text: str) -> str | None:
    """The column that a text names, if it is nothing but one name: ``age``, ``"two words"``."""
    tokens = list(scan(text))
    return _name(tokens[0]) if len(tokens) == 1 and tokens[0].kind in NAMES else None


def struct_sql(text: str) -> str:
    """The same expression with BigQuery's ``STRUCT(a, b + 1 AS c)`` written as ``struct_pack(a := a, c := b + 1)``.

    >>> struct_sql("f(STRUCT(a, b + 1 AS c))")
    'f(struct_pack(a := a, c := b + 1))'

    Raises DialectError for a field without a name.
    """
    tokens = list(scan(text))
    for index in range(len(tokens) - 1, 0, -1):
        if (
            tokens[index].key == "("
            and tokens[index - 1].key == "STRUCT"
            and (index < 2 or tokens[index - 2].key not in (".", "::"))
        ):
            cursor = Cursor(text, tokens, index)
            closing = cursor.closing()
            cursor.position += 1
            if cursor.position == closing or _is_type(tokens, index):
                continue
            fields = [_field(text, tokens, first, last) for first, last in cursor.split_at_commas(closing)]
            text = text[: tokens[index - 1].start] + f"struct_pack({', '.join(fields)})" + text[tokens[closing].end :]
            return struct_sql(text)
    return text


def _is_type(tokens: Sequence[Token], index: int) -> bool:
    """Whether the STRUCT( here is a type: CAST(x AS STRUCT(a INTEGER))."""
    return index > 1 and tokens[index - 2].key == "AS"


def _field(text: str, tokens: Sequence[Token], first: int, last: int) -> str:
    """One field of STRUCT as struct_pack takes it."""
    if first >= last:
        raise DialectError("expected a field", text, (tokens[first].start, tokens[first].end), "a field")
    span = (tokens[first].start, tokens[last - 1].end)
    if last - first > 2 and tokens[last - 2].key == "AS" and tokens[last - 1].kind in NAMES:
        return f"{tokens[last - 1].text} := {text[span[0] : tokens[last - 3].end]}"
    if tokens[last - 1].kind in NAMES and all(token.kind in NAMES or token.key == "." for token in tokens[first:last]):
        return f"{name_sql(_name(tokens[last - 1]))} := {text[slice(*span)]}"
    raise DialectError("a field of STRUCT needs a name", text, span, "expression AS name", "write STRUCT(expression AS name, …)")


def default_name(text: str) -> str:
    """The name of an item without AS: a plain column's own, else its words in small letters, without ML. and OVER ().

    >>> default_name("ML.BUCKETIZE(age, [20, 30])"), default_name("log(balance + 5000)")
    ('bucketize_age_20_30', 'log_balance_5000')
    """
    plain = column_name(text)
    if plain is not None:
        return plain
    parts: list[str] = []
    tokens = list(scan(text))
    for index, token in enumerate(tokens):
        skipped = (token.key == SCHEMA and _is_call(tokens, index)) or (token.key == "OVER" and token.kind is Kind.WORD)
        if token.kind in (Kind.SYMBOL, Kind.OPEN) or skipped:
            continue
        parts += re.findall(r"\w+", token.text.lower())
    return "_".join(parts)[:60].rstrip("_") or "expression"


def name_span(text: str, name: str) -> Span | None:
    """Where a name first stands in a text, letters' case ignored."""
    for token in scan(text):
        if token.kind in NAMES and _name(token).lower() == name.lower():
            return token.start, token.end
    return None


def _name(token: Token) -> str:
    return token.text[1:-1].replace('""', '"') if token.kind is Kind.QUOTED else token.text
