"""Why workers die, and which version is to blame.  No clock.

A signal that a program earns by itself, a status other than 0, or the kernel's out-of-memory killer is a crash; ``kill -9`` by
somebody else says nothing of a model.  A version is to blame that was being loaded, alone; or that was running in three crashes
within a minute.
"""

from __future__ import annotations

import signal
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

WINDOW_SECONDS = 60.0
RUNNING_STRIKES = 3
LOADING_STRIKES = 2
CALM_SECONDS = 10.0
PAUSES = (0.0, 0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
"""How long to wait before the next worker, by how many crashed one after the other."""


@dataclass(frozen=True)
class Death:
    """How a worker ended.  ``status`` as Popen has it, None where nobody knows; ``starved``: the kernel was out of memory."""

    status: int | None
    loading: int | None = None  # the mark of the revision that it was loading
    running: Collection[int] = ()  # the marks of those that were answering
    starved: bool = False

    @property
    def crash(self) -> bool:
        """Whether what it ran may be the reason."""
        if self.status in (0, None):
            return False
        return self.status not in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP) or self.starved

    def words(self) -> str:
        """``SIGSEGV``, ``exit status 3`` …"""
        if self.starved and self.status == -signal.SIGKILL:
            return "out of memory"
        if self.status is None:
            return "for no known reason"
        return signal.Signals(-self.status).name if self.status < 0 else f"exit status {self.status}"


def out_of_memory_kills() -> int:
    """How many processes the kernel has killed for want of memory since the machine started; 0 where it does not tell."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


@dataclass
class Strikes:
    """What was counted against each mark, and how many workers crashed one after the other."""

    _counts: dict[int, list[float]] = field(default_factory=dict)
    _crashes: list[float] = field(default_factory=list)

    def blame(self, death: Death, now: float) -> list[int]:
        """The marks that must not be served any longer."""
        if not death.crash:
            return []
        self._crashes.append(now)
        self._counts = {mark: ats for mark, ats in self._counts.items() if now - ats[-1] < WINDOW_SECONDS}
        if death.loading is not None and not death.running:
            return [death.loading]
        guilty = [] if death.loading is None else [death.loading] * (self._strike(death.loading, now) >= LOADING_STRIKES)
        return guilty + [mark for mark in death.running if self._strike(mark, now) >= RUNNING_STRIKES]

    def pause(self, now: float) -> float:
        """How long to wait before the next worker."""
        self._crashes = [at for at in self._crashes if now - at < CALM_SECONDS]
        return PAUSES[min(len(self._crashes), len(PAUSES) - 1)]

    def _strike(self, mark: int, now: float) -> int:
        counts = self._counts[mark] = [at for at in self._counts.get(mark, ()) if now - at < WINDOW_SECONDS] + [now]
        return len(counts)
