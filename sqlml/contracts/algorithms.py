"""The seam of algorithms: what they learn from, and what they and their predictors do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sqlml.contracts.options import OptionSpec
from sqlml.types import Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class FeatureMatrix:
    """What an algorithm learns from: one row per example, one column per encoded feature.

    ``x`` is float32 (n, k), row-major, NaN for missing.  ``categorical[j]`` says that column j holds category codes 0, 1, 2, …
    (only with the encoding ``codes``); ``names[j]`` is for people.
    """

    x: NDArray[np.float32]
    names: tuple[str, ...]
    categorical: tuple[bool, ...]


@dataclass(frozen=True)
class TrainingData:
    """Everything ``fit`` may see.

    ``y`` is int64 class codes 0 … n_classes-1 for classification, float64 for regression, None without a target; ``weight`` is
    float64.  ``valid_*`` are rows for early stopping, taken from the training part (None where not asked for); ``heldout_*`` are
    only watched: their loss is reported while training and decides nothing.
    """

    features: FeatureMatrix
    y: NDArray[Any] | None = None
    weight: NDArray[np.float64] | None = None
    valid_x: NDArray[np.float32] | None = None
    valid_y: NDArray[Any] | None = None
    heldout_x: NDArray[np.float32] | None = None
    heldout_y: NDArray[Any] | None = None
    n_classes: int = 0


@dataclass(frozen=True)
class FitSpec:
    """How to fit: the algorithm's own options, checked, the seed, and how many threads the job may use.

    ``start`` is what to go on from (WARM START): a predictor of the same algorithm on the same features and classes; given only
    to an algorithm that says ``warm_start``.  ``folder`` is where checkpoints may be kept, the fit's own; what lies in there when
    ``fit`` begins was left by the same fit, when its process died.  None: nothing is kept.  ``memory``: how many bytes the job
    may hold, where that is known.
    """

    options: Mapping[str, Any]
    seed: int
    threads: int
    start: Predictor | None = None
    folder: Path | None = None
    memory: int | None = None


class Report(Protocol):
    """Where a job tells what it is doing.  Calling ``step`` may raise ``JobCancelled``."""

    def step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        """One step of training is done; ``metrics`` are named ``train_logloss``, ``heldout_logloss`` and so on."""

    def notice(self, text: str) -> None:
        """Something that the person should know."""

    def stage(self, name: str) -> None:
        """Another part of the work begins: ``reading``, ``training``, ``evaluating`` …"""


class Predictor(Protocol):
    """A fitted algorithm.  Safe to call from many threads at once; never unpickles anything.

    ``threads`` is how many threads one call may use: 1 after ``load``, since the callers are parallel.  ``gpu_memory`` is the
    bytes that training took of a GPU, 0 without one and after ``load``.
    """

    threads: int
    gpu_memory: int

    def predict(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """From float32 (n, k), by task: the probabilities (n, n_classes) of classes; values (n,); distances (n, clusters);
        components (n, components); anomaly scores (n,), higher for rows less like the others.
        """

    def contributions(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """What each feature adds to the row's raw score: (n, outputs, k + 1), the last column being the base value.

        Sums over the last axis to the raw score: the log-odds for two classes (outputs = 1, for the second class), one margin per
        class for more, the value itself for regression, minus the squared distance to each centre for clustering.
        Called only where the algorithm says ``explains``.
        """

    def importance(self) -> NDArray[np.float64]:
        """How much each of the k features matters to the model as a whole, shares that sum to 1 (or all 0).

        Called only where the algorithm says ``explains`` or has the task projection.
        """

    def parameters(self) -> Mapping[str, NDArray[Any]]:
        """What was learnt, as named float64 arrays; empty where there is nothing to show.

        Linear: ``coef`` (outputs, k), ``intercept`` (outputs,).  Clusters: ``centers`` (clusters, k).  Components: ``components``
        (components, k), ``explained_variance``, ``explained_variance_ratio`` (components,), ``mean`` (k,).  Trees: ``weight``
        (number of splits), ``gain`` and ``cover`` (averages over them), each (k,).  Anomalies: ``threshold`` (1,): a score above
        it is an anomaly.  What boosting or iterating learnt so far: ``rounds`` (1,), where it can be told to stop there.
        """

    def save(self, folder: Path) -> None:
        """Write the library's own safe format into an existing, empty folder."""

    def onnx(self) -> bytes | None:
        """The same as ONNX (input ``x`` float32 (n, k), first output as ``predict``'s), or None where there is no converter."""


class Algorithm(Protocol):
    """A way to learn.  Instances are made without arguments and hold no state."""

    name: str
    task: Task
    encoding: str  # "codes": categories as codes, NaN for missing; "dense": one-hot, scaled, no NaN
    early_stopping: str | None  # the option that turns it on, where the library has it
    rounds: str | None  # the option that counts what stops early; its predictors' ``parameters`` have ``rounds``
    streams: float | None  # reads rows in parts: what is more than this part of the memory is given as a file (numpy.memmap)
    warm_start: bool  # can go on from an earlier predictor
    explains: bool  # its predictors have contributions and importance
    options: tuple[OptionSpec, ...]
    doc: str
    libraries: tuple[str, ...]  # distributions to fit, keep and predict with; their versions are kept

    def fit(self, data: TrainingData, spec: FitSpec, report: Report) -> Predictor:
        """Learn.  Deterministic for the same data, options and seed.  Calls ``report.step`` at least once."""

    def load(self, folder: Path) -> Predictor:
        """Read what ``save`` wrote."""
