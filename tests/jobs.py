"""Training jobs for tests: a job's folder from an Arrow table, and a report that remembers."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sqlml.bundles.model import Model
from sqlml.features.transform import plan_transform
from sqlml.plan import JobSpec, Limits, SplitPlan, TrainOutcome, TrainPlan, TransformItem
from sqlml.training import run_training
from sqlml.types import SQL_TYPE, Column, kind_of_arrow


class Recorder:
    """A report that keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int, dict[str, float]]] = []
        self.notices: list[str] = []
        self.stages: list[str] = []

    def step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        self.steps.append((step, total, dict(metrics)))

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def stage(self, name: str) -> None:
        self.stages.append(name)


def people(n: int = 400, seed: int = 0) -> pa.Table:
    """Rows with every kind of column, NULLs everywhere, and targets of every type."""
    r = np.random.default_rng(seed)
    x = r.normal(size=n)

    def gap(values: Iterable[Any]) -> pa.Array:
        return pa.array([None if r.random() < 0.1 else v for v in values])

    y = x + r.normal(scale=0.3, size=n)
    return pa.table(
        {
            "x": gap(x.tolist()),
            "count of": gap(r.integers(0, 9, n).tolist()),
            "町": gap(r.choice(["東京", "大阪", 'a"b'], n).tolist()),
            "ok": gap((r.random(n) < 0.5).tolist()),
            "day": gap([dt.date(2024, 1, 1) + dt.timedelta(int(d)) for d in r.integers(0, 900, n)]),
            "at": gap([dt.datetime(2024, 1, 1) + dt.timedelta(minutes=int(m)) for m in r.integers(0, 10**6, n)]),
            "clock": gap([dt.time(int(h)) for h in r.integers(0, 24, n)]),
            "y": pa.array(np.where(y > 0, "yes", "no")),
            "z": pa.array(y * 10),
            "w": pa.array(r.random(n)),
        }
    )


def write_arrow(path: Path, table: pa.Table, stream: bool = True) -> None:
    """Write a table as an Arrow IPC stream or file."""
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema) as writer:
        writer.write_table(table)


def make_job(
    folder: Path,
    table: pa.Table,
    target: str | Sequence[str] | None,
    algorithm: str | None = None,
    *,
    exclude: Sequence[str] = (),
    weight: str | None = None,
    key: Sequence[str] = (),
    split: SplitPlan | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    validation: pa.Table | None = None,
    threads: int = 2,
    transform: Sequence[str] = (),
    kind: str = "train",
    **plan: Any,
) -> JobSpec:
    """A job's folder and its document.

    ``target`` is one name or several; ``transform`` are items such as ``ML.STANDARD_SCALER(x) OVER () AS s``; ``plan`` are
    further fields of the plan.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_arrow(folder / "train.arrow", table)
    if validation is not None:
        write_arrow(folder / "validation.arrow", validation)
    targets = () if target is None else (target,) if isinstance(target, str) else tuple(target)
    split = split or (SplitPlan("query") if validation is not None else SplitPlan("random", 0.2))
    apart = {*targets, weight, *key, *exclude, split.column}
    kinds = {f.name: kind_of_arrow(f.type) for f in table.schema if f.name not in apart}
    features = tuple(Column(name, SQL_TYPE[kind] if kind else "?", kind) for name, kind in kinds.items())
    made = plan_transform([_item(text) for text in transform], features, {})[0] if transform else None
    settled = TrainPlan(
        model="m",
        algorithm=algorithm,
        targets=targets,
        features=made.inputs if made else features,
        key=tuple(key),
        excluded=tuple(exclude),
        weight=weight,
        split=split,
        sample_rows=None,
        options=options or {},
        seed=seed,
        limits=plan.pop("limits", Limits(threads=threads)),
        runner="inline",
        query="FROM t",
        statement="TRAIN MODEL m",
        transform=made,
        **plan,
    )
    return JobSpec(1, kind, folder, settled)


def _item(text: str) -> TransformItem:
    expression, _, name = text.rpartition(" AS ")
    return TransformItem(expression or name, name if expression else None)


def run(spec: JobSpec) -> tuple[Model, TrainOutcome, Recorder]:
    """Run a job to its end and open what it left."""
    report = Recorder()
    document = json.loads(json.dumps(spec.to_json(), default=str))
    outcome = run_training(JobSpec.from_json(document), report)
    return Model.open(spec.folder / "bundle", outcome.bundle_sha256), outcome, report


def train(
    folder: Path, table: pa.Table, target: str | Sequence[str] | None, algorithm: str | None = None, **how: Any
) -> tuple[Model, TrainOutcome, Recorder]:
    """Make a job, run it, and open what it left."""
    return run(make_job(folder, table, target, algorithm, **how))
