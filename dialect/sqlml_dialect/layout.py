"""One statement of ours written over lines: a line for each clause, four spaces deep, long lists broken at 100 columns.

    TRAIN MODEL churn
        TARGET left_us
        EXCLUDE (id, name)
    AS
    SELECT … as it was written

The tokens are written one after the other.  What stands in brackets is kept on the line where it fits, else broken: names
and values fill the lines, anything longer gets a line for each item.  A comment stays behind the token it stood behind, or
on its own line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from sqlml_dialect.cursor import CLOSING, OPENING, Cursor
from sqlml_dialect.tokens import Token, comment_end

WIDTH = 100
INDENT = 4
_COMMENT = re.compile(r"--[^\r\n]*|/\*")
_BREAK = re.compile(r"[\r\n]")
_GLUED_BEFORE = frozenset({",", ")", "]", "}", ".", "@", ":"})
_GLUED_BEHIND = frozenset({"(", "[", "{", ".", "@"})
_SIGNS = frozenset({"-", "+"})


def lay_out(cursor: Cursor, newline: str = "\n") -> str:
    """The text of the statement that a cursor has read to its end."""
    units = _read_units(cursor)
    writer = _Writer(units, newline)
    starts = [index for index, unit in enumerate(units) if unit.opens] + [len(units)]
    writer.write_range(0, starts[0], 0)
    for first, last in pairwise(starts):
        is_query = units[first].text == "AS" and first + 1 < last and units[first + 1].raw
        writer.start_line(first, 0 if is_query else INDENT)
        if is_query and last - first == 2:
            writer.put(first)
            writer.start_line(first + 1, 0)
            writer.put(first + 1)
        else:
            writer.write_range(first, last, INDENT)
    return "".join(writer.parts)


class _Comment(NamedTuple):
    """A comment in front of a unit."""

    text: str
    own_line: bool

    @property
    def breaks(self) -> bool:
        """Whether a new line must follow."""
        return self.text.startswith("--") or bool(_BREAK.search(self.text))


class _Unit(NamedTuple):
    """What is written in one go: a token, or a stretch of the database's own text."""

    text: str
    token: Token
    comments: tuple[_Comment, ...] = ()
    opens: bool = False  # begins a clause
    raw: bool = False


def _read_units(cursor: Cursor) -> list[_Unit]:
    """The units of a statement; comments before a comma are moved behind it."""
    units: list[_Unit] = []
    openings = set(cursor.openings)
    waiting: tuple[_Comment, ...] = ()
    index, end = 0, cursor.tokens[0].start
    while index < len(cursor.tokens):
        token = cursor.tokens[index]
        last = cursor.raws.get(index)
        comments = waiting + _read_comments(cursor.text, end, token.start)
        end = cursor.tokens[last - 1 if last else index].end
        text = cursor.text[token.start : end]
        waiting = comments if token.key == "," and not last else ()
        word = text.upper() if index in cursor.keywords and not last else text
        units.append(_Unit(word, token, () if waiting else comments, index in openings, last is not None))
        index = last or index + 1
    return units


def _read_comments(text: str, start: int, end: int) -> tuple[_Comment, ...]:
    """The comments between two tokens."""
    comments, position = [], start
    while found := _COMMENT.search(text, position, end):
        own_line = _BREAK.search(text, position, found.start()) is not None
        position = comment_end(text, found.end(), end)[0] if found.group() == "/*" else found.end()
        comments.append(_Comment(text[found.start() : position].rstrip(), own_line))
    return tuple(comments)


