"""A statement run, and its answer: a head, then bytes, a batch at a time.  No I/O; pulled in a thread of the pool.

SqlRequest → session → Arrow batches → {"kind": …, "columns": […], "rows": […], …} | an Arrow stream
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from sqlml.errors import Error
from sqlml.registry import missing_extra
from sqlml.wire.desk import Desk
from sqlml.wire.http.errors import error_fields, error_json, status_of
from sqlml.wire.http.requests import ARROW, JSON, SqlRequest

if TYPE_CHECKING:
    import pyarrow as pa

    from sqlml.statements.result import Result

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
    """Run the statements of a request; the last one's result."""
    form: JsonRows | ArrowRows | None = None
    try:
        with desk.running(request.statement):
            kind, result = desk.session.execute(request.statement, request.parameters)
            batches = _peeked(result)
            form = ArrowRows(result) if request.arrow and result.columns is not None else JsonRows(kind, result)
            yield Head(200, form.content_type)
            yield from form.rows(batches)
            yield from form.end(desk.session.notices)
    except Exception as error:
        shown = missing_extra(error) if isinstance(error, ModuleNotFoundError) else error
        if not isinstance(shown, Error):
            log.exception("a statement failed")
        yield from form.failed(shown) if form is not None else refusal(shown)


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

    def __init__(self, kind: str, result: Result) -> None:
        self._kind = kind
        self._result = result
        self._count = 0

    def rows(self, batches: Iterator[pa.RecordBatch]) -> Iterator[bytes]:
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
