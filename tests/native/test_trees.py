"""The native kernel against XGBoost itself, to the bit: values at thresholds, infinities, denormals, categories of any number."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost
from numpy.typing import NDArray

from sqlml.algorithms.arrays import load_arrays, save_arrays
from sqlml.algorithms.boosters import read_forest
from sqlml.algorithms.xgboost import TreePredictor
from sqlml.algorithms.xgboost_kernel import BoosterKernel, kernel_of, nodes_of
from sqlml.errors import BundleError
from sqlml.native import library as native
from sqlml.native.trees import TreeKernel

CATEGORIES = (3, 12, 42, 300)  # of the first columns
pytestmark = pytest.mark.skipif(
    native.library() is None and not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="there is no C compiler"
)


def rows(n: int, seed: int, missing: float = 0.1, categories: bool = True) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 10), dtype=np.float32)
    if categories:
        for j, count in enumerate(CATEGORIES):
            x[:, j] = rng.integers(0, count, n)
    x[rng.random(x.shape) < missing] = np.nan
    return x


def train(x: NDArray[np.float32], rounds: int, categories: bool = True, classes: int = 2, **params: Any) -> xgboost.Booster:
    known = np.clip(np.nan_to_num(x), -10, 10)
    score = np.sin(known[:, 2] * 7) + known[:, 5] * known[:, 6] + (known[:, 3] % 7 > 3) - known[:, 8]
    y = np.searchsorted(np.quantile(score, np.linspace(0, 1, classes + 1)[1:-1]), score).astype(np.float32)
    objective: Mapping[str, Any] = {"objective": "binary:logistic"}
    if classes > 2:
        objective = {"objective": "multi:softprob", "num_class": classes}
    types = ["c"] * len(CATEGORIES) + ["q"] * (x.shape[1] - len(CATEGORIES)) if categories else None
    data = xgboost.QuantileDMatrix(x, y, feature_types=types, enable_categorical=True)
    return xgboost.train({**objective, "max_depth": 6, "nthread": 2, "verbosity": 0, **params}, data, rounds)


def adversarial(booster: xgboost.Booster, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows with values at and beside each threshold, infinities, denormals, codes that no training saw, fractions."""
    forest = read_forest(booster)
    rng = np.random.default_rng(5)
    found = x.copy()
    for j in range(x.shape[1]):
        values = np.concatenate([tree.value[(tree.left >= 0) & (tree.feature == j)] for tree in forest.trees])
        beside = [values, np.nextafter(values, np.float32(np.inf)), np.nextafter(values, np.float32(-np.inf))]
        odd = np.array(
            [np.inf, -np.inf, 1e-45, -1e-45, 0.0, -0.0, np.nan, 7.9, 31, 32, 33, 4000, 2.0**24, -1, -0.5, 3.4e38], np.float32
        )
        pool = np.concatenate([*beside, odd, odd])
        places = rng.random(len(x)) < 0.5
        found[places, j] = rng.choice(pool, places.sum())
    return found


def check(booster: xgboost.Booster, x: NDArray[np.float32]) -> None:
    kernel = kernel_of(read_forest(booster))
    assert isinstance(kernel, BoosterKernel)
    expected = booster.inplace_predict(x)
    assert np.array_equal(kernel.predict(x), expected)
    assert np.array_equal(kernel.predict(x, threads=3), expected)
    wide = expected.astype(np.float64)
    answers = np.column_stack([1.0 - wide, wide]) if kernel.objective.startswith("binary:") else wide
    assert np.array_equal(kernel.answers(x), answers)
    assert np.array_equal(kernel.answers(x, threads=3), answers)
    frozen = x[3:4].copy()
    frozen.flags.writeable = False
    assert np.array_equal(kernel.answers(frozen), answers[3:4])
    for n in (1, 2, 4, 5, 31, 32, 33, 63, 64, 65, 127, 129, 300):
        assert np.array_equal(kernel.predict(x[7 : 7 + n]), expected[7 : 7 + n])
        assert np.array_equal(kernel.answers(x[7 : 7 + n]), answers[7 : 7 + n])


def test_it_is_built_where_there_is_a_compiler() -> None:
    assert native.instructions() in ("avx512", "avx2", "portable")


@pytest.mark.parametrize("categories", [False, True])
@pytest.mark.parametrize("missing", [0.0, 0.1])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_answers_are_xgboosts(categories: bool, missing: float, classes: int) -> None:
    x = rows(20_000, 0, missing, categories)
    booster = train(x, 30, categories, classes)
    check(booster, x)
    check(booster, adversarial(booster, x))


@pytest.mark.parametrize(
    "params",
    [
        {"max_depth": 1},
        {"max_depth": 13, "min_child_weight": 0},
        {"max_depth": 0, "max_leaves": 1500, "grow_policy": "lossguide", "min_child_weight": 0},
        {"num_parallel_tree": 4, "subsample": 0.5, "colsample_bynode": 0.5},
        {"gamma": 1e9},  # no split at all
        {"max_cat_to_onehot": 400},
        {"base_score": 0.9},
    ],
)
def test_trees_of_any_shape(params: Mapping[str, Any]) -> None:
    x = rows(6_000, 1)
    booster = train(x, 5, **params)
    check(booster, adversarial(booster, x))


@pytest.mark.parametrize(
    "objective", ["reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "reg:squaredlogerror", "count:poisson",
                  "reg:gamma", "reg:tweedie", "reg:logistic", "binary:logitraw"]
)  # fmt: skip
def test_objectives(objective: str) -> None:
    x = rows(4_000, 2)
    y = np.abs(np.nan_to_num(x[:, 5]) + np.nan_to_num(x[:, 0])) / 10 + 0.01
    booster = xgboost.train(
        {"objective": objective, "verbosity": 0},
        xgboost.DMatrix(x, np.clip(y, 0, 1), feature_types=["c"] * 4 + ["q"] * 6, enable_categorical=True),
        20,
    )
    check(booster, adversarial(booster, x))


