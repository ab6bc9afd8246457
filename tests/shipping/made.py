"""Endpoints for tests of shipping, without a catalog, and what their images run."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from sqlml.catalog import ApiKey, Arm, Endpoint
from sqlml.contracts import OptionSpec
from sqlml.shipping.image import FOLDER
from sqlml.shipping.shipment import OPTIONS, Shipment, make_shipment

FENCE = Path(__file__).parent / "fence"


def endpoint(*weights: int, name: str = "Churn", shadow: bool = False, **options: Any) -> Endpoint:
    """An endpoint with an arm for each weight; its bundles do not exist."""
    arms = [Arm("churn", i, f"u{i}", Path(f"/b/{i}"), f"{i:064x}", "t", weight=w) for i, w in enumerate(weights or (100,), 1)]
    if shadow:
        arms.append(Arm("nn", 1, "u9", Path("/b/9"), f"{9:064x}", "t", "shadow", 0))
    return Endpoint(name, tuple(arms), 7, datetime(2026, 1, 2), "me", "model", options)


def api_key(name: str = "k", *endpoints: str, rate_limit: float | None = None, ended: bool = False) -> ApiKey:
    """A key with two secrets, of which the older ends one day."""
    made = datetime(2026, 1, 2)
    hashes = (("a" * 64, None), ("b" * 64, datetime(2099, 1, 2)))
    return ApiKey(name, hashes, "sqlml_abcd", endpoints, rate_limit, made if ended else None, "me", made)


def shipment(made: Endpoint, form: str, keys: Sequence[ApiKey] = (), **given: Any) -> Shipment:
    """A shipment with the defaults of its format for what is not given."""
    specs: tuple[OptionSpec, ...] = OPTIONS[form]
    assert given.keys() <= {spec.name for spec in specs}
    image = {} if form == "docker" else {"image": "registry.example:5000/team/churn:3"}
    return make_shipment(made, keys, form, {spec.name: spec.default for spec in specs} | image | given)


class Container(NamedTuple):
    """What a Dockerfile says of the process."""

    command: list[str]
    environment: Mapping[str, str]
    health: list[str]


def read_dockerfile(folder: Path, state: Path, port: int) -> Container:
    """The process of an image whose context lies in ``folder``, as it runs here: its folder, state and port are others."""
    lines = (folder / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [line.split()[1] for line in lines if line.startswith("COPY ")]
    assert all((folder / name).exists() for name in copied)
    kept = {line[1:] for line in (folder / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == set(copied)

    def here(text: str) -> str:
        return text.replace(FOLDER, str(folder)).replace("/var/lib/sqlml", str(state)).replace("0.0.0.0", "127.0.0.1").replace(
            "8080", str(port)
        )  # fmt: skip

    command = json.loads(next(line for line in lines if line.startswith("CMD ")).removeprefix("CMD "))
    health = next(re.search(r"CMD (\[.*\])", line) for line in lines if line.startswith("HEALTHCHECK "))
    given = shlex.split(next(line for line in lines if line.startswith("ENV ")).removeprefix("ENV "))
    environment = {name: here(value) for name, _, value in (item.partition("=") for item in given)}
    assert health is not None
    python = [sys.executable, *map(here, command[1:])]
    return Container(python, environment, [sys.executable, *map(here, json.loads(health[1])[1:])])


def fenced(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that sees the context's own code, and of other packages what its requirements name."""
    path = os.pathsep.join([environment["PYTHONPATH"], str(FENCE)])
    more = {"PATH": os.environ["PATH"], "FENCE": str(folder / "requirements.txt"), "HOME": "/nonexistent"}
    return {**environment, **more, "PYTHONPATH": path}
