"""A model that is ready to predict: a bundle read from its folder.

columns by name → canonical Arrow → transform → each head: feature matrix → predictor → labels, probabilities, reasons …
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from sqlml.algorithms.metrics import Metrics
from sqlml.bundles.answers import ATTRIBUTION, REASON, structs, texts
from sqlml.bundles.head import Head
from sqlml.bundles.manifest import Manifest
from sqlml.contracts import FunctionSignature, Predictor
from sqlml.errors import BindError, listing
from sqlml.features.dataset import Values, canonical
from sqlml.features.encode import FeatureEncoder
from sqlml.features.transform import Transform
from sqlml.generation.generator import OUTPUT, Generator, Language
from sqlml.types import SQL_TYPE, Kind, Task, arrow_type, sql_type

if TYPE_CHECKING:
    from numpy.typing import NDArray

Data: TypeAlias = pa.StructArray | pa.RecordBatch | pa.Table | Mapping[str, Values]
"""Rows to predict for, in any of these forms; columns are found by name, others ignored."""

_CHUNK = 16_384
"""Rows of which reasons are computed at a time, at most."""
_NUMBERS = 1 << 24
"""Contributions of so many features x outputs x rows are computed at a time: 128 MiB."""


@dataclass(frozen=True)
class Features:
    """Some rows as the heads read them: canonical columns by name, and how many rows there are."""

    columns: Mapping[str, Values]
    n: int

    def slice(self, start: int, length: int) -> Features:
        """Some of the rows."""
        n = max(0, min(length, self.n - start))
        return Features({name: values.slice(start, n) for name, values in self.columns.items()}, n)


class Model:
    """A loaded bundle: immutable, safe to use from many threads.  Every method takes 0 rows as well."""

    def __init__(self, folder: Path, manifest: Manifest, heads: Sequence[Head]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.heads = tuple(heads)
        self.inputs = manifest.inputs
        self.transform = None if manifest.transform is None else Transform.from_json(manifest.transform)
        self.language = None if manifest.language is None else Language.from_json(manifest.language)
        if self.transform is None:
            self.features = tuple((i.name, i.kind) for i in self.inputs)
        else:
            self.features = tuple((c.name, c.kind) for c in self.transform.outputs)

    @classmethod
    def open(cls, folder: Path, sha256: str | None = None) -> Model:
        """Check every file of a bundle and load it.  ``BundleError`` names the file that is missing or damaged."""
        manifest = Manifest.read(folder, sha256)
        return cls(folder, manifest, [Head.load(head, folder) for head in manifest.heads])

    # --- what it is ---

    @property
    def head(self) -> Head:
        """The only head.  ``BindError`` for several targets, and for a model that only transforms."""
        if len(self.heads) == 1:
            return self.heads[0]
        if self.language is not None:
            raise BindError("the model writes texts: it predicts nothing else", hint="use PREDICT, or deploy it")
        if not self.heads:
            raise BindError("the model only transforms: it predicts nothing", hint="use PREDICT MODEL or ML.TRANSFORM")
        names = listing(head.target or "" for head in self.heads)
        raise BindError(f"the model has several targets ({names})", hint="PREDICT gives them all, as a struct")

    @property
    def task(self) -> Task:
        """What was learnt; of several targets that of the first."""
        if self.heads:
            return self.heads[0].task
        return Task.TRANSFORM if self.language is None else Task.GENERATION

    @cached_property
    def generator(self) -> Generator:
        """What writes texts.  ``BindError`` for any other model, ``MissingExtra`` where the package for tokenizers is missing."""
        if self.language is None:
            raise BindError(
                "the model is no language model", hint="IMPORT MODEL m FROM 'folder' makes one of ONNX and a tokenizer"
            )
        return Generator.load(self.folder, self.language)

    @property
    def target(self) -> str | None:
        return self.head.target

    @property
    def classes(self) -> tuple[Any, ...]:
        return self.head.classes

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.head.class_names

    @property
    def encoder(self) -> FeatureEncoder:
        return self.head.encoder

    @property
    def predictor(self) -> Predictor:
        return self.head.predictor

    @cached_property
    def label_type(self) -> pa.DataType:
        """The Arrow type of ``predict``'s answers: of several targets, and of a transform, a struct."""
        if len(self.heads) == 1:
            return self.head.label_type
        if self.language is not None:
            return pa.string()
        if self.heads:
            return pa.struct([(head.target or "", head.label_type) for head in self.heads])
        return pa.struct([(name, arrow_type(kind)) for name, kind in self.features])

    @cached_property
    def full_schema(self) -> pa.Schema:
        """The columns of ``full``: BigQuery's names."""
        if self.language is not None:
            return pa.schema([(OUTPUT, pa.string())])
        if not self.heads:
            return pa.schema([(name, arrow_type(kind)) for name, kind in self.features])
        return pa.schema([field for head in self.heads for field in head.added])

    @property
    def signature(self) -> FunctionSignature:
        """What its functions take and give."""
        columns = tuple((i.name, i.kind) for i in self.inputs)
        added = tuple((field.name, sql_type(field.type)) for field in self.full_schema)
        return FunctionSignature(columns, sql_type(self.label_type), added)

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

    def prepare(self, data: Data) -> Features:
        """The rows as the heads read them: the inputs, or what TRANSFORM makes of them."""
        columns, n = self.columns(data), _length(data)
        return Features(columns if self.transform is None else self.transform.apply(columns, n), n)

    def encode(self, data: Data) -> NDArray[np.float32]:
        """The feature matrix of the rows: float32 (n, k)."""
        rows = self.prepare(data)
        return self.head.encode(rows.columns, rows.n)

    def raw(self, data: Data) -> NDArray[Any]:
        """Raw scores of the only head: probabilities (n, classes), values (n,), distances (n, clusters) …"""
        return self.predictor.predict(self.encode(data))

    # --- answers out ---

    def labels(self, raw: NDArray[Any]) -> pa.Array:
        """From raw scores of the only head: its answers."""
        return self.head.labels(raw)

    def predict(self, data: Data) -> pa.Array:
        """The answer for each row, in ``label_type``."""
        rows = self.prepare(data)
        if self.language is not None:
            return self._texts(rows)
        if len(self.heads) == 1:
            return self.head.labels(self.head.raw(rows.columns, rows.n))
        if self.heads:
            arrays = [head.labels(head.raw(rows.columns, rows.n)) for head in self.heads]
        else:
            arrays = [_whole(rows.columns[name]) for name, _ in self.features]
        return pa.StructArray.from_arrays(arrays, fields=list(self.label_type))

    def probabilities(self, data: Data) -> NDArray[Any]:
        """(n, classes), in the order of ``classes``.  ``BindError`` for a model without classes."""
        self.head.need_classes("probabilities")
        return self.raw(data)

    def probs_map(self, raw: NDArray[Any]) -> pa.MapArray:
        """From raw scores: each row's map from class name to probability, in the order of ``classes``."""
        return self.head.probs_map(raw)

    def full(self, data: Data) -> pa.RecordBatch:
        """Everything that PREDICT MODEL adds to a row."""
        rows = self.prepare(data)
        if self.language is not None:
            arrays = [self._texts(rows)]
        elif self.heads:
            arrays = [array for head in self.heads for array in head.add(head.raw(rows.columns, rows.n))]
        else:
            arrays = [_whole(rows.columns[name]) for name, _ in self.features]
        return pa.RecordBatch.from_arrays(arrays, schema=self.full_schema)

    def _texts(self, rows: Features) -> pa.Array:
        """The likeliest text behind each prompt; NULL behind NULL."""
        prompts = rows.columns[self.inputs[0].name].to_pylist()
        return pa.array([None if prompt is None else self.generator.complete(prompt) for prompt in prompts], pa.string())

    # --- why ---

    def contributions(self, data: Data) -> NDArray[np.float64]:
        """What each feature column adds to the row's raw score: (n, columns + 1), as ``Head.contributions``."""
        return self.head.contributions(self.encode(data))

    def reasons(self, data: Data, top: int) -> pa.ListArray:
        """Each row's ``top`` features that move its score most: a list of (feature, value, contribution), largest first."""
        rows = self.prepare(data)
        pieces = [self._reasons(piece, top) for piece in self._pieces(rows)]
        return pa.concat_arrays(pieces) if pieces else pa.array([], pa.list_(REASON))

    def _pieces(self, rows: Features) -> Iterator[Features]:
        step = max(1, min(_CHUNK, _NUMBERS // (len(self.encoder.names) + 1) // max(1, len(self.classes))))
        return (rows.slice(start, step) for start in range(0, rows.n, step))

    def _reasons(self, rows: Features, top: int) -> pa.ListArray:
        values = self.head.contributions(self.head.encode(rows.columns, rows.n))[:, :-1]
        order = _largest(values, top)
        kinds = dict(self.features)
        shown = pa.chunked_array([texts(rows.columns[name], kinds[name]) for name in self.encoder.inputs], pa.string())
        picked = shown.combine_chunks().take(pa.array((order * rows.n + np.arange(rows.n)[:, None]).ravel()))
        return structs(REASON, order.shape, self._names(order), picked, _picked(values, order))

    def explain_schema(self) -> pa.Schema:
        """The columns of ``explain``: those that BigQuery's ML.EXPLAIN_PREDICT adds."""
        head = self.head
        fields = [head.added.field(0)]
        fields += [pa.field("probability", pa.float64())] if head.classes else []
        fields += [pa.field("top_feature_attributions", pa.list_(ATTRIBUTION))]
        names = ("baseline_prediction_value", "prediction_value", "approximation_error")
        return pa.schema([*fields, *(pa.field(name, pa.float64()) for name in names)])

    def explain(self, data: Data, top: int) -> pa.RecordBatch:
        """Each row's answer with the ``top`` attributions, the baseline and the score that they lead to.

        Values are raw scores (see ``Head.contributions``); they add up exactly, so the approximation error is 0.
        """
        rows = self.prepare(data)
        pieces = [self._explain(piece, top) for piece in self._pieces(rows)]
        if not pieces:
            return pa.RecordBatch.from_pylist([], schema=self.explain_schema())
        table = pa.Table.from_batches(pieces).combine_chunks()
        return table.to_batches()[0]

    def _explain(self, rows: Features, top: int) -> pa.RecordBatch:
        x = self.head.encode(rows.columns, rows.n)
        raw = self.predictor.predict(x)
        values = self.head.contributions(x)
        order = _largest(values[:, :-1], top)
        attributions = structs(ATTRIBUTION, order.shape, self._names(order), _picked(values, order))
        arrays = [self.head.labels(raw)]
        arrays += [pa.array(np.asarray(raw.max(1), np.float64))] if self.head.classes else []
        arrays += [attributions, pa.array(values[:, -1]), pa.array(values.sum(1)), pa.array(np.zeros(rows.n))]
        return pa.RecordBatch.from_arrays(arrays, schema=self.explain_schema())

    def _names(self, order: NDArray[np.intp]) -> pa.Array:
        return pa.array(self.encoder.inputs, pa.string()).take(pa.array(order.ravel()))

    def importance(self) -> list[tuple[str, float]]:
        """Every feature column with its share of the model's decisions, the most important first."""
        return self.head.importance()

    # --- how good ---

    def evaluate(
        self, data: Data, actual: Values | None = None, weight: Values | None = None, threshold: float | None = None
    ) -> Metrics:
        """The only head's figures on rows whose true target is known, as ``Head.evaluate``."""
        x = self.encode(data)
        return self.head.evaluate(self.predictor.predict(x), actual, weight, threshold, x)


def _largest(values: NDArray[np.float64], top: int) -> NDArray[np.intp]:
    """(n, top): the columns of the values furthest from 0, first the furthest."""
    top = min(max(top, 0), values.shape[1])
    return np.argsort(-np.abs(values), axis=1, kind="stable")[:, :top]


def _picked(values: NDArray[np.float64], order: NDArray[np.intp]) -> pa.Array:
    return pa.array(np.take_along_axis(values, order, 1).ravel())


def _whole(values: Values) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


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
