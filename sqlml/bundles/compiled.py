"""Models that DuckDB can call without Python: trees, and linear functions, over plain columns, in a slot of a function of C."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sqlml.algorithms.linear import LinearPredictor
from sqlml.algorithms.xgboost import TreePredictor
from sqlml.bundles.head import Head
from sqlml.bundles.model import Model
from sqlml.contracts import RowModel
from sqlml.features.column_code import CODES, DENSE
from sqlml.native.duckdb_function import LINEAR, TREES, LinearFunctions, SlotInput, slot_of_linear, slot_of_trees
from sqlml.native.trees import LOGISTIC, SOFTMAX
from sqlml.types import Kind, Task

_FORMS = {
    Kind.NUMBER: "number",
    Kind.BOOLEAN: "number",
    Kind.TEXT: "text",
    Kind.DATE: "date",
    Kind.TIME: "time",
    Kind.TIMESTAMP: "timestamp",
    Kind.TIMESTAMPTZ: "timestamp",
}


@dataclass(frozen=True)
class Compiled:
    """A slot of a function; ``inputs`` by name in the order of its columns, with their kinds and whether the model looks at them.

    ``target`` is the target's name, ``classes`` are plain values, none for a number.
    """

    function: str
    slot: int
    inputs: tuple[tuple[str, Kind, bool], ...]
    target: str
    classes: tuple[Any, ...]


def compiled(model: RowModel) -> Compiled | None:
    """A model as a slot; None where it is anything else than trees or linear functions over plain columns."""
    if not isinstance(model, Model) or model.transform is not None or model.language is not None or len(model.heads) != 1:
        return None
    head = model.head
    if head.task not in (Task.CLASSIFICATION, Task.REGRESSION) or head.target is None:
        return None
    if any(column.kind not in _FORMS for column in head.encoder.columns):
        return None
    found: tuple[str, int | None, list[bool]] | None = None
    if isinstance(head.predictor, TreePredictor) and head.encoder.encoding == CODES:
        found = _trees(head, head.predictor)
    elif isinstance(head.predictor, LinearPredictor) and head.encoder.encoding == DENSE:
        found = _linear(head, head.predictor)
    if found is None:
        return None
    function, slot, used = found
    if slot is None:
        return None
    named = tuple((column.name, column.kind, own) for column, own in zip(head.encoder.columns, used, strict=True))
    return Compiled(function, slot, named, head.target, tuple(head.class_values))


def _trees(head: Head, predictor: TreePredictor) -> tuple[str, int | None, list[bool]] | None:
    kernel = predictor.kernel
    if kernel is None or kernel.trees.features != len(head.encoder.names):
        return None
    used = [bool(kernel.trees.used[head.encoder.input_of == i].any()) for i in range(len(head.encoder.columns))]
    return TREES, slot_of_trees(kernel.trees, kernel.link, _inputs(head, used)), used


def _linear(head: Head, predictor: LinearPredictor) -> tuple[str, int | None, list[bool]] | None:
    own, encoder = predictor.parameters(), head.encoder
    weight = own["coef"]
    if weight.shape[1] != len(encoder.names):
        return None
    used = [bool(weight[:, encoder.input_of == i].any()) for i in range(len(encoder.columns))]
    mean, inverse = np.zeros(weight.shape[1]), np.ones(weight.shape[1])
    feature, flag = np.zeros(len(used), np.int32), np.full(len(used), -1, np.int32)
    for i, column in enumerate(encoder.columns):
        places = np.flatnonzero(encoder.input_of == i)
        if not len(places):
            continue
        feature[i] = places[0]
        flag[i] = places[-1] if column.missing else -1
        if column.kind is not Kind.TEXT:
            numbers = slice(places[0], places[0] + len(column.parts))
            mean[numbers], inverse[numbers] = column.means, 1.0 / np.array(column.scales)
    link = 0 if predictor.is_regression else LOGISTIC if len(weight) == 1 else SOFTMAX
    functions = LinearFunctions(weight, own["intercept"], mean, inverse, feature, flag)
    return LINEAR, slot_of_linear(functions, link, _inputs(head, used)), used


def _inputs(head: Head, used: list[bool]) -> list[SlotInput]:
    columns = zip(head.encoder.columns, used, strict=True)
    return [SlotInput(_FORMS[column.kind], column.parts, column.categories, own) for column, own in columns]
