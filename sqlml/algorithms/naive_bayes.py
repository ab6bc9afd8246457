"""Naive Bayes: counts and moments, fitted here, since no library takes numbers, categories and missing values together.

    log p(class | row) = log p(class) + sum over the features of log p(value | class) + a constant of the row

A missing value leaves its feature out of the sum; so does a category that was not seen in training.  Numbers alone, or categories
alone, give what scikit-learn's GaussianNB, MultinomialNB, BernoulliNB and CategoricalNB give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.algorithms.arrays import load_arrays, save_arrays
from sqlml.algorithms.losses import final_losses
from sqlml.contracts import FitSpec, OptionSpec, Report, TrainingData
from sqlml.errors import TrainingDataError, count_of
from sqlml.types import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FILE = "naive_bayes.npz"
_LEAST = 1e-300
"""Stands in for a probability of 0, so that its logarithm is a number."""
_SAMPLE = 10_000
"""Rows from which it is told how much each feature matters."""
_CELLS = 4_000_000
"""Contributions held at a time meanwhile."""


class NaiveBayes:
    """Naive Bayes for two or more classes."""

    name = "naive_bayes"
    task = Task.CLASSIFICATION
    encoding = "codes"
    early_stopping: str | None = None
    rounds: str | None = None
    streams = None
    warm_start = False
    explains = True
    doc = "naive Bayes: features count independently of each other (scikit-learn's formulae)"
    libraries = ("numpy",)
    options = (
        OptionSpec(
            "distribution",
            "str",
            "gaussian",
            "of numbers: 'gaussian', 'multinomial' for counts such as words of a text, 'bernoulli' for whether they are there",
            choices=("gaussian", "multinomial", "bernoulli"),
        ),
        OptionSpec("alpha", "float", 1.0, "added to each count, of categories as well", low=0, open_low=True),
        OptionSpec("var_smoothing", "float", 1e-9, "this part of the largest variance is added to all", low=0, open_low=True),
        OptionSpec("binarize", "float", 0.0, "with 'bernoulli': numbers above this are there"),
        OptionSpec("fit_prior", "bool", True, "learn how frequent the classes are; otherwise all are held to be equally so"),
    )

    def fit(self, data: TrainingData, spec: FitSpec, report: Report) -> BayesPredictor:
        """Count, class by class."""
        features, classes = data.features, data.n_classes
        y = np.asarray(data.y)
        weight = np.ones(len(y)) if data.weight is None else data.weight
        categorical = np.array(features.categorical, bool)
        numbers = [_known(features.x[:, j], y, weight, classes) for j in np.flatnonzero(~categorical)]
        texts = [_known(features.x[:, j], y, weight, classes) for j in np.flatnonzero(categorical)]
        arrays = {
            "categorical": categorical,
            "prior": _prior(np.asarray(np.bincount(y, weight, classes), np.float64), spec.options["fit_prior"]),
        }
        arrays |= _fit_numbers(
            numbers, classes, spec.options, [n for n, c in zip(features.names, categorical, strict=True) if not c]
        )
        arrays |= _fit_categories(texts, classes, spec.options["alpha"])
        arrays["importance"] = np.zeros(len(categorical))
        arrays["importance"] = _importance(BayesPredictor(arrays), features.x[:_SAMPLE], weight[:_SAMPLE])
        predictor = BayesPredictor(arrays)
        report.step(1, 1, final_losses(predictor, data))
        return predictor

    def load(self, folder: Path) -> BayesPredictor:
        """Read what ``save`` wrote."""
        return BayesPredictor(load_arrays(folder / _FILE))


class BayesPredictor:
    """Logarithms of probabilities, class by class.

    ``categorical`` (k,) says which features are categories; the m others are numbers.  ``prior`` (classes,).  ``table``: of every
    category of every categorical feature, one after the other as ``sizes`` says, (categories, classes).  For numbers either
    ``mean`` and ``variance`` (classes, m); or ``there`` and ``absent`` (classes, m), by which a count, or whether it is above
    ``above`` (1,), is multiplied.
    """

    gpu_memory = 0

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.threads = 1
        self._arrays = dict(arrays)
        self._numbers = np.flatnonzero(~arrays["categorical"])
        self._categories = np.flatnonzero(arrays["categorical"])
        self._starts = np.concatenate([[0], np.cumsum(arrays["sizes"])])
        # one more row, of zeros, for what is missing
        self._table = np.concatenate([arrays["table"], np.zeros((1, len(arrays["prior"])))])

    @property
    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """All that it computes with, as the class tells; not to be written to."""
        return self._arrays

    def predict(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """float32 (n, k) → float64 (n, classes)."""
        joint = np.tile(self._arrays["prior"], (len(x), 1))
        values = x[:, self._numbers].astype(np.float64)
        for c in range(len(self._arrays["prior"])):
            joint[:, c] += self._number_terms(values, c).sum(1)
        for j in range(len(self._categories)):
            joint += self._category_terms(x, j)
        e = np.exp(joint - joint.max(1, keepdims=True, initial=-np.inf))
        return np.asarray(e / e.sum(1, keepdims=True))

    def _number_terms(self, values: NDArray[np.float64], c: int) -> NDArray[np.float64]:
        """Numbers (n, m) → log p(value | class c) (n, m), 0 where missing."""
        a = self._arrays
        if "mean" in a:
            variance = a["variance"][c]
            terms = (values - a["mean"][c]) ** 2 / (-2.0 * variance) - 0.5 * np.log(2.0 * np.pi * variance)
        elif "above" in a:
            terms = np.where(values > a["above"][0], a["there"][c], a["absent"][c])
        else:
            terms = values * a["there"][c]
        return np.asarray(np.where(np.isnan(values), 0.0, terms))

    def _category_terms(self, x: NDArray[np.float32], j: int) -> NDArray[np.float64]:
        """float32 (n, k) → log p(value | class) of the categorical feature number j, (n, classes), 0 where missing or unseen."""
        codes = x[:, self._categories[j]]
        known = (codes >= 0) & (codes < self._arrays["sizes"][j])
        rows = np.where(known, codes, 0).astype(np.int64) + self._starts[j]
        return np.asarray(self._table[np.where(known, rows, -1)])

    def contributions(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """(n, outputs, k + 1): log p(value | class), the second class less the first.

        Of more than two classes, less the mean over the classes: a feature that all of them expect alike adds nothing.
        """
        prior = self._arrays["prior"]
        terms = np.zeros((len(x), len(prior), x.shape[1] + 1))
        values = x[:, self._numbers].astype(np.float64)
        for c in range(len(prior)):
            terms[:, c, self._numbers] = self._number_terms(values, c)
        for j, column in enumerate(self._categories):
            terms[:, :, column] = self._category_terms(x, j)
        terms[:, :, -1] = prior
        return terms[:, 1:] - terms[:, :1] if len(prior) == 2 else terms - terms.mean(1, keepdims=True)

    def importance(self) -> NDArray[np.float64]:
        """The mean size of each feature's contributions to rows of the training, as shares."""
        return self._arrays["importance"].copy()

    def parameters(self) -> Mapping[str, NDArray[Any]]:
        """``class_log_prior`` (classes,); with Gaussian numbers also ``theta`` and ``var`` (classes, k), NaN for categories."""
        learnt = {"class_log_prior": self._arrays["prior"].copy()}
        for name, own in (("theta", "mean"), ("var", "variance")):
            if own in self._arrays:
                learnt[name] = np.full((len(self._arrays["prior"]), len(self._arrays["categorical"])), np.nan)
                learnt[name][:, self._numbers] = self._arrays[own]
        return learnt

    def save(self, folder: Path) -> None:
        """Write ``naive_bayes.npz``."""
        save_arrays(folder / _FILE, self._arrays)

    def onnx(self) -> bytes | None:
        """A graph that computes in float64, as ``predict`` does."""
        from sqlml.algorithms.onnx_graph import Graph

        graph = Graph(len(self._arrays["categorical"]))
        x = graph.node("Cast", "x", to=graph.DOUBLE)
        joint = graph.constant(self._arrays["prior"][None])
        if len(self._numbers):
            joint = graph.node("Add", self._onnx_numbers(graph, x), joint)
        table = graph.constant(self._table) if len(self._categories) else ""
        for j, column in enumerate(self._categories):
            code = graph.node("Gather", x, graph.constant(np.array([column])), axis=1)
            code = graph.node("Squeeze", code, graph.constant(np.array([1])))  # (n,)
            size = graph.constant(np.array(float(self._arrays["sizes"][j])))
            known = graph.node("And", graph.node("GreaterOrEqual", code, _zero(graph)), graph.node("Less", code, size))
            whole = graph.node("Cast", graph.node("Where", known, code, _zero(graph)), to=graph.INT64)
            row = graph.node("Add", whole, graph.constant(np.array(self._starts[j])))
            row = graph.node("Where", known, row, graph.constant(np.array(len(self._table) - 1)))
            joint = graph.node("Add", graph.node("Gather", table, row, axis=0), joint)
        return graph.finish(graph.node("Softmax", joint, axis=1), rank=2)

    def _onnx_numbers(self, graph: Any, x: str) -> str:
        """The node that sums what the numbers add, (n, classes)."""
        a = self._arrays
        values = graph.node("Gather", x, graph.constant(self._numbers), axis=1)
        values = graph.node("Unsqueeze", values, graph.constant(np.array([1])))  # (n, 1, m)
        missing = graph.node("IsNaN", values)
        if "mean" in a:
            apart = graph.node("Sub", values, graph.constant(a["mean"][None]))
            spread = graph.constant(-2.0 * a["variance"][None])
            squares = graph.node("Div", graph.node("Mul", apart, apart), spread)
            terms = graph.node("Sub", squares, graph.constant(0.5 * np.log(2.0 * np.pi * a["variance"][None])))
        elif "above" in a:
            there = graph.node("Greater", values, graph.constant(a["above"]))
            terms = graph.node("Where", there, graph.constant(a["there"][None]), graph.constant(a["absent"][None]))
        else:
            terms = graph.node("Mul", values, graph.constant(a["there"][None]))
        terms = graph.node("Where", missing, _zero(graph), terms)
        return str(graph.node("ReduceSum", terms, graph.constant(np.array([2])), keepdims=0))


