"""The Spark runner: a job is a thread of the session's own process, which is Spark's driver; the work is done by the cluster.

One Spark session serves all jobs and connections of the process; it is opened by the first that needs it.
"""

from __future__ import annotations

import json
import queue
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from sqlml.connections import CONNECTION_TYPES
from sqlml.contracts import Event, OptionSpec, Resources
from sqlml.errors import Error, InternalError, JobCancelled, JobTimeout, MissingExtra, NotSupportedError
from sqlml.job_folder import DOCUMENT, LOG, RESULT
from sqlml.plan import JobSpec, PredictPlan, TrainPlan
from sqlml.spark_common.errors import is_spark_error, spark_error
from sqlml.spark_common.session import open_spark, spark_log
from sqlml_runners.checks import check_gpu
from sqlml_runners.spark.checks import check_limits, check_staging, check_training, check_workers, is_local, master_of
from sqlml_runners.spark.cluster import Cluster
from sqlml_runners.worker import EventWriter, error_of, write_atomically

POLL_SECONDS = 0.05
GRACE_SECONDS = 20.0
"""So long a job that was told to stop may take to end: Spark stops its tasks one by one."""

OPTIONS = (
    *CONNECTION_TYPES["spark"],
    OptionSpec("workers", "int", None, "how many tasks train an xgboost model together; left out: as many as run at once", low=1),
)
"""What a connection of type spark takes, and more."""


