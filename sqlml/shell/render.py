"""A result as text: a table for people, CSV, JSON and markdown for machines.

    pyarrow.Table → lines

Every function yields lines without their ends, so that a long result reaches a pipe as it is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("table", "csv", "json", "markdown")
SPACED = ("csv", "markdown")
"""The formats in which two results need an empty line between them; JSON documents follow one another as they are."""
ROWS = 40
"""How many rows a table shows where nothing else is asked for."""

BAR = 18
_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
_BATCH = 10_000
_NARROWEST = 20
_TEXTS = frozenset({"statement", "text"})  # last columns of SHOW CREATE MODEL and SHOW LOGS: to be read and copied whole
_ENDING = (
    2  # the last columns stay in sight: they are often what was asked for, as in SELECT *, PREDICT(m) AS y, PREDICT_PROBA(m) AS p
)
_SPECIAL = re.compile(r'[,"\r\n]|^\s|\s$|^$')


@dataclass(frozen=True)
class Look:
    """How a table is drawn: the terminal's width (None: as wide as it likes), the most rows (None: all), colours or none."""

    width: int | None = None
    rows: int | None = ROWS
    colour: bool = False


@dataclass(frozen=True)
class Column:
    """A column ready to be drawn; ``texts`` has None for NULL."""

    header: str
    texts: list[str | None]
    right: bool

    @property
    def width(self) -> int:
        return max([cells_wide(self.header), *(cells_wide("NULL" if text is None else text) for text in self.texts)])


def render(table: pa.Table, style: str, look: Look = Look(), *, kind: str = "sql") -> Iterator[str]:
    """A result in one of FORMATS; ``kind`` is the statement's kind, which decides about bars and plain text."""
    if style == "csv":
        return csv_lines(table)
    if style == "json":
        return json_lines(table)
    if style == "markdown":
        return markdown_lines(table)
    return table_lines(table, look, kind=kind)


# --- for people -----------------------------------------------------------------------------------------------------


def table_lines(table: pa.Table, look: Look = Look(), *, kind: str = "sql") -> Iterator[str]:
    """A table in a box; a result that is one long text (a plan, a statement) as that text."""
    if is_document(table, kind):
        yield from _document_lines(table)
        return
    top = table if look.rows is None or kind == "describe" else table.slice(0, look.rows)
    columns, hidden = _fitted(columns_of(top, kind), look.width)
    yield from _box(columns, top.num_rows, look.colour)
    left_out = table.num_rows - top.num_rows
    if left_out:
        yield f"… {count(left_out, 'more row')}"
    if hidden:
        yield _hidden_line(hidden, look.width)


def count(number: int, unit: str) -> str:
    """``1 row``, ``45,211 rows``"""
    return f"{number:,} {unit}{'' if number == 1 else 's'}"


def cells_wide(text: str) -> int:
    """How many cells of a terminal a text takes: two for 語 and 🙂, none for a combining accent."""
    if text.isascii():  # most are, and the tables of widths take their time to be read
        return len(text)
    from wcwidth import wcswidth

    return max(wcswidth(text), 0)


def cut(text: str, width: int) -> str:
    """The text in at most so many cells, with … where something was taken away."""
    if cells_wide(text) <= width:
        return text
    from wcwidth import wcwidth

    used, kept = 0, []
    for character in text:
        used += max(wcwidth(character), 0)
        if used > width - 1:
            break
        kept.append(character)
    return "".join(kept) + "…"


def columns_of(table: pa.Table, kind: str = "sql") -> list[Column]:
    """The columns as texts; the importance of features (kind ``explain_model``) also as bars."""
    from sqlml.shell.values import is_numeric, shown

    pairs = list(zip(table.column_names, table.columns, strict=True))
    columns = [Column(_one_line(name), shown(name, column), is_numeric(column.type)) for name, column in pairs]
    if kind == "explain_model" and "feature" in table.column_names and "importance" in table.column_names:
        columns.append(Column("", bars(table.column("importance").to_pylist()), False))
    return columns


def bars(values: Sequence[float | None]) -> list[str | None]:
    """Values as bars, the largest BAR cells long."""
    largest = max((value for value in values if value), default=0.0)
    return [_bar((value or 0.0) / largest) if largest > 0 else "" for value in values]


def _bar(share: float) -> str:
    whole, part = divmod(round(max(share, 0.0) * BAR * 8), 8)
    return "█" * whole + _EIGHTHS[part]


def _one_line(text: str) -> str:
    return " ".join(text.split()) if "\n" in text else text


def _document_lines(table: pa.Table) -> Iterator[str]:
    from sqlml.shell.values import visible

    for text in table.column(table.num_columns - 1).to_pylist():
        for line in str(text or "").rstrip().split("\n"):
            yield visible(line.rstrip("\r").expandtabs(4))


def is_document(table: pa.Table, kind: str) -> bool:
    """Whether a result is a text rather than a table: a plan, a statement, a log, or one row whose last column has lines."""
    import pyarrow.types as t

    if kind == "explain_plan" or (kind == "show" and table.column_names[-1] in _TEXTS):
        return True
    if table.num_rows != 1 or table.num_columns not in (1, 2) or not t.is_string(table.schema.types[-1]):
        return False
    return "\n" in (table.column(table.num_columns - 1)[0].as_py() or "").strip()


