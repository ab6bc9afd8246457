"""Branches that no row of a chunk reaches are left out; the answers stay XGBoost's to the bit."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xgboost
from numpy.typing import NDArray

from sqlml.algorithms.boosters import read_forest
from sqlml.algorithms.xgboost_kernel import kernel_of
from sqlml.native.trees import TreeKernel
from tests.native.test_trees import pytestmark, rows, train

__all__ = ["pytestmark"]
CHUNK = 2_048


@pytest.fixture(scope="module")
def booster() -> xgboost.Booster:
    return train(rows(20_000, 0), 30)


@pytest.fixture
def trees(booster: xgboost.Booster) -> TreeKernel:
    kernel = kernel_of(read_forest(booster))
    assert kernel is not None
    return kernel.trees


def chunk(seed: int, fixed: Iterable[tuple[int, float]]) -> NDArray[np.float32]:
    x = rows(CHUNK, seed)
    for column, value in fixed:
        x[:, column] = value
    return x


def by_columns(trees: TreeKernel, x: NDArray[np.float32]) -> NDArray[np.float32]:
    return trees.columns([np.ascontiguousarray(x[:, j]) for j in range(x.shape[1])], len(x))


@pytest.mark.parametrize(
    "fixed",
    [
        [(2, 7)],
        [(3, 299)],
        [(3, 100_000)],  # a category that no training saw
        [(3, np.nan)],
        [(3, 7.5)],  # no category
        [(5, 0.25)],
        [(5, np.inf), (6, -np.inf)],
        [(0, 1), (1, 3), (2, 30), (3, 12), (5, 0.5)],
        [(j, 1) for j in range(10)],  # nothing is left but one leaf of each tree
        [(j, np.nan) for j in range(10)],
    ],
)
def test_constant_columns(booster: xgboost.Booster, trees: TreeKernel, fixed: list[tuple[int, float]]) -> None:
    for seed in range(4):  # pruned from the second chunk on
        x = chunk(seed, fixed)
        assert np.array_equal(by_columns(trees, x)[:, 0], booster.inplace_predict(x, predict_type="margin"))


def test_chunks_with_other_constants_in_turn(booster: xgboost.Booster, trees: TreeKernel) -> None:
    for turn in range(60):  # more than are kept
        x = chunk(turn, [(turn % 2 + 2, turn % 21)])
        x = x[: CHUNK - turn]
        assert np.array_equal(by_columns(trees, x)[:, 0], booster.inplace_predict(x, predict_type="margin"))


def test_threads_share_what_was_pruned(booster: xgboost.Booster, trees: TreeKernel) -> None:
    chunks = [chunk(seed, [(3, seed % 12)]) for seed in range(24)]
    expected = [booster.inplace_predict(x, predict_type="margin") for x in chunks]
    with ThreadPoolExecutor(8) as pool:
        for number, found in enumerate(pool.map(lambda i: by_columns(trees, chunks[i % 24]), range(240))):
            assert np.array_equal(found[:, 0], expected[number % 24])


def test_trees_too_deep_to_be_copied_are_left_whole() -> None:
    x = rows(6_000, 1)
    deep = train(x, 3, max_depth=0, max_leaves=1500, grow_policy="lossguide", min_child_weight=0)
    kernel = kernel_of(read_forest(deep))
    assert kernel is not None
    for seed in range(3):
        part = chunk(seed, [(3, 5)])
        assert np.array_equal(by_columns(kernel.trees, part)[:, 0], deep.inplace_predict(part, predict_type="margin"))


def test_what_is_kept_is_less_than_the_whole_and_has_a_bound(booster: xgboost.Booster, trees: TreeKernel) -> None:
    whole = sum(len(tree.left) for tree in read_forest(booster).trees)
    for seed in range(2):
        by_columns(trees, chunk(seed, [(3, 7)]))
        assert trees.pruned_nodes == 0  # not seen often enough
    by_columns(trees, chunk(2, [(3, 7)]))
    assert 0 < trees.pruned_nodes < whole
    for value in range(40):
        for seed in range(3):
            by_columns(trees, chunk(seed, [(3, value)]))
        assert 0 < trees.pruned_nodes <= 4 * whole


def test_a_column_that_is_not_constant_leaves_the_trees_whole(trees: TreeKernel) -> None:
    nearly = chunk(0, [(3, 7)])
    nearly[100, 3] = 8
    for _ in range(5):
        by_columns(trees, nearly)
    assert trees.pruned_nodes == 0
