"""A model as one ONNX file: from its columns, by name, to label and probabilities; or from the feature matrix to raw scores.

columns → codes and numbers → float32 matrix → the head's own graph → probabilities → label
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.bundles.head import Head
from sqlml.bundles.model import Model
from sqlml.errors import InternalError, NotSupportedError, listing
from sqlml.features.column_code import CODES, ColumnCode
from sqlml.types import UNMEASURED, Kind, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LARGEST = float(np.finfo(np.float32).max)
_KINDS = (Kind.NUMBER, Kind.BOOLEAN, Kind.TEXT)
_IR = 8
_ML = "ai.onnx.ml"
TOLERANCE = 1e-5


def check_onnx(model: Model) -> Head:
    """The head whose graph it is.  ``NotSupportedError`` where a model has none, or several."""
    if len(model.heads) != 1:
        targets = listing(head.target or "" for head in model.heads)
        what = (
            f"the model has several targets ({targets}), each with a graph of its own"
            if model.heads
            else f"the model {UNMEASURED[model.task]}"
        )
        raise NotSupportedError(what, hint="FORMAT bundle keeps it whole")
    return model.heads[0]


def why_matrix(model: Model) -> str | None:
    """Why the graph cannot begin with the model's own columns; None where it can."""
    if model.transform is not None:
        return "TRANSFORM is SQL, which ONNX has not"
    others = [f"{i.name} ({i.kind.value})" for i in model.inputs if i.kind not in _KINDS and _used(model, i.name)]
    return f"ONNX has no {listing(others)}" if others else None


def _used(model: Model, name: str) -> bool:
    return any(code.name == name and code.parts for head in model.heads for code in head.encoder.columns)


def matrix_graph(model: Model, head: Head) -> bytes:
    """The graph from the feature matrix on, as the bundle keeps it.  ``NotSupportedError`` where there is none."""
    if head.manifest.onnx:
        return (model.folder / head.manifest.onnx).read_bytes()
    graph = head.predictor.onnx()
    if graph is None:
        raise NotSupportedError(f"this {head.algorithm} has no ONNX graph", hint="FORMAT bundle keeps it whole")
    return graph


def columns_graph(model: Model, head: Head) -> bytes:
    """A graph whose inputs are the model's columns: double [n, 1], NaN for missing, booleans as 0 and 1; texts as strings [n, 1].

    A text that was not seen in training is missing, and so is the empty one unless it was.
    """
    import onnx
    from onnx import TensorProto, helper

    inner = onnx.load_from_string(matrix_graph(model, head))
    inner = onnx.compose.add_prefix(inner, "inner/")
    builder = _Builder()
    pieces: list[str] = []
    inputs = []
    kinds = {i.name: i.kind for i in model.inputs}
    for code in head.encoder.columns:
        is_text = kinds[code.name] is Kind.TEXT
        element = TensorProto.STRING if is_text else TensorProto.DOUBLE
        inputs.append(helper.make_tensor_value_info(code.name, element, [None, 1]))
        if code.parts:
            pieces += _features(builder, code, head.encoder.encoding)
    x = builder.node("Cast", builder.node("Concat", *pieces, axis=1), to=TensorProto.FLOAT)
    builder.add("Identity", [x], inner.graph.input[0].name)
    raw = inner.graph.output[0].name
    builder.nodes.extend(inner.graph.node)
    outputs = _outputs(builder, head, raw, inner.graph.output[0].type.tensor_type.elem_type)
    graph = helper.make_graph(builder.nodes, "model", inputs, outputs, [*builder.constants, *inner.graph.initializer])
    versions = {o.domain: o.version for o in inner.opset_import}
    versions = {
        "": max(versions.get("", 13), 13),
        **{d: v for d, v in versions.items() if d and d != _ML},
        _ML: max(versions.get(_ML, 3), 3),
    }
    opsets = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    result = helper.make_model(graph, opset_imports=opsets, ir_version=_IR, producer_name="sqlml")
    return bytes(result.SerializeToString(deterministic=True))


