"""Each round of a training, told by an executor to the driver while it happens: a line of JSON over a socket.

The driver listens where Spark's own driver does; a line counts only with the secret of this training.  An executor that cannot
reach the driver trains on in silence.
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

_SECONDS = 5.0
"""So long an executor waits for the driver before it gives up telling."""


@dataclass(frozen=True)
class Address:
    """Where to tell, and the secret that proves it."""

    host: str
    port: int
    secret: str


class Listener:
    """The driver's end: calls ``hear`` with what each line says, until it is closed."""

    def __init__(self, host: str, hear: Callable[[Mapping[str, Any]], None]) -> None:
        self._hear = hear
        self._server = socket.create_server((host, 0))
        self._open: list[socket.socket] = []
        self._secret = secrets.token_hex(16)
        self.address = Address(host, int(self._server.getsockname()[1]), self._secret)
        threading.Thread(target=self._accept, name="sqlml-spark-progress", daemon=True).start()

    def close(self) -> None:
        """Hear no more; ends the threads that wait for lines."""
        for waiting in (self._server, *self._open):
            with suppress(OSError):  # closed by the other end
                waiting.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:  # closed
                return
            self._open.append(connection)
            threading.Thread(target=self._read, args=(connection,), name="sqlml-spark-progress", daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        with connection, connection.makefile("r", encoding="utf-8") as lines:
            try:
                if not secrets.compare_digest(lines.readline().strip(), self._secret):
                    return
                for line in lines:
                    self._hear(json.loads(line))
            except (OSError, ValueError):  # the executor is gone, or it is none of ours
                return


class Teller:
    """An executor's end; it connects when it first has something to tell."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._socket: socket.socket | None = None
        self._silent = False

    def tell(self, message: Mapping[str, Any]) -> None:
        if self._silent:
            return
        try:
            if self._socket is None:
                self._socket = socket.create_connection((self._address.host, self._address.port), timeout=_SECONDS)
                self._socket.sendall(self._address.secret.encode() + b"\n")
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self._silent = True

    def __getstate__(self) -> dict[str, Any]:
        return {"_address": self._address, "_socket": None, "_silent": False}
