"""What an image has to install so as to serve some bundles: distributions, pinned to the versions that are installed here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import metadata
from importlib.metadata import entry_points

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from sqlml.bundles.manifest import Manifest
from sqlml.errors import MissingExtra
from sqlml.registry import ALGORITHMS, IMPORTED, get_algorithm

SERVER = (
    "fastapi",
    "fastapi-offline",
    "uvicorn",
    "httptools",
    "uvloop",
    "msgspec",
    "prometheus-client",
    "psutil",
    "pyarrow",
    "numpy",
    "sqlalchemy",
)
"""What the server itself stands on."""

QUERY = ("duckdb", "lmdb")
"""What queries stand on."""

LANGUAGE = ("onnxruntime", "tokenizers")
"""What language models stand on."""

PREDICTORS: Mapping[str, tuple[str, ...]] = {
    "xgboost_classifier": ("xgboost",),
    "xgboost_regressor": ("xgboost",),
    "random_forest_classifier": ("xgboost",),
    "random_forest_regressor": ("xgboost",),
    "nearest_neighbors_classifier": ("scikit-learn", "scipy", "threadpoolctl"),
    "nearest_neighbors_regressor": ("scikit-learn", "scipy", "threadpoolctl"),
    "mlp_classifier": ("onnxruntime", "onnx", "scipy"),
    "mlp_regressor": ("onnxruntime", "onnx", "scipy"),
    "onnx_classifier": ("onnxruntime", "onnx"),
    "onnx_regressor": ("onnxruntime", "onnx"),
}
"""What our algorithms need to predict, beside numpy; those that are not here need nothing more."""

_VARIANTS = ("", "-cpu", "-gpu")
"""Distributions that hold the same package: ``xgboost-cpu`` for ``xgboost``."""
_LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
"""Where an image runs, wherever it is made."""


def requirements(manifests: Iterable[Manifest], *, query: bool = False) -> tuple[str, ...]:
    """Lines of a requirements file: all that serving these bundles (as parts of a query) needs, and all that this needs in turn.

    ``MissingExtra`` where one of them is not installed here, so that nobody knows its version.
    """
    wanted = dict.fromkeys((*SERVER, *(QUERY if query else ())))
    for manifest in manifests:
        wanted |= dict.fromkeys(_needed(manifest))
    return _closure(wanted)


def _needed(manifest: Manifest) -> list[str]:
    found = ["duckdb"] if manifest.transform is not None else []
    found += LANGUAGE if manifest.language is not None else ()
    for head in manifest.heads:
        found += ["onnxruntime"] if head.onnx else []
        found += _of_algorithm(head.algorithm)
    return found


def _of_algorithm(name: str) -> tuple[str, ...]:
    if name in ALGORITHMS or name in IMPORTED:
        return PREDICTORS.get(name, ())
    algorithm = get_algorithm(name)
    theirs = [entry.dist.name for entry in entry_points(group="sqlml.algorithms") if entry.name == name and entry.dist]
    return (*theirs, *algorithm.libraries)


def _closure(roots: Iterable[str]) -> tuple[str, ...]:
    """``name==version`` of distributions and of all that they need on Linux, by name."""
    lines: dict[str, str] = {}
    waiting = [_installed(name).name for name in roots]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in lines:
            continue
        distribution = metadata.distribution(name)
        lines[name] = f"{name}=={Version(distribution.version).public}"
        for text in distribution.requires or ():
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate({**_LINUX, "extra": ""}):
                continue
            if _has(requirement.name):
                waiting.append(requirement.name)
            else:  # needed there, not here
                lines[canonicalize_name(requirement.name)] = f"{requirement.name}{requirement.specifier}"
    return tuple(lines[name] for name in sorted(lines))


def _installed(name: str) -> metadata.Distribution:
    """A distribution, or the one that holds the same package."""
    for variant in _VARIANTS:
        if _has(name + variant):
            return metadata.distribution(name + variant)
    raise MissingExtra(
        f"the Python package {name} is not installed, so its version for the image is not known", hint=f"pip install {name}"
    )


def _has(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
