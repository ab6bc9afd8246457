"""What requests did, counted in each worker and added up in the supervisor: requests, errors, latencies in buckets."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

from sqlml_runners.serving.channel import ArmFigures

_PER_DOUBLING = 4
"""Buckets for each doubling of the latency: a quantile is right within 19 %."""

WINDOW_SECONDS = 60.0


def bucket(seconds: float) -> int:
    """The bucket of a latency: 0 for a microsecond and less."""
    return max(0, math.ceil(_PER_DOUBLING * math.log2(max(seconds, 1e-6) * 1e6)))


def bucket_end(number: int) -> float:
    """The longest latency of a bucket, in seconds."""
    return float(2 ** (number / _PER_DOUBLING)) / 1e6


def quantile(latencies: Mapping[int, int], share: float) -> float | None:
    """The latency that a share of the requests kept, in seconds; None without requests."""
    left = share * sum(latencies.values())
    for number in sorted(latencies):
        left -= latencies[number]
        if left <= 0:
            return bucket_end(number)
    return None


class Tally:
    """The counts of one worker since the last report.  For its event loop alone: nothing here is locked."""

    def __init__(self) -> None:
        self._arms: dict[tuple[str, str], _Count] = {}
        self._queues: dict[str, _Queue] = {}
        self._pace: dict[str, float] = {}
        self.total = 0  # requests that are being answered or wait

    def begin(self, key: str) -> None:
        """A request for an endpoint (its name in lower case) was taken up."""
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _Queue()
        queue.now += 1
        queue.taken += 1
        queue.seen += queue.now
        self.total += 1

    def end(self, key: str) -> None:
        """It is over, however it ended."""
        self.total -= 1
        self._queues[key].now -= 1

    def waiting(self, key: str) -> int:
        """How many requests for an endpoint are being answered or wait."""
        queue = self._queues.get(key)
        return 0 if queue is None else queue.now

    def under_way(self) -> dict[str, int]:
        """The same for every endpoint; none with 0."""
        return {key: queue.now for key, queue in self._queues.items() if queue.now}

    def take_queues(self) -> dict[str, float]:
        """How many requests of each endpoint there were when one was taken up, itself included: the mean since the last time."""
        found = {key: queue.seen / queue.taken for key, queue in self._queues.items() if queue.taken}
        for queue in self._queues.values():
            queue.taken = queue.seen = 0
        return found

    def pace(self, key: str) -> float:
        """How long an answer of an endpoint takes, in seconds: an average in which the last ones count most."""
        return self._pace.get(key, 0.0)

    def count(
        self, key: str, uid: str, seconds: float, status: int, rows: int = 0, name: str = "", *, to_blame: bool = False
    ) -> None:
        """A request was answered by a version behind an endpoint (``uid`` empty: by none), with this HTTP status.

        ``to_blame``: it is the version's fault, whatever the status.
        """
        count = self._arms.get((key, uid))
        if count is None:
            count = self._arms[(key, uid)] = _Count(name)
        count.requests += 1
        count.rows += rows
        if status >= 500 or to_blame:
            count.errors += 1
        count.statuses[status] = count.statuses.get(status, 0) + 1
        number = bucket(seconds)
        count.latencies[number] = count.latencies.get(number, 0) + 1
        if uid:
            self._pace[key] = self._pace.get(key, seconds) * 0.98 + seconds * 0.02

    def drop(self, key: str, uid: str, name: str = "") -> None:
        """There was no room for a copy of a request to an endpoint, which a version in the shadow would have answered."""
        count = self._arms.get((key, uid))
        if count is None:
            count = self._arms[(key, uid)] = _Count(name)
        count.dropped += 1

    def take(self) -> tuple[ArmFigures, ...]:
        """What was counted since the last time."""
        arms, self._arms = self._arms, {}
        return tuple(
            ArmFigures(key, uid, c.requests, c.errors, c.latencies, c.statuses, c.rows, c.name, c.dropped)
            for (key, uid), c in arms.items()
        )


@dataclass(frozen=True)
class Sum:
    """What one version did behind one endpoint since the server began; latencies, in seconds, of the last minute."""

    requests: int
    errors: int
    latency_p50: float | None
    latency_p99: float | None


class Totals:
    """The counts of all workers, living or not, since the server began."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], list[int]] = {}
        self._recent: dict[tuple[str, str], deque[tuple[float, dict[int, int]]]] = {}

    def add(self, figures: ArmFigures, now: float) -> None:
        """Add what a worker reports."""
        arm = figures.key, figures.uid
        counts = self._counts.setdefault(arm, [0, 0])
        counts[0] += figures.requests
        counts[1] += figures.errors
        self._lately(arm, now).append((now, figures.latencies))

    def of(self, key: str, uid: str, now: float) -> Sum:
        """One version behind one endpoint."""
        latencies: Counter[int] = Counter()
        for _, some in self._lately((key, uid), now):
            latencies.update(some)
        requests, errors = self._counts.get((key, uid), (0, 0))
        return Sum(requests, errors, quantile(latencies, 0.5), quantile(latencies, 0.99))

    def forget(self, key: str) -> None:
        """The endpoint is no more."""
        for known in [known for known in self._counts if known[0] == key]:
            del self._counts[known]
            self._recent.pop(known, None)

    def _lately(self, arm: tuple[str, str], now: float) -> deque[tuple[float, dict[int, int]]]:
        recent = self._recent.setdefault(arm, deque())
        while recent and now - recent[0][0] > WINDOW_SECONDS:
            recent.popleft()
        return recent


class _Queue:
    __slots__ = ("now", "seen", "taken")

    def __init__(self) -> None:
        self.now = self.seen = self.taken = 0


class _Count:
    __slots__ = ("dropped", "errors", "latencies", "name", "requests", "rows", "statuses")

    def __init__(self, name: str) -> None:
        self.name = name
        self.dropped = 0
        self.requests = 0
        self.errors = 0
        self.rows = 0
        self.latencies: dict[int, int] = {}
        self.statuses: dict[int, int] = {}
