# ruff: noqa: RUF009 - at() makes a new field for each class, which is what dataclasses want
"""A SELECT of one row taken apart by its tokens: WITH queries, items, sources, conditions.  The texts are kept as they stand.

    [WITH name AS (select), …]
    SELECT item [[AS] name], *, t.*, …
    [FROM table | name of WITH | (select) [[AS] alias] [LEFT JOIN table [[AS] alias] ON a = b [AND …] | USING (c, …)] …]
    [WHERE a = b [AND …]]

What belongs to many rows (GROUP BY, ORDER BY, UNION, …) is refused, with what to do instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlml_dialect.calls import is_alias
from sqlml_dialect.clause_nodes import Ident, QualifiedName, Span, at
from sqlml_dialect.cursor import CLOSING, NAMES, OPENING, Cursor, check_closed, describe, is_star
from sqlml_dialect.errors import DialectError
from sqlml_dialect.tokens import Kind, Token, name_value, scan, words

_MANY_ROWS = words("GROUP HAVING QUALIFY WINDOW ORDER LIMIT OFFSET FETCH UNION INTERSECT EXCEPT SAMPLE USING")
_ONE_ROW = "the query answers one row for each row of a request: it is SELECT … [FROM … [LEFT JOIN …]] [WHERE key = …]"
_JOINS = words("JOIN LEFT RIGHT FULL INNER CROSS NATURAL ASOF SEMI ANTI POSITIONAL")
_JOIN_HINT = "write LEFT JOIN t ON t.key = …: a key that is not there gives NULLs"
_CLAUSES = words("FROM WHERE") | _MANY_ROWS
_NO_ALIAS = _CLAUSES | _JOINS | words("ON AS")


@dataclass(frozen=True)
class Item:
    """One item of the list: an expression with its alias, or a star (``*``, ``c.*``)."""

    text: str
    alias: Ident | None = None
    star: str | None = None
    span: Span = at()


@dataclass(frozen=True)
class Equality:
    """``left = right``: the places of both sides."""

    left: Span
    right: Span
    span: Span = at()


@dataclass(frozen=True)
class Source:
    """What rows are read from: a name, or a query in brackets; ``on`` and ``using`` are those of its LEFT JOIN."""

    name: QualifiedName | None
    query: Select | None
    alias: Ident | None = None
    on: tuple[Equality, ...] = ()
    using: tuple[Ident, ...] = ()
    span: Span = at()


@dataclass(frozen=True)
class Select:
    """One SELECT; the first of ``sources`` is what stands behind FROM, the others are joined to it."""

    items: tuple[Item, ...]
    sources: tuple[Source, ...] = ()
    where: tuple[Equality, ...] = ()
    named: tuple[tuple[Ident, Select], ...] = ()  # the queries of WITH
    span: Span = at()


def read_select(text: str, span: Span) -> Select:
    """Take a stretch of text apart.  ``DialectError`` for what is no such SELECT."""
    tokens = list(scan(text, *span))
    check_closed(text, tokens)
    return _Reader(text, tokens).read(0, len(tokens))


class _Reader:
    """Reads ranges of one text's tokens."""

    def __init__(self, text: str, tokens: Sequence[Token]) -> None:
        self.text = text
        self.tokens = tokens

    def read(self, first: int, last: int) -> Select:
        """The SELECT that these tokens are."""
        cursor = Cursor(self.text, self.tokens[:last], first)
        named = self._named(cursor) if cursor.accept("WITH") else ()
        if cursor.peek().key == "FROM":
            cursor.fail("SELECT", hint="write SELECT first, then FROM")
        cursor.expect("SELECT")
        if cursor.peek().key == "DISTINCT":
            self._refuse(cursor.peek())
        cursor.accept("ALL")
        items = self._items(cursor)
        sources = self._sources(cursor) if cursor.accept("FROM") else ()
        where = self._equalities(cursor, self._until(cursor, _MANY_ROWS)) if cursor.accept("WHERE") else ()
        if cursor.peek().kind is not Kind.END:
            self._refuse(cursor.peek())
        return Select(items, sources, where, named, span=(self.tokens[first].start, self.tokens[last - 1].end))

    def _refuse(self, token: Token) -> None:
        many = token.key in _MANY_ROWS or token.key == "DISTINCT"
        message = f"{token.key} cannot stand in a query that is deployed" if many else f"this query cannot have {describe(token)}"
        raise DialectError(message, self.text, (token.start, token.end), hint=_ONE_ROW)

    def _named(self, cursor: Cursor) -> tuple[tuple[Ident, Select], ...]:
        """``name AS (select), …``"""
        if cursor.peek().key == "RECURSIVE":
            self._refuse(cursor.peek())

        def one() -> tuple[Ident, Select]:
            name = cursor.ident("a name")
            cursor.expect("AS")
            return name, self._bracketed(cursor)

        return cursor.listed(one)

    def _bracketed(self, cursor: Cursor) -> Select:
        """``(select)``"""
        if cursor.peek().key != "(":
            cursor.fail('"("')
        closing = cursor.closing()
        if closing == cursor.position + 1:
            cursor.fail("a query", self.tokens[closing])
        found = self.read(cursor.position + 1, closing)
        cursor.position = closing + 1
        return found

    def _until(self, cursor: Cursor, stops: frozenset[str]) -> int:
        """The index of the first of some words outside brackets, from here on."""
        depth = 0
        for index in range(cursor.position, len(cursor.tokens)):
            key = cursor.tokens[index].key
            depth += (key in OPENING) - (key in CLOSING)
            if not depth and key in stops and not self._is_inside(index):
                return index
        return len(cursor.tokens)

    def _is_inside(self, index: int) -> bool:
        """Whether a word that can end a clause is part of an expression: ``t.from``, IS DISTINCT FROM, ``* EXCEPT``."""
        before = self.tokens[index - 1].key if index else ""
        two_before = self.tokens[index - 2].key if index > 1 else ""
        key = self.tokens[index].key
        return before == "." or (key == "FROM" and before == "DISTINCT" and two_before in ("IS", "NOT")) or (
            key == "EXCEPT" and before == "*"
        )  # fmt: skip

    # --- items ---

    def _items(self, cursor: Cursor) -> tuple[Item, ...]:
        stop = self._until(cursor, _CLAUSES)
        found = [self._item(cursor, *part) for part in cursor.split_at_commas(stop)]
        if len(found) > 1 and found[-1] is None:  # SQL of DuckDB may end a list with a comma
            found.pop()
        if None in found:
            cursor.fail("a column", self.tokens[min(stop, len(self.tokens) - 1)])
        cursor.position = stop
        return tuple(item for item in found if item is not None)

    def _item(self, cursor: Cursor, first: int, last: int) -> Item | None:
        if first == last:
            return None
        tokens = self.tokens[first:last]
        span = (tokens[0].start, tokens[-1].end)
        text = self.text[slice(*span)]
        if is_star(tokens):
            if tokens[-1].key != "*":
                hint = "write * or t.* by itself, or name the columns"
                raise DialectError("a star with changes cannot stand in a query that is deployed", self.text, span, hint=hint)
            return Item(text, star=text, span=span)
        if len(tokens) > 2 and tokens[0].kind in NAMES and tokens[1].key == ":":
            return self._aliased(tokens[0], tokens[2:])
        if len(tokens) > 2 and tokens[-2].key == "AS" and tokens[-1].kind in NAMES:
            return self._aliased(tokens[-1], tokens[:-2])
        if len(tokens) > 1 and is_alias(tokens):
            return self._aliased(tokens[-1], tokens[:-1])
        return Item(text, span=span)

    def _aliased(self, name: Token, tokens: Sequence[Token]) -> Item:
        span = (tokens[0].start, tokens[-1].end)
        return Item(self.text[slice(*span)], _ident(name), span=span)

    # --- sources ---

    def _sources(self, cursor: Cursor) -> tuple[Source, ...]:
        found = [self._source(cursor)]
        while cursor.peek().key in _JOINS or cursor.peek().key == ",":
            found.append(self._joined(cursor))
        return tuple(found)

    def _source(self, cursor: Cursor) -> Source:
        start = cursor.peek()
        query = None
        name = None
        if start.key == "(":
            query = self._bracketed(cursor)
        else:
            if start.kind not in NAMES:
                cursor.fail("a table, or a query in brackets")
            name = cursor.qualified_name("a table's name")
            if cursor.peek().key == "(":
                span = (start.start, cursor.peek().end)
                hint = "read a table by its key, or a query in brackets"
                raise DialectError("a table function cannot stand in a query that is deployed", self.text, span, hint=hint)
        alias = None
        if cursor.accept("AS") or (cursor.at_name() and cursor.peek().key not in _NO_ALIAS):
            alias = cursor.ident("an alias")
        if cursor.peek().key == "(":
            cursor.fail("the end of the source", hint="name the columns where they are computed, not behind the alias")
        return Source(name, query, alias, span=cursor.taken_since(start.start))

    def _joined(self, cursor: Cursor) -> Source:
        token = cursor.peek()
        outer = cursor.accept("LEFT", "OUTER", "JOIN")
        if not outer and not cursor.accept("LEFT", "JOIN"):
            what = "a comma" if token.key == "," else "JOIN" if token.key == "JOIN" else f"{token.key} JOIN"
            raise DialectError(
                f"{what} between tables cannot stand in a query that is deployed", self.text, (token.start, token.end),
                hint=_JOIN_HINT,
            )  # fmt: skip
        source = self._source(cursor)
        if cursor.accept("USING"):
            columns = cursor.in_parens(lambda: cursor.ident("a column"))
            return replace(source, using=columns, span=cursor.taken_since(source.span[0]))
        if cursor.peek().key != "ON":
            cursor.fail("ON and the table's key", hint=_JOIN_HINT)
        cursor.expect("ON")
        on = self._equalities(cursor, self._until(cursor, _JOINS | _CLAUSES | {","}))
        return replace(source, on=on, span=cursor.taken_since(source.span[0]))

    # --- conditions ---

    def _equalities(self, cursor: Cursor, stop: int) -> tuple[Equality, ...]:
        """``a = b AND c = d`` up to a token."""
        first = cursor.position
        cursor.position = stop
        while self._in_brackets(first, stop):
            first, stop = first + 1, stop - 1
        if first >= stop:
            cursor.fail("a condition", self.tokens[min(first, len(self.tokens) - 1)])
        return tuple(self._equality(*part) for part in self._split(first, stop, "AND"))

    def _in_brackets(self, first: int, stop: int) -> bool:
        if stop - first < 2 or self.tokens[first].key != "(":
            return False
        return Cursor(self.text, self.tokens, first).closing() == stop - 1

    def _equality(self, first: int, last: int) -> Equality:
        sides = self._split(first, last, "=")
        span = (self.tokens[first].start, self.tokens[max(first, last - 1)].end)
        if len(sides) != 2 or any(a >= b for a, b in sides):
            raise DialectError(
                f"a table is read by its key alone, and {self.text[slice(*span)]} is no comparison with it by =", self.text, span,
                hint="write WHERE t.key = $key, and put other conditions into the items: CASE WHEN … THEN … END",
            )  # fmt: skip
        left, right = [(self.tokens[a].start, self.tokens[b - 1].end) for a, b in sides]
        return Equality(left, right, span=span)

    def _split(self, first: int, last: int, key: str) -> list[tuple[int, int]]:
        """The ranges of tokens between the occurrences of a word or symbol outside brackets."""
        ranges, depth, start = [], 0, first
        for index in range(first, last):
            found = self.tokens[index].key
            depth += (found in OPENING) - (found in CLOSING)
            if found == key and not depth:
                ranges.append((start, index))
                start = index + 1
        return [*ranges, (start, last)]


def _ident(token: Token) -> Ident:
    return Ident(name_value(token), token.kind is Kind.QUOTED, span=(token.start, token.end))
