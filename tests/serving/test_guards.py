"""Guarded roll-outs on a real server: promoted, rolled back for latency, rolled back for a metric."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from sqlml.catalog import Endpoint, Share, Version
from sqlml.catalog.rows import now
from sqlml.prediction_log import feedback_folder, feedback_schema, predictions_folder, predictions_schema, write_part
from sqlml.rollout import Guard
from sqlml.types import Task
from tests.serving.conftest import Place

pytestmark = pytest.mark.slow  # a server, and models that are loaded

NUMBERS = predictions_schema(pa.struct([("age", pa.float64())]), pa.struct([("predicted_y", pa.float64())]))


class Bank(Place):
    """A server with two versions of one model."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Task.REGRESSION)
        self.old, self.new = self.publish("m"), self.publish("m", seed=1)

    def try_out(self, name: str, **guard: object) -> None:
        """Give the new version half of an endpoint's traffic under a guard, and wait until it serves."""
        self.serve(self.old, name)
        options = {"rollout": Guard(self.new.uid, **guard).to_json()}  # type: ignore[arg-type]
        arms = [Share(self.old.uid, weight=50), Share(self.new.uid, weight=50)]
        self.server.wait_ready(name, self.catalog.put_endpoint(name, arms, options=options, reason="DEPLOY"), 20)

    def ask(self, name: str) -> int:
        return self.call(f"/models/{name}/predict", {"rows": [{}]})[0]

    def endpoint(self, name: str) -> Endpoint:
        found = self.catalog.endpoint(name)
        assert found is not None
        return found

    def versions(self, name: str) -> list[int]:
        return [arm.version for arm in self.endpoint(name).arms]

    def reason(self, name: str) -> str:
        """Why the endpoint was changed last."""
        return str([change["reason"] for change in self.catalog.endpoint_changes() if change["endpoint"] == name][-1])


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    bank = Bank(tmp_path_factory.mktemp("bank") / "bank.sqlml")
    yield bank
    bank.close()


def until(condition: Callable[[], bool], meanwhile: Callable[[], object] = lambda: None, seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        meanwhile()
        time.sleep(0.01)
    return condition()


def test_a_version_that_does_well_is_promoted(bank: Bank) -> None:
    bank.try_out("good", promote_after=30, max_error_rate=0.01, max_latency=30.0)
    assert until(lambda: bank.versions("good") == [2], lambda: bank.ask("good"))
    assert bank.endpoint("good").options == {}
    assert bank.reason("good").startswith("all well after ")
    assert bank.ask("good") == 200
    bank.catalog.rollback_endpoint("good")
    assert bank.versions("good") == [1]


def test_a_version_that_is_too_slow_is_rolled_back(bank: Bank) -> None:
    bank.try_out("slow", promote_after=10_000, max_latency=1e-7)
    assert until(lambda: bank.versions("slow") == [1], lambda: bank.ask("slow"))
    assert "more than max_latency = 0.0001 ms" in bank.reason("slow")


def write_log(bank: Bank, name: str, version: Version, error: float) -> None:
    """200 predictions of a version that are all wrong by ``error``, and their truth."""
    home = bank.catalog.home
    ids = [f"{version.uid}-{number}" for number in range(200)]
    shared = {"endpoint": name, "row": 0, "model": "m", "version": version.version, "role": "serves", "logged_at": now()}
    rows = [{**shared, "request_id": request, "inputs": {"age": 1.0}, "outputs": {"predicted_y": 5.0 + error}} for request in ids]
    write_part(predictions_folder(home, name, version.uid), pa.Table.from_pylist(rows, schema=NUMBERS))
    truth = [{"endpoint": name, "request_id": request, "truth": "5", "given_at": now()} for request in ids]
    write_part(feedback_folder(home, name), pa.Table.from_pylist(truth, schema=feedback_schema()))


@pytest.mark.parametrize(("name", "error", "left"), [("worse", 3.0, [1]), ("better", 0.5, [2])])
def test_the_metric_decides_by_the_feedback(bank: Bank, name: str, error: float, left: list[int]) -> None:
    bank.try_out(name, promote_after=5, metric="rmse", tolerance=0.1, min_feedback=150)
    write_log(bank, name, bank.old, 1.0)
    write_log(bank, name, bank.new, error)
    assert until(lambda: bank.versions(name) == left, lambda: bank.ask(name), seconds=60)
    assert f"rmse {error:g} against 1" in bank.reason(name)
