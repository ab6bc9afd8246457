"""Trees in PL/pgSQL: one CASE for each, summed in the library's own order and precision.

A float32 threshold is compared with the value rounded to float32 as well, so values beside it go where the library sends them.
A literal takes its type from what it is compared with: a cast at each would double the memory that PostgreSQL needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.algorithms.boosters import Forest, Tree
from sqlml.errors import NotSupportedError, count_of
from sqlml_udfs.postgres.body import Body
from sqlml_udfs.postgres.encode import Codes, Feature
from sqlml_udfs.postgres.text import double, real, real_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEEPEST = 500
"""Levels of a tree at most; a server with the settings that it comes with computes 1,000 and gives up at 2,000, measured."""

_AT_ONCE = 10
"""So many trees stand in one expression; measured (tests/bench), 1 and 100 are slower."""


def margins(body: Body, forest: Forest, features: Sequence[Feature]) -> list[str]:
    """The variables, of type real, that hold the margins.  ``NotSupportedError`` for a tree that is too deep."""
    deepest = max((tree.depth for tree in forest.trees), default=0)
    check_depth(deepest)
    by_number = {feature.start: feature for feature in features}
    body.size += forest.nodes
    found: list[str] = []
    for output, base in enumerate(forest.base):
        own = [tree_sql(tree, by_number) for tree in forest.trees if tree.output == output]
        found.append(body.sum("real", real(base), own, _AT_ONCE))
    return found


def used_features(forest: Forest) -> set[int]:
    """The features that any tree asks for."""
    return {int(j) for tree in forest.trees for j in np.unique(tree.feature[tree.left >= 0])}


def check_depth(levels: int) -> None:
    """``NotSupportedError`` for trees that are too deep."""
    if levels > DEEPEST:
        raise NotSupportedError(
            f"the model has no form in SQL: a tree is {count_of(levels, 'level')} deep, more than the {DEEPEST} that PostgreSQL"
            " computes safely",
            hint="PREDICT MODEL … INTO a table, or train with a smaller max_depth",
        )


def tree_sql(tree: Tree, features: Mapping[int, Feature]) -> str:
    """One tree: nested CASEs of type real, in parentheses."""
    if tree.left[0] < 0:
        return real(tree.value[0])
    parents = [node for node in tree.order() if tree.left[node] >= 0]
    made: dict[int, str] = {}

    def side(child: int, typed: bool) -> str:
        if tree.left[child] >= 0:
            return made.pop(child)
        return real(tree.value[child]) if typed else f"'{real_text(tree.value[child])}'"

    for node in reversed(parents):
        left, right = int(tree.left[node]), int(tree.right[node])
        typed = tree.left[left] < 0 and tree.left[right] < 0  # one of two leaves says the type
        made[node] = _split(tree, node, features[int(tree.feature[node])], side(left, typed), side(right, False))
    return f"({made[0]})"


def _split(tree: Tree, node: int, feature: Feature, left: str, right: str) -> str:
    """NULL makes no condition true, so a missing value goes where ELSE is."""
    value, missing_left = feature.variable, bool(tree.default_left[node])
    if node in tree.right_codes and isinstance(feature, Codes):
        codes = ",".join(str(code) for code in sorted(tree.right_codes[node]) if code < feature.count)
        if missing_left:
            inside = f"{value} IN ({codes})" if codes else "false"
            return f"CASE WHEN {inside} THEN {right} ELSE {left} END"
        inside = f"{value} NOT IN ({codes})" if codes else f"{value} IS NOT NULL"
        return f"CASE WHEN {inside} THEN {left} ELSE {right} END"
    threshold = tree.value[node]
    bound = "-inf" if np.isnan(threshold) else real_text(threshold)  # nothing is below NaN
    if missing_left:
        return f"CASE WHEN {value}>='{bound}' THEN {right} ELSE {left} END"
    return f"CASE WHEN {value}<'{bound}' THEN {left} ELSE {right} END"


# --- isolation forests ------------------------------------------------------------------------------------------------


def isolation_depth(body: Body, arrays: Mapping[str, NDArray[Any]], value: Callable[[int], str]) -> str:
    """The variable, of type float8, that holds the depth of a row's leaf, summed over the trees of an isolation forest.

    ``arrays`` as ``IsolationPredictor`` has them; ``value(j)`` is the variable of feature j.
    """
    check_depth(int(arrays["levels"][0]))
    body.size += len(arrays["feature"])
    return body.sum("float8", double(0.0), [_isolation_tree(arrays, int(root), value) for root in arrays["roots"]], _AT_ONCE)


def _isolation_tree(arrays: Mapping[str, NDArray[Any]], node: int, value: Callable[[int], str]) -> str:
    left, right = (int(child) for child in arrays["children"][node])
    if left == node:
        return double(arrays["depth"][node])
    sides = [_isolation_tree(arrays, child, value) for child in (left, right)]
    threshold = repr(float(arrays["threshold"][node]))
    return f"(CASE WHEN {value(int(arrays['feature'][node]))}<='{threshold}' THEN {sides[0]} ELSE {sides[1]} END)"
