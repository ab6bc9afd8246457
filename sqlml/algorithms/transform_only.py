"""Only features: a version that keeps a TRANSFORM for other models and predicts nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.algorithms.unexplained import Unexplained
from sqlml.contracts import FitSpec, OptionSpec, Report, TrainingData
from sqlml.types import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FILE = "nothing.txt"


class TransformOnly:
    """No learning: what is fitted is the TRANSFORM itself, before any algorithm is asked."""

    name = "transform_only"
    task = Task.TRANSFORM
    encoding = "codes"
    early_stopping: str | None = None
    rounds: str | None = None
    streams = None
    warm_start = False
    explains = False
    doc = "keeps the features of TRANSFORM, fitted, for other models"
    libraries: tuple[str, ...] = ()
    options: tuple[OptionSpec, ...] = ()

    def fit(self, data: TrainingData, spec: FitSpec, report: Report) -> NoPredictor:
        """Nothing to do."""
        report.step(1, 1, {})
        return NoPredictor()

    def load(self, folder: Path) -> NoPredictor:
        """Nothing to read."""
        return NoPredictor()


class NoPredictor(Unexplained):
    """Predicts nothing: the features are all there is."""

    threads = 1

    def predict(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """float32 (n, k) → float64 (n, 0): no columns."""
        return np.empty((len(x), 0))

    def parameters(self) -> Mapping[str, NDArray[Any]]:
        """None."""
        return {}

    def save(self, folder: Path) -> None:
        """A line for people who look into the bundle."""
        (folder / _FILE).write_text("Nothing is learnt here but the TRANSFORM.\n", encoding="utf-8")

    def onnx(self) -> bytes | None:
        """None: there is nothing to compute."""
        return None
