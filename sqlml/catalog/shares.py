"""Shares of an endpoint's traffic, in whole percents that add up to 100.  Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

SERVES, SHADOW, PART = "serves", "shadow", "part"
"""What an arm does: it answers its share of the requests; it gets a copy of each, unanswered; it is one model of a query."""


@dataclass(frozen=True)
class Share:
    """What an arm is to be: a version by its uid."""

    uid: str
    role: str = SERVES
    weight: int = 100


def scaled(weights: Sequence[int], total: int) -> list[int]:
    """Weights in the same proportion, as whole numbers that add up to ``total``; weights that are all 0 become equal.

    What is left over by rounding down goes where most was lost (the largest remainders).
    """
    whole = sum(weights)
    parts = weights if whole else [1] * len(weights)
    exact = [part * total / (whole or len(weights)) for part in parts]
    floors = [int(part) for part in exact]
    order = sorted(range(len(parts)), key=lambda index: (floors[index] - exact[index], index))
    for index in order[: total - sum(floors)]:
        floors[index] += 1
    return floors


def with_share(shares: Sequence[Share], uid: str, percent: int) -> list[Share]:
    """The arms where one more version, or one that is there, gets a percentage, and the others keep theirs in proportion.

    It stands last.  Where no other serves it must get 100.
    """
    others = _scaled([share for share in shares if share.uid != uid], 100 - percent)
    return [*others, Share(uid, SERVES, percent)]


def with_shadow(shares: Sequence[Share], uid: str) -> list[Share]:
    """The arms where one more version, or one that is there, gets copies of the requests and answers none."""
    return [*_scaled([share for share in shares if share.uid != uid], 100), Share(uid, SHADOW, 0)]


def without(shares: Sequence[Share], uids: Collection[str]) -> list[Share]:
    """The arms that are left when some go; the others take over in proportion.  Empty where none is left that answers."""
    left = [share for share in shares if share.uid not in uids]
    return _scaled(left, 100) if any(share.role == SERVES for share in left) else []


def _scaled(shares: Sequence[Share], total: int) -> list[Share]:
    """Arms of which those that serve get ``total`` percent together."""
    serving = [share for share in shares if share.role == SERVES]
    weights = dict(zip((share.uid for share in serving), scaled([share.weight for share in serving], total), strict=True))
    return [replace(share, weight=weights.get(share.uid, 0)) for share in shares]
