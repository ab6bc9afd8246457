"""What a statement means, once names and types are known.

    Statement → (binder) → TrainPlan → (session) → JobSpec + Arrow data → (runner) → TrainOutcome → (catalog) → a version

Frozen values that one stage hands to the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sqlml.types import Column, Kind, Task


@dataclass(frozen=True)
class InputColumn:
    """One input of a model: a column that it was trained on."""

    name: str
    sql_type: str  # the database's own name for the type it had in training
    kind: Kind


@dataclass(frozen=True)
class SplitPlan:
    """Which rows are held out: a seeded random part, the rows of another query, or none."""

    method: str  # random, query, none
    fraction: float = 0.0

    @property
    def text(self) -> str:
        return {"random": f"RANDOM {self.fraction:g}", "query": "VALIDATE ON", "none": "NONE"}[self.method]


@dataclass(frozen=True)
class Limits:
    """What a job may use: seconds, bytes, threads (None or 0: no limit but the machine's)."""

    seconds: float | None = None
    memory: int | None = None
    threads: int = 0


@dataclass(frozen=True)
class TrainPlan:
    """A TRAIN statement with every name and type settled.  ``query`` is what the engine runs to get the rows."""

    model: str
    algorithm: str | None  # None: chosen from the target's values
    target: str | None
    features: tuple[Column, ...]
    key: tuple[str, ...]
    excluded: tuple[str, ...]
    weight: str | None
    split: SplitPlan
    sample_rows: int | None
    options: Mapping[str, Any]
    seed: int
    limits: Limits
    runner: str
    query: str
    statement: str
    parameters: tuple[Any, ...] = ()


@dataclass(frozen=True)
class JobSpec:
    """A job as a document: everything a worker needs, JSON all the way down, plus Arrow files in its folder.

    The folder holds ``job.json`` (this), ``train.arrow`` and perhaps ``validation.arrow``; the worker adds ``events.jsonl``,
    ``job.log`` and, at the end, ``bundle/``, ``heldout.arrow`` and ``result.json``.
    """

    id: int
    kind: str  # train
    folder: Path
    model: str
    algorithm: str | None
    target: str | None
    features: tuple[Column, ...]
    weight: str | None
    split: SplitPlan
    options: Mapping[str, Any]
    seed: int
    limits: Limits = field(default_factory=Limits)

    def to_json(self) -> dict[str, Any]:
        document = asdict(self)
        document["folder"] = str(self.folder)
        document["options"] = dict(self.options)
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> JobSpec:
        fields = dict(document)
        fields["folder"] = Path(fields["folder"])
        fields["split"] = SplitPlan(**fields["split"])
        fields["limits"] = Limits(**fields["limits"])
        fields["features"] = tuple(
            Column(c["name"], c["sql_type"], Kind(c["kind"]) if c["kind"] else None) for c in fields["features"]
        )
        return cls(**fields)


@dataclass(frozen=True)
class TrainOutcome:
    """What a training job leaves behind, read back from its ``result.json``."""

    algorithm: str
    task: Task
    options: Mapping[str, Any]
    rows: int  # rows trained on, those for early stopping included
    heldout_rows: int
    fingerprint: str  # of all rows of the query, whatever their order
    metrics: Mapping[str, Mapping[str, float | None]]  # {"train": {...}, "heldout": {...}}
    curves: tuple[tuple[int, str, str, float], ...]  # step, split, metric, value
    bundle_sha256: str
    duration: float  # seconds in the job
    peak_memory: int  # bytes
    libraries: Mapping[str, str]
    host: str
    encodings: Mapping[str, str]  # input → what was done to it, for people
    notes: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> TrainOutcome:
        fields = dict(document)
        fields["task"] = Task(fields["task"])
        fields["curves"] = tuple((int(s), str(p), str(m), float(v)) for s, p, m, v in fields["curves"])
        fields["notes"] = tuple(fields["notes"])
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
