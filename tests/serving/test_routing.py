"""Requests are divided as the weights say, by turns and by keys."""

from __future__ import annotations

from collections import Counter
from math import sqrt

import pytest
from sqlml_runners.serving.routing import Split, choose

HUNDRED = Split(("only",), (100,))
PAIR = Split(("old", "new"), (90, 10))
THREE = Split(("a", "b", "c"), (50, 33, 17))


def within_three_sigma(counts: Counter[int], split: Split) -> bool:
    n = sum(counts.values())
    shares = [weight / sum(split.weights) for weight in split.weights]
    return all(abs(counts[i] - n * p) <= 3 * sqrt(n * p * (1 - p)) for i, p in enumerate(shares))


@pytest.mark.parametrize("split", [PAIR, THREE, Split(("a", "b"), (99, 1)), Split(("a", "b", "c"), (0, 100, 0))])
@pytest.mark.parametrize("step", [1, 2, 3, 10, 100])
@pytest.mark.parametrize("start", [0, 7, 10**9])
def test_turns_hold_the_weights(split: Split, step: int, start: int) -> None:
    for n in (100, 1000, 10_000):
        assert within_three_sigma(Counter(choose(split, start + i * step) for i in range(n)), split)


def test_turns_hold_them_closer_than_chance_does() -> None:
    counts = Counter(choose(PAIR, i) for i in range(10_000))
    assert abs(counts[1] - 1000) <= 5


@pytest.mark.parametrize("split", [PAIR, THREE])
def test_keys_hold_the_weights_and_stick(split: Split) -> None:
    chosen = {f"customer {i}": choose(split, i, f"customer {i}") for i in range(20_000)}
    assert within_three_sigma(Counter(chosen.values()), split)
    assert all(choose(split, 0, key) == arm for key, arm in chosen.items())


def test_another_share_moves_no_more_keys_than_it_must() -> None:
    keys = [f"customer {i}" for i in range(10_000)]
    before = Split(("old", "new"), (90, 10))
    after = Split(("new", "old"), (30, 70))  # the order of the arms says nothing
    moved = Counter((before.uids[choose(before, 0, key)], after.uids[choose(after, 0, key)]) for key in keys)
    assert moved["new", "old"] == 0
    assert 1800 < moved["old", "new"] < 2200


def test_one_arm_answers_all() -> None:
    assert {choose(HUNDRED, i, key) for i in range(100) for key in (None, "x")} == {0}
