"""Principal components by scikit-learn, kept as arrays, projected with numpy in float64."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.algorithms.arrays import load_arrays, save_arrays
from sqlml.algorithms.metrics import projection_metrics
from sqlml.algorithms.unexplained import Unexplained
from sqlml.contracts import FitSpec, OptionSpec, Report, TrainingData
from sqlml.errors import TrainingDataError, count_of
from sqlml.types import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FILE = "components.npz"
_ANY_FRACTION = ("auto", "full", "covariance_eigh")


class Pca:
    """Principal component analysis."""

    name = "pca"
    task = Task.PROJECTION
    encoding = "dense"
    early_stopping: str | None = None
    rounds: str | None = None
    streams = None
    warm_start = False
    explains = False
    doc = "principal components of standardised features (scikit-learn)"
    libraries = ("scikit-learn",)
    options = (
        OptionSpec(
            "n_components",
            "int | float",
            None,
            "number of components, or the part of the variance that they are to explain; left out: all",
            low=0,
            high=1,
            open_low=True,
            open_high=True,
        ),
        OptionSpec("whiten", "bool", False, "scale each component to variance 1"),
        OptionSpec(
            "svd_solver",
            "str",
            "auto",
            "how it is solved; weighted rows are always solved by covariance_eigh",
            choices=("auto", "full", "covariance_eigh", "arpack", "randomized"),
        ),
        OptionSpec("iterated_power", "int", None, "power iterations of the solver randomized; left out: chosen by it", low=0),
        OptionSpec("tol", "float", 0.0, "when the solver arpack stops", low=0),
    )

    def fit(self, data: TrainingData, spec: FitSpec, report: Report) -> ComponentPredictor:
        """Find the components, the one that explains most first; of each the largest loading in size is above 0.

        A row of weight 2 counts as two rows.
        """
        x = data.features.x.astype(np.float64)
        _check_number(x.shape, spec.options)
        found = _solve(x, spec) if data.weight is None else _solve_weighted(x, data.weight, spec.options["n_components"])
        scale = np.ones(len(found["components"]))
        if spec.options["whiten"]:  # a component without variance stays as it is, nearly 0
            scale = np.maximum(np.sqrt(found["explained_variance"]), np.finfo(np.float64).eps)
        predictor = ComponentPredictor(found | {"scale": scale})
        figures = projection_metrics(data.features.x, predictor.parameters(), data.weight)
        report.step(1, 1, {f"train_{name}": value for name, value in figures.items() if value is not None})
        return predictor

    def load(self, folder: Path) -> ComponentPredictor:
        """Read what ``save`` wrote."""
        return ComponentPredictor(load_arrays(folder / _FILE))


class ComponentPredictor(Unexplained):
    """Components (components, k) of unit length, at right angles to each other."""

    def __init__(self, arrays: Mapping[str, NDArray[np.float64]]) -> None:
        self.threads = 1
        self._arrays = dict(arrays)
        self._turn = np.ascontiguousarray((arrays["components"] / arrays["scale"][:, None]).T)
        self._shift = arrays["mean"] @ self._turn

    def predict(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """float32 (n, k) → float64 (n, components)."""
        return np.asarray(x.astype(np.float64) @ self._turn - self._shift)

    def importance(self) -> NDArray[np.float64]:
        """The squared loadings of each feature, weighted by what their component explains, as shares."""
        weight = (self._arrays["components"] ** 2 * self._arrays["explained_variance"][:, None]).sum(0)
        return np.asarray(weight / weight.sum() if weight.sum() > 0 else weight)

    def parameters(self) -> Mapping[str, NDArray[Any]]:
        """``components``, ``explained_variance``, ``explained_variance_ratio`` and ``mean``."""
        return {name: array.copy() for name, array in self._arrays.items() if name != "scale"}

    def save(self, folder: Path) -> None:
        """Write ``components.npz``."""
        save_arrays(folder / _FILE, self._arrays)

    def onnx(self) -> bytes | None:
        """A graph of a few nodes that computes in float64, as ``predict`` does."""
        from sqlml.algorithms.onnx_graph import Graph

        graph = Graph(len(self._turn))
        turned = graph.node("MatMul", graph.node("Cast", "x", to=graph.DOUBLE), graph.constant(self._turn))
        return graph.finish(graph.node("Sub", turned, graph.constant(self._shift)), rank=2)


def _check_number(shape: tuple[int, ...], options: Mapping[str, Any]) -> None:
    """There must be as many rows and features as components, and a solver that can find them."""
    rows, k = shape
    if rows < 2:
        raise TrainingDataError(f"principal components need 2 rows at least; there is {rows}")
    number, solver, most = options["n_components"], options["svd_solver"], min(shape)
    if isinstance(number, float):
        if solver not in _ANY_FRACTION:
            raise TrainingDataError(
                f"n_components = {number:g} is a part of the variance, which svd_solver = '{solver}' cannot aim at",
                hint="leave svd_solver out, or give a number of components",
            )
        return
    most -= solver == "arpack"
    if (number or 1) > most:
        raise TrainingDataError(
            f"n_components = {number} is too many for {count_of(k, 'feature')} and {count_of(rows, 'row')}"
            + (": with svd_solver = 'arpack' it must be less than either" if solver == "arpack" else ""),
            hint=f"WITH (n_components = {most})" + (" or fewer" if most > 1 else "") if most else "leave svd_solver out",
        )


def _solve(x: NDArray[np.float64], spec: FitSpec) -> dict[str, NDArray[np.float64]]:
    """scikit-learn's PCA."""
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    options = {name: spec.options[name] for name in ("n_components", "svd_solver", "tol")}
    options["iterated_power"] = "auto" if spec.options["iterated_power"] is None else spec.options["iterated_power"]
    with threadpool_limits(spec.threads or None), np.errstate(invalid="ignore", divide="ignore"):
        solver = PCA(**options, random_state=spec.seed).fit(x)
    names = ("components", "explained_variance", "explained_variance_ratio", "mean")
    return {name: np.nan_to_num(np.asarray(getattr(solver, f"{name}_"), np.float64)) for name in names}


def _solve_weighted(x: NDArray[np.float64], weight: NDArray[np.float64], number: float | None) -> dict[str, NDArray[np.float64]]:
    """The eigenvectors of the weighted covariance, with scikit-learn's signs and its rule for a part of the variance."""
    mean = np.average(x, axis=0, weights=weight)
    apart = x - mean
    # with weights below 1 in all there is no unbiased estimate: then the plain mean
    divisor = weight.sum() - 1 if weight.sum() > 1 else weight.sum()
    values, vectors = np.linalg.eigh((apart * weight[:, None]).T @ apart / divisor)
    variance = np.maximum(values[::-1], 0.0)
    components = vectors[:, ::-1].T
    largest = np.abs(components).argmax(1)
    components *= np.where(components[np.arange(len(components)), largest] < 0, -1.0, 1.0)[:, None]
    ratio = variance / variance.sum() if variance.sum() > 0 else variance
    count = min(x.shape) if number is None else int(number)
    if isinstance(number, float):
        count = min(int(np.searchsorted(np.cumsum(ratio), number, side="right")) + 1, len(ratio))
    return {
        "components": np.ascontiguousarray(components[:count]),
        "explained_variance": variance[:count].copy(),
        "explained_variance_ratio": ratio[:count].copy(),
        "mean": mean,
    }
