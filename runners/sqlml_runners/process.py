"""The default runner: each job is a process of its own on this machine, with its own log, threads and memory limit."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from sqlml.algorithms.checkpoints import last_step
from sqlml.algorithms.devices import visible_gpus
from sqlml.contracts import Event, OptionSpec, Resources
from sqlml.errors import Error, JobCancelled, JobCrashed, JobOutOfMemory, JobTimeout
from sqlml.job_folder import DOCUMENT, EVENTS, LOG
from sqlml.plan import JobSpec, Limits, PredictPlan, TrainPlan
from sqlml_runners.checks import check_gpu
from sqlml_runners.limits import MemoryLimit, limit_memory
from sqlml_runners.worker import PRESTARTED, Tail, error_of, last_lines

POLL_SECONDS = 0.05
GRACE_SECONDS = 1.0
MEMORY_SHARE = 0.9
"""Without a limit of its own a job may use this share of the memory that is free when it starts."""

SETTINGS = {"GOMP_SPINCOUNT": "10000", "ARROW_DEFAULT_MEMORY_POOL": "system"}
"""What a job's environment has unless the session's own says otherwise.

A thread that waits for the others turns round for some tenths of a millisecond before it sleeps; OpenMP's own default, some 30
times as long, takes the processors from whoever else works on this machine, and from the job itself.  Arrow's memory comes from
the C library, which can be made to give it back.
"""

RESTARTS = 2
"""How often a job whose process was killed is taken up again, at most."""


class ProcessRunner:
    """Runs jobs as child processes.  ``options`` are the limits of a job that has none of its own."""

    type = "process"
    options = (
        OptionSpec("threads", "int", None, "how many threads a job may use", low=1),
        OptionSpec("memory", "size", None, "how much memory a job may use: '8 GB'", low=1),
        OptionSpec("time", "duration", None, "how long a job may run: '30 min'", low=0, open_low=True),
    )
    kinds = frozenset({"train", "folds"})
    reads = False

    def __init__(self, name: str = "process", options: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self._given = options or {}
        self._prestarted: dict[Path, subprocess.Popen[bytes]] = {}

    def check(self, kind: str, plan: TrainPlan | PredictPlan, *, by_query: bool = False) -> None:
        """A GPU that is not there is refused."""
        check_gpu(plan)

    @property
    def waiting(self) -> tuple[int, ...]:
        """The processes that wait for their jobs, by number."""
        return tuple(process.pid for process in self._prestarted.values())

    @contextmanager
    def prestart(self, spec: JobSpec) -> Iterator[None]:
        """Start the job's process, which imports what a training needs and then waits for its document."""
        self._prestarted[spec.folder] = _start(self._limited(spec), PRESTARTED, spec.train.algorithm or "")
        try:
            yield
        finally:
            if unused := self._prestarted.pop(spec.folder, None):
                _end(unused)

    def submit(self, spec: JobSpec) -> ProcessJob:
        """Start the job's process, or let go the one that waits for it."""
        self.check(spec.kind, spec.plan, by_query=spec.by_query)
        spec = self._limited(spec)
        document = spec.folder / DOCUMENT
        document.write_text(json.dumps(spec.to_json(), ensure_ascii=False, default=str), encoding="utf-8")
        (spec.folder / EVENTS).touch()
        memory = spec.plan.limits.memory or int(psutil.virtual_memory().available * MEMORY_SHARE)
        return ProcessJob(spec, memory, self._prestarted.pop(spec.folder, None))

    def _limited(self, spec: JobSpec) -> JobSpec:
        """The job with the runner's limits where it has none."""
        own = spec.plan.limits
        limits = Limits(
            own.seconds or self._given.get("time"), own.memory or self._given.get("memory"),
            own.threads or self._given.get("threads") or 0,
        )  # fmt: skip
        return replace(spec, plan=replace(spec.plan, limits=limits))

    def resources(self) -> Resources:
        return Resources(_cores(), psutil.virtual_memory().total, visible_gpus())


def _start(spec: JobSpec, *more: str) -> subprocess.Popen[bytes]:
    """A worker for the job whose document lies, or will lie, in its folder."""
    with (spec.folder / LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "sqlml_runners.worker", str(spec.folder / DOCUMENT), *more],
            bufsize=0,  # nothing is left to be written when it is gone
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=_environment(spec.plan.limits.threads),
            start_new_session=True,  # a Ctrl-C in the terminal is the session's to handle
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started: politely, then not."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            _wait(process, GRACE_SECONDS)
            if process.returncode is None:  # its number is its own until somebody asks how it ended
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdin:
        process.stdin.close()


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait for a process's end, at most so long.  ``Popen.wait`` looks again and again, and takes a core from the job for it."""
    try:
        ended = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # another system than Linux, or it is gone already
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        return
    try:
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.poll(1000 * seconds)
    finally:
        os.close(ended)


