"""A memory limit for a process: a cgroup where one can be made, else its resident set is watched.

``RLIMIT_AS`` is not used: it counts address space, which torch and memory maps reserve freely.
"""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

ROOT = Path("/sys/fs/cgroup")


class MemoryLimit(Protocol):
    """A limit on one process and its children."""

    kind: str

    def exceeded(self) -> bool:
        """Whether the limit was passed; the process has been, or must now be, killed."""

    def close(self) -> None:
        """Give back what the limit took; the process is gone."""


def limit_memory(pid: int, limit: int) -> MemoryLimit:
    """Limit a running process to ``limit`` bytes of memory."""
    return _cgroup(pid, limit) or ResidentSetWatch(psutil.Process(pid), limit)


@dataclass
class Cgroup:
    """A control group of version 1 or 2 that holds the process; the kernel kills within it."""

    folder: Path
    events: str  # the file with the count of kills
    kind: str

    def exceeded(self) -> bool:
        try:
            text = (self.folder / self.events).read_text(encoding="ascii")
        except OSError:
            return False
        return any(key == "oom_kill" and int(count) > 0 for key, count in map(str.split, text.splitlines()))

    def close(self) -> None:
        try:
            self.folder.rmdir()
        except OSError:
            # A grandchild still lives in it; the kernel keeps the empty group at no cost.
            return


@dataclass
class ResidentSetWatch:
    """The fallback: whoever follows the job asks now and then."""

    process: psutil.Process
    limit: int
    kind: str = "watch"

    def exceeded(self) -> bool:
        try:
            family = [self.process, *self.process.children(recursive=True)]
            return sum(map(_held, family)) > self.limit
        except psutil.Error:
            return False

    def close(self) -> None:
        return


def _held(process: psutil.Process) -> int:
    """The bytes that a process holds itself; pages of files do not count, where the system tells them apart: they can go."""
    info = process.memory_info()
    return int(info.rss - getattr(info, "shared", 0))


def _cgroup(pid: int, limit: int) -> Cgroup | None:
    v1 = ROOT / "memory"
    version, parent = ("v1", v1) if v1.is_dir() else ("v2", ROOT)
    _sweep(parent)
    folder = parent / f"sqlml-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    settings = {"memory.limit_in_bytes": limit} if version == "v1" else {"memory.max": limit, "memory.swap.max": 0}
    try:
        folder.mkdir()
        for file, value in settings.items():
            if (folder / file).exists():
                (folder / file).write_text(str(value), encoding="ascii")
        if not any((folder / file).exists() for file in settings):
            raise OSError("the memory controller is off here")
        (folder / "cgroup.procs").write_text(str(pid), encoding="ascii")
    except OSError:
        with suppress(OSError):  # not made, or still holding a process that ends just now
            folder.rmdir()
        return None
    return Cgroup(folder, "memory.oom_control" if version == "v1" else "memory.events", f"cgroup {version}")


def _sweep(parent: Path) -> None:
    """Remove the groups of owners that were killed."""
    for folder in parent.glob("sqlml-*-*"):
        owner = folder.name.split("-")[1]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            with suppress(OSError):  # somebody else sweeps it, or a process in it ends just now
                folder.rmdir()
