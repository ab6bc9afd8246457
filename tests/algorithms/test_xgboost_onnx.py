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
    """The converter alone walks through such trees for hours: seven levels of sets of categories."""
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
