"""A multi-layer perceptron as an ONNX graph of standard operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sqlml.algorithms.onnx_graph import Graph

if TYPE_CHECKING:
    from sqlml.algorithms.mlp_predictor import MlpPredictor


def mlp_graph(model: MlpPredictor) -> bytes:
    """From ``x`` float32 (n, k) to what ``predict`` gives, float64."""
    graph = Graph(model.features)
    h = graph.node("Concat", *_embedded(graph, model), *_numbers(graph, model), axis=1)
    for weight, bias in model.layers[:-1]:
        h = _activated(graph, graph.node("Gemm", h, graph.constant(weight), graph.constant(bias)), model.activation)
    weight, bias = model.layers[-1]
    score = graph.node("Gemm", h, graph.constant(weight), graph.constant(bias))
    z = graph.node("Cast", score, to=graph.DOUBLE)
    if not model.classes:
        mean, scale = (graph.constant(np.array(value, np.float64)) for value in model.arrays["target"])
        value = graph.node("Add", graph.node("Mul", z, scale), mean)
        return graph.finish(graph.node("Squeeze", value, graph.constant(np.array([1]))), rank=1)
    if model.classes > 2:
        return graph.finish(graph.node("Softmax", z, axis=1), rank=2)
    p, q = graph.node("Sigmoid", z), graph.node("Sigmoid", graph.node("Neg", z))
    return graph.finish(graph.node("Concat", q, p, axis=1), rank=2)


def _embedded(graph: Graph, model: MlpPredictor) -> list[str]:
    """The rows of the embeddings; row 0 for a code that is missing or out of range: comparisons with NaN are false."""
    if not model.embeddings:
        return []
    codes = graph.node("Gather", "x", graph.constant(model.arrays["categories"].astype(np.int64)), axis=1)
    sizes = np.array([[len(table) - 1 for table in model.embeddings]], np.float32)
    low = graph.node("GreaterOrEqual", codes, graph.constant(np.zeros((1, 1), np.float32)))
    known = graph.node("And", low, graph.node("Less", codes, graph.constant(sizes)))
    number = graph.node("Where", known, codes, graph.constant(np.array(-1, np.float32)))
    rows = graph.node(
        "Cast", graph.node("Add", graph.node("Floor", number), graph.constant(np.array(1, np.float32))), to=graph.INT64
    )
    column = (graph.node("Gather", rows, graph.constant(np.array(j)), axis=1) for j in range(len(model.embeddings)))
    return [graph.node("Gather", graph.constant(table), c, axis=0) for table, c in zip(model.embeddings, column, strict=True)]


def _numbers(graph: Graph, model: MlpPredictor) -> list[str]:
    from sqlml.algorithms.mlp_predictor import FURTHEST, LARGEST

    found = []
    arrays = model.arrays
    if len(arrays["numbers"]):
        v = graph.node("Gather", "x", graph.constant(arrays["numbers"].astype(np.int64)), axis=1)
        apart = graph.node("Sub", v, graph.constant(arrays["mean"]))
        scaled = graph.node("Mul", _clipped(graph, apart, LARGEST), graph.constant(arrays["inverse"]))
        absent = graph.node("IsNaN", v)
        found.append(graph.node("Where", absent, graph.constant(np.zeros((), np.float32)), _clipped(graph, scaled, FURTHEST)))
    if len(arrays["flags"]):
        absent = graph.node("IsNaN", graph.node("Gather", "x", graph.constant(arrays["flags"].astype(np.int64)), axis=1))
        found.append(graph.node("Cast", absent, to=graph.FLOAT))
    return found


def _clipped(graph: Graph, value: str, limit: float) -> str:
    low, high = (graph.constant(np.array(end, np.float32)) for end in (-limit, limit))
    return graph.node("Clip", value, low, high)


def _activated(graph: Graph, z: str, activation: str) -> str:
    if activation == "relu":
        return graph.node("Relu", z)
    if activation == "tanh":
        return graph.node("Tanh", z)
    if activation == "silu":
        return graph.node("Mul", z, graph.node("Sigmoid", z))
    half = graph.node("Mul", z, graph.constant(np.array(0.5, np.float32)))
    erf = graph.node("Erf", graph.node("Mul", z, graph.constant(np.array(np.sqrt(0.5), np.float32))))
    return graph.node("Mul", half, graph.node("Add", erf, graph.constant(np.array(1, np.float32))))
