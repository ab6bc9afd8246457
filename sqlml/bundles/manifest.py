"""A bundle's manifest: what the model takes and gives, how columns become features, and the SHA-256 of every file.

A bundle is a folder:

    manifest.json       this
    native/…            the library's own safe format (XGBoost UBJSON; JSON for coefficients and centres)
    model.onnx          the same function from the feature matrix on, where the converter was found exact on real rows

The SHA-256 of ``manifest.json`` is the bundle's own: it covers every other file through ``files``.  The manifest holds no time
and no host, so the same training gives the same bundle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sqlml.errors import BundleError
from sqlml.plan import InputColumn
from sqlml.types import Kind, Task

FORMAT = 1
MANIFEST = "manifest.json"
NATIVE = "native"
ONNX = "model.onnx"


@dataclass(frozen=True)
class Manifest:
    """``inputs`` in DESCRIBE order; ``classes`` are the target's values in the order of the probabilities."""

    algorithm: str
    task: Task
    inputs: tuple[InputColumn, ...]
    target: str | None
    target_sql_type: str | None
    classes: tuple[Any, ...]  # str, bool, int or float values; dates as ISO text
    encoder: Mapping[str, Any]  # FeatureEncoder.to_json()
    options: Mapping[str, Any]
    example: Mapping[str, Any]  # one real row of inputs, JSON values
    onnx: bool = False
    onnx_max_difference: float | None = None
    files: Mapping[str, str] = field(default_factory=dict)  # relative path → SHA-256
    format: int = FORMAT

    def write(self, folder: Path) -> str:
        """Write ``manifest.json`` over the files that lie in the folder; the bundle's SHA-256."""
        files = {
            str(path.relative_to(folder)): _sha256(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != MANIFEST
        }
        document = asdict(self) | {"files": files}
        text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False)
        (folder / MANIFEST).write_text(text, encoding="utf-8")
        return _sha256(folder / MANIFEST)

    @classmethod
    def read(cls, folder: Path, sha256: str | None = None) -> Manifest:
        """Read and check every file of a bundle.  ``BundleError`` names the file that is missing or changed."""
        path = folder / MANIFEST
        _check(path, sha256)
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.get("format") != FORMAT:
            raise BundleError(
                f"bundle {folder} has format {document.get('format')}, this version of sqlml reads format {FORMAT}",
                hint="install the version of sqlml that wrote it, or train the model again",
            )
        for name, expected in document["files"].items():
            _check(folder / name, expected)
        document["task"] = Task(document["task"])
        document["inputs"] = tuple(InputColumn(c["name"], c["sql_type"], Kind(c["kind"])) for c in document["inputs"])
        document["classes"] = tuple(document["classes"])
        return cls(**document)


def _check(path: Path, expected: str | None) -> None:
    hint = "restore the file from a backup, or train the model again"
    if not path.is_file():
        raise BundleError(f"the model's file {path} is missing", hint=hint)
    if expected is not None and _sha256(path) != expected:
        raise BundleError(f"the model's file {path} is damaged: its SHA-256 is not the one recorded at training", hint=hint)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
