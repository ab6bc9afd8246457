"""What TRAIN MODEL answers: a row for what was learnt, for each target one, and a line about the held-out rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlml.algorithms.metrics import HEADLINES
from sqlml.bundles.manifest import Manifest
from sqlml.catalog import Version
from sqlml.errors import count_of
from sqlml.plan import TrainOutcome, TrainPlan
from sqlml.statements.result import Result, own_columns, rows_result
from sqlml.types import Column, Task

_SHOWN = 3
"""So many figures of a task."""


def train_result(plan: TrainPlan, outcome: TrainOutcome, version: Version) -> Result:
    """The new version with its main figures; for a mere transform the columns that it makes."""
    row = {"model": version.model, "version": version.version, "algorithm": version.algorithm}
    row |= {"rows": outcome.rows, "seconds": outcome.duration}
    if version.task is Task.TRANSFORM:
        made = ", ".join(name for name, _ in version.added)
        footer = f"fitted on {count_of(outcome.rows, 'row')}"
        return rows_result([row | {"columns": made}], _columns(version.task), footer=footer)
    part = "heldout" if outcome.metrics.get("heldout") else "train"
    metrics = outcome.metrics.get(part) or {}
    footer = _footer(plan, outcome, part)
    if len(version.targets) < 2:
        shown = _shown(version.task, metrics)
        return rows_result([row | shown], _columns(version.task, shown), footer=footer)
    rows = []
    for head in Manifest.read(version.bundle).heads:
        target = head.target.name if head.target else ""
        own = {name.removeprefix(f"{target}."): value for name, value in metrics.items() if name.startswith(f"{target}.")}
        rows.append(row | {"target": target, "algorithm": head.algorithm} | _shown(head.task, own))
    names = dict.fromkeys(name for one in rows for name in one if name not in row and name != "target")
    columns = _columns(version.task, names, several=True)
    return rows_result([{name: one.get(name) for name, _ in columns} for one in rows], columns, footer=footer)


def trained_columns(task: Task, *, several: bool) -> tuple[Column, ...]:
    """The columns of the answer to a TRAIN of a task, before anybody has trained; ``several`` targets."""
    return own_columns(_columns(task, HEADLINES[task], several=several))


def _columns(task: Task, figures: Iterable[str] = (), *, several: bool = False) -> list[tuple[str, str]]:
    columns = [("model", "string"), ("version", "int64"), *([("target", "string")] if several else [])]
    columns += [("algorithm", "string"), ("rows", "int64")]
    made = [("columns", "string")] if task is Task.TRANSFORM else [(name, "double") for name in figures]
    return [*columns, *made, ("seconds", "double")]


def _shown(task: Task, metrics: Mapping[str, float | None]) -> dict[str, Any]:
    names = [name for name in (*HEADLINES[task], *metrics) if name in metrics]
    return {name: metrics[name] for name in list(dict.fromkeys(names))[:_SHOWN]}


def _footer(plan: TrainPlan, outcome: TrainOutcome, part: str) -> str:
    if part == "train":
        return "no rows were held out: the figures are of the rows trained on"
    method = plan.split.method
    how = plan.split.text + (f", seed {plan.seed}" if method == "random" else "")
    sample = f"; a sample of {plan.sample_rows:,} rows" if plan.sample_rows else ""
    again = "; then fitted again on all of them" if outcome.options.get("refit") else ""
    return f"held-out: {count_of(outcome.heldout_rows, 'row')} ({how}{sample}){again}"
