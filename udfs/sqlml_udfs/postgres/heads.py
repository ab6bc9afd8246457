"""What a head computes, in PL/pgSQL: features → scores → the answer that is asked for.

trees: margins in float32          linear, clusters, components, naive Bayes: sums in float64, as the library has them
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.algorithms.boosters import LOG, LOGIT, SURE, read_forest
from sqlml.algorithms.isolation import IsolationPredictor
from sqlml.algorithms.naive_bayes import BayesPredictor
from sqlml.algorithms.xgboost import TreePredictor
from sqlml.bundles.head import Head
from sqlml.errors import NotSupportedError
from sqlml.types import Task
from sqlml_udfs.postgres.body import Body
from sqlml_udfs.postgres.encode import Codes, Number, encode
from sqlml_udfs.postgres.text import constant, double, doubles, json_object
from sqlml_udfs.postgres.trees import isolation_depth, margins, used_features

if TYPE_CHECKING:
    from numpy.typing import NDArray

Source = Mapping[str, str]

_MOST = 700
"""PostgreSQL raises where an exponential is too large or too near 0 for 64 bits; this far from 0 it is neither."""
_MOST_FLOAT = "88.72283935546875"
"""The largest float32 whose exponential is one."""
_SURE = 1.1102230246251565e-16
"""The largest float64 margin of which the logistic function still makes 0.5."""
_PREDICT, _PROBS, _PROBA = "predict", "probs", "proba"

INSTEAD = "PREDICT MODEL … INTO a table computes it outside the database"


def answer(body: Body, head: Head, source: Source, output: str) -> str:
    """The SQL of ``predict``, ``probs`` (jsonb) or ``proba:<i>``, after the statements that lead to it.

    ``source`` is the SQL of each column that the encoder reads.  ``NotSupportedError`` for what has no form in SQL.
    """
    what, _, number = output.partition(":")
    if what not in (_PREDICT, _PROBS, _PROBA):
        raise NotSupportedError(f"{what} has no form in SQL", hint=INSTEAD)
    if what != _PREDICT:
        head.need_classes("probabilities")
    if head.task is Task.CLASSIFICATION:
        scores = _class_scores(body, head, source)
        if what == _PREDICT:
            return scores.label()
        chosen = scores.probabilities(body)
        if what == _PROBA:
            return chosen[int(number)]
        return json_object(list(zip(head.class_names, chosen, strict=True)))
    make = _OTHERS.get(head.task)
    if make is None:
        raise _no_form(head)
    return make(body, head, source)


def _no_form(head: Head) -> NotSupportedError:
    return NotSupportedError(
        f"{head.algorithm} has no form in SQL: linear models, tree ensembles, naive_bayes, kmeans, pca and isolation_forest have",
        hint=INSTEAD,
    )


# --- classes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _ClassScores:
    """Variables of one margin for the second of two classes, above ``tie`` if it is the likelier, or of one for each class."""

    margins: list[str]
    classes: tuple[Any, ...]
    tie: float

    def label(self) -> str:
        """The likeliest class; of equally likely ones the first."""
        labels = [constant(value) for value in self.classes]
        if len(self.margins) == 1:
            return f"CASE WHEN {self.margins[0]}>{double(self.tie)} THEN {labels[1]} ELSE {labels[0]} END"
        branches = " ".join(f"WHEN {m} THEN {label}" for m, label in zip(self.margins, labels, strict=True))
        return f"CASE greatest({','.join(self.margins)}) {branches} END"

    def probabilities(self, body: Body) -> list[str]:
        """The SQL of each class's probability."""
        if len(self.margins) == 1:
            p = body.declare("float8", _logistic(self.margins[0]))
            return [f"1-{p}", p]
        top = body.declare("float8", f"greatest({','.join(self.margins)})")
        weights = [body.declare("float8", f"exp(greatest({m}-{top},-{_MOST}))") for m in self.margins]
        total = body.sum("float8", double(0.0), weights)
        return [f"{weight}/{total}" for weight in weights]


def _logistic(margin: str) -> str:
    return f"1/(1+exp(least(greatest(-{margin}::float8,-{_MOST}),{_MOST})))"


def _class_scores(body: Body, head: Head, source: Source) -> _ClassScores:
    predictor = head.predictor
    if isinstance(predictor, TreePredictor):
        return _ClassScores(_tree_margins(body, head, predictor, source), head.classes, SURE)
    if isinstance(predictor, BayesPredictor):
        return _ClassScores(_bayes(body, head, predictor.arrays, source), head.classes, 0.0)
    if head.algorithm == "logistic_regression":
        return _ClassScores(_linear(body, head, source), head.classes, _SURE)
    raise _no_form(head)


