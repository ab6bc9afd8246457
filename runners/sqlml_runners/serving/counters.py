"""The sums of what all workers did since the server began, in the supervisor; they outlive the workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec

from sqlml_runners.serving.channel import Figures

_MOST = 10_000
"""So many pairs of endpoint and version are remembered."""


class ArmCount(msgspec.Struct):
    """What one version (``churn@3``; empty: none) did behind one endpoint."""

    endpoint: str
    version: str
    statuses: dict[int, int] = {}
    latencies: dict[int, int] = {}
    rows: int = 0
    dropped: int = 0


class Document(msgspec.Struct):
    """Everything that ``/metrics`` tells; ``states`` are the endpoints' (ready, failed …)."""

    arms: list[ArmCount] = []
    batches: dict[int, int] = {}
    logged: dict[str, int] = {}
    unlogged: dict[str, int] = {}
    queue: dict[str, int] = {}
    states: dict[str, str] = {}
    workers: int = 0
    connections: int = 0


class Counters:
    """The sums, in the supervisor; they outlive the workers."""

    def __init__(self) -> None:
        self._arms: dict[tuple[str, str], ArmCount] = {}
        self._batches: Counter[int] = Counter()
        self._logged: Counter[str] = Counter()
        self._unlogged: Counter[str] = Counter()

    def add(self, figures: Figures) -> None:
        """Add what a worker reports."""
        for arm in figures.arms:
            count = self._arms.get((arm.key, arm.name))
            if count is None:
                if len(self._arms) >= _MOST:
                    continue
                count = self._arms[(arm.key, arm.name)] = ArmCount(arm.key, arm.name)
            for mine, theirs in ((count.statuses, arm.statuses), (count.latencies, arm.latencies)):
                for number, times in theirs.items():
                    mine[number] = mine.get(number, 0) + times
            count.rows += arm.rows
            count.dropped += arm.dropped
        self._batches.update(figures.batches)
        self._logged.update(figures.logged)
        self._unlogged.update(figures.unlogged)

    def forget(self, key: str) -> None:
        """The endpoint is no more."""
        for known in [known for known in self._arms if known[0] == key]:
            del self._arms[known]

    def document(self, queue: Mapping[str, int], states: Mapping[str, str], workers: int, connections: int) -> Document:
        """With what stands now: requests that wait by endpoint, states by endpoint."""
        return Document(
            list(self._arms.values()), dict(self._batches), dict(self._logged), dict(self._unlogged), dict(queue), dict(states),
            workers, connections,
        )  # fmt: skip
