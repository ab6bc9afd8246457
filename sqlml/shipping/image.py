"""The context of an image that serves one endpoint: everything that it needs lies in one folder.

Beside the Dockerfile, .dockerignore and README.md: requirements.txt, what serving needs, pinned; app/, sqlml itself;
frozen.json, the endpoint; bundles/<sha256>/, its versions; lookups/, copies of the tables that a query looks into.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlml.bundles.manifest import MANIFEST, Manifest
from sqlml.catalog.api_keys import ApiKey
from sqlml.catalog.endpoints import Endpoint
from sqlml.catalog.frozen import BUNDLES, FILE, frozen_text
from sqlml.composition.copies import copy_path
from sqlml.composition.plan import Composition
from sqlml.errors import BundleError
from sqlml.home import Home, rows_url
from sqlml.shipping.requirements import requirements

PORT = 8080
USER = 10001
FOLDER = "/srv/endpoint"
STATE = "/var/lib/sqlml"
"""Where the server keeps its logs and the prediction log; all else may be read-only, but for /tmp."""

LOOKUPS = "lookups"
PACKAGES = ("sqlml_dialect", "sqlml", "sqlml_runners")
COMMAND = (
    "python", "-m", "sqlml_runners.serving", "--frozen", FILE, "--home", STATE, "--host", "0.0.0.0", "--port", str(PORT),  # noqa: S104
    "--open-metrics",
    "--foreground",
)  # fmt: skip
"""What the container runs.  In there every address is the container's own."""

