"""Which of an endpoint's versions answers a request.  Pure functions: no I/O, no clock, no state.

    Split (weights of the arms, what requests stick by) + the request's number or key → the arm's place

Without a key the arms take turns by the golden ratio: after n requests each arm's share is within a few requests of its weight,
in any regular pick of them too (every second one, say), so that no kind of client meets one arm only.  With a key, rendezvous
hashing: equal keys meet the same arm in every process, and a change of the weights moves no more keys than it must.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import accumulate

from sqlml.endpoint_options import Sticky

GOLDEN = 0x9E3779B97F4A7C15
"""2^64 / the golden ratio, odd: its multiples are spread as evenly as any sequence can be."""
_ALL = (1 << 64) - 1


@dataclass(frozen=True)
class Split:
    """How requests are divided: the uids of the arms that answer, their weights, not all 0, and what requests stick by."""

    uids: tuple[str, ...]
    weights: tuple[int, ...]
    sticky: Sticky | None = None

    @cached_property
    def bounds(self) -> tuple[int, ...]:
        """The ends of the arms' shares of 0 … 2^64."""
        total = sum(self.weights)
        return tuple(end * (_ALL + 1) // total for end in accumulate(self.weights))


def choose(split: Split, turn: int, key: str | None = None) -> int:
    """The place of the arm that answers: by ``key`` where there is one, else by ``turn``, the request's number."""
    if len(split.weights) == 1:
        return 0
    if key is not None:
        return _by_key(split, key.encode())
    return bisect_right(split.bounds, (turn * GOLDEN) & _ALL)


def _by_key(split: Split, key: bytes) -> int:
    """Weighted rendezvous: each arm draws a number from the key, the larger its weight the luckier it is."""
    best, place = -1.0, 0
    for i, (uid, weight) in enumerate(zip(split.uids, split.weights, strict=True)):
        drawn = int.from_bytes(blake2b(key, digest_size=8, key=uid.encode()[:64]).digest())
        luck = weight / -math.log((drawn + 1) / (_ALL + 2))
        if luck > best:
            best, place = luck, i
    return place
