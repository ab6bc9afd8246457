"""Reading a file as a model, in a process of its own: a damaged or malicious file may bring a library down, but not the session.

    python -P -m sqlml.exports.reading request.json

The request names the path, the folder for the bundle, and the options; the answer lies beside it.  The child ends when its
standard input does: with its parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from sqlml import errors
from sqlml.errors import BindError, BundleError, Error, OperationalError
from sqlml.exports.blame import about, option_of
from sqlml.exports.bundle import Card, is_bundle, read_bundle
from sqlml.exports.foreign import Wishes
from sqlml.exports.foreign_language import check_language_model, is_language_model, read_language_model
from sqlml.exports.place import write_error
from sqlml.job_folder import BUNDLE, LOG
from sqlml.plan import TrainOutcome, TrainPlan

SECONDS = 600.0
POLL_SECONDS = 0.1
SHARE = 0.75
"""Of the machine's memory, what reading a file may take."""
REQUEST = "import.json"
ANSWER = "import-answer.json"
_DAMAGED = "the file is damaged, or no model"


def read_apart(path: Path, folder: Path, wishes: Wishes, alive: Callable[[], None] = lambda: None) -> Card:
    """Read ``path`` into ``folder / BUNDLE`` in a child process.  Raises what it raised, or says that it came down.

    ``alive`` is called again and again meanwhile; what it raises ends the child.
    """
    alive()
    check_source(path)
    request = {"path": str(path.absolute()), "folder": str(folder.absolute()), "wishes": asdict(wishes)}
    (folder / REQUEST).write_text(json.dumps(request, ensure_ascii=False), encoding="utf-8")
    command = [
        sys.executable,
        "-P",
        "-m",
        "sqlml.exports.reading",
        str(folder / REQUEST),
    ]  # -P: no json.py of the folder it is in
    with (
        (folder / LOG).open("ab") as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True) as child,
    ):
        try:
            _wait(child, path, alive)
        finally:
            child.kill()
    answer = folder / ANSWER
    if not answer.is_file():
        raise BundleError(f"reading {path} brought its process down (exit status {child.returncode})", hint=_DAMAGED)
    document = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in document:
        raise _error(document["error"])
    return Card(
        document["name"],
        document["created_at"],
        TrainPlan.from_json(document["plan"]),
        TrainOutcome.from_json(document["outcome"]),
    )


def _wait(child: subprocess.Popen[bytes], path: Path, alive: Callable[[], None]) -> None:
    """Until the child has ended; raises where it takes too long, or too much memory."""
    deadline, most = time.monotonic() + SECONDS, int(psutil.virtual_memory().total * SHARE)
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(POLL_SECONDS)
            return
        alive()
        if time.monotonic() > deadline:
            raise OperationalError(f"{path} was not read within {SECONDS:g} seconds", hint=_DAMAGED)
        if _memory(child.pid) > most:
            raise OperationalError(f"reading {path} took more than {most / 2**30:.1f} GiB of memory", hint=_DAMAGED)


def _memory(pid: int) -> int:
    """Bytes that a process holds; 0 where it has just ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def check_source(path: Path) -> None:
    """Raise what can be told without reading: no such file, no permission."""
    try:
        if not path.exists():
            near = sorted(p.name for p in path.parent.iterdir())[:200] if path.parent.is_dir() else []
            hint = errors.did_you_mean(path.name, near) or (None if path.parent.is_dir() else f"there is no folder {path.parent}")
            raise BindError(f"there is no file {path}", hint=hint)
        if path.is_file():
            with path.open("rb") as file:
                if not file.read(1):
                    raise BundleError(f"{path} is empty", hint="export the model again")
        elif not path.is_dir():
            raise BindError(
                f"{path} is neither a file nor a folder", hint="give what EXPORT MODEL wrote, an ONNX or an XGBoost file"
            )
    except OSError as error:
        raise OperationalError(f"cannot read {path}: {error.strerror or error}") from error


def read_model(path: Path, folder: Path, wishes: Wishes) -> Card:
    """Read a bundle, a language model's folder, an ONNX file or an XGBoost file into ``folder``, which is made, and try it."""
    if is_language_model(path):
        return read_language_model(path, folder, wishes)
    if is_bundle(path):
        given = [name for name, value in asdict(wishes).items() if value is not None]
        if given:
            own = BindError(f"a bundle says itself what it is: no option {given[0]}", hint="leave the options out")
            raise about(given[0], own)
        card = read_bundle(path, folder)
    else:
        card = _read_foreign(path, folder, wishes)
    _try(path, folder, card)
    return card


