"""Trees as ONNX: the same answers, whatever shape the trees have, in a time that ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sqlml.algorithms.imported_onnx import open_session
from tests.algorithms.fitting import fit, table

CATEGORIES = 60


@pytest.mark.parametrize("name", ["xgboost_regressor", "random_forest_classifier"])
def test_splits_of_many_categories_below_one_another(name: str) -> None:
    """Who walks through such trees from the root down does it for hours: seven levels of sets of categories."""
    random = np.random.default_rng(0)
    x = random.integers(0, CATEGORIES, (3000, 3)).astype(np.float32)
    y = random.integers(0, 3, 3000) if name.endswith("classifier") else random.standard_normal(3000)
    options: dict[str, Any] = {"n_estimators": 2, "max_depth": 7, "max_cat_to_onehot": 1, "min_child_weight": 0.0}
    trees = fit(name, table(x, y, categorical=(0, 1, 2)), **options)
    graph = trees.onnx()
    assert graph is not None
    unseen = np.where(random.random(x.shape) < 0.1, np.nan, x).astype(np.float32)
    for rows in (x, unseen):
        [found] = open_session(graph).run(None, {"x": rows})
        assert np.abs(np.squeeze(found) - trees.predict(rows)).max() < 1e-5


LOSSES = ("reg:squarederror", "reg:pseudohubererror", "reg:squaredlogerror", "count:poisson", "reg:gamma", "reg:tweedie")


@pytest.mark.parametrize(
    ("name", "classes", "options"),
    [
        ("xgboost_classifier", 2, {}),
        ("xgboost_classifier", 4, {}),
        ("random_forest_classifier", 4, {}),
        ("xgboost_classifier", 2, {"n_estimators": 1, "min_child_weight": 1e9}),  # not a single split
        *[("xgboost_regressor", 0, {"objective": loss}) for loss in LOSSES],
    ],
)
def test_the_same_answers_for_each_loss(name: str, classes: int, options: dict[str, Any]) -> None:
    random = np.random.default_rng(1)
    x = np.column_stack([random.integers(0, 40, 2000), random.standard_normal((2000, 3))]).astype(np.float32)
    x[random.random(x.shape) < 0.1] = np.nan
    score = np.nan_to_num(x[:, 1]) + np.nan_to_num(x[:, 0]) / 20
    y = np.digitize(score, np.linspace(0, 2, classes)[: classes - 1]) if classes else np.abs(score) + 0.1
    trees = fit(name, table(x, y, categorical=(0,)), **{"n_estimators": 20} | options)
    graph = trees.onnx()
    assert graph is not None
    ends = np.array([[np.inf] * 4, [-np.inf] * 4, [39, 1e-45, -0.0, 0.0], [77, 3e38, -3e38, np.nan]], np.float32)
    rows = np.concatenate([x, ends])
    wanted = trees.predict(rows)
    [found] = open_session(graph).run(None, {"x": rows})
    assert np.abs(found.reshape(wanted.shape) - wanted).max() < 1e-6 * max(1, np.abs(wanted).max())
