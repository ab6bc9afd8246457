"""Contexts of images: what the Dockerfile runs, run from the folder alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sqlml.bundles.manifest import MANIFEST, Manifest, file_sha256
from sqlml.catalog import Arm, Endpoint, FrozenCatalog
from sqlml.catalog.frozen import frozen_text
from sqlml.errors import BindError, BundleError, OperationalError
from sqlml.shipping.image import COMMAND, FOLDER, STATE, default_base, dockerfile, is_image, write_image
from sqlml.shipping.requirements import PREDICTORS, requirements
from sqlml.types import Task
from tests.bundles.handmade import HEADS, TABLE, Learn, make_bundle, make_sort
from tests.serving.conftest import EXAMPLE, served_from, write_bundle
from tests.shipping.made import FENCE, api_key, endpoint, fenced, read_dockerfile, shipment

BODY = json.dumps({"rows": [EXAMPLE, {}, {"age": 71, "job": "retired"}]}).encode()


def made_endpoint(folder: Path, *tasks: Task, **options: Any) -> Endpoint:
    """An endpoint with real bundles, which share the requests."""
    weight = 100 // len(tasks)
    arms: list[Arm] = []
    for i, task in enumerate(tasks, 1):
        sha = write_bundle(folder / f"{i}", task, i)
        arms.append(Arm("m", i, f"u{i}", folder / f"{i}", sha, task.value, weight=weight))
    return replace(endpoint(name="My churn", **options), arms=tuple(arms))


@contextmanager
def running(folder: Path, state: Path, *more: str) -> Iterator[str]:
    """What the context's Dockerfile runs; its base URL, once it is ready.  It ends in peace when it is told to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    container = read_dockerfile(folder, state, port)
    environment = fenced(folder, container.environment)
    with (state.parent / "container.log").open("wb") as log:
        process = subprocess.Popen(
            [*container.command, *more], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 60
        while subprocess.run(container.health, env=environment, capture_output=True, check=False).returncode:
            assert process.poll() is None, (state.parent / "container.log").read_text()
            assert time.monotonic() < deadline, (state.parent / "container.log").read_text()
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()


def ask(url: str, body: bytes | None = None) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=30) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_an_image_answers_as_the_endpoint_does(tmp_path: Path) -> None:
    wanted = made_endpoint(tmp_path / "home", Task.CLASSIFICATION, Task.REGRESSION)
    answers = [json.loads(served_from(arm.bundle).predict(BODY)) for arm in wanted.arms]
    write_image(wanted, tmp_path / "made", default_base())
    context = tmp_path / "elsewhere" / "context"
    shutil.copytree(tmp_path / "made", context)
    shutil.rmtree(tmp_path / "home")
    shutil.rmtree(tmp_path / "made")
    for path in (context, *context.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    with running(context, tmp_path / "state") as url:
        found = [ask(f"{url}/models/My%20churn/predict", BODY) for _ in range(20)]
        assert all(one["predictions"] == answers[int(one["version"]) - 1]["predictions"] for one in found)
        assert len({one["version"] for one in found}) == 2
        assert ask(f"{url}/v2/models/my%20churn")["inputs"]
        assert ask(f"{url}/openapi.json")["paths"]
    with running(context, tmp_path / "state", "--arm", "M@2") as url:
        assert ask(f"{url}/models/My%20churn/predict", BODY)["predictions"] == answers[1]["predictions"]


MORE = {
    "forest": (Learn("random_forest_regressor", "y", TABLE.column("B b"), {"n_estimators": 5}),),
    "bayes": (Learn("naive_bayes", "y", TABLE.column("word").fill_null("none")),),
    "neighbors": (Learn("nearest_neighbors_classifier", "y", TABLE.column("word").fill_null("none")),),
    "net": (Learn("mlp_regressor", "y", TABLE.column("B b"), {"max_epochs": 1}),),
}
"""Sorts of models beside those of ``HEADS``."""

PROGRAM = """
import json, pathlib, sys
from sqlml_runners.serving.models import load_served
from sqlml.catalog import Arm

for name in sys.argv[1:]:
    folder = pathlib.Path(name)
    served = load_served("e", Arm("m", 1, "u", folder, None, ""))
    body = json.dumps({"rows": [dict(served.model.manifest.example), {}]}).encode()
    assert len(json.loads(served.predict(body))["predictions"]) == 2
"""


@pytest.mark.slow
def test_the_requirements_are_enough_for_every_sort_of_model(tmp_path: Path) -> None:
    """Bundles are loaded and asked in a process that can import what their own requirements name, and no more."""
    for sort in HEADS:
        make_sort(tmp_path / sort, sort)
    for sort, heads in MORE.items():
        make_bundle(tmp_path / sort, TABLE, heads, example=TABLE.slice(20, 1).to_pylist()[0])
    alike: dict[tuple[str, ...], list[str]] = {}
    for sort in (*HEADS, *MORE):
        alike.setdefault(requirements([Manifest.read(tmp_path / sort)]), []).append(str(tmp_path / sort))
    assert len(alike) > 3
    for lines, folders in alike.items():
        (tmp_path / "requirements.txt").write_text("\n".join(lines), encoding="utf-8")
        environment = dict(os.environ) | {"FENCE": str(tmp_path / "requirements.txt")}
        environment["PYTHONPATH"] = os.pathsep.join([str(FENCE), *sys.path])
        done = subprocess.run([sys.executable, "-c", PROGRAM, *folders], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{folders}: {done.stderr}"


def test_requirements_are_pinned_and_lean(tmp_path: Path) -> None:
    sha = write_bundle(tmp_path / "b", Task.CLUSTERING, 0)
    lines = requirements([Manifest.read(tmp_path / "b", sha)])
    names = {line.partition("==")[0] for line in lines if "==" in line}
    assert {"fastapi", "uvicorn", "pyarrow", "pydantic", "starlette"} <= names
    assert not names & {"xgboost", "xgboost-cpu", "torch", "duckdb", "alembic", "pandas", "scikit-learn", "prompt-toolkit"}
    assert PREDICTORS


def test_a_context_holds_what_the_dockerfile_copies(tmp_path: Path) -> None:
    wanted = made_endpoint(tmp_path / "home", Task.CLUSTERING, Task.CLUSTERING)
    write_image(wanted, tmp_path / "context", "python:3.12-slim")
    container = read_dockerfile(tmp_path / "context", tmp_path, 1)
    assert container.command[1:3] == list(COMMAND[1:3])
    text = dockerfile("python:3.12-slim")
    assert text.startswith(f"FROM python:3.12-slim\nWORKDIR {FOLDER}\n")
    assert "USER 10001:10001" in text
    assert f"VOLUME {STATE}" in text
    assert not list((tmp_path / "context").rglob("*.gz")), "no data sets"
    for arm in FrozenCatalog(tmp_path / "context" / "frozen.json").endpoints()[0].arms:
        assert file_sha256(arm.bundle / MANIFEST) == arm.sha256
    assert "curl" in (tmp_path / "context" / "README.md").read_text()


def test_a_damaged_bundle_is_not_shipped(tmp_path: Path) -> None:
    wanted = made_endpoint(tmp_path / "home", Task.CLUSTERING)
    next((wanted.arms[0].bundle / "native").iterdir()).write_bytes(b"x")
    with pytest.raises(BundleError, match="damaged"):
        write_image(wanted, tmp_path / "context", default_base())


def test_a_frozen_endpoint_is_the_endpoint(tmp_path: Path) -> None:
    wanted = endpoint(90, 10, shadow=True, sticky="header:x-user")
    (tmp_path / "frozen.json").write_text(frozen_text(wanted), encoding="utf-8")
    catalog = FrozenCatalog(tmp_path / "frozen.json")
    [found] = catalog.endpoints()
    assert catalog.endpoints_revision() == catalog.endpoints_revision() == found.revision
    bundles = [tmp_path / "bundles" / arm.sha256 for arm in wanted.arms]
    arms = tuple(replace(arm, bundle=bundle) for arm, bundle in zip(wanted.arms, bundles, strict=True))
    assert found == replace(wanted, arms=arms, revision=1, owner="")
    with pytest.raises(BindError, match="frozen"):
        catalog.rollback_endpoint("churn")
    [only] = FrozenCatalog(tmp_path / "frozen.json", "CHURN@2").endpoints()
    assert [(arm.name, arm.weight) for arm in only.arms] == [("churn@2", 100)]


def test_the_keys_that_open_an_endpoint_go_with_it(tmp_path: Path) -> None:
    keys = [api_key("mine", "churn", rate_limit=5), api_key("all"), api_key("other", "e")]
    shipped = shipment(endpoint(auth="key"), "kubernetes", keys=keys)
    assert [key.name for key in shipped.keys] == ["mine", "all"]
    assert "mine, all" in shipped.notes[0]
    (tmp_path / "frozen.json").write_text(frozen_text(shipped.endpoint, shipped.keys), encoding="utf-8")
    found = FrozenCatalog(tmp_path / "frozen.json").api_keys()
    assert found == tuple(replace(key, endpoints=("churn",), owner="") for key in keys[:2])
    assert shipment(endpoint(), "docker", keys=keys).keys == ()


@pytest.mark.parametrize(
    ("text", "arm", "words"),
    [
        (None, None, "cannot read"),
        ("{", None, "it is no JSON"),
        ("[]", None, "its format is not 1"),
        ('{"format": 2}', None, "its format is not 1"),
        ('{"format": 1}', None, "KeyError: 'arms'"),
        (frozen_text(endpoint(90, 10)), "churn@3", "has no version churn@3"),
        (frozen_text(endpoint(100, shadow=True)), "nn@1", "has no version nn@1 that serves"),
    ],
)
def test_a_file_that_is_none_of_ours(tmp_path: Path, text: str | None, arm: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "frozen.json").write_text(text, encoding="utf-8")
    with pytest.raises(OperationalError, match=words) as caught:
        FrozenCatalog(tmp_path / "frozen.json", arm)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("python:3.11-slim", True),
        ("registry.example:5000/team/churn:3", True),
        (f"churn@sha256:{'a' * 64}", True),
        ("churn:3\nRUN rm -rf /", False),
        ("", False),
        ("Churn", False),
        ("a b", False),
        ("-a", False),
        ("a/" * 300 + "a", False),
    ],
)
def test_names_of_images(name: str, fits: bool) -> None:
    assert is_image(name) is fits
