"""How many workers there should be, and which models leave memory.  Pure: no I/O, no clock."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

TARGET = 2.0
"""So many requests at a time for each worker, the one that is answered included."""
RISE_SECONDS = 1.0


@dataclass(frozen=True)
class Bounds:
    """Workers at least and at most."""

    least: int
    most: int


@dataclass(frozen=True)
class Demand:
    """What one endpoint asks for: ``queue`` is how many requests of its own there were when one was taken up, per worker."""

    bounds: Bounds
    queue: float


def bounds_of(least: int, most: int, *, used: bool) -> Bounds:
    """What an endpoint may have at most counts only while it is used."""
    return Bounds(least, most if used else least)


class Scaler:
    """Decides for one endpoint, by its own queue."""

    def __init__(self, calm_seconds: float) -> None:
        """``calm_seconds``: how long fewer would have done before one leaves."""
        self._calm = calm_seconds
        self._workers = 0
        self._busy_since: float | None = None
        self._calm_since: float | None = None

    def decide(self, now: float, workers: int, queue: float, bounds: Bounds) -> int:
        """How many there should be, given how many there are.  The same again and again until there are as many."""
        if workers != self._workers:
            self._workers, self._busy_since, self._calm_since = workers, None, None
        if not bounds.least <= workers <= bounds.most:
            return min(max(workers, bounds.least), bounds.most)
        busy = queue > TARGET and workers < bounds.most
        calm = workers > bounds.least and queue * workers / max(workers - 1, 1) <= TARGET / 2
        self._busy_since = (self._busy_since if self._busy_since is not None else now) if busy else None
        self._calm_since = (self._calm_since if self._calm_since is not None else now) if calm else None
        if self._busy_since is not None and now - self._busy_since >= RISE_SECONDS:
            return min(bounds.most, 2 * workers, max(workers + 1, math.ceil(workers * queue / TARGET)))
        if self._calm_since is not None and now - self._calm_since >= self._calm:
            return workers - 1
        return workers


class Scalers:
    """Decides for a server: every worker serves all endpoints, so there are as many as the one that needs most."""

    def __init__(self, calm_seconds: float) -> None:
        self._calm = calm_seconds
        self._each: dict[str, Scaler] = {}

    def decide(self, now: float, workers: int, demands: Mapping[str, Demand]) -> int:
        """How many workers there should be, given how many there are and what each endpoint asks for."""
        self._each = {key: self._each.get(key) or Scaler(self._calm) for key in demands}
        asked = [self._each[key].decide(now, workers, one.queue, one.bounds) for key, one in demands.items()]
        return max(asked, default=1)


def evicted(memory: Mapping[str, int], used: Mapping[str, float], kept: Iterable[str], budget: int) -> list[str]:
    """The endpoints whose models leave a worker, the least recently used first, until the rest fits; never one of ``kept``."""
    over, held, leaving = sum(memory.values()) - budget, set(kept), []
    for key in sorted(memory, key=lambda key: used.get(key, 0.0)):
        if over <= 0:
            break
        if key not in held:
            leaving.append(key)
            over -= memory[key]
    return leaving


def shed(connections: Mapping[int, int]) -> dict[int, int]:
    """How many connections each worker is to let go, where it has many more than the others have on average."""
    if len(connections) < 2:
        return {}
    mean = sum(connections.values()) / len(connections)
    over = {worker: math.floor(count - mean) for worker, count in connections.items()}
    return {worker: count for worker, count in over.items() if count > max(1, mean / 4)}
