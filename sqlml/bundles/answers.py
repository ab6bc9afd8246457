"""What a model answers to rows, output by output, and the Arrow forms of answers that are more than one value a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.contracts import RowModel
from sqlml.errors import InternalError
from sqlml.features.dataset import Values
from sqlml.types import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

REASON = pa.struct([("feature", pa.string()), ("value", pa.string()), ("contribution", pa.float64())])
DISTANCE = pa.struct([("centroid_id", pa.int64()), ("distance", pa.float64())])
ATTRIBUTION = pa.struct([("feature", pa.string()), ("attribution", pa.float64())])

_SHOWN = 3
"""So many values of a list are shown."""


def answer(model: RowModel, output: str, rows: pa.StructArray) -> pa.Array:
    """One output of ``contracts.Target`` (``predict``, ``proba:1``, ``full`` …) for each of the rows."""
    what, _, argument = output.partition(":")
    match what:
        case "predict":
            return model.predict(rows)
        case "probs":
            return model.probs_map(model.raw(rows))
        case "proba":
            return pa.array(model.raw(rows)[:, int(argument)], pa.float64())
        case "reasons":
            return model.reasons(rows, int(argument))
        case "explain":
            return model.explain(rows, int(argument)).to_struct_array()
        case "full":
            return model.full(rows).to_struct_array()
    raise InternalError(f"no model has the output {output}")


def prob_type(label: pa.DataType) -> pa.StructType:
    """``STRUCT(label, prob)``"""
    return pa.struct([("label", label), ("prob", pa.float64())])


def map_array(names: Sequence[str], values: NDArray[Any]) -> pa.MapArray:
    """(n, names) → each row's map from name to value."""
    n, width = values.shape
    keys = pa.array(names, pa.string()).take(pa.array(np.tile(np.arange(width), n)))
    return pa.MapArray.from_arrays(_offsets(n, width), keys, pa.array(np.asarray(values, np.float64).ravel()))


def structs(kind: pa.StructType, shape: tuple[int, ...], *fields: pa.Array) -> pa.ListArray:
    """n lists of equally many structs, from their fields row by row."""
    n, width = shape
    return pa.ListArray.from_arrays(_offsets(n, width), pa.StructArray.from_arrays(list(fields), fields=list(kind)))


def texts(values: Values, kind: Kind) -> pa.Array:
    """Canonical values as people write them: ``41``, ``2026-11-20 09:00:00``, ``[0.1, 0.2, 0.3, …]``."""
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if kind in (Kind.NUMBERS, Kind.TEXTS):
        return _list_texts(whole)
    written = pc.cast(whole, pa.string())
    if kind in (Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ):
        return pc.replace_substring_regex(written, r"\.000000(Z?)$", r"\1")
    return written


def _list_texts(lists: pa.Array) -> pa.Array:
    first = pc.list_slice(lists, 0, _SHOWN)
    offsets = first.offsets if len(first) else pa.array([0], pa.int32())
    items = pa.ListArray.from_arrays(offsets, pc.cast(first.values, pa.string()))
    joined = pc.binary_join(pa.ListArray.from_arrays(items.offsets, pc.fill_null(items.values, "NULL")), ", ")
    more = pc.greater(pc.fill_null(pc.list_value_length(lists), 0), _SHOWN)
    whole = pc.binary_join_element_wise("[", joined, pc.if_else(more, ", …]", "]"), "")
    return pc.if_else(pc.is_null(lists), pa.scalar(None, pa.string()), whole)


def _offsets(n: int, width: int) -> pa.Array:
    return pa.array(np.arange(0, (n + 1) * width, width) if width else np.zeros(n + 1), pa.int32())
