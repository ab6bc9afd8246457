"""Shares of the traffic: whole percents, in proportion, adding up."""

import random

import pytest

from sqlml.catalog.shares import SHADOW, Share, scaled, with_shadow, with_share, without


def test_weights_add_up_and_keep_their_proportion() -> None:
    chance = random.Random(0)
    for _ in range(2_000):
        weights = [chance.randint(0, 100) for _ in range(chance.randint(1, 6))]
        total, whole = chance.randint(0, 100), sum(weights)
        found = scaled(weights, total)
        assert sum(found) == total
        assert all(weight >= 0 for weight in found)
        if whole:
            assert all(abs(new - old * total / whole) < 1 for old, new in zip(weights, found, strict=True))


@pytest.mark.parametrize(
    ("weights", "total", "expected"),
    [
        ([100], 90, [90]),
        ([90, 10], 90, [81, 9]),
        ([50, 50], 75, [38, 37]),
        ([1, 1, 1], 100, [34, 33, 33]),
        ([0, 0], 60, [30, 30]),
        ([0, 100], 90, [0, 90]),
        ([], 0, []),
    ],
)
def test_scaled(weights: list[int], total: int, expected: list[int]) -> None:
    assert scaled(weights, total) == expected


TWO = [Share("a", weight=80), Share("b", weight=20), Share("s", SHADOW, 0)]


def test_a_new_version_takes_its_share_from_the_others_in_proportion() -> None:
    assert with_share(TWO, "c", 10) == [
        Share("a", weight=72),
        Share("b", weight=18),
        Share("s", SHADOW, 0),
        Share("c", weight=10),
    ]
    assert with_share(TWO, "b", 50) == [Share("a", weight=50), Share("s", SHADOW, 0), Share("b", weight=50)]
    assert with_share(TWO, "s", 10)[-1] == Share("s", weight=10)


def test_a_shadow_takes_nothing() -> None:
    assert with_shadow(TWO, "c") == [*TWO, Share("c", SHADOW, 0)]
    assert with_shadow(TWO, "b") == [Share("a", weight=100), Share("s", SHADOW, 0), Share("b", SHADOW, 0)]


def test_the_others_take_over_where_one_leaves() -> None:
    assert without(TWO, {"a"}) == [Share("b", weight=100), Share("s", SHADOW, 0)]
    assert without(TWO, {"s"}) == TWO[:2]
    assert without(TWO, {"a", "b"}) == []
