"""Parquet of the prediction log's raw files, made by a process that runs when nobody else wants the processor.

Supervisor: Settler → a process: main → settle, folder by folder
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sqlml.home import Home
from sqlml.prediction_log import may_merge, merge_settled, raw_bytes, settle_one

WAIT_BYTES = 64_000_000
"""So many bytes of raw files are worth a process."""
WAIT_SECONDS = 60.0
"""A smaller number waits so long."""
MERGED = 24
"""So many small files of one version become one."""
_BEGIN = """
import os, sys
try:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
except (AttributeError, OSError):  # no Linux, or not allowed
    os.nice(19)
from sqlml_runners.serving.settling import main
main(sys.argv[1])
"""
"""What the process runs.  From its first moment it takes only the time that nobody else wants: most of its work are imports."""

log = logging.getLogger("sqlml.serving")


class Settler:
    """The supervisor's side: one process at a time, of a home."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        self._since: float | None = None

    def look(self) -> None:
        """Start a process where there is something to do.  Looks into folders: not for the event loop."""
        if self._process is not None and self._process.poll() is None:
            return
        self._process = None
        folders = list(_folders(self._home))
        size, now = sum(raw_bytes(folder) for folder in folders), time.monotonic()
        self._since = None if not size else now if self._since is None else self._since
        late = self._since is not None and now >= self._since + WAIT_SECONDS
        many = any(may_merge(folder, 2 * MERGED) for folder in folders)  # made by those who read
        if size >= WAIT_BYTES or late or many:
            self._since = None
            command = [sys.executable, "-c", _BEGIN, str(self._home.folder)]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def close(self) -> None:
        """End the process; what it has not done yet stays raw."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(timeout=10)


def _folders(home: Home) -> Iterator[Path]:
    """Of each endpoint that of each version."""
    with suppress(OSError):
        for endpoint in home.predictions.iterdir():
            with suppress(OSError):
                yield from (folder for folder in endpoint.iterdir() if folder.is_dir())


def main(home: str) -> None:
    """Settle all folders of a home once."""
    for folder in _folders(Home(Path(home))):
        try:
            while settle_one(folder):
                continue
            while merge_settled(folder, MERGED):
                continue
        except Exception as error:  # of one folder: the others have their turn
            log.warning("the raw files of the prediction log in %s stay: %s", folder, error)
