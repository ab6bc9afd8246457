"""Isolation forest: fitted by scikit-learn, kept as arrays of nodes, scored with numpy.

Liu, Ting, Zhou: Isolation Forest, ICDM 2008.  A row that random splits set apart early is unlike the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.algorithms.arrays import load_arrays, save_arrays
from sqlml.algorithms.unexplained import Unexplained
from sqlml.contracts import FitSpec, OptionSpec, Report, TrainingData
from sqlml.errors import TrainingDataError
from sqlml.types import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FILE = "forest.npz"
_BLOCK = 512
"""Rows that go down the trees together: few enough that their nodes stay in the cache."""


class IsolationForest:
    """Rows unlike the others."""

    name = "isolation_forest"
    task = Task.ANOMALY
    encoding = "dense"
    early_stopping: str | None = None
    rounds: str | None = None
    streams = None
    warm_start = False
    explains = False
    doc = "how unlike the other rows a row is, by an isolation forest (scikit-learn)"
    libraries = ("scikit-learn",)
    options = (
        OptionSpec("n_estimators", "int", 100, "number of trees", low=1),
        OptionSpec(
            "max_samples",
            "int | float | str",
            "auto",
            "rows drawn for each tree: how many, or which part of all (1: all); 'auto': 256, or all where there are fewer",
            low=0,
            high=1,
            open_low=True,
            open_high=True,
            choices=("auto",),
        ),
        OptionSpec(
            "contamination",
            "float | str",
            "auto",
            "the part of the training rows that is to be above the threshold; 'auto': the threshold is 0.5",
            low=0,
            high=0.5,
            open_low=True,
            choices=("auto",),
        ),
        OptionSpec("max_features", "float", 1.0, "part of the features drawn for each tree", low=0, high=1, open_low=True),
        OptionSpec("bootstrap", "bool", False, "draw rows with replacement"),
    )

    def fit(self, data: TrainingData, spec: FitSpec, report: Report) -> IsolationPredictor:
        """Grow random trees.  A weight is how likely a row is to be drawn."""
        from sklearn.ensemble import IsolationForest as Solver

        x = data.features.x
        options = {o.name: spec.options[o.name] for o in self.options}
        options["max_samples"] = _samples(options["max_samples"], len(x))
        solver = Solver(**options, random_state=spec.seed, n_jobs=spec.threads or None)
        try:
            solver.fit(x, sample_weight=data.weight)
        except ValueError as error:
            raise TrainingDataError(f"scikit-learn: {str(error).splitlines()[0]}") from error
        predictor = IsolationPredictor(_arrays(solver))
        scores = predictor.predict(x[:10_000])
        report.step(1, 1, {"train_mean_score": float(scores.mean())})
        return predictor

    def load(self, folder: Path) -> IsolationPredictor:
        """Read what ``save`` wrote."""
        return IsolationPredictor(load_arrays(folder / _FILE))


def _samples(given: float | str, rows: int) -> int | str:
    """``max_samples`` as a number of rows: never more than there are, and one at least."""
    if isinstance(given, str):
        return given
    if given > rows:
        raise TrainingDataError(
            f"max_samples = {given} is more than the rows that there are ({rows:,})", hint=f"WITH (max_samples = {rows}) or fewer"
        )
    return int(given) if given > 1 else max(1, int(given * rows))


def _arrays(solver: Any) -> dict[str, NDArray[Any]]:
    """The fitted trees as ``IsolationPredictor`` has them."""
    trees = [estimator.tree_ for estimator in solver.estimators_]
    sizes = [tree.node_count for tree in trees]
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    feature, threshold, children, depth = [], [], [], []
    for tree, used, root in zip(trees, solver.estimators_features_, roots, strict=True):
        leaf = tree.children_left < 0
        itself = np.arange(tree.node_count)
        feature.append(np.asarray(used)[np.where(leaf, 0, tree.feature)])
        threshold.append(np.where(leaf, 0.0, tree.threshold))
        sides = [np.where(leaf, itself, side) for side in (tree.children_left, tree.children_right)]
        children.append(np.stack(sides, 1) + root)
        depth.append(tree.compute_node_depths() + _further(tree.n_node_samples) - 1.0)
    return {
        "roots": roots,
        "feature": np.concatenate(feature).astype(np.int64),
        "threshold": _float32_below(np.concatenate(threshold)),
        "children": np.concatenate(children).astype(np.int64),
        "depth": np.concatenate(depth),
        "levels": np.array([max(int(tree.max_depth) for tree in trees)]),
        "norm": len(trees) * _further(np.array([solver.max_samples_])),
        "limit": np.array([-solver.offset_], np.float64),
        "inputs": np.array([solver.n_features_in_]),
    }


def _further(rows: NDArray[Any]) -> NDArray[np.float64]:
    """How many more splits would, on average, set apart one of so many rows: c(n) of the paper, equation 1."""
    n = np.maximum(rows, 3).astype(np.float64)
    many = 2.0 * (np.log(n - 1.0) + np.euler_gamma) - 2.0 * (n - 1.0) / n
    return np.where(rows <= 1, 0.0, np.where(rows == 2, 1.0, many))


def _float32_below(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 up to each value: whatever float32 is up to the one is up to the other."""
    near = values.astype(np.float32)
    return np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near)


