"""The contract of a runner."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import psutil
import pytest

from sqlml.contracts import Event, PrestartRunner, Runner
from sqlml.errors import DatabaseError, JobCancelled, JobTimeout
from sqlml.plan import JobSpec, Limits, TrainOutcome

if TYPE_CHECKING:
    pass


def check_runner(runner: Runner, make: Callable[[int, Limits], JobSpec]) -> None:
    """Everything that the contract of a runner asks.  ``make(rounds, limits)`` gives a job of so many rounds."""
    assert runner.name
    assert runner.resources().cores >= 1
    assert runner.resources().memory > 2**20
    events: list[Event] = []
    spec = make(3, Limits(threads=1))
    runner.check(spec.kind, spec.plan)
    runner.submit(spec).wait(events.append)
    assert {"stage", "step"} <= {event["event"] for event in events}
    json.dumps(events)
    outcome = TrainOutcome.from_json(json.loads((spec.folder / "result.json").read_text(encoding="utf-8")))
    assert (spec.folder / "bundle" / "manifest.json").is_file()
    assert (spec.folder / "job.log").stat().st_size
    assert len(outcome.bundle_sha256) == 64
    _check_stopped(runner, make)
    if isinstance(runner, PrestartRunner):
        _check_prestart(runner, make)
    with pytest.raises(JobTimeout, match=r"time limit of 0\.5 s"):
        runner.submit(make(1_000_000, Limits(seconds=0.5))).wait(lambda _: None)
    broken = make(3, Limits())
    (broken.folder / "train.arrow").write_bytes(b"")
    with pytest.raises(DatabaseError):
        runner.submit(broken).wait(lambda _: None)


def _check_prestart(runner: Runner, make: Callable[[int, Limits], JobSpec]) -> None:
    """The same job, begun before it is submitted; nothing is left of one that is not."""
    assert isinstance(runner, PrestartRunner)
    before = {child.pid for child in psutil.Process().children()}
    with runner.prestart(make(3, Limits())):
        pass
    spec, events = make(3, Limits()), list[Event]()
    with runner.prestart(spec):
        runner.submit(spec).wait(events.append)
    assert {"stage", "step", "done"} <= {event["event"] for event in events}
    assert {child.pid for child in psutil.Process().children()} <= before


def _check_stopped(runner: Runner, make: Callable[[int, Limits], JobSpec]) -> None:
    """Cancelled from another thread, and by an exception of whoever follows."""
    handle = runner.submit(make(1_000_000, Limits()))
    timer = threading.Timer(0.5, handle.cancel)
    timer.start()
    with pytest.raises(JobCancelled):
        handle.wait(lambda _: None)
    timer.join()

    def stop(event: Event) -> None:
        if event["event"] == "step":
            raise KeyboardInterrupt

    handle = runner.submit(make(1_000_000, Limits()))
    with pytest.raises(KeyboardInterrupt):
        handle.wait(stop)
    assert handle.pid is None or not psutil.pid_exists(handle.pid)
