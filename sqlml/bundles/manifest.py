"""A bundle's manifest: what the model takes and gives, how columns become features, and the SHA-256 of every file.

A bundle is a folder:

    manifest.json       this
    native/…            the library's own safe format (XGBoost UBJSON, JSON, NPZ); a folder for each head
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
from sqlml.plan import InputColumn, TargetColumn
from sqlml.types import Kind, Task

FORMAT = 2
MANIFEST = "manifest.json"
NATIVE = "native"
ONNX = "model.onnx"


@dataclass(frozen=True)
class HeadManifest:
    """One thing that was learnt: of several targets each has its own, of most models there is one, of transform_only none."""

    algorithm: str
    task: Task
    target: TargetColumn | None  # None for clusters, components, anomalies
    encoder: Mapping[str, Any]  # FeatureEncoder.to_json()
    options: Mapping[str, Any]
    native: str = NATIVE  # the folder of the library's own format
    onnx: str | None = None  # the file, where the converter was found exact
    onnx_max_difference: float | None = None


@dataclass(frozen=True)
class Manifest:
    """``inputs`` in DESCRIBE order; ``transform`` is ``Transform.to_json()``: SQL and fitted state."""

    inputs: tuple[InputColumn, ...]
    heads: tuple[HeadManifest, ...]
    example: Mapping[str, Any]  # one real row of inputs, JSON values
    transform: Mapping[str, Any] | None = None
    language: Mapping[str, Any] | None = None  # of a language model: ``generation.Language.to_json()``; it has no heads
    files: Mapping[str, str] = field(default_factory=dict)  # relative path → SHA-256
    format: int = FORMAT

    def write(self, folder: Path) -> str:
        """Write ``manifest.json`` over the files that lie in the folder; the bundle's SHA-256."""
        files = {
            path.relative_to(folder).as_posix(): file_sha256(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != MANIFEST
        }
        document = asdict(self) | {"files": files}
        if self.language is None:  # as it was before there were any
            del document["language"]
        text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False)
        (folder / MANIFEST).write_text(text, encoding="utf-8")
        return file_sha256(folder / MANIFEST)

    @classmethod
    def read(cls, folder: Path, sha256: str | None = None) -> Manifest:
        """Read and check every file of a bundle.  ``BundleError`` names the file that is missing or changed."""
        path = folder / MANIFEST
        _check(path, sha256)
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.get("format") == 1:
            document = _from_first(document)
        if document.get("format") != FORMAT:
            raise BundleError(
                f"bundle {folder} has format {document.get('format')}, this version of sqlml reads format {FORMAT}",
                hint="install the version of sqlml that wrote it, or train the model again",
            )
        for name, expected in document["files"].items():
            _check(folder / name, expected)
        inputs = tuple(InputColumn(c["name"], c["sql_type"], Kind(c["kind"])) for c in document["inputs"])
        return cls(**document | {"inputs": inputs, "heads": tuple(_head(head) for head in document["heads"])})


def _head(document: Mapping[str, Any]) -> HeadManifest:
    target = document["target"]
    if target is not None:
        target = TargetColumn(target["name"], target["sql_type"], Task(target["task"]), tuple(target["classes"]))
    return HeadManifest(**{**document, "task": Task(document["task"]), "target": target})


def _from_first(document: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest of format 1, which had one head and no transform."""
    target = document["target"] and {
        "name": document["target"],
        "sql_type": document["target_sql_type"],
        "task": document["task"],
        "classes": document["classes"],
    }
    head = {
        "algorithm": document["algorithm"],
        "task": document["task"],
        "target": target,
        "encoder": document["encoder"],
        "options": document["options"],
        "native": NATIVE,
        "onnx": ONNX if document["onnx"] else None,
        "onnx_max_difference": document["onnx_max_difference"],
    }
    kept = {name: document[name] for name in ("inputs", "example", "files")}
    return {**kept, "heads": [head], "transform": None, "format": FORMAT}


def _check(path: Path, expected: str | None) -> None:
    hint = "restore the file from a backup, or train the model again"
    if not path.is_file():
        raise BundleError(f"the model's file {path} is missing", hint=hint)
    if expected is not None and file_sha256(path) != expected:
        raise BundleError(f"the model's file {path} is damaged: its SHA-256 is not the one recorded at training", hint=hint)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
