"""Names and what they stand for.  Ours are in these tables; other people's come by entry point.

A value is ``"module:Class"``; the module is imported when the name is first used, never before.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any, cast

from sqlml.contracts import Algorithm
from sqlml.errors import BindError, MissingExtra, did_you_mean

ALGORITHMS: Mapping[str, str] = {
    "xgboost_classifier": "sqlml.algorithms.xgboost:XgboostClassifier",
    "xgboost_regressor": "sqlml.algorithms.xgboost:XgboostRegressor",
    "logistic_regression": "sqlml.algorithms.linear:LogisticRegression",
    "linear_regression": "sqlml.algorithms.linear:LinearRegression",
    "kmeans": "sqlml.algorithms.kmeans:KMeans",
}
RUNNERS: Mapping[str, str] = {
    "process": "sqlml_runners.process:ProcessRunner",
    "inline": "sqlml_runners.inline:InlineRunner",
}
ENGINES: Mapping[str, str] = {"duckdb": "sqlml.engines.duckdb:DuckDBEngine"}
TARGETS: Mapping[str, str] = {"duckdb": "sqlml_udfs.duckdb_arrow:DuckDBTarget"}

SERVER = "sqlml_runners.serving.control:LocalServer"

_GROUPS = {"algorithm": ALGORITHMS, "runner": RUNNERS, "engine": ENGINES, "target": TARGETS}


@cache
def names(what: str) -> tuple[str, ...]:
    """Every name of a group (``algorithm``, ``runner``, ``engine``, ``target``), ours first."""
    own = _GROUPS[what]
    return (*own, *(e.name for e in entry_points(group=f"sqlml.{what}s") if e.name not in own))


def load(spec: str) -> Any:
    """Import ``"module:Class"``."""
    module, _, attribute = spec.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise missing_extra(error) from error


def get(what: str, name: str) -> Any:
    """The class behind a name.  ``BindError`` with the nearest name where there is none."""
    own = _GROUPS[what]
    key = name.lower()
    if key in own:
        return load(own[key])
    for entry in entry_points(group=f"sqlml.{what}s"):
        if entry.name.lower() == key:
            return entry.load()
    near, more = did_you_mean(name, names(what)), f"SHOW {what.upper()}S lists all"
    raise BindError(f"unknown {what} {name}", hint=f"{near}  ({more})" if near else more)


def get_algorithm(name: str) -> Algorithm:
    """An algorithm, ready to use."""
    return cast(Algorithm, get("algorithm", name)())


_EXTRAS = {
    "xgboost": "cpu",
    "onnxruntime": "cpu",
    "onnx": "cpu",
    "onnxmltools": "cpu",
    "pandas": "pandas",
    "psycopg": "postgres",
    "altair": "notebook",
}


def missing_extra(error: ModuleNotFoundError) -> MissingExtra:
    """What to install for a module that is not there."""
    module = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(module)
    command = f'pip install "sqlml[{extra}]"' if extra else f"pip install {module}"
    return MissingExtra(f"the Python package {module} is not installed", hint=f"install it with: {command}")
