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
class TargetColumn:
    """A column that a version predicts: a class or a number.  ``classes`` in the order of the probabilities."""

    name: str
    sql_type: str  # of the prediction
    task: Task
    classes: tuple[Any, ...] = ()


@dataclass(frozen=True)
class SplitPlan:
    """Which rows are held out: a seeded random part, those that a column marks, the latest, the rows of another query, or none.

    ``fold`` holds out every row of one of ``folds`` seeded parts: number ``fold`` of 0 … folds-1.
    """

    method: str  # random, by, time, query, none, fold
    fraction: float = 0.0
    column: str | None = None  # of BY and TIME; never a feature
    fold: int = 0
    folds: int = 0

    @property
    def text(self) -> str:
        return {
            "random": f"RANDOM {self.fraction:g}",
            "by": f"BY {self.column}",
            "time": f"TIME {self.column} {self.fraction:g}",
            "query": "VALIDATE ON",
            "none": "NONE",
            "fold": f"fold {self.fold + 1} of {self.folds}",
        }[self.method]


@dataclass(frozen=True)
class TransformItem:
    """One item of TRANSFORM, as written: an SQL expression or a star, and the name given by AS."""

    text: str
    name: str | None = None


@dataclass(frozen=True)
class TransformPlan:
    """TRANSFORM with its names settled.  ``inputs`` are the columns that it reads, in the query's order.

    ``frozen`` holds, by the text of an item that names a transform-only model, that model's transform with its fitted state.
    """

    items: tuple[TransformItem, ...]
    inputs: tuple[Column, ...]
    frozen: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class TunePlan:
    """TUNE with its names settled.

    ``space`` maps an option to ``{"values": [...]}`` or to ``{"low": a, "high": b, "log": bool, "integer": bool}``.
    """

    space: Mapping[str, Mapping[str, Any]]
    method: str  # random, grid, bayesian
    trials: int
    metric: str
    maximize: bool


@dataclass(frozen=True)
class Limits:
    """What a job may use: seconds, bytes, threads (None or 0: no limit but the machine's)."""

    seconds: float | None = None
    memory: int | None = None
    threads: int = 0


@dataclass(frozen=True)
class TrainPlan:
    """A TRAIN statement with every name and type settled.

    ``features`` are the columns that are learnt from, or that TRANSFORM reads; ``query`` is the statement's own query.  JSON all
    the way down by ``to_json``: whoever has it can train again, or publish what a job has left.
    """

    model: str
    algorithm: str | None  # None: chosen from the target's values, as is a family such as random_forest
    targets: tuple[str, ...]
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
    transform: TransformPlan | None = None
    tune: TunePlan | None = None
    start: StartPlan | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> TrainPlan:
        fields = dict(document)
        for name in ("targets", "key", "excluded", "parameters"):
            fields[name] = tuple(fields[name])
        fields["features"] = tuple(_column(c) for c in fields["features"])
        fields["split"] = SplitPlan(**fields["split"])
        fields["limits"] = Limits(**fields["limits"])
        if fields["transform"] is not None:
            items = tuple(TransformItem(**item) for item in fields["transform"]["items"])
            inputs = tuple(_column(c) for c in fields["transform"]["inputs"])
            fields["transform"] = TransformPlan(items, inputs, fields["transform"]["frozen"])
        fields["tune"] = TunePlan(**fields["tune"]) if fields["tune"] else None
        fields["start"] = StartPlan(**fields["start"]) if fields["start"] else None
        return cls(**fields)


@dataclass(frozen=True)
class StartPlan:
    """The version that WARM START goes on from: its name, and its bundle."""

    name: str
    bundle: str
    sha256: str


@dataclass(frozen=True)
class PredictPlan:
    """A PREDICT MODEL statement for a runner: ``inputs`` of the version are taken by name from the rows, whose columns all stay.

    ``into`` is a table of the runner's own place, by its name's parts, with ``mode`` create, append or replace; None: the rows
    are left in the job's folder as ``predictions/*.parquet``.
    """

    model: str
    version: int
    bundle: str
    sha256: str
    limits: Limits
    runner: str
    statement: str
    into: tuple[str, ...] | None = None
    mode: str = "create"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> PredictPlan:
        fields = dict(document)
        fields["limits"] = Limits(**fields["limits"])
        fields["into"] = None if fields["into"] is None else tuple(fields["into"])
        return cls(**fields)