class SparkRunner:
    """Runs jobs on a Spark cluster."""

    type = "spark"
    kinds = frozenset({"train", "predict"})
    reads = True
    options: tuple[OptionSpec, ...] = OPTIONS

    def __init__(self, name: str = "spark", options: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self._options = {key: value for key, value in (options or {}).items() if value is not None}
        if self._options.get("master") and self._options.get("connect"):
            raise NotSupportedError(f"runner {name}: master and connect exclude each other", hint="give one of the two")

    def session(self) -> Any:
        """The Spark session, opened when first asked for; it stays until the process ends."""
        return open_spark(self._options)

    def check(self, kind: str, plan: TrainPlan | PredictPlan, *, by_query: bool = False) -> None:
        """What can be told without Spark; the rest is told by the job, once it has its session."""
        check_limits(plan, self.name)
        if isinstance(plan, TrainPlan):
            check_training(kind, plan, self.name, bool(self._options.get("connect")))
            check_workers(plan, self._options)
        if not by_query or (isinstance(plan, PredictPlan) and plan.into is None):
            check_staging(self._options, self.name)
            if str(self._options.get("master", "")).startswith("local"):
                check_gpu(plan)

    def submit(self, spec: JobSpec) -> SparkJob:
        """Start the job's thread."""
        self.check(spec.kind, spec.plan, by_query=spec.by_query)
        document = spec.folder / DOCUMENT
        document.write_text(json.dumps(spec.to_json(), ensure_ascii=False, default=str), encoding="utf-8")
        return SparkJob(spec, self._cluster)

    def detached(self) -> str | None:
        """A Spark on this machine lives and dies with its process, so a job that outlives ours has one of its own."""
        if self._options.get("connect") or not is_local(self._options):
            return None
        master = master_of(self._options)
        return (
            f"the job starts a Spark of its own ({master}), since the one here ends with this process; its rows are taken along"
        )

    def _cluster(self) -> Cluster:
        return Cluster(self.session(), self._options, self.name)

    def resources(self) -> Resources:
        """The tasks that run at once, and the memory that executors have for data; opens the session."""
        cluster = self._cluster()
        return Resources(cluster.parallelism(), cluster.memory())


class SparkJob:
    """A job in its thread.  Everything it asks of Spark bears its tag, by which it is stopped."""

    pid: int | None = None

    def __init__(self, spec: JobSpec, cluster: Callable[[], Cluster]) -> None:
        self._spec = spec
        self._make_cluster = cluster
        self._cluster: Cluster | None = None
        self._tag = f"sqlml-{uuid.uuid4().hex}"
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._stop = threading.Event()
        seconds = spec.plan.limits.seconds
        self._deadline = time.monotonic() + seconds if seconds else None
        self._thread = threading.Thread(target=self._run, name=f"sqlml-spark-job-{spec.id}", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Ask the job to stop, from any thread."""
        self._stop.set()
        cluster = self._cluster
        if cluster is not None:
            cluster.stop(self._tag)

    def wait(self, on_event: Callable[[Event], None]) -> None:
        """Follow the job to its end; see ``JobHandle.wait``."""
        failure: Event | None = None
        try:
            running = True
            while running:
                running = self._thread.is_alive()
                for event in self._waiting():
                    failure = event if event["event"] == "failed" else failure
                    on_event(event)
                if self._stop.is_set():
                    raise JobCancelled("cancelled")
                if running:
                    self._check_time()
        finally:
            self._end()
        if failure:
            raise error_of(failure)

    def _waiting(self) -> list[Event]:
        """Events that have come; waits a moment for the first."""
        found: list[Event] = []
        try:
            found.append(self._events.get(timeout=POLL_SECONDS))
            while True:
                found.append(self._events.get_nowait())
        except queue.Empty:
            return found

    def _check_time(self) -> None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise JobTimeout(
                f"job {self._spec.id} passed its time limit of {self._spec.plan.limits.seconds:g} s and was stopped",
                hint="give it more with LIMIT (TIME '…'), or less to do: LIMIT (ROWS n), fewer rounds",
            )

    def _end(self) -> None:
        """Stop what still runs.  Between two pieces of work there is nothing to stop: ask again until the thread has ended."""
        until = time.monotonic() + GRACE_SECONDS
        while self._thread.is_alive() and time.monotonic() < until:
            self.cancel()
            self._thread.join(0.3)

    # --- in the thread ---

    def _run(self) -> None:
        try:
            with (self._spec.folder / LOG).open("a", encoding="utf-8") as log:
                self._work(_Report(self._spec, log, self._events, self._stop))
        except BaseException as error:  # there is no log, or it cannot be written any more
            self._events.put(_failure(_error(error)))

    def _work(self, report: _Report) -> None:
        mark = _log_size()
        try:
            self._cluster = cluster = self._make_cluster()
            mark = _log_size() if mark is None else mark
            cluster.tagged(self._tag)
            outcome = _carry_out(self._spec, cluster, report)
            write_atomically(self._spec.folder / RESULT, json.dumps(outcome.to_json(), ensure_ascii=False))
            report.write({"event": "done"})
        except BaseException as error:
            ours = _error(error)
            report.log(traceback.format_exc())
            report.log(_java_says(mark))
            report.log(f"failed: {ours.message}")
            report.write(_failure(ours))
        report.close()


def _failure(error: Error) -> Event:
    return {"event": "failed", "error": type(error).__name__, "message": error.message, "hint": error.hint, "about": error.about}


def _carry_out(spec: JobSpec, cluster: Cluster, report: EventWriter) -> Any:
    if spec.kind == "predict":
        from sqlml_runners.spark.predicting import run_prediction

        return run_prediction(spec, cluster, report)
    from sqlml_runners.spark.training import run_training

    return run_training(spec, cluster, report)


def _error(error: BaseException) -> Error:
    """Whatever a job ended with as one of ours."""
    if isinstance(error, Error):
        return error
    if is_spark_error(error):
        return spark_error(error)
    if isinstance(error, ModuleNotFoundError):
        from sqlml.registry import missing_extra

        missing: MissingExtra = missing_extra(error)
        return missing
    return InternalError(f"the job failed: {type(error).__name__}: {error}")


class _Report(EventWriter):
    """Writes each event, hands it on, and ends the job where it was told to stop."""

    def __init__(self, spec: JobSpec, log: TextIO, events: queue.SimpleQueue[Event], stop: threading.Event) -> None:
        super().__init__(spec.folder, log)
        self._queue = events
        self._stop = stop

    def write(self, event: Mapping[str, Any]) -> None:
        super().write(event)
        self._queue.put(dict(event))

    def step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        self._check()
        super().step(step, total, metrics)

    def stage(self, name: str) -> None:
        self._check()
        super().stage(name)

    def notice(self, text: str) -> None:
        self._check()
        super().notice(text)

    def _check(self) -> None:
        if self._stop.is_set():
            raise JobCancelled("cancelled")


def _log_size() -> int | None:
    path = spark_log()
    return path.stat().st_size if path is not None and path.exists() else None


def _java_says(since: int | None, most: int = 20_000) -> str:
    """What Java has written to its log since a job began."""
    path = spark_log()
    if path is None or not path.exists():
        return ""
    with path.open("rb") as log:
        log.seek(max(since or 0, path.stat().st_size - most))
        return log.read().decode("utf-8", errors="replace")
