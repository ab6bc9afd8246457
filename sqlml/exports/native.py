"""The library's own file of a model, for whoever works with that library alone."""

from __future__ import annotations

import shutil
from pathlib import Path

from sqlml.algorithms.xgboost import TreePredictor
from sqlml.bundles.head import Head
from sqlml.bundles.model import Model
from sqlml.errors import BindError, NotSupportedError, listing
from sqlml.types import UNMEASURED

_XGBOOST = (".json", ".ubj")


def check_native(model: Model, path: Path) -> Head:
    """The head whose file it is.  ``NotSupportedError`` where a model has none, or several."""
    if len(model.heads) != 1:
        targets = listing(head.target or "" for head in model.heads)
        what = (
            f"the model has several targets ({targets}), each with a file of its own"
            if model.heads
            else f"the model {UNMEASURED[model.task]}"
        )
        raise NotSupportedError(what, hint="FORMAT bundle keeps it whole")
    head = model.heads[0]
    if isinstance(head.predictor, TreePredictor):
        if path.suffix.lower() not in _XGBOOST:
            raise BindError(
                f"XGBoost knows a file by its ending: {path.name} is neither .json nor .ubj", hint=f"'{path.stem}.ubj'"
            )
        return head
    files = _files(model, head)
    if len(files) != 1:
        raise NotSupportedError(f"{head.algorithm} has no single file of its own", hint="FORMAT bundle keeps it whole")
    if path.suffix.lower() != files[0].suffix:
        raise BindError(
            f"the own file of {head.algorithm} is {files[0].name}: {path.name} does not end in {files[0].suffix}",
            hint=f"'{path.stem}{files[0].suffix}'",
        )
    return head


def write_native(model: Model, head: Head, target: Path, suffix: str) -> str:
    """Write it, and say in a line what reads it."""
    if not isinstance(head.predictor, TreePredictor):
        [file] = _files(model, head)
        shutil.copyfile(file, target)
        return f"{file.name} of {head.algorithm}: {listing(head.encoder.names, 5)}"
    booster = head.predictor.booster.copy()
    booster.feature_names = _plain_names(head.encoder.names)
    booster.feature_types = ["c" if categorical else "q" for categorical in head.encoder.categorical]
    target.write_bytes(bytes(booster.save_raw("json" if suffix.lower() == ".json" else "ubj")))
    codes = ", categories as their codes" if any(head.encoder.categorical) else ""
    return f"xgboost.Booster reads it: a float32 matrix with the columns {listing(head.encoder.names, 5)}{codes}, NaN for missing"


def _plain_names(names: tuple[str, ...]) -> list[str]:
    """XGBoost allows no brackets and no < in a name, and each only once."""
    plain: list[str] = []
    for name in names:
        text = name.replace("[", "(").replace("]", ")").replace("<", "(")
        while text in plain:
            text += "_"
        plain.append(text)
    return plain


def _files(model: Model, head: Head) -> list[Path]:
    return [path for path in (model.folder / head.manifest.native).rglob("*") if path.is_file()]
