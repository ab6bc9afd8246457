"""Guarded roll-outs: what each version did since its endpoint's last change, and so whether the new one stays."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from dataclasses import replace

import msgspec

from sqlml.catalog import Endpoint
from sqlml.home import CATALOG_VARIABLE
from sqlml.rollout import Decision, Figures, Guard, guard_of, judge
from sqlml_runners.serving.figures import Totals
from sqlml_runners.serving.options import ServerOptions

log = logging.getLogger("sqlml.serving")

METRIC_SECONDS = 5.0
"""So often the metric of a roll-out is measured anew: a process of its own each time."""
METRIC_LIMIT = 120.0


class Side(msgspec.Struct, frozen=True):
    """Rows whose truth is known, and the metric over them."""

    rows: int = 0
    metric: float | None = None


class Sides(msgspec.Struct, frozen=True):
    """The version that is tried out, and of the others the one that has most rows."""

    version: Side = Side()
    others: Side = Side()


class Guards:
    """Remembers where the counts stood when a roll-out began, and the metric as it was last measured."""

    def __init__(self, totals: Totals, options: ServerOptions) -> None:
        self._totals = totals
        self._options = options
        self._bases: dict[str, tuple[int, dict[str, tuple[int, int]]]] = {}
        self._sides: dict[str, tuple[int, Sides]] = {}
        self._due: dict[str, float] = {}

    def judge(self, endpoint: Endpoint, now: float) -> Decision | None:
        """What is to become of the version that is tried out; None where none is."""
        guard, key = guard_of(endpoint.options), endpoint.name.lower()
        if guard is None:
            for kept in (self._bases, self._sides, self._due):
                kept.pop(key, None)
            return None
        version, others = self._figures(endpoint, guard, now)
        return judge(guard, version, others)

    def wants_metric(self, endpoint: Endpoint, now: float) -> bool:
        """Whether nothing but its metric is missing to judge a roll-out, and it was not measured just now."""
        guard, key = guard_of(endpoint.options), endpoint.name.lower()
        if guard is None or guard.metric is None or now < self._due.get(key, 0.0):
            return False
        if self._figures(endpoint, guard, now)[0].requests < (guard.promote_after or 0):
            return False
        self._due[key] = now + METRIC_LIMIT  # not again until this one is over
        return True

    def _figures(self, endpoint: Endpoint, guard: Guard, now: float) -> tuple[Figures, Figures]:
        """Of the version that is tried out, and of all others together."""
        key = endpoint.name.lower()
        base = self._base(key, endpoint, now)
        sums = {arm.uid: self._since(key, arm.uid, base, now) for arm in endpoint.arms}
        version = sums.pop(guard.candidate, Figures())
        others = Figures(sum(s.requests for s in sums.values()), sum(s.errors for s in sums.values()))
        revision, sides = self._sides.get(key, (None, None))
        if sides is None or revision != endpoint.revision:
            return version, others
        version = replace(version, feedback=sides.version.rows, metric=sides.version.metric)
        return version, replace(others, feedback=sides.others.rows, metric=sides.others.metric)

    async def measure(self, endpoint: Endpoint, now: float) -> None:
        """Measure the metric of a roll-out, in a process of its own."""
        environment = dict(os.environ) | ({CATALOG_VARIABLE: self._options.catalog} if self._options.catalog else {})
        command = ["-m", "sqlml_runners.serving.guard_metric", "--home", str(self._options.home), "--endpoint", endpoint.name]
        child = await asyncio.create_subprocess_exec(
            sys.executable, *command, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            told, complaint = await asyncio.wait_for(child.communicate(), METRIC_LIMIT)
        except TimeoutError:
            child.kill()
            await child.wait()
            told, complaint = b"", f"no answer within {METRIC_LIMIT:g} s".encode()
        key = endpoint.name.lower()
        if told:
            self._sides[key] = (endpoint.revision, msgspec.json.decode(told, type=Sides))
        elif complaint:
            log.warning("the metric of the roll-out of endpoint %s cannot be measured: %s", endpoint.name, _last_line(complaint))
        self._due[key] = now + METRIC_SECONDS

    def _base(self, key: str, endpoint: Endpoint, now: float) -> dict[str, tuple[int, int]]:
        revision, base = self._bases.get(key, (None, {}))
        if revision != endpoint.revision:
            sums = {arm.uid: self._totals.of(key, arm.uid, now) for arm in endpoint.arms}
            base = {uid: (total.requests, total.errors) for uid, total in sums.items()}
            self._bases[key] = (endpoint.revision, base)
        return base

    def _since(self, key: str, uid: str, base: dict[str, tuple[int, int]], now: float) -> Figures:
        total, (requests, errors) = self._totals.of(key, uid, now), base.get(uid, (0, 0))
        return Figures(total.requests - requests, total.errors - errors, total.latency_p99)


def _last_line(text: bytes) -> str:
    return text.decode(errors="replace").strip().rpartition("\n")[2]
