"""Where the shell writes: results to stdout, errors and notices to stderr; colours only on a terminal that wants them."""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TextIO

from sqlml.errors import Error

if TYPE_CHECKING:
    from sqlml.shell.progress import LiveProgress
    from sqlml.shell.run import Result

RED, YELLOW, DIM, RESET = "\x1b[31m", "\x1b[33m", "\x1b[2m", "\x1b[0m"


@dataclass
class Output:
    """The settings a person may change while the shell runs, and printing by them."""

    format: str = "table"
    rows: int | None = 40
    interactive: bool = False
    bars: bool = False
    _printed: bool = False  # a result, so that the next one keeps its distance

    def event(self, event: Mapping[str, Any]) -> None:
        """An event of the connection: notices always, bars where a terminal shows them."""
        if self.bars:
            self._progress(event)
        elif event["event"] == "notice":
            self.notice(str(event["text"]))

    def result(self, result: Result) -> None:
        """Print a result; counts and times only for a person, nothing but the data for a machine."""
        self._end_progress()
        if result.table is not None:
            self._rows(result)
        if self.format == "table" and result.footer:
            self.line(result.footer)
        elif self.interactive and not self._is_document(result):
            self.line(dimmed(summary(result), sys.stdout))
        sys.stdout.flush()

    def line(self, text: str) -> None:
        """A line on stdout."""
        sys.stdout.write(text + "\n")

    def _is_document(self, result: Result) -> bool:
        """Whether it was printed as plain text, whose rows nobody wants counted."""
        from sqlml.shell.render import is_document

        return self.format == "table" and result.table is not None and is_document(result.table, result.kind)

    def _rows(self, result: Result) -> None:
        from sqlml.shell.render import SPACED, Look, render

        assert result.table is not None
        if self._printed and self.format in SPACED and not self.interactive:
            self.line("")
        self._printed = True
        look = Look(terminal_width(), self.rows, has_colour(sys.stdout))
        for line in render(result.table, self.format, look, kind=result.kind):
            self.line(line)

    def error(self, text: str, place: str = "") -> None:
        """``error: …`` on stderr, behind the place in a file."""
        self._end_progress()
        _tell(f"{place}{': ' if place else ''}{coloured('error:', RED, sys.stderr)} {text}")

    def notice(self, text: str) -> None:
        """``notice: …`` on stderr."""
        _tell(f"{coloured('notice:', YELLOW, sys.stderr)} {text}")

    def cancelled(self) -> None:
        """Ctrl-C did its work."""
        self._end_progress()
        _tell("\rcancelled" if sys.stderr.isatty() else "cancelled")  # over the terminal's own ^C

    @cached_property
    def _progress(self) -> LiveProgress:
        from sqlml.shell.progress import LiveProgress

        return LiveProgress(self.notice)

    def _end_progress(self) -> None:
        if self.bars:
            self._progress.close()


def _tell(text: str) -> None:
    """A line on stderr, after everything that was printed before."""
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def summary(result: Result) -> str:
    """``45,211 rows  0.2 s``, or ``ok  12 ms`` where nobody counted."""
    from sqlml.shell.render import count

    rows = result.rowcount if result.table is None else result.table.num_rows
    return f"{'ok' if rows < 0 else count(rows, 'row')}  {duration(result.seconds)}"


def duration(seconds: float) -> str:
    """``12 ms``, ``0.2 s``, ``3 min 20 s``"""
    if seconds < 0.0995:
        return f"{max(seconds * 1000, 1):.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:,} min {rest} s"


def error_text(error: BaseException) -> str:
    """An error as a person should read it; a fault of sqlml itself with the place where it happened."""
    if isinstance(error, Error):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f"\n  at {frames[-1].filename}:{frames[-1].lineno}, please report it" if frames else ""
    return f"a fault of sqlml itself: {type(error).__name__}: {error}{place}"


def terminal_width() -> int | None:
    """The width to draw in: the terminal's, or that of COLUMNS; None where a pipe takes any width."""
    if not sys.stdout.isatty() and not os.environ.get("COLUMNS", "").isdigit():
        return None
    return shutil.get_terminal_size().columns


def has_colour(stream: TextIO) -> bool:
    """Whether a stream is a terminal that takes colours (``NO_COLOR`` and ``TERM=dumb`` say no)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def coloured(text: str, colour: str, stream: TextIO) -> str:
    """The text in a colour, where the stream has colours."""
    return f"{colour}{text}{RESET}" if has_colour(stream) else text


def dimmed(text: str, stream: TextIO) -> str:
    """The text in grey, where the stream has colours."""
    return coloured(text, DIM, stream)
