"""A home with models in its catalog, and real servers on it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sqlml_runners.serving.control import LocalServer
from sqlml_runners.serving.served import Served, load_served

from sqlml.bundles.manifest import MANIFEST, file_sha256
from sqlml.catalog import Arm, Catalog, Job, Version
from sqlml.plan import InputColumn, Limits, SplitPlan, TrainOutcome, TrainPlan
from sqlml.types import Kind, Task
from tests.bundles.handmade import Learn, make_bundle

INPUTS = (
    InputColumn("age", "BIGINT", Kind.NUMBER),
    InputColumn("job", "VARCHAR", Kind.TEXT),
    InputColumn("own house", "BOOLEAN", Kind.BOOLEAN),
    InputColumn("since", "DATE", Kind.DATE),
    InputColumn("seen", "TIMESTAMP", Kind.TIMESTAMP),
)
TREES = {"n_estimators": 20}
EXAMPLE = {"age": 41, "job": "technician", "own house": True, "since": "2024-05-31", "seen": "2024-05-31T13:45:00"}


def make_rows(n: int) -> dict[str, pa.Array]:
    random = np.random.default_rng(0)
    days = random.integers(15_000, 20_000, n)
    return {
        "age": pa.array(random.integers(18, 90, n).astype(float)),
        "job": pa.array(random.choice(["technician", "admin", "retired"], n).astype(object), pa.string()),
        "own house": pa.array(random.random(n) < 0.5),
        "since": pa.array(days.astype(np.int32), pa.date32()),
        "seen": pa.array(days * 86_400_000_000, pa.timestamp("us")),
    }


def write_bundle(folder: Path, task: Task, seed: int) -> str:
    """A small real model; its SHA-256."""
    table = pa.table(make_rows(300))
    y = table["age"].to_numpy() + 10 * np.random.default_rng(seed).random(300)
    head = {
        Task.CLASSIFICATION: Learn("xgboost_classifier", "y", pa.array(np.where(y > 50, "yes", "no")), TREES),
        Task.REGRESSION: Learn("xgboost_regressor", "y", pa.array(y), TREES),
        Task.CLUSTERING: Learn("kmeans", options={"n_clusters": 3}),
    }[task]
    return make_bundle(folder, table, [head], inputs=INPUTS, example=EXAMPLE, seed=seed)


def served_from(folder: Path) -> Served:
    """A bundle as an endpoint called ``e`` serves it, without a server."""
    return load_served("e", Arm("m", 1, "u", folder, file_sha256(folder / MANIFEST), ""))


class Place:
    """A home with its catalog and its server's control."""

    def __init__(self, folder: Path, task: Task) -> None:
        self.folder = folder
        self.task = task
        self.catalog = Catalog.open(folder)
        self.server = LocalServer(folder)

    def publish(self, model: str, seed: int = 0, task: Task | None = None) -> Version:
        task = task or self.task
        job = self.catalog.start_job("train", model, "TRAIN", "inline")
        sha = write_bundle(job.folder / "bundle", task, seed)
        return self._publish(job, model, sha, [column.name for column in INPUTS])

    def publish_made(self, model: str, table: pa.Table, *heads: Learn, **how: Any) -> Version:
        """A version made of the rows given, as ``make_bundle`` makes it."""
        job = self.catalog.start_job("train", model, "TRAIN", "inline")
        sha = make_bundle(job.folder / "bundle", table, heads, **how)
        return self._publish(job, model, sha, table.column_names)

    def _publish(self, job: Job, model: str, sha: str, inputs: Sequence[str]) -> Version:
        plan = TrainPlan(model, "a", ("y",), (), (), (), None, SplitPlan("none"), None, {}, 0, Limits(), "inline", "q", "s")
        outcome = TrainOutcome(
            algorithm="a", options={}, rows=1, heldout_rows=0, fingerprint="f", metrics={}, curves=(),
            bundle_sha256=sha, duration=0.1, peak_memory=1, libraries={}, host="h",
            encodings=dict.fromkeys(inputs, ""), feature_info=(),
        )  # fmt: skip
        return self.catalog.publish(plan, outcome, job)

    def deploy(self, model: str, endpoint: str | None = None, **made: Any) -> str:
        """Train a version, put it behind an endpoint, wait until it is warm; the endpoint's URL."""
        return self.serve(self.publish(model, **made), endpoint or model)

    def serve(self, version: Version, endpoint: str) -> str:
        """Put a version behind an endpoint and wait until it is warm; the endpoint's URL."""
        return self.server.wait_ready(endpoint, self.catalog.deploy(endpoint, version), 20)

    def undeploy(self, endpoint: str) -> None:
        """Remove an endpoint and let the server take note."""
        self.catalog.undeploy(endpoint)
        self.server.states()

    def call(self, path: str, body: Any = None) -> tuple[int, Any]:
        """GET, or POST where there is a body (bytes, or what becomes JSON); the status and the answer."""
        return call(f"{self.server.url()}{path}", body)

    def close(self) -> None:
        self.server.stop()
        self.catalog.close()


def call(url: str, body: Any = None) -> tuple[int, Any]:
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=20) as answer:
            return answer.status, _content(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _content(error.read())


def _content(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A home of one's own, with no server yet."""
    place = Place(tmp_path / "bank.sqlml", Task.CLUSTERING)  # the quickest to load
    yield place
    place.close()


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server with the endpoint deposit, for tests that only ask it."""
    place = Place(tmp_path_factory.mktemp("bank") / "bank.sqlml", Task.CLASSIFICATION)
    place.deploy("deposit")
    yield place
    place.close()
