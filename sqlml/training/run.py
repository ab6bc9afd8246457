"""A training job from its rows to its outcome.

    train.arrow → rows in canonical order → split → TRANSFORM → encoder → feature matrices → fit → figures
                → bundle/, heldout.arrow, sample.arrow, TrainOutcome

Nothing here knows the database, the catalog or how the job was started.
"""

from __future__ import annotations

import platform
import re
import shutil
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.algorithms.metrics import Metrics
from sqlml.contracts import Report
from sqlml.errors import count_of
from sqlml.features.info import feature_info, infinite_notices
from sqlml.job_folder import BUNDLE, FITS
from sqlml.plan import InputColumn, JobSpec, TrainOutcome
from sqlml.training.bundle import import_exporters, write_bundle
from sqlml.training.divide import HeadTask, merge
from sqlml.training.features import model_inputs
from sqlml.training.fit import FittedHead, measure_rows, predicted, train_figures
from sqlml.training.kept import write_heldout, write_sample
from sqlml.training.machine import library_versions, peak_memory
from sqlml.training.record import Record, Silent
from sqlml.training.tune import tune
from sqlml.training.work import Fitted, Work, divide_work, fit_work, read_work, tell_frozen, without_stop

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class _Figures:
    """What the held-out rows say: metrics by part of the rows, and each head's scores of the held-out rows."""

    metrics: Mapping[str, Metrics]
    raws: Sequence[NDArray[Any]]


def run_training(spec: JobSpec, report: Report) -> TrainOutcome:
    """Train as the job says.  Writes ``bundle/``, ``heldout.arrow`` and ``sample.arrow`` into the job's folder.

    Raises ``TrainingDataError`` for data that cannot be learnt from, ``BindError`` for options, ``JobCancelled`` from the report.
    """
    record = Record(report)
    shutil.rmtree(spec.folder / BUNDLE, ignore_errors=True)
    record.stage("reading")
    work = read_work(spec, record)
    tasks = divide_work(work, record)
    tasks, trials = tune(work, tasks, record)
    fitted = fit_work(work, tasks, record, _reports(work, tasks, record), tell=True)
    if fitted.heads:
        threading.Thread(target=import_exporters, name="sqlml-imports", daemon=True).start()
    record.stage("evaluating")
    figures = _measure(fitted)
    _tell_frozen(work, fitted, record)
    if fitted.heads:
        write_heldout(work.folder, work.held_source, fitted.heads, figures.raws)
    final, rows = _refit(work, tasks, fitted, record)
    record.stage("saving")
    _keep_sample(work, fitted, final)
    inputs = model_inputs(work.plan)
    with ThreadPoolExecutor(1, thread_name_prefix="sqlml-info") as pool:  # Arrow's sums beside ONNX's Python
        info = pool.submit(feature_info, inputs, work.source.data.narrow, final.train, work.threads)
        sha256 = write_bundle(spec.folder / BUNDLE, work.source, inputs, final.features, final.heads, final.train)
    shutil.rmtree(spec.folder / FITS, ignore_errors=True)
    for text in infinite_notices(info.result()):
        record.notice(text)
    made = {"bundle_sha256": sha256, "trials": trials, "rows": rows, "feature_info": tuple(info.result())}
    return _outcome(work, fitted, final, figures, record, **made)


def _reports(work: Work, tasks: Sequence[HeadTask], record: Record) -> list[Report]:
    """Where each head's training tells its steps; they count on from those of the version that training goes on from."""
    rounds = work.start.predictor.parameters().get("rounds") if work.start and work.start.heads else None
    after = 0 if rounds is None else int(rounds[0])
    return [record.head(_prefix(tasks, task.learner.name), after) for task in tasks]


def _prefix(heads: Sequence[Any], target: str | None) -> str:
    return f"{target}." if len(heads) > 1 else ""


def _measure(fitted: Fitted) -> _Figures:
    metrics: dict[str, dict[str, float | None]] = {}
    raws = []
    for head in fitted.heads:
        raw = predicted(head, head.x.held)
        raws.append(raw)
        parts = {"train": train_figures(head)}
        if head.rows.held.known.any():
            parts["heldout"] = measure_rows(head, head.rows.held, head.x.held, raw)
        prefix = _prefix(fitted.heads, head.learner.name)
        for part, figures in parts.items():
            metrics.setdefault(part, {}).update({prefix + name: value for name, value in figures.items()})
    return _Figures(metrics, raws)


