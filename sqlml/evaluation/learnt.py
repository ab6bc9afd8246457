"""What a version has learnt, as tables under BigQuery's names: weights, centroids, components, importances, contributions.

A head learns from encoded features; people think in columns.  So numbers are given on the scale of the column (the encoder
standardises: z = (x - mean) / scale, hence w·z = (w / scale)·x - w·mean / scale), and the features of a text column are
gathered into one list of categories.  ``standardize = true`` gives everything as it was learnt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sqlml.bundles.head import Head
from sqlml.evaluation.subject import Subject
from sqlml.features.column_code import DENSE, ColumnCode
from sqlml.types import Kind, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

INTERCEPT = "__INTERCEPT__"
CATEGORY_WEIGHTS = pa.list_(pa.struct([("category", pa.string()), ("weight", pa.float64())]))
CATEGORY_VALUES = pa.list_(pa.struct([("category", pa.string()), ("value", pa.float64())]))


@dataclass(frozen=True)
class Part:
    """One number of a column among a head's features: its place, and how the encoder scales it."""

    name: str
    at: int
    mean: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True)
class Group:
    """A column among a head's features: its numbers, or its categories (None: missing) with their places."""

    name: str
    parts: tuple[Part, ...] = ()
    categories: tuple[tuple[str | None, int], ...] = ()


def feature_groups(head: Head) -> Iterator[Group]:
    """The columns of the encoder that give features, each with the places of those features, in their order."""
    start = 0
    for column in head.encoder.columns:
        names = column.features(head.encoder.encoding)
        if names:
            yield _group(column, names, start, head.encoder.encoding)
        start += len(names)


def _group(column: ColumnCode, names: list[str], start: int, encoding: str) -> Group:
    if encoding == DENSE and column.kind in (Kind.TEXT, Kind.TEXTS):
        known: tuple[str | None, ...] = (*column.categories, None) if column.missing else column.categories
        return Group(column.name, categories=tuple((category, start + i) for i, category in enumerate(known)))
    means, scales = column.means, column.scales
    scaled = len(means) if encoding == DENSE else 0
    parts = [Part(name, start + i, means[i], scales[i]) if i < scaled else Part(name, start + i) for i, name in enumerate(names)]
    return Group(column.name, tuple(parts))


# --- linear models -----------------------------------------------------------------------------------------------------


def weight_rows(head: Head, standardize: bool) -> Iterator[dict[str, Any]]:
    """ML.WEIGHTS: for each output every column's weight, the constant last.

    More than two classes have a row of weights each.  A number that was missing in training rows has one more weight, under the
    name ``<column> is missing``; its own value then counts as the mean.
    """
    learnt = head.predictor.parameters()
    labels = head.class_names if len(learnt["coef"]) > 1 else (None,)
    for label, coef, intercept in zip(labels, learnt["coef"], learnt["intercept"], strict=True):
        constant = float(intercept)
        for group in feature_groups(head):
            if group.categories:
                listed = [{"category": category, "weight": float(coef[at])} for category, at in group.categories]
                yield {"class_label": label, "processed_input": group.name, "weight": None, "category_weights": listed}
            for part in group.parts:
                weight = float(coef[part.at])
                if not standardize:
                    weight /= part.scale
                    constant -= weight * part.mean
                yield {"class_label": label, "processed_input": part.name, "weight": weight, "category_weights": None}
        yield {"class_label": label, "processed_input": INTERCEPT, "weight": constant, "category_weights": None}


# --- clusters and components -------------------------------------------------------------------------------------------


def centroid_rows(head: Head, standardize: bool) -> Iterator[dict[str, Any]]:
    """ML.CENTROIDS: each cluster's mean of each column; of a text column each category's share."""
    for number, centre in enumerate(head.predictor.parameters()["centers"], 1):
        for row in _value_rows(head, centre, not standardize):
            yield {"centroid_id": number} | row


def component_rows(head: Head) -> Iterator[dict[str, Any]]:
    """ML.PRINCIPAL_COMPONENTS: each component's unit vector over the features, numbers being standardised."""
    for number, component in enumerate(head.predictor.parameters()["components"], 1):
        for row in _value_rows(head, component, False):
            yield {"principal_component_id": number} | row


