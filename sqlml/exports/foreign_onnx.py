"""ONNX files of any tool as bundles: which inputs there are, and which output is the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sqlml.algorithms.imported_onnx import TYPES, OnnxPredictor, Ports, open_session
from sqlml.errors import BindError, BundleError, NotSupportedError, listing
from sqlml.exports.blame import about
from sqlml.exports.bundle import Card
from sqlml.exports.foreign import Wishes, number_code, write_foreign
from sqlml.registry import get_algorithm
from sqlml.types import Task

_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
_FLOATS = ("tensor(float)", "tensor(double)", "tensor(float16)")
_LABELS = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")


def read_onnx(path: Path, folder: Path, wishes: Wishes) -> Card:
    """Write a bundle of an ONNX file.  ``BundleError`` for a damaged file, ``NotSupportedError`` for what cannot be used."""
    graph = path.read_bytes()
    labels = check_graph(path, graph)
    session = open_session(graph)
    names, ports = _inputs(path, session, wishes)
    ports, classes = _answer(path, session, ports, len(names), labels, wishes)
    algorithm = get_algorithm("onnx_classifier" if classes else "onnx_regressor")
    codes = [number_code(name) for name in names]
    return write_foreign(folder, algorithm, OnnxPredictor(graph, ports), codes, classes, wishes, path.name)


# --- what is in it ----------------------------------------------------------------------------------------------------


def check_graph(path: Path, graph: bytes) -> list[Any]:
    """Refuse what reaches outside the file; the labels that its classifiers name."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_from_string(graph)
    except (DecodeError, ValueError, RuntimeError) as error:
        raise BundleError(f"{path} is no ONNX file, or damaged", hint="export the model again") from error
    if not model.graph.node or not model.graph.output:
        raise BundleError(f"{path} is no ONNX file, or an empty one", hint="export the model again")
    own = sorted({o.domain for o in model.opset_import} | {n.domain for n in _nodes(model.graph)})
    foreign = [domain for domain in own if domain not in _DOMAINS]
    if foreign:
        raise NotSupportedError(
            f"{path} uses operators of {listing(foreign)}, which only the tool that wrote it can run",
            hint="export it with the standard operators alone",
        )
    outside = onnx.TensorProto.EXTERNAL
    if any(t.data_location == outside or t.external_data for t in _tensors(model.graph)):
        raise NotSupportedError(
            f"{path} keeps its numbers in other files", hint="save it as one file (onnx.save with no external data)"
        )
    return _class_labels(model.graph)


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _nodes(inner)


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from ([attribute.t] if attribute.HasField("t") else []) + list(attribute.tensors)
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _tensors(inner)


def _class_labels(graph: Any) -> list[Any]:
    for node in _nodes(graph):
        for attribute in node.attribute:
            if attribute.name in _LABELS and (attribute.strings or attribute.ints):
                return [text.decode("utf-8") for text in attribute.strings] or list(attribute.ints)
    return []


# --- inputs -----------------------------------------------------------------------------------------------------------


def _inputs(path: Path, session: Any, wishes: Wishes) -> tuple[tuple[str, ...], Ports]:
    given = session.get_inputs()
    strange = [f"{i.name} ({i.type})" for i in given if i.type not in TYPES]
    if strange or not given:
        raise NotSupportedError(
            f"{path} takes {listing(strange) or 'nothing'}, and only numbers can be given to an imported ONNX model",
            hint="export the part behind the encoding of texts, or import it as a bundle",
        )
    typed = tuple((i.name, TYPES[i.type]) for i in given)
    ranks = {len(i.shape) for i in given}
    widths = [i.shape[-1] if len(i.shape) == 2 else 1 for i in given]
    if len(given) == 1 and ranks == {2}:
        width = widths[0] if isinstance(widths[0], int) and widths[0] > 0 else None
        if width is None and wishes.inputs is None:
            raise BindError(
                f"{path} takes a matrix and does not say how wide it is",
                hint="name its columns: WITH (inputs = ['age', 'balance'])",
            )
        count = width or len(wishes.inputs or ())
        found = [given[0].name] if count == 1 else None
        return wishes.names(found, count), Ports(typed, 2, "", "")
    if len(ranks) > 1 or not ranks <= {1, 2} or any(isinstance(w, int) and w != 1 for w in widths):
        shapes = listing(f"{i.name} {i.shape}" for i in given)
        raise NotSupportedError(
            f"{path} takes {shapes}", hint="one matrix (rows, features), or one column (rows, 1) for each input"
        )
    return wishes.names([name for name, _ in typed], len(typed)), Ports(typed, ranks.pop(), "", "")


