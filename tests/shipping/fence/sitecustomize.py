"""Put before a Python's own path: only the distributions that a requirements file names can be imported.

As good as a virtual environment made from the file, and made in no time.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import re
import sys
from collections.abc import Sequence
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

OURS = {"sqlml", "sqlml_dialect", "sqlml_runners", "sqlml_udfs"}


class Fence(importlib.abc.MetaPathFinder):
    """Finds what Python itself finds, but for the modules of any other distribution: they are not there."""

    def __init__(self, allowed: set[str]) -> None:
        known = packages_distributions()
        self.hidden = {m for m, owners in known.items() if not allowed & {_plain(owner) for owner in owners}} - OURS

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] in self.hidden:
            return None
        return importlib.machinery.PathFinder.find_spec(name, path, target)

    find_distributions = staticmethod(importlib.machinery.PathFinder.find_distributions)  # for their own version


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if "FENCE" in os.environ:
    lines = Path(os.environ["FENCE"]).read_text(encoding="utf-8").splitlines()
    fence = Fence({_plain(re.split(r"[=<>~!\[ ]", line)[0]) for line in lines if not line.startswith("#")})
    sys.meta_path[:] = [fence if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
    assert fence in sys.meta_path
