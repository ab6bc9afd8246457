"""Texts of statements: read once, and what a complaint names of them."""

from __future__ import annotations

from functools import lru_cache

from sqlml_dialect import DialectError, Node, Span, Statement, parse, statement_kind

from sqlml.errors import parse_error
from sqlml.kept_texts import KEPT, KEPT_TEXT


def parse_text(text: str) -> tuple[Statement, ...]:
    """The statements of a text.  ``ParseError`` where one of ours cannot be read."""
    try:
        return _parsed(text) if len(text) < KEPT_TEXT else tuple(parse(text))
    except DialectError as error:
        raise parse_error(error) from None


@lru_cache(maxsize=KEPT)
def _parsed(text: str) -> tuple[Statement, ...]:
    """Programs send the same texts again and again, with other values."""
    return tuple(parse(text))


def statement_name(node: Node) -> str:
    """What a statement of ours is called."""
    return statement_kind(node).replace("_", " ").upper()


def first_word(source: str, span: Span) -> Span:
    """Where the first word of a statement stands."""
    word = source[span[0] : span[1]].split(maxsplit=1)
    return (span[0], span[0] + len(word[0])) if word else span
