"""One client's socket: the start-up, then its messages to its backend and the bytes back, at the pace at which the client reads.

The backend's work is done in a thread of the pool; meanwhile the socket is listened to, so that a client that leaves is noticed.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from sqlml.errors import Error, OperationalError
from sqlml.wire import messages as m
from sqlml.wire.backend import Backend, Goodbye, Message
from sqlml.wire.errors import Refused, error_fields
from sqlml.wire.scram import MECHANISM

if TYPE_CHECKING:
    from sqlml.wire.server import WireServer

T = TypeVar("T")
Piece: TypeAlias = "tuple[list[bytes | memoryview], bool, Exception | None]"
"""Some bytes of an answer, whether they are the last, and with what the connection ends."""

log = logging.getLogger("sqlml.wire")

READ_BYTES = 1 << 16
CHUNK_BYTES = 1 << 18
"""So much is encoded before it is handed to the socket."""
LOGIN_SECONDS = 60.0
AGAIN_SECONDS = 0.2
LINGER_SECONDS = 5.0
"""How long a client that is told to go may take to read why."""


class Left(Exception):
    """The client has gone."""


class Connection:
    """One client, from its first byte to its last."""

    def __init__(self, server: WireServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, received: bytes) -> None:
        """``received``: what the client has said already."""
        self._server = server
        self._reader = reader
        self._writer = writer
        self._buffer = bytearray(received)
        self._loop = asyncio.get_running_loop()
        self.backend: Backend | None = None
        self.process = 0
        self.secret = 0
        self.peer = str(writer.get_extra_info("peername") or "?")
        self._encrypted = writer.get_extra_info("ssl_object") is not None
        self._stopping = False
        self._running = False
        self._timer: asyncio.TimerHandle | None = None

    async def serve(self) -> None:
        """Serve until either side ends it."""
        try:
            async with asyncio.timeout(LOGIN_SECONDS):
                entered = await self._enter()
            if entered:
                await self._converse()
        except Left:
            log.debug("%s left", self.peer)
        except TimeoutError:
            await self._refuse(Refused("canceling authentication due to timeout", "57014", fatal=True))
        except Refused as error:
            await self._refuse(error)
        except OperationalError as error:
            await self._refuse(Refused(error.message, "58000", fatal=True, hint=error.hint))
        except (ConnectionError, asyncio.IncompleteReadError):
            log.debug("%s broke off", self.peer)
        except Exception:
            log.exception("%s: the connection failed", self.peer)
            await self._refuse(Refused("internal error: the server's log has it", "XX000", fatal=True))
        finally:
            await self._leave()

    async def stop(self) -> None:
        """The server ends: tell the client, stop what runs."""
        self._stopping = True
        if self.backend is not None:
            self.cancel("terminating connection due to administrator command")
        if not self._running:
            await self._refuse(Refused("terminating connection due to administrator command", "57P01", fatal=True))
            self._writer.close()

    def cancel(self, reason: str, statement: int | None = None) -> None:
        """Stop the statement that runs; told again until it is over, for an interrupt that comes before it has begun is lost."""
        told = None if self.backend is None else self.backend.cancel(reason, statement)
        if told is not None:
            self._loop.call_later(AGAIN_SECONDS, self.cancel, reason, told)

    # --- the start ----------------------------------------------------------------------------------------------------------

    async def _enter(self) -> bool:
        """The start-up, up to the first ReadyForQuery; False for a request to cancel, which is all of its connection."""
        while True:
            code, body = await self._startup()
            if code == m.CANCEL_REQUEST:
                reader = m.Body(body)
                self._server.cancel(reader.uint32(), reader.uint32())
                return False
            if code == m.GSSENC_REQUEST:
                await self._send(b"N")
            elif code == m.SSL_REQUEST:
                await self._secure()
            elif code >> 16 == 3:
                break
            else:
                raise Refused(
                    f"unsupported frontend protocol {code >> 16}.{code & 0xFFFF}: server supports 3.0", "0A000", fatal=True
                )
        parameters = m.read_startup(body)
        unknown = [name for name in parameters if name.startswith("_pq_.")]
        if code & 0xFFFF or unknown:
            await self._send(m.negotiate_version(unknown))
        user = parameters.get("user", "")
        if not user:
            raise Refused("no PostgreSQL user name specified in startup packet", "28000", fatal=True)
        await self._authenticate(user)
        database = parameters.get("database", "") or user
        self._server.admit(self, database, given="database" in parameters)
        async with self._server.opening:
            self.backend = await self._in_thread(self._server.open_backend, parameters, self._encrypted, self._tell)
        self.backend.settings.process = self.process
        self.backend.on_statement = self._statement_begins
        greeting = b"".join(self.backend.greeting())
        await self._send(m.authentication(0) + greeting + m.backend_key(self.process, self.secret) + m.ready("I"))
        log.info("%s came in as %s", self.peer, user)
        return True

    async def _startup(self) -> tuple[int, bytes]:
        head = await self._exactly(8)
        length, code = struct.unpack(">II", head)
        if not 8 <= length <= m.STARTUP_BYTES:
            raise Refused("invalid length of startup packet", "08P01", fatal=True)
        return code, await self._exactly(length - 8)

    async def _secure(self) -> None:
        context = self._server.tls
        if context is None or self._encrypted:
            await self._send(b"N")
            return
        if self._buffer:
            raise Refused("received unencrypted data after SSL request", "08P01", fatal=True)
        await self._send(b"S")
        await self._writer.start_tls(context)
        self._encrypted = True

    async def _authenticate(self, user: str) -> None:
        if self._server.tls is not None and self._server.tls_required and not self._encrypted:
            raise Refused("this server wants an encrypted connection", "28000", fatal=True, hint="sslmode=require")
        users = self._server.users
        if users is None:
            return
        exchange = users.exchange(user)
        await self._send(m.authentication(10, MECHANISM.encode() + b"\0\0"))
        kind, body = await self._message(10_000)
        reader = m.Body(body)
        if kind != b"p" or reader.text() != MECHANISM:
            raise Refused("expected SASL response with SCRAM-SHA-256", "08P01", fatal=True)
        size = reader.int32()
        first = reader.take(max(size, 0)).decode("ascii", "replace")
        await self._send(m.authentication(11, exchange.challenge(first).encode()))
        kind, body = await self._message(10_000)
        if kind != b"p":
            raise Refused("expected SASL response", "08P01", fatal=True)
        last = exchange.finish(body.decode("ascii", "replace"))
        if last is None:
            log.warning("%s: password authentication failed for user %s", self.peer, user)
            raise Refused(f'password authentication failed for user "{user}"', "28P01", fatal=True)
        await self._send(m.authentication(12, last.encode()))

    # --- messages -------------------------------------------------------------------------------------------------------------

    async def _converse(self) -> None:
        assert self.backend is not None
        while True:
            received = self._complete()
            while not received:
                await self._hear()
                received = self._complete()
            self._running = True
            try:
                await self._answer(self.backend, received)
            finally:
                self._running = False
            if self._stopping:
                raise Refused("terminating connection due to administrator command", "57P01", fatal=True)

    async def _hear(self) -> None:
        """More bytes from the client, within the time that it may be idle."""
        assert self.backend is not None
        settings, status = self.backend.settings, self.backend.transaction.status
        name = "idle_session_timeout" if status == "I" else "idle_in_transaction_session_timeout"
        seconds = settings.milliseconds(name) / 1000
        try:
            async with asyncio.timeout(seconds or None):
                await self._more()
        except TimeoutError:
            reason = "idle-session timeout" if status == "I" else "idle-in-transaction timeout"
            code = "57P05" if status == "I" else "25P03"
            raise Refused(f"terminating connection due to {reason}", code, fatal=True) from None

    def _complete(self) -> list[Message]:
        """The messages that are wholly there."""
        found: list[Message] = []
        buffer, at = self._buffer, 0
        while len(buffer) - at >= 5:
            length = int.from_bytes(buffer[at + 1 : at + 5], "big")
            if not 4 <= length <= m.MESSAGE_BYTES:
                raise Refused("invalid message length", "08P01", fatal=True)
            end = at + 1 + length
            if len(buffer) < end:
                break
            found.append((bytes(buffer[at : at + 1]), bytes(buffer[at + 5 : end])))
            at = end
        if at:
            del buffer[:at]
        return found

    async def _answer(self, backend: Backend, received: list[Message]) -> None:
        """What the backend says to messages, a piece at a time; the client sets the pace."""
        answer = backend.receive(received)
        step = self._piece_of(answer)
        try:
            while True:
                await self._listening(step)
                pieces, is_over, farewell = step.result()
                if not is_over:
                    step = self._piece_of(answer)  # the next is made while this one is sent
                for piece in pieces:
                    self._writer.write(piece)
                await self._drained(backend)
                if farewell is not None:
                    raise farewell
                if is_over:
                    return
        finally:
            self._time_statement(0)
            while not step.done():
                backend.cancel("the client has gone")
                await asyncio.wait([step], timeout=0.2)

    def _time_statement(self, seconds: float) -> None:
        """A statement begins, and may take so long; 0: any time, or none runs any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if seconds and self.backend is not None:
            self._timer = self._loop.call_later(seconds, self.cancel, "canceling statement due to statement timeout")

    def _statement_begins(self, seconds: float) -> None:
        """From the backend's thread."""
        if seconds or self._timer is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._time_statement, seconds)

    def _piece_of(self, answer: Iterator[bytes | memoryview]) -> asyncio.Future[Piece]:
        return asyncio.ensure_future(self._in_thread(_piece, answer))

    async def _listening(self, step: asyncio.Future[Any]) -> None:
        """Wait for the backend, and notice a client that goes."""
        while not step.done():
            if len(self._buffer) > READ_BYTES:  # it has said enough for now
                await asyncio.wait([step])
                return
            hear = asyncio.ensure_future(self._reader.read(READ_BYTES))
            await asyncio.wait([step, hear], return_when=asyncio.FIRST_COMPLETED)
            if not hear.done():
                hear.cancel()
                with suppress(asyncio.CancelledError):
                    await hear
                return
            data = b""
            with suppress(ConnectionError):
                data = hear.result()
            if not data:
                await self._abandoned(step)
            self._buffer += data

    async def _abandoned(self, step: asyncio.Future[Any]) -> None:
        """The client has gone while a statement runs: a job of ours goes on, unless it shall not; all else is stopped."""
        backend = self.backend
        assert backend is not None
        keeps = backend.settings.get("on_disconnect") == "keep"
        while not step.done():
            if not (keeps and backend.trains):
                backend.cancel("the client has gone")
            await asyncio.wait([step], timeout=0.2)
        raise Left

    async def _drained(self, backend: Backend) -> None:
        try:
            await self._writer.drain()
        except ConnectionError:
            raise Left from None

    def _tell(self, data: bytes) -> None:
        """Send something at once, from the backend's thread."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._write_now, data)

    def _write_now(self, data: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(data)

    # --- bytes ----------------------------------------------------------------------------------------------------------------

    async def _message(self, most: int) -> Message:
        head = await self._exactly(5)
        length = int.from_bytes(head[1:], "big")
        if not 4 <= length <= most:
            raise Refused("invalid message length", "08P01", fatal=True)
        return head[:1], await self._exactly(length - 4)

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._more()
        found = bytes(self._buffer[:size])
        del self._buffer[:size]
        return found

    async def _more(self) -> None:
        data = await self._reader.read(READ_BYTES)
        if not data:
            raise Left
        self._buffer += data

    async def _send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        return await self._loop.run_in_executor(self._server.pool, function, *arguments)

    async def _refuse(self, error: Error) -> None:
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                await self._send(m.error_response(error_fields(error)))

    async def _leave(self) -> None:
        self._server.forget(self)
        backend, self.backend = self.backend, None
        if backend is not None:
            await self._in_thread(backend.close)
        self._writer.close()
        with suppress(ConnectionError, TimeoutError, OSError):
            async with asyncio.timeout(LINGER_SECONDS):
                await self._writer.wait_closed()


def _piece(answer: Iterator[bytes | memoryview]) -> Piece:
    """The next bytes of an answer, whether they are the last, and with what the connection ends."""
    pieces: list[bytes | memoryview] = []
    size = 0
    try:
        for piece in answer:
            pieces.append(piece)
            size += len(piece)
            if size >= CHUNK_BYTES:
                return pieces, False, None
    except Goodbye:
        return pieces, True, Left()
    except Refused as error:  # was told already
        return pieces, True, Left() if error.fatal else error
    return pieces, True, None
