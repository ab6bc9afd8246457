"""Bundles of the first format load, and answer as they did when they were written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sqlml.bundles.manifest import FORMAT, Manifest
from sqlml.bundles.model import Model
from sqlml.errors import BundleError
from sqlml.types import Task
from tests.bundles.handmade import same

FOLDER = Path(__file__).parent / "format1"
EXPECTED: dict[str, list[dict[str, Any]]] = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
ROWS = {
    "age": [None, -0.13, 0.64, 0.1, -0.54, 0.36, 1.3, 0.95],
    "job title": [None, "clerk", "smith", "cook"] * 2,
    "happy": [None, False, True, False, True, False, True, None],
    "since": [f"2020-01-0{i + 1}" for i in range(8)],
    "at": [f"2024-01-01 0{i}:00:00Z" for i in range(8)],
}
TASKS = {
    "classes": ("xgboost_classifier", Task.CLASSIFICATION, "yes", ("no", "yes")),
    "grades": ("logistic_regression", Task.CLASSIFICATION, "grade", (0, 10, 20)),
    "number": ("linear_regression", Task.REGRESSION, "value", ()),
    "groups": ("kmeans", Task.CLUSTERING, None, ()),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_bundle_of_the_first_format(name: str) -> None:
    algorithm, task, target, classes = TASKS[name]
    model = Model.open(FOLDER / name)
    [head] = model.manifest.heads
    assert (head.algorithm, head.task, model.target, model.classes) == (algorithm, task, target, classes)
    assert (model.manifest.format, model.transform, head.onnx) == (FORMAT, None, "model.onnx" if name == "number" else None)
    assert head.onnx is None or (FOLDER / name / head.onnx).is_file()
    rows = {column: pa.array(values) for column, values in ROWS.items()}
    assert same(model.full(rows).to_pylist(), EXPECTED[name], 1e-6)
    assert model.signature.added[0][0] == next(iter(EXPECTED[name][0]))
    assert len(model.reasons(rows, 2)) == 8
    assert sum(share for _, share in model.importance()) == pytest.approx(1)


def test_written_again_it_is_of_the_format_of_today(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    manifest = Manifest.read(FOLDER / "classes")
    (folder / "native").mkdir()
    (folder / "native" / "model.ubj").write_bytes((FOLDER / "classes" / "native" / "model.ubj").read_bytes())
    sha256 = manifest.write(folder)
    assert json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["format"] == FORMAT
    assert Manifest.read(folder, sha256) == manifest


def test_a_format_of_tomorrow_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"format": FORMAT + 1}), encoding="utf-8")
    with pytest.raises(BundleError, match=f"has format {FORMAT + 1}, this version of sqlml reads format {FORMAT}"):
        Manifest.read(tmp_path)
