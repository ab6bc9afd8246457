"""Models of other tools, as ONNX files: predicted with, never trained.

The native folder holds ``model.onnx`` and ``ports.json``: how the feature matrix becomes the graph's inputs, and which of its
outputs is the answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.algorithms.unexplained import Unexplained
from sqlml.contracts import FitSpec, OptionSpec, Report, TrainingData
from sqlml.errors import BindError, BundleError
from sqlml.types import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

GRAPH = "model.onnx"
PORTS = "ports.json"

TYPES: Mapping[str, str] = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
}
"""The inputs that a number can be given to, and numpy's name for each type."""


@dataclass(frozen=True)
class Ports:
    """Where features go in and answers come out.

    ``inputs`` are (name, numpy type): one takes the whole matrix, several take one feature each, of rank ``rank``.  ``classes``
    is how many probabilities there are, 0 for a value.  ``answer``: ``values`` (n,) or (n, 1); ``probabilities`` (n, classes);
    ``second`` (n,) or (n, 1), the probability of the second of two classes; ``maps``, a sequence of maps from the ``keys``.
    """

    inputs: tuple[tuple[str, str], ...]
    rank: int
    output: str
    answer: str
    classes: int = 0
    keys: tuple[Any, ...] = ()


class _Imported:
    """What both have in common."""

    encoding = "codes"
    early_stopping: str | None = None
    rounds: str | None = None
    streams = None
    warm_start = False
    explains = False
    libraries: tuple[str, ...] = ("onnxruntime",)
    options: tuple[OptionSpec, ...] = ()

    def fit(self, data: TrainingData, spec: FitSpec, report: Report) -> OnnxPredictor:
        """There is no training: ``BindError``."""
        raise BindError(
            "an imported ONNX model cannot be trained",
            hint="IMPORT MODEL m FROM 'model.onnx' makes one; SHOW ALGORITHMS lists what can be trained",
        )

    def load(self, folder: Path) -> OnnxPredictor:
        """Read the graph and its ports."""
        return OnnxPredictor.load(folder)


class ImportedOnnxClassifier(_Imported):
    """Classes, from an ONNX file."""

    name = "onnx_classifier"
    task = Task.CLASSIFICATION
    doc = "classes by a model of another tool, imported as ONNX; cannot be trained"


class ImportedOnnxRegressor(_Imported):
    """A number, from an ONNX file."""

    name = "onnx_regressor"
    task = Task.REGRESSION
    doc = "a number by a model of another tool, imported as ONNX; cannot be trained"


class OnnxPredictor(Unexplained):
    """A graph in onnxruntime, made ready at the first call: safe where a process forks after loading."""

    threads = 1

    def __init__(self, graph: bytes, ports: Ports) -> None:
        self._graph = graph
        self._ports = ports
        self._session: Any = None

    def predict(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """float32 (n, k) → float64 (n, classes), or (n,) for a value."""
        ports = self._ports
        n = len(x)
        if not n:
            return np.empty((0, ports.classes) if ports.classes else 0)
        if self._session is None:
            self._session = open_session(self._graph)
        [found] = self._session.run([ports.output], feeds_of(ports, x))
        if ports.answer == "maps":
            return np.array([[row[key] for key in ports.keys] for row in found], np.float64)
        values = np.asarray(found, np.float64).reshape(n, -1)
        if ports.answer == "second":
            return np.column_stack([1.0 - values[:, 0], values[:, 0]])
        return values if ports.answer == "probabilities" else values[:, 0]

    def parameters(self) -> Mapping[str, NDArray[Any]]:
        """None that are known."""
        return {}

    def save(self, folder: Path) -> None:
        """Write the graph and its ports."""
        (folder / GRAPH).write_bytes(self._graph)
        (folder / PORTS).write_text(json.dumps(asdict(self._ports), indent=1, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> OnnxPredictor:
        """Read what ``save`` wrote."""
        document = json.loads((folder / PORTS).read_text(encoding="utf-8"))
        inputs = tuple((str(name), str(kind)) for name, kind in document.pop("inputs"))
        return cls((folder / GRAPH).read_bytes(), Ports(inputs, keys=tuple(document.pop("keys")), **document))

    def onnx(self) -> bytes | None:
        """The graph itself, where it takes the matrix and gives what ``predict`` does; else None."""
        ports = self._ports
        same = len(ports.inputs) == 1 and ports.inputs[0][1] == "float32" and ports.rank == 2 and ports.answer == "probabilities"
        return _with_output(self._graph, ports.output) if same else None


def feeds_of(ports: Ports, x: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Each input as the graph takes it; whole numbers have no missing value: 0 stands for it."""
    if len(ports.inputs) == 1 and ports.rank == 2:
        [(name, kind)] = ports.inputs
        return {name: _typed(x, kind)}
    columns = [np.ascontiguousarray(x[:, j : j + 1] if ports.rank == 2 else x[:, j]) for j in range(x.shape[1])]
    return {name: _typed(column, kind) for (name, kind), column in zip(ports.inputs, columns, strict=True)}


def _typed(values: NDArray[np.float32], kind: str) -> NDArray[Any]:
    if kind.startswith(("int", "bool")):
        values = np.nan_to_num(values)
    return np.ascontiguousarray(values, dtype=kind)


def open_session(graph: bytes) -> Any:
    """The graph in onnxruntime: one thread, on the CPU, basic rewriting only.  ``BundleError`` where it cannot be."""
    from sqlml.algorithms.onnx_runtime import onnxruntime

    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    try:
        return runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no root of their own
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BundleError(f"onnxruntime cannot load the graph: {text}") from error


def _with_output(graph: bytes, name: str) -> bytes:
    import onnx

    model = onnx.load_from_string(graph)
    wanted = [output for output in model.graph.output if output.name == name]
    del model.graph.output[:]
    model.graph.output.extend(wanted)
    return bytes(model.SerializeToString(deterministic=True))
