"""Training jobs for tests: a job's folder from an Arrow table, and a report that remembers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from sqlml.bundles.model import Model
from sqlml.plan import JobSpec, Limits, SplitPlan, TrainOutcome
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


def write_arrow(path: Path, table: pa.Table, stream: bool = True) -> None:
    """Write a table as an Arrow IPC stream or file."""
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema) as writer:
        writer.write_table(table)


def make_job(
    folder: Path,
    table: pa.Table,
    target: str | None,
    algorithm: str | None = None,
    *,
    exclude: Sequence[str] = (),
    weight: str | None = None,
    split: SplitPlan | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    validation: pa.Table | None = None,
    threads: int = 2,
) -> JobSpec:
    """A job's folder and its document."""
    folder.mkdir(parents=True, exist_ok=True)
    write_arrow(folder / "train.arrow", table)
    if validation is not None:
        write_arrow(folder / "validation.arrow", validation)
    kinds = {f.name: kind_of_arrow(f.type) for f in table.schema}
    features = tuple(
        Column(name, SQL_TYPE[kind] if kind else "?", kind)
        for name, kind in kinds.items()
        if name not in {target, weight, *exclude}
    )
    split = split or (SplitPlan("query") if validation is not None else SplitPlan("random", 0.2))
    return JobSpec(
        1, "train", folder, "m", algorithm, target, features, weight, split, options or {}, seed, Limits(threads=threads)
    )


def train(
    folder: Path, table: pa.Table, target: str | None, algorithm: str | None = None, **how: Any
) -> tuple[Model, TrainOutcome, Recorder]:
    """Run a job to its end and open what it left."""
    spec = make_job(folder, table, target, algorithm, **how)
    report = Recorder()
    outcome = run_training(JobSpec.from_json(spec.to_json()), report)
    return Model.open(spec.folder / "bundle", outcome.bundle_sha256), outcome, report
