"""A version as rows of the catalog's tables, and who and when."""

from __future__ import annotations

import getpass
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlml.plan import InputColumn, TrainOutcome, TrainPlan

if TYPE_CHECKING:
    from sqlml.bundles.model import Model


def now() -> datetime:
    """The time in UTC, without a zone: the catalog's convention."""
    return datetime.now(UTC).replace(tzinfo=None)


@cache
def user() -> str:
    """Who owns what this process makes."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"


def version_row(
    plan: TrainPlan, outcome: TrainOutcome, model: Model, job_id: int, model_id: int, number: int, origin: str | None
) -> dict[str, Any]:
    targets = [asdict(head.manifest.target) for head in model.heads if head.manifest.target]
    signature = model.signature
    return {
        "uid": uuid.uuid4().hex[:12],
        "model_id": model_id,
        "version": number,
        "job_id": job_id,
        "algorithm": outcome.algorithm,
        "task": model.task.value,
        "target": targets[0]["name"] if targets else None,
        "targets": targets,
        "key_columns": list(plan.key),
        "result": signature.result,
        "added": [list(column) for column in signature.added],
        "transform": _transform_rows(model),
        "feature_info": [dict(row) for row in outcome.feature_info],
        "plan": json.loads(json.dumps(plan.to_json(), default=str)),
        "origin": origin,
        "example": dict(model.manifest.example),
        "statement": plan.statement,
        "parameters": [None if p is None else str(p) for p in plan.parameters],
        "query": plan.query,
        "options": dict(outcome.options),
        "seed": plan.seed,
        "split": plan.split.text,
        "rows": outcome.rows,
        "heldout_rows": outcome.heldout_rows,
        "fingerprint": outcome.fingerprint,
        "duration": outcome.duration,
        "peak_memory": outcome.peak_memory,
        "peak_gpu_memory": outcome.peak_gpu_memory,
        "libraries": dict(outcome.libraries),
        "host": outcome.host,
        "bundle_sha256": outcome.bundle_sha256,
        "notes": list(outcome.notes),
        "owner": user(),
        "created_at": now(),
    }


def _transform_rows(model: Model) -> list[dict[str, str]]:
    columns = model.transform.outputs if model.transform else ()
    return [{"name": c.name, "kind": c.kind.value, "sql": c.sql, "state": c.state} for c in columns]


def trial_rows(version_id: int, trials: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"version_id": version_id, **trial} for trial in trials]


def read_outcome(
    row: Mapping[str, Any],
    inputs: Sequence[Mapping[str, Any]],
    metrics: Sequence[Mapping[str, Any]],
    curves: Sequence[Mapping[str, Any]],
    trials: Sequence[Mapping[str, Any]],
) -> TrainOutcome:
    """What a version's job left behind, from the rows that keep it."""
    figures: dict[str, dict[str, float | None]] = {}
    for metric in metrics:
        figures.setdefault(metric["split"], {})[metric["metric"]] = metric["value"]
    return TrainOutcome(
        algorithm=row["algorithm"],
        options=row["options"],
        rows=row["rows"],
        heldout_rows=row["heldout_rows"],
        fingerprint=row["fingerprint"],
        metrics=figures,
        curves=tuple((c["step"], c["split"], c["metric"], c["value"]) for c in curves),
        bundle_sha256=row["bundle_sha256"],
        duration=row["duration"],
        peak_memory=row["peak_memory"],
        libraries=row["libraries"],
        host=row["host"],
        encodings={i["name"]: i["encoding"] for i in inputs},
        feature_info=tuple(row["feature_info"]),
        trials=tuple({key: value for key, value in trial.items() if key != "version_id"} for trial in trials),
        notes=tuple(row["notes"]),
        peak_gpu_memory=row["peak_gpu_memory"],
    )


def input_rows(version_id: int, inputs: Sequence[InputColumn], encodings: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "version_id": version_id,
            "position": position,
            "name": column.name,
            "sql_type": column.sql_type,
            "kind": column.kind.value,
            "encoding": encodings.get(column.name, ""),
        }
        for position, column in enumerate(inputs, 1)
    ]


def metric_rows(version_id: int, metrics: Mapping[str, Mapping[str, float | None]]) -> list[dict[str, Any]]:
    return [
        {"version_id": version_id, "split": split, "metric": name, "position": position, "value": value}
        for split, values in metrics.items()
        for position, (name, value) in enumerate(values.items(), 1)
    ]


def curve_row(version_id: int, step: int, split: str, metric: str, value: float) -> dict[str, Any]:
    return {"version_id": version_id, "step": step, "split": split, "metric": metric, "value": value}
