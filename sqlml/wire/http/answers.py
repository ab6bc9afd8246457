"""A statement run, and its answer: a head, then bytes, a batch at a time.  No I/O; pulled in a thread of the pool.

SqlRequest → session → Arrow batches → {"kind": …, "columns": […], "rows": […], …} | an Arrow stream

Of several statements JSON has the last one's result, with the others' in ``earlier``; Arrow one stream behind the other.
"""

from __future__ import annotations

import io
import json
import logging
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from sqlml_dialect import Span

from sqlml.errors import Error
from sqlml.registry import missing_extra
from sqlml.wire.desk import Desk
from sqlml.wire.http.errors import error_fields, error_json, status_of
from sqlml.wire.http.requests import ARROW, JSON, SqlRequest
from sqlml.wire.tags import parsed

if TYPE_CHECKING:
    import pyarrow as pa

    from sqlml.session import Session
    from sqlml.statements.result import Result

MEMORY_BYTES = 1 << 20
"""So much of earlier results is kept in memory."""
log = logging.getLogger("sqlml.wire")


@dataclass(frozen=True)
class Head:
    """What an answer begins with."""

    status: int
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()


class Broken(Exception):
    """The answer cannot be brought to its end, and its form has no way to say so: the connection is broken off."""


Answer = Generator[Head | bytes, None, None]


def answer(desk: Desk, request: SqlRequest) -> Answer:
    """Run the statements of a request one after another; the results of all, the last one's as it comes."""
    form: JsonRows | ArrowRows | None = None
    earlier = Earlier(arrow=request.arrow)
    try:
        with desk.running(request.statement):
            *before, last = _pieces(request)
            for piece in before:
                kind, result = _run(desk, request, piece)
                earlier.keep(kind, result, desk.session)
            kind, result = _run(desk, request, last)
            batches = _peeked(result)
            form = ArrowRows(result) if request.arrow and result.columns is not None else JsonRows(kind, result, earlier)
            yield Head(200, form.content_type)
            if isinstance(form, ArrowRows):
                yield from earlier.bytes()
            yield from form.rows(batches)
            yield from form.end(desk.session.notices)
    except Exception as error:
        shown = missing_extra(error) if isinstance(error, ModuleNotFoundError) else error
        if not isinstance(shown, Error):
            log.exception("a statement failed")
        yield from form.failed(shown) if form is not None else refusal(shown)
    finally:
        earlier.close()


def _pieces(request: SqlRequest) -> list[Span]:
    """Where each statement stands.  Values are for one statement: several with values are left to the session to refuse."""
    whole = (0, len(request.statement))
    if request.parameters:
        return [whole]
    return [statement.span for statement in parsed(request.statement)] or [whole]


def _run(desk: Desk, request: SqlRequest, piece: Span) -> tuple[str, Result]:
    try:
        return desk.session.execute(request.statement[slice(*piece)], request.parameters)
    except Error as error:
        raise error.moved(request.statement, piece[0]) from None


class Earlier:
    """The results of all statements but the last, complete, until that one's begins; large ones are kept in a file."""

    def __init__(self, *, arrow: bool) -> None:
        self._arrow = arrow
        self._file = tempfile.SpooledTemporaryFile(MEMORY_BYTES, prefix="sqlml-results-")  # noqa: SIM115 - closed by close
        self.count = 0

    def keep(self, kind: str, result: Result, session: Session) -> None:
        """Run a result to its end.  Of those that Arrow is to hold, the ones without rows are not told."""
        batches = result.batches or iter(())
        if self._arrow and result.columns is None:
            return
        form = ArrowRows(result) if self._arrow else JsonRows(kind, result)
        if self.count and not self._arrow:
            self._file.write(b",\n")
        for piece in chain(form.rows(batches), form.end(session.notices)):
            self._file.write(piece)
        self.count += 1

    def bytes(self) -> Iterator[bytes]:
        """What was kept: objects with commas between them, or streams one behind the other."""
        self._file.seek(0)
        while piece := self._file.read(MEMORY_BYTES):
            yield piece

    def close(self) -> None:
        self._file.close()


def refusal(error: Exception) -> Answer:
    """An answer that is an error."""
    yield Head(status_of(error), JSON, getattr(error, "headers", ()))
    yield error_json(error) + b"\n"


def _peeked(result: Result) -> Iterator[pa.RecordBatch]:
    """The result's batches, of which the first is there already, so that most errors come before the answer begins."""
    if result.batches is None:
        return iter(())
    first = next(result.batches, None)
    return iter(()) if first is None else chain([first], result.batches)


class JsonRows:
    """An object with the rows in it; an error that comes after the first rows is its last key."""

    content_type = JSON

    def __init__(self, kind: str, result: Result, earlier: Earlier | None = None) -> None:
        self._kind = kind
        self._result = result
        self._earlier = earlier
        self._count = 0

    def rows(self, batches: Iterator[pa.RecordBatch]) -> Iterator[bytes]:
        if self._earlier is not None and self._earlier.count:
            yield b'{"earlier": [\n'
            yield from self._earlier.bytes()
            yield b"],\n" + f'"kind": {json.dumps(self._kind)}'.encode()
        else:
            yield f'{{"kind": {json.dumps(self._kind)}'.encode()
        columns = self._result.columns
        if columns is None:
            return
        from sqlml.wire.http.rows import json_rows

        told = [{"name": column.name, "type": column.sql_type} for column in columns]
        yield f', "columns": {json.dumps(told, ensure_ascii=False)}, "rows": ['.encode()
        between = b"\n"
        for batch in batches:
            for piece in json_rows(batch, columns):
                yield between + piece
                between = b",\n"
            self._count += batch.num_rows

    def end(self, notices: list[str]) -> Iterator[bytes]:
        yield self._tail({"notices": notices} if notices else {})

    def failed(self, error: Exception) -> Iterator[bytes]:
        yield self._tail({"error": error_fields(error)})

    def _tail(self, more: dict[str, Any]) -> bytes:
        has_rows = self._result.columns is not None
        counted = self._count if has_rows else self._result.rowcount
        fields: dict[str, Any] = {"rowcount": None if counted < 0 else counted}
        if self._result.footer:
            fields["footer"] = self._result.footer
        text = json.dumps(fields | more, ensure_ascii=False)
        return ("\n], " if has_rows else ", ").encode() + text[1:].encode() + b"\n"


class ArrowRows:
    """Arrow's own stream; what is said beside the rows is left out, and an error after the first rows breaks it off."""

    content_type = ARROW

    def __init__(self, result: Result) -> None:
        self._schema = result.schema

    def rows(self, batches: Iterator[pa.RecordBatch]) -> Iterator[bytes]:
        import pyarrow as pa

        sink = _Sink()
        with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), self._schema) as writer:
            yield sink.taken()
            for batch in batches:
                writer.write_batch(batch)
                yield sink.taken()
        yield sink.taken()

    def end(self, notices: list[str]) -> Iterator[bytes]:
        yield b""

    def failed(self, error: Exception) -> Iterator[bytes]:
        log.warning("an Arrow stream was broken off: %s", error)
        raise Broken


class _Sink(io.RawIOBase):
    """A file whose bytes are taken away as they come."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(self._pieces[-1])

    def taken(self) -> bytes:
        """What was written since the last time."""
        found, self._pieces = b"".join(self._pieces), []
        return found
