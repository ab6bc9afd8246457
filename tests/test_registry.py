"""Other people's algorithms: a package that is merely installed is found by its entry point and works like ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sqlml.errors import BindError
from sqlml.registry import get, get_algorithm

MODULE = """
import json
import numpy as np
from sqlml.contracts import OptionSpec
from sqlml.types import Task

class Shares:
    threads = 1
    gpu_memory = 0

    def __init__(self, shares):
        self.shares = np.asarray(shares)

    def predict(self, x):
        return np.tile(self.shares, (len(x), 1))

    def contributions(self, x):
        return np.zeros((len(x), 1, x.shape[1] + 1))

    def parameters(self):
        return {}

    def importance(self):
        return np.zeros(0)

    def save(self, folder):
        (folder / "shares.json").write_text(json.dumps(self.shares.tolist()))

    def onnx(self):
        return None

class Prior:
    name = "prior"
    task = Task.CLASSIFICATION
    encoding = "codes"
    early_stopping = None
    rounds = None
    streams = None
    warm_start = False
    explains = False
    options = (OptionSpec("smoothing", "float", 1.0, "rows added to each class", low=0),)
    doc = "the share of each class, whatever the row"
    libraries = ("numpy",)

    def fit(self, data, spec, report):
        counts = np.bincount(data.y, minlength=data.n_classes) + spec.options["smoothing"]
        report.step(1, 1, {})
        return Shares(counts / counts.sum())

    def load(self, folder):
        return Shares(json.loads((folder / "shares.json").read_text()))
"""

SCRIPT = """
import sqlml
with sqlml.connect("a.duckdb") as c:
    c.execute("CREATE TABLE t AS SELECT i, i % 4 = 0 AS y FROM range(400) r(i)")
    c.execute("TRAIN MODEL m USING prior TARGET y SPLIT NONE WITH (smoothing = 0) AS FROM t")  # in a process of its own
    print(c.execute("SELECT DISTINCT PREDICT_PROBA(m, true) FROM t").fetchall())
    print(c.execute("SELECT task FROM sqlml.algorithms WHERE algorithm = 'prior'").fetchall())
    try:
        c.execute("TRAIN MODEL m USING prior TARGET y WITH (smoothing = -1) AS FROM t")
    except sqlml.Error as error:
        print(error.message)
"""


@pytest.mark.slow
def test_an_installed_package_brings_an_algorithm(tmp_path: Path) -> None:
    site = tmp_path / "site"
    metadata = site / "prior-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "prior_package.py").write_text(MODULE, encoding="utf-8")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: prior\nVersion: 1.0\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text("[sqlml.algorithms]\nprior = prior_package:Prior\n", encoding="utf-8")
    path = os.pathsep.join([str(site), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}
    )
    assert done.stdout.splitlines() == [
        "[(0.25,)]",
        "[('classification',)]",
        "option smoothing of prior is a number ≥ 0 (got the number -1)",
    ], done.stderr


def test_an_unknown_name_teaches() -> None:
    with pytest.raises(BindError, match="unknown algorithm xgboost_classifer") as caught:
        get_algorithm("xgboost_classifer")
    assert "did you mean xgboost_classifier?" in str(caught.value)
    with pytest.raises(BindError, match="unknown runner spark"):
        get("runner", "spark")
