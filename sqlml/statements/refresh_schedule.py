"""REFRESH ENDPOINT by schedule: endpoints with ``refresh_every``, refreshed by whoever has the database open.

    catalog → which copies are older than their endpoint wants → one at a time → REFRESH ENDPOINT in a session of its own

Only a session can read the database, so the copies of an endpoint whose database nobody has open wait, visibly: see
``schedule_text``.  Of several sessions one refreshes; a database's own transactions are neither seen nor touched.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlml_dialect import quote_identifier

from sqlml.catalog import Catalog, Endpoint
from sqlml.errors import Error
from sqlml.home import Home
from sqlml.prediction_log import folder_name

OPTION = "refresh_every"
LOOK_SECONDS = 5.0
"""How often the catalog is asked whether somebody has changed the schedule."""
AGAIN_SECONDS = 60.0
"""How long after a refresh that failed the next is tried, at most."""
CLOSE_SECONDS = 10.0
_LOCK = "refresh.lock"

log = logging.getLogger("sqlml")


def every(endpoint: Endpoint) -> float | None:
    """How old an endpoint's copies may become, in seconds; None where it has no schedule or looks nothing up."""
    seconds = endpoint.options.get(OPTION)
    return float(seconds) if seconds and copy_names(endpoint) else None


def copy_names(endpoint: Endpoint) -> list[str]:
    """The copies that an endpoint looks into."""
    return [step["copy"] for step in (endpoint.definition or {}).get("steps", ()) if "copy" in step]


def overdue(home: Home, endpoint: Endpoint, now: float) -> float | None:
    """For how many seconds the oldest copy has been too old; negative while it is not, None without a schedule."""
    seconds = every(endpoint)
    if seconds is None:
        return None
    from sqlml.composition.copies import copy_info, copy_path

    infos = [copy_info(copy_path(home.lookups, name)) for name in copy_names(endpoint)]
    return now - min(info.made_at if info else 0.0 for info in infos) - seconds


def schedule_text(home: Home, endpoint: Endpoint, now: float | None = None) -> str | None:
    """How the schedule stands: that it waits for a session, or why the last refresh failed; None where all is well."""
    late = overdue(home, endpoint, time.time() if now is None else now)
    if late is None:
        return None
    failure = _read_failure(home, endpoint)
    if failure:
        return f"the last refresh failed: {failure}"
    if late > LOOK_SECONDS * 2:
        return f"due for {late:,.0f} s: a refresh waits for a session that has the database open"
    return None


class RefreshSchedule:
    """A thread of the session that refreshes what is due; there is none while no endpoint has a schedule, unless it ``stays``.

    ``run`` runs one statement in a session of its own.  Holds nothing of the session it belongs to.
    """

    def __init__(self, catalog: Catalog, run: Callable[[str], None]) -> None:
        self._catalog = catalog
        self._run = run
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._tried: dict[str, float] = {}  # what failed, and when to try again

    def look(self, *, stays: bool = False) -> None:
        """Take up what the catalog says now.  ``stays``: from now on, too, whoever changes it."""
        if self._thread is None and not self._closed and (stays or any(every(e) for e in self._catalog.endpoints())):
            self._thread = threading.Thread(target=self._follow, name="refresh", daemon=True)
            self._thread.start()
        self._wake.set()

    def close(self) -> None:
        """Stop; a refresh under way is given a moment."""
        self._closed = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_SECONDS)

    def _follow(self) -> None:
        while not self._closed:
            self._wake.clear()
            try:
                pause = self._refresh_due()
            except Exception as error:  # of the catalog, for one: it is asked again
                log.info("the schedule of refreshes cannot be read: %s", error)
                pause = LOOK_SECONDS
            self._wake.wait(min(pause, LOOK_SECONDS))

    def _refresh_due(self) -> float:
        """Refresh what is due now; in how many seconds the next is."""
        soonest = LOOK_SECONDS
        for endpoint in self._catalog.endpoints():
            late = overdue(self._catalog.home, endpoint, time.time())
            if late is None or self._closed:
                continue
            pause = self._tried.get(endpoint.name, 0.0) - time.monotonic()
            if max(-late, pause) > 0:
                soonest = min(soonest, max(-late, pause))
                continue
            with _alone(self._catalog.home) as mine:
                if mine and (overdue(self._catalog.home, endpoint, time.time()) or 0) > 0:  # nobody was quicker
                    self._refresh(endpoint)
        return max(soonest, 0.05)

    def _refresh(self, endpoint: Endpoint) -> None:
        failure = _failure_path(self._catalog.home, endpoint.name)
        try:
            self._run(f"REFRESH ENDPOINT {quote_identifier(endpoint.name)}")
        except Exception as error:
            if self._closed:
                return
            self._tried[endpoint.name] = time.monotonic() + min(AGAIN_SECONDS, max(LOOK_SECONDS, every(endpoint) or 0))
            text = error.message if isinstance(error, Error) else f"{type(error).__name__}: {error}"
            log.info("endpoint %s could not be refreshed: %s", endpoint.name, text)
            with suppress(OSError):
                failure.write_text(json.dumps({"error": text}), encoding="utf-8")
        else:
            self._tried.pop(endpoint.name, None)


@contextmanager
def _alone(home: Home) -> Iterator[bool]:
    """Whether no other session, of this process or another, is refreshing."""
    file = os.open(home.lookups.parent / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
    finally:
        os.close(file)


def forget_failure(home: Home, endpoint: str) -> None:
    """The endpoint was refreshed, or is no more."""
    _failure_path(home, endpoint).unlink(missing_ok=True)


def _failure_path(home: Home, endpoint: str) -> Path:
    return home.lookups.parent / f"refresh-{folder_name(endpoint)}.failed"


def _read_failure(home: Home, endpoint: Endpoint) -> str | None:
    try:
        return str(json.loads(_failure_path(home, endpoint.name).read_text(encoding="utf-8"))["error"])
    except (OSError, ValueError, KeyError):
        return None