def _read_foreign(path: Path, folder: Path, wishes: Wishes) -> Card:
    own = next((name for name in ("ends", "context") if getattr(wishes, name) is not None), None)
    if own is not None:
        apart = BindError(f"the option {own} is of language models", hint="import the folder with the graph and tokenizer.json")
        raise about(own, apart)
    with path.open("rb") as file:
        head = file.read(64).lstrip()
    if path.suffix.lower() in (".json", ".ubj") or head[:1] == b"{":
        from sqlml.exports.foreign_xgboost import read_xgboost

        return read_xgboost(path, folder, wishes)
    if path.suffix.lower() == ".onnx" or head[:1] == b"\x08":
        from sqlml.exports.foreign_onnx import read_onnx

        return read_onnx(path, folder, wishes)
    raise BundleError(
        f"{path} is no model that is known here",
        hint="a bundle (folder, .tar, .tar.gz), .onnx, or XGBoost's .json or .ubj can be imported",
    )


def _try(path: Path, folder: Path, card: Card) -> None:
    """Load it and predict, so that what is wrong comes out now; trees are checked node by node."""
    from sqlml.algorithms.boosters import read_forest
    from sqlml.algorithms.xgboost import TreePredictor
    from sqlml.bundles.model import Model
    from sqlml.exports.samples import sample_rows

    try:
        model = Model.open(folder, card.outcome.bundle_sha256)
        for head in model.heads:
            if isinstance(head.predictor, TreePredictor):
                read_forest(head.predictor.booster)
        if model.language is not None:
            check_language_model(folder)
        model.full(sample_rows(model).slice(0, 1) if model.language else sample_rows(model))
    except Error:
        raise
    except Exception as error:  # whatever a damaged file makes a library raise
        text = str(error).splitlines()[0] if str(error) else ""
        raise BundleError(f"{path} cannot be used: {type(error).__name__}: {text}", hint=_DAMAGED) from error


def _error(document: dict[str, Any]) -> Error:
    found = getattr(errors, document["type"], OperationalError)
    error: Error = found(document["message"], hint=document["hint"])
    return about(document["option"], error) if document.get("option") else error


def _end_with_parent() -> None:
    while os.read(0, 1):  # not by sys.stdin, whose lock the end of Python would wait for
        pass
    os._exit(1)


def main(request: Path) -> None:
    """The child: read what the request names, and leave the answer beside it."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    warnings.simplefilter("ignore")
    document = json.loads(request.read_text(encoding="utf-8"))
    path, folder = Path(document["path"]), Path(document["folder"])
    given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in document["wishes"].items()}
    wishes = Wishes(**given)
    try:
        card = read_model(path, folder / BUNDLE, wishes)
        answer = {
            "name": card.name,
            "created_at": card.created_at,
            "plan": card.plan.to_json(),
            "outcome": card.outcome.to_json(),
        }
    except Error as error:
        name = type(error).__name__
        answer = {"error": {"type": name, "message": error.message, "hint": error.hint, "option": option_of(error)}}
    except OSError as error:
        own = write_error(folder, error)
        answer = {"error": {"type": type(own).__name__, "message": own.message, "hint": own.hint}}
    except (MemoryError, RecursionError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        text = f"{path} cannot be read ({type(error).__name__}: {error})"
        answer = {"error": {"type": "BundleError", "message": text, "hint": _DAMAGED}}
    beside = folder / f"{ANSWER}.part"
    beside.write_text(json.dumps(answer, ensure_ascii=False, default=str), encoding="utf-8")
    beside.replace(folder / ANSWER)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
