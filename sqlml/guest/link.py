"""A guest's connection to the server: a socket that was HTTP's for one request, and frames from then on.

POST /sql, Upgrade: sqlml, the token, a nonce → 101 with the proof that the server knows the token → frames
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import secrets
import socket
import ssl
import threading
import weakref
from collections.abc import Generator, Mapping
from typing import Any

from sqlml.errors import ConnectionLost, OperationalError
from sqlml.guest.frames import INTERRUPT, Frame, pack, reading
from sqlml.guest.owner import Owner
from sqlml.guest.transactions import Open

PROTOCOL = "sqlml/1"
NONCE_HEADER, PROOF_HEADER = "Sqlml-Nonce", "Sqlml-Proof"
SECONDS = 10.0
"""How long a server may take to let a guest in."""
_AT_ONCE = getattr(socket, "MSG_DONTWAIT", 0)
"""A flag that Windows has not."""


class Stale(Exception):
    """There is no such server any more."""


class Link:
    """Frames to the server and back.  ``send`` from any thread, ``receive`` from one."""

    def __init__(self, owner: Owner) -> None:
        """``Stale`` where nobody answers, or somebody else; ``OperationalError`` where the server lets nobody in."""
        self._owner = owner
        self._lock = threading.Lock()
        self._interrupts = False  # an INTERRUPT waits until the frame before it is sent
        self._reading: Generator[int, bytes | memoryview, Frame] | None = None
        self._data = memoryview(b"")  # of a frame that is on its way, as far as it is wanted
        self._filled = 0
        self._socket = _connected(owner)
        self.lost = False
        self.open = Open.NOTHING
        """What would be lost with the server."""
        try:
            _upgrade(self._socket, owner)
            self._socket.settimeout(None)
        except BaseException:
            self._socket.close()
            raise
        weakref.finalize(self, self._socket.close)  # of a connection that nobody has closed

    def send(self, kind: bytes, head: Mapping[str, Any] | None = None) -> None:
        """Send a frame.  ``ConnectionLost`` where the server has ended."""
        pieces = pack(kind, head)
        with self._lock:
            if self.lost:
                raise self._gone()
            try:
                for piece in pieces:
                    self._socket.sendall(piece)
            except OSError:
                raise self._gone() from None
            except BaseException:
                self.lost = True  # half a frame cannot be taken back
                raise
        if self._interrupts:
            self.interrupt()

    def forget_interrupts(self) -> None:
        """What was to be interrupted is over."""
        self._interrupts = False

    def interrupt(self) -> None:
        """Send INTERRUPT, as soon as nothing else is being sent: a signal may come while this very thread sends."""
        self._interrupts = True
        if self._lock.acquire(blocking=False):
            try:
                self._interrupts = False
                if not self.lost:
                    self._socket.sendall(b"".join(pack(INTERRUPT)))
            except OSError:
                self.lost = True  # whoever waits is told
            finally:
                self._lock.release()

    def receive(self) -> Frame:
        """The next frame.  ``ConnectionLost`` where the server has ended.  After a KeyboardInterrupt it goes on where it was."""
        if self.lost:
            raise self._gone()
        if self._reading is None:
            self._reading = reading()
            self._want(next(self._reading))
        while True:
            self._fill()
            try:
                self._want(self._reading.send(self._data))
            except StopIteration as done:
                self._reading = None
                found: Frame = done.value
                return found
            except OperationalError:
                self.lost = True  # nobody knows where the next frame begins
                raise

    def is_lost(self) -> bool:
        """Whether the server has hung up, as far as that can be told while nothing is asked of it."""
        if self.lost or isinstance(self._socket, ssl.SSLSocket) or not _AT_ONCE:  # TLS may have sent something of its own
            return self.lost
        try:
            self.lost = not self._socket.recv(1, socket.MSG_PEEK | _AT_ONCE)
        except BlockingIOError:
            pass
        except OSError:
            self.lost = True
        return self.lost

    def close(self) -> None:
        """Hang up; again is nothing."""
        self.lost = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _want(self, size: int) -> None:
        self._data, self._filled = memoryview(bytearray(size)), 0

    def _fill(self) -> None:
        while self._filled < len(self._data):
            try:
                count = self._socket.recv_into(self._data[self._filled :])
            except OSError:
                count = 0
            if not count:
                raise self._gone()
            self._filled += count

    def _gone(self) -> ConnectionLost:
        self.lost = True
        return ConnectionLost(
            f"{self._owner.shown}, which had {self._owner.database} open, has ended{self.open.value}",
            hint="connect again: whoever comes next opens the file itself",
        )


def _connected(owner: Owner) -> socket.socket:
    try:
        plain = socket.create_connection((owner.host, owner.port), SECONDS)
    except OSError:
        raise Stale from None
    if not owner.certificate:
        return plain
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # what counts is that it is the notice's own
    try:
        encrypted = context.wrap_socket(plain)
    except OSError:
        plain.close()
        raise Stale from None
    shown = encrypted.getpeercert(binary_form=True) or b""
    if hashlib.sha256(shown).hexdigest() != owner.certificate:
        encrypted.close()
        raise Stale
    return encrypted


def _upgrade(connection: socket.socket, owner: Owner) -> None:
    """Make frames of HTTP."""
    nonce = secrets.token_hex(16)
    lines = (
        "POST /sql HTTP/1.1", "Host: localhost", f"Upgrade: {PROTOCOL}", "Connection: upgrade", "Content-Length: 0",
        f"Authorization: Bearer {owner.token}", f"{NONCE_HEADER}: {nonce}", "", "",
    )  # fmt: skip
    response = http.client.HTTPResponse(connection, method="POST")
    try:
        connection.sendall("\r\n".join(lines).encode())
        response.begin()
        status, proof = response.status, response.headers.get(PROOF_HEADER, "")
        body = b"" if status == 101 else response.read(1 << 16)
    except (OSError, http.client.HTTPException):
        raise Stale from None
    finally:
        response.close()
    if status == 503:
        raise OperationalError(f"{owner.shown} lets nobody in now: {_message(body)}", hint="try again later")
    if status != 101 or not secrets.compare_digest(proof, owner.proof(nonce)):
        raise Stale


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "it gave no reason"
