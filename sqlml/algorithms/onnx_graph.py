"""Small ONNX graphs by hand: quicker than a converter, and computed in float64 as numpy does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OPSET = 17
_ML_OPSET = 3
_IR = 8


class Graph:
    """Nodes from the input ``x``, float32 (n, k), to one output ``y``, float64."""

    FLOAT = 1  # onnx.TensorProto.FLOAT
    DOUBLE = 11
    INT64 = 7
    ML = "ai.onnx.ml"  # the domain of trees

    def __init__(self, k: int) -> None:
        self._k = k
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, value: NDArray[Any]) -> str:
        """Add a constant; its name."""
        from onnx import numpy_helper

        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def node(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Add a node; the name of its output, the last one where there are several."""
        from onnx import helper

        name = f"n{len(self._nodes)}"
        names = [*(f"{name}.{i}" for i in range(1, outputs)), name]
        self._nodes.append(helper.make_node(operator, list(inputs), names, name=name, **attributes))
        return name

    def finish(self, output: str, rank: int) -> bytes:
        """The model as bytes."""
        from onnx import TensorProto, helper

        self._nodes.append(helper.make_node("Identity", [output], ["y"], name="y"))
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, self._k])
        y = helper.make_tensor_value_info("y", TensorProto.DOUBLE, [None] * rank)
        graph = helper.make_graph(self._nodes, "model", [x], [y], self._constants)
        opsets = [helper.make_opsetid("", _OPSET)]
        if any(node.domain == self.ML for node in self._nodes):
            opsets.append(helper.make_opsetid(self.ML, _ML_OPSET))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR)
        return bytes(model.SerializeToString(deterministic=True))
