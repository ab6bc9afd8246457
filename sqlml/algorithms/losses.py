"""What an algorithm without rounds reports when it is done: its loss on the rows that it has seen and on those held out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.contracts import Predictor, TrainingData

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_ROWS = 100_000


def final_losses(predictor: Predictor, data: TrainingData, most: int = _MOST_ROWS) -> dict[str, float]:
    """``train_logloss`` or ``train_rmse``, and the same of the held-out rows; of ``most`` rows of each at most."""
    name, loss = ("logloss", _log_loss) if data.n_classes else ("rmse", _rmse)
    figures = {}
    for part, x, y in (("train", data.features.x, data.y), ("heldout", data.heldout_x, data.heldout_y)):
        if x is not None and y is not None and len(x):
            figures[f"{part}_{name}"] = loss(predictor.predict(x[:most]), y[:most])
    return figures


def _log_loss(p: NDArray[np.float64], y: NDArray[Any]) -> float:
    return float(-np.log(np.clip(p[np.arange(len(y)), y], 1e-16, 1)).mean())


def _rmse(values: NDArray[np.float64], y: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean((values - y) ** 2)))