def _tree_margins(body: Body, head: Head, predictor: TreePredictor, source: Source) -> list[str]:
    forest = read_forest(predictor.booster)
    return margins(body, forest, encode(body, head.encoder, source, used_features(forest)))


# --- sums over dense features -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Dense:
    """The features of a row by number, to sum functions of them."""

    body: Body
    head: Head
    source: Source
    used: frozenset[int]

    @cached_property
    def features(self) -> Sequence[Codes | Number]:
        return encode(self.body, self.head.encoder, self.source, self.used)

    def sum(self, start: float, of_number: Callable[[int, str], str], of_value: Callable[[int, float], float]) -> str:
        """The variable that holds ``start`` and the sum over the features of a function of number and value.

        ``of_number(j, variable)`` is its SQL, empty where it is 0; ``of_value(j, 0 or 1)`` its value, for one-hot features.
        """
        terms: list[str] = []
        for feature in self.features:
            if isinstance(feature, Number):
                terms += [term] if (term := of_number(feature.start, feature.variable)) else []
                continue
            own = range(feature.start, feature.start + feature.count + feature.flag)
            zeros = np.array([of_value(j, 0.0) for j in own])
            ones = np.array([of_value(j, 1.0) for j in own])
            one_each = zeros.sum() - zeros + ones  # exactly one of them is 1: a category, or the flag
            missing = one_each[-1] if feature.flag else zeros.sum()
            table = one_each[: feature.count]
            if table.any() or missing:
                self.body.size += feature.count
                terms.append(f"coalesce(({doubles(table)})[{feature.variable}+1],{double(missing)})")
        self.body.size += 2 * len(terms)
        return self.body.sum("float8", double(start), terms)


def _dense(body: Body, head: Head, source: Source, matter: NDArray[np.bool_]) -> _Dense:
    return _Dense(body, head, source, frozenset(np.flatnonzero(matter).tolist()))


def _linear_sums(body: Body, head: Head, source: Source, coef: NDArray[Any], start: NDArray[Any]) -> list[str]:
    """``coef`` (outputs, k) on the features, and ``start`` (outputs,)."""
    dense = _dense(body, head, source, (coef != 0).any(0))

    def row(own: Sequence[float], first: float) -> str:
        return dense.sum(first, lambda j, z: f"{double(own[j])}*{z}" if own[j] else "", lambda j, value: own[j] * value)

    return [row(own, first) for own, first in zip(coef.tolist(), start.tolist(), strict=True)]


def _linear(body: Body, head: Head, source: Source) -> list[str]:
    learnt = head.predictor.parameters()
    return _linear_sums(body, head, source, learnt["coef"], learnt["intercept"])


def _regression(body: Body, head: Head, source: Source) -> str:
    if isinstance(head.predictor, TreePredictor):
        [margin] = _tree_margins(body, head, head.predictor, source)
        objective = read_forest(head.predictor.booster).objective
        if objective in LOGIT:
            return _logistic(margin)
        if objective in LOG:
            return f"CASE WHEN {margin}>'{_MOST_FLOAT}' THEN 'Infinity' ELSE exp(greatest({margin}::float8,-{_MOST})) END"
        return f"{margin}::float8"
    if head.algorithm != "linear_regression":
        raise _no_form(head)
    return _linear(body, head, source)[0]


def _cluster(body: Body, head: Head, source: Source) -> str:
    """The number of the nearest centre, from 1: of equally near ones the first."""
    centres = head.predictor.parameters()["centers"]
    dense = _dense(body, head, source, np.ones(centres.shape[1], bool))

    def squares(centre: Sequence[float]) -> str:
        def apart(j: int, z: str) -> str:
            return f"({z}-{double(centre[j])})*({z}-{double(centre[j])})"

        return dense.sum(0.0, apart, lambda j, value: (value - centre[j]) ** 2)

    distances = [squares(centre) for centre in centres.tolist()]
    branches = " ".join(f"WHEN {d} THEN {i + 1}::bigint" for i, d in enumerate(distances))
    return f"CASE least({','.join(distances)}) {branches} END"


