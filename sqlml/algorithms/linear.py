"""Linear models: fitted by scikit-learn, kept as coefficients in JSON, predicted with numpy in float64."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.algorithms.losses import final_losses
from sqlml.contracts import FitSpec, OptionSpec, Report, TrainingData
from sqlml.errors import TrainingDataError, count_of
from sqlml.types import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FILE = "linear.json"
_NEVER = -1e4
"""A margin that no row makes up for."""


class LogisticRegression:
    """Logistic regression for two or more classes."""

    name = "logistic_regression"
    task = Task.CLASSIFICATION
    encoding = "dense"
    early_stopping: str | None = None
    rounds: str | None = None
    streams = None
    warm_start = True
    explains = True
    doc = "logistic regression on standardised features (scikit-learn)"
    libraries = ("scikit-learn",)
    options = (
        OptionSpec("C", "float", 1.0, "inverse of the regularisation's strength", low=0, open_low=True),
        OptionSpec("l1_ratio", "float", 0.0, "0: L2 regularisation, 1: L1, between: both", low=0, high=1),
        OptionSpec("tol", "float", 1e-4, "when to stop", low=0, open_low=True),
        OptionSpec("max_iter", "int", 100, "most iterations", low=1),
        OptionSpec("fit_intercept", "bool", True, "add a constant"),
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
        solver = Solver(**options, random_state=spec.seed, warm_start=spec.start is not None)
        x = data.features.x.astype(np.float64)
        if isinstance(spec.start, LinearPredictor):
            solver.coef_, solver.intercept_ = _start(spec.start, data)
        _fit_quietly(solver, x, data, spec, report, options["max_iter"])
        coef, intercept = _every_class(solver, data.n_classes)
        predictor = _predictor(self.task, coef, intercept, x, data.weight)
        report.step(1, 1, final_losses(predictor, data))
        return predictor

    def load(self, folder: Path) -> LinearPredictor:
        """Read what ``save`` wrote."""
        return LinearPredictor.load(folder)


class LinearRegression:
    """Linear regression by least squares, plain or regularised."""

    name = "linear_regression"
    task = Task.REGRESSION
    encoding = "dense"
    early_stopping: str | None = None
    rounds: str | None = None
    streams = None
    warm_start = False
    explains = True
    doc = "least squares on standardised features, plain, ridge, lasso or elastic net (scikit-learn)"
    libraries = ("scikit-learn",)
    options = (
        OptionSpec("alpha", "float", 0.0, "strength of the regularisation, on the scale of ElasticNet; 0: none", low=0),
        OptionSpec("l1_ratio", "float", 0.5, "0: L2 regularisation (ridge), 1: L1 (lasso), between: both", low=0, high=1),
        OptionSpec("fit_intercept", "bool", True, "add a constant"),
        OptionSpec("positive", "bool", False, "no coefficient below 0"),
        OptionSpec("max_iter", "int", 1000, "most iterations, where alpha is above 0", low=1),
        OptionSpec("tol", "float", 1e-4, "when to stop, where alpha is above 0", low=0, open_low=True),
    )

    def fit(self, data: TrainingData, spec: FitSpec, report: Report) -> LinearPredictor:
        """Minimise the squared error, regularised as scikit-learn's ElasticNet has it, whatever solves it:
        mean((y - x·w)²) / 2 + alpha · (l1_ratio · ‖w‖₁ + (1 - l1_ratio) / 2 · ‖w‖²), the mean weighted.
        """
        solver = _least_squares(spec.options, len(data.features.x) if data.weight is None else data.weight.sum())
        x = data.features.x.astype(np.float64)
        _fit_quietly(solver, x, data, spec, report, spec.options["max_iter"])
        coef, intercept = solver.coef_[None, :], np.array([solver.intercept_], np.float64)
        predictor = _predictor(self.task, coef, intercept, x, data.weight)
        report.step(1, 1, final_losses(predictor, data))
        return predictor

    def load(self, folder: Path) -> LinearPredictor:
        """Read what ``save`` wrote."""
        return LinearPredictor.load(folder)


def _least_squares(options: Mapping[str, Any], weight: float) -> Any:
    """scikit-learn's solver for the options: exact where there is no L1.  ``weight`` is the sum over the rows.

    Ridge minimises the sum of squares, not their mean: its alpha is as many times larger.
    """
    from sklearn.linear_model import ElasticNet, Ridge
    from sklearn.linear_model import LinearRegression as Solver

    common = {name: options[name] for name in ("fit_intercept", "positive")}
    alpha, l1_ratio = options["alpha"], options["l1_ratio"]
    if alpha == 0:
        return Solver(**common)
    common |= {name: options[name] for name in ("max_iter", "tol")}
    if l1_ratio == 0:
        return Ridge(alpha=alpha * weight, **common)
    return ElasticNet(alpha=alpha, l1_ratio=l1_ratio, **common)


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

    gpu_memory = 0

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

    @property
    def is_regression(self) -> bool:
        return self._state.task == Task.REGRESSION

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

    def parameters(self) -> Mapping[str, NDArray[Any]]:
        """``coef`` (outputs, k) and ``intercept`` (outputs,): one output for two classes and for a regression."""
        return {"coef": self._coef.copy(), "intercept": self._intercept.copy()}

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
        try:
            solver.fit(x, data.y, sample_weight=data.weight)
        except ValueError as error:
            raise TrainingDataError(f"scikit-learn: {str(error).splitlines()[0]}") from error
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        rounds = count_of(max_iter or 0, "iteration")
        report.notice(f"not converged in {rounds}: a larger max_iter may give a better model")


def _start(start: LinearPredictor, data: TrainingData) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coefficients and intercepts to go on from, of the classes that have rows.

    ``TrainingDataError`` where they are of other features or classes.
    """
    learnt = start.parameters()
    outputs = 1 if data.n_classes == 2 else data.n_classes
    if learnt["coef"].shape != (outputs, len(data.features.names)):
        raise TrainingDataError("the model to go on from has other features or classes")
    present = np.unique(np.asarray(data.y))
    coef, intercept = learnt["coef"], learnt["intercept"]
    if outputs == 1 or len(present) == outputs:
        return coef, intercept
    coef, intercept = coef[present], intercept[present]
    return (coef[1:] - coef[:1], intercept[1:] - intercept[:1]) if len(present) == 2 else (coef, intercept)


def _every_class(solver: Any, classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One function per class, or one for two classes; a class without rows gets a constant that leaves it no probability."""
    coef, intercept = solver.coef_, np.broadcast_to(solver.intercept_, len(solver.coef_))
    if len(solver.classes_) == classes:
        return coef, intercept
    if len(coef) == 1:  # two classes of more: the first has the function 0
        coef, intercept = np.stack([np.zeros_like(coef[0]), coef[0]]), np.array([0.0, intercept[0]])
    every, constants = np.zeros((classes, coef.shape[1])), np.full(classes, _NEVER)
    every[solver.classes_], constants[solver.classes_] = coef, intercept
    return every, constants


def _predictor(
    task: Task, coef: NDArray[Any], intercept: NDArray[Any], x: NDArray[np.float64], weight: NDArray[np.float64] | None
) -> LinearPredictor:
    mean = np.average(x, axis=0, weights=weight)
    spread = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weight))
    return LinearPredictor(LinearState(task.value, coef.tolist(), intercept.tolist(), mean.tolist(), spread.tolist()))
