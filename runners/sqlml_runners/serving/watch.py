"""The catalog as the supervisor sees it: polled for changes, and told when a version had to be taken back.

    endpoints_revision, every 0.2 s → changed? → endpoints → Fleet.want        blamed revision → rollback_endpoint

A catalog that is locked, gone or slow changes nothing: what is served goes on, and it is asked again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlml.catalog import ApiKey, Endpoint
from sqlml.errors import BindError

log = logging.getLogger("sqlml.serving")

POLL_SECONDS = 0.2
AGAIN_SECONDS = 5.0
SYNC_SECONDS = 2.0
"""How long whoever asks waits for a catalog that does not answer; then it hears what was known before."""


class EndpointCatalog(Protocol):
    """What is asked of the catalog."""

    def endpoints_revision(self) -> int: ...
    def api_keys(self) -> Sequence[ApiKey]: ...
    def endpoints(self) -> list[Endpoint]: ...
    def endpoints_memory(self) -> int | None: ...
    def rollback_endpoint(self, endpoint: str, reason: str = ..., *, of: int | None = None) -> int: ...
    def settle_endpoint(self, endpoint: str, *, promote: bool, reason: str, of: int) -> int | None: ...


@dataclass(frozen=True)
class Found:
    """What the catalog says: the endpoints, who may ask them, and how many bytes they may take (None: as it was started)."""

    endpoints: list[Endpoint]
    keys: Sequence[ApiKey]
    memory: int | None = None


class CatalogWatch:
    """Reads the catalog in threads, one question at a time; ``changed(found)`` is called on the event loop."""

    def __init__(self, catalog: EndpointCatalog, changed: Callable[[Found], None]) -> None:
        self._catalog = catalog
        self._changed = changed
        self._revision: int | None = None
        self._reachable = True
        self._turn = asyncio.Lock()
        self._empty_since: float | None = time.monotonic()
        self.was_used = False

    def empty_seconds(self) -> float | None:
        """For how long there has been no endpoint; None where there is one."""
        return None if self._empty_since is None else time.monotonic() - self._empty_since

    async def follow(self) -> None:
        """Poll, for ever."""
        while True:
            await self._sync()
            await asyncio.sleep(POLL_SECONDS)

    async def sync(self) -> None:
        """See to it that what was written before this call is known, unless the catalog does not answer in time."""
        task = asyncio.ensure_future(self._sync())
        await asyncio.wait([task], timeout=SYNC_SECONDS)

    async def _sync(self) -> None:
        async with self._turn:
            try:
                found = await asyncio.to_thread(self._read)
            except Exception as error:  # serving goes on whatever becomes of the catalog
                if self._reachable:
                    log.warning("the catalog cannot be read, serving on: %s", error)
                self._reachable = False
                return
            if not self._reachable:
                log.info("the catalog can be read again")
            self._reachable = True
            if found is not None:
                self.was_used = self.was_used or bool(found.endpoints)
                self._empty_since = None if found.endpoints else (self._empty_since or time.monotonic())
                self._changed(found)

    def _read(self) -> Found | None:
        revision = self._catalog.endpoints_revision()
        if revision == self._revision:
            return None
        found = Found(self._catalog.endpoints(), self._catalog.api_keys(), self._catalog.endpoints_memory())
        self._revision = revision
        return found

    async def roll_back(self, endpoint: str, revision: int, reason: str) -> None:
        """Take a revision back in the catalog, too, as soon as that can be written; somebody may be quicker."""
        while True:
            try:
                await asyncio.to_thread(self._catalog.rollback_endpoint, endpoint, reason, of=revision)
            except BindError as error:
                log.error("endpoint %s stays as it is: %s", endpoint, error.message)
            except Exception as error:  # as above: the workers do not serve it, and that is what counts
                log.warning("endpoint %s cannot be rolled back in the catalog yet: %s", endpoint, error)
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            await self._sync()
            return

    async def settle(self, endpoint: str, revision: int, reason: str, *, promote: bool) -> None:
        """End a guarded roll-out."""
        try:
            await asyncio.to_thread(self._catalog.settle_endpoint, endpoint, promote=promote, reason=reason, of=revision)
        except Exception as error:  # it is judged again in a moment
            log.warning("the roll-out of endpoint %s cannot be settled yet: %s", endpoint, error)
            return
        await self._sync()
