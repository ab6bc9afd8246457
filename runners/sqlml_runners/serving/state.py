"""Who serves a home: the file ``server.json``, and the lock that only one server can hold.

The file alone proves nothing (``kill -9`` leaves it behind): it is believed only where its process lives and began when it says.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlml.errors import ServingError

STATE_FILE = "server.json"
LOCK_FILE = "server.lock"


@dataclass(frozen=True)
class ServerState:
    """A server that listens.  ``started`` is when its process began, as ``process_start`` tells; ``control`` its Unix socket,
    ``grpc`` where it speaks gRPC (``host:port``; empty: nowhere)."""

    pid: int
    started: float
    host: str
    port: int
    url: str
    version: str
    control: str = ""
    grpc: str = ""

    def alive(self) -> bool:
        """Whether the process that wrote this still runs."""
        import psutil

        try:
            alive = psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
            return bool(alive and abs(process_start(self.pid) - self.started) < 1)
        except psutil.Error:
            return False


def process_start(pid: int) -> float:
    """When a process began: on Linux in seconds since the machine's start, which no change of the clock moves.

    ``psutil.NoSuchProcess`` where it is no more.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError) as error:
        import psutil

        if isinstance(error, ProcessLookupError):
            raise psutil.NoSuchProcess(pid) from error
        return float(psutil.Process(pid).create_time())
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def read_state(home: Path) -> ServerState | None:
    """The server that runs for a home; None where there is none (whatever file an old one has left)."""
    state = _read(home)
    return state if state and state.alive() else None


def read_left_behind(home: Path) -> ServerState | None:
    """The server that ran for a home and could not say goodbye; None where there was none, or it runs."""
    state = _read(home)
    return state if state and not state.alive() else None


def _read(home: Path) -> ServerState | None:
    try:
        return ServerState(**json.loads((home / STATE_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_state(home: Path, state: ServerState) -> None:
    """Write the file in one step, readable by its owner only."""
    temporary = home / f"{STATE_FILE}.{state.pid}"
    temporary.write_text(json.dumps(asdict(state), indent=1) + "\n", encoding="utf-8")
    temporary.chmod(0o600)
    temporary.replace(home / STATE_FILE)


def remove_state(home: Path, state: ServerState) -> None:
    """Remove the file, if it is still this server's."""
    if read_state(home) == state:
        (home / STATE_FILE).unlink(missing_ok=True)


class ServerLock:
    """The right to serve a home, for the time of a ``with`` or of the process.  ``ServingError`` where another has it."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._path = home / LOCK_FILE
        self._file = -1

    def __enter__(self) -> Self:
        import fcntl

        while True:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(file)
                raise self._taken() from None
            self._file = file
            if self.held():
                return self
            os.close(file)  # its last holder removed it between our open and our lock

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.held():
            self._path.unlink(missing_ok=True)
        os.close(self._file)

    def held(self) -> bool:
        """Whether the file that is locked is still the one in the home (not so when the home was deleted, or made anew)."""
        with suppress(OSError):
            return os.path.samestat(os.fstat(self._file), self._path.stat())
        return False

    def _taken(self) -> ServingError:
        state = read_state(self._home)
        who = f"process {state.pid} at {state.url}" if state else "another process, which is just starting or stopping"
        return ServingError(f"the endpoints of {self._home} are served already by {who}", hint="one server is enough")
