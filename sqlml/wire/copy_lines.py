"""What a client sent for COPY FROM STDIN as text or CSV, read record by record: only to tell what is wrong with it.

Work grows with the bytes and memory with the longest line that the database reads, whatever the quotes are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, NamedTuple

from sqlml_dialect.tokens import name_value, scan

if TYPE_CHECKING:
    from sqlml.types import Column
    from sqlml.wire.copying import Format

LINE_BYTES = 64 << 20
"""The longest record that the database reads; of a longer one it says so itself."""
SHOWN = 100
"""So many characters of a line or a value are told."""
_TOLD_BYTES = 4 * (SHOWN + 2)
_PIECE = 1 << 20
"""So many bytes of a line are read at once."""


class Record(NamedTuple):
    """A line, or several where a quoted value goes on: as it came, and its values (None: NULL)."""

    number: int
    raw: bytes
    values: list[str | None]


class Unterminated(Exception):
    """A quote that is open at the end of the file; ``record``: where it begins to be told, without values."""

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.record = record


class Quotes:
    """Whether a quote of CSV is open behind the bytes that were given, in pieces of any size; never one in text."""

    def __init__(self, form: Format) -> None:
        self.is_open = False
        self._csv = form.name == "csv"
        self._quote, self._escape = form.quote.encode(), form.escape.encode()
        quote, escape = re.escape(self._quote), re.escape(self._escape)
        self._marks = re.compile(b"%s[%s%s]|%s|%s\\Z" % (escape, escape, quote, quote, escape))
        self._escaping = False  # the last byte was an escape that stands for nothing yet

    def feed(self, data: bytes) -> None:
        if not self._csv or (not self.is_open and self._quote not in data):
            return
        if self._quote == self._escape:
            self.is_open ^= bool(data.count(self._quote) % 2)
            return
        if self._escaping:
            data = self._escape + data
        self._escaping = False
        for mark in self._marks.finditer(data):
            if not mark[0].startswith(self._escape):
                self.is_open = not self.is_open
            elif not self.is_open:  # an escape is a letter as any other there
                self.is_open = mark[0].endswith(self._quote)
            elif len(mark[0]) == 1:
                self._escaping = True


@dataclass(frozen=True)
class Sent:
    """The file, and what it is for.  ``check`` is called as it is read, and raises where the statement was cancelled."""

    file: IO[bytes]
    target: str
    columns: Sequence[Column]
    form: Format
    check: Callable[[], None]

    @property
    def table(self) -> str:
        """The name alone of ``schema.t (a, b)``."""
        names = [token for token in scan(self.target.partition("(")[0]) if token.text != "."]
        return name_value(names[-1]) if names else self.target

    def is_header(self, record: Record) -> bool:
        return self.form.header and record.number == 1

    def rows(self) -> Iterator[Record]:
        """The records but for the header.  ``Unterminated`` where a quote is never closed."""
        return (record for record in self.records() if not self.is_header(record))

    def records(self) -> Iterator[Record]:
        """All but those that are too long for the database.  ``Unterminated`` where a quote is never closed."""
        split = _split_csv if self.form.name == "csv" else _split_text
        for number, line in self._lines():
            raw = line.removesuffix(b"\n").removesuffix(b"\r")
            yield Record(number, raw, split(raw.decode(errors="replace"), self.form))

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Lines with their numbers, several as one where a quote is open at the end of the first.

        They are counted as PostgreSQL counts them: lines in quotes too, but for those of the very first row, before which it
        knows no line's end.
        """
        self.file.seek(0)
        quotes, number = Quotes(self.form), 0
        kept, size, ends = bytearray(), 0, 0
        while piece := self.file.readline(_PIECE):
            self.check()
            quotes.feed(piece)
            size += len(piece)
            if size <= LINE_BYTES:
                kept += piece
            else:
                del kept[_TOLD_BYTES:]
            is_end = piece.endswith(b"\n")
            ends += is_end
            if is_end and not quotes.is_open:
                number += ends if number else 1
                if size <= LINE_BYTES:
                    yield number, bytes(kept)
                kept, size, ends = bytearray(), 0, 0
        if quotes.is_open:
            raise Unterminated(Record(number + 1 + (ends if number else 0), bytes(kept[:_TOLD_BYTES]), []))
        if 0 < size <= LINE_BYTES:
            yield number + 1, bytes(kept)


def _split_text(line: str, form: Format) -> list[str | None]:
    if "\\" not in line:
        fields = line.split(form.delimiter)
    else:
        fields, field, escaped = [], "", False
        for letter in line:
            if letter == form.delimiter and not escaped:
                fields.append(field)
                field = ""
            else:
                field += letter
            escaped = letter == "\\" and not escaped
        fields.append(field)
    return [None if field == form.null else _unescaped(field) for field in fields]


_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def _unescaped(field: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), field) if "\\" in field else field


def _split_csv(line: str, form: Format) -> list[str | None]:
    if form.quote not in line:
        return [None if field == form.null else field for field in line.split(form.delimiter)]
    quote, escape, delimiter = map(re.escape, (form.quote, form.escape, form.delimiter))
    outside = re.compile(f"{quote}|{delimiter}|[^{quote}{delimiter}]+")
    inside = re.compile(f"{escape}[{escape}{quote}]|{quote}|{escape}|[^{escape}{quote}]+")
    fields: list[str | None] = []
    parts: list[str] = []
    quoted, is_inside, at = False, False, 0
    while match := (inside if is_inside else outside).match(line, at):
        token, at = match[0], match.end()
        if token == form.quote:
            is_inside, quoted = not is_inside, True
        elif token == form.delimiter and not is_inside:
            fields.append(_csv_value(parts, quoted, form))
            parts, quoted = [], False
        elif is_inside and len(token) == 2 and token[0] == form.escape:
            parts.append(token[1])
        else:
            parts.append(token)
    return [*fields, _csv_value(parts, quoted, form)]


def _csv_value(parts: list[str], quoted: bool, form: Format) -> str | None:
    value = "".join(parts)
    return None if value == form.null and not quoted else value
