"""TUNE: options tried out on a part of the training rows, the best of them taken.

The held-out rows take no part: trials learn from one part of the training rows and are measured on another.
"""

from __future__ import annotations

import math
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.errors import Error, JobError, TrainingDataError, count_of, listing
from sqlml.features.split import latest
from sqlml.plan import TunePlan
from sqlml.training.divide import HeadTask
from sqlml.training.fit import measure_rows
from sqlml.training.goals import GOALS
from sqlml.training.record import Record, Silent
from sqlml.training.rows import Rows
from sqlml.training.search import Search, make_search
from sqlml.training.work import Work, fit_work
from sqlml.types import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

FRACTION = 0.2
"""The part of the training rows that trials are measured on, where SPLIT does not mark any."""
TIME_SHARE = 0.7
"""When so much of the job's time is used, no further trial begins: the best one must still be fitted."""


@dataclass(frozen=True)
class Trial:
    """One set of options, and what came of it."""

    number: int
    options: Mapping[str, Any]
    metrics: Mapping[str, float | None]
    seconds: float
    error: str | None = None

    def to_json(self, chosen: int) -> dict[str, Any]:
        return {
            "trial": self.number,
            "options": dict(self.options),
            "metrics": dict(self.metrics),
            "seconds": self.seconds,
            "state": "failed" if self.error else "done",
            "chosen": self.number == chosen,
        }


def tune(work: Work, tasks: tuple[HeadTask, ...], record: Record) -> tuple[tuple[HeadTask, ...], tuple[Mapping[str, Any], ...]]:
    """The tasks with the best options found, and the trials.  ``TrainingDataError`` where every trial failed."""
    plan = work.plan.tune
    if plan is None or len(tasks) != 1:
        return tasks, ()
    record.stage("tuning")
    task = tasks[0]
    plan = _with_goal(plan, task.learner.task)
    trials = _run_trials(work, task, plan, make_search(plan, work.plan.seed), record)
    done = [trial for trial in trials if trial.error is None]
    if not done:
        raise TrainingDataError(f"TUNE: all {count_of(len(trials), 'trial')} failed; the first: {trials[0].error}", about="tune")
    sign = 1 if plan.maximize else -1
    best = max(done, key=lambda trial: (sign * (trial.metrics[plan.metric] or 0.0), -trial.number))
    _tell(plan, trials, best, record)
    chosen = (replace(task, learner=task.learner.with_options(best.options)),)
    return chosen, tuple(trial.to_json(best.number) for trial in trials)


def _with_goal(plan: TunePlan, task: Task) -> TunePlan:
    """With the metric of the task, where the statement names none."""
    goals = GOALS[task]
    if not plan.metric:
        metric = next(iter(goals))
        return replace(plan, metric=metric, maximize=goals[metric])
    if plan.metric not in goals:
        raise TrainingDataError(
            f"TUNE aims at {plan.metric}, which a {task} does not have", hint=f"it has: {', '.join(goals)}", about="tune"
        )
    return plan


def _run_trials(work: Work, task: HeadTask, plan: TunePlan, search: Search, record: Record) -> list[Trial]:
    learn, measured = _divide(work, task)
    trials: list[Trial] = []
    seconds = work.plan.limits.seconds
    while len(trials) < plan.trials:
        if trials and seconds and record.seconds > TIME_SHARE * seconds:
            of = f"{len(trials)} of {plan.trials}"
            record.notice(f"TUNE stopped after {of} trials: most of the time limit of {seconds:g} s is used")
            break
        options = search.ask()
        if options is None:
            break
        trial = _run_trial(work, replace(task, plain=learn, marked=learn.none(), held=measured), options, plan, len(trials) + 1)
        search.tell(None if trial.error else trial.metrics[plan.metric])
        trials.append(trial)
        figures = {f"valid_{name}": trial.metrics[name] for name in (plan.metric,) if trial.metrics.get(name) is not None}
        record.step(trial.number, plan.trials, {name: value for name, value in figures.items() if value is not None})
    return trials


def _divide(work: Work, task: HeadTask) -> tuple[Rows, Rows]:
    """(rows to learn from, rows to measure on) of the training rows: the marked ones, the latest, or a seeded part."""
    if len(task.marked):
        return task.plain, task.marked
    seed = work.plan.seed + 2
    if work.plan.split.method != "time":
        return task.plain.divide(FRACTION, seed, task.learner.stratifies)
    from sqlml.features.dataset import take

    values = take(work.source.data.column(work.plan.split.column or ""), task.plain.numbers)
    last: NDArray[np.bool_] = latest(values, FRACTION)
    return (task.plain.pick(~last), task.plain.pick(last)) if last.any() else task.plain.divide(FRACTION, seed, False)


def _run_trial(work: Work, task: HeadTask, options: Mapping[str, Any], plan: TunePlan, number: int) -> Trial:
    started = time.perf_counter()
    inner = replace(work, other=None)
    metrics: Mapping[str, float | None] = {}
    try:
        trying = replace(task, learner=task.learner.with_options(options))
        head = fit_work(inner, (trying,), Record(Silent()), [Silent()]).heads[0]
        metrics = measure_rows(head, head.rows.held, head.x.held)
        value = metrics.get(plan.metric)
        error = None if value is not None and math.isfinite(value) else f"{plan.metric} is not defined for the validation rows"
    except (JobError, MemoryError):
        raise
    except Exception as failure:
        traceback.print_exc(file=sys.stderr)  # into the job's log
        error = failure.message if isinstance(failure, Error) else f"{type(failure).__name__}: {failure}"
    return Trial(number, dict(options), metrics, time.perf_counter() - started, error)


def _tell(plan: TunePlan, trials: Sequence[Trial], best: Trial, record: Record) -> None:
    failed = [trial for trial in trials if trial.error]
    if failed:
        record.notice(f"TUNE: {len(failed)} of {count_of(len(trials), 'trial')} failed; the first: {failed[0].error}")
    chosen = listing(f"{name} = {value}" for name, value in best.options.items())
    record.notice(f"TUNE: {chosen} ({plan.metric} {best.metrics[plan.metric]:.6g}, trial {best.number} of {len(trials)})")
