"""Names and what they stand for.  Ours are in these tables; other people's come by entry point.

A value is ``"module:Class"``; the module is imported when the name is first used, never before.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from sqlml.contracts import Algorithm
from sqlml.errors import BindError, MissingExtra, did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

ALGORITHMS: Mapping[str, str] = {
    "xgboost_classifier": "sqlml.algorithms.xgboost:XgboostClassifier",
    "xgboost_regressor": "sqlml.algorithms.xgboost:XgboostRegressor",
    "logistic_regression": "sqlml.algorithms.linear:LogisticRegression",
    "linear_regression": "sqlml.algorithms.linear:LinearRegression",
    "random_forest_classifier": "sqlml.algorithms.forest:RandomForestClassifier",
    "random_forest_regressor": "sqlml.algorithms.forest:RandomForestRegressor",
    "naive_bayes": "sqlml.algorithms.naive_bayes:NaiveBayes",
    "nearest_neighbors_classifier": "sqlml.algorithms.neighbors:NearestNeighborsClassifier",
    "nearest_neighbors_regressor": "sqlml.algorithms.neighbors:NearestNeighborsRegressor",
    "mlp_classifier": "sqlml.algorithms.mlp:MlpClassifier",
    "mlp_regressor": "sqlml.algorithms.mlp:MlpRegressor",
    "kmeans": "sqlml.algorithms.kmeans:KMeans",
    "pca": "sqlml.algorithms.pca:Pca",
    "isolation_forest": "sqlml.algorithms.isolation:IsolationForest",
    "transform_only": "sqlml.algorithms.transform_only:TransformOnly",
}
IMPORTED: Mapping[str, str] = {
    "onnx_classifier": "sqlml.algorithms.imported_onnx:ImportedOnnxClassifier",
    "onnx_language_model": "sqlml.generation.imported:ImportedLanguageModel",
    "onnx_regressor": "sqlml.algorithms.imported_onnx:ImportedOnnxRegressor",
}
"""What IMPORT MODEL brings and TRAIN MODEL cannot make."""
FAMILIES: Mapping[str, tuple[str, str]] = {
    name: (f"{name}_classifier", f"{name}_regressor") for name in ("xgboost", "random_forest", "nearest_neighbors", "mlp")
}
"""A name for two algorithms, for classes and for numbers: the target's values decide which of them is meant."""
DEFAULT_FAMILY = "xgboost"
RUNNERS: Mapping[str, str] = {
    "process": "sqlml_runners.process:ProcessRunner",
    "inline": "sqlml_runners.inline:InlineRunner",
}
RUNNER_TYPES: Mapping[str, str] = {
    "process": "sqlml_runners.process:ProcessRunner",
    "spark": "sqlml_runners.spark.runner:SparkRunner",
    "kubernetes": "sqlml_runners.kubernetes.runner:KubernetesRunner",
}
"""What CREATE RUNNER makes: a class with ``options``, made with a name and their values."""
ENGINES: Mapping[str, str] = {
    "duckdb": "sqlml.engines.duckdb.engine:DuckDBEngine",
    "postgres": "sqlml.engines.postgres.engine:PostgresEngine",
    "sqlalchemy": "sqlml.engines.sqlalchemy.engine:SqlalchemyEngine",
    "spark": "sqlml.engines.spark.engine:SparkEngine",
}
TARGETS: Mapping[str, str] = {
    "duckdb": "sqlml_udfs.duckdb.arrow:DuckDBTarget",
    "spark": "sqlml_udfs.spark.target:SparkTarget",
    "postgres": "sqlml_udfs.postgres.target:PostgresTarget",
}
INSTALLERS: Mapping[str, str] = {"postgres": "sqlml_udfs.postgres.target:PostgresInstaller"}
"""The databases, by their engines' names, in which a version can be a function for any client."""

SERVER = "sqlml_runners.serving.control:LocalServer"

_GROUPS = {
    "algorithm": ALGORITHMS,
    "runner": RUNNERS,
    "runner_type": RUNNER_TYPES,
    "engine": ENGINES,
    "target": TARGETS,
    "installer": INSTALLERS,
}


@cache
def names(what: str) -> tuple[str, ...]:
    """Every name of a group (``algorithm``, ``runner``, ``runner_type``, ``engine``, ``target``, ``installer``), ours first."""
    own = _GROUPS[what]
    return (*own, *(e.name for e in _entry_points(what) if e.name not in own))


def _entry_points(what: str) -> EntryPoints:
    from importlib.metadata import entry_points  # a job of ours does without

    return entry_points(group=f"sqlml.{what}s")


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
    for entry in _entry_points(what):
        if entry.name.lower() == key:
            return entry.load()
    known = (*names(what), *(FAMILIES if what == "algorithm" else ()))
    near = did_you_mean(name, known)
    more = f"there are: {', '.join(known)}" if what == "runner_type" else f"SHOW {what.upper()}S lists all"
    raise BindError(f"unknown {what.replace('_', ' ')} {name}", hint=f"{near}  ({more})" if near else more)


def get_algorithm(name: str) -> Algorithm:
    """An algorithm, ready to use.  ``BindError`` for a family's name: it stands for two (``candidates``)."""
    if name in IMPORTED:
        return cast(Algorithm, load(IMPORTED[name])())
    if name.lower() in FAMILIES:
        raise BindError(f"{name} is two algorithms", hint=f"name one of them: {' or '.join(FAMILIES[name.lower()])}")
    return cast(Algorithm, get("algorithm", name)())


def candidates(name: str | None) -> tuple[Algorithm, ...]:
    """What a name after USING may mean: one algorithm, or a family's classifier and regressor; without a name xgboost's.

    ``BindError`` with the nearest name, of an algorithm or of a family, where there is none.
    """
    if name is not None and name.lower() in IMPORTED:
        raise BindError(
            f"{name.lower()} cannot be trained: IMPORT MODEL brings such models", hint="SHOW ALGORITHMS lists what can be"
        )
    family = FAMILIES.get((name or DEFAULT_FAMILY).lower())
    return tuple(get_algorithm(member) for member in family or (name or DEFAULT_FAMILY,))


_EXTRAS = {
    "xgboost": "cpu",
    "onnxruntime": "cpu",
    "onnx": "cpu",
    "pandas": "pandas",
    "psycopg": "postgres",
    "pgpq": "postgres",
    "torch": "torch",
    "pyspark": "spark",
    "altair": "notebook",
    "vl_convert": "notebook",
    "sqlglot": "sql",
    "optuna": "tune",
    "kubernetes": "kubernetes",
    "fsspec": "kubernetes",
    "tokenizers": "text",
    "grpc": "grpc",
    "google": "grpc",
}
_PACKAGES = {"sklearn": "scikit-learn", "grpc": "grpcio", "google": "protobuf"}
"""Packages that are not called like their module."""


def missing_extra(error: ModuleNotFoundError) -> MissingExtra:
    """What to install for a module that is not there."""
    module = (error.name or "").partition(".")[0]
    extra, package = _EXTRAS.get(module), _PACKAGES.get(module, module)
    command = f'pip install "sqlml[{extra}]"' if extra else f"pip install {package}"
    return MissingExtra(f"the Python package {package} is not installed", hint=f"install it with: {command}")


def check_installed(libraries: Iterable[str]) -> None:
    """``MissingExtra`` for a library of an extra that is not there; nothing is imported."""
    for library in libraries:
        if library in _EXTRAS and find_spec(library) is None:
            raise missing_extra(ModuleNotFoundError(name=library))
