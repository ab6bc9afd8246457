"""A job read and settled: its rows, what is to be learnt of them, and how a set of heads is fitted on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sqlml.algorithms.options import VALIDATION_FRACTION
from sqlml.contracts import Report
from sqlml.errors import listing
from sqlml.features.profile import profile_notices
from sqlml.job_folder import TRAIN_ROWS, VALIDATION_ROWS
from sqlml.plan import JobSpec, SplitPlan, StartPlan, TrainPlan
from sqlml.training.aims import Aim, Learner, find_aims
from sqlml.training.divide import HeadTask, arrange, divide
from sqlml.training.features import Features, fit_features, model_inputs
from sqlml.training.fit import FittedHead, Room, fit_head
from sqlml.training.machine import available_cores, memory_budget
from sqlml.training.record import Record
from sqlml.training.rows import HeadRows
from sqlml.training.source import Source, read_source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sqlml.bundles.model import Model


@dataclass(frozen=True)
class Work:
    """What a job is given.  ``other`` has the rows of VALIDATE ON; ``start`` is the version to go on from."""

    plan: TrainPlan
    folder: Path
    threads: int
    source: Source
    other: Source | None
    start: Model | None
    aims: tuple[Aim, ...]
    room: Room

    @property
    def validated(self) -> bool:
        """Whether the held-out rows are those of VALIDATE ON."""
        return self.other is not None

    @property
    def held_source(self) -> Source:
        """Where the held-out rows are."""
        return self.other or self.source


@dataclass(frozen=True)
class Fitted:
    """What was learnt: the features, and the heads (none for a mere transform) on the rows ``train``."""

    features: Features
    heads: tuple[FittedHead, ...]
    train: NDArray[np.int64]


def read_work(spec: JobSpec, record: Record) -> Work:
    """Read a job's rows and settle what is to be learnt."""
    plan = spec.train
    threads = plan.limits.threads or available_cores()
    source = read_source(spec.folder / TRAIN_ROWS, plan, threads)
    start = _open(plan.start) if plan.start else None
    targets = [head.manifest.target for head in start.heads if head.manifest.target] if start else []
    aims = find_aims(plan, source, threads, record, targets)
    validated = plan.split.method == "query"
    other = read_source(spec.folder / VALIDATION_ROWS, plan, threads, split=False) if validated else None
    room = Room(spec.folder, memory_budget(plan.limits.memory), threads)
    return Work(plan, spec.folder, threads, source, other, start, aims, room)


def _open(start: StartPlan) -> Model:
    from sqlml.bundles.model import Model

    return Model.open(Path(start.bundle), start.sha256)


def divide_work(work: Work, record: Record, split: SplitPlan | None = None) -> tuple[HeadTask, ...]:
    """What each head has to do: its training and held-out rows."""
    return divide(work.aims, work.source, work.other, split or work.plan.split, work.plan.seed, record)


def fit_work(work: Work, tasks: Sequence[HeadTask], record: Record, reports: Sequence[Report] = (), tell: bool = False) -> Fitted:
    """Fit TRANSFORM on the heads' training rows, then every head.  ``tell``: say what stands out in the rows."""
    arranged = [_arrange(work, task, record) for task in tasks]
    trained = [rows.train.numbers for _, rows in arranged] or [work.source.data.order]
    train = trained[0] if len(trained) == 1 else work.source.in_order(np.concatenate(trained))
    if tell:
        for learner, rows in arranged:
            _profile(work, learner, rows, record)
    if work.plan.transform is not None:
        record.stage("transforming")
    features = fit_features(work.plan, work.source, work.other, train, work.start.transform if work.start else None)
    if tasks and tell:
        record.stage("training")
    starts = work.start.heads if work.start else [None] * len(tasks)
    heads = [
        fit_head(learner, rows, features, work.validated, report, work.room, start)
        for (learner, rows), report, start in zip(arranged, reports, starts, strict=True)
    ]
    return Fitted(features, tuple(heads), train)


def tell_frozen(work: Work, record: Record) -> None:
    """Say that TRANSFORM has state from an earlier training, which may have seen the rows that are measured on."""
    frozen = work.plan.transform.frozen if work.plan.transform is not None else ()
    if frozen:
        them, were = ("it", "was") if len(frozen) == 1 else ("they", "were")
        record.notice(
            f"TRANSFORM takes {listing(frozen)} as {them} {were} fitted before: held-out rows may have been among the rows "
            f"{them} {were} fitted on, and the figures too good"
        )


def _arrange(work: Work, task: HeadTask, record: Record) -> tuple[Learner, HeadRows]:
    fraction = task.learner.options.get(VALIDATION_FRACTION.name) or VALIDATION_FRACTION.default
    return arrange(task, work.source, work.plan.seed, fraction, record)


def _profile(work: Work, learner: Learner, rows: HeadRows, record: Record) -> None:
    """Say what a careful person would say on seeing the training rows; not of what TRANSFORM makes its own features from."""
    if work.plan.transform is not None:
        return
    inputs = model_inputs(work.plan)
    seen = (rows.train.numbers, rows.train.y)
    for text in profile_notices(work.source.data, inputs, learner.name, *seen, learner.task, work.threads):
        record.notice(text)


def without_stop(learner: Learner, rounds: int | None) -> Learner:
    """The same learner for a fit without rows to stop by: for so many rounds, where it stopped early before."""
    option = learner.algorithm.early_stopping
    if option is None or not learner.stops_early:
        return learner
    counted = learner.algorithm.rounds
    never = next((None if spec.default is None else 0 for spec in learner.algorithm.options if spec.name == option), None)
    changed = {option: never} | ({counted: rounds} if rounds and counted else {})
    return replace(learner, options={**learner.options, **changed})
