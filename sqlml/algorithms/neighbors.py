"""Nearest neighbours, found by scikit-learn; the training rows themselves are what is kept.

Of rows that are equally near the earlier one counts, whatever rows are asked for together: scikit-learn leaves that open.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.algorithms.arrays import load_arrays, save_arrays
from sqlml.algorithms.losses import final_losses
from sqlml.algorithms.unexplained import Unexplained
from sqlml.contracts import FitSpec, OptionSpec, Report, TrainingData
from sqlml.errors import TrainingDataError
from sqlml.types import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FILE = "neighbors.npz"
_REPORTED_ROWS = 1_000
_CELLS = 4_000_000
"""Distances, or differences, held at a time."""

_OPTIONS = (
    OptionSpec("n_neighbors", "int", 5, "how many neighbours count", low=1),
    OptionSpec(
        "weights", "str", "uniform", "what a neighbour counts: the same each, or 1 / distance", choices=("uniform", "distance")
    ),
    OptionSpec(
        "metric",
        "str",
        "minkowski",
        "how far rows are apart",
        choices=("minkowski", "euclidean", "manhattan", "chebyshev", "cosine"),
    ),
    OptionSpec("p", "float", 2.0, "of minkowski; 1: manhattan, 2: euclidean", low=1),
)


class _NearestNeighbors:
    """What both share."""

    encoding = "dense"
    early_stopping: str | None = None
    rounds: str | None = None
    streams = None
    warm_start = False
    explains = False
    libraries = ("scikit-learn",)
    options = _OPTIONS

    def fit(self, data: TrainingData, spec: FitSpec, report: Report) -> NeighborPredictor:
        """Keep the rows.  A row's weight multiplies its vote, or its share in the mean (scikit-learn has none); one of weight 0
        is left out.
        """
        return _fit(data, spec, report)

    def load(self, folder: Path) -> NeighborPredictor:
        """Read what ``save`` wrote."""
        return NeighborPredictor(load_arrays(folder / _FILE))


class NearestNeighborsClassifier(_NearestNeighbors):
    """The votes of the nearest rows, for two or more classes."""

    name = "nearest_neighbors_classifier"
    task = Task.CLASSIFICATION
    doc = "votes of the nearest training rows, by standardised features (scikit-learn)"


class NearestNeighborsRegressor(_NearestNeighbors):
    """The mean of the nearest rows' values."""

    name = "nearest_neighbors_regressor"
    task = Task.REGRESSION
    doc = "mean of the nearest training rows, by standardised features (scikit-learn)"


def _fit(data: TrainingData, spec: FitSpec, report: Report) -> NeighborPredictor:
    counts = np.ones(len(data.features.x), bool) if data.weight is None else data.weight > 0
    rows, wanted = int(counts.sum()), spec.options["n_neighbors"]
    if wanted > rows:
        raise TrainingDataError(
            f"n_neighbors = {wanted} is more than the training rows that there are ({rows:,})",
            hint=f"WITH (n_neighbors = {rows})" + (" or fewer" if rows > 1 else ""),
        )
    predictor = NeighborPredictor(
        {
            "x": data.features.x[counts],
            "y": np.asarray(data.y)[counts],
            "weight": np.ones(rows) if data.weight is None else data.weight[counts],
            "classes": np.array([data.n_classes]),
            "n_neighbors": np.array([wanted]),
            "words": np.array([spec.options["weights"], spec.options["metric"]]),
            "p": np.array([spec.options["p"]]),
        }
    )
    predictor.threads = spec.threads
    report.step(1, 1, final_losses(predictor, data, _REPORTED_ROWS))
    predictor.threads = 1
    return predictor


