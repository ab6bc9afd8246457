"""What computes a head's answers: ONNX Runtime for few rows, the library's own predictor for many.

    manifest + sample rows → both timed on them → the number of rows from which the library is quicker → ``HeadRuntime.raw``

XGBoost itself pays about 200 microseconds a call and 1 a row, ONNX Runtime 6 and 3, the native kernel 5 and 1: which is quicker
for a batch depends on the model and the machine: it is measured when a version is first loaded, on different rows each time.
Both read the same float32 features, so they take the same branches; they may add up in another order, and then a row alone and
the same row among many differ in the last digits.  Where the library is nearly as quick for one row, it answers all of them:
the same row then gives the same answer, however many come with it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.algorithms.imported_onnx import open_session
from sqlml.errors import BundleError
from sqlml.features.dataset import canonical, read_arrow
from sqlml.types import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sqlml.bundles.head import Head
    from sqlml.features.encode import FeatureEncoder

log = logging.getLogger("sqlml.serving")

NEARLY = 10e-6
"""Seconds that one row may take longer by the library: a tenth of what a request takes, and not worth two ways to an answer."""
TOLERANCE = 1e-6
"""How far ONNX Runtime's probabilities may be from the library's."""
_SIZES = (1, 16, 128)
_TIMES = 5
_SAMPLE_ROWS = 1024
_FLAT = (Task.REGRESSION, Task.ANOMALY)
"""Sums of trees that ONNX Runtime adds up in another order leave the 1e-6 that all roads promise; probabilities do not."""

Predict = Callable[["NDArray[np.float32]"], "NDArray[Any]"]


@dataclass(frozen=True)
class HeadRuntime:
    """How one head computes: ``crossover`` rows and more by the library, fewer by ONNX Runtime (where there is one)."""

    native: Predict
    quick: Predict | None = None
    crossover: float = 0.0

    def raw(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """What ``Predictor.predict`` gives, from float32 (n, k)."""
        if self.quick is not None and 0 < len(x) < self.crossover:
            return self.quick(x)
        return self.native(x)


def head_runtime(head: Head, folder: Path, sample: Path | None, known: float | None = None) -> HeadRuntime:
    """Open the head's ONNX file where the bundle has one, compare it with the library on the sample, and time both.

    ``known`` is the crossover that came of it before, on the same machine.
    To be called in the process that serves: a session of ONNX Runtime does not outlive a fork.
    """
    native: Predict = head.predictor.predict
    if head.manifest.onnx is None or head.task in _FLAT or known == 0:
        return HeadRuntime(native)
    try:
        quick = _session((folder / head.manifest.onnx).read_bytes())
    except (BundleError, ModuleNotFoundError) as error:
        log.warning("%s: no ONNX Runtime: %s", head.algorithm, error)
        return HeadRuntime(native)
    if known is not None:
        return HeadRuntime(native, quick, known)
    x = sample_rows(head, sample)
    if not _agree(quick(x), native(x)):
        log.warning("%s: ONNX Runtime does not give what the library gives; it is not used", head.algorithm)
        return HeadRuntime(native)
    return HeadRuntime(native, quick, measure_crossover(quick, native, x))


def measure_crossover(quick: Predict, native: Predict, x: NDArray[np.float32]) -> float:
    """The number of rows from which ``native`` is quicker; 0 where it is nearly as quick for one, infinite where it never is."""
    turn = _Turn(x)
    times = [(_seconds(quick, turn, n), _seconds(native, turn, n)) for n in _SIZES]
    return crossover(_SIZES, times)


def crossover(sizes: tuple[int, ...], times: list[tuple[float, float]]) -> float:
    """Where the second of two times (seconds) becomes the smaller, by a straight line between the sizes, and beyond the last.

    0 where it takes hardly longer for the first size: ``NEARLY``.
    """
    gaps = [second - first for first, second in times]
    if gaps[0] <= NEARLY:
        return 0.0
    for (low, gap), (high, after) in zip(zip(sizes, gaps, strict=True), list(zip(sizes, gaps, strict=True))[1:], strict=False):
        if after <= 0:
            return low + (high - low) * gap / (gap - after)
    slope = (gaps[-1] - gaps[-2]) / (sizes[-1] - sizes[-2])
    return math.inf if slope >= 0 else sizes[-1] - gaps[-1] / slope


def sample_rows(head: Head, sample: Path | None) -> NDArray[np.float32]:
    """Rows of the training's sample as the head reads them; where there is none, rows of random numbers."""
    kinds = {column.name: column.kind for column in head.encoder.columns}
    if sample is not None and sample.is_file():
        table = read_arrow(sample)
        if table.num_rows and set(kinds) <= set(table.column_names):
            columns = {name: canonical(table.column(name), kind) for name, kind in kinds.items()}
            return head.encode(columns, table.num_rows)[:_SAMPLE_ROWS]
    return _random_rows(head.encoder)


def _random_rows(encoder: FeatureEncoder) -> NDArray[np.float32]:
    random = np.random.default_rng(0)
    x = random.standard_normal((_SAMPLE_ROWS, len(encoder.names)), dtype=np.float32)
    for j in np.flatnonzero(encoder.categorical):
        x[:, j] = random.integers(len(encoder.columns[encoder.input_of[j]].categories), size=len(x))
    return x


class _Turn:
    """Other rows at every call: the processor learns the branches of rows that come again."""

    def __init__(self, x: NDArray[np.float32]) -> None:
        self._x = np.concatenate([x] * math.ceil(2 * max(_SIZES) / len(x)))
        self._at = 0

    def take(self, n: int) -> NDArray[np.float32]:
        if self._at + n > len(self._x):
            self._at = 0
        self._at += n
        return self._x[self._at - n : self._at]


def _seconds(predict: Predict, turn: _Turn, n: int) -> float:
    """The least of a few times: whatever else the machine does only adds."""
    best = math.inf
    for _ in range(_TIMES):
        x = turn.take(n)
        began = time.perf_counter()
        predict(x)
        best = min(best, time.perf_counter() - began)
    return best


def _session(graph: bytes) -> Predict:
    run = open_session(graph).run

    def quick(x: NDArray[np.float32]) -> NDArray[Any]:
        raw: NDArray[Any] = run(None, {"x": x})[0]
        return raw

    return quick


def _agree(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    if found.size != expected.size:
        return False
    gap = np.abs(np.asarray(found, np.float64).reshape(expected.shape) - expected)
    return bool(np.max(gap, initial=0.0) <= TOLERANCE * np.max(np.abs(expected), initial=1.0))
