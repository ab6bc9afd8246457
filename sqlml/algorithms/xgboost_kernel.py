"""A forest for the native kernel, and what XGBoost makes of its sums."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.algorithms.arrays import load_arrays
from sqlml.algorithms.boosters import LOG, LOGIT, MOST_CODES, Forest, Tree
from sqlml.errors import BundleError
from sqlml.native.trees import CATEGORIES, DEFAULT_LEFT, EXPONENTIAL, LOGISTIC, PART_ROWS, SOFTMAX, Nodes, TreeKernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LINKS = {"multi:softprob": SOFTMAX} | dict.fromkeys(LOGIT, LOGISTIC) | dict.fromkeys(LOG, EXPONENTIAL)
_AS_IT_IS = (
    "binary:logitraw",
    "reg:squarederror",
    "reg:squaredlogerror",
    "reg:absoluteerror",
    "reg:pseudohubererror",
    "reg:quantileerror",
)


class BoosterKernel:
    """A booster that predicts by the native kernel."""

    def __init__(self, objective: str, base: NDArray[np.float32], features: int, nodes: Nodes, outputs: int = 1) -> None:
        """``outputs``: classes, or 1 for a number."""
        self.objective = objective
        self.outputs = outputs
        self.link = _LINKS.get(objective, 0)
        self.trees = TreeKernel(base, features, nodes)

    def answers(self, x: NDArray[np.float32], threads: int = 1) -> NDArray[np.float64]:
        """float64 (n, classes) of a classifier, (n,) of a regression: the same, and of two classes the first one's, too."""
        two = self.objective.startswith("binary:")
        if threads > 1 and len(x) > PART_ROWS:
            raw = self.predict(x, threads).astype(np.float64)
            return np.column_stack([1.0 - raw, raw]) if two else raw
        found = self.trees.answers(x, self.link, both=two)
        return found if found.shape[1] > 1 else found[:, 0]

    def predict(self, x: NDArray[np.float32], threads: int = 1) -> NDArray[np.float32]:
        """What ``Booster.inplace_predict`` gives: (n,), or (n, classes) of a softmax; to a float32's last digits."""
        found = self.trees.margins(x, threads)
        if self.link:
            self.trees.link(self.link, found)
        return found if found.shape[1] > 1 else found[:, 0]


def kernel_of(forest: Forest) -> BoosterKernel | None:
    """The kernel for a forest; None where there is no native library, or the forest is of a kind that it does not compute."""
    if not TreeKernel.available() or not _is_known(forest):
        return None
    return BoosterKernel(forest.objective, forest.base, forest.features, nodes_of(forest))


def _is_known(forest: Forest) -> bool:
    return forest.objective in _LINKS or forest.objective in _AS_IT_IS


def packed(forest: Forest, objective: str, outputs: int) -> dict[str, NDArray[Any]] | None:
    """The trees as arrays, a moment's work to read; None for a kind that the kernel does not compute."""
    if not _is_known(forest) or forest.objective != objective:
        return None
    nodes = nodes_of(forest)
    if _damage(nodes, forest.features, len(forest.base)):
        return None
    arrays: dict[str, NDArray[Any]] = {field.name: getattr(nodes, field.name) for field in fields(nodes)}
    counts = np.array([forest.features, outputs], np.int64)
    return arrays | {"objective": np.array(objective), "base": forest.base, "counts": counts}


