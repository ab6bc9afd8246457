"""Tables of connections inside queries: ``FROM pg.public.customers``, where ``pg`` is the name of a connection.

Only names that stand where a table does are looked at: after FROM and JOIN, and after a comma between tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlml_dialect import Span, quote_identifier
from sqlml_dialect.tokens import Kind, Token, scan, words

_CLAUSES = words(
    "select where group having order limit offset window qualify union except intersect values set returning on using"
)
_FOLLOWS = _CLAUSES | words(
    "join inner left right full cross natural asof positional anti semi tablesample fetch for pivot unpivot sample from"
)
"""The words that may follow a table without being a name for it."""
_NEUTRAL = words("lateral only unnest generate_series values select with from")
"""What may stand where a table does without being a table of some place."""


@dataclass(frozen=True)
class RemoteTable:
    """A table of a connection, as a query names it.

    ``parts`` are those after the connection's own name, ``written`` the same with their quotes; ``aliased``: a name of the
    query's own follows; ``changes``: the statement would delete its rows.
    """

    connection: str
    parts: tuple[str, ...]
    written: tuple[str, ...]
    span: Span
    aliased: bool = False
    changes: bool = False


def table_text(table: RemoteTable, quote: Callable[[str], str]) -> str:
    """A table's name for its own database: as it was written; a database with other quotes than SQL's gets its own."""
    if quote("x") == quote_identifier("x"):
        return ".".join(table.written)
    return ".".join(quote(part) for part in table.parts)


def alias_of(table: RemoteTable) -> str:
    """The name that a table has in its query, unless the query gives it another."""
    return "" if table.aliased else f" AS {quote_identifier(table.parts[-1])}"


@dataclass(frozen=True)
class Tables:
    """The tables of a stretch of text: those of connections, and whether there are others (or files)."""

    remote: tuple[RemoteTable, ...] = ()
    has_others: bool = False

    @property
    def only(self) -> str | None:
        """The one connection that all tables are of, if that is so."""
        names = {table.connection for table in self.remote}
        return next(iter(names)) if len(names) == 1 and not self.has_others else None


def find_tables(source: str, span: Span, connections: Mapping[str, str]) -> Tables:
    """The tables of a query.  ``connections``: name in lower case → name."""
    tokens = list(scan(source, *span))
    own = _common_tables(tokens)
    remote: list[RemoteTable] = []
    has_others = False
    for index in _table_places(tokens):
        parts = _name_at(tokens, index)
        if not parts:
            has_others = has_others or tokens[index].kind is Kind.STRING
            continue
        first = parts[0]
        connection = connections.get(_key(first))
        if connection is not None and len(parts) > 1:
            names, written = tuple(_plain(part) for part in parts[1:]), tuple(part.text for part in parts[1:])
            after = tokens[index + 2 * len(parts) - 1 :][:1]
            changes = [token.key for token in tokens[max(0, index - 2) : index]] == ["DELETE", "FROM"]
            remote.append(RemoteTable(connection, names, written, (first.start, parts[-1].end), _is_alias(after), changes))
        elif len(parts) > 1 or _key(first) not in own | _NEUTRAL:
            has_others = True
    return Tables(tuple(remote), has_others)


@dataclass
class _Level:
    """What is open at one depth of brackets."""

    in_from: bool = False
    expects: bool = False
    selects: bool = False  # FROM is a clause here, not a word of extract(year FROM d)


def _table_places(tokens: Sequence[Token]) -> Iterator[int]:
    """The numbers of the tokens that stand where a table does."""
    levels = [_Level(selects=True)]
    for index, token in enumerate(tokens):
        level = levels[-1]
        word = token.text.lower() if token.kind is Kind.WORD else ""
        if level.expects and token.text != "(" and word not in ("lateral", "only"):
            level.expects = False
            yield index
        if token.text == "(":
            first = tokens[index + 1].text.lower() if index + 1 < len(tokens) else ""
            is_query = level.expects or first in ("select", "with", "from", "(")
            inside = _Level(in_from=level.expects, expects=level.expects, selects=is_query)  # FROM (a JOIN b …), or a query
            level.expects = False
            levels.append(inside)
        elif token.text == ")" and len(levels) > 1:
            levels.pop()
        elif word == "join" or (word == "from" and level.selects and not _compares(tokens, index)):
            level.in_from = level.expects = True
        elif token.text == "," and level.in_from:
            level.expects = True
        elif word in _CLAUSES and word not in ("on", "using"):
            level.in_from = level.expects = False


def _compares(tokens: Sequence[Token], index: int) -> bool:
    """Whether a FROM belongs to IS [NOT] DISTINCT FROM."""
    before = [token.text.lower() for token in tokens[max(0, index - 2) : index]]
    return before[-1:] == ["distinct"] and before[:1] in (["is"], ["not"])


def _common_tables(tokens: Sequence[Token]) -> frozenset[str]:
    """The names of WITH, in lower case: ``name AS (``, ``name (a, b) AS MATERIALIZED (``."""
    names = set()
    for index, token in enumerate(tokens):
        if token.text.lower() != "as" or index == 0:
            continue
        after = [t.text.lower() for t in tokens[index + 1 : index + 4]]
        if "(" not in after or any(word not in ("not", "materialized") for word in after[: after.index("(")]):
            continue
        before = index - 1
        if tokens[before].text == ")":
            while before > 0 and tokens[before].text != "(":
                before -= 1
            before -= 1
        if before >= 0 and tokens[before].kind in (Kind.WORD, Kind.QUOTED):
            names.add(_key(tokens[before]))
    return frozenset(names)


def _name_at(tokens: Sequence[Token], index: int) -> list[Token]:
    """The parts of a qualified name that begins at a token; empty where none does."""
    parts: list[Token] = []
    while index < len(tokens) and tokens[index].kind in (Kind.WORD, Kind.QUOTED):
        parts.append(tokens[index])
        if index + 2 >= len(tokens) or tokens[index + 1].text != ".":
            break
        index += 2
    return parts


def _is_alias(after: Sequence[Token]) -> bool:
    """Whether what follows a table names it anew."""
    word = after[0].text.lower() if after and after[0].kind is Kind.WORD else None
    return (word is not None and word not in _FOLLOWS) or (bool(after) and after[0].kind is Kind.QUOTED)


def _plain(token: Token) -> str:
    """A name without its quotes."""
    if token.kind is not Kind.QUOTED:
        return token.text
    quote = token.text[0]
    return token.text[1:-1].replace(quote * 2, quote)


def _key(token: Token) -> str:
    return _plain(token).lower()


_READS = words("SELECT WITH FROM VALUES TABLE")
_WRITES = words("INSERT UPDATE DELETE MERGE CREATE COPY")


def is_query(source: str, span: Span) -> bool:
    """Whether a statement only reads, so that it can run wherever its tables are."""
    depth = 0
    for number, token in enumerate(scan(source, *span)):
        if number == 0 and token.key not in _READS and token.text != "(":
            return False
        depth += (token.text == "(") - (token.text == ")")
        if depth == 0 and token.key in _WRITES:
            return False
    return True


_HOW = words("ANALYZE ANALYSE VERBOSE EXTENDED FORMATTED COST CODEGEN")


def explains_query(source: str, span: Span) -> bool:
    """Whether a statement is ``EXPLAIN [ANALYZE] [(…)]`` of a query, which changes nothing even where it is run."""
    tokens = list(scan(source, *span))
    if not tokens or tokens[0].key != "EXPLAIN":
        return False
    first = 1
    while first < len(tokens) and tokens[first].key in _HOW:
        first += 1
    if first + 1 < len(tokens) and tokens[first].text == "(" and tokens[first + 1].key not in _READS:  # (FORMAT JSON)
        first = next((index for index, token in enumerate(tokens) if token.text == ")"), len(tokens)) + 1
    return first < len(tokens) and is_query(source, (tokens[first].start, span[1]))


def begins_with_from(source: str, span: Span) -> bool:
    """Whether a query is DuckDB's ``FROM t`` without SELECT."""
    keys = [token.key for token in scan(source, *span)]
    return keys[:1] == ["FROM"] and "SELECT" not in keys
