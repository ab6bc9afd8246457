"""A model that is ready to predict: a bundle read from its folder.

columns by name → canonical Arrow → feature matrix → predictor → labels, probabilities, reasons …
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.algorithms.metrics import Metrics, measure
from sqlml.bundles.manifest import NATIVE, ONNX, Manifest
from sqlml.contracts import Predictor
from sqlml.errors import BindError, listing
from sqlml.features.dataset import Values, canonical
from sqlml.features.encode import FeatureEncoder
from sqlml.features.target import encode_classes, label_type, nothing_to_measure, plain_target
from sqlml.registry import get_algorithm
from sqlml.types import SQL_TYPE, Kind, Task, label_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

Data: TypeAlias = pa.StructArray | pa.RecordBatch | pa.Table | Mapping[str, Values]
"""Rows to predict for, in any of these forms; columns are found by name, others ignored."""

PROB = pa.struct([("label", pa.string()), ("prob", pa.float64())])
REASON = pa.struct([("feature", pa.string()), ("value", pa.string()), ("contribution", pa.float64())])
DISTANCE = pa.struct([("centroid_id", pa.int64()), ("distance", pa.float64())])

_CHUNK = 16_384
"""Rows of which reasons are computed at a time: contributions take features x outputs numbers for each row."""


class Model:
    """A loaded bundle: immutable, safe to use from many threads.  Every method takes 0 rows as well."""

    def __init__(self, folder: Path, manifest: Manifest, predictor: Predictor) -> None:
        self.folder = folder
        self.manifest = manifest
        self.predictor = predictor
        self.encoder = FeatureEncoder.from_json(manifest.encoder)
        self.inputs = manifest.inputs
        self.task = manifest.task
        self.target = manifest.target
        self.classes = manifest.classes
        self.class_names = tuple(label_text(value) for value in manifest.classes)

    @classmethod
    def open(cls, folder: Path, sha256: str | None = None) -> Model:
        """Check every file of a bundle and load it.  ``BundleError`` names the file that is missing or damaged."""
        manifest = Manifest.read(folder, sha256)
        return cls(folder, manifest, get_algorithm(manifest.algorithm).load(folder / NATIVE))

    @property
    def onnx_path(self) -> Path | None:
        """The ONNX file (feature matrix → raw scores), where the converter was found exact."""
        return self.folder / ONNX if self.manifest.onnx else None

    @property
    def label_type(self) -> pa.DataType:
        """The Arrow type of ``predict``'s answers."""
        return {
            Task.CLASSIFICATION: label_type(self.classes),
            Task.REGRESSION: pa.float64(),
            Task.CLUSTERING: pa.int64(),
        }[self.task]

    # --- rows in ---

    def columns(self, data: Data) -> dict[str, Values]:
        """The inputs by name, in the Arrow types of their kinds.

        ``BindError`` names the inputs that are missing and the columns that are there, or the value that cannot be read.
        """
        given = _by_name(data)
        lowered = {name.lower(): name for name in given}
        names = {i.name: i.name if i.name in given else lowered.get(i.name.lower()) for i in self.inputs}
        missing = [name for name, found in names.items() if found is None]
        if missing:
            raise BindError(
                f"the model needs columns that are not there: {listing(missing)}", hint=f"there are: {listing(given) or 'none'}"
            )
        return {i.name: _cast(given[names[i.name] or ""], i.name, i.kind) for i in self.inputs}

    def encode(self, data: Data) -> NDArray[np.float32]:
        """The feature matrix of the rows: float32 (n, k)."""
        return self.encoder.transform(self.columns(data), _length(data))

    def raw(self, data: Data) -> NDArray[Any]:
        """Probabilities (n, classes), values (n,) or distances (n, clusters)."""
        return self.predictor.predict(self.encode(data))

    # --- answers out ---

    def labels(self, raw: NDArray[Any]) -> pa.Array:
        """From raw scores: the likeliest class in the target's own type; the value; the nearest centre, counted from 1."""
        if self.task is Task.REGRESSION:
            return pa.array(np.asarray(raw, np.float64))
        if self.task is Task.CLUSTERING:
            return pa.array(raw.argmin(1) + 1, pa.int64())
        return pa.array(self.classes, self.label_type).take(pa.array(raw.argmax(1)))

    def predict(self, data: Data) -> pa.Array:
        """The answer for each row, in ``label_type``."""
        return self.labels(self.raw(data))

    def probabilities(self, data: Data) -> NDArray[Any]:
        """(n, classes), in the order of ``classes``.  ``BindError`` for a model without classes."""
        self._need_classes("probabilities")
        return self.raw(data)

    def probs_map(self, raw: NDArray[Any]) -> pa.MapArray:
        """From raw scores: each row's map from class name to probability, in the order of ``classes``."""
        self._need_classes("probabilities")
        n, c = raw.shape
        names = pa.array(self.class_names, pa.string()).take(pa.array(np.tile(np.arange(c), n)))
        return pa.MapArray.from_arrays(_offsets(n, c), names, pa.array(np.asarray(raw, np.float64).ravel()))

    def probs_list(self, raw: NDArray[Any]) -> pa.ListArray:
        """From raw scores: each row's list of (label, prob), highest first."""
        self._need_classes("probabilities")
        order = np.argsort(-raw, axis=1, kind="stable")
        labels = pa.array(self.class_names, pa.string()).take(pa.array(order.ravel()))
        return _structs(PROB, raw.shape, labels, pa.array(np.take_along_axis(raw, order, 1).astype(np.float64).ravel()))

    def centroids_list(self, raw: NDArray[Any]) -> pa.ListArray:
        """From raw distances: each row's list of (centroid_id, distance), nearest first."""
        order = np.argsort(raw, axis=1, kind="stable")
        distances = np.take_along_axis(raw, order, 1)
        return _structs(DISTANCE, raw.shape, pa.array(order.ravel() + 1, pa.int64()), pa.array(distances.ravel()))

    @property
    def full_schema(self) -> pa.Schema:
        """The columns of ``full``: BigQuery's names."""
        if self.task is Task.CLUSTERING:
            return pa.schema([("centroid_id", pa.int64()), ("nearest_centroids_distance", pa.list_(DISTANCE))])
        fields = [(f"predicted_{self.target}", self.label_type)]
        if self.task is Task.CLASSIFICATION:
            fields.append((f"predicted_{self.target}_probs", pa.list_(PROB)))
        return pa.schema(fields)

    def full(self, data: Data) -> pa.RecordBatch:
        """Everything that PREDICT MODEL adds to a row."""
        raw = self.raw(data)
        arrays = [self.labels(raw)]
        if self.task is Task.CLASSIFICATION:
            arrays.append(self.probs_list(raw))
        elif self.task is Task.CLUSTERING:
            arrays.append(self.centroids_list(raw))
        return pa.RecordBatch.from_arrays(arrays, schema=self.full_schema)

    # --- why ---

    def contributions(self, data: Data) -> NDArray[np.float64]:
        """What each input adds to the row's raw score: (n, inputs + 1), the last column being the base value.

        The score is that of the second of two classes, of the predicted class among more, of the value, or of the nearest centre.
        """
        columns = self.columns(data)
        return self._contributions(self.encoder.transform(columns, _length(data)))

    def _contributions(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        values = self.predictor.contributions(x)
        if values.shape[1] > 1:
            raw = self.predictor.predict(x)
            chosen = raw.argmin(1) if self.task is Task.CLUSTERING else raw.argmax(1)
            values = values[np.arange(len(values)), chosen]
        else:
            values = values[:, 0]
        return np.column_stack([self.encoder.sum_to_inputs(values[:, :-1]), values[:, -1]])

    def reasons(self, data: Data, top: int) -> pa.ListArray:
        """Each row's ``top`` inputs that move its score most: a list of (feature, value, contribution), largest first."""
        columns = self.columns(data)
        n = _length(data)
        pieces = [
            self._reasons({name: values.slice(start, _CHUNK) for name, values in columns.items()}, min(_CHUNK, n - start), top)
            for start in range(0, n, _CHUNK)
        ]
        return pa.concat_arrays(pieces) if pieces else pa.array([], pa.list_(REASON))

    def _reasons(self, columns: Mapping[str, Values], n: int, top: int) -> pa.ListArray:
        values = self._contributions(self.encoder.transform(columns, n))[:, :-1]
        top = min(max(top, 0), len(self.inputs))
        order = np.argsort(-np.abs(values), axis=1, kind="stable")[:, :top]
        texts = pa.chunked_array([_texts(columns[i.name], i.kind) for i in self.inputs], pa.string()).combine_chunks()
        shown = texts.take(pa.array((order * n + np.arange(n)[:, None]).ravel()))
        names = pa.array([i.name for i in self.inputs], pa.string()).take(pa.array(order.ravel()))
        return _structs(REASON, (n, top), names, shown, pa.array(np.take_along_axis(values, order, 1).ravel()))

    def importance(self) -> list[tuple[str, float]]:
        """Every input with its share of the model's decisions, the most important first; shares sum to 1 (or are all 0)."""
        shares = self.encoder.sum_to_inputs(self.predictor.importance())
        return sorted(((i.name, float(share)) for i, share in zip(self.inputs, shares, strict=True)), key=lambda item: -item[1])

    # --- how good ---

    def evaluate(
        self, data: Data, actual: Values | None = None, weight: Values | None = None, threshold: float | None = None
    ) -> Metrics:
        """The task's figures on rows whose true target is known; rows without one, or of a class never seen, are left out.

        ``known_rows`` tells how many are not.  ``TrainingDataError`` where no row is left of those given.
        """
        x = self.encode(data)
        raw = self.predictor.predict(x)
        if self.task is Task.CLUSTERING:
            return measure(self.task, raw, x=x)
        if actual is None:
            raise BindError(f"the model is measured against the column {self.target}, which is not there")
        return self.evaluate_scores(raw, actual, weight, threshold)

    def evaluate_scores(
        self, raw: NDArray[Any], actual: Values, weight: Values | None = None, threshold: float | None = None
    ) -> Metrics:
        """The same from raw scores, as ``heldout.arrow`` keeps them."""
        truth = self._truth(actual)
        known = self._known(truth)
        if len(known) and not known.any():
            raise nothing_to_measure(self.target or "", actual, self.classes)
        weights = None if weight is None else np.asarray(weight.to_numpy(zero_copy_only=False), np.float64)[known]
        return measure(self.task, raw[known], truth[known], weights, threshold=threshold)

    def known_rows(self, actual: Values) -> int:
        """How many rows ``evaluate`` measures: those whose target is a class of the model, or a finite number."""
        return int(self._known(self._truth(actual)).sum())

    def _known(self, truth: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(truth >= 0 if self.task is Task.CLASSIFICATION else np.isfinite(truth))

    def _truth(self, actual: Values) -> NDArray[Any]:
        if self.task is Task.CLASSIFICATION:
            try:
                return encode_classes(actual, self.classes)
            except pa.ArrowNotImplementedError:
                raise BindError(f"{self.target} is a class; the column given is {actual.type}") from None
        plain = plain_target(actual)
        if plain is None or pa.types.is_string(plain.type):
            raise BindError(f"{self.target} is a number; the column given is {actual.type}")
        return np.asarray(pc.cast(plain, pa.float64()).to_numpy(zero_copy_only=False), np.float64)

    def _need_classes(self, what: str) -> None:
        if self.task is not Task.CLASSIFICATION:
            kind = {Task.REGRESSION: "a number", Task.CLUSTERING: "clusters"}.get(self.task)
            raise BindError(f"the model predicts {kind}: it has no {what}", hint="use PREDICT")


def _by_name(data: Data) -> Mapping[str, Values]:
    if isinstance(data, pa.StructArray):
        return dict(zip((f.name for f in data.type), data.flatten(), strict=True))
    if isinstance(data, pa.RecordBatch | pa.Table):
        return dict(zip(data.schema.names, data.columns, strict=True))
    return data


def _length(data: Data) -> int:
    if isinstance(data, pa.RecordBatch | pa.Table):
        return int(data.num_rows)
    if isinstance(data, pa.StructArray):
        return len(data)
    return len(next(iter(data.values()), ()))


def _cast(values: Values, name: str, kind: Kind) -> Values:
    try:
        return canonical(values, kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BindError(f"column {name} is {SQL_TYPE[kind]} to the model: {str(error).splitlines()[0]}") from error


def _offsets(n: int, width: int) -> pa.Array:
    return pa.array(np.arange(0, (n + 1) * width, width) if width else np.zeros(n + 1), pa.int32())


def _structs(kind: pa.StructType, shape: tuple[int, ...], *fields: pa.Array) -> pa.ListArray:
    """n lists of equally many structs."""
    n, width = shape
    return pa.ListArray.from_arrays(_offsets(n, width), pa.StructArray.from_arrays(list(fields), fields=list(kind)))


def _texts(values: Values, kind: Kind) -> pa.Array:
    """Canonical values as people write them: ``41``, ``2026-11-20 09:00:00``."""
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    texts = pc.cast(whole, pa.string())
    if kind in (Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ):
        return pc.replace_substring_regex(texts, r"\.000000(Z?)$", r"\1")
    return texts