# --- the answer -------------------------------------------------------------------------------------------------------


def _answer(
    path: Path, session: Any, ports: Ports, k: int, labels: Sequence[Any], wishes: Wishes
) -> tuple[Ports, tuple[Any, ...]]:
    """Which output is the answer, found by asking for one of a row of zeros; and the classes, empty for a number."""
    outputs = session.get_outputs()
    maps = [o for o in outputs if o.type.startswith("seq(map(")]
    scores = [o for o in outputs if o.type in _FLOATS]
    has_label = any(o.type in ("tensor(int64)", "tensor(string)") for o in outputs)
    if maps:
        return _maps(session, replace(ports, output=maps[0].name, answer="maps"), k, wishes)
    if len(scores) > 1:
        named = [o for o in scores if "prob" in o.name.lower()] or scores[:0]
        if len(named) != 1:
            raise NotSupportedError(
                f"{path} gives several outputs of numbers: {listing(o.name for o in scores)}", hint="keep one of them"
            )
        scores = named
    if not scores:
        hint = "export it with probabilities" if has_label else None
        raise NotSupportedError(
            f"{path} gives {listing(f'{o.name} ({o.type})' for o in outputs)}: no probabilities, no value", hint=hint
        )
    tried = replace(ports, output=scores[0].name, answer="probabilities", classes=1)
    width = int(_ask(path, session, tried, k).shape[1])
    is_classes = has_label or wishes.task == Task.CLASSIFICATION.value or wishes.classes is not None or width > 1
    if wishes.task == Task.REGRESSION.value or not is_classes:
        return _value(path, tried, width, wishes)
    if width > 1 and not has_label and wishes.classes is None and wishes.task is None:
        raise BindError(
            f"{path} gives {width} numbers for each row and does not say what they are",
            hint=f"WITH (classes = ['…', '…']): the names of the {width} classes, in order",
        )
    classes = wishes.labels(labels if len(labels) == max(2, width) else None, max(2, width))
    return replace(tried, answer="second" if width == 1 else "probabilities", classes=len(classes)), classes


def _value(path: Path, ports: Ports, width: int, wishes: Wishes) -> tuple[Ports, tuple[Any, ...]]:
    if width != 1:
        raise NotSupportedError(
            f"{path} gives {width} numbers for each row", hint="a model of one value, or of classes, can be imported"
        )
    if wishes.classes is not None:
        raise about("classes", BindError("a regression has no classes", hint="leave the option classes out, or the option task"))
    return replace(ports, answer="values", classes=0), ()


def _maps(session: Any, ports: Ports, k: int, wishes: Wishes) -> tuple[Ports, tuple[Any, ...]]:
    """Sequences of maps, as skl2onnx's ZipMap writes them: the keys are the classes."""
    from sqlml.algorithms.imported_onnx import feeds_of

    [rows] = session.run([ports.output], feeds_of(ports, np.zeros((1, k), np.float32)))
    keys = tuple(sorted(rows[0]))
    return replace(ports, keys=keys, classes=len(keys)), wishes.labels(keys, len(keys))


def _ask(path: Path, session: Any, ports: Ports, k: int) -> Any:
    from sqlml.algorithms.imported_onnx import feeds_of

    try:
        [found] = session.run([ports.output], feeds_of(ports, np.zeros((2, k), np.float32)))
    except Exception as error:  # onnxruntime's errors have no root of their own
        raise BundleError(f"{path} cannot answer for two rows of {k} numbers: {str(error).splitlines()[0]}") from error
    if found.ndim not in (1, 2) or len(found) != 2:
        raise NotSupportedError(
            f"{path} answers two rows with an array of the shape {found.shape}", hint="one answer for each row is needed"
        )
    return found.reshape(2, -1)
