"""A script to statements: what is ours becomes a tree, the rest is left as it stands."""

from __future__ import annotations

from itertools import islice

from sqlml_dialect.calls import may_have_calls
from sqlml_dialect.cursor import Cursor, check_closed
from sqlml_dialect.nodes import KINDS, CreateResource, DropResource, Node, Statement
from sqlml_dialect.statements import SHARED_VERBS, SQL_VERBS, check_near_miss, find_statement, parse_statement
from sqlml_dialect.tokens import Piece, Token, scan, split_statements

_HEAD = 4


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
    node = _parse_own(text, piece)
    written = text[piece.start : piece.end]
    kind = statement_kind(node) if node else "query" if may_have_calls(written) else "sql"
    return Statement(written, kind, node, piece.params, span=(piece.start, piece.end))


def _parse_own(text: str, piece: Piece) -> Node | None:
    """The tree of a statement, None when it is the database's."""
    head = list(islice(scan(text, piece.start, piece.end), _HEAD))
    first = head[0].key
    if not first or (first in SQL_VERBS and first not in SHARED_VERBS):
        return None
    if first == "EXPLAIN":
        head = _all_tokens(text, piece)
    cursor = Cursor(text, head)
    parse_node = find_statement(cursor)
    if parse_node is None:
        check_near_miss(cursor)
        return None
    tokens = _all_tokens(text, piece)
    check_closed(text, tokens)
    return parse_statement(Cursor(text, tokens), parse_node)


def _all_tokens(text: str, piece: Piece) -> list[Token]:
    """Every token of a statement."""
    return list(scan(text, piece.start, piece.end))
