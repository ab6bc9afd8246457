"""Targets of versions and queries that have left an endpoint: what turned out to be true of their predictions may be told late.

    targets of the versions that stay and of those that leave → among the endpoint's options as JSON → feedback over HTTP

A worker knows no catalog, so an endpoint's options tell it.  Everything here is a pure function.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from sqlml.plan import TargetColumn
from sqlml.types import Task

EARLIER_TARGETS = "earlier_targets"
"""Under this name they lie among an endpoint's options."""
MOST = 32
"""So many are kept, the last ones."""


def earlier_targets(options: Mapping[str, Any]) -> tuple[TargetColumn, ...]:
    """Those among an endpoint's options, the last ones last."""
    return tuple(target_of(document) for document in options.get(EARLIER_TARGETS) or ())


def target_of(document: Mapping[str, Any]) -> TargetColumn:
    """A target as the catalog keeps it."""
    return TargetColumn(document["name"], document["sql_type"], Task(document["task"]), tuple(document["classes"]))


def with_targets(options: Mapping[str, Any], staying: Iterable[TargetColumn], earlier: Iterable[TargetColumn]) -> dict[str, Any]:
    """Options with those of ``earlier`` whose truths can be others than those of the versions that stay."""
    own = {name: value for name, value in options.items() if name != EARLIER_TARGETS}
    there = {_truths(target) for target in staying}
    found = {_truths(target): target for target in earlier if _truths(target) not in there}
    kept = [asdict(target) for target in list(found.values())[-MOST:]]
    return own | {EARLIER_TARGETS: kept} if kept else own


def _truths(target: TargetColumn) -> Hashable:
    """What can turn out to be true of a target: the same for two that cannot be told apart by it."""
    if target.task is not Task.CLASSIFICATION:
        return target.name.lower(), None
    return target.name.lower(), tuple(sorted(map(repr, target.classes)))
