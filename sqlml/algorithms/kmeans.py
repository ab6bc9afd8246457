"""K-means by scikit-learn, in the space of standardised features; the centres are kept as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.contracts import FitSpec, OptionSpec, Report, TrainingData
from sqlml.errors import TrainingDataError, count_of
from sqlml.types import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FILE = "centres.json"


class KMeans:
    """K-means clustering."""

    name = "kmeans"
    task = Task.CLUSTERING
    encoding = "dense"
    early_stopping: str | None = None
    rounds: str | None = None
    streams = None
    warm_start = True
    explains = True
    doc = "k-means clusters of standardised features (scikit-learn)"
    libraries = ("scikit-learn",)
    options = (
        OptionSpec("n_clusters", "int", 8, "number of clusters", low=1),
        OptionSpec("init", "str", "k-means++", "how the first centres are chosen", choices=("k-means++", "random")),
        OptionSpec("n_init", "int", None, "runs, of which the best is kept; left out: 1 with k-means++, 10 with random", low=1),
        OptionSpec("max_iter", "int", 300, "most iterations of a run", low=1),
        OptionSpec("tol", "float", 1e-4, "when to stop", low=0),
        OptionSpec("algorithm", "str", "lloyd", "how it is solved", choices=("lloyd", "elkan")),
    )

    def fit(self, data: TrainingData, spec: FitSpec, report: Report) -> CentrePredictor:
        """Find the centres, in one run from ``spec.start``'s where it is given; the first one has most rows."""
        from sklearn.cluster import KMeans as Solver
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        options = {o.name: spec.options[o.name] for o in self.options}
        x = data.features.x
        _check_different(x if data.weight is None else x[data.weight > 0], options["n_clusters"])
        options["n_init"] = options["n_init"] or "auto"
        if isinstance(spec.start, CentrePredictor):
            options |= {"init": _start(spec.start, options["n_clusters"], x.shape[1]), "n_init": 1}
        solver = Solver(**options, random_state=spec.seed)
        with threadpool_limits(spec.threads or None):
            labels = solver.fit_predict(x, sample_weight=data.weight)
        sizes = np.bincount(labels, minlength=options["n_clusters"])
        centres = solver.cluster_centers_.astype(np.float64)[np.argsort(-sizes, kind="stable")]
        predictor = CentrePredictor(centres)
        report.step(1, 1, {"train_inertia": float(solver.inertia_)})
        return predictor

    def load(self, folder: Path) -> CentrePredictor:
        """Read what ``save`` wrote."""
        document = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        return CentrePredictor(np.array(document["centres"]))


def _start(start: CentrePredictor, clusters: int, k: int) -> NDArray[np.float64]:
    """Centres to go on from, in the number that is asked for."""
    centres = start.parameters()["centers"]
    if centres.shape[1] != k:
        raise TrainingDataError("the model to go on from has other features")
    if len(centres) != clusters:
        raise TrainingDataError(
            f"the model to go on from has {count_of(len(centres), 'cluster')}, not n_clusters = {clusters}",
            hint=f"WITH (n_clusters = {len(centres)})",
        )
    return centres


def _check_different(x: NDArray[np.float32], clusters: int) -> None:
    """At least as many different rows as clusters; the first rows are nearly always enough to see it."""
    if len(np.unique(x[: 100 * clusters], axis=0)) >= clusters:
        return
    different = len(np.unique(x, axis=0))
    if different < clusters:
        raise TrainingDataError(
            f"n_clusters = {clusters} needs as many different rows; there {'is' if different == 1 else 'are'} {different}",
            hint=f"WITH (n_clusters = {different})" + (" or fewer" if different > 1 else ""),
        )


class CentrePredictor:
    """Centres (clusters, k)."""

    gpu_memory = 0

    def __init__(self, centres: NDArray[np.float64]) -> None:
        self.threads = 1
        self._centres = centres

    def predict(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """float32 (n, k) → Euclidean distances to the centres, float64 (n, clusters)."""
        out = np.empty((len(x), len(self._centres)))
        for j, centre in enumerate(self._centres):
            out[:, j] = np.sqrt(((x - centre) ** 2).sum(1))
        return out

    def contributions(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """(n, clusters, k + 1): minus the squared distance along each feature; the base is 0."""
        out = np.zeros((len(x), len(self._centres), x.shape[1] + 1))
        for j, centre in enumerate(self._centres):
            out[:, j, :-1] = -((x - centre) ** 2)
        return out

    def importance(self) -> NDArray[np.float64]:
        """How far the centres lie apart along each feature (their variance), as shares."""
        apart = self._centres.var(0)
        return np.asarray(apart / apart.sum() if apart.sum() > 0 else apart)

    def parameters(self) -> Mapping[str, NDArray[Any]]:
        """``centers`` (clusters, k), in the space of the features."""
        return {"centers": self._centres.copy()}

    def save(self, folder: Path) -> None:
        """Write ``centres.json``; floats survive exactly."""
        document = {"centres": self._centres.tolist()}
        (folder / _FILE).write_text(json.dumps(document, indent=1), encoding="utf-8")

    def onnx(self) -> bytes | None:
        """A graph of a few nodes that computes in float64, as ``predict`` does."""
        from sqlml.algorithms.onnx_graph import Graph

        graph = Graph(self._centres.shape[1])
        x = graph.node("Unsqueeze", graph.node("Cast", "x", to=graph.DOUBLE), graph.constant(np.array([1])))
        apart = graph.node("Sub", x, graph.constant(self._centres[None]))
        squares = graph.node("ReduceSum", graph.node("Mul", apart, apart), graph.constant(np.array([2])), keepdims=0)
        return graph.finish(graph.node("Sqrt", squares), rank=2)
