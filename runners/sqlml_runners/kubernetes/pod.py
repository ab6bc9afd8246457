"""What runs in a job's pod: ``python -m sqlml_runners.kubernetes.pod <place> [<seconds>]``.

In: the job's staged files.  Out: the worker's log on standard output, with its events between the lines, each behind a mark; at
the end what the worker left, staged.  It starts the same worker as every other runner, whose standard input it holds: when this
process dies, the worker ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import IO

from sqlml.contracts import Event
from sqlml.errors import Error
from sqlml.job_folder import DOCUMENT, EVENTS
from sqlml_runners.kubernetes.staging import Staging
from sqlml_runners.worker import Tail

MARK = "\x1e"
"""Begins the line of an event (RFC 7464); its number follows, then its JSON."""
POLL_SECONDS = 0.2
GRACE_SECONDS = 3.0
FAILED = 1
_writing = threading.Lock()
_GROUPS = Path("/sys/fs/cgroup")


def main(place: str, seconds: float | None) -> int:
    """Carry out a staged job; 0 where it is done."""
    signal.signal(signal.SIGTERM, _leave)
    with tempfile.TemporaryDirectory(prefix="sqlml-job-") as name:
        folder = Path(name)
        staging = Staging(place)
        try:
            staging.receive(folder)
        except Error as error:
            sys.stdout.write(f"failed: {error}\n")
            return FAILED
        status = _run(folder, seconds)
        staging.give(folder)
    return status


def _run(folder: Path, seconds: float | None) -> int:
    """The worker from its start to its end; the exit status."""
    kills = _kills()
    (folder / EVENTS).touch()
    command = [sys.executable, "-m", "sqlml_runners.worker", str(folder / DOCUMENT)]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    log = threading.Thread(target=_forward, args=(worker.stdout,), name="log", daemon=True)
    log.start()
    with (folder / EVENTS).open(encoding="utf-8") as events:
        told = _Told(Tail(events.read))
        try:
            in_time = _follow(worker, told, seconds)
        finally:
            _end(worker)
        log.join(GRACE_SECONDS)  # what the worker started may hold its end open
        told.pass_on()
        if not in_time:
            return told.fail(folder, "JobTimeout", f"the job passed its time limit of {seconds:g} s and was stopped")
        if worker.returncode < 0 and _kills() > kills:
            return told.fail(folder, "JobOutOfMemory", "the job passed its memory limit and was stopped")
        if worker.returncode < 0:
            return told.fail(folder, "JobCrashed", f"the job's process died: {signal.Signals(-worker.returncode).name}")
    return worker.returncode


def _follow(worker: subprocess.Popen[bytes], told: _Told, seconds: float | None) -> bool:
    """Pass its events on until it ends; False where its time is up before."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        try:
            worker.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            told.pass_on()
        else:
            return True
        if deadline is not None and time.monotonic() > deadline:
            return False


class _Told:
    """The events on their way to standard output, each with its number."""

    def __init__(self, tail: Tail) -> None:
        self._tail = tail
        self._number = 0

    def pass_on(self) -> None:
        """Those that have come since."""
        for event in self._tail.events():
            self._tell(event)

    def fail(self, folder: Path, error: str, message: str) -> int:
        """One of this process's own, after all of the worker's; the exit status."""
        event = {"event": "failed", "error": error, "message": message, "hint": None}
        with (folder / EVENTS).open("a", encoding="utf-8") as events:
            events.write(f"\n{json.dumps(event)}\n")  # the worker may have been killed within a line
        self._tell(event)
        return FAILED

    def _tell(self, event: Event) -> None:
        _write(f"{MARK}{self._number} {json.dumps(event, ensure_ascii=False)}\n".encode())
        self._number += 1


def _forward(log: IO[bytes]) -> None:
    """Pass on what the worker says, line by line."""
    for line in log:
        _write(line if line.endswith(b"\n") else line + b"\n")


def _write(line: bytes) -> None:
    """A line in one piece: the log and the events go to the same place."""
    with _writing:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


def _end(worker: subprocess.Popen[bytes]) -> None:
    for stop in (worker.terminate, worker.kill):
        if worker.poll() is not None:
            break
        stop()
        try:
            worker.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    if worker.stdin is not None:
        worker.stdin.close()


def _kills() -> int:
    """How often the kernel has killed within this container for want of memory; 0 where it does not tell."""
    for path in _memory_events():
        try:
            lines = path.read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
    return 0


def _memory_events() -> Iterator[Path]:
    """Where the control group of this process counts: of version 1 or 2, as a container sees it or as the host does."""
    try:
        groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()]
    except OSError:
        groups = []
    for _, controllers, path in groups:
        if "memory" in controllers.split(","):
            yield _GROUPS / "memory" / path.lstrip("/") / "memory.oom_control"
        elif not controllers:
            yield _GROUPS / path.lstrip("/") / "memory.events"
    yield _GROUPS / "memory" / "memory.oom_control"
    yield _GROUPS / "memory.events"


def _leave(number: int, _frame: FrameType | None) -> None:
    """SIGTERM: the cluster wants the pod gone."""
    sys.exit(128 + number)


if __name__ == "__main__":
    given = sys.argv[1:]
    status = main(given[0], float(given[1]) if len(given) > 1 else None)
    sys.stdout.flush()
    os._exit(status)
