"""The runners: their contract, and what only one of them does."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from sqlml_runners.inline import InlineRunner
from sqlml_runners.limits import ResidentSetWatch
from sqlml_runners.process import ProcessRunner
from sqlml_runners.worker import OWNER_DIED, write_atomically

from sqlml.errors import InternalError, JobOutOfMemory, NotSupportedError
from sqlml.plan import JobSpec, Limits
from sqlml.registry import get, names
from tests.jobs import make_job
from tests.kits import check_runner

pytestmark = pytest.mark.slow

Make = Callable[[int, Limits], JobSpec]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Jobs of so many rounds, each in a folder of its own."""
    numbers = itertools.count()
    table = pa.table({"a": list(range(200)), "b": [i % 7 for i in range(200)], "t": [str(i % 3 > 0) for i in range(200)]})

    def job(rounds: int, limits: Limits) -> JobSpec:
        folder = tmp_path / str(next(numbers))
        return make_job(folder, table, "t", "xgboost_classifier", options={"n_estimators": rounds}, limits=limits)

    return job


@pytest.mark.parametrize("name", names("runner"))
def test_the_contract(name: str, make: Make) -> None:
    check_runner(get("runner", name)(), make)


def test_inline_refuses_a_memory_limit(make: Make) -> None:
    with pytest.raises(NotSupportedError, match="cannot hold a memory limit"):
        InlineRunner().submit(make(3, Limits(memory=2**30)))


def test_process_keeps_a_memory_limit(make: Make) -> None:
    with pytest.raises(JobOutOfMemory, match="memory limit of 40 MiB"):
        ProcessRunner().submit(make(3, Limits(memory=40 * 2**20))).wait(lambda _: None)


def test_the_watch_of_the_resident_set() -> None:
    process = psutil.Process()
    assert ResidentSetWatch(process, 1).exceeded()
    assert not ResidentSetWatch(process, 2**50).exceeded()


def test_threads_are_limited(make: Make) -> None:
    spec = make(2000, Limits(threads=1))
    handle = ProcessRunner().submit(spec)
    assert handle.pid is not None
    environment = psutil.Process(handle.pid).environ()
    handle.cancel()
    with pytest.raises(Exception, match="cancelled"):
        handle.wait(lambda _: None)
    assert environment["OMP_NUM_THREADS"] == "1"


def test_a_fault_of_our_own_is_told_and_logged(make: Make) -> None:
    spec = make(3, Limits())
    wrong = replace(spec, plan=replace(spec.train, features=()))
    with pytest.raises(Exception, match="feature") as raised:
        ProcessRunner().submit(wrong).wait(lambda _: None)
    assert not isinstance(raised.value, InternalError)
    assert "failed" in (spec.folder / "job.log").read_text(encoding="utf-8")


def test_a_worker_ends_with_its_owner(make: Make) -> None:
    spec = make(1_000_000, Limits())
    document = spec.folder / "job.json"
    document.write_text(json.dumps(spec.to_json()), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    worker = subprocess.Popen(
        [sys.executable, "-m", "sqlml_runners.worker", str(document)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=environment,
    )
    deadline = time.monotonic() + 20
    events = spec.folder / "events.jsonl"
    while (not events.exists() or "step" not in events.read_text(encoding="utf-8")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert worker.stdin is not None
    worker.stdin.close()
    assert worker.wait(5) == OWNER_DIED


def test_a_job_takes_settings_from_the_environment_of_its_session(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job's own settings stand behind them."""
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.delenv("ARROW_DEFAULT_MEMORY_POOL", raising=False)
    handle = ProcessRunner().submit(make(1, Limits()))
    assert handle.pid is not None
    given = psutil.Process(handle.pid).environ()
    handle.wait(lambda _: None)
    assert (given["GOMP_SPINCOUNT"], given["ARROW_DEFAULT_MEMORY_POOL"]) == ("7", "system")


def test_a_process_comes_up_while_the_rows_are_read(make: Make) -> None:
    spec = make(3, Limits(threads=1))
    runner = ProcessRunner()
    with runner.prestart(spec):
        [waiting] = runner.waiting
        deadline = time.monotonic() + 30
        while not _has_imported(waiting, "libxgboost") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert _has_imported(waiting, "libxgboost")
        assert not (spec.folder / "events.jsonl").exists()
        handle = runner.submit(spec)
        assert handle.pid == waiting
        handle.wait(lambda _: None)
    assert (spec.folder / "result.json").exists()
    assert not runner.waiting


def test_a_process_that_waits_for_nothing_ends(make: Make) -> None:
    """As where the rows could not be read."""
    runner = ProcessRunner()
    with runner.prestart(make(3, Limits())):
        [waiting] = runner.waiting
        assert psutil.pid_exists(waiting)
    assert not psutil.pid_exists(waiting)


def test_another_process_for_one_that_died_while_it_waited(make: Make) -> None:
    runner, spec = ProcessRunner(), make(3, Limits())
    with runner.prestart(spec):
        [waiting] = runner.waiting
        os.kill(waiting, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(waiting)], timeout=0.5)
        handle = runner.submit(spec)
        assert handle.pid != waiting
        handle.wait(lambda _: None)
    assert (spec.folder / "result.json").exists()


def _has_imported(pid: int, library: str) -> bool:
    return any(library in mapped.path for mapped in psutil.Process(pid).memory_maps())


def test_writing_is_all_or_nothing(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
