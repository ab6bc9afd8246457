"""The default runner: each job is a process of its own on this machine, with its own log, threads and memory limit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from sqlml.contracts import Event, Resources
from sqlml.errors import Error, JobCancelled, JobCrashed, JobOutOfMemory, JobTimeout
from sqlml.plan import JobSpec
from sqlml_runners.limits import MemoryLimit, limit_memory
from sqlml_runners.worker import EVENTS, error_of

POLL_SECONDS = 0.03
GRACE_SECONDS = 1.0
MEMORY_SHARE = 0.9
"""Without a limit of its own a job may use this share of the memory that is free when it starts."""


class ProcessRunner:
    """Runs jobs as child processes."""

    name = "process"
    type = "process"

    def submit(self, spec: JobSpec) -> ProcessJob:
        """Start the job's process."""
        document = spec.folder / "job.json"
        document.write_text(json.dumps(spec.to_json(), ensure_ascii=False, default=str), encoding="utf-8")
        (spec.folder / EVENTS).touch()
        with (spec.folder / "job.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "sqlml_runners.worker", str(document)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=_environment(spec.plan.limits.threads),
                start_new_session=True,  # a Ctrl-C in the terminal is the session's to handle
            )
        memory = spec.plan.limits.memory or int(psutil.virtual_memory().available * MEMORY_SHARE)
        try:
            return ProcessJob(spec, process, limit_memory(process.pid, memory), memory)
        except BaseException:
            process.kill()
            process.wait()
            raise

    def resources(self) -> Resources:
        return Resources(_cores(), psutil.virtual_memory().total)


class ProcessJob:
    """A job in its process."""

    def __init__(self, spec: JobSpec, process: subprocess.Popen[bytes], limit: MemoryLimit, memory: int) -> None:
        self.pid: int | None = process.pid
        self._spec = spec
        self._process = process
        self._limit = limit
        self._memory = memory
        self._cancelled = threading.Event()
        self._deadline = time.monotonic() + spec.plan.limits.seconds if spec.plan.limits.seconds else None

    def cancel(self) -> None:
        self._cancelled.set()

    def wait(self, on_event: Callable[[Event], None]) -> None:
        """Follow the job to its end; see ``JobHandle.wait``."""
        try:
            self._follow(on_event)
        finally:
            self._kill()
            if self._process.stdin:
                self._process.stdin.close()
            self._limit.close()

    def _follow(self, on_event: Callable[[Event], None]) -> None:
        failure: Event | None = None
        done = False
        with (self._spec.folder / EVENTS).open(encoding="utf-8") as events:
            tail = _Tail(events.read)
            running = True
            while running:
                running = self._running()
                for event in tail.events():
                    failure = event if event["event"] == "failed" else failure
                    done = done or event["event"] == "done"
                    on_event(event)
                self._check()
        if failure:
            raise error_of(failure)
        if not done:
            raise self._died()

    def _running(self) -> bool:
        try:
            self._process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            return True
        return False

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
        log = self._spec.folder / "job.log"
        hint = f"its log: {log}"
        if status == -signal.SIGKILL:
            hint = f"somebody killed it, or the system had no memory left; {hint}"
        return JobCrashed(f"the process of job {self._spec.id} died: {how}", hint=hint + _last_lines(log))

    def _kill(self) -> None:
        """End the whole process group: politely, then not."""
        if self._process.poll() is not None:
            return
        for name in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, name)
                self._process.wait(GRACE_SECONDS)
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue
            return


class _Tail:
    """Whole lines of a growing file, as events."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        self._rest = ""

    def events(self) -> list[Event]:
        *lines, self._rest = (self._rest + self._read()).split("\n")
        return [json.loads(line) for line in lines if line]


def _last_lines(log: Path, count: int = 5) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
    return "".join(f"\n  {line}" for line in lines)


def _environment(threads: int) -> dict[str, str]:
    environment = dict(os.environ) | {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    if threads:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[name] = str(threads)
    return environment


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
