"""The endpoints' server as the session sees it: start it, ask it, stop it.  Needs no web framework."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqlml.contracts import ArmState, EndpointState
from sqlml.errors import Cancelled, ServingError
from sqlml.home import CATALOG_VARIABLE, Home, endpoint_url
from sqlml_runners.serving.state import LOCK_FILE, ServerState, read_state

START_SECONDS = 30.0
STOP_SECONDS = 10.0
ASK_SECONDS = 10.0
WRITE_SECONDS = 0.3
PAUSE = 0.02
LOG_BYTES = 4000
"""So much of the log is read for what it says of a start that failed."""


class LocalServer:
    """The detached server of one home (``sqlml.contracts.EndpointServer``).  Safe to use from many threads and processes."""

    def __init__(self, home: Path, catalog_url: str | None = None) -> None:
        self._home = home.absolute()
        self._catalog_url = catalog_url
        self._log = Home(self._home).logs / "server.log"

    def ensure(self) -> str:
        """Start it where none runs, and wait until it listens; its base URL.  Of many callers at once one starts it."""
        deadline = time.monotonic() + START_SECONDS
        while (url := self.url()) is None:
            seen = self._log.stat().st_size if self._log.exists() else 0
            child = self._start()
            while child.poll() is None and self.url() is None:
                if time.monotonic() > deadline:
                    child.kill()
                    raise self._failed(f"the endpoint server did not listen within {START_SECONDS:g} s", seen)
                time.sleep(PAUSE)
            if self.url() is None and not self._wait_for_another(deadline):
                raise self._failed(f"the endpoint server could not start (exit status {child.returncode})", seen)
        return url

    def wait_ready(self, endpoint: str, revision: int, timeout: float, cancelled: Callable[[], bool] = lambda: False) -> str:
        """Wait until an endpoint answers as its revision says; its URL.  ``ServingError`` with the reason otherwise."""
        deadline, pause = time.monotonic() + timeout, PAUSE
        while True:
            base = self.ensure()  # it may have left for want of an endpoint just before this one was written
            found = self.states().get(endpoint.lower())
            if found and (reason := found.undone.get(revision)):
                raise ServingError(f"endpoint {endpoint} cannot serve: {reason}")
            known = found is not None and found.revision >= revision
            if found and known and found.state in ("ready", "idle"):
                return endpoint_url(base, endpoint)
            if found and known and found.state == "failed":
                raise ServingError(f"endpoint {endpoint} cannot serve: {found.error}")
            if cancelled():
                raise Cancelled("cancelled")
            if time.monotonic() > deadline:
                state = f"it is {found.state}" if found else "the server does not know it"
                raise ServingError(f"endpoint {endpoint} was not ready within {timeout:g} s: {state}", hint=f"see {self._log}")
            time.sleep(pause)
            pause = min(pause * 2, 0.2)  # every question takes time from the server, which is busy loading

    def states(self) -> Mapping[str, EndpointState]:
        """By the endpoint's name in lower case, from the running server; empty where none runs."""
        return {name.lower(): _state(entry) for name, entry in (self._ask("endpoints") or {}).items()}

    def write_predictions(self) -> None:
        """Let the running server write what its prediction log still holds; gives up after 0.3 s."""
        self._ask("written", WRITE_SECONDS)

    def url(self) -> str | None:
        """The base URL of the running server."""
        state = read_state(self._home)
        return state.url if state else None

    def stop(self) -> bool:
        """Stop it: SIGTERM, and SIGKILL after 10 s; False where none ran.  Never touches a process that is not the server."""
        state = read_state(self._home)
        if state is None:
            return False
        import psutil

        try:
            process = psutil.Process(state.pid)
            process.terminate()
            if not _wait_gone(state, STOP_SECONDS):
                process.kill()
                _wait_gone(state, STOP_SECONDS)
        except psutil.NoSuchProcess:
            pass
        return True

    def workers(self) -> list[dict[str, Any]]:
        """Each worker of the running server: its ``pid``, whether it ``takes_requests``, and its open ``connections``."""
        return list(self._ask("workers") or [])

    def _ask(self, what: str, seconds: float = ASK_SECONDS) -> Any:
        state = read_state(self._home)
        if state is None:
            return None
        try:
            with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as answer:
                connection.settimeout(seconds)
                connection.connect(state.control)
                connection.sendall(what.encode() + b"\n")
                return json.loads(answer.readline())
        except (OSError, ValueError):
            return None  # it is just leaving

    def _start(self) -> subprocess.Popen[bytes]:
        Home(self._home).create()
        command = [sys.executable, "-m", "sqlml_runners.serving", "--home", str(self._home)]
        environment = dict(os.environ)
        if self._catalog_url:
            environment[CATALOG_VARIABLE] = self._catalog_url  # it may hold a password: not for the list of processes
        with self._log.open("ab") as log:
            child = subprocess.Popen(
                command, cwd=self._home, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        threading.Thread(target=child.wait, name="reaper", daemon=True).start()  # no zombie when it leaves before us
        return child

    def _wait_for_another(self, deadline: float) -> bool:
        """Our server gave up: because another has the lock and will listen soon?"""
        grace = min(deadline, time.monotonic() + 10)
        while self.url() is None and time.monotonic() < grace and (self._home / LOCK_FILE).exists():
            time.sleep(PAUSE)
        return self.url() is not None

    def _failed(self, message: str, seen: int) -> ServingError:
        """``seen``: how large the log was before the start; what stands there is of earlier ones."""
        size = self._log.stat().st_size
        with self._log.open("rb") as log:
            log.seek(max(seen if seen <= size else 0, size - LOG_BYTES))  # smaller than before: a new file was begun
            lines = log.read().decode(errors="replace").splitlines()
        shown = [f"the end of its log {self._log}:", *lines[-12:]] if lines else [f"its log {self._log} says nothing of it"]
        return ServingError(message, hint="\n".join(shown))


def _state(entry: Mapping[str, Any]) -> EndpointState:
    arms = tuple(ArmState(**arm) for arm in entry["arms"])
    undone = {int(revision): reason for revision, reason in entry["undone"].items()}
    return EndpointState(**{**entry, "arms": arms, "undone": undone})


def _wait_gone(state: ServerState, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while state.alive():
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE)
    return True