def _components(body: Body, head: Head, source: Source) -> str:
    """What components are made by, whitened or not, is read off the predictor itself, since it is linear."""
    k = len(head.encoder.names)
    at_zero = head.predictor.predict(np.zeros((1, k), np.float32))[0]
    turn = head.predictor.predict(np.eye(k, dtype=np.float32)) - at_zero
    return f"ARRAY[{','.join(_linear_sums(body, head, source, turn.T, at_zero))}]::float8[]"


# --- the rest ---------------------------------------------------------------------------------------------------------


def _anomaly(body: Body, head: Head, source: Source) -> str:
    """Whether the score is above the threshold, told by the depth itself, so that no rounding of the score matters."""
    if not isinstance(head.predictor, IsolationPredictor):
        raise _no_form(head)
    arrays = head.predictor.arrays
    norm = float(arrays["norm"][0])
    if norm == 0:
        return "true" if head.threshold < 0.5 else "false"
    inner = arrays["children"][:, 0] != np.arange(len(arrays["feature"]))
    matter = np.isin(np.arange(len(head.encoder.names)), arrays["feature"][inner])
    variables: dict[int, str] = {}
    for feature in _dense(body, head, source, matter).features:
        if isinstance(feature, Number):
            variables[feature.start] = feature.variable
            continue
        for i in range(feature.count + feature.flag):
            if matter[feature.start + i]:
                there = f"{feature.variable}={i}" if i < feature.count else f"{feature.variable} IS NULL"
                variables[feature.start + i] = body.declare("float8", f"CASE WHEN {there} THEN 1 ELSE 0 END")
    depth = isolation_depth(body, arrays, variables.__getitem__)
    return f"{depth}<={double(_deepest_anomaly(norm, head.threshold))}"


def _deepest_anomaly(norm: float, threshold: float) -> float:
    """The largest depth whose score 2^(-depth / norm) is above the threshold; -1 where none is."""
    if threshold <= 0:
        return float("inf")

    def above(depth: float) -> bool:
        return bool(np.exp2(-depth / norm) > threshold)

    low, high = 0.0, 2000.0 * norm  # 2^-2000 is 0
    if not above(low):
        return -1.0
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if above(middle) else (low, middle)
    return low


def _bayes(body: Body, head: Head, arrays: Mapping[str, NDArray[Any]], source: Source) -> list[str]:
    """log p(class) and, of each feature that is not missing, log p(value | class)."""
    k = len(head.encoder.names)
    features = encode(body, head.encoder, source, range(k))
    number_of = {int(j): i for i, j in enumerate(np.flatnonzero(~arrays["categorical"]))}
    starts = np.concatenate([[0], np.cumsum(arrays["sizes"])])
    spans = {int(j): (starts[i], starts[i + 1]) for i, j in enumerate(np.flatnonzero(arrays["categorical"]))}
    found: list[str] = []
    for c, prior in enumerate(arrays["prior"]):
        terms: list[str] = []
        for feature in features:
            if isinstance(feature, Number):
                term = _number_term(arrays, number_of[feature.start], c, f"{feature.variable}::float8")
            else:
                first, last = spans[feature.start]
                term = f"({doubles(arrays['table'][first:last, c])})[{feature.variable}+1]"
                body.size += int(last - first)
            terms.append(f"coalesce({term},0)")
        body.size += 4 * len(terms)
        found.append(body.sum("float8", double(prior), terms))
    if len(found) > 2:
        return found
    return [body.declare("float8", f"{found[1]}-{found[0]}")]


def _number_term(arrays: Mapping[str, NDArray[Any]], i: int, c: int, value: str) -> str:
    """log p(value | class c) of the number i; NULL where it is missing."""
    if "mean" in arrays:
        variance = float(arrays["variance"][c, i])
        apart = f"({value}-{double(arrays['mean'][c, i])})"
        return f"{apart}*{apart}*{double(-0.5 / variance)}-{double(0.5 * np.log(2.0 * np.pi * variance))}"
    there = double(arrays["there"][c, i])
    if "above" in arrays:
        absent = double(arrays["absent"][c, i])
        return f"CASE WHEN {value}>{double(arrays['above'][0])} THEN {there} WHEN {value} IS NOT NULL THEN {absent} END"
    return f"{value}*{there}"


_OTHERS: Mapping[Task, Callable[[Body, Head, Source], str]] = {
    Task.REGRESSION: _regression,
    Task.CLUSTERING: _cluster,
    Task.PROJECTION: _components,
    Task.ANOMALY: _anomaly,
}
"""What gives the answer of a task without classes."""
