"""Scripts: ``-c``, ``-f`` and standard input.  The first error stops them and names its place."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlml_dialect.errors import line_and_column

from sqlml.errors import Error, OperationalError
from sqlml.shell.run import Piece, run_statement, split

if TYPE_CHECKING:
    from sqlml.dbapi import Connection
    from sqlml.shell.output import Output


@dataclass(frozen=True)
class Script:
    """SQL to run; ``name`` is the file's, None for ``-c``."""

    text: str
    name: str | None = None


class ScriptError(Exception):
    """A statement of a file failed; ``place`` is ``road.sql:12:5: statement 4``, the text says why."""

    def __init__(self, place: str, text: str) -> None:
        super().__init__(text)
        self.place = place


def read_script(path: str) -> Script:
    """A file of SQL, or standard input for ``-``.  ``OperationalError`` where it cannot be read."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise OperationalError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise OperationalError(f"cannot read {path}: it is not UTF-8 text (byte {error.start:,})") from error
    return Script(text, "standard input" if path == "-" else path)


def run_script(connection: Connection, script: Script, output: Output) -> None:
    """Run the statements one after the other, printing each result."""
    for number, piece in enumerate(split(script.text), 1):
        try:
            result = run_statement(connection, piece.text)
        except Error as error:
            located = _in_script(error, piece, script)
            if script.name is None:
                raise located from None
            raise ScriptError(f"{script.name}:{_place_of(located, piece, script)}: statement {number}", str(located)) from error
        output.result(result)
        if result.interrupted:
            raise KeyboardInterrupt


def _in_script(error: Error, piece: Piece, script: Script) -> Error:
    """The same error, its place counted from the start of the script."""
    if error.source == piece.text and error.span is not None:
        error.source, error.span = script.text, (error.span[0] + piece.start, error.span[1] + piece.start)
    return error


def _place_of(error: Error, piece: Piece, script: Script) -> str:
    """``line:column`` of the fault, of its statement's beginning where nobody knows better."""
    place = error.span[0] if error.source == script.text and error.span is not None else piece.start
    line, column = line_and_column(script.text, place)
    return f"{line}:{column}"