@dataclass(frozen=True)
class JobSpec:
    """A job as a document: everything a worker needs, JSON all the way down, plus Arrow files in its folder.

    The folder holds ``job.json`` (this), ``train.arrow`` and perhaps ``validation.arrow`` (a prediction's rows: ``rows.arrow``);
    the worker adds ``events.jsonl``, ``job.log`` and, at the end, ``result.json``; ``train`` also leaves ``bundle/``,
    ``heldout.arrow`` and ``sample.arrow``, ``predict`` the predictions; the names are in ``sqlml.job_folder``.  ``query`` (and
    ``validation``) stand in place of a file of rows where the runner itself reads the rows: SQL of the place where it runs.
    """

    id: int
    kind: str  # train; folds: cross-validation, which leaves figures alone; predict
    folder: Path
    plan: TrainPlan | PredictPlan
    query: str | None = None
    validation: str | None = None

    @property
    def by_query(self) -> bool:
        """Whether the runner reads all the rows itself."""
        alone = isinstance(self.plan, PredictPlan) or self.plan.split.method != "query"
        return self.query is not None and (alone or self.validation is not None)

    @property
    def train(self) -> TrainPlan:
        """The plan of a ``train`` or ``folds`` job."""
        if not isinstance(self.plan, TrainPlan):
            raise TypeError(f"a {self.kind} job has no TrainPlan")
        return self.plan

    def to_json(self) -> dict[str, Any]:
        fields = {"id": self.id, "kind": self.kind, "folder": str(self.folder), "plan": self.plan.to_json()}
        return fields | {"query": self.query, "validation": self.validation}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> JobSpec:
        kind = document["kind"]
        plan = (PredictPlan if kind == "predict" else TrainPlan).from_json(document["plan"])
        return cls(document["id"], kind, Path(document["folder"]), plan, document.get("query"), document.get("validation"))


@dataclass(frozen=True)
class PredictOutcome:
    """What a prediction job leaves behind: how many rows it scored."""

    rows: int
    duration: float  # seconds in the job
    notes: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> PredictOutcome:
        return cls(document["rows"], document["duration"], tuple(document["notes"]))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class TrainOutcome:
    """What a training job leaves behind, read back from its ``result.json``.

    With several targets a metric is named ``target.metric``, in ``metrics`` and in ``curves``.
    """

    algorithm: str
    options: Mapping[str, Any]
    rows: int  # rows trained on, those for early stopping included
    heldout_rows: int
    fingerprint: str  # of all rows of the query, whatever their order
    metrics: Mapping[str, Mapping[str, float | None]]  # "train", "heldout" → name → figure
    curves: tuple[tuple[int, str, str, float], ...]  # step, split, metric, value
    bundle_sha256: str
    duration: float  # seconds in the job
    peak_memory: int  # bytes
    libraries: Mapping[str, str]
    host: str
    encodings: Mapping[str, str]  # input → what was done to it, for people
    feature_info: tuple[Mapping[str, Any], ...]  # a row of ML.FEATURE_INFO for each input, of the training rows
    trials: tuple[Mapping[str, Any], ...] = ()  # of TUNE: trial, options, metrics, seconds, state
    notes: tuple[str, ...] = ()
    peak_gpu_memory: int = 0  # bytes

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> TrainOutcome:
        fields = dict(document)
        fields["curves"] = tuple((int(s), str(p), str(m), float(v)) for s, p, m, v in fields["curves"])
        for name in ("feature_info", "trials", "notes"):
            fields[name] = tuple(fields[name])
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class FoldsOutcome:
    """What cross-validation leaves behind: the held-out figures of each fold, in order, and how many rows took part."""

    algorithm: str
    metrics: tuple[Mapping[str, float | None], ...]
    rows: int
    notes: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> FoldsOutcome:
        return cls(document["algorithm"], tuple(document["metrics"]), document["rows"], tuple(document["notes"]))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _column(document: Mapping[str, Any]) -> Column:
    return Column(document["name"], document["sql_type"], Kind(document["kind"]) if document["kind"] else None)
