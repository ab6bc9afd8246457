"""Linear models: fitted by scikit-learn, kept as coefficients in JSON, predicted with numpy in float64."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.contracts import FitSpec, OptionSpec, Report, TrainingData
from sqlml.errors import count_of
from sqlml.types import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FILE = "linear.json"


class LogisticRegression:
    """Logistic regression for two or more classes."""

    name = "logistic_regression"
    task = Task.CLASSIFICATION
    encoding = "dense"
    early_stopping: str | None = None
    doc = "logistic regression on standardised features (scikit-learn)"
    libraries = ("scikit-learn",)
    options = (
        OptionSpec("C", "float", 1.0, "inverse of the regularisation's strength", low=0, open_low=True),
        OptionSpec("l1_ratio", "float", 0.0, "0: L2 regularisation, 1: L1, between: both", low=0, high=1),
        OptionSpec("tol", "float", 1e-4, "when to stop", low=0, open_low=True),
        OptionSpec("max_iter", "int", 100, "most iterations", low=1),
        OptionSpec("fit_intercept", "bool", True, "add a constant"),
        OptionSpec("class_weight", "str", None, "'balanced': every class weighs the same", choices=("balanced",)),
        OptionSpec(
            "solver",
            "str",
            None,
            "how it is solved; left out: lbfgs, or saga where l1_ratio is above 0",
            choices=("lbfgs", "newton-cg", "newton-cholesky", "sag", "saga"),
        ),
    )

    def fit(self, data: TrainingData, spec: FitSpec, report: Report) -> LinearPredictor:
        """Maximise the regularised likelihood."""
        from sklearn.linear_model import LogisticRegression as Solver

        options = {o.name: spec.options[o.name] for o in self.options}
        options["solver"] = options["solver"] or ("saga" if options["l1_ratio"] else "lbfgs")
        solver = Solver(**options, random_state=spec.seed)
        x = data.features.x.astype(np.float64)
        _fit_quietly(solver, x, data, spec, report, options["max_iter"])
        predictor = _predictor(self.task, solver.coef_, np.broadcast_to(solver.intercept_, len(solver.coef_)), x, data.weight)
        report.step(1, 1, _losses(predictor, data, "logloss", _log_loss))
        return predictor

    def load(self, folder: Path) -> LinearPredictor:
        """Read what ``save`` wrote."""
        return LinearPredictor.load(folder)


class LinearRegression:
    """Linear regression by least squares."""

    name = "linear_regression"
    task = Task.REGRESSION
    encoding = "dense"
    early_stopping: str | None = None
    doc = "least squares on standardised features (scikit-learn)"
    libraries = ("scikit-learn",)
    options = (
        OptionSpec("fit_intercept", "bool", True, "add a constant"),
        OptionSpec("positive", "bool", False, "no coefficient below 0"),
    )

    def fit(self, data: TrainingData, spec: FitSpec, report: Report) -> LinearPredictor:
        """Minimise the squared error."""
        from sklearn.linear_model import LinearRegression as Solver

        solver = Solver(**{o.name: spec.options[o.name] for o in self.options})
        x = data.features.x.astype(np.float64)
        _fit_quietly(solver, x, data, spec, report, None)
        predictor = _predictor(self.task, solver.coef_[None, :], np.array([solver.intercept_]), x, data.weight)
        report.step(1, 1, _losses(predictor, data, "rmse", _rmse))
        return predictor

    def load(self, folder: Path) -> LinearPredictor:
        """Read what ``save`` wrote."""
        return LinearPredictor.load(folder)


@dataclass(frozen=True)
class LinearState:
    """What is kept: one row of ``coef`` and one ``intercept`` per output; each feature's mean and spread in training."""

    task: str
    coef: list[list[float]]
    intercept: list[float]
    mean: list[float]
    spread: list[float]


