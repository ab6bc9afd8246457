"""The Kubernetes runner: a job is a batch/v1 Job; its rows and results go by a shared place, its events come by its log."""

from __future__ import annotations

import json
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, TextIO, TypeVar

from sqlml.connections import OptionFault
from sqlml.contracts import Event, OptionSpec, Resources
from sqlml.errors import BindError, Error, JobCancelled, JobCrashed, NotSupportedError, OperationalError
from sqlml.job_folder import EVENTS, LOG, RESULT
from sqlml.plan import JobSpec, Limits, PredictPlan, TrainPlan
from sqlml_runners.checks import check_folder, wanted_device
from sqlml_runners.kubernetes.cluster import Cluster, Unreachable
from sqlml_runners.kubernetes.objects import (
    Object,
    end_error,
    has_started,
    hopeless,
    is_over,
    job_object,
    limits_of,
    refused,
    told,
    waits_for,
)
from sqlml_runners.kubernetes.pod import MARK
from sqlml_runners.kubernetes.settings import OPTIONS, settings_fault
from sqlml_runners.kubernetes.staging import Staging
from sqlml_runners.worker import error_of, last_lines

POLL_SECONDS = 0.5
LOST_SECONDS = 120.0
"""So long the cluster's API may be away before a job is given up."""
LOG_SECONDS = 10.0
"""So long the end of a log may take to come once the job is over."""
MEMORY_SHARE = 0.9
"""Of a pod's memory the job plans with so much: Python itself needs some, too."""


_T = TypeVar("_T")


class KubernetesRunner:
    """Runs jobs on a Kubernetes cluster."""

    type = "kubernetes"
    kinds = frozenset({"train", "folds", "predict"})
    reads = False
    options: tuple[OptionSpec, ...] = OPTIONS
    fault: Callable[[Mapping[str, Any]], OptionFault | None] = staticmethod(settings_fault)

    def __init__(self, name: str = "kubernetes", options: Mapping[str, Any] | None = None) -> None:
        self.name = name
        given = {key: value for key, value in (options or {}).items() if value is not None}
        self._options = {spec.name: spec.default for spec in OPTIONS} | given
        fault = settings_fault(self._options)
        if fault is not None:
            raise BindError(f"runner {name}: {fault.message}", hint=fault.hint)

    def check(self, kind: str, plan: TrainPlan | PredictPlan, *, by_query: bool = False) -> None:
        """A kind of job that it does not know is refused, and a GPU where the runner asks the cluster for none."""
        if kind not in self.kinds:
            raise NotSupportedError(f"the runner {self.name} trains and predicts only", hint="leave out ON")
        device = wanted_device(plan) if isinstance(plan, TrainPlan) else "auto"
        if device.startswith("cuda") and not self._options["gpu"]:
            hint = f"WITH (gpu = 1) of the runner, or device = 'cpu'; CREATE OR REPLACE RUNNER {self.name} changes it"
            raise BindError(f"device = '{device}' needs a GPU, and the runner {self.name} asks the cluster for none", hint=hint)
        check_folder(str(self._options["staging"]), self.name)
        Staging(str(self._options["staging"]))  # a URL that nobody here can reach

    def submit(self, spec: JobSpec) -> KubernetesJob:
        """Take the job on; its files are sent when somebody waits for it."""
        self.check(spec.kind, spec.plan, by_query=spec.by_query)
        if spec.query is not None:
            raise NotSupportedError(
                f"the runner {self.name} reads no queries itself", hint="let the query read where the session is"
            )
        return KubernetesJob(spec, self._options)

    def resources(self) -> Resources:
        """What one job gets."""
        gpus = (str(self._options["gpu_resource"]),) * int(self._options["gpu"] or 0)
        return Resources(max(1, int(self._options["cpu"])), int(self._options["memory"]), gpus)