class _Builder:
    """Nodes and constants, each with a name of its own."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [output], name=f"step/{len(self.nodes)}", **attributes))
        return output

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        return self.add(operator, list(inputs), f"value/{len(self.nodes)}", **attributes)

    def constant(self, values: NDArray[Any]) -> str:
        from onnx import numpy_helper

        name = f"constant/{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def number(self, value: float) -> str:
        return self.constant(np.array(value, np.float64))


def _features(builder: _Builder, code: ColumnCode, encoding: str) -> list[str]:
    """The features of one column, each double [n, w]."""
    from onnx import TensorProto

    if code.kind is Kind.TEXT:
        found = builder.node(
            "LabelEncoder",
            code.name,
            domain=_ML,
            keys_strings=list(code.categories),
            values_floats=[float(i) for i in range(len(code.categories))],
            default_float=float("nan"),
        )
        value = builder.node("Cast", found, to=TensorProto.DOUBLE)
    elif code.kind is Kind.NUMBER:  # what is beyond 32 bits counts as their end
        value = builder.node("Clip", code.name, builder.number(-_LARGEST), builder.number(_LARGEST))
    else:
        value = code.name
    if encoding == CODES:
        return [value]
    absent = builder.node("IsNaN", value)
    flag = [builder.node("Cast", absent, to=TensorProto.DOUBLE)] if code.missing else []
    if code.kind is Kind.TEXT:
        places = builder.constant(np.arange(len(code.categories), dtype=np.float64)[None])
        return [builder.node("Cast", builder.node("Equal", value, places), to=TensorProto.DOUBLE), *flag]
    apart = builder.node("Sub", value, builder.number(code.means[0]))
    scaled = builder.node("Div", apart, builder.number(code.scales[0]))
    return [builder.node("Where", absent, builder.number(0.0), scaled), *flag]


def _outputs(builder: _Builder, head: Head, raw: str, element: int) -> list[Any]:
    """The answers under names of their own, and what each is."""
    from onnx import TensorProto, helper

    info = helper.make_tensor_value_info
    if head.task is Task.CLASSIFICATION:
        classes = np.array(head.classes)
        if classes.dtype.kind in "US":
            classes, kind = classes.astype(object), TensorProto.STRING
        else:
            kind = {"b": TensorProto.BOOL, "i": TensorProto.INT64}.get(classes.dtype.kind, TensorProto.DOUBLE)
        place = builder.node("ArgMax", raw, axis=1, keepdims=0)
        builder.add("Gather", [builder.constant(classes), place], "label")
        builder.add("Identity", [raw], "probabilities")
        return [info("label", kind, [None]), info("probabilities", element, [None, len(head.classes)])]
    if head.task is Task.CLUSTERING:
        place = builder.node("ArgMin", raw, axis=1, keepdims=0)
        builder.add("Add", [place, builder.constant(np.array(1, np.int64))], "centroid_id")
        builder.add("Identity", [raw], "distances")
        return [info("centroid_id", TensorProto.INT64, [None]), info("distances", element, [None, None])]
    if head.task is Task.REGRESSION:
        builder.add("Reshape", [raw, builder.constant(np.array([-1], np.int64))], "value")
        return [info("value", element, [None])]
    name = {Task.PROJECTION: "components", Task.ANOMALY: "score"}[head.task]
    builder.add("Identity", [raw], name)
    return [info(name, element, [None, None] if head.task is Task.PROJECTION else None)]


# --- checked ----------------------------------------------------------------------------------------------------------


def feeds(model: Model, rows: pa.Table) -> dict[str, NDArray[Any]]:
    """Rows as the graph of columns takes them."""
    found: dict[str, NDArray[Any]] = {}
    for i in model.inputs:
        values = rows[i.name].combine_chunks()
        if i.kind is Kind.TEXT:
            found[i.name] = np.array(pc.fill_null(values, "").to_pylist(), object)[:, None]
        else:
            plain = (
                pc.cast(values, pa.float64())
                if i.kind is not Kind.BOOLEAN
                else pc.cast(pc.cast(values, pa.uint8()), pa.float64())
            )
            found[i.name] = np.asarray(plain.to_numpy(zero_copy_only=False), np.float64)[:, None]
    return found


def difference(model: Model, graph: bytes, rows: pa.Table, *, columns: bool) -> float:
    """How far the graph's scores are from the model's on some rows, at most: relative, and absolute below 1."""
    from sqlml.algorithms.imported_onnx import open_session

    session = open_session(graph)
    given = feeds(model, rows) if columns else {session.get_inputs()[0].name: model.encode(rows)}
    given = {i.name: given[i.name] for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    found = dict(zip(names, session.run(None, given), strict=True))
    raw = np.asarray(model.raw(rows), np.float64)
    scores = np.asarray(found[names[-1]], np.float64).reshape(raw.shape)
    return float((np.abs(scores - raw) / np.maximum(1.0, np.abs(raw))).max(initial=0.0))


def check_difference(off: float, what: str) -> None:
    """``InternalError`` where an export does not compute what the model does."""
    if not off <= TOLERANCE:
        raise InternalError(
            f"the model as {what} differs from the model itself by {off:.2g}, so nothing was written",
            hint="FORMAT bundle keeps it exactly",
        )


def write_graph(graph: bytes, target: Path) -> None:
    """Write a graph."""
    target.write_bytes(graph)