def unpacked(path: Path) -> BoosterKernel | None:
    """What ``packed`` gave; None without the native library.  ``BundleError`` for a file that is not of whole trees: the C checks
    nothing.
    """
    if not TreeKernel.available():
        return None
    try:
        arrays = load_arrays(path)
        nodes = Nodes(**{field.name: arrays[field.name].astype(_TYPES[field.name], casting="safe") for field in fields(Nodes)})
        base = arrays["base"].astype(np.float32, casting="safe")
        (features, outputs), objective = (int(count) for count in arrays["counts"]), str(arrays["objective"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path.name} cannot be read: {error}") from None
    reason = _damage(nodes, features, len(base))
    if reason or base.ndim != 1 or not 0 < outputs < MOST_CODES or not 0 <= features < MOST_CODES:
        raise BundleError(f"{path.name} is damaged: {reason or 'its counts are none'}")
    return BoosterKernel(objective, base, features, nodes, outputs)


_TYPES = {field.name: np.int32 for field in fields(Nodes)} | {"value": np.float32, "flags": np.uint8, "sets": np.uint32}


def _damage(nodes: Nodes, features: int, outputs: int) -> str | None:
    """What is wrong with nodes, if anything: children come behind their parents, each has one, and all that is named is there."""
    per_node = (nodes.feature, nodes.value, nodes.left, nodes.right, nodes.flags, nodes.first_word, nodes.words)
    sizes, total = nodes.sizes.astype(np.int64), len(nodes.feature)
    if any(array.ndim != 1 for array in (*per_node, nodes.sizes, nodes.outputs, nodes.sets)):
        return "an array has another form"
    if any(len(array) != total for array in per_node) or len(nodes.outputs) != len(sizes):
        return "its arrays have different lengths"
    if (sizes < 1).any() or sizes.sum() != total or outputs < 1 or ((nodes.outputs < 0) | (nodes.outputs >= outputs)).any():
        return "its trees have no sizes or outputs"
    first = np.repeat(np.cumsum(sizes) - sizes, sizes)
    own, size = np.arange(total) - first, np.repeat(sizes, sizes)
    inner = nodes.feature >= 0
    if (nodes.feature[inner] >= features).any():
        return "a split is on a feature that is not there"
    for child in (nodes.left, nodes.right):
        if ((child <= own) | (child >= size))[inner].any():
            return "a split points to a node that is not there"
    children = np.concatenate([(first + child)[inner] for child in (nodes.left, nodes.right)])
    if (np.bincount(children, minlength=total) > 1).any() or len(children) + len(sizes) != total:
        return "a node has no parent, or two"
    sets = inner & ((nodes.flags & CATEGORIES) > 0)
    start, words = nodes.first_word[sets].astype(np.int64), nodes.words[sets].astype(np.int64)
    if ((start < 0) | (words < 0) | (start + words > len(nodes.sets))).any():
        return "a set of categories is not there"
    return None


def nodes_of(forest: Forest) -> Nodes:
    """The trees as the kernel takes them."""
    trees = forest.trees
    sizes = np.array([len(tree.left) for tree in trees], np.int32)
    left, right, feature, value, default = (
        _joined(trees, name) for name in ("left", "right", "feature", "value", "default_left")
    )
    feature = np.where(left < 0, -1, feature)
    flags = np.where(default, DEFAULT_LEFT, 0).astype(np.uint8)
    first_word, words, sets, n, total = np.zeros(len(left), np.int32), np.zeros(len(left), np.int32), [], 0, 0
    for tree in trees:
        for node, codes in tree.right_codes.items():
            flags[n + node] |= CATEGORIES
            own = _bits(np.array(sorted(codes), np.int64))
            first_word[n + node], words[n + node] = total, len(own)
            sets.append(own)
            total += len(own)
        n += len(tree.left)
    return Nodes(
        sizes, np.array([tree.output for tree in trees], np.int32), feature.astype(np.int32), value.astype(np.float32),
        left.astype(np.int32), right.astype(np.int32), flags, first_word, words,
        np.concatenate(sets) if sets else np.zeros(0, np.uint32),
    )  # fmt: skip


def _joined(trees: tuple[Tree, ...], name: str) -> NDArray[Any]:
    return np.concatenate([getattr(tree, name) for tree in trees]) if trees else np.zeros(0, np.int64)


def _bits(codes: NDArray[np.int64]) -> NDArray[np.uint32]:
    """A set of codes, 32 to a word."""
    words = np.zeros(int(codes.max(initial=-1)) // 32 + 1, np.uint32)
    np.bitwise_or.at(words, codes // 32, np.left_shift(np.uint32(1), (codes % 32).astype(np.uint32)))
    return words
