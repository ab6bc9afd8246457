"""The seam of runners: where jobs run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from sqlml.plan import JobSpec, PredictPlan, TrainPlan


Event: TypeAlias = Mapping[str, Any]
"""A line of a job's events: ``{"event": "step" | "stage" | "notice" | "done" | "failed", …}``, JSON all the way down."""
OnEvent: TypeAlias = Callable[[Event], None]
"""Is told what a job or a statement does."""
Notice: TypeAlias = Callable[[str], None]
"""Gets what the person should know."""


@dataclass(frozen=True)
class Resources:
    """What a runner has to give."""

    cores: int
    memory: int  # bytes
    gpus: tuple[str, ...] = ()


class JobHandle(Protocol):
    """A job that was submitted."""

    pid: int | None

    def wait(self, on_event: Callable[[Event], None]) -> None:
        """Follow the job to its end, calling ``on_event`` for each event in order.

        Returns when it is done.  Raises ``JobCancelled``, ``JobTimeout``, ``JobOutOfMemory``, ``JobCrashed`` or the error that
        the job itself ended with.  A ``KeyboardInterrupt`` raised by ``on_event`` or a signal cancels the job first.
        """

    def cancel(self) -> None:
        """Ask the job to stop, from any thread; ``wait`` then raises ``JobCancelled``."""


Follow: TypeAlias = Callable[[JobHandle | None], None]
"""Is told the job that a statement waits for, so that another thread can cancel it; None when it is over."""


class Runner(Protocol):
    """A place where jobs run.

    ``kinds`` are the jobs that it can carry out: train, folds, predict.  ``reads``: it runs queries itself, of tables that its
    own name stands before (``FROM cluster.db.t``), and then needs no file of rows.
    """

    name: str
    type: str
    kinds: frozenset[str]
    reads: bool

    def check(self, kind: str, plan: TrainPlan | PredictPlan, *, by_query: bool = False) -> None:
        """An error for a job that it cannot carry out, as far as can be told before rows are read.

        ``by_query``: it is to read all the job's rows itself; else they come in files.  Nothing is started for it.  ``submit``
        raises the same.
        """

    def submit(self, spec: JobSpec) -> JobHandle:
        """Start the job described by a JSON-able value in its folder; returns at once."""

    def resources(self) -> Resources:
        """What there is."""


@runtime_checkable
class PrestartRunner(Protocol):
    """A runner that can begin before a job's rows are there: a process takes a moment to come up."""

    def prestart(self, spec: JobSpec) -> AbstractContextManager[None]:
        """Within it ``submit`` is awaited for the job in that folder; what it began for nothing ends with it.

        Of the job its plan and its folder count; ``submit`` gets it whole.
        """


@runtime_checkable
class SessionRunner(Protocol):
    """A runner whose jobs work through what this process has open, such as a Spark session."""

    def detached(self) -> str | None:
        """What a job that another process follows (TRAIN … ASYNC) begins for itself, in words; None: it finds the same there.

        Such a job's rows are taken along in files: what it begins need not have the tables of this process.
        """
