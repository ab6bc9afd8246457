"""A guarded roll-out: a version gets a part of the traffic, and figures decide whether it gets all of it or none.

    guard (of DEPLOY … WITH) + figures of the version and of the others → wait, promote or roll back, and why

Everything here is a pure function; who watches an endpoint asks ``judge`` now and then and lets the catalog ``settle_endpoint``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

KEY = "rollout"
"""Under this name the guard lies among an endpoint's options, as JSON, until the roll-out is settled."""
WAIT, PROMOTE, ROLL_BACK = "wait", "promote", "roll_back"
CERTAIN = 2.58
"""So many standard deviations (99 % of two sides) the share of failures must be above the limit to be too high before the end."""
MAX_ERROR_RATE = 0.01
"""The part of its requests that a version may fail in that is to be promoted, where nothing else was said."""
FEW = 100
"""Requests from which a latency that 99 % keep means anything."""


@dataclass(frozen=True)
class Guard:
    """What a version must keep to be promoted.  ``candidate`` is its uid; what is None is not asked for.

    ``max_error_rate`` is a part of 1, ``max_latency`` seconds that 99 % of the requests keep; ``metric`` must not be worse than
    the other versions' by more than ``tolerance`` once both have ``min_feedback`` rows; ``maximize``: more of it is better.
    """

    candidate: str
    promote_after: int | None = None
    max_error_rate: float | None = None
    max_latency: float | None = None
    metric: str | None = None
    maximize: bool = False
    tolerance: float = 0.0
    min_feedback: int = 100

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Figures:
    """How it went since the roll-out began, for the version or for all others together.

    ``errors`` are answers for which the server is to blame; ``latency_p99`` seconds of late; ``feedback`` counts rows whose truth
    is known, ``metric`` is the guard's figure over them.
    """

    requests: int = 0
    errors: int = 0
    latency_p99: float | None = None
    feedback: int = 0
    metric: float | None = None


class Decision(NamedTuple):
    """``wait``, ``promote`` or ``roll_back``, and why."""

    action: str
    reason: str


def guard_of(options: Mapping[str, Any]) -> Guard | None:
    """The guard among an endpoint's options, where a roll-out is under way."""
    found = options.get(KEY)
    return Guard(**found) if found else None


def judge(guard: Guard, version: Figures, others: Figures) -> Decision:
    """What is to become of the version.

    It is rolled back as soon as it surely fails too often, is too slow, or has a worse metric; promoted once it has answered
    ``promote_after`` requests and keeps all that was asked for; without ``promote_after`` it is never promoted.
    """
    over = guard.promote_after is not None and version.requests >= guard.promote_after
    fault = _errors(guard, version, over) or _latency(guard, version, over)
    if fault:
        return Decision(ROLL_BACK, fault)
    if guard.promote_after is not None and not over:
        return Decision(WAIT, f"{version.requests:,} of {guard.promote_after:,} requests")
    metric = _metric(guard, version, others)
    if metric.action != PROMOTE:
        return metric
    if guard.promote_after is None:
        return Decision(WAIT, f"{version.requests:,} requests, all well")
    return Decision(PROMOTE, f"all well after {version.requests:,} requests{metric.reason}")


def _errors(guard: Guard, version: Figures, over: bool) -> str | None:
    if guard.max_error_rate is None or not version.requests:
        return None
    rate = version.errors / version.requests
    if (rate if over else _surely(version.errors, version.requests)) <= guard.max_error_rate:
        return None
    counts = f"{version.errors:,} of {version.requests:,} requests failed ({rate:.3g})"
    return f"{counts}: more than max_error_rate = {guard.max_error_rate:g}"


def _latency(guard: Guard, version: Figures, over: bool) -> str | None:
    slow = version.latency_p99
    if guard.max_latency is None or slow is None or slow <= guard.max_latency or not (over or version.requests >= FEW):
        return None
    return f"99 % of the requests took up to {slow * 1000:.4g} ms: more than max_latency = {guard.max_latency * 1000:g} ms"


def _metric(guard: Guard, version: Figures, others: Figures) -> Decision:
    """``promote`` says that the metric is no hindrance."""
    if guard.metric is None:
        return Decision(PROMOTE, "")
    least = min(version.feedback, others.feedback)
    if least < guard.min_feedback:
        return Decision(WAIT, f"{least:,} of {guard.min_feedback:,} rows of feedback")
    if version.metric is None or others.metric is None:
        return Decision(WAIT, f"{guard.metric} is not defined for the rows with feedback")
    worse = (others.metric - version.metric) * (1 if guard.maximize else -1)
    compared = f"{guard.metric} {version.metric:.4g} against {others.metric:.4g}"
    if worse > guard.tolerance:
        return Decision(ROLL_BACK, f"{compared}: worse by more than tolerance = {guard.tolerance:g}")
    return Decision(PROMOTE, f", {compared}")


def _surely(failed: int, of: int) -> float:
    """The lower end of Wilson's interval for a share (https://doi.org/10.1080/01621459.1927.10502953)."""
    z, p = CERTAIN, failed / of
    middle = p + z * z / (2 * of)
    spread = z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return max(0.0, (middle - spread) / (1 + z * z / of))