def _fitted(columns: list[Column], width: int | None) -> tuple[list[Column], list[str]]:
    """The columns as they fit: long texts cut first, then columns in the middle hidden; with the names of those."""
    if width is None:
        return columns, []
    narrow = _narrowed_to(columns, width)
    if _total(narrow) <= width:
        return narrow, []
    gap = Column("…", ["…"] * len(columns[0].texts), False)
    ending = _ending(columns, width - narrow[0].width - 7)  # beside the first column and the gap
    room = width - _total([gap, *ending]) + 1
    right = len(columns) - len(ending)
    left = max([1, *(n for n in range(1, right) if _total(narrow[:n]) <= room)])
    hidden = [column.header for column in columns[left:right]]
    return [*_narrowed_to(columns[:left], room), gap, *ending], hidden


def _ending(columns: list[Column], room: int) -> list[Column]:
    """The last columns in so many cells: two where they fit, however short their texts are cut, else one, else none."""
    for number in range(min(_ENDING, len(columns) - 1), 0, -1):
        for most in (max(room // 2, _NARROWEST), _NARROWEST):
            ending = [_narrowed(column, most) for column in columns[-number:]]
            if _total(ending) <= room:
                return ending
    return []


def _narrowed_to(columns: list[Column], width: int) -> list[Column]:
    """The columns with their texts cut just so far that they fit, or as far as it goes."""
    narrow = columns
    most = max(60, width // 2)
    while _total(narrow) > width and most >= _NARROWEST:
        narrow = [_narrowed(column, most) for column in columns]
        most -= 1
    return narrow


def _narrowed(column: Column, most: int) -> Column:
    if column.right:
        return column
    return Column(cut(column.header, most), [None if text is None else cut(text, most) for text in column.texts], False)


def _total(columns: Sequence[Column]) -> int:
    return sum(column.width + 3 for column in columns) + 1


def _hidden_line(hidden: Sequence[str], width: int | None) -> str:
    line = f"… {count(len(hidden), 'more column')}: {', '.join(hidden)}"
    return line if width is None else cut(line, width)


def _box(columns: Sequence[Column], rows: int, colour: bool) -> Iterator[str]:
    widths = [column.width for column in columns]
    yield _rule(widths, "┌┬┐")
    yield _row([_aligned(column.header, width, column.right) for column, width in zip(columns, widths, strict=True)])
    yield _rule(widths, "├┼┤")
    for index in range(rows):
        yield _row([_cell(column, index, width, colour) for column, width in zip(columns, widths, strict=True)])
    yield _rule(widths, "└┴┘")


def _rule(widths: Sequence[int], corners: str) -> str:
    return corners[0] + corners[1].join("─" * (width + 2) for width in widths) + corners[2]


def _row(cells: Sequence[str]) -> str:
    return "│ " + " │ ".join(cells) + " │"


def _cell(column: Column, index: int, width: int, colour: bool) -> str:
    text = column.texts[index]
    if text is not None:
        return _aligned(text, width, column.right)
    null = _aligned("NULL", width, column.right)
    return f"\x1b[2m{null}\x1b[0m" if colour else null


def _aligned(text: str, width: int, right: bool) -> str:
    space = " " * (width - cells_wide(text))
    return space + text if right else text + space


# --- for machines ---------------------------------------------------------------------------------------------------


def csv_lines(table: pa.Table) -> Iterator[str]:
    """RFC 4180 with a header; NULL is an empty field, an empty text is ``""``."""
    from sqlml.shell.values import csv_texts

    yield ",".join(map(_csv_field, table.column_names))
    for part in _parts(table):
        fields = [[_csv_field(text) for text in csv_texts(column)] for column in part.columns]
        if len(fields) == 1:  # an empty line would be no row to most readers
            fields = [[field or '""' for field in fields[0]]]
        yield from map(",".join, zip(*fields, strict=True))


def _csv_field(text: str | None) -> str:
    if text is None:
        return ""
    return '"' + text.replace('"', '""') + '"' if _SPECIAL.search(text) else text


def json_lines(table: pa.Table) -> Iterator[str]:
    """One JSON document: a list of objects, one to a line; a name that comes twice gets a number, ``a``, ``a_1``."""
    import json

    from sqlml.shell.values import json_texts

    keys = [json.dumps(name, ensure_ascii=False) for name in _distinct(table.column_names)]
    yield "["
    held = None
    for part in _parts(table):
        for row in zip(*map(json_texts, part.columns), strict=True):
            if held is not None:
                yield held + ","
            held = "  {" + ", ".join(f"{key}: {value}" for key, value in zip(keys, row, strict=True)) + "}"
    if held is not None:
        yield held
    yield "]"


def _distinct(names: Sequence[str]) -> list[str]:
    taken: list[str] = []
    for name in names:
        free, number = name, 0
        while free in taken:
            number += 1
            free = f"{name}_{number}"
        taken.append(free)
    return taken


def markdown_lines(table: pa.Table) -> Iterator[str]:
    """A table as GitHub draws it."""
    from sqlml.shell.values import is_numeric, shown

    yield _markdown_row(table.column_names)
    yield _markdown_row(["---:" if is_numeric(data_type) else "---" for data_type in table.schema.types])
    columns = [shown(name, column) for name, column in zip(table.column_names, table.columns, strict=True)]
    for row in zip(*columns, strict=True):
        yield _markdown_row(["NULL" if text is None else text for text in row])


def _markdown_row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;") for text in texts) + " |"


def _parts(table: pa.Table) -> Iterator[pa.Table]:
    """The table in pieces, so that its texts never stand in memory all at once."""
    for start in range(0, table.num_rows, _BATCH):
        yield table.slice(start, _BATCH)