class _Writer:
    """Writes units and keeps the column."""

    def __init__(self, units: Sequence[_Unit], newline: str) -> None:
        self.units = units
        self.newline = newline
        self.parts: list[str] = []
        self.column = 0
        self.fresh = True  # nothing stands on the line but blanks

    # --- ranges of units ---

    def write_range(self, first: int, last: int, indent: int) -> None:
        """Write units; what does not fit is broken at its brackets, else behind its commas."""
        index = first
        while index < last:
            unit = self.units[index]
            if unit.token.key in OPENING and not unit.raw:
                closing = self._closing(index)
                if self._must_break(index, closing) or self._column_before(index) + self._width(index, last) > WIDTH:
                    self._write_broken(index, closing, indent)
                else:
                    for inside in range(index, closing + 1):
                        self.put(inside, indent + INDENT)
                index = closing + 1
                continue
            if index > first and self._ends_item(index - 1) and self._overflows(index, last):
                self.start_line(index, indent + INDENT)
            self.put(index, indent + INDENT)
            index += 1

    def _write_broken(self, opening: int, closing: int, indent: int) -> None:
        """Write a list in brackets over lines."""
        self.put(opening, indent + INDENT)
        items = self._items(opening + 1, closing)
        fills = all(last - first <= 2 and not self.units[first].raw for first, last in items)
        for number, (first, last) in enumerate(items):
            if number == 0 or not fills or self.units[first].comments or self._overflows(first, last):
                self.start_line(first, indent + INDENT)
            self.write_range(first, last, indent + INDENT)
        self.start_line(closing, indent)
        self.put(closing)

    # --- one unit ---

    def put(self, index: int, indent: int = 0) -> None:
        """Write a unit behind what stands there; ``indent`` is for lines that a comment begins."""
        unit = self.units[index]
        if self.fresh:
            self._add(unit.text)
            return
        must_break, on_own_line = False, False
        for comment in unit.comments:
            on_own_line = must_break or comment.own_line
            must_break = self._put_comment(comment, on_own_line, indent)
        if must_break or on_own_line:
            self._new_line(indent)
        elif index and self._is_apart(index):
            self._add(" ")
        self._add(unit.text)

    def start_line(self, index: int, indent: int) -> None:
        """Begin a line for a unit: the comments of the line before stay there, the others get lines of their own."""
        comments = self.units[index].comments
        count = next((number for number, comment in enumerate(comments) if comment.own_line), len(comments))
        must_break = False
        for comment in comments[:count]:
            must_break = self._put_comment(comment, must_break, indent)
        self._new_line(indent)
        for comment in comments[count:]:
            self._add(comment.text)
            self._new_line(indent)

    def _put_comment(self, comment: _Comment, on_new_line: bool, indent: int) -> bool:
        """Write a comment; gives whether a new line must follow."""
        if on_new_line:
            self._new_line(indent)
        else:
            self._add(" ")
        self._add(comment.text)
        return comment.breaks

    def _new_line(self, indent: int) -> None:
        """Begin a line."""
        self.parts.append(self.newline + " " * indent)
        self.column, self.fresh = indent, True

    def _add(self, text: str) -> None:
        """Write a text, which may have lines."""
        self.parts.append(text)
        behind = re.split(_BREAK, text)
        self.column = len(behind[-1]) + (self.column if len(behind) == 1 else 0)
        self.fresh = False

    # --- looking ---

    def _is_apart(self, index: int) -> bool:
        """Whether a space stands between a unit and the one before."""
        before, here = self.units[index - 1], self.units[index]
        if not here.raw and here.token.key in _GLUED_BEFORE:
            return False
        return before.raw or before.token.key not in _GLUED_BEHIND | _SIGNS

    def _column_before(self, index: int) -> int:
        """The column at which a unit would begin."""
        return self.column + (index > 0 and not self.fresh and self._is_apart(index))

    def _width(self, first: int, last: int) -> int:
        """The columns that units take on one line, without comments."""
        return sum(len(self.units[index].text) + (index > first and self._is_apart(index)) for index in range(first, last))

    def _overflows(self, first: int, last: int) -> bool:
        """Whether the item that begins here, with its comma, would leave the line."""
        stop = next((index + 1 for index in range(first, last) if self._ends_item(index)), last)
        return self._column_before(first) + self._width(first, stop) > WIDTH

    def _ends_item(self, index: int) -> bool:
        """Whether a unit is a comma."""
        return self.units[index].token.key == "," and not self.units[index].raw

    def _must_break(self, opening: int, closing: int) -> bool:
        """Whether a list has what keeps it from standing on one line."""
        inside = self.units[opening + 1 : closing + 1]
        return any(unit.raw and _BREAK.search(unit.text) for unit in inside) or any(
            comment.own_line or comment.breaks for unit in inside for comment in unit.comments
        )

    def _closing(self, opening: int) -> int:
        """The index of the bracket that closes one."""
        depth = 0
        for index in range(opening, len(self.units)):
            key = "" if self.units[index].raw else self.units[index].token.key
            depth += (key in OPENING) - (key in CLOSING)
            if not depth:
                return index
        return len(self.units) - 1

    def _items(self, first: int, last: int) -> list[tuple[int, int]]:
        """The items of a list, each with its comma."""
        items, depth, start = [], 0, first
        for index in range(first, last):
            key = "" if self.units[index].raw else self.units[index].token.key
            depth += (key in OPENING) - (key in CLOSING)
            if key == "," and not depth:
                items.append((start, index + 1))
                start = index + 1
        return [*items, (start, last)] if start < last else items
