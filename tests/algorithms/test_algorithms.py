"""Every algorithm against its contract, and against the library's own answers."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sqlml.algorithms.options import check_options
from sqlml.contracts import FitSpec
from sqlml.errors import TrainingDataError
from sqlml.registry import ALGORITHMS, get_algorithm
from tests.jobs import Recorder
from tests.kits import check_algorithm, example_data


@pytest.mark.parametrize("name", ALGORITHMS)
def test_contract(name: str, tmp_path: Path) -> None:
    check_algorithm(get_algorithm(name), tmp_path)


def test_options_need_no_library() -> None:
    code = (
        "import sys; from sqlml.registry import ALGORITHMS, get_algorithm; from sqlml.algorithms.options import check_options\n"
        "for name in ALGORITHMS: check_options(get_algorithm(name), {})\n"
        "heavy = 'xgboost torch sklearn scipy pandas onnx onnxruntime pyarrow duckdb'.split()\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("classes", [2, 3])
def test_xgboost_equals_its_own_wrapper(classes: int) -> None:
    import xgboost

    algorithm = get_algorithm("xgboost_classifier")
    data = example_data(algorithm, 4, classes)
    options = check_options(algorithm, {"n_estimators": 20, "max_depth": 3, "subsample": 0.8})
    ours = algorithm.fit(data, FitSpec(options, 7, 2), Recorder())
    theirs = xgboost.XGBClassifier(
        n_estimators=20,
        max_depth=3,
        subsample=0.8,
        random_state=7,
        n_jobs=2,
        enable_categorical=True,
        feature_types=["q", "c", "q", "q"],
    ).fit(data.features.x, data.y)
    assert np.abs(ours.predict(data.features.x) - theirs.predict_proba(data.features.x)).max() < 1e-6


def test_xgboost_defaults_are_the_libraries() -> None:
    import json

    import xgboost

    algorithm = get_algorithm("xgboost_regressor")
    data = example_data(algorithm, 3, 0)
    ours = algorithm.fit(data, FitSpec(check_options(algorithm, {}), 0, 2), Recorder())
    theirs = xgboost.XGBRegressor(n_jobs=2, enable_categorical=True, feature_types=["q", "c", "q"]).fit(data.features.x, data.y)
    assert np.abs(ours.predict(data.features.x) - theirs.predict(data.features.x)).max() < 1e-5
    config = json.loads(theirs.get_booster().save_config())["learner"]["gradient_booster"]["tree_train_param"]
    for option in algorithm.options:
        if option.name in config and option.default is not None:
            kind = type(option.default)
            assert kind(config[option.name]) == pytest.approx(option.default), option.name


@pytest.mark.parametrize("objective", ["reg:absoluteerror", "reg:pseudohubererror", "count:poisson", "reg:gamma", "reg:tweedie"])
def test_xgboost_objectives(objective: str) -> None:
    algorithm = get_algorithm("xgboost_regressor")
    data = example_data(algorithm, 3, 0)
    data = type(data)(data.features, np.abs(data.y) + 0.1)  # type: ignore[arg-type]
    options = check_options(algorithm, {"objective": objective, "n_estimators": 5})
    predictor = algorithm.fit(data, FitSpec(options, 0, 2), Recorder())
    assert np.isfinite(predictor.predict(data.features.x)).all()


def test_xgboost_error_is_one_clear_line() -> None:
    algorithm = get_algorithm("xgboost_regressor")
    data = example_data(algorithm, 3, 0)
    with pytest.raises(TrainingDataError) as caught:
        algorithm.fit(data, FitSpec(check_options(algorithm, {"objective": "count:poisson"}), 0, 2), Recorder())
    assert str(caught.value) == "xgboost: label must be non-negative for Poisson/Tweedie regression."


def test_xgboost_early_stopping_keeps_the_best_round() -> None:
    algorithm = get_algorithm("xgboost_classifier")
    data = example_data(algorithm, 3, 2, 600)
    report = Recorder()
    options = check_options(algorithm, {"early_stopping_rounds": 3, "n_estimators": 500, "learning_rate": 1.0})
    noise = type(data)(
        data.features,
        np.random.default_rng(0).integers(0, 2, 600),
        valid_x=data.heldout_x,
        valid_y=data.heldout_y,
        n_classes=2,
    )
    predictor = algorithm.fit(noise, FitSpec(options, 0, 2), report)
    losses = [figures["valid_logloss"] for _, _, figures in report.steps]
    best = int(np.argmin(losses)) + 1
    assert len(losses) == best + 3 < 500
    assert predictor.parameters()["rounds"] == best


def test_linear_models_equal_scikit_learn() -> None:
    from sklearn.linear_model import LinearRegression, LogisticRegression

    for name, theirs, classes in (
        ("logistic_regression", LogisticRegression(), 2),
        ("logistic_regression", LogisticRegression(), 4),
        ("linear_regression", LinearRegression(), 0),
    ):
        algorithm = get_algorithm(name)
        data = example_data(algorithm, 4, classes)
        ours = algorithm.fit(data, FitSpec(check_options(algorithm, {}), 0, 2), Recorder())
        x = data.features.x.astype(np.float64)
        theirs.fit(x, data.y)
        expected = theirs.predict_proba(x) if classes else theirs.predict(x)
        assert np.abs(ours.predict(data.features.x) - expected).max() < 1e-6


def test_logistic_options() -> None:
    algorithm = get_algorithm("logistic_regression")
    data = example_data(algorithm, 4, 2)
    report = Recorder()
    given = {"l1_ratio": 0.5, "max_iter": 1}
    algorithm.fit(data, FitSpec(check_options(algorithm, given), 0, 1), report)
    assert report.notices == ["not converged in 1 iteration: a larger max_iter may give a better model"]


def test_kmeans_equals_scikit_learn_and_orders_by_size() -> None:
    from sklearn.cluster import KMeans

    algorithm = get_algorithm("kmeans")
    data = example_data(algorithm, 3, 0)
    ours = algorithm.fit(data, FitSpec(check_options(algorithm, {"n_clusters": 3}), 0, 2), Recorder())
    theirs = KMeans(3, random_state=0).fit(data.features.x)
    raw = ours.predict(data.features.x)
    assert np.allclose(np.sort(raw, 1), np.sort(theirs.transform(data.features.x), 1), atol=1e-5)
    sizes = np.bincount(raw.argmin(1))
    assert (np.diff(sizes) <= 0).all()


def test_kmeans_with_fewer_rows_than_clusters() -> None:
    algorithm = get_algorithm("kmeans")
    data = example_data(algorithm, 3, 0, rows=5)
    with pytest.raises(TrainingDataError, match="n_clusters = 8 needs as many different rows; there are 5"):
        algorithm.fit(data, FitSpec(check_options(algorithm, {}), 0, 2), Recorder())
    one_counts = replace(data, weight=np.array([1.0, 0, 0, 0, 0]))
    with pytest.raises(TrainingDataError, match="n_clusters = 8 needs as many different rows; there is 1"):
        algorithm.fit(one_counts, FitSpec(check_options(algorithm, {}), 0, 2), Recorder())


def test_tree_threads_can_be_raised() -> None:
    algorithm = get_algorithm("xgboost_regressor")
    data = example_data(algorithm, 3, 0)
    predictor = algorithm.fit(data, FitSpec(check_options(algorithm, {"n_estimators": 3}), 0, 2), Recorder())
    before = predictor.predict(data.features.x)
    assert predictor.threads == 1
    predictor.threads = 2
    assert np.array_equal(predictor.predict(data.features.x), before)
