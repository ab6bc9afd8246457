"""Fit an algorithm on arrays, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlml.algorithms.options import check_options
from sqlml.contracts import FeatureMatrix, FitSpec, Predictor, TrainingData
from sqlml.registry import get_algorithm
from tests.jobs import Recorder


def table(x: Any, y: Any = None, categorical: tuple[int, ...] = (), weight: Any = None) -> TrainingData:
    """Rows as an algorithm is given them; ``y`` of integers are classes."""
    x = np.asarray(x, np.float32)
    names = tuple(f"f{j}" for j in range(x.shape[1]))
    y = None if y is None else np.asarray(y)
    classes = int(y.max()) + 1 if y is not None and y.dtype.kind == "i" else 0
    features = FeatureMatrix(x, names, tuple(j in categorical for j in range(x.shape[1])))
    return TrainingData(features, y, None if weight is None else np.asarray(weight, np.float64), n_classes=classes)


def fit(name: str, data: TrainingData, start: Predictor | None = None, seed: int = 0, **options: Any) -> Predictor:
    """A fitted predictor, with two threads."""
    algorithm = get_algorithm(name)
    return algorithm.fit(data, FitSpec(check_options(algorithm, options), seed, 2, start), Recorder())


def numbers(rows: int = 300, k: int = 5, seed: int = 3) -> NDArray[np.float32]:
    """Rows of different scales, some of them far out."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, k)) * np.arange(1, k + 1) + np.arange(k)
    x[:: max(1, rows // 10)] *= 3
    return x.astype(np.float32)


def classes_of(x: NDArray[np.float32], classes: int) -> NDArray[np.int64]:
    """Classes that follow the first two features, with noise."""
    score = x[:, 0] + x[:, 1] * 0.3 + np.random.default_rng(5).normal(size=len(x)) * 0.2
    return np.searchsorted(np.quantile(score, np.arange(1, classes) / classes), score).astype(np.int64)
