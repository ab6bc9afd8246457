"""A guest's connection: a session of its own for as long as it lasts, one request after the other, in frames.

The reader hears INTERRUPT and STOP while a statement runs, and that a guest has gone; the rest waits for its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlml.errors import Cancelled, Error, OperationalError
from sqlml.guest import frames as f
from sqlml.guest.errors import error_head
from sqlml.guest.values import values_of
from sqlml.registry import missing_extra
from sqlml.wire.desk import Desk
from sqlml.wire.pump import GONE, LINGER_SECONDS, pump, stop_work

if TYPE_CHECKING:
    from sqlml.session import Session
    from sqlml.wire.server import WireServer

log = logging.getLogger("sqlml.wire")

Bytes: TypeAlias = "list[bytes | memoryview]"
"""A whole frame."""


class GuestConnection:
    """One guest, from the first frame to the last."""

    def __init__(self, server: WireServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._asked: asyncio.Queue[f.Frame | None] = asyncio.Queue()
        self._desk: Desk | None = None
        self._work: asyncio.Future[None] | None = None
        self._cancelling: asyncio.Future[None] | None = None
        self._stopped = False  # by the guest, who wants no more rows
        self._cancels_next = False  # what waits, and has not begun
        self._stops_next = False
        self._ending = False

    async def serve(self) -> None:
        """Answer until the guest leaves."""
        hearing = asyncio.ensure_future(self._hear())
        try:
            while (frame := await self._asked.get()) is not None and not self._ending:
                await self._answer(frame, hearing)
        finally:
            hearing.cancel()
            desk, self._desk = self._desk, None
            if desk is not None:
                await self._loop.run_in_executor(self._server.pool, desk.close)

    async def stop(self) -> None:
        """The server ends: stop what runs, and hang up."""
        self._ending = True
        self._asked.put_nowait(None)
        self._cancel_work("the server ends")
        self._loop.call_later(LINGER_SECONDS, self._writer.transport.abort)  # whoever does not read

    async def _hear(self) -> None:
        """Frames as they come, until the guest has gone."""
        try:
            while True:
                frame = await self._frame()
                if frame.kind in (f.INTERRUPT, f.STOP):
                    self._cancel(stops=frame.kind == f.STOP, gently=bool(frame.head.get("gently")))
                else:
                    self._asked.put_nowait(frame)
        except (asyncio.IncompleteReadError, ConnectionError, ValueError, OperationalError) as error:
            log.debug("a guest has gone: %r", error)
        finally:
            self._asked.put_nowait(None)

    def _cancel(self, *, stops: bool, gently: bool) -> None:
        """Cancel what was asked for, whether it runs already or not; nothing where it is over.

        ``gently``: end it at its next batch; an interrupt would abort the transaction that it is in.
        """
        if not self._asked.empty():  # what ran before it is over for the guest, if not yet here
            self._cancels_next, self._stops_next = self._cancels_next or not gently, self._stops_next or stops
        elif self._work is not None and not self._work.done():
            self._stopped = self._stopped or stops
            if not gently:
                self._cancel_work()

    def _cancel_work(self, reason: str = "cancelled") -> None:
        if self._desk is not None and self._work is not None:
            self._cancelling = asyncio.ensure_future(stop_work(self._desk, self._work, reason))

    async def _frame(self) -> f.Frame:
        frame = f.reading()
        wanted = next(frame)
        try:
            while True:
                wanted = frame.send(await self._reader.readexactly(wanted))
        except StopIteration as done:
            found: f.Frame = done.value
            return found

    # --- answers ------------------------------------------------------------------------------------------------------------

    async def _answer(self, frame: f.Frame, hearing: asyncio.Future[None]) -> None:
        if self._desk is None:
            await self._open(frame)
            return
        desk = self._desk
        cancels, self._stopped = self._cancels_next, self._stops_next
        self._cancels_next = self._stops_next = False
        work = self._work = asyncio.ensure_future(pump(desk, self._server.pool, self._answering(desk, frame), self._send))
        if cancels:
            self._cancel_work()
        await asyncio.wait([work, hearing], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            await stop_work(desk, work, GONE, keeps=True)
            return
        self._work = None
        await work

    async def _open(self, frame: f.Frame) -> None:
        """The session; its first frame must ask for it."""
        try:
            if frame.kind != f.OPEN:
                raise OperationalError("a guest begins with OPEN")
            schema = frame.head.get("schema")
            async with self._server.opening:
                session = await self._loop.run_in_executor(self._server.pool, self._server.open_session, schema)
        except Error as error:
            await self._send([f.pack(f.FAILED, error_head(error))])
            self._asked.put_nowait(None)
            return
        session.on_event = self._tell
        self._desk = Desk(session)
        await self._send([f.pack(f.FINISHED)])

    def _answering(self, desk: Desk, frame: f.Frame) -> Generator[Bytes, None, None]:
        """What is said to a frame; pulled in a thread of the pool."""
        try:
            with desk.running(str(frame.head.get("sql", ""))):
                yield from self._run(desk.session, frame)
        except Exception as error:
            if self._stopped and isinstance(error, Cancelled):
                yield f.pack(f.FINISHED)
                return
            shown = missing_extra(error) if isinstance(error, ModuleNotFoundError) else error
            if not isinstance(shown, Error):
                log.exception("a statement of a guest failed")
            yield f.pack(f.FAILED, error_head(shown))

    def _run(self, session: Session, frame: f.Frame) -> Generator[Bytes, None, None]:
        if frame.kind == f.EXECUTE:
            yield from self._execute(session, frame.head)
            return
        told: dict[str, Any] = {}
        if frame.kind == f.MANY:
            session.execute_many(frame.head["sql"], [values_of(row) for row in frame.head["rows"]])
        elif frame.kind == f.TRANSACTION:
            {"begin": session.begin, "commit": session.commit, "rollback": session.rollback}[frame.head["what"]]()
        elif frame.kind == f.NAMES:
            told["names"] = {name: list(found) for name, found in session.names().items()}
        else:
            raise OperationalError(f"a guest cannot ask for {frame.kind!r}")
        yield f.pack(f.FINISHED, told)

    def _execute(self, session: Session, head: Any) -> Generator[Bytes, None, None]:
        kind, result = session.execute(head["sql"], values_of(head["values"]))
        told = {"kind": kind, "rowcount": result.rowcount, "footer": result.footer}
        if result.columns is None or result.schema is None:
            yield f.pack(f.FINISHED, told)
            return
        columns = [(column.name, column.sql_type, column.kind) for column in result.columns]
        yield f.pack(f.RESULT, told | {"columns": columns}, memoryview(result.schema.serialize()))
        for batch in result.batches or ():
            if self._stopped:
                break
            yield f.pack(f.BATCH, tail=f.batch_bytes(batch))
        if result.batches is not None:
            result.batches.close()
        yield f.pack(f.FINISHED)

    # --- bytes --------------------------------------------------------------------------------------------------------------

    async def _send(self, frames: list[Bytes]) -> None:
        for frame in frames:
            self._write_now(frame)
        await self._writer.drain()

    def _tell(self, event: Any) -> None:
        """An event, at once, from the session's thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._write_now, f.pack(f.EVENT, event))

    def _write_now(self, frame: Bytes) -> None:
        if not self._writer.is_closing():
            for piece in frame:
                self._writer.write(piece)
