"""One HTTP connection: requests in, answers out, a batch at a time; a guest's becomes frames.

The bytes of HTTP are h11's business.  A statement runs in a thread of the pool; meanwhile the socket is listened to, so that a
client that leaves is noticed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

import h11

from sqlml.errors import Error
from sqlml.guest.link import NONCE_HEADER, PROOF_HEADER, PROTOCOL
from sqlml.version import __version__
from sqlml.wire.desk import Desk
from sqlml.wire.errors import Refused
from sqlml.wire.http import requests as r
from sqlml.wire.http.answers import Broken, Head, answer, refusal
from sqlml.wire.http.errors import Rejected
from sqlml.wire.http.guest import GuestConnection
from sqlml.wire.pump import GONE, LINGER_SECONDS, pump, stop_work

if TYPE_CHECKING:
    from sqlml.wire.server import WireServer

T = TypeVar("T")

log = logging.getLogger("sqlml.wire")

READ_BYTES = 1 << 16
HEAD_BYTES = 1 << 15
REQUEST_SECONDS = 60.0
"""How long a request may take to arrive, and a connection may wait for its next."""
DISCARD_SECONDS = 2.0


class HttpConnection:
    """One client, from its first byte to its last."""

    def __init__(self, server: WireServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, received: bytes) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self._http.receive_data(received)
        self.peer = str(writer.get_extra_info("peername") or "?")
        self._encrypted = writer.get_extra_info("ssl_object") is not None
        self._desk: Desk | None = None
        self._work: asyncio.Future[None] | None = None
        self._late: asyncio.Future[None] | None = None  # what ends a statement whose time is over
        self._guest: GuestConnection | None = None
        self._asks_head = False
        self._stopping = False
        self._ending: asyncio.Future[None] | None = None

    async def serve(self) -> None:
        """Serve until either side ends it."""
        try:
            while await self._serve_one():
                continue
        except (ConnectionError, TimeoutError, Broken):
            log.debug("%s broke off", self.peer)
        except Exception:
            log.exception("%s: the connection failed", self.peer)
        finally:
            self._server.forget(self)
            self._writer.close()
            with contextlib.suppress(ConnectionError, TimeoutError, OSError):
                async with asyncio.timeout(5):
                    await self._writer.wait_closed()

    async def stop(self) -> None:
        """The server ends: stop what runs."""
        self._stopping = True
        if self._guest is not None:
            await self._guest.stop()
        elif self._desk is not None and self._work is not None:
            self._ending = asyncio.ensure_future(stop_work(self._desk, self._work, "the server ends"))
            asyncio.get_running_loop().call_later(LINGER_SECONDS, self._writer.transport.abort)  # whoever does not read
        else:
            self._writer.close()

    # --- a request ----------------------------------------------------------------------------------------------------------

    async def _serve_one(self) -> bool:
        """One request and its answer; whether another may follow."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                request = await self._request()
        except h11.RemoteProtocolError as error:
            await self._refuse(Rejected(f"this is no HTTP: {error}", "08P01", error.error_status_hint))
            return False
        except Refused as error:
            await self._refuse(error)
            await self._discard()
            return self._next_cycle()
        if request is None:
            return False
        if isinstance(request, GuestConnection):
            self._guest = request
            await request.serve()
            return False
        await self._run(request)
        return self._next_cycle()

    async def _request(self) -> r.SqlRequest | GuestConnection | None:
        """The next request, or a guest who has come in; None where there is none any more."""
        event = await self._event()
        if not isinstance(event, h11.Request):
            return None
        self._asks_head = event.method == b"HEAD"
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        self._check_way(event)
        has_token = self._knows_token(headers)
        if not has_token:
            await self._let_in(headers)
        if headers.get("upgrade", "").lower() == PROTOCOL:
            return await self._let_guest_in(headers, has_token=has_token)
        r.check_type(headers)
        arrow = r.wants_arrow(headers)
        body = await self._body(headers)
        if len(body) <= READ_BYTES:  # is read more quickly than handed over
            return r.read_body(body, arrow=arrow)
        return await self._in_pool(partial(r.read_body, arrow=arrow), body)

    def _check_way(self, event: h11.Request) -> None:
        r.check_place(event.method.decode(), event.target.decode("latin-1"))
        if self._server.tls_required and not self._encrypted:
            raise Rejected("this server wants an encrypted connection", "28000", 403, hint="https://")

    def _knows_token(self, headers: r.Headers) -> bool:
        """Whether it is a process of this user, which has read the notice."""
        token, owner = r.read_token(headers), self._server.owner
        return token is not None and owner is not None and secrets.compare_digest(token.encode(), owner.token.encode())

    async def _let_in(self, headers: r.Headers) -> None:
        """``Rejected`` for whoever may not come in."""
        users = self._server.users
        r.check_origin(headers, trusts=users is None)
        if users is None:
            return
        if self._server.tls is not None and not self._encrypted:  # nobody is asked for a password in clear where it need not be
            raise Rejected("passwords are not taken in clear: this server has a certificate", "28000", 403, hint="https://")
        login = r.read_login(headers)
        if login is not None and await self._in_pool(users.knows, *login):
            return
        if login is not None:
            log.warning("%s: password authentication failed for user %s", self.peer, login[0])
        shown = "who are you?" if login is None else f'password authentication failed for user "{login[0]}"'
        challenge = (("WWW-Authenticate", 'Basic realm="sqlml", charset="UTF-8"'),)
        raise Rejected(shown, "28P01" if login else "28000", 401, headers=challenge, hint="HTTP Basic: curl -u NAME")

    async def _body(self, headers: r.Headers) -> bytes:
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > r.BODY_BYTES:
            raise _too_large()
        if self._http.they_are_waiting_for_100_continue:
            self._writer.write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
        body = bytearray()
        while True:
            event = await self._event()
            if isinstance(event, h11.EndOfMessage):
                return bytes(body)
            if not isinstance(event, h11.Data):
                raise ConnectionResetError
            body += event.data
            if len(body) > r.BODY_BYTES:
                raise _too_large()

    async def _discard(self) -> None:
        """What is still on its way of a body that nobody wants: unread, it would take the answer with it."""
        read = 0
        with contextlib.suppress(TimeoutError, h11.RemoteProtocolError):
            async with asyncio.timeout(DISCARD_SECONDS):
                while self._http.their_state is h11.SEND_BODY and read <= r.BODY_BYTES:
                    event = await self._event()
                    read += len(event.data) if isinstance(event, h11.Data) else 0

    async def _event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(READ_BYTES))
        return event

    # --- an answer ----------------------------------------------------------------------------------------------------------

    async def _run(self, request: r.SqlRequest) -> None:
        """Run it in a session of its own, unless there is no room."""
        try:
            self._server.enter(self)
            async with self._server.opening:
                desk = self._desk = Desk(await self._in_pool(self._server.open_session, None))
        except Error as error:
            await self._refuse(error)
            return
        work = self._work = asyncio.ensure_future(pump(desk, self._server.pool, answer(desk, request), self._send))
        timer = None
        if request.timeout:
            timer = asyncio.get_running_loop().call_later(request.timeout, self._stop_late, desk, work)
        left = asyncio.ensure_future(self._left())
        try:
            await asyncio.wait([work, left], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work
                self._end_answer()  # nobody waits for the session to be closed
            else:
                await stop_work(desk, work, GONE, keeps=request.keeps)
                raise ConnectionResetError
        finally:
            if timer is not None:
                timer.cancel()
            left.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await left
            self._desk = self._work = None
            await self._in_pool(desk.close)
            self._server.forget(self)

    def _stop_late(self, desk: Desk, work: asyncio.Future[None]) -> None:
        self._late = asyncio.ensure_future(stop_work(desk, work, "the statement has reached its statement_timeout"))

    async def _left(self) -> None:
        """Until the client has gone; what it says meanwhile waits for its turn."""
        while data := await self._reader.read(READ_BYTES):
            self._http.receive_data(data)
            if len(self._http.trailing_data[0]) > r.BODY_BYTES:
                raise ConnectionResetError

    async def _send(self, pieces: list[Head | bytes]) -> None:
        parts: list[h11.Event] = [self._head(piece) for piece in pieces if isinstance(piece, Head)]
        if not self._asks_head:
            parts += [h11.Data(data=piece) for piece in pieces if not isinstance(piece, Head) and piece]
        self._writer.write(b"".join(self._http.send(part) or b"" for part in parts))
        await self._writer.drain()

    def _head(self, head: Head) -> h11.Response:
        headers = [
            ("Content-Type", head.content_type), ("Server", f"sqlml/{__version__}"), ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"), *head.headers,
        ]  # fmt: skip
        reason = HTTPStatus(head.status).phrase.encode()
        return h11.Response(status_code=head.status, headers=headers, reason=reason)

    async def _refuse(self, error: Exception) -> None:
        pieces = list(refusal(error))
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self._send(pieces)

    def _end_answer(self) -> None:
        if self._http.our_state is h11.SEND_BODY:
            self._writer.write(self._http.send(h11.EndOfMessage()) or b"")

    def _next_cycle(self) -> bool:
        """End the answer; whether another request may follow."""
        self._end_answer()
        if self._stopping or self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    # --- a guest ------------------------------------------------------------------------------------------------------------

    async def _let_guest_in(self, headers: r.Headers, *, has_token: bool) -> GuestConnection:
        """From here on frames."""
        owner = self._server.owner
        if not has_token or owner is None:
            raise Rejected("a guest needs the token of the notice", "28000", 401)
        self._server.enter(self)
        await self._body(headers)
        proof = owner.proof(headers.get(NONCE_HEADER.lower(), ""))
        switched = [("Upgrade", PROTOCOL), ("Connection", "upgrade"), (PROOF_HEADER, proof)]
        self._writer.write(self._http.send(h11.InformationalResponse(status_code=101, headers=switched)) or b"")
        log.info("%s came in as a guest", self.peer)
        return GuestConnection(self._server, self._reader, self._writer)

    async def _in_pool(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._server.pool, function, *arguments)


def _too_large() -> Rejected:
    most = r.BODY_BYTES >> 20
    return Rejected(f"the body is larger than {most} MiB", "54000", 413, hint="send the rows with COPY, from a file")
