"""A script to statements: what is ours becomes a tree, the rest is left as it stands."""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from sqlml_dialect.calls import may_have_calls
from sqlml_dialect.cursor import Cursor, check_closed
from sqlml_dialect.near_misses import check_near_miss
from sqlml_dialect.nodes import KINDS, CreateResource, DropResource, Node, Statement
from sqlml_dialect.statements import SHARED_VERBS, SQL_VERBS, find_statement, parse_statement
from sqlml_dialect.tokens import Piece, Token, scan, split_statements

_HEAD = 6


def parse(text: str) -> list[Statement]:
    """The statements of a script, each with its kind; raises DialectError for a fault in one of ours."""
    return [_parse_piece(text, piece) for piece in split_statements(text)]


def statement_kind(node: Node) -> str:
    """The name of a statement's kind, as ``Statement.kind`` has it."""
    if isinstance(node, CreateResource):
        return f"create_{node.what}"
    if isinstance(node, DropResource):
        return f"drop_{node.what}"
    return KINDS[type(node)]


def _parse_piece(text: str, piece: Piece) -> Statement:
    """One statement of a script."""
    own = read_own(text, piece)
    node = own and own.node
    written = text[piece.start : piece.end]
    kind = statement_kind(node) if node else "query" if may_have_calls(written) else "sql"
    return Statement(written, kind, node, piece.params, span=(piece.start, piece.end))


class Own(NamedTuple):
    """A statement of ours: its tree, and the cursor that read it."""

    node: Node
    cursor: Cursor


def read_own(text: str, piece: Piece) -> Own | None:
    """Read a statement of a script, None when it is the database's."""
    head = list(islice(scan(text, piece.start, piece.end), _HEAD))
    first = head[0].key
    if not first or (first in SQL_VERBS and first not in SHARED_VERBS):
        return None
    if first == "EXPLAIN":
        head = _all_tokens(text, piece)
    parse_node = find_statement(Cursor(text, head))
    if parse_node is None:
        check_near_miss(Cursor(text, head))
        return None
    tokens = _all_tokens(text, piece)
    check_closed(text, tokens)
    cursor = Cursor(text, tokens)
    return Own(parse_statement(cursor, parse_node), cursor)


def _all_tokens(text: str, piece: Piece) -> list[Token]:
    """Every token of a statement."""
    return list(scan(text, piece.start, piece.end))