_HEALTH = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{PORT}/v2/health/ready', timeout=3)"
_IMAGE = re.compile(
    r"[a-z0-9][a-z0-9._-]*(:[0-9]+)?(/[a-z0-9][a-z0-9._-]*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)


def is_image(name: str) -> bool:
    """Whether a text can be an image's name: ``python:3.11-slim``, ``registry.example:5000/team/churn:3``."""
    return _IMAGE.fullmatch(name) is not None and len(name) <= 512


def default_base() -> str:
    """The base of an image: the Python that runs here, since the pinned versions are of it."""
    return f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"


def write_image(endpoint: Endpoint, folder: Path, base: str, keys: Sequence[ApiKey] = ()) -> None:
    """Write the context into a new folder.  ``BundleError`` where a bundle is missing or damaged."""
    folder.mkdir()
    manifests: list[Manifest] = []
    for arm in {arm.sha256: arm for arm in endpoint.arms}.values():
        manifests.append(Manifest.read(arm.bundle, arm.sha256))
        _copy_bundle(arm.bundle, manifests[-1], folder / BUNDLES / arm.sha256)
    for name in copies_of(endpoint):
        _copy_table(copy_path(Home(endpoint.arms[0].bundle.parent.parent).lookups, name), Home(folder).lookups)
    (folder / FILE).write_text(frozen_text(endpoint, keys), encoding="utf-8")
    _copy_code(folder / "app")
    needed = "\n".join(requirements(manifests, query=endpoint.definition is not None))
    head = f"# what serving needs on {base}, and all that this needs in turn"
    (folder / "requirements.txt").write_text(f"{head}\n{needed}\n", encoding="utf-8")
    (folder / "Dockerfile").write_text(dockerfile(base, looks_up=bool(copies_of(endpoint))), encoding="utf-8")
    (folder / ".dockerignore").write_text(_IGNORED + (f"!{LOOKUPS}\n" if copies_of(endpoint) else ""), encoding="utf-8")
    (folder / "README.md").write_text(_readme(endpoint, _request(endpoint, manifests[0])), encoding="utf-8")


def alone(endpoint: Endpoint) -> Endpoint:
    """The endpoint with one worker in each container: there are more containers instead."""
    ends = ("replicas", "min_replicas", "max_replicas")
    return replace(endpoint, options={name: value for name, value in endpoint.options.items() if name not in ends})


def copies_of(endpoint: Endpoint) -> tuple[str, ...]:
    """The names of the copies of tables that a query looks into."""
    if endpoint.definition is None:
        return ()
    return tuple(dict.fromkeys(step.copy for step in Composition.from_json(endpoint.definition).look_ups))


def dockerfile(base: str, *, looks_up: bool = False) -> str:
    """The Dockerfile: packages first, so that another version of the model builds in a moment."""
    environment = {"PYTHONPATH": f"{FOLDER}/app", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    lines = [
        f"FROM {base}",
        f"WORKDIR {FOLDER}",
        "COPY requirements.txt .",
        "RUN pip install --no-cache-dir -r requirements.txt",
        f"RUN useradd --uid {USER} --no-create-home --home-dir {STATE} sqlml && install -d -o {USER} -g {USER} {STATE}",
        "COPY app app",
        "RUN python -m compileall -q app",
        f"COPY {BUNDLES} {BUNDLES}",
        *([f"COPY {LOOKUPS} {LOOKUPS}"] if looks_up else []),
        f"COPY {FILE} .",
        "ENV " + " ".join(f"{name}={value}" for name, value in environment.items()),
        f"USER {USER}:{USER}",
        f"VOLUME {STATE}",
        f"EXPOSE {PORT}",
        "STOPSIGNAL SIGTERM",
        f"HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD {json.dumps(['python', '-c', _HEALTH])}",
        f"CMD {json.dumps(COMMAND)}",
    ]
    return "\n".join(lines) + "\n"


_IGNORED = f"""*
!requirements.txt
!app
!{BUNDLES}
!{FILE}
**/__pycache__
"""


def _copy_bundle(bundle: Path, manifest: Manifest, place: Path) -> None:
    for name in (MANIFEST, *manifest.files):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle / name, place / name)


def _copy_table(source: Path, folder: Path) -> None:
    """A copy of a table as it stands; REFRESH ENDPOINT puts another file in its place, and never changes one."""
    folder.mkdir(exist_ok=True)
    try:
        shutil.copyfile(source, folder / source.name)
    except FileNotFoundError as error:
        raise BundleError(f"the copy {source} of a table is missing", hint="REFRESH ENDPOINT makes it again") from error


def _copy_code(place: Path) -> None:
    """Our own packages as they are here: their Python files."""
    for package in PACKAGES:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        source = Path(spec.origin).parent
        for path in sorted(source.rglob("*.py")):
            target = place / package / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _request(endpoint: Endpoint, manifest: Manifest) -> str:
    """A command that asks the endpoint something when it runs here."""
    asked = rows_url(f"http://127.0.0.1:{PORT}", endpoint.name)
    key = " -H 'authorization: Bearer …'" if endpoint.options.get("auth") == "key" else ""
    if manifest.language is not None:
        return _curl(asked.removesuffix("predict") + "generate" + key, {"prompt": "Once", "max_new_tokens": 20})
    example = manifest.example if endpoint.definition is None else Composition.from_json(endpoint.definition).example
    return _curl(asked + key, {"rows": [dict(example)]})


def _curl(url: str, document: Mapping[str, Any]) -> str:
    body = json.dumps(document, ensure_ascii=False).replace("'", "'\\''")
    return f"curl -s {url} -d '{body}'"


def _readme(endpoint: Endpoint, request: str) -> str:
    tag = re.sub(r"[^a-z0-9._-]+", "-", endpoint.name.lower()).strip("._-") or "endpoint"
    versions = ", ".join(dict.fromkeys(arm.name for arm in endpoint.arms))
    return f"""# {endpoint.name}

An image that serves {versions}.

    docker build -t {tag} .
    docker run --rm -p {PORT}:{PORT} {tag}
    {request}

It runs as user {USER}. Beside {STATE} (logs) and /tmp it writes nothing: `--read-only --tmpfs /tmp` works.
"""
