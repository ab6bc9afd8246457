"""The network that torch trains: embeddings of categories beside normalised numbers, then layers.

What goes in is computed as ``mlp_predictor`` and its graph compute it, so that the trained arrays can be taken over as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from sqlml.algorithms.mlp_predictor import FURTHEST, LARGEST
from sqlml.algorithms.shuffle import read_blocks
from sqlml.contracts import FeatureMatrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WIDEST = 64
_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": nn.functional.gelu,
    "silu": nn.functional.silu,
    "tanh": torch.tanh,
}


@dataclass(frozen=True)
class Inputs:
    """What is learnt of the columns before any training; the names are those of ``MlpPredictor``'s arrays.

    ``sizes`` (c,): how many categories each has.
    """

    categories: NDArray[np.int64]
    sizes: NDArray[np.int64]
    numbers: NDArray[np.int64]
    mean: NDArray[np.float32]
    inverse: NDArray[np.float32]
    flags: NDArray[np.int64]


def read_inputs(features: FeatureMatrix) -> Inputs:
    """Means and deviations of numbers, the highest code of categories, where values are missing: in two passes over the rows."""
    is_category = np.array(features.categorical, bool)
    k = len(is_category)
    total, count, highest = np.zeros(k), np.zeros(k), np.full(k, -1.0)
    for _, block in read_blocks(features.x):
        known = ~np.isnan(block)
        count += known.sum(0)
        total += np.where(known, block, 0).sum(0, dtype=np.float64)
        highest = np.maximum(highest, np.where(known, block, -1).max(0, initial=-1))
    mean = total / np.maximum(count, 1)
    squares = np.zeros(k)
    for _, block in read_blocks(features.x):
        squares += np.nansum((block - mean) ** 2, 0)
    deviation = np.sqrt(squares / np.maximum(count, 1))
    with np.errstate(divide="ignore", over="ignore"):
        inverse = (1 / deviation).astype(np.float32)
    constant = ~np.isfinite(inverse) | (deviation <= 1e-7 * np.abs(mean))  # no more than float32 can tell apart
    inverse[constant] = 0
    numbers, categories = np.flatnonzero(~is_category), np.flatnonzero(is_category)
    missing = count < len(features.x)
    return Inputs(
        categories=categories,
        sizes=highest[categories].astype(np.int64) + 1,
        numbers=numbers,
        mean=mean[numbers].astype(np.float32),
        inverse=inverse[numbers],
        flags=numbers[missing[numbers]],
    )


def embedding_width(categories: int, wanted: int) -> int:
    """``wanted``, or where that is 0 fastai's rule: 1.6 times the number of categories to the power of 0.56, at most 64."""
    return wanted or max(1, min(_WIDEST, round(1.6 * max(categories, 1) ** 0.56)))


class Network(nn.Module):
    """Embeddings and layers, with weights drawn by a generator of its own: torch's global one is left as it is."""

    mean: Tensor
    inverse: Tensor

    def __init__(self, inputs: Inputs, widths: Sequence[int], hidden: Sequence[int], outputs: int, activation: str) -> None:
        super().__init__()
        self.inputs = inputs
        self.activation = activation
        tables = [_empty(int(size) + 1, width) for size, width in zip(inputs.sizes, widths, strict=True)]
        sizes = [sum(widths) + len(inputs.numbers) + len(inputs.flags), *hidden, outputs]
        self.embeddings = nn.ParameterList(tables)
        self.weights = nn.ParameterList([_empty(b, a) for a, b in pairwise(sizes)])
        self.biases = nn.ParameterList([_empty(b) for b in sizes[1:]])
        self.register_buffer("mean", torch.from_numpy(inputs.mean.copy()))
        self.register_buffer("inverse", torch.from_numpy(inputs.inverse.copy()))
        self._places = [torch.from_numpy(a.copy()) for a in (inputs.categories, inputs.numbers, inputs.flags, inputs.sizes)]

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> None:
        """Random weights: embeddings small, layers as torch's own ``Linear`` has them."""
        for table in self.embeddings:
            table.normal_(0, 0.1, generator=generator)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            bound = 1 / np.sqrt(max(1, weight.shape[1]))
            weight.uniform_(-bound, bound, generator=generator)
            bias.uniform_(-bound, bound, generator=generator)

    @torch.no_grad()
    def prepare(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """float32 (n, k), on the network's device → rows of the embeddings (c, n) int32, and (n, numbers + flags) float32."""
        categories, numbers, flags, sizes = (place.to(rows.device) for place in self._places)
        codes = rows[:, categories]
        known = (codes >= 0) & (codes < sizes)
        codes = torch.where(known, codes, -1.0).int().add_(1).t().contiguous()
        v = rows[:, numbers]
        z = ((v - self.mean).clamp_(-LARGEST, LARGEST) * self.inverse).clamp_(-FURTHEST, FURTHEST)
        z = torch.where(v.isnan(), 0.0, z)
        return codes, torch.cat([z, rows[:, flags].isnan().float()], 1) if len(flags) else z

    def forward(self, codes: Tensor, numbers: Tensor, dropout: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
        """Scores (n, outputs).  ``dropout`` is the part of each hidden layer's units that is left out, drawn by ``generator``."""
        act = _ACTIVATIONS[self.activation]
        h = torch.cat([*(nn.functional.embedding(codes[j], table) for j, table in enumerate(self.embeddings)), numbers], 1)
        last = len(self.weights) - 1
        for i in range(last):
            h = act(nn.functional.linear(h, self.weights[i], self.biases[i]))
            if dropout:
                h = h * torch.empty_like(h).bernoulli_(1 - dropout, generator=generator).div_(1 - dropout)
        return nn.functional.linear(h, self.weights[last], self.biases[last])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything that ``MlpPredictor`` needs to compute scores."""
        made: dict[str, NDArray[Any]] = {
            "activation": np.array([self.activation]),
            "categories": self.inputs.categories,
            "numbers": self.inputs.numbers,
            "flags": self.inputs.flags,
            "mean": self.inputs.mean,
            "inverse": self.inputs.inverse,
        }
        made |= {f"embedding_{j}": _array(table) for j, table in enumerate(self.embeddings)}
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            made |= {f"weight_{i}": _array(weight.t()), f"bias_{i}": _array(bias)}
        return made

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Network:
        """The network behind a predictor's arrays."""
        embeddings = [arrays[f"embedding_{j}"] for j in range(len(arrays["categories"]))]
        count = sum(name.startswith("weight_") for name in arrays)
        sizes = np.array([len(table) - 1 for table in embeddings], np.int64)
        names = ("categories", "numbers", "mean", "inverse", "flags")
        inputs = Inputs(sizes=sizes, **{name: arrays[name] for name in names})
        hidden = [arrays[f"weight_{i}"].shape[1] for i in range(count)]
        widths = [table.shape[1] for table in embeddings]
        network = cls(inputs, widths, hidden[:-1], hidden[-1], str(arrays["activation"][0]))
        given = [*embeddings, *(arrays[f"weight_{i}"].T for i in range(count)), *(arrays[f"bias_{i}"] for i in range(count))]
        own = [*network.embeddings, *network.weights, *network.biases]
        with torch.no_grad():
            for parameter, value in zip(own, given, strict=True):
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))
        return network


def _empty(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().cpu().numpy(), np.float32).copy()