def _zero(graph: Any) -> str:
    return str(graph.constant(np.array(0.0)))


def _prior(counts: NDArray[np.float64], fit_prior: bool) -> NDArray[np.float64]:
    """log p(class), (classes,)."""
    if not fit_prior:
        return np.full(len(counts), -np.log(len(counts)))
    return np.asarray(np.log(np.maximum(counts / counts.sum(), _LEAST)))


@dataclass(frozen=True)
class _Known:
    """The values of a feature where they are not missing, with the class and the weight of their rows."""

    values: NDArray[np.float64]
    y: NDArray[np.int64]
    weight: NDArray[np.float64]
    classes: int

    def sums(self, values: NDArray[np.float64] | float = 1.0) -> NDArray[np.float64]:
        """The weighted sum of one number for each value, class by class."""
        return np.asarray(np.bincount(self.y, self.weight * values, self.classes), np.float64)

    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weighted mean and variance, class by class; those of all rows, each counted once, where a class has none."""
        counts = self.sums()
        mean = np.divide(self.sums(self.values), counts, out=np.full(self.classes, self.mean), where=counts > 0)
        squares = self.sums((self.values - mean[self.y]) ** 2)
        return mean, np.divide(squares, counts, out=np.full(self.classes, self.variance), where=counts > 0)

    @property
    def mean(self) -> float:
        return float(self.values.mean()) if len(self.values) else 0.0

    @property
    def variance(self) -> float:
        return float(self.values.var()) if len(self.values) else 0.0


def _known(column: NDArray[np.float32], y: NDArray[np.int64], weight: NDArray[np.float64], classes: int) -> _Known:
    there = ~np.isnan(column)
    return _Known(column[there].astype(np.float64), y[there], weight[there], classes)


def _fit_numbers(
    columns: Sequence[_Known], classes: int, options: Mapping[str, Any], names: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """The arrays for the numbers."""
    alpha = options["alpha"]
    if not columns:
        return {"there": np.zeros((classes, 0))}
    if options["distribution"] == "gaussian":
        mean, variance = (np.stack(rows, 1) for rows in zip(*(column.moments() for column in columns), strict=True))
        largest = max(column.variance for column in columns) or 1.0  # where nothing varies: as if it were 1
        return {"mean": mean, "variance": variance + options["var_smoothing"] * largest}
    if options["distribution"] == "bernoulli":
        there = np.stack([column.sums(column.values > options["binarize"]) for column in columns], 1) + alpha
        every = np.stack([column.sums() for column in columns], 1) + 2 * alpha
        logs = {"there": np.log(there / every), "absent": np.log(np.maximum(every - there, _LEAST) / every)}
        return logs | {"above": np.array([options["binarize"]])}
    for name, column in zip(names, columns, strict=True):
        if (column.values < 0).any():
            rows = count_of(int((column.values < 0).sum()), "row")
            raise TrainingDataError(
                f"{name} is below 0 in {rows}: distribution = 'multinomial' takes counts", hint="use 'gaussian' or 'bernoulli'"
            )
    counts = np.stack([column.sums(column.values) for column in columns], 1) + alpha
    return {"there": np.log(counts / counts.sum(1, keepdims=True))}


def _fit_categories(columns: Sequence[_Known], classes: int, alpha: float) -> dict[str, NDArray[Any]]:
    """The tables of the categorical features."""
    sizes: list[int] = []
    tables: list[NDArray[Any]] = [np.zeros((0, classes))]
    for column in columns:
        codes = column.values.astype(np.int64)
        sizes.append(int(codes.max(initial=-1)) + 1)
        counts = np.bincount(codes * classes + column.y, column.weight, sizes[-1] * classes).reshape(-1, classes) + alpha
        tables.append(np.log(counts / counts.sum(0)))
    return {"sizes": np.array(sizes, np.int64), "table": np.concatenate(tables)}


def _importance(predictor: BayesPredictor, x: NDArray[np.float32], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    total = np.zeros(x.shape[1])
    block = max(1, _CELLS // (len(predictor.parameters()["class_log_prior"]) * x.shape[1]))
    for start in range(0, len(x), block):
        sizes = np.abs(predictor.contributions(x[start : start + block])[:, :, :-1]).mean(1)
        total += weight[start : start + block] @ sizes
    return total / total.sum() if total.sum() > 0 else total
