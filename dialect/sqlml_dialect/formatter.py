"""A script laid out: statements of ours by one rule, everything else as it stands.

``format_sql`` works on tokens, not on trees, so that every comment and every way of writing a value is kept.  The parser says
which words are keywords, where clauses begin and which ranges are the database's own text; those are copied as they are.
A script that is laid out already comes back unchanged, and its trees are those of the text before.
"""

from __future__ import annotations

import re

from sqlml_dialect.layout import lay_out
from sqlml_dialect.parser import read_own
from sqlml_dialect.tokens import Kind, Piece, comment_end, scan, split_statements

_NEWLINE = re.compile(r"\r\n|\n|\r")
_EDGE = re.compile(r"--[^\r\n]*|/\*|;")


def format_sql(text: str) -> str:
    """Lay out the statements of ours in a script; raises DialectError where one cannot be read.

    >>> print(format_sql("train model churn target left_us with (seed=1) as from customers;"), end="")
    TRAIN MODEL churn
        TARGET left_us
        WITH (seed = 1)
    AS
    from customers;
    """
    newline = "\r\n" if "\r\n" in text else "\n"
    written: list[str] = []
    end, before = 0, False
    pieces = split_statements(text)
    for index, piece in enumerate(pieces):
        own = read_own(text, piece)
        gap = _Gap(text, end, piece.start, newline, first=not index)
        written.append(gap.lay_out(before, own is not None))
        written.append(lay_out(own.cursor, newline) if own else text[piece.start : piece.end])
        end, before = piece.end, own is not None
    tail = _Gap(text, end, len(text), newline, first=not pieces)
    written.append(tail.lay_out(before, False, last=not (pieces and _is_open(text, pieces[-1]))))
    return "".join(written)


def _is_open(text: str, piece: Piece) -> bool:
    """Whether a string, name or comment is never closed: it runs on to the end of the text."""
    return any(token.kind is Kind.OPEN for token in scan(text, piece.start, piece.end))


class _Gap:
    """What stands between two statements: blanks, comments and semicolons."""

    def __init__(self, text: str, start: int, end: int, newline: str, *, first: bool) -> None:
        self.newline = newline
        self.first = first
        self.parts: list[tuple[str, str]] = []  # blanks, and what stands behind them
        position = start
        while edge := _EDGE.search(text, position, end):
            blank, position = text[position : edge.start()], edge.end()
            if edge.group() == "/*":
                position, _ = comment_end(text, position, end)
            self.parts.append((blank, text[edge.start() : position]))
        self.parts.append((text[position:end], ""))

    def lay_out(self, before: bool, after: bool, last: bool = False) -> str:
        """The gap's text; ``before`` and ``after`` say whether the statement there is ours, ``last`` that none follows."""
        written, is_ended, is_next = "", False, before
        for blank, part in self.parts:
            lines = len(_NEWLINE.findall(blank))
            is_start = self.first and not written
            if last and not part:
                return written + self.newline if written or not self.first else ""
            if is_start:
                written += "" if after and not part else _indent(blank)
            elif part == ";" and is_next:
                written += self.newline if lines and "--" in written else ""
            elif lines:
                written += self.newline * min(lines, 2) + ("" if after and not part else _indent(blank))
            elif part and part != ";":
                written += " " if before else blank
            elif (before or after) and not part:
                written += self.newline if is_ended else " " if written else ""
            else:
                written += blank
            written += part.rstrip() if part.startswith("--") else part
            is_ended = is_ended or part == ";"
            is_next = is_next and part != ";"
        return written


def _indent(blank: str) -> str:
    """The blanks behind the last line break."""
    return _NEWLINE.split(blank)[-1]
