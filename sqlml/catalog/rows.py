"""A version as rows of the catalog's tables, and who and when."""

from __future__ import annotations

import getpass
import os
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlml.bundles.manifest import Manifest
from sqlml.plan import InputColumn, TrainOutcome, TrainPlan


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
    plan: TrainPlan, outcome: TrainOutcome, manifest: Manifest, job_id: int, model_id: int, number: int
) -> dict[str, Any]:
    return {
        "uid": uuid.uuid4().hex[:12],
        "model_id": model_id,
        "version": number,
        "job_id": job_id,
        "algorithm": outcome.algorithm,
        "task": outcome.task.value,
        "target": plan.target,
        "target_sql_type": manifest.target_sql_type,
        "classes": list(manifest.classes),
        "example": dict(manifest.example),
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
        "libraries": dict(outcome.libraries),
        "host": outcome.host,
        "bundle_sha256": outcome.bundle_sha256,
        "notes": list(outcome.notes),
        "owner": user(),
        "created_at": now(),
    }


def input_rows(version_id: int, inputs: Sequence[InputColumn], encodings: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "version_id": version_id,
            "position": position,
            "name": column.name,
            "sql_type": column.sql_type,
            "kind": column.kind.value,
            "encoding": encodings[column.name],
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
