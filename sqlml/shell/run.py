"""Running one statement for a person: timed, and cancelled by Ctrl-C.  The shell and the notebook both stand on it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlml_dialect.tokens import Kind, scan, split_statements

if TYPE_CHECKING:
    import pyarrow as pa

    from sqlml.dbapi import Connection


@dataclass(frozen=True)
class Result:
    """What a statement gave: rows, or a count of rows (-1: unknown), and a footer to print below."""

    table: pa.Table | None
    rowcount: int
    footer: str | None
    kind: str
    seconds: float
    interrupted: bool = False


class Cancelled(Exception):
    """The statement was cancelled by Ctrl-C."""


class Piece(NamedTuple):
    """One statement of a script and where it begins."""

    text: str
    start: int


def split(text: str) -> list[Piece]:
    """The statements of a script, without the semicolons between them."""
    return [Piece(text[piece.start : piece.end], piece.start) for piece in split_statements(text)]


def is_complete(text: str) -> bool:
    """Whether the text ends a statement: its last token is a semicolon, and no string or comment is open."""
    last = None
    for token in scan(text):
        last = token
    return last is None or (last.kind is Kind.SYMBOL and last.key == ";")


def parameter_names(text: str) -> tuple[str, ...]:
    """The named parameters of a statement: ``$limit`` gives ``limit``."""
    params = [token.text[1:] for token in scan(text) if token.kind is Kind.PARAM and token.text.startswith("$")]
    return tuple(dict.fromkeys(name for name in params if not name.isdigit()))


def run_statement(connection: Connection, text: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Result:
    """Run one statement.  ``Cancelled`` where Ctrl-C ended it; the connection lives on."""
    started = time.perf_counter()
    with cancel_on_interrupt(connection) as presses, connection.cursor() as cursor:
        try:
            cursor.execute(text, parameters)
            table = None if cursor.description is None else cursor.fetch_arrow_table()
        except (Exception, KeyboardInterrupt) as error:
            if presses:
                raise Cancelled from error
            raise
        seconds = time.perf_counter() - started
        return Result(table, cursor.rowcount, cursor.footer, cursor.kind or "sql", seconds, bool(presses))


@contextmanager
def cancel_on_interrupt(connection: Connection) -> Iterator[list[int]]:
    """While the block runs the first Ctrl-C cancels the statement and the second raises KeyboardInterrupt; yields the presses."""
    presses: list[int] = []

    def cancel(number: int, frame: FrameType | None) -> None:
        presses.append(number)
        if len(presses) > 1:
            raise KeyboardInterrupt
        connection.interrupt()

    if threading.current_thread() is not threading.main_thread():
        yield presses
        return
    before = signal.signal(signal.SIGINT, cancel)
    try:
        yield presses
    finally:
        signal.signal(signal.SIGINT, before)