def _tell_frozen(work: Work, fitted: Fitted, record: Record) -> None:
    if any(head.rows.held.known.any() for head in fitted.heads):
        tell_frozen(work, record)


def _keep_sample(work: Work, fitted: Fitted, final: Fitted) -> None:
    """Held-out rows where there is a target to measure by; else training rows: limits and radii are of what was learnt from."""
    measured = bool(fitted.heads) and fitted.heads[0].learner.target is not None
    held = fitted.heads[0].rows.held.numbers if measured else final.train[:0]
    write_sample(work.folder, final.features, final.train, held, work.validated)


def _refit(work: Work, tasks: Sequence[HeadTask], fitted: Fitted, record: Record) -> tuple[Fitted, int]:
    """What goes into the bundle, and how many rows it was trained on: fitted again on all rows where that is asked for."""
    trained = _trained_rows(work, fitted.heads) if fitted.heads else len(fitted.train)
    wanted = bool(fitted.heads) and all(head.learner.options.get("refit") for head in fitted.heads)
    if not wanted or work.validated or not len(fitted.heads[0].rows.held):
        return fitted, trained
    record.stage("refitting")
    after = [_everything(work, task, head) for task, head in zip(tasks, fitted.heads, strict=True)]
    again = fit_work(work, after, record, [Silent(record)] * len(after))
    trained = _trained_rows(work, again.heads)
    record.notice(
        f"refit: the figures are of the held-out rows; the model was then fitted again on all {count_of(trained, 'row')}"
    )
    return again, trained


def _everything(work: Work, task: HeadTask, head: FittedHead) -> HeadTask:
    """All rows to learn from, and nothing that stops early."""
    after = int(work.start.predictor.parameters().get("rounds", [0])[0]) if work.start else 0
    held = task.held.pick(task.held.known)
    learner = without_stop(task.learner, None if head.rounds is None else head.rounds - after)
    return HeadTask(learner, merge(work.source, task.plain, task.marked, held), task.marked.none(), task.held.none())


def _trained_rows(work: Work, heads: Sequence[FittedHead]) -> int:
    """How many rows any head was trained on, those for early stopping included."""
    seen = np.zeros(work.source.size, bool)
    for head in heads:
        seen[head.rows.train.numbers] = seen[head.rows.valid.numbers] = True
    return int(seen.sum())


def _outcome(work: Work, fitted: Fitted, final: Fitted, figures: _Figures, record: Record, **more: Any) -> TrainOutcome:
    """The figures are of the first fit; what is told of the inputs is of the final one, which lies in the bundle."""
    learners = [head.learner for head in fitted.heads]
    algorithms = [learner.algorithm for learner in learners]
    names = list(dict.fromkeys(algorithm.name for algorithm in algorithms)) or [work.plan.algorithm or ""]
    return TrainOutcome(
        algorithm=", ".join(names),
        options={name: value for learner in learners for name, value in learner.options.items()} or {"seed": work.plan.seed},
        heldout_rows=len(fitted.heads[0].rows.held) if fitted.heads else 0,
        fingerprint=work.source.data.fingerprint,
        metrics=figures.metrics,
        curves=tuple(record.curves),
        duration=record.seconds,
        peak_memory=peak_memory(),
        peak_gpu_memory=max((h.predictor.gpu_memory for h in (*fitted.heads, *final.heads)), default=0),
        libraries=library_versions(algorithms),
        host=platform.node(),
        encodings=_encodings(final, model_inputs(work.plan)),
        notes=tuple(record.notes),
        **more,
    )


def _encodings(fitted: Fitted, inputs: Sequence[InputColumn]) -> dict[str, str]:
    """What was done to each input, for people; with TRANSFORM the features that are made of it."""
    transform = fitted.features.transform
    if transform is None:
        return dict(fitted.heads[0].encoder.describe()) if fitted.heads else {}
    lines = {i.name: [f"{name} = {line}" for name, line in transform.describe() if _mentions(line, i.name)] for i in inputs}
    return {name: "; ".join(made) or "read by TRANSFORM" for name, made in lines.items()}


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE) is not None
