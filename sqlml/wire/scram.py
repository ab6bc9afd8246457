"""SCRAM-SHA-256, the server's side (RFC 5802, RFC 7677), without I/O; verifiers are PostgreSQL's own, so that they can be copied.

SCRAM-SHA-256$4096:<salt>$<StoredKey>:<ServerKey>
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import unicodedata
from dataclasses import dataclass

from sqlml.wire.errors import Refused

MECHANISM = "SCRAM-SHA-256"
ITERATIONS = 4096
_VERIFIER = re.compile(r"SCRAM-SHA-256\$(\d+):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")


@dataclass(frozen=True)
class Verifier:
    """What is kept of a password: nobody can log in with it."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    @classmethod
    def of(cls, password: str, salt: bytes | None = None, iterations: int = ITERATIONS) -> Verifier:
        """The verifier of a password."""
        salt = os.urandom(16) if salt is None else salt
        salted = hashlib.pbkdf2_hmac("sha256", _prepared(password), salt, iterations)
        client = _hmac(salted, b"Client Key")
        return cls(iterations, salt, hashlib.sha256(client).digest(), _hmac(salted, b"Server Key"))

    @classmethod
    def read(cls, text: str) -> Verifier:
        """``ValueError`` for what is none."""
        match = _VERIFIER.fullmatch(text)
        if match is None:
            raise ValueError("not a SCRAM-SHA-256 verifier")
        salt, stored, server = (base64.b64decode(part) for part in match.groups()[1:])
        return cls(int(match[1]), salt, stored, server)

    def matches(self, password: str) -> bool:
        """Whether it is a password's, which was sent in words (HTTP Basic)."""
        other = Verifier.of(password, self.salt, self.iterations)
        return hmac.compare_digest(other.stored_key, self.stored_key)

    def __str__(self) -> str:
        salt, stored, server = (base64.b64encode(part).decode() for part in (self.salt, self.stored_key, self.server_key))
        return f"{MECHANISM}${self.iterations}:{salt}${stored}:{server}"


class Exchange:
    """One login.  ``known`` is False where there is no such user: it then fails as a wrong password does."""

    def __init__(self, verifier: Verifier, *, known: bool) -> None:
        self._verifier = verifier
        self._known = known
        self._first = self._challenge = ""
        self._nonce = ""
        self._header = ""

    def challenge(self, first: str) -> str:
        """The server's first message for the client's."""
        match = re.fullmatch(r"((?:n|y),(?:a=[^,]*)?,)(n=[^,]*,r=([!-+\--~]+)(?:,.*)?)", first)
        if match is None:
            raise Refused("malformed SCRAM message", "08P01", fatal=True)
        self._header, self._first = match[1], match[2]
        self._nonce = match[3] + base64.b64encode(os.urandom(18)).decode()
        salt = base64.b64encode(self._verifier.salt).decode()
        self._challenge = f"r={self._nonce},s={salt},i={self._verifier.iterations}"
        return self._challenge

    def finish(self, final: str) -> str | None:
        """The server's last message; None where the password is wrong."""
        match = re.fullmatch(r"(c=([A-Za-z0-9+/=]+),r=([!-+\--~]+)(?:,.*)?),p=([A-Za-z0-9+/=]+)", final)
        if match is None:
            raise Refused("malformed SCRAM message", "08P01", fatal=True)
        try:
            header, proof = base64.b64decode(match[2]), base64.b64decode(match[4])
        except ValueError:
            raise Refused("malformed SCRAM message", "08P01", fatal=True) from None
        message = f"{self._first},{self._challenge},{match[1]}".encode()
        signature = _hmac(self._verifier.stored_key, message)
        client = bytes(a ^ b for a, b in zip(proof.ljust(32, b"\0")[:32], signature, strict=True))
        right = hmac.compare_digest(hashlib.sha256(client).digest(), self._verifier.stored_key)
        same = match[3] == self._nonce and header == self._header.encode() and len(proof) == 32
        if not (right and same and self._known):
            return None
        return "v=" + base64.b64encode(_hmac(self._verifier.server_key, message)).decode()


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def _prepared(password: str) -> bytes:
    """SASLprep, as far as it changes what people type (RFC 4013)."""
    return unicodedata.normalize("NFKC", password).encode()
