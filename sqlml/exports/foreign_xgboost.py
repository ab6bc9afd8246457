"""XGBoost's own files, .json and .ubj, as bundles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlml.algorithms.boosters import read_forest
from sqlml.algorithms.xgboost import TreePredictor
from sqlml.contracts import Algorithm
from sqlml.errors import BindError, BundleError, DataError, NotSupportedError, listing
from sqlml.exports.blame import about
from sqlml.exports.bundle import Card
from sqlml.exports.foreign import Wishes, category_code, number_code, write_foreign
from sqlml.features.column_code import ColumnCode
from sqlml.registry import get_algorithm
from sqlml.types import Task

if TYPE_CHECKING:
    import xgboost

_TWO = ("binary:logistic",)
_MORE = ("multi:softprob", "multi:softmax")
_VALUES = (
    "reg:squarederror",
    "reg:squaredlogerror",
    "reg:logistic",
    "reg:pseudohubererror",
    "reg:absoluteerror",
    "reg:quantileerror",
    "reg:gamma",
    "reg:tweedie",
    "count:poisson",
    "rank:ndcg",
    "rank:map",
    "rank:pairwise",
)


def read_xgboost(path: Path, folder: Path, wishes: Wishes) -> Card:
    """Write a bundle of a booster's file.  ``BundleError`` for a damaged file, ``NotSupportedError`` for what is not known."""
    booster = _load(path)
    forest = read_forest(booster)
    objective = forest.objective
    algorithm = _algorithm(path, objective, len(forest.base), wishes)
    codes = _codes(path, booster, wishes)
    classes: tuple[Any, ...] = ()
    if algorithm.task is Task.CLASSIFICATION:
        classes = wishes.labels(None, 2 if objective in _TWO else len(forest.base))
    if objective == "multi:softmax":  # the same trees, asked for probabilities instead of the likeliest
        booster, objective = _softprob(booster), "multi:softprob"
    booster.feature_names = None
    booster.set_param({"nthread": 1})
    for name in booster.attributes():
        booster.set_attr(**{name: None})
    booster.set_attr(objective=objective, outputs=str(len(classes) or 1))
    return write_foreign(folder, algorithm, TreePredictor(booster), codes, classes, wishes, path.name)


def _load(path: Path) -> xgboost.Booster:
    import xgboost

    try:
        booster = xgboost.Booster(params={"nthread": 1, "verbosity": 0})
        booster.load_model(bytearray(path.read_bytes()))
        return booster
    except xgboost.core.XGBoostError as error:
        text = " ".join(line.strip() for line in str(error).split("Stack trace")[0].splitlines()[:2])
        raise BundleError(
            f"XGBoost cannot read {path}: {text}", hint="give a file that Booster.save_model wrote, .json or .ubj"
        ) from error


def _algorithm(path: Path, objective: str, outputs: int, wishes: Wishes) -> Algorithm:
    task = Task.CLASSIFICATION if objective in _TWO + _MORE else Task.REGRESSION
    if objective not in (*_TWO, *_MORE, *_VALUES):
        known = listing((*_TWO, *_MORE, *_VALUES), 20)
        raise NotSupportedError(
            f"{path} was trained for {objective}, whose scores are not understood here", hint=f"there are: {known}"
        )
    if task is Task.REGRESSION and outputs > 1:
        raise NotSupportedError(
            f"{path} gives {outputs} values for each row", hint="a model of one value, or of classes, can be imported"
        )
    if wishes.task not in (None, task.value):
        other = f"{path} was trained for {objective}, which is {task.value}, not {wishes.task}"
        raise about("task", BindError(other, hint="leave the option task out"))
    if wishes.classes is not None and task is Task.REGRESSION:
        none = BindError(f"{path} was trained for {objective}: it has no classes", hint="leave the option classes out")
        raise about("classes", none)
    return get_algorithm("xgboost_classifier" if task is Task.CLASSIFICATION else "xgboost_regressor")


def _codes(path: Path, booster: xgboost.Booster, wishes: Wishes) -> list[ColumnCode]:
    count = booster.num_features()
    types = booster.feature_types or ["q"] * count
    names = wishes.names(booster.feature_names, count)
    if "c" not in types:
        return [number_code(name) for name in names]
    known = _categories(booster)
    lacking = [name for j, (name, kind) in enumerate(zip(names, types, strict=True)) if kind == "c" and not known.get(j)]
    if lacking:
        raise DataError(
            f"{path} does not tell what the category codes of {listing(lacking)} stand for",
            hint="XGBoost 3.1 and later keep the categories of a pandas or Arrow table: train and save the model with one",
        )
    return [
        category_code(name, known[j]) if kind == "c" else number_code(name)
        for j, (name, kind) in enumerate(zip(names, types, strict=True))
    ]


def _categories(booster: xgboost.Booster) -> dict[int, list[str]]:
    """The words of each categorical feature, by its number, in the order of the codes."""
    try:
        found = booster.get_categories(export_to_arrow=True).to_arrow()
    except (AttributeError, TypeError, ValueError):
        return {}
    return {j: [str(word) for word in words.to_pylist()] for j, (_, words) in enumerate(found) if words is not None}


def _softprob(booster: xgboost.Booster) -> xgboost.Booster:
    import xgboost

    document = json.loads(bytes(booster.save_raw("json")))
    document["learner"]["objective"]["name"] = "multi:softprob"
    changed = xgboost.Booster(params={"nthread": 1})
    changed.load_model(bytearray(json.dumps(document).encode()))
    return changed
