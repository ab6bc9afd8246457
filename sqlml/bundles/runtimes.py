"""How many rows a bundle's library is slower for than ONNX Runtime, as it was measured when the version was first loaded.

    worker, at DEPLOY: both timed on rows of the training → runtimes/<sha256>.json → every worker after it; SHOW ENDPOINTS

What was measured counts for the machine and the libraries it was measured on; elsewhere it is measured again.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sqlml.native.library import instructions

FOLDER = "runtimes"
_ROWS = "library_from"
_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "xgboost", "xgboost-cpu", "scikit-learn", "torch")


@dataclass(frozen=True)
class Crossovers:
    """For each head: so many rows and more are the library's, fewer ONNX Runtime's; 0: all the library's, infinite: none."""

    rows: tuple[float, ...]

    def text(self) -> str:
        """``ONNX Runtime below 88 rows``; of several heads each one's, once."""
        return "; ".join(dict.fromkeys(_text(rows) for rows in self.rows))


def _text(rows: float) -> str:
    if rows <= 1:
        return "the library"
    return "ONNX Runtime" if math.isinf(rows) else f"ONNX Runtime below {math.ceil(rows):,} rows"


def runtimes_path(folder: Path, sha256: str) -> Path:
    """Where the crossovers of a bundle lie, in the folder of a home."""
    return folder / FOLDER / f"{sha256}.json"


def read_crossovers(path: Path, heads: int | None = None, *, here: bool = True) -> Crossovers | None:
    """What was measured; None where nothing was, or, with ``here``, on another machine or with other libraries."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        rows = tuple(math.inf if rows is None else float(rows) for rows in document[_ROWS])
        measured_on = document["measured_on"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if (heads is not None and len(rows) != heads) or (here and measured_on != place()):
        return None
    return Crossovers(rows)


def write_crossovers(path: Path, rows: Sequence[float]) -> None:
    """Keep what was measured, in one step; where the folder cannot be written it is measured the next time again."""
    document = {_ROWS: [None if math.isinf(one) else one for one in rows], "measured_on": place()}
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        beside.write_text(json.dumps(document), encoding="utf-8")
        beside.replace(path)


@cache
def place() -> dict[str, str]:
    """This machine and its libraries, as far as they decide what is quicker."""
    found = {"host": platform.node(), "machine": platform.machine(), "cores": str(os.cpu_count())}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found | {"native loops": instructions() or "none"}