def _limited_memory(process: subprocess.Popen[bytes], memory: int) -> MemoryLimit:
    try:
        return limit_memory(process.pid, memory)
    except BaseException:
        process.kill()
        process.wait()
        raise


class ProcessJob:
    """A job in its process; where that is killed and the job kept a checkpoint, in another one that goes on from there."""

    def __init__(self, spec: JobSpec, memory: int, prestarted: subprocess.Popen[bytes] | None = None) -> None:
        """``prestarted``: the process that was started ahead, and waits."""
        self._spec = spec
        self._memory = memory
        self._process, self._limit = self._begin(prestarted)
        self.pid: int | None = self._process.pid
        self._restarts = 0
        self._cancelled = threading.Event()
        self._deadline = time.monotonic() + spec.plan.limits.seconds if spec.plan.limits.seconds else None

    def _begin(self, prestarted: subprocess.Popen[bytes] | None = None) -> tuple[subprocess.Popen[bytes], MemoryLimit]:
        """A worker at work, within its limit of memory."""
        if prestarted is not None and prestarted.poll() is not None:  # it died before there was anything to do
            _end(prestarted)
            prestarted = None
        process = prestarted or _start(self._spec)
        limit = _limited_memory(process, self._memory)
        if prestarted is not None and prestarted.stdin is not None:
            with suppress(BrokenPipeError):  # it dies now: whoever follows it finds that out
                prestarted.stdin.write(b"\n")
        return process, limit

    def cancel(self) -> None:
        self._cancelled.set()

    def wait(self, on_event: Callable[[Event], None]) -> None:
        """Follow the job to its end; see ``JobHandle.wait``."""
        try:
            self._follow(on_event)
        finally:
            self._end()

    def _end(self) -> None:
        _end(self._process)
        self._limit.close()

    def _follow(self, on_event: Callable[[Event], None]) -> None:
        failure: Event | None = None
        done = False
        told: set[str] = set()
        with (self._spec.folder / EVENTS).open(encoding="utf-8") as events:
            tail = Tail(events.read)
            running = True
            while running:
                running = self._running()
                for event in tail.events():
                    failure = event if event["event"] == "failed" else failure
                    done = done or event["event"] == "done"
                    if event.get("text") not in told:  # a worker that begins anew has the same to say
                        on_event(event)
                    if event["event"] == "notice":
                        told.add(str(event["text"]))
                self._check()
                if not (running or done or failure):
                    running = self._restart(on_event)
                    tail.skip()
        if failure:
            raise error_of(failure)
        if not done:
            raise self._died()

    def _restart(self, on_event: Callable[[Event], None]) -> bool:
        """Start another worker where the job's was killed and there is a checkpoint to go on from; False where not."""
        status, step = self._process.returncode, last_step(self._spec.folder)
        if status >= 0 or step is None or self._restarts == RESTARTS:
            return False
        self._end()
        self._restarts += 1
        signal_name = signal.Signals(-status).name
        text = f"the job's process died ({signal_name}); it goes on from step {step}"
        with (self._spec.folder / LOG).open("a", encoding="utf-8") as log:
            log.write(text + "\n")
        on_event({"event": "notice", "text": text})
        self._process, self._limit = self._begin()
        self.pid = self._process.pid
        return True

    def _running(self) -> bool:
        _wait(self._process, POLL_SECONDS)
        return self._process.poll() is None

    def _check(self) -> None:
        if self._cancelled.is_set():
            raise JobCancelled("cancelled")
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise JobTimeout(
                f"job {self._spec.id} passed its time limit of {self._spec.plan.limits.seconds:g} s and was stopped",
                hint="give it more with LIMIT (TIME '…'), or less to do: LIMIT (ROWS n), fewer rounds",
            )
        if self._limit.exceeded():
            raise JobOutOfMemory(
                f"job {self._spec.id} passed its memory limit of {self._memory / 2**20:,.0f} MiB and was stopped",
                hint="give it more with LIMIT (MEMORY '…'), or less to do: LIMIT (ROWS n), EXCLUDE (…)",
            )

    def _died(self) -> Error:
        status = self._process.returncode
        how = f"signal {-status} ({signal.Signals(-status).name})" if status < 0 else f"exit status {status}"
        log = self._spec.folder / LOG
        hint = f"its log: {log}"
        if status == -signal.SIGKILL:
            hint = f"somebody killed it, or the system had no memory left; {hint}"
        return JobCrashed(f"the process of job {self._spec.id} died: {how}", hint=hint + last_lines(log))


def _environment(threads: int) -> dict[str, str]:
    environment = {**SETTINGS, **os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    if threads:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[name] = str(threads)
    return environment


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
