"""Cross-validation: every row held out once, figures alone are left."""

from __future__ import annotations

import shutil

from sqlml.contracts import Report
from sqlml.errors import TrainingDataError
from sqlml.job_folder import FITS
from sqlml.plan import FoldsOutcome, JobSpec, SplitPlan
from sqlml.training.fit import measure_rows
from sqlml.training.record import Record, Silent
from sqlml.training.work import Work, divide_work, fit_work, read_work, tell_frozen


def run_folds(spec: JobSpec, report: Report) -> FoldsOutcome:
    """Train on all folds but one and measure on that one, for each of ``plan.split.folds``.  Writes nothing.

    TRANSFORM and encoders are fitted in each fold anew, on its training rows.  Raises what ``run_training`` raises.
    """
    record = Record(report)
    record.stage("reading")
    work = read_work(spec, record)
    if not work.aims:
        raise TrainingDataError("the model only transforms: there is nothing to measure")
    tell_frozen(work, record)
    folds = spec.train.split.folds
    record.stage("training")
    metrics = []
    for fold in range(folds):
        figures = _run_fold(work, fold, folds, record)
        metrics.append(figures)
        shown = {f"heldout_{name}": value for name, value in figures.items() if value is not None}
        record.step(fold + 1, folds, shown)
    shutil.rmtree(spec.folder / FITS, ignore_errors=True)
    names = dict.fromkeys(aim.learner.algorithm.name for aim in work.aims)
    return FoldsOutcome(", ".join(names), tuple(metrics), _rows(work), tuple(record.notes))


def _run_fold(work: Work, fold: int, folds: int, record: Record) -> dict[str, float | None]:
    tasks = divide_work(work, record, SplitPlan("fold", fold=fold, folds=folds))
    fitted = fit_work(work, tasks, Record(Silent(record)), [Silent()] * len(tasks))
    figures: dict[str, float | None] = {}
    for head in fitted.heads:
        prefix = f"{head.learner.name}." if len(fitted.heads) > 1 else ""
        if head.rows.held.known.any():
            measured = measure_rows(head, head.rows.held, head.x.held)
            figures |= {prefix + name: value for name, value in measured.items()}
    return figures


def _rows(work: Work) -> int:
    """How many rows took part: those with a target, where there is one."""
    if len(work.aims) > 1 or work.aims[0].y is None:
        return work.source.size
    y = work.aims[0].y
    return int((y >= 0).sum() if y.dtype.kind == "i" else (y == y).sum())