class NeighborPredictor(Unexplained):
    """Training rows: ``x`` (rows, k), ``y`` and ``weight`` (rows,), and the options."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        from sklearn.neighbors import NearestNeighbors
        from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

        self.threads = 1
        self._arrays = dict(arrays)
        self._x = arrays["x"].astype(np.float64)
        self._count = int(arrays["n_neighbors"][0])
        self._classes = int(arrays["classes"][0])
        self._weights, self._metric = (str(word) for word in arrays["words"])
        self._p = {"manhattan": 1.0, "euclidean": 2.0, "chebyshev": np.inf}.get(self._metric, float(arrays["p"][0]))
        self._longest = float((self._x**2).sum(1).max())
        self._controller = ThreadpoolController()
        # one more than wanted: it tells whether the last one was chosen from equals
        asked = min(self._count + 1, len(self._x))
        self._finder = NearestNeighbors(n_neighbors=asked, metric=self._metric, p=self._p).fit(self._x)

    def predict(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """float32 (n, k) → float64 (n, classes), or (n,) for a regression."""
        if not len(x):
            return np.empty((0, self._classes) if self._classes else 0)
        wide = x.astype(np.float64)
        nearest = self._nearest(wide)
        share = self._arrays["weight"][nearest]
        if self._weights == "distance":
            share = share * self._closeness(wide, nearest)
        y = self._arrays["y"][nearest]
        if not self._classes:
            return np.asarray((share * y).sum(1) / share.sum(1))
        votes = np.zeros((len(x), self._classes))
        for j in range(self._count):
            votes[np.arange(len(x)), y[:, j]] += share[:, j]
        return np.asarray(votes / votes.sum(1, keepdims=True))

    def _nearest(self, x: NDArray[np.float64]) -> NDArray[np.int64]:
        """float64 (n, k) → the rows that count (n, n_neighbors), in ascending order."""
        with self._controller.limit(limits=self.threads or None, user_api="openmp"):
            distances, found = self._finder.kneighbors(x)
        nearest = np.sort(found[:, : self._count], axis=1)
        if found.shape[1] > self._count:
            last, next_one = distances[:, self._count - 1] ** 2, distances[:, self._count] ** 2
            unsure = 1e-10 * next_one + 1e-12 * ((x**2).sum(1) + self._longest)  # the error of quick distances
            for rows in _pieces(np.flatnonzero(next_one - last <= unsure), len(self._x)):
                nearest[rows] = self._earliest(x[rows])
        return nearest

    def _earliest(self, x: NDArray[np.float64]) -> NDArray[np.int64]:
        """The same by all distances: of equals the earlier rows."""
        from scipy.spatial.distance import cdist

        name = {1.0: "cityblock", 2.0: "euclidean", np.inf: "chebyshev"}.get(self._p, "minkowski")
        if self._metric == "cosine":
            distances = np.nan_to_num(cdist(x, self._x, "cosine"), nan=1.0)  # of a row of zeros: as scikit-learn has it
        else:
            distances = cdist(x, self._x, name, **({"p": self._p} if name == "minkowski" else {}))
        limit = np.partition(distances, self._count - 1, axis=1)[:, self._count - 1, None]
        nearer, equal = distances < limit, distances == limit
        room = self._count - nearer.sum(1, keepdims=True)
        chosen = nearer | (equal & (np.cumsum(equal, 1) <= room))
        return np.nonzero(chosen)[1].reshape(len(x), self._count)

    def _closeness(self, x: NDArray[np.float64], nearest: NDArray[np.int64]) -> NDArray[np.float64]:
        """1 / distance of the neighbours (n, n_neighbors); where some are at distance 0: 1 for those, 0 for the others."""
        closeness = np.empty(nearest.shape)
        for rows in _pieces(np.arange(len(x)), nearest.shape[1] * x.shape[1]):
            distances = self._distances(x[rows, None, :], self._x[nearest[rows]])
            same = distances == 0
            closeness[rows] = np.where(same.any(1, keepdims=True), same, 1 / np.maximum(distances, 1e-300))
        return closeness

    def _distances(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Over the last axis; the same for a pair of rows whatever else is asked for."""
        if self._metric == "cosine":
            lengths = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
            return np.asarray(np.maximum(1 - (a * b).sum(-1) / np.where(lengths > 0, lengths, 1.0), 0.0))
        apart = np.abs(a - b)
        if np.isinf(self._p):
            return np.asarray(apart.max(-1))
        if self._p == 2:
            return np.asarray(np.sqrt((apart**2).sum(-1)))
        return np.asarray((apart**self._p).sum(-1) ** (1 / self._p))

    def parameters(self) -> Mapping[str, NDArray[Any]]:
        """Nothing is learnt but the rows."""
        return {}

    def save(self, folder: Path) -> None:
        """Write ``neighbors.npz``."""
        save_arrays(folder / _FILE, self._arrays)

    def onnx(self) -> bytes | None:
        """None: the converters compute distances in float32, and choose other neighbours."""
        return None


def _pieces(rows: NDArray[np.int64], width: int) -> list[NDArray[np.int64]]:
    """Row numbers in pieces of which an array of that width may be held."""
    size = max(1, _CELLS // max(1, width))
    return [rows[start : start + size] for start in range(0, len(rows), size)]
