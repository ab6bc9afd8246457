"""The one error of this package, and the drawing of a place in a text.

DialectError        a text that is neither valid SQL of ours nor the database's
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlml_dialect.clause_nodes import Span

SHOWN_WIDTH = 100
TAB_WIDTH = 4
LEAD_WIDTH = 40


class DialectError(Exception):
    """A statement of ours that cannot be read: what is wrong, where, what was expected and what may have been meant."""

    def __init__(self, message: str, text: str, span: Span, expected: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, text, span, expected, hint)
        self.message = message
        self.text = text
        self.span = span
        self.expected = expected
        self.hint = hint

    @property
    def line(self) -> int:
        """The line of the fault, counted from 1."""
        return line_and_column(self.text, self.span[0])[0]

    @property
    def column(self) -> int:
        """The column of the fault in characters, counted from 1."""
        return line_and_column(self.text, self.span[0])[1]

    def __str__(self) -> str:
        lines = [self.message, point_at(self.text, self.span)]
        if self.expected and self.expected not in self.message:
            lines.append(f"  expected {self.expected}")
        if self.hint:
            lines += [f"  {line}" for line in self.hint.split("\n")]
        return "\n".join(lines)


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """Line and column, both from 1, of a character offset."""
    offset = min(max(offset, 0), len(text))
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def point_at(text: str, span: Span) -> str:
    """The line where a span begins and, below it, carets under the span; a long line is cut around it.

    Where the line's beginning is cut off, the column is said in words.

    Works for any script: the carets are placed by the width a terminal gives each character.
    """
    number, column = line_and_column(text, span[0])
    begin = min(max(span[0], 0), len(text)) - column + 1
    line = text[begin:].split("\n", 1)[0].rstrip("\r")
    first = min(column - 1, len(line))
    last = max(min(span[1] - begin, len(line)), first)
    cells = [_cell(character) for character in line]
    widths = [_width(cell) for cell in cells]
    left, right = _window(widths, first, last)
    before = "…" if left else ""
    after = "…" if right < len(cells) else ""
    prefix = f"  line {number}, column {column}:  " if left else f"  line {number}:  "
    indent = len(prefix) + len(before) + sum(widths[left:first])
    carets = max(sum(widths[first : min(last, right)]), 1)
    return f"{prefix}{before}{''.join(cells[left:right])}{after}\n{' ' * indent}{'^' * carets}"


def _cell(character: str) -> str:
    """What is printed for a character: tabs as spaces, anything that would move the cursor as one space."""
    if character == "\t":
        return " " * TAB_WIDTH
    return " " if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} else character


def _width(cell: str) -> int:
    """The columns that a terminal gives to what is printed for one character."""
    if len(cell) > 1:
        return len(cell)
    if unicodedata.category(cell) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(cell) in {"W", "F"} else 1


def _window(widths: Sequence[int], first: int, last: int) -> tuple[int, int]:
    """The range of characters to show: the whole line if it fits, else what lies around ``first`` to ``last``."""
    if sum(widths) <= SHOWN_WIDTH:
        return 0, len(widths)
    lead = min(LEAD_WIDTH, max(SHOWN_WIDTH - sum(widths[first:last]), 0) // 2)
    left = _reach_back(widths, first, lead)
    right, room = left, SHOWN_WIDTH
    while right < len(widths) and widths[right] <= room:
        room -= widths[right]
        right += 1
    if right == len(widths):
        left = _reach_back(widths, right, SHOWN_WIDTH)
    return left, right


def _reach_back(widths: Sequence[int], start: int, room: int) -> int:
    """The first character of those that fit into ``room`` columns before ``start``."""
    while start and widths[start - 1] <= room:
        start -= 1
        room -= widths[start]
    return start
