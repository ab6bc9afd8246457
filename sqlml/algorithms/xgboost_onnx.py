"""XGBoost's trees as ONNX's own ensembles of trees, which sum in float32 as XGBoost does.

From the arrays that the kernel takes, too: a converter's walk through every node takes as long as some ten rounds of training a
million rows.  A split by a set of categories is a chain of nodes, one for each category of the set, that share their subtrees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sqlml.algorithms.boosters import LOG, LOGIT, Forest, Tree
from sqlml.algorithms.onnx_graph import Graph

_SOFTMAX = "multi:softprob"
_NO_CODE = -1.0
"""What no category's code is."""


def trees_onnx(forest: Forest) -> bytes | None:
    """The model with its probabilities (n, classes) or values (n, 1) as the only output; None for a kind unknown here."""
    graph = Graph(forest.features)
    answers = _answers(graph, forest)
    return None if answers is None else graph.finish(graph.node("Cast", answers, to=graph.DOUBLE), rank=2)


def _answers(graph: Graph, forest: Forest) -> str | None:
    """The ensemble and what comes behind its sum, added to the graph."""
    base = [float(margin) for margin in forest.base]
    if not forest.trees:
        return None
    if forest.objective == "binary:logistic":
        return _classifier(graph, forest, [0, 1], "LOGISTIC", base)
    if forest.objective == _SOFTMAX:
        return _classifier(graph, forest, list(range(len(base))), "SOFTMAX", base)
    if len(base) > 1 or not forest.objective.startswith(("reg:", "count:")):
        return None
    targets: dict[str, Any] = _leaves(forest, "target") | _nodes(forest.trees)
    values = graph.node("TreeEnsembleRegressor", "x", domain=graph.ML, n_targets=1, base_values=base, **targets)
    if forest.objective in LOG:
        return graph.node("Exp", values)
    return graph.node("Sigmoid", values) if forest.objective in LOGIT else values


def _classifier(graph: Graph, forest: Forest, labels: list[int], link: str, base: list[float]) -> str:
    """Its first output, the label, is nobody's: the second has the probabilities."""
    return graph.node(
        "TreeEnsembleClassifier", "x", outputs=2, domain=graph.ML, classlabels_int64s=labels, post_transform=link,
        base_values=base, **_leaves(forest, "class"), **_nodes(forest.trees),
    )  # fmt: skip


def _leaves(forest: Forest, prefix: str) -> dict[str, list[Any]]:
    """What each leaf adds, and to which output."""
    trees = forest.trees
    own = [np.flatnonzero(tree.left < 0) for tree in trees]
    counts = [len(leaves) for leaves in own]
    return {
        f"{prefix}_treeids": np.repeat(np.arange(len(trees)), counts).tolist(),
        f"{prefix}_nodeids": np.concatenate(own).tolist(),
        f"{prefix}_ids": np.repeat([tree.output for tree in trees], counts).tolist(),
        f"{prefix}_weights": np.concatenate([tree.value[leaves] for tree, leaves in zip(trees, own, strict=True)]).tolist(),
    }


def _nodes(trees: tuple[Tree, ...]) -> dict[str, list[Any]]:
    """Every tree's nodes, numbered within it as XGBoost numbers them, those of chains behind them."""
    told = [_columns(tree) for tree in trees]
    found = {f"nodes_{name}": [value for columns in told for value in columns[name]] for name in told[0]}
    return found | {"nodes_treeids": [i for i, columns in enumerate(told) for _ in columns["nodeids"]]}


def _columns(tree: Tree) -> dict[str, list[Any]]:
    leaf = tree.left < 0
    columns: dict[str, list[Any]] = {
        "nodeids": list(range(len(leaf))),
        "featureids": np.where(leaf, 0, tree.feature).tolist(),
        "modes": [b"LEAF" if ends else b"BRANCH_LT" for ends in leaf.tolist()],
        "values": np.where(leaf, 0, tree.value).tolist(),
        "truenodeids": np.where(leaf, 0, tree.left).tolist(),
        "falsenodeids": np.where(leaf, 0, tree.right).tolist(),
        "missing_value_tracks_true": (tree.default_left & ~leaf).astype(int).tolist(),
    }
    for node, codes in tree.right_codes.items():
        _chain(columns, tree, node, sorted(codes) or [_NO_CODE])
    return columns


def _chain(columns: dict[str, list[Any]], tree: Tree, node: int, codes: Sequence[float]) -> None:
    """A node for each code: equal to it, to the right; else to the next one, and from the last to the left."""
    added = len(columns["nodeids"])
    for i, code in enumerate(codes):
        link = {
            "nodeids": added + i - 1 if i else node,
            "featureids": int(tree.feature[node]),
            "modes": b"BRANCH_EQ",
            "values": float(code),
            "truenodeids": int(tree.right[node]),
            "falsenodeids": added + i if i + 1 < len(codes) else int(tree.left[node]),
            "missing_value_tracks_true": int(not tree.default_left[node]),
        }
        for name, value in link.items():
            if i:
                columns[name].append(value)
            else:
                columns[name][node] = value
