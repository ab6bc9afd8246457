"""Isolation forest: scikit-learn's scores from our own arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sqlml.algorithms.metrics import measure
from sqlml.errors import TrainingDataError
from sqlml.types import Task
from tests.algorithms.fitting import fit, numbers, table


@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({}, {}),
        ({"n_estimators": 30, "max_samples": 0.5, "contamination": 0.1}, {}),
        ({"max_samples": 1, "max_features": 0.6, "bootstrap": True}, {"max_samples": 1.0}),
        ({"max_samples": 2}, {}),
        ({"max_samples": 300}, {}),
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_scikit_learn(options: dict[str, Any], theirs: dict[str, Any], weighted: bool) -> None:
    from sklearn.ensemble import IsolationForest

    x, new = numbers(), numbers(1200, seed=8)
    new[:300] = x  # values at which trees split
    weight = np.random.default_rng(0).random(len(x)) if weighted else None
    ours = fit("isolation_forest", table(x, weight=weight), seed=3, **options)
    expected = IsolationForest(**(options | theirs), random_state=3).fit(x, sample_weight=weight)
    assert np.abs(ours.predict(new) + expected.score_samples(new)).max() < 1e-9
    assert ours.parameters()["threshold"][0] == pytest.approx(-expected.offset_, abs=1e-12)


def test_contamination_is_the_part_above_the_threshold() -> None:
    x = numbers(1000)
    ours = fit("isolation_forest", table(x), contamination=0.05)
    figures = measure(Task.ANOMALY, ours.predict(x), parameters=ours.parameters())
    assert figures["anomalies"] == pytest.approx(0.05)
    assert figures["mean_score"] == pytest.approx(ours.predict(x).mean())
    assert measure(Task.ANOMALY, ours.predict(x), parameters=ours.parameters(), threshold=1.0)["anomalies"] == 0
    lone = (np.arange(1000) == int(ours.predict(x).argmax())).astype(np.float64)
    assert measure(Task.ANOMALY, ours.predict(x), weight=lone, parameters=ours.parameters())["anomalies"] == 1
    assert set(measure(Task.ANOMALY, ours.predict(x[:0]), parameters=ours.parameters()).values()) == {None}


def test_constant_columns_and_one_row() -> None:
    same = np.ones((20, 3), np.float32)
    scores = fit("isolation_forest", table(same)).predict(numbers(5, 3))
    assert len(set(scores.tolist())) == 1
    assert (fit("isolation_forest", table(numbers(1))).predict(numbers(5)) == 0.5).all()


def test_more_samples_than_rows() -> None:
    with pytest.raises(TrainingDataError) as caught:
        fit("isolation_forest", table(numbers(20)), max_samples=30)
    assert caught.value.message == "max_samples = 30 is more than the rows that there are (20)"
    assert caught.value.hint == "WITH (max_samples = 20) or fewer"
