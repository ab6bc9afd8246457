"""Trees as SQL: a CASE for each, summed in the library's own order and, where the dialect can, its own precision.

XGBoost rounds a value to float32 and compares that with a float32 threshold t.  Rounding keeps the order, so that is the same as
comparing the value itself with the number halfway between t and the float32 below it: exact for every value, in every database,
whether or not it has floats of 32 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from sqlglot import exp

from sqlml.algorithms.boosters import Forest, Tree
from sqlml.errors import NotSupportedError
from sqlml.exports.blame import about
from sqlml.exports.sql_build import Stages, chain, column, integer, is_null, number, single, when

if TYPE_CHECKING:
    from numpy.typing import NDArray

_AT_ONCE = 10
"""So many trees are summed in one step: databases plan long expressions slowly, and limit how deep they may be."""

_DEEPEST = 60
"""Deeper trees make expressions that parsers refuse."""


def margins_sql(
    forest: Forest, features: Sequence[str], categories: Sequence[int], stages: Stages, dialect: str, max_nodes: int
) -> list[str]:
    """Add the steps that sum the trees; the columns of the margins.

    ``features`` are the columns of the features, ``categories`` how many codes each has (0: it is a number).
    """
    if forest.nodes > max_nodes:
        large = NotSupportedError(
            f"the model's {len(forest.trees):,} trees have {forest.nodes:,} nodes, more than max_nodes = {max_nodes:,}: "
            "a database would take long to plan such a query",
            hint=f"WITH (max_nodes = {forest.nodes}) writes it all the same; FORMAT onnx or bundle has no such limit",
        )
        raise about("max_nodes", large)
    deepest = max((tree.depth for tree in forest.trees), default=0)
    if deepest > _DEEPEST:
        raise NotSupportedError(
            f"a tree of the model is {deepest} levels deep, more than the {_DEEPEST} that databases' parsers stand",
            hint="train with a smaller max_depth, or export it as onnx or as a bundle",
        )
    outputs = len(forest.base)
    sums: list[exp.Expression] = [single(number(float(base)), dialect) for base in forest.base]
    groups = [[tree for tree in forest.trees if tree.output == output] for output in range(outputs)]
    size = max(1, _AT_ONCE // outputs)
    names: list[str] = []
    for start in range(0, max([len(group) for group in groups] + [1]), size):
        names = [stages.fresh("m") for _ in range(outputs)]
        columns = []
        for name, before, group in zip(names, sums, groups, strict=True):
            values = [single(tree_sql(tree, features, categories), dialect) for tree in group[start : start + size]]
            columns.append((name, chain([before, *values])))
        stages.add("trees", columns)
        sums = [column(name) for name in names]
    return names


def tree_sql(tree: Tree, features: Sequence[str], categories: Sequence[int]) -> exp.Expression:
    """One tree as nested CASEs."""
    made: dict[int, exp.Expression] = {}
    for node in reversed(tree.order()):
        if tree.left[node] < 0:
            made[node] = number(float(tree.value[node]))
            continue
        left, right = made.pop(int(tree.left[node])), made.pop(int(tree.right[node]))
        feature = int(tree.feature[node])
        made[node] = _split(tree, node, column(features[feature]), categories[feature], left, right)
    return made[0]


def _split(
    tree: Tree, node: int, feature: exp.Expression, categories: int, left: exp.Expression, right: exp.Expression
) -> exp.Expression:
    default_left = bool(tree.default_left[node])
    if node in tree.right_codes:
        return _category_split(feature, tree.right_codes[node], categories, default_left, left, right)
    bound, included = halfway_below(tree.value[node])
    if np.isinf(bound):  # every number is below, or none
        there, missing = (left if bound > 0 else right), (left if default_left else right)
        return there if there is missing else when([(is_null(feature), missing)], there)
    if default_left:  # NULL is not above anything
        return when([((exp.GT if included else exp.GTE)(this=feature, expression=number(bound)), right)], left)
    return when([((exp.LTE if included else exp.LT)(this=feature, expression=number(bound)), left)], right)


def _category_split(
    feature: exp.Expression,
    right_codes: frozenset[int],
    categories: int,
    default_left: bool,
    left: exp.Expression,
    right: exp.Expression,
) -> exp.Expression:
    """``right_codes`` go right, all others left, a missing code where it is told."""
    known = sorted(code for code in right_codes if code < categories)
    others = [code for code in range(categories) if code not in right_codes]
    if default_left:  # what is listed goes right: NULL is in no list
        return when([(_in(feature, known), right)], left) if known else left
    return when([(_in(feature, others), left)], right) if others else right


def _in(feature: exp.Expression, codes: Sequence[int]) -> exp.Expression:
    if len(codes) == 1:
        return exp.EQ(this=feature, expression=integer(codes[0]))
    return exp.In(this=feature, expressions=[integer(code) for code in codes])


def halfway_below(threshold: np.float32) -> tuple[float, bool]:
    """The double up to which values round to less than a float32, and whether it does so itself (ties go to even)."""
    value = np.float32(threshold)
    if np.isnan(value):
        return -np.inf, False
    with np.errstate(over="ignore"):
        below = np.nextafter(value, np.float32(-np.inf))
    if np.isinf(value) or np.isinf(below):
        return float(value if np.isinf(value) else below), False
    bits: NDArray[np.uint32] = np.array([value]).view(np.uint32)
    return (float(value) + float(below)) / 2, bool(bits[0] & 1)
