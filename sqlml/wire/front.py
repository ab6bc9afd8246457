"""The port: sockets accepted, TLS begun where the first byte says so, and their first bytes, which tell who speaks.

PostgreSQL's start-up begins with a length whose first byte is 0, TLS with 22, HTTP with a letter.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

log = logging.getLogger("sqlml.wire")

LOGIN_SECONDS = 60.0
READ_BYTES = 1 << 16
TLS_HANDSHAKE = b"\x16"
BACKLOG = 512
_MISSING = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""A host's second address that this machine has not: IPv6 is switched off."""

Welcome = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[None]]
"""Gets a client and what it said first."""


class Front:
    """Listens at an address.  ``start``, then ``close``."""

    def __init__(self, welcome: Welcome, tls: ssl.SSLContext | None) -> None:
        self._welcome = welcome
        self._tls = tls
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        return int(self._sockets[0].getsockname()[1])

    def start(self, host: str, port: int) -> None:
        """Listen.  ``OSError`` where the address is taken."""
        self._sockets = _listen(host, port)
        for each in self._sockets:
            self._keep(self._accept(each))

    def close(self) -> None:
        """Listen no more."""
        for task in list(self._tasks):
            task.cancel()
        for each in self._sockets:
            each.close()

    def _keep(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(listener)
            except OSError as error:  # no descriptor is left for it
                log.error("a client could not be let in: %s", error)
                await asyncio.sleep(1)
                continue
            self._keep(self._meet(client))

    async def _meet(self, client: socket.socket) -> None:
        """Find out whether it begins with TLS, and hand it over."""
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.StreamReaderProtocol:
            return asyncio.StreamReaderProtocol(asyncio.StreamReader(limit=1 << 18), self._greet)

        try:
            async with asyncio.timeout(LOGIN_SECONDS):
                first = await _first_byte(client)
                tls = self._tls if first == TLS_HANDSHAKE else None
                await loop.connect_accepted_socket(protocol, client, ssl=tls)
        except (OSError, TimeoutError) as error:
            log.debug("a client was not understood: %r", error)
            client.close()
        except asyncio.CancelledError:
            client.close()
            raise

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(LOGIN_SECONDS):
                first = await reader.read(READ_BYTES)
        except (OSError, TimeoutError):
            first = b""
        if first:
            await self._welcome(reader, writer, first)
        with suppress(OSError):
            writer.close()


async def _first_byte(client: socket.socket) -> bytes:
    """The first byte, which stays where it is."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(client, ready.set)
    try:
        while True:
            await ready.wait()
            try:
                return client.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                ready.clear()
    finally:
        loop.remove_reader(client)


def _listen(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of a host (``localhost`` has two), all at one port."""
    found: list[socket.socket] = []
    for *kind, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE):
        same = found[0].getsockname()[1] if found else port
        try:
            found.append(_bound(kind, (address[0], same, *address[2:])))
        except OSError as error:
            if found and error.errno in _MISSING:
                continue
            for each in found:
                each.close()
            raise
    return found


def _bound(kind: Sequence[int], address: tuple[object, ...]) -> socket.socket:
    """``kind``: family, type and protocol.  Only where it says TCP does asyncio send small answers at once."""
    each = socket.socket(*kind)
    try:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if each.family == socket.AF_INET6:
            each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        each.bind(address)
        each.listen(BACKLOG)
        each.setblocking(False)
    except BaseException:
        each.close()
        raise
    return each
