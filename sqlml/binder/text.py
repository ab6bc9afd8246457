"""SQL made of pieces that remember where they come from.

Only the text of our own calls is replaced in a query; everything else stays as the person wrote it, byte for byte.  When the
database then points at a place in what it got, ``Sql.place`` says where that is in what the person wrote.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sqlml_dialect import Calls, ModelCall, Span
from sqlml_dialect.tokens import Kind, scan


@dataclass(frozen=True)
class Piece:
    """A stretch of text; ``span`` is its origin in the source, ``verbatim`` when it is that origin unchanged."""

    text: str
    span: Span | None = None
    verbatim: bool = False


@dataclass(frozen=True)
class Sql:
    """SQL for a database, and the source it was made from.  ``at`` is the connection where it runs; None: at home."""

    source: str
    pieces: tuple[Piece, ...]
    at: str | None = None

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def span(self) -> Span:
        """All of the source that it was made from."""
        spans = [piece.span for piece in self.pieces if piece.span is not None]
        return (min(s[0] for s in spans), max(s[1] for s in spans)) if spans else (0, 0)

    def place(self, span: Span) -> Span | None:
        """Where a span of ``text`` comes from in ``source``; None where it is ours alone."""
        start = 0
        for piece in self.pieces:
            end = start + len(piece.text)
            if start <= span[0] < end or (span[0] == end and piece is self.pieces[-1]):
                if piece.span is None or not piece.verbatim:
                    return piece.span
                first = piece.span[0] + span[0] - start
                return (first, min(first + span[1] - span[0], piece.span[1]))
            start = end
        return None

    def wrapped(self, before: str, after: str) -> Sql:
        """The same between two pieces of our own SQL."""
        return Sql(self.source, (Piece(before), *self.pieces, Piece(after)), self.at)


def verbatim(source: str, span: Span) -> Sql:
    """A stretch of the source, unchanged."""
    return Sql(source, (Piece(source[span[0] : span[1]], span, verbatim=True),))


def made(source: str, text: str, span: Span) -> Sql:
    """SQL of our own that stands for a place in the source."""
    return Sql(source, (Piece(text, span),))


def hole(number: int) -> str:
    """A mark in SQL of our own, for ``fill`` to put a part of the person's there."""
    return f"\0{number}\0"


def fill(source: str, template: str, parts: Sequence[Sql], span: Span) -> Sql:
    """SQL of our own that stands for ``span``, its holes filled with parts that keep their places."""
    pieces: list[Piece] = []
    for index, text in enumerate(re.split("\0(\\d+)\0", template)):
        pieces += parts[int(text)].pieces if index % 2 else [Piece(text, span)]
    return Sql(source, tuple(pieces))


def number_parameters(sql: Sql, span: Span) -> Sql:
    """``?`` as ``$1``, ``$2`` …: the calls' arguments have changed their order, the values have not."""
    marks = [t.start for t in scan(sql.source, *span) if t.kind is Kind.PARAM and t.text == "?"]
    return Sql(sql.source, tuple(_numbered(piece, marks) for piece in sql.pieces), sql.at)


def _numbered(piece: Piece, marks: Sequence[int]) -> Piece:
    if not piece.verbatim or piece.span is None:
        return piece
    first, last = piece.span
    inside = [(number, mark - first) for number, mark in enumerate(marks, 1) if first <= mark < last]
    text = piece.text
    for number, place in reversed(inside):
        text = f"{text[:place]}${number}{text[place + 1 :]}"
    return Piece(text, piece.span, verbatim=not inside)


def replace_calls(
    source: str, span: Span, found: Calls, replacement: Callable[[ModelCall], Sql], tables: Sequence[Piece] = ()
) -> Sql:
    """A stretch of the source with our calls replaced, and names kept for the columns that would otherwise change theirs.

    ``tables`` take the place of their spans, where these are no part of a call.
    """
    return Sql(source, tuple(_pieces(source, span, found, replacement, tables)))


def _pieces(
    source: str, span: Span, found: Calls, replacement: Callable[[ModelCall], Sql], tables: Sequence[Piece]
) -> Iterator[Piece]:
    calls = [call for call in found.calls if span[0] <= call.span[0] and call.span[1] <= span[1]]
    inserts = [item for item in found.unnamed if span[0] <= item.span[0] and item.span[1] <= span[1]]
    # An item's alias stands behind it, so behind every call that ends with it.
    edits: list[tuple[int, int, tuple[Piece, ...], Span]] = [(c.span[1], 0, replacement(c).pieces, c.span) for c in calls]
    inside = [(c.span[0], c.span[1]) for c in calls]
    for piece in tables:
        place = piece.span or (0, 0)
        if span[0] <= place[0] and place[1] <= span[1] and not any(a <= place[0] and place[1] <= b for a, b in inside):
            edits.append((place[1], 0, (piece,), place))
    for item in inserts:
        if not any(first < item.span[1] < last for first, last in inside):
            alias = '"' + " ".join(item.text.split()).replace('"', '""') + '"'
            edits.append((item.span[1], 1, (Piece(f" AS {alias}", item.span),), (item.span[1], item.span[1])))
    position = span[0]
    for _, _, pieces, replaced in sorted(edits, key=lambda edit: edit[:2]):
        if replaced[0] > position:
            yield Piece(source[position : replaced[0]], (position, replaced[0]), verbatim=True)
        yield from pieces
        position = max(position, replaced[1])
    if position < span[1]:
        yield Piece(source[position : span[1]], (position, span[1]), verbatim=True)
