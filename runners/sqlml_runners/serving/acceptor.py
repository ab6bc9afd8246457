"""Taking connections from the socket that all workers share: who has the fewest takes first, and at the end none is dropped.

An event loop's own server takes all that knock in one go, so that of two workers one may get everything.  Here a worker takes one
at a time, and the more connections it has the longer it waits before the next: whoever has fewer is quicker.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import socket
import ssl
import struct
from collections.abc import Callable

from sqlml_runners.serving.tls import HANDSHAKE_SECONDS

log = logging.getLogger("sqlml.serving")

PAUSE_SECONDS = 0.0001
"""How long a worker waits for each connection that it has …"""
LONGEST_PAUSE = 0.005
"""… at most."""

SO_ATTACH_FILTER = 26
_BPF = struct.Struct("=HBBI")
_NO_SYN = (
    _BPF.pack(0x30, 0, 0, 13),  # load the byte of the TCP header that has the flags
    _BPF.pack(0x45, 0, 1, 0x02),  # is it a SYN, the wish for a new connection?
    _BPF.pack(0x06, 0, 0, 0),  # drop it
    _BPF.pack(0x06, 0, 0, 0xFFFFFFFF),  # keep it
)


class Acceptor:
    """Takes connections on the running event loop; ``protocol`` makes what handles one, ``load`` tells how many there are."""

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        load: Callable[[], int],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._listener = listener
        self._protocol = protocol
        self._load = load
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self.alone = True  # nobody else takes connections: no need to be polite
        self.open = False

    def start(self) -> None:
        """Begin."""
        self._listener.setblocking(False)
        self.open = True
        self._loop.add_reader(self._listener.fileno(), self._knock)

    def stop(self) -> None:
        """Take no more; this process lets go of the socket."""
        if self.open:
            self.open = False
            if self._pause is not None:
                self._pause.cancel()
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()

    def take_all(self) -> None:
        """Take whatever has knocked."""
        while self.open and self._take():
            pass

    def _knock(self) -> None:
        pause = 0.0 if self.alone else min(LONGEST_PAUSE, self._load() * PAUSE_SECONDS)
        if pause == 0.0:
            self._take()
            return
        self._loop.remove_reader(self._listener.fileno())
        self._pause = self._loop.call_later(pause, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._take()
        self._loop.add_reader(self._listener.fileno(), self._knock)

    def _take(self) -> bool:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False  # somebody was quicker
        except OSError as error:  # too many open files: they knock again
            log.error("no connection can be taken: %s", error)
            return False
        connection.setblocking(False)
        task = self._loop.create_task(self._hand_over(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _hand_over(self, connection: socket.socket) -> None:
        try:
            limit = None if self._tls is None else HANDSHAKE_SECONDS
            await self._loop.connect_accepted_socket(self._protocol, connection, ssl=self._tls, ssl_handshake_timeout=limit)
        except OSError as error:  # it has gone already, or TLS could not be agreed on
            log.debug("a connection ended before it began: %s", error)
            connection.close()


def refuse_new(listener: socket.socket) -> None:
    """Let nobody begin a new connection, while those who have begun still get in: the last step before the socket is closed.

    Where the system knows no such filter, whoever connects in the very last moment is reset.
    """
    program = ctypes.create_string_buffer(b"".join(_NO_SYN))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(_NO_SYN), ctypes.addressof(program)))