class LinearPredictor:
    """Coefficients."""

    def __init__(self, state: LinearState) -> None:
        self.threads = 1
        self._state = state
        self._coef = np.array(state.coef, np.float64)
        self._intercept = np.array(state.intercept, np.float64)
        self._mean = np.array(state.mean, np.float64)

    def margins(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n, outputs): the linear functions themselves."""
        margins: NDArray[np.float64] = x.astype(np.float64) @ self._coef.T + self._intercept
        return margins

    def predict(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """float32 (n, k) → float64 (n, classes), or (n,) for a regression."""
        z = self.margins(x)
        if self._state.task == Task.REGRESSION:
            return z[:, 0]
        if z.shape[1] == 1:
            half = 0.5 * np.tanh(0.5 * z)  # the logistic function, without overflow
            return np.column_stack([0.5 - half, 0.5 + half])
        e = np.exp(z - z.max(1, keepdims=True, initial=-np.inf))
        return np.asarray(e / e.sum(1, keepdims=True))

    def contributions(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """(n, outputs, k + 1): coefficient times distance from the feature's mean in training."""
        out = np.empty((len(x), len(self._coef), x.shape[1] + 1))
        out[:, :, :-1] = (x - self._mean)[:, None, :] * self._coef
        out[:, :, -1] = self._intercept + self._coef @ self._mean
        return out

    def importance(self) -> NDArray[np.float64]:
        """Size of the coefficients times the features' spread in training, as shares."""
        weight = np.abs(self._coef).mean(0) * np.array(self._state.spread)
        return np.asarray(weight / weight.sum() if weight.sum() > 0 else weight)

    def save(self, folder: Path) -> None:
        """Write ``linear.json``; floats survive exactly."""
        (folder / _FILE).write_text(json.dumps(asdict(self._state), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> LinearPredictor:
        """Read ``linear.json``."""
        return cls(LinearState(**json.loads((folder / _FILE).read_text(encoding="utf-8"))))

    def onnx(self) -> bytes | None:
        """A graph of a few nodes that computes in float64, as ``predict`` does."""
        from sqlml.algorithms.onnx_graph import Graph

        graph = Graph(self._coef.shape[1])
        x = graph.node("Cast", "x", to=graph.DOUBLE)
        z = graph.node("Add", graph.node("MatMul", x, graph.constant(self._coef.T)), graph.constant(self._intercept))
        if self._state.task == Task.REGRESSION:
            return graph.finish(graph.node("Squeeze", z, graph.constant(np.array([1]))), rank=1)
        if len(self._coef) > 1:
            return graph.finish(graph.node("Softmax", z, axis=1), rank=2)
        p = graph.node("Sigmoid", z)
        q = graph.node("Sub", graph.constant(np.array([1.0])), p)
        return graph.finish(graph.node("Concat", q, p, axis=1), rank=2)


def _fit_quietly(
    solver: Any, x: NDArray[np.float64], data: TrainingData, spec: FitSpec, report: Report, max_iter: int | None
) -> None:
    """Fit within the allowed threads; a solver that did not converge is a notice, not a warning of Python's."""
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(spec.threads or None), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solver.fit(x, data.y, sample_weight=data.weight)
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        rounds = count_of(max_iter or 0, "iteration")
        report.notice(f"not converged in {rounds}: a larger max_iter may give a better model")


def _predictor(
    task: Task, coef: NDArray[Any], intercept: NDArray[Any], x: NDArray[np.float64], weight: NDArray[np.float64] | None
) -> LinearPredictor:
    mean = np.average(x, axis=0, weights=weight)
    spread = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weight))
    return LinearPredictor(LinearState(task.value, coef.tolist(), intercept.tolist(), mean.tolist(), spread.tolist()))


def _losses(predictor: LinearPredictor, data: TrainingData, name: str, loss: Any) -> Mapping[str, float]:
    figures = {f"train_{name}": loss(predictor.predict(data.features.x), data.y)}
    if data.heldout_x is not None and len(data.heldout_x):
        figures[f"heldout_{name}"] = loss(predictor.predict(data.heldout_x), data.heldout_y)
    return figures


def _log_loss(p: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    return float(-np.log(np.clip(p[np.arange(len(y)), y], 1e-16, 1)).mean())


def _rmse(values: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean((values - y) ** 2)))
