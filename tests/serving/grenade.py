"""An installed package whose algorithm kills its process when it is told to: real crashes for real servers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

MODULE = """
import json, os, signal
import numpy as np
from sqlml.contracts import OptionSpec
from sqlml.types import Task

class Primed:
    threads = 1
    gpu_memory = 0

    def __init__(self, when):
        self.when = when

    def predict(self, x):
        if self.when == "row" and (x[:, 0] == 666).any():
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.when == "fault" and (x[:, 0] == 666).any():
            raise RuntimeError("it does not go off")
        return x[:, 0].astype(float)

    def parameters(self):
        return {}

    def importance(self):
        return np.zeros(0)

    def save(self, folder):
        (folder / "when.json").write_text(json.dumps(self.when))

    def onnx(self):
        return None

class Grenade:
    name = "grenade"
    task = Task.REGRESSION
    encoding = "codes"
    early_stopping = None
    rounds = None
    streams = None
    warm_start = False
    explains = False
    options = (OptionSpec("when", "str", "never", "when it kills", choices=("never", "load", "row", "fault")),)
    doc = "answers its first feature, or dies"
    libraries = ()

    def fit(self, data, spec, report):
        return Primed(spec.options["when"])

    def load(self, folder):
        when = json.loads((folder / "when.json").read_text())
        if when == "load" and os.environ["GRENADE_PIN"] != str(os.getpid()):
            os.kill(os.getpid(), signal.SIGSEGV)
        return Primed(when)
"""


def install_grenade(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install it for this process, which it spares, and those that it starts."""
    metadata = site / "grenade-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "grenade_package.py").write_text(MODULE, encoding="utf-8")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: grenade\nVersion: 1.0\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text("[sqlml.algorithms]\ngrenade = grenade_package:Grenade\n", encoding="utf-8")
    monkeypatch.setenv("GRENADE_PIN", str(os.getpid()))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *filter(None, sys.path)]))
    monkeypatch.syspath_prepend(str(site))
