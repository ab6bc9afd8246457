"""A home with models in its catalog, and real servers on it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sqlml_runners.serving.control import LocalServer

from sqlml.bundles.manifest import Manifest
from sqlml.catalog import Catalog, Version
from sqlml.contracts import FeatureMatrix, FitSpec, TrainingData
from sqlml.features.encode import FeatureEncoder
from sqlml.plan import InputColumn, Limits, SplitPlan, TrainOutcome, TrainPlan
from sqlml.registry import get_algorithm
from sqlml.types import Kind, Task

INPUTS = (
    InputColumn("age", "BIGINT", Kind.NUMBER),
    InputColumn("job", "VARCHAR", Kind.TEXT),
    InputColumn("own house", "BOOLEAN", Kind.BOOLEAN),
    InputColumn("since", "DATE", Kind.DATE),
    InputColumn("seen", "TIMESTAMP", Kind.TIMESTAMP),
)
EXAMPLE = {"age": 41, "job": "technician", "own house": True, "since": "2024-05-31", "seen": "2024-05-31T13:45:00"}


ALGORITHMS = {
    Task.CLASSIFICATION: ("xgboost_classifier", {"n_estimators": 20}, ("no", "yes")),
    Task.REGRESSION: ("xgboost_regressor", {"n_estimators": 20}, ()),
    Task.CLUSTERING: ("kmeans", {"n_clusters": 3}, ()),
}


class Silent:
    def step(self, step: int, total: int, metrics: Mapping[str, float]) -> None: ...
    def notice(self, text: str) -> None: ...
    def stage(self, name: str) -> None: ...


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
    name, options, classes = ALGORITHMS[task]
    algorithm = get_algorithm(name)
    rows, n = make_rows(300), 300
    encoder = FeatureEncoder.fit(INPUTS, rows.__getitem__, np.arange(n), algorithm.encoding, 50)
    x = encoder.transform(rows, n)
    y = rows["age"].to_numpy() + 10 * np.random.default_rng(seed).random(n)
    target = {Task.CLASSIFICATION: (y > 50).astype(np.int64), Task.REGRESSION: y, Task.CLUSTERING: None}[task]
    data = TrainingData(FeatureMatrix(x, encoder.names, encoder.categorical), target, n_classes=len(classes))
    all_options = {option.name: option.default for option in algorithm.options} | options
    native = folder / "native"
    native.mkdir(parents=True)
    algorithm.fit(data, FitSpec(all_options, seed, 1), Silent()).save(native)
    target_name = None if task is Task.CLUSTERING else "y"
    return Manifest(name, task, INPUTS, target_name, "VARCHAR", classes, encoder.to_json(), {}, EXAMPLE).write(folder)


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
        plan = TrainPlan(model, "a", "y", (), (), (), None, SplitPlan("none"), None, {}, 0, Limits(), "inline", "q", "s")
        outcome = TrainOutcome(
            algorithm="a", task=task, options={}, rows=1, heldout_rows=0, fingerprint="f", metrics={}, curves=(),
            encodings={column.name: "" for column in INPUTS},
            bundle_sha256=sha, duration=0.1, peak_memory=1, libraries={}, host="h",
        )  # fmt: skip
        return self.catalog.publish(plan, outcome, job)

    def deploy(self, model: str, endpoint: str | None = None, **made: Any) -> str:
        """Train a version, put it behind an endpoint, wait until it is warm; the endpoint's URL."""
        version = self.publish(model, **made)
        self.catalog.deploy(endpoint or model, version)
        return self.server.wait_ready(endpoint or model, version.version, 20)

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
