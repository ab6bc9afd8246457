"""XGBoost's trees as ONNX, by onnxmltools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xgboost

_LOCK = Lock()


def trees_onnx(booster: xgboost.Booster, classes: int, trees: int) -> bytes | None:
    """The model with its probabilities or values as the only output.  None where the converter refuses it.

    ``classes`` is 0 but for models of more than two, of which a round has ``trees`` each.
    """
    from onnxmltools.convert import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    inputs = [("x", FloatTensorType([None, booster.num_features()]))]
    try:
        with _nodes_numbered_once():
            graph = convert_xgboost(booster, name="model", initial_types=inputs)
    except (RuntimeError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None  # whatever shape of model it does not know; a chain of categories longer than Python's stack
    if classes:
        _mend_classes(graph, classes, trees)
    wanted = [output for output in graph.graph.output if output.name != "label"]
    del graph.graph.output[:]
    graph.graph.output.extend(wanted)
    return bytes(graph.SerializeToString(deterministic=True))


@contextmanager
def _nodes_numbered_once() -> Iterator[None]:
    """The converter with another way to number a tree's nodes: the same numbers, in a time that ends.

    It makes a split of n categories a chain of n nodes that share a subtree, and walks through that n times when it numbers the
    nodes: with such splits below one another the times multiply (six levels of 40 categories: 9 seconds, seven of 60: hours).
    """
    from onnxmltools.convert.xgboost.operator_converters.XGBoost import XGBConverter

    with _LOCK:
        own = XGBConverter.__dict__["_remap_nodeid"]
        XGBConverter._remap_nodeid = staticmethod(_numbers)
        try:
            yield
        finally:
            XGBConverter._remap_nodeid = own


def _numbers(tree: Mapping[str, Any]) -> dict[int, int]:
    """The nodes' numbers in the order in which they are first met, from the root down and from the left."""
    numbers: dict[int, int] = {}
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if node["nodeid"] not in numbers:
            numbers[node["nodeid"]] = len(numbers)
            waiting += reversed(node.get("children", ()))
    return numbers


def _mend_classes(graph: Any, classes: int, trees: int) -> None:
    """Give each tree its class: the converter takes them to be in turn, and a round has all ``trees`` of a class together."""
    for node in graph.graph.node:
        named = {attribute.name: attribute for attribute in node.attribute}
        if "class_treeids" in named:
            named["class_ids"].ints[:] = [tree // trees % classes for tree in named["class_treeids"].ints]
