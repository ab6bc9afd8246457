"""The runner without a process: the job runs in the thread that waits for it.  For small jobs, tests and debugging.

Cancelling and the time limit act between steps; a memory limit cannot be held and is refused.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from sqlml.contracts import Event, Resources
from sqlml.errors import JobCancelled, JobTimeout, NotSupportedError
from sqlml.job_folder import LOG
from sqlml.plan import JobSpec, PredictPlan, TrainPlan
from sqlml_runners.checks import check_gpu
from sqlml_runners.process import ProcessRunner
from sqlml_runners.worker import EventWriter, error_of, run_job


class InlineRunner:
    """Runs jobs in the session's own process."""

    name = "inline"
    type = "inline"
    kinds = frozenset({"train", "folds"})
    reads = False

    def check(self, kind: str, plan: TrainPlan | PredictPlan, *, by_query: bool = False) -> None:
        """A memory limit and a GPU that is not there are refused."""
        if plan.limits.memory:
            raise NotSupportedError(
                "the runner inline cannot hold a memory limit",
                hint="leave out LIMIT (MEMORY …), or take ON process",
                about="limit",
            )
        check_gpu(plan)

    def submit(self, spec: JobSpec) -> InlineJob:
        self.check(spec.kind, spec.plan, by_query=spec.by_query)
        return InlineJob(spec)

    def resources(self) -> Resources:
        return ProcessRunner().resources()


class InlineJob:
    """A job that runs inside ``wait``."""

    pid: int | None = None

    def __init__(self, spec: JobSpec) -> None:
        self._spec = spec
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        self._cancelled.set()

    def wait(self, on_event: Callable[[Event], None]) -> None:
        """Run the job; see ``JobHandle.wait``."""
        failures: list[Event] = []
        raised: list[BaseException] = []

        def follow(event: Event) -> None:
            if event["event"] == "failed":
                failures.append(event)
            if raised:
                return  # the job is on its way out
            try:
                on_event(event)
            except BaseException as error:
                raised.append(error)
                raise JobCancelled("cancelled") from None

        with (self._spec.folder / LOG).open("a", encoding="utf-8") as log:
            report = _Following(self._spec, log, follow, self._cancelled)
            run_job(self._spec, report)
            report.close()
        if raised:
            raise raised[0]  # what the listener said, not what the job made of it
        if failures:
            raise error_of(failures[0])


class _Following(EventWriter):
    """Writes each event, hands it on, and stops the job when it is cancelled or late."""

    def __init__(self, spec: JobSpec, log: Any, follow: Callable[[Event], None], cancelled: threading.Event) -> None:
        super().__init__(spec.folder, log)
        self._follow = follow
        self._cancelled = cancelled
        self._seconds = spec.plan.limits.seconds
        self._started = time.monotonic()

    def write(self, event: Mapping[str, Any]) -> None:
        super().write(event)
        self._follow(event)

    def step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        super().step(step, total, metrics)
        if self._cancelled.is_set():
            raise JobCancelled("cancelled")
        if self._seconds and time.monotonic() - self._started > self._seconds:
            raise JobTimeout(f"the job passed its time limit of {self._seconds:g} s and was stopped")