class KubernetesJob:
    """A job on the cluster.  Whatever becomes of it, nothing of it stays there."""

    pid: int | None = None

    def __init__(self, spec: JobSpec, options: Mapping[str, Any]) -> None:
        self._spec = spec
        self._options = options
        self._memory, self._seconds = limits_of(spec, options)
        self._name = f"sqlml-{spec.kind}-{spec.id}-{uuid.uuid4().hex[:8]}"
        self._cluster = Cluster(options)
        self._staging = Staging(f"{str(options['staging']).rstrip('/')}/{self._name}")
        self._cancelled = threading.Event()
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._created = False
        self._told: set[int] = set()
        self._failure: Event | None = None

    def cancel(self) -> None:
        """Ask the job to stop, from any thread."""
        self._cancelled.set()

    def wait(self, on_event: Callable[[Event], None]) -> None:
        """Follow the job to its end; see ``JobHandle.wait``."""
        (self._spec.folder / EVENTS).touch()
        with (self._spec.folder / LOG).open("a", encoding="utf-8") as log:
            try:
                self._run(on_event, log)
            except Error as error:
                log.flush()
                if isinstance(error, JobCrashed) and error.hint is None:
                    path = self._spec.folder / LOG
                    error.hint = f"its log: {path}{last_lines(path)}"
                log.write(f"{error}\n")
                raise
            finally:
                self._clean()

    def _run(self, on_event: Callable[[Event], None], log: TextIO) -> None:
        on_event({"event": "stage", "name": "sending the rows"})
        self._staging.send(self._planned(), self._check)
        self._check()
        self._cluster.create(job_object(self._name, self._place(), self._spec, self._options))
        self._created = True
        on_event({"event": "stage", "name": "waiting for the cluster"})
        pod = self._start(on_event)
        threading.Thread(target=self._follow_log, args=(pod["metadata"]["name"],), name=self._name, daemon=True).start()
        job = self._follow(on_event, log)
        self._finish(on_event, log, job)

    def _planned(self) -> JobSpec:
        """The job as its pod plans it: a container sees the whole machine's memory and cores, and may use its own."""
        limits = self._spec.plan.limits
        threads = limits.threads or max(1, int(self._options["cpu"]))
        own = Limits(None, int(self._memory * MEMORY_SHARE), threads)
        return replace(self._spec, plan=replace(self._spec.plan, limits=own))

    def _place(self) -> str:
        """The job's place for files as the pod sees it."""
        if "://" in self._options["staging"]:
            return self._staging.place
        return str(PurePosixPath(self._options["mount"] or self._options["staging"]) / self._name)

    # --- on its way ---

    def _check(self) -> None:
        if self._cancelled.is_set():
            raise JobCancelled("cancelled")

    def _start(self, on_event: Callable[[Event], None]) -> Object:
        """Wait until the container runs; its pod."""
        until = time.monotonic() + self._options["patience"]
        said: str | None = None
        while True:
            self._check()
            pod = self._asked(lambda: self._cluster.pod(self._name))
            if pod is not None and has_started(pod):
                return pod
            job = self._looked()
            events = [] if pod else self._asked(lambda: self._cluster.events(self._name))
            error = hopeless(pod, self._options["image"]) if pod else refused(events)
            if error is not None:
                raise error
            if is_over(job):
                raise end_error(self._spec.id, job, pod, self._memory, self._seconds)
            why = waits_for(pod, events)
            if why and why != said:
                on_event({"event": "notice", "text": f"the job waits: {why}"})
                said = why
            if time.monotonic() > until:
                hint = "ask for less (cpu, memory, gpu of the runner), or have more patience: WITH (patience = '1 h')"
                raise OperationalError(f"the cluster did not start job {self._spec.id}: {why or 'no reason is given'}", hint=hint)
            self._cancelled.wait(POLL_SECONDS)

    def _follow(self, on_event: Callable[[Event], None], log: TextIO) -> Object:
        """Pass on what the log says until the Job is over; the Job."""
        asked = 0.0
        while True:
            self._check()
            self._hear(on_event, log, POLL_SECONDS / 5)
            if time.monotonic() - asked > POLL_SECONDS:
                job = self._looked()
                if is_over(job):
                    return job
                asked = time.monotonic()

    def _looked(self) -> Object:
        """The Job as it is now."""
        job = self._asked(lambda: self._cluster.job(self._name))
        if job is None:
            raise JobCrashed(f"job {self._spec.id} is gone from the cluster: somebody deleted it", hint="start it again")
        return job

    def _asked(self, ask: Callable[[], _T]) -> _T:
        """Ask the cluster, again and again where it does not answer."""
        until = time.monotonic() + LOST_SECONDS
        while True:
            try:
                return ask()
            except Unreachable:
                if time.monotonic() > until:
                    raise
                self._check()
                self._cancelled.wait(POLL_SECONDS)

    def _hear(self, on_event: Callable[[Event], None], log: TextIO, seconds: float) -> bool:
        """Pass on the lines that have come, waiting a little for the first; False where the log is at its end."""
        try:
            line = self._lines.get(timeout=seconds)
            while line is not None:
                self._take(line, on_event, log)
                line = self._lines.get_nowait()
        except queue.Empty:
            log.flush()
            return True
        return False

    def _take(self, line: str, on_event: Callable[[Event], None], log: TextIO) -> None:
        if not line.startswith(MARK):
            log.write(f"{line}\n")
            return
        number, _, text = line[1:].partition(" ")
        with suppress(ValueError):  # cut, or mixed with other text: the file of events has it whole
            self._pass_on(int(number), json.loads(text), on_event)

    def _pass_on(self, number: int, event: Event, on_event: Callable[[Event], None]) -> None:
        self._told.add(number)
        self._failure = event if event["event"] == "failed" else self._failure
        on_event(event)

    def _follow_log(self, pod: str) -> None:
        """In a thread: the pod's log, line by line; read anew where the connection was lost, without what was there before."""
        taken = 0
        until = time.monotonic() + LOST_SECONDS
        while not self._cancelled.is_set():
            try:
                for number, line in enumerate(_lines_of(self._cluster.log(pod))):
                    until = time.monotonic() + LOST_SECONDS
                    if number >= taken:
                        taken = number + 1
                        self._lines.put(line)
                break
            except OperationalError:
                if time.monotonic() > until:  # the file of events has everything, in the end
                    break
                self._cancelled.wait(POLL_SECONDS)
        self._lines.put(None)

    # --- at its end ---

    def _finish(self, on_event: Callable[[Event], None], log: TextIO, job: Object) -> None:
        until = time.monotonic() + LOG_SECONDS
        while time.monotonic() < until and self._hear(on_event, log, POLL_SECONDS):
            self._check()
        if not self._staging.ended():
            if self._failure is None:
                pod = self._asked(lambda: self._cluster.pod(self._name))
                raise end_error(self._spec.id, job, pod, self._memory, self._seconds)
            raise self._told_error(self._failure)
        self._staging.fetch(self._spec.folder)
        self._catch_up(on_event)
        if self._failure is not None:
            raise self._told_error(self._failure)
        if not (self._spec.folder / RESULT).exists():
            raise end_error(self._spec.id, job, None, self._memory, self._seconds)

    def _catch_up(self, on_event: Callable[[Event], None]) -> None:
        """Events that the log did not bring."""
        events: list[Event] = []
        for line in (self._spec.folder / EVENTS).read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # the worker was killed within it
                events.append(json.loads(line))
        for number, event in enumerate(events):
            if number not in self._told:
                self._pass_on(number, event, on_event)

    def _told_error(self, failure: Event) -> Error:
        return told(error_of(failure), self._spec.id, self._memory)

    def _clean(self) -> None:
        """Take everything away from the cluster and the staging place."""
        self._cancelled.set()  # the log's thread ends
        if self._created:
            with suppress(OperationalError):  # it is not there, or takes itself away after a while
                self._cluster.delete(self._name)
        self._staging.remove()


def _lines_of(pieces: Iterator[bytes]) -> Iterator[str]:
    """The whole lines of a text that comes in pieces."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", errors="replace")