class IsolationPredictor(Unexplained):
    """Trees, as arrays over the nodes of all.

    ``roots``: where each tree begins.  ``feature`` and ``threshold``: what a node asks; ``children`` (nodes, 2): where values up
    to the threshold go, and those above it; a leaf leads to itself.  ``depth``: of a leaf, the splits that lead there and those
    that, on average, would follow.  Of one number each: ``levels`` of the deepest tree, ``norm``, the depth that is usual summed
    over the trees, ``limit`` above which a score is an anomaly, ``inputs``, the number of features.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.threads = 1
        self._arrays = dict(arrays)
        self._norm = float(arrays["norm"][0])

    @property
    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """All that it computes with, as the class tells; not to be written to."""
        return self._arrays

    def predict(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """float32 (n, k) → float64 (n,): 2^(-depth / usual depth), from 0 to 1, which is the most unlike."""
        if self._norm == 0:  # trees of one row: nothing to tell apart
            return np.full(len(x), 0.5)
        depths = [self._depths(x[start : start + _BLOCK]) for start in range(0, len(x), _BLOCK)]
        return np.exp2(-np.concatenate([np.empty(0), *depths]) / self._norm)

    def _depths(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """float32 (n, k) → (n,): the depth of each row's leaf, summed over the trees in their order."""
        feature, threshold, depth = (self._arrays[name] for name in ("feature", "threshold", "depth"))
        children = self._arrays["children"].ravel()
        columns, rows = np.ascontiguousarray(x.T).ravel(), np.arange(len(x))
        node = np.repeat(self._arrays["roots"][:, None], len(x), axis=1)  # (trees, n)
        for _ in range(int(self._arrays["levels"][0])):
            value = columns.take(feature.take(node) * len(x) + rows)
            above = ~(value <= threshold.take(node))
            node = children.take(2 * node + above)
        total = np.zeros(len(x))
        for of_tree in depth.take(node):
            total += of_tree
        return total

    def parameters(self) -> Mapping[str, NDArray[Any]]:
        """``threshold`` (1,): a higher score is an anomaly."""
        return {"threshold": self._arrays["limit"].copy()}

    def save(self, folder: Path) -> None:
        """Write ``forest.npz``."""
        save_arrays(folder / _FILE, self._arrays)

    def onnx(self) -> bytes | None:
        """ONNX's own tree ensemble, which sums in float32, and the formula over it."""
        from sqlml.algorithms.onnx_graph import Graph

        if self._norm == 0:
            return None
        graph = Graph(int(self._arrays["inputs"][0]))
        depth = graph.node("Cast", graph.node("TreeEnsembleRegressor", "x", domain=graph.ML, **self._ensemble()), to=graph.DOUBLE)
        share = graph.node("Div", depth, graph.constant(np.array([-self._norm])))
        score = graph.node("Pow", graph.constant(np.array([2.0])), share)
        return graph.finish(graph.node("Squeeze", score, graph.constant(np.array([1]))), rank=1)

    def _ensemble(self) -> dict[str, Any]:
        """The trees as the attributes of TreeEnsembleRegressor: nodes are numbered within their tree."""
        a = self._arrays
        count = len(a["feature"])
        tree = np.searchsorted(a["roots"], np.arange(count), side="right") - 1
        first = a["roots"][tree]
        leaf = a["children"][:, 0] == np.arange(count)
        inner = np.where(leaf, 0, 1)
        return {
            "nodes_treeids": tree.tolist(),
            "nodes_nodeids": (np.arange(count) - first).tolist(),
            "nodes_featureids": a["feature"].tolist(),
            "nodes_values": a["threshold"].tolist(),
            "nodes_modes": ["LEAF" if end else "BRANCH_LEQ" for end in leaf],
            "nodes_truenodeids": ((a["children"][:, 0] - first) * inner).tolist(),
            "nodes_falsenodeids": ((a["children"][:, 1] - first) * inner).tolist(),
            "target_treeids": tree[leaf].tolist(),
            "target_nodeids": (np.arange(count) - first)[leaf].tolist(),
            "target_ids": [0] * int(leaf.sum()),
            "target_weights": a["depth"][leaf].tolist(),
            "n_targets": 1,
        }
