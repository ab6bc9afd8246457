"""From a model's scores to its next token.  Pure functions of numpy.

logits → softmax at a temperature → the k likeliest → the likeliest that make up p → one of them, by a seeded generator
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Sampling:
    """How to choose: ``temperature`` 0 takes the likeliest; ``top_k`` 0 and ``top_p`` 1 leave all tokens in."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


def next_token(logits: NDArray[Any], sampling: Sampling, random: np.random.Generator) -> int:
    """The number of the next token, from the scores (tokens,) of all; of equal ones the first is the likeliest."""
    if sampling.temperature == 0 or sampling.top_k == 1:
        return int(np.argmax(logits))
    return draw(probabilities(logits, sampling), random)


def probabilities(logits: NDArray[Any], sampling: Sampling) -> NDArray[np.float64]:
    """What each token (tokens,) is drawn with: they sum to 1, and those that are out have 0.  ``temperature`` is above 0."""
    scores = np.asarray(logits, np.float64) / sampling.temperature
    scores = keep_top_k(scores, sampling.top_k)
    return keep_top_p(softmax(scores), sampling.top_p)


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities (tokens,); a score of minus infinity has 0."""
    powers = np.exp(scores - scores.max())
    return np.asarray(powers / powers.sum())


def keep_top_k(scores: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """The scores with minus infinity in place of all but the ``k`` highest; of equal ones at the edge the first stay."""
    if not 0 < k < len(scores):
        return scores
    kept = np.argsort(-scores, kind="stable")[:k]
    found = np.full_like(scores, -np.inf)
    found[kept] = scores[kept]
    return found


def keep_top_p(probs: NDArray[np.float64], p: float) -> NDArray[np.float64]:
    """The fewest likeliest tokens whose probabilities reach ``p``, made to sum to 1 again; one at least."""
    if p >= 1:
        return probs
    order = np.argsort(-probs, kind="stable")
    before = np.cumsum(probs[order]) - probs[order]  # what those before each have together
    kept = order[before < p] if p > 0 else order[:1]
    found = np.zeros_like(probs)
    found[kept] = probs[kept]
    return np.asarray(found / found.sum())


def draw(probs: NDArray[np.float64], random: np.random.Generator) -> int:
    """One token, each with its probability."""
    steps = np.cumsum(probs)
    return int(min(np.searchsorted(steps, random.random() * steps[-1], side="right"), np.flatnonzero(probs)[-1]))
