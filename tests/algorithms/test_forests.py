"""Random forests are XGBoost's own; boosting goes on where it was."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from sqlml.algorithms.options import check_options
from sqlml.contracts import FitSpec
from sqlml.errors import TrainingDataError
from sqlml.registry import get_algorithm
from tests.algorithms.fitting import fit
from tests.jobs import Recorder
from tests.kits import example_data


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_classifier_equals_its_own_wrapper(classes: int, weighted: bool) -> None:
    import xgboost

    data = example_data(get_algorithm("random_forest_classifier"), 4, classes)
    weight = np.random.default_rng(0).random(400) if weighted else None
    ours = fit("random_forest_classifier", replace(data, weight=weight), seed=7, n_estimators=20, max_depth=4)
    theirs = xgboost.XGBRFClassifier(
        n_estimators=20, max_depth=4, random_state=7, n_jobs=2, enable_categorical=True, feature_types=["q", "c", "q", "q"]
    ).fit(data.features.x, data.y, sample_weight=weight)
    assert np.abs(ours.predict(data.features.x) - theirs.predict_proba(data.features.x)).max() < 1e-7


def test_regressor_and_its_defaults_are_the_librarys() -> None:
    import xgboost

    algorithm = get_algorithm("random_forest_regressor")
    data = example_data(algorithm, 3, 0)
    ours = fit("random_forest_regressor", data)
    theirs = xgboost.XGBRFRegressor(n_jobs=2, random_state=0, enable_categorical=True, feature_types=["q", "c", "q"])
    theirs.fit(data.features.x, data.y)
    assert np.array_equal(ours.predict(data.features.x), theirs.predict(data.features.x).astype(np.float64))
    config = json.loads(theirs.get_booster().save_config())["learner"]["gradient_booster"]["tree_train_param"]
    for option in algorithm.options:
        if option.name in config and option.default is not None:
            assert type(option.default)(config[option.name]) == pytest.approx(option.default), option.name


def test_a_forest_has_no_rounds_to_stop_at() -> None:
    data = example_data(get_algorithm("random_forest_regressor"), 3, 0)
    forest = fit("random_forest_regressor", data, n_estimators=5).parameters()
    assert set(forest) == {"weight", "gain", "cover"}
    boosted = fit("xgboost_regressor", data, n_estimators=5).parameters()
    assert boosted["rounds"] == 5
    assert boosted["weight"].sum() > 0


@pytest.mark.parametrize("name", ["xgboost_classifier", "xgboost_regressor"])
def test_boosting_goes_on(name: str) -> None:
    """As ``xgb_model`` does it; without draws, 10 rounds and 5 more are 15 rounds."""
    import xgboost

    classes = 3 if name == "xgboost_classifier" else 0
    data = example_data(get_algorithm(name), 4, classes)
    x = data.features.x
    first = fit(name, data, n_estimators=10)
    more = fit(name, data, first, n_estimators=5)
    assert more.parameters()["rounds"] == 15
    at_once = fit(name, data, n_estimators=15, tree_method="hist")
    assert np.allclose(more.predict(x), at_once.predict(x), rtol=1e-4, atol=1e-4)
    estimator = xgboost.XGBClassifier if classes else xgboost.XGBRegressor
    types = ["q", "c", "q", "q"]
    theirs = estimator(n_estimators=10, n_jobs=2, random_state=0, enable_categorical=True, feature_types=types).fit(x, data.y)
    rows = xgboost.DMatrix(x, data.y, feature_types=types, enable_categorical=True)
    params = {"objective": "multi:softprob", "num_class": 3} if classes else {"objective": "reg:squarederror"}
    booster = xgboost.train(params | {"nthread": 2, "seed": 0}, rows, 5, xgb_model=theirs.get_booster())
    assert np.allclose(more.predict(x), booster.predict(rows), rtol=1e-6, atol=1e-6)


def test_early_stopping_counts_all_rounds() -> None:
    data = example_data(get_algorithm("xgboost_regressor"), 4, 0, 600)
    first = fit("xgboost_regressor", data, n_estimators=10)
    noise = np.random.default_rng(0).normal(size=200)
    watched = replace(data, valid_x=data.features.x[:200], valid_y=noise)
    more = fit("xgboost_regressor", watched, first, n_estimators=50, early_stopping_rounds=2)
    assert 11 <= more.parameters()["rounds"][0] < 60


def test_another_loss_cannot_go_on() -> None:
    data = example_data(get_algorithm("xgboost_regressor"), 4, 0)
    first = fit("xgboost_regressor", data, n_estimators=2)
    with pytest.raises(TrainingDataError, match="was trained for reg:squarederror, and this is reg:absoluteerror"):
        fit("xgboost_regressor", data, first, n_estimators=2, objective="reg:absoluteerror")


def test_forest_reports_its_loss() -> None:
    algorithm = get_algorithm("random_forest_classifier")
    report = Recorder()
    algorithm.fit(example_data(algorithm, 3, 2), FitSpec(check_options(algorithm, {"n_estimators": 3}), 0, 1), report)
    assert [(step, total) for step, total, _ in report.steps] == [(1, 1)]
    assert set(report.steps[0][2]) == {"train_logloss", "train_roc_auc", "heldout_logloss", "heldout_roc_auc"}