def _value_rows(head: Head, values: NDArray[Any], original: bool) -> Iterator[dict[str, Any]]:
    for group in feature_groups(head):
        if group.categories:
            listed = [{"category": category, "value": float(values[at])} for category, at in group.categories]
            yield {"feature": group.name, "numerical_value": None, "categorical_value": listed}
        for part in group.parts:
            value = float(values[part.at])
            value = value * part.scale + part.mean if original else value
            yield {"feature": part.name, "numerical_value": value, "categorical_value": None}


def component_info_rows(head: Head) -> Iterator[dict[str, Any]]:
    """ML.PRINCIPAL_COMPONENT_INFO: each component's variance, and its share of all variance."""
    learnt = head.predictor.parameters()
    shares = learnt["explained_variance_ratio"]
    figures = zip(learnt["explained_variance"], shares, np.cumsum(shares), strict=True)
    for number, (eigenvalue, share, total) in enumerate(figures, 1):
        yield {
            "principal_component_id": number,
            "eigenvalue": float(eigenvalue),
            "explained_variance_ratio": float(share),
            "cumulative_explained_variance_ratio": float(total),
        }


# --- trees, and what explains itself -----------------------------------------------------------------------------------


def importance_rows(head: Head) -> Iterator[dict[str, Any]]:
    """ML.FEATURE_IMPORTANCE: XGBoost's ``weight`` (number of splits), ``gain`` and ``cover`` (averages over them).

    A column of several features, such as a date, has the sum of their splits and the averages over all of them.
    """
    learnt = head.predictor.parameters()
    encoder = head.encoder
    splits = encoder.sum_to_inputs(learnt["weight"])
    total = {name: encoder.sum_to_inputs(learnt["weight"] * learnt[name]) for name in ("gain", "cover")}
    rows: list[dict[str, Any]] = []
    for i, name in enumerate(encoder.inputs):
        figures = {f"importance_{figure}": float(total[figure][i] / splits[i]) if splits[i] else 0.0 for figure in total}
        rows.append({"feature": name, "importance_weight": float(splits[i])} | figures)
    yield from sorted(rows, key=lambda row: (-row["importance_gain"], row["feature"]))


def global_rows(subject: Subject, head: Head, by_class: bool) -> list[dict[str, Any]]:
    """ML.GLOBAL_EXPLAIN: the mean size of each column's contributions (Shapley values) over the sample.

    Without ``by_class`` they are those to the score of the predicted class, or to the value; with it, to each class's own score,
    which for two classes are the same but for the sign.
    """
    sample = subject.sample
    if sample is None:
        return []
    encoder = head.encoder
    x = head.encode(sample.columns, sample.n)
    if not by_class:
        sizes = np.abs(head.contributions(x)[:, :-1]).mean(0)
        return _ranked(encoder.inputs, sizes, None)
    values = head.predictor.contributions(x)
    outputs = [encoder.sum_to_inputs(values[:, output, :-1]) for output in range(values.shape[1])]
    if len(outputs) == 1:
        outputs *= len(head.class_names)
    return [
        row
        for name, output in zip(head.class_names, outputs, strict=True)
        for row in _ranked(encoder.inputs, np.abs(output).mean(0), name)
    ]


def _ranked(names: tuple[str, ...], sizes: NDArray[np.float64], label: str | None) -> list[dict[str, Any]]:
    pairs = sorted(zip(names, sizes.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
    return [{"class_name": label, "feature": name, "attribution": size} for name, size in pairs]


# --- clusters again: how large they are --------------------------------------------------------------------------------


def cluster_info(distances: NDArray[Any], weight: NDArray[np.float64] | None = None) -> list[dict[str, Any]]:
    """Each cluster's size and radius among some rows: of distances (n, clusters), in the space of the features.

    The radius is the root mean square of the distances of a cluster's rows from its centre, as BigQuery has it.
    """
    nearest = distances.argmin(1)
    each = np.ones(len(distances)) if weight is None else weight
    clusters = distances.shape[1]
    total = np.bincount(nearest, each, minlength=clusters)
    squares = np.bincount(nearest, each * distances.min(1, initial=np.inf) ** 2, minlength=clusters)
    size = np.bincount(nearest, minlength=clusters)
    radius = np.sqrt(np.divide(squares, total, out=np.zeros(clusters), where=total > 0))
    return [
        {"centroid_id": i + 1, "cluster_radius": float(radius[i]) if size[i] else None, "cluster_size": int(size[i])}
        for i in range(clusters)
    ]


def is_linear(subject: Subject) -> bool:
    """Whether there are weights to show."""
    return subject.task in (Task.CLASSIFICATION, Task.REGRESSION) and subject.has("coef", "intercept")
