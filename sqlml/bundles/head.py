"""One thing that a version learnt: features → predictor → labels, probabilities, contributions, figures.

Most models have one head; of several targets each has its own, with its own encoder and predictor.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.algorithms.metrics import Metrics, measure
from sqlml.bundles.answers import DISTANCE, map_array, prob_type, structs
from sqlml.bundles.manifest import HeadManifest
from sqlml.contracts import Predictor
from sqlml.errors import BindError
from sqlml.features.dataset import Values
from sqlml.features.encode import FeatureEncoder
from sqlml.features.target import encode_classes, label_type, nothing_to_measure, plain_target
from sqlml.registry import get_algorithm
from sqlml.types import Kind, Task, label_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WHAT = {
    Task.REGRESSION: "a number",
    Task.CLUSTERING: "clusters",
    Task.PROJECTION: "components",
    Task.ANOMALY: "whether a row is an anomaly",
    Task.TRANSFORM: "nothing: it transforms",
}


class Head:
    """A fitted predictor with its encoder: immutable, safe to use from many threads.

    ``features`` are always the canonical columns that the encoder reads, by name, and ``n`` the number of rows.
    """

    def __init__(self, manifest: HeadManifest, predictor: Predictor) -> None:
        self.manifest = manifest
        self.predictor = predictor
        self.encoder = FeatureEncoder.from_json(manifest.encoder)
        self.algorithm = manifest.algorithm
        self.task = manifest.task
        self.target = manifest.target.name if manifest.target else None
        self.classes = manifest.target.classes if manifest.target else ()
        self.class_names = tuple(label_text(value) for value in self.classes)

    @classmethod
    def load(cls, manifest: HeadManifest, folder: Path) -> Head:
        """Read the library's own format from the bundle's folder."""
        return cls(manifest, get_algorithm(manifest.algorithm).load(folder / manifest.native))

    @cached_property
    def label_type(self) -> pa.DataType:
        """The Arrow type of one answer."""
        return {
            Task.REGRESSION: pa.float64(),
            Task.CLUSTERING: pa.int64(),
            Task.PROJECTION: pa.list_(pa.float64()),
            Task.ANOMALY: pa.bool_(),
        }.get(self.task) or label_type(self.classes)

    @property
    def explains(self) -> bool:
        """Whether it has contributions and importance."""
        return get_algorithm(self.algorithm).explains

    def encode(self, features: Mapping[str, Values], n: int) -> NDArray[np.float32]:
        """The feature matrix: float32 (n, k)."""
        return self.encoder.transform(features, n)

    def raw(self, features: Mapping[str, Values], n: int) -> NDArray[Any]:
        """What ``Predictor.predict`` gives: probabilities (n, classes), values (n,), distances, components or scores."""
        return self.predictor.predict(self.encode(features, n))

    # --- answers ---

    def labels(self, raw: NDArray[Any]) -> pa.Array:
        """From raw scores: the likeliest class in the target's own type; the value; the nearest centre, counted from 1; the
        components as a list; whether the score is above the threshold.
        """
        if self.task is Task.REGRESSION:
            return pa.array(np.asarray(raw, np.float64))
        if self.task is Task.CLUSTERING:
            return pa.array(raw.argmin(1) + 1, pa.int64())
        if self.task is Task.PROJECTION:
            flat = pa.array(np.ascontiguousarray(raw, np.float64).ravel())
            offsets = pa.array(np.arange(len(raw) + 1) * raw.shape[1], pa.int32())
            return pa.ListArray.from_arrays(offsets, flat)
        if self.task is Task.ANOMALY:
            return pa.array(raw > self.threshold)
        return self._class_array.take(pa.array(raw.argmax(1)))

    @cached_property
    def _class_array(self) -> pa.Array:
        return pa.array(self.classes, self.label_type)

    @cached_property
    def class_values(self) -> list[Any]:
        """The classes as plain values of the target's own type."""
        kinds = ((str, pa.types.is_string), (bool, pa.types.is_boolean), (int, pa.types.is_integer))
        plain = next((kind for kind, is_of in kinds if is_of(self.label_type)), None)
        if all(type(value) is plain for value in self.classes):
            return list(self.classes)  # an array of them would import pandas, where it is installed, for nothing
        return list(self._class_array.to_pylist())

    @cached_property
    def threshold(self) -> float:
        """The anomaly score above which a row is an anomaly."""
        return float(self.predictor.parameters()["threshold"][0])

    def probs_map(self, raw: NDArray[Any]) -> pa.MapArray:
        """From raw scores: each row's map from class name to probability, in the order of ``classes``."""
        self.need_classes("probabilities")
        return map_array(self.class_names, raw)

    def probs_list(self, raw: NDArray[Any]) -> pa.ListArray:
        """From raw scores: each row's list of (label, prob), highest first."""
        self.need_classes("probabilities")
        order = np.argsort(-raw, axis=1, kind="stable")
        labels = self._class_array.take(pa.array(order.ravel()))
        probs = pa.array(np.take_along_axis(raw, order, 1).astype(np.float64).ravel())
        return structs(prob_type(self.label_type), raw.shape, labels, probs)

    def centroids_list(self, raw: NDArray[Any]) -> pa.ListArray:
        """From raw distances: each row's list of (centroid_id, distance), nearest first."""
        order = np.argsort(raw, axis=1, kind="stable")
        distances = np.take_along_axis(raw, order, 1)
        return structs(DISTANCE, raw.shape, pa.array(order.ravel() + 1, pa.int64()), pa.array(distances.ravel()))

    @cached_property
    def added(self) -> pa.Schema:
        """The columns that PREDICT MODEL adds for it: BigQuery's names."""
        if self.task is Task.CLUSTERING:
            return pa.schema([("centroid_id", pa.int64()), ("nearest_centroids_distance", pa.list_(DISTANCE))])
        if self.task is Task.PROJECTION:
            return pa.schema([(f"principal_component_{i + 1}", pa.float64()) for i in range(self._components)])
        if self.task is Task.ANOMALY:
            return pa.schema([("is_anomaly", pa.bool_()), ("anomaly_score", pa.float64())])
        fields = [(f"predicted_{self.target}", self.label_type)]
        if self.task is Task.CLASSIFICATION:
            fields.append((f"predicted_{self.target}_probs", pa.list_(prob_type(self.label_type))))
        return pa.schema(fields)

    @cached_property
    def _components(self) -> int:
        return len(self.predictor.parameters()["components"])

    def add(self, raw: NDArray[Any]) -> list[pa.Array]:
        """The arrays of ``added``."""
        if self.task is Task.CLASSIFICATION:
            return [self.labels(raw), self.probs_list(raw)]
        if self.task is Task.CLUSTERING:
            return [self.labels(raw), self.centroids_list(raw)]
        if self.task is Task.PROJECTION:
            return [pa.array(np.asarray(raw[:, i], np.float64)) for i in range(self._components)]
        if self.task is Task.ANOMALY:
            return [self.labels(raw), pa.array(np.asarray(raw, np.float64))]
        return [self.labels(raw)]

    # --- why ---

    def contributions(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """What each of the encoder's inputs adds to the row's raw score: (n, inputs + 1), the last column being the base value.

        The score is that of the second of two classes, of the predicted class among more, of the value, or of the nearest centre.
        """
        values = self.predictor.contributions(x)
        if values.shape[1] > 1:
            raw = self.predictor.predict(x)
            chosen = raw.argmin(1) if self.task is Task.CLUSTERING else raw.argmax(1)
            values = values[np.arange(len(values)), chosen]
        else:
            values = values[:, 0]
        return np.column_stack([self.encoder.sum_to_inputs(values[:, :-1]), values[:, -1]])

    def importance(self) -> list[tuple[str, float]]:
        """Every input of the encoder with its share of the decisions, largest first; shares sum to 1 (or are all 0).

        A vector's positions stand for themselves: a bag of words says which words matter.
        """
        shares = self.predictor.importance()
        named: list[tuple[str, float]] = []
        for i, column in enumerate(self.encoder.columns):
            own = np.flatnonzero(self.encoder.input_of == i)
            if column.kind in (Kind.NUMBERS, Kind.TEXTS):
                named += [(self.encoder.names[j], float(shares[j])) for j in own]
            else:
                named.append((column.name, float(shares[own].sum())))
        return sorted(named, key=lambda item: -item[1])

    # --- how good ---

    def evaluate(
        self,
        raw: NDArray[Any],
        actual: Values | None = None,
        weight: Values | None = None,
        threshold: float | None = None,
        x: NDArray[np.float32] | None = None,
    ) -> Metrics:
        """The task's figures for raw scores; rows without a true target, or of a class never seen, are left out.

        ``x`` is the feature matrix, for tasks without a target.  ``TrainingDataError`` where no row is left of those given.
        """
        if self.target is None:
            return measure(self.task, raw, x=x, parameters=self.predictor.parameters())
        if actual is None:
            raise BindError(f"the model is measured against the column {self.target}, which is not there")
        truth = self.truth(actual)
        known = self.known(truth)
        if len(known) and not known.any():
            raise nothing_to_measure(self.target, actual, self.classes)
        weights = None if weight is None else np.asarray(weight.to_numpy(zero_copy_only=False), np.float64)[known]
        return measure(self.task, raw[known], truth[known], weights, threshold=threshold)

    def known(self, truth: NDArray[Any]) -> NDArray[np.bool_]:
        """Which rows can be measured: those whose target is a class of the model, or a finite number."""
        return np.asarray(truth >= 0 if self.task is Task.CLASSIFICATION else np.isfinite(truth))

    def truth(self, actual: Values) -> NDArray[Any]:
        """The true targets as the algorithm has them: class codes (-1: unknown) or float64."""
        if self.task is Task.CLASSIFICATION:
            try:
                return encode_classes(actual, self.classes)
            except pa.ArrowNotImplementedError:
                raise BindError(f"{self.target} is a class; the column given is {actual.type}") from None
        plain = plain_target(actual)
        if plain is None or pa.types.is_string(plain.type):
            raise BindError(f"{self.target} is a number; the column given is {actual.type}")
        return np.asarray(pc.cast(plain, pa.float64()).to_numpy(zero_copy_only=False), np.float64)

    def need_classes(self, what: str) -> None:
        """``BindError`` unless it tells classes apart."""
        if self.task is not Task.CLASSIFICATION:
            raise BindError(f"the model predicts {_WHAT[self.task]}: it has no {what}", hint="use PREDICT")
