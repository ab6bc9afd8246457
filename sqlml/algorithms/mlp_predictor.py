"""A multi-layer perceptron as arrays: predicted by onnxruntime, explained with numpy.  torch is not needed, nor imported.

    x (n, k) → categories: embedding rows; numbers: normalised, 0 where missing; a flag for some that are missing → layers → score

Contributions are DeepLIFT's (Shrikumar, Greenside, Kundaje 2017, https://arxiv.org/abs/1704.02685), by its rescale rule against
the average input of training: what enters the network is compared unit by unit with its mean over the training rows.  They sum
to the score exactly, for any activation; for a linear model they are coefficient times distance from the mean.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.algorithms.arrays import load_arrays, save_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

FURTHEST = 20.0
"""Standard deviations from the mean beyond which a number counts as no further."""
LARGEST = 3e38
_FILE = "mlp.npz"
_BLOCK = 2_048
"""Rows that are computed at a time: what they need stays in the processor's cache."""
_CELLS = 1 << 22
"""Numbers that an intermediate result of contributions may have."""


class MlpPredictor:
    """What a network has learnt.  Arrays:

    ``classes`` (1,), 0 for a regression; ``activation`` (1,);
    ``categories`` (c,) columns of codes, ``embedding_<j>`` (categories + 1, width), row 0 for what is missing or was not seen;
    ``numbers`` (m,) the other columns, ``mean`` and ``inverse`` (m,) float32, ``flags`` (f,) those with a flag for missing;
    ``weight_<l>`` (in, out), ``bias_<l>`` (out,), the last of them the scores; ``target`` (2,): mean and scale of a regression;
    ``rounds`` (1,) epochs; ``reference`` (inputs of the first layer,); ``importance`` (k,).
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.arrays = dict(arrays)
        self.threads = 1
        self.gpu_memory = 0  # bytes that training it took of a GPU; not kept
        self._session: Any = None
        self._lock = threading.Lock()

    # --- what it is ---

    @property
    def classes(self) -> int:
        return int(self.arrays["classes"][0])

    @property
    def activation(self) -> str:
        return str(self.arrays["activation"][0])

    @property
    def features(self) -> int:
        """k."""
        return len(self.arrays["categories"]) + len(self.arrays["numbers"])

    @cached_property
    def layers(self) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Weights and biases, in order."""
        count = sum(name.startswith("weight_") for name in self.arrays)
        return [(self.arrays[f"weight_{i}"], self.arrays[f"bias_{i}"]) for i in range(count)]

    @cached_property
    def embeddings(self) -> list[NDArray[np.float32]]:
        return [self.arrays[f"embedding_{j}"] for j in range(len(self.arrays["categories"]))]

    # --- answers ---

    def predict(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """float32 (n, k) → float64 (n, classes), or (n,) for a regression."""
        if not len(x):
            return np.empty((0, self.classes) if self.classes else 0)
        run = self._runner()
        if len(x) <= _BLOCK:
            return run(np.ascontiguousarray(x))
        out = np.empty((len(x), self.classes) if self.classes else len(x))

        def fill(start: int) -> None:
            out[start : start + _BLOCK] = run(np.ascontiguousarray(x[start : start + _BLOCK]))

        starts = range(0, len(x), _BLOCK)
        if self.threads == 1:
            for start in starts:
                fill(start)
            return out
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(fill, starts))
        return out

    def _runner(self) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
        """The graph in onnxruntime, one thread a call; made ready at the first: a process may fork after loading."""
        with self._lock:
            if self._session is None:
                from sqlml.algorithms.imported_onnx import open_session

                self._session = open_session(self.onnx())
        session = self._session
        return lambda rows: np.asarray(session.run(None, {"x": rows})[0])

    def contributions(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """(n, outputs, k + 1): DeepLIFT in float64, of the log-odds, the classes' margins or the value."""
        owner, k = self._owner, self.features
        outputs = self.layers[-1][0].shape[1]
        out = np.zeros((len(x), outputs, k + 1))
        widest = max(max(weight.shape) for weight, _ in self.layers)
        step = max(1, _CELLS // (outputs * widest))
        for start in range(0, len(x), step):
            values, base = self._rescaled(x[start : start + step])
            part = out[start : start + step]
            for j in range(len(owner)):
                part[:, :, owner[j]] += values[:, :, j]
            part[:, :, -1] = base
        if not self.classes:
            mean, scale = self.arrays["target"]
            out *= scale
            out[:, :, -1] += mean
        return out

    def _rescaled(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What each input of the first layer adds to each score (n, outputs, inputs), and the reference's scores (outputs,)."""
        act = ACTIVATIONS[self.activation]
        reference = np.asarray(self.arrays["reference"], np.float64)
        h, h0 = self.first_inputs(x), reference
        apart = h - h0
        slopes = []
        for weight, bias in self.layers[:-1]:
            w, b = weight.astype(np.float64), bias.astype(np.float64)
            z, z0 = h @ w + b, h0 @ w + b
            h, h0 = act(z), act(z0)
            slopes.append(_slope(act, z, z0, h, h0))
        w, b = (array.astype(np.float64) for array in self.layers[-1])
        values = np.broadcast_to(w.T, (len(x), *w.T.shape))
        for (weight, _), slope in zip(self.layers[-2::-1], slopes[::-1], strict=True):
            values = (values * slope[:, None, :]) @ weight.astype(np.float64).T
        return values * apart[:, None, :], h0 @ w + b

    @cached_property
    def _owner(self) -> NDArray[np.intp]:
        """For each input of the first layer, the feature it comes from."""
        widths = [table.shape[1] for table in self.embeddings]
        parts = [np.repeat(self.arrays["categories"], widths), self.arrays["numbers"], self.arrays["flags"]]
        return np.concatenate(parts).astype(np.intp)

    def first_inputs(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """What enters the first layer: float64 (n, inputs)."""
        parts = [
            table[self._rows(x[:, c], len(table))] for c, table in zip(self.arrays["categories"], self.embeddings, strict=True)
        ]
        v = x[:, self.arrays["numbers"]]
        with np.errstate(over="ignore", invalid="ignore"):
            z = np.clip(np.clip(v - self.arrays["mean"], -LARGEST, LARGEST) * self.arrays["inverse"], -FURTHEST, FURTHEST)
        parts += [np.where(np.isnan(v), 0, z), np.isnan(x[:, self.arrays["flags"]])]
        return np.concatenate(parts, 1, dtype=np.float64)

    @staticmethod
    def _rows(codes: NDArray[np.float32], size: int) -> NDArray[np.int64]:
        known = (codes >= 0) & (codes < size - 1)
        return np.where(known, codes, -1).astype(np.int64) + 1

    def importance(self) -> NDArray[np.float64]:
        """The mean size of each feature's contributions over some training rows, as shares."""
        return np.array(self.arrays["importance"])

    def parameters(self) -> Mapping[str, NDArray[Any]]:
        """``rounds`` (1,): epochs."""
        return {"rounds": self.arrays["rounds"].astype(np.float64)}

    # --- files ---

    def save(self, folder: Path) -> None:
        """Write ``mlp.npz``."""
        save_arrays(folder / _FILE, self.arrays)

    @classmethod
    def load(cls, folder: Path) -> MlpPredictor:
        """Read ``mlp.npz``."""
        return cls(load_arrays(folder / _FILE))

    def onnx(self) -> bytes:
        """A graph of standard operators: float32 up to the scores, as it was trained, then float64."""
        from sqlml.algorithms.mlp_graph import mlp_graph

        return mlp_graph(self)


# --- activations ------------------------------------------------------------------------------------------------------


def _relu(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(z, 0)


def _gelu(z: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import erf

    return np.asarray(0.5 * z * (1 + erf(z / np.sqrt(2))))


def _silu(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(z * (0.5 + 0.5 * np.tanh(0.5 * z)))


HIDDEN = [128, 64]
"""The hidden layers where nothing is said of them."""
ACTIVATIONS: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "relu": _relu,
    "gelu": _gelu,
    "silu": _silu,
    "tanh": lambda z: np.tanh(z),
}


def _slope(
    act: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    z: NDArray[np.float64],
    z0: NDArray[np.float64],
    h: NDArray[np.float64],
    h0: NDArray[np.float64],
) -> NDArray[np.float64]:
    """How much the activation changes for each unit that its input is away from the reference; very near to it the derivative."""
    apart = z - z0
    near = np.abs(apart) < 1e-6
    tiny = 1e-6
    derivative = (act(z + tiny) - act(z - tiny)) / (2 * tiny) if near.any() else np.zeros(())
    return np.where(near, derivative, (h - h0) / np.where(near, 1.0, apart))