@pytest.mark.parametrize("count", [33, 127, 129, 256, 258, 511, 513, 1023, 1025, 1200])
def test_sets_of_any_size(count: int) -> None:
    """A set is looked up in registers or in memory, by its words."""
    rng = np.random.default_rng(count)
    x = rng.integers(0, count, (20_000, 2)).astype(np.float32)
    x[rng.random(x.shape) < 0.05] = np.nan
    score = np.nan_to_num(x[:, 0]) * 7919 % 97 + np.nan_to_num(x[:, 1]) * 104_729 % 89
    data = xgboost.DMatrix(x, (score > 90).astype(np.float32), feature_types=["c", "c"], enable_categorical=True)
    options = {"objective": "binary:logistic", "base_score": 0.5, "max_cat_threshold": count, "max_cat_to_onehot": 2}
    booster = xgboost.train({**options, "min_child_weight": 0}, data, 8)
    most = max(max(codes) for tree in read_forest(booster).trees for codes in tree.right_codes.values())
    assert most // 32 == (count - 1) // 32  # the last word is in use
    beside = rng.choice(np.array([0, 31, 32, count - 1, count, count + 40, 5000, -1, -2, np.nan], np.float32), (2_000, 2))
    check(booster, np.concatenate([x[:3_000], beside]))


def test_infinite_values_beside_missing_ones() -> None:
    x = rows(4_000, 8)
    x[::11, 5] = np.finfo(np.float32).max  # what infinity is to a matrix
    x[::13, 6] = np.finfo(np.float32).min
    booster = train(x, 30)
    check(booster, adversarial(booster, x))


def test_many_threads_at_once() -> None:
    x = rows(5_000, 3)
    booster = train(x, 40)
    kernel = kernel_of(read_forest(booster))
    assert kernel is not None
    expected = booster.inplace_predict(x)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: kernel.predict(x), range(64)):
            assert np.array_equal(found, expected)


def test_columns_are_rows_turned() -> None:
    x = rows(1_000, 4)
    booster = train(x, 10)
    forest = read_forest(booster)
    kernel = TreeKernel(forest.base, 10, nodes_of(forest))
    for n in (1, 100, 128, 129, 1_000):
        columns = [np.ascontiguousarray(x[:n, j]) for j in range(10)]
        assert np.array_equal(kernel.columns(columns, n), kernel.margins(x[:n]))


def test_without_the_library_xgboost_answers(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    x = rows(500, 6)
    booster = train(x, 5)
    booster.set_attr(objective="binary:logistic", outputs="2")
    expected = TreePredictor(booster).predict(x)
    native.library.cache_clear()
    monkeypatch.setattr(native, "FILE", native.FILE.with_name("missing.so"))
    try:
        with caplog.at_level("DEBUG", "sqlml.native"):
            predictor = TreePredictor(booster)
            assert np.array_equal(predictor.predict(x), expected)
            predictor.predict(x)
        assert kernel_of(read_forest(booster)) is None
        assert [record.levelname for record in caplog.records] == ["DEBUG"]
    finally:
        native.library.cache_clear()


def test_rows_of_another_width_are_refused() -> None:
    booster = train(rows(500, 7), 2)
    kernel = kernel_of(read_forest(booster))
    assert kernel is not None
    with pytest.raises(ValueError, match="expected rows of 10 values"):
        kernel.predict(np.zeros((3, 9), np.float32))


def test_packed_trees_are_the_boosters_own(tmp_path: Path) -> None:
    x = rows(2000, 3)
    for classes in (2, 3):
        booster = train(x, 8, classes=classes)
        booster.set_attr(objective="binary:logistic" if classes == 2 else "multi:softprob", outputs=str(classes))
        TreePredictor(booster).save(tmp_path)
        loaded = TreePredictor.load(tmp_path)
        np.testing.assert_array_equal(loaded.predict(x), TreePredictor(booster).predict(x))
        assert "booster" not in vars(loaded)  # nothing but predictions was asked for
        assert loaded.importance().tolist() == TreePredictor(booster).importance().tolist()
        (tmp_path / "trees.npz").unlink()
        np.testing.assert_array_equal(TreePredictor.load(tmp_path).predict(x), TreePredictor(booster).predict(x))


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("left", 0, 0), ("left", 0, 10**6), ("right", 0, -1), ("left", 0, 2), ("feature", 0, 10), ("sizes", 0, 1),
        ("outputs", 0, 1), ("words", slice(None), 10**6), ("first_word", slice(None), -1), ("counts", 0, 2),
    ],
)  # fmt: skip
def test_packed_trees_that_are_damaged(tmp_path: Path, name: str, place: Any, value: int) -> None:
    """What C would follow blindly is refused."""
    booster = train(rows(500, 4), 3)
    booster.set_attr(objective="binary:logistic", outputs="2")
    TreePredictor(booster).save(tmp_path)
    arrays = load_arrays(tmp_path / "trees.npz")
    arrays[name][place] = value
    save_arrays(tmp_path / "trees.npz", arrays)
    with pytest.raises(BundleError, match=r"trees.npz is damaged"):
        TreePredictor.load(tmp_path)
    (tmp_path / "trees.npz").write_bytes(b"PK")
    with pytest.raises(BundleError, match=r"trees.npz cannot be read"):
        TreePredictor.load(tmp_path)
