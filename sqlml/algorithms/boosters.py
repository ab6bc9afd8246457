"""XGBoost's own JSON read into plain arrays: the trees, and what stands before and after their sum."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.errors import BundleError, NotSupportedError

if TYPE_CHECKING:
    import xgboost
    from numpy.typing import NDArray

LOGIT = ("binary:logistic", "reg:logistic")
LOG = ("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox")
MOST_CODES = 2**24
"""A category's code is a whole float32."""
SURE = 8.940696716308594e-08
"""The largest float32 margin of which XGBoost's float32 logistic function still makes 0.5."""


@dataclass(frozen=True)
class Tree:
    """Nodes by number, 0 the root; a leaf has ``left`` -1 and its value in ``value``, a node the threshold there.

    A row goes left where its feature is below the threshold, or no member of the node's ``right_codes``; a missing value goes
    where ``default_left`` says.
    """

    output: int
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    feature: NDArray[np.int64]
    value: NDArray[np.float32]
    default_left: NDArray[np.bool_]
    right_codes: Mapping[int, frozenset[int]]

    @property
    def depth(self) -> int:
        """The longest way from the root to a leaf."""
        depth = np.zeros(len(self.left), np.int64)
        for node in self.order():
            for child in (self.left[node], self.right[node]):
                if child >= 0:
                    depth[child] = depth[node] + 1
        return int(depth.max())

    def order(self) -> list[int]:
        """Every node, parents before their children.  ``BundleError`` where this is no tree."""
        found: list[int] = []
        todo = [0]
        while todo:
            node = todo.pop()
            found.append(node)
            if len(found) > len(self.left):
                raise BundleError("a tree of the model runs in a circle: the file is damaged")
            if self.left[node] >= 0:
                todo += [int(self.left[node]), int(self.right[node])]
        return found


@dataclass(frozen=True)
class Forest:
    """``base`` (outputs,) are the margins before the first tree; margins are float32 sums, in the order of the trees.

    ``features`` is how many columns a row has.
    """

    objective: str
    features: int
    base: NDArray[np.float32]
    trees: tuple[Tree, ...]

    @property
    def nodes(self) -> int:
        return sum(len(tree.left) for tree in self.trees)


def read_forest(booster: xgboost.Booster) -> Forest:
    """The trees of a booster, checked.  ``NotSupportedError`` for a kind that is not made of plain trees."""
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]  # not msgspec: gains may be inf or nan
    objective, gradient = learner["objective"]["name"], learner["gradient_booster"]
    weights = gradient.get("weight_drop")
    model = gradient.get("gbtree", gradient).get("model")
    if gradient["name"] not in ("gbtree", "dart") or model is None or "trees" not in model:
        raise NotSupportedError(f"the booster {gradient['name']} is not made of trees")
    features = int(learner["learner_model_param"]["num_feature"])
    outputs = max(1, int(learner["learner_model_param"]["num_class"]), int(learner["learner_model_param"]["num_target"]))
    drops = np.ones(len(model["trees"]), np.float32) if weights is None else np.array(weights, np.float32)
    trees = tuple(
        _tree(document, int(output), features, drop)
        for document, output, drop in zip(model["trees"], model["tree_info"], drops, strict=True)
    )
    if any(not 0 <= tree.output < outputs for tree in trees):
        raise BundleError("a tree of the model belongs to no output: the file is damaged")
    return Forest(objective, features, _margins(objective, learner["learner_model_param"]["base_score"], outputs), trees)


def _margins(objective: str, text: str, outputs: int) -> NDArray[np.float32]:
    base = np.atleast_1d(np.array(json.loads(text), np.float32))
    with np.errstate(all="ignore"):
        if objective in LOGIT:
            base = -np.log(np.float32(1) / base - np.float32(1))
        elif objective in LOG:
            base = np.log(base)
    return np.broadcast_to(base, (outputs,)).astype(np.float32)


def _tree(document: Mapping[str, Any], output: int, features: int, drop: np.float32) -> Tree:
    if int(document["tree_param"].get("size_leaf_vector", "1")) > 1:
        raise NotSupportedError("the model's leaves hold several values (multi_output_tree)")
    left, right = np.array(document["left_children"], np.int64), np.array(document["right_children"], np.int64)
    value = np.array(document["split_conditions"], np.float32)
    feature = np.array(document["split_indices"], np.int64)
    leaf = left < 0
    n = len(left)
    if not n or not all(len(a) == n for a in (right, value, feature)) or (leaf != (right < 0)).any():
        raise BundleError("a tree of the model is incomplete: the file is damaged")
    inner = ~leaf
    children = np.concatenate([left[inner], right[inner]])
    if (children >= n).any() or (children < 1).any() or len(set(children.tolist())) < len(children):
        raise BundleError("a tree of the model points to nodes that are not there: the file is damaged")
    if (feature[inner] < 0).any() or (feature[inner] >= features).any() or not np.isfinite(value[leaf]).all():
        raise BundleError(
            "a tree of the model uses a feature that is not there, or a leaf that is no number: the file is damaged"
        )
    value = np.where(leaf, value * drop, value).astype(np.float32)
    return Tree(output, left, right, feature, value, np.array(document["default_left"], np.bool_), _right_codes(document, n))


def _right_codes(document: Mapping[str, Any], n: int) -> dict[int, frozenset[int]]:
    codes, found = document["categories"], {}
    spans = (document["categories_nodes"], document["categories_segments"], document["categories_sizes"])
    for node, start, size in zip(*spans, strict=True):
        if not 0 <= node < n or start < 0 or start + size > len(codes):
            raise BundleError("the categories of a tree are incomplete: the file is damaged")
        own = codes[start : start + size]
        if not all(0 <= code < MOST_CODES for code in own):
            raise BundleError("a category of a tree is no category: the file is damaged")
        found[int(node)] = frozenset(map(int, own))
    if [i for i, kind in enumerate(document["split_type"]) if kind == 1] != sorted(found):
        raise BundleError("the categories of a tree are incomplete: the file is damaged")
    return found
