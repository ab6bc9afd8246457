"""API keys as a worker checks them: who may ask which endpoint, and how often.

    catalog → KeyBook → KeyEntry (plain values, hashes alone) → KeyRing, in each worker → the key's name, or 401, 403, 429

A secret comes as ``Authorization: Bearer …`` or ``X-API-Key: …``; it is hashed and looked up, and neither kept nor logged.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import mmap
import os
import struct
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from sqlml.catalog import ApiKey
from sqlml.errors import listing
from sqlml_runners.serving.protocol import BadRequest

SLOTS = 4096
"""So many keys may have a rate limit at a time."""
_TIME = struct.Struct("d")
_ASK = ((b"www-authenticate", b"Bearer"),)


class KeyEntry(msgspec.Struct, frozen=True):
    """A key: ``hashes`` are (SHA-256 in hexadecimal, its end in seconds since 1970 or None); ``endpoints`` in lower case.

    Without endpoints it is for all.  ``rate_limit`` is requests per second over all workers, counted at ``slot`` of their file.
    """

    name: str
    hashes: tuple[tuple[str, float | None], ...]
    endpoints: tuple[str, ...] = ()
    rate_limit: float | None = None
    slot: int = 0


class KeyRing:
    """The keys that count now.  Replaced as a whole when they change."""

    def __init__(self, entries: Sequence[KeyEntry] = (), limiter: RateLimiter | None = None) -> None:
        self._limiter = limiter or RateLimiter()
        self._known: Mapping[bytes, tuple[KeyEntry, float | None]] = {
            bytes.fromhex(digest): (entry, end) for entry in entries for digest, end in entry.hashes
        }

    def check(self, headers: Mapping[bytes, bytes], endpoint: str) -> str:
        """The name of the key that opens an endpoint (in lower case).

        ``BadRequest`` 401 without a key that counts, 403 for one of other endpoints, 429 for one that asks too often.
        """
        entry = self.opens(headers, endpoint)
        if entry.rate_limit is not None and (wait := self._limiter.take(entry.slot, entry.rate_limit)) > 0:
            message = f"the API key {entry.name} may ask {entry.rate_limit:g} times a second"
            raise BadRequest(429, message, retry_after=max(1, math.ceil(wait)))
        return entry.name

    def opens(self, headers: Mapping[bytes, bytes], endpoint: str) -> KeyEntry:
        """The key that opens an endpoint, whatever its rate.  401 and 403 as for ``check``."""
        entry = self._entry(_secret(headers))
        if entry.endpoints and endpoint not in entry.endpoints:
            raise BadRequest(403, f"the API key {entry.name} is not for endpoint {endpoint}")
        return entry

    def check_all(self, headers: Mapping[bytes, bytes], endpoints: Iterable[str]) -> None:
        """401 without a key that counts, 403 for one that does not open all of some endpoints (in lower case)."""
        entry = self._entry(
            _secret(headers, "the figures of all endpoints need an API key from elsewhere than the server's machine")
        )
        if entry.endpoints and (others := sorted(set(endpoints) - set(entry.endpoints))):
            raise BadRequest(403, f"the API key {entry.name} is not for endpoint {listing(others)}; these figures are of all")

    def _entry(self, secret: bytes) -> KeyEntry:
        found = self._known.get(hashlib.sha256(secret).digest())
        if found is None or (found[1] is not None and found[1] <= time.time()):
            raise BadRequest(
                401, "the API key is unknown, or its time is over", hint="SHOW API KEYS lists those there are", headers=_ASK
            )
        return found[0]


def _secret(headers: Mapping[bytes, bytes], why: str = "the endpoint needs an API key") -> bytes:
    given = headers.get(b"authorization")
    if given is not None and given[:7].lower() == b"bearer ":
        return given[7:].strip()
    secret = headers.get(b"x-api-key")
    if secret is None:
        hint = "send the header Authorization: Bearer <secret>, or X-API-Key; CREATE API KEY … FOR ENDPOINT makes one"
        raise BadRequest(401, why, hint=hint, headers=_ASK)
    return secret.strip()


class KeyBook:
    """The supervisor's side: what workers are told of the catalog's keys.  A key keeps its slot as long as the server runs."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}

    def entries(self, keys: Sequence[ApiKey]) -> tuple[KeyEntry, ...]:
        """The keys as plain values, with the time at which each of their secrets ends."""
        return tuple(self._entry(key) for key in keys)

    def _entry(self, key: ApiKey) -> KeyEntry:
        hashes = tuple((digest, _first(end, key.expires_at)) for digest, end in key.hashes)
        slot = self._slots.setdefault(key.name.lower(), len(self._slots))
        return KeyEntry(key.name, hashes, key.endpoints, key.rate_limit, slot)


def _first(*ends: datetime | None) -> float | None:
    """The first of some moments (UTC, None: never) in seconds since 1970."""
    return min((end.replace(tzinfo=UTC).timestamp() for end in ends if end is not None), default=None)


class LimitsFile:
    """The file in which all workers of a server count; the supervisor's, from beginning to end."""

    def __init__(self) -> None:
        file, name = tempfile.mkstemp(prefix="sqlml-limits-")
        os.close(file)
        self.path = Path(name)

    def close(self) -> None:
        """Remove it."""
        self.path.unlink(missing_ok=True)


class RateLimiter:
    """How often each key has asked, over all processes that share a file: the generic cell rate algorithm.

    A slot holds the time at which the key would have spent what it may; a second's worth may be asked at once.
    """

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Over a file that all processes share; without one for this process alone."""
        if path is None:
            with tempfile.TemporaryFile() as file:
                self._file = os.dup(file.fileno())
        else:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._file, SLOTS * _TIME.size)  # what is there stays
        self._memory = mmap.mmap(self._file, SLOTS * _TIME.size)
        self._clock = clock

    def take(self, slot: int, rate: float) -> float:
        """0 where one more request may come, else in how many seconds it may."""
        place, now = slot % SLOTS * _TIME.size, self._clock()
        fcntl.lockf(self._file, fcntl.LOCK_EX, _TIME.size, place)
        try:
            spent = max(_TIME.unpack_from(self._memory, place)[0], now)
            wait = spent + 1 / rate - now - max(1.0, 1 / rate)
            if wait > 1e-9:
                return float(wait)
            _TIME.pack_into(self._memory, place, spent + 1 / rate)
            return 0.0
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, _TIME.size, place)
