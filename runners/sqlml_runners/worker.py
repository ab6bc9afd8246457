"""What runs in a job's process: ``python -m sqlml_runners.worker job.json``.

In: the job's document and Arrow files in its folder.  Out: a line of JSON per event in ``events.jsonl``, text in the log
(standard output and error), and at the end ``result.json``; a training also leaves ``bundle/``, ``heldout.arrow`` and
``sample.arrow``, a prediction ``predictions/*.parquet``.  Standard input is a pipe held by whoever started the job: when it
closes, that process is dead and this one ends.

``python -m sqlml_runners.worker job.json prestarted ALGORITHM`` is started before there is a document: it imports what a training
will need, and begins when a line comes on standard input.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from sqlml import errors
from sqlml.contracts import Event
from sqlml.errors import Error, InternalError, JobOutOfMemory
from sqlml.job_folder import EVENTS, RESULT
from sqlml.plan import JobSpec, TrainPlan
from sqlml.registry import ALGORITHMS, FAMILIES

PRESTARTED = "prestarted"
"""The word that says that a job's document will come later."""
OWNER_DIED = 113
"""Exit status when the owner went away."""


class EventWriter:
    """The ``Report`` of a job: each call is a line of ``events.jsonl`` and of the log."""

    def __init__(self, folder: Path, log: TextIO) -> None:
        cut_off = _ends_within_a_line(folder / EVENTS)
        self._events = (folder / EVENTS).open("a", encoding="utf-8", buffering=1)
        if cut_off:
            self._events.write("\n")
        self._log = log

    def step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        self.write({"event": "step", "step": step, "total": total, "metrics": dict(metrics)})
        self.log(f"step {step}/{total}  " + "  ".join(f"{name} {value:.6g}" for name, value in metrics.items()))

    def notice(self, text: str) -> None:
        self.write({"event": "notice", "text": text})
        self.log(f"notice: {text}")

    def stage(self, name: str) -> None:
        self.write({"event": "stage", "name": name})
        self.log(name)

    def write(self, event: Mapping[str, Any]) -> None:
        self._events.write(json.dumps(event, ensure_ascii=False) + "\n")

    def log(self, text: str) -> None:
        print(text, file=self._log, flush=True)

    def close(self) -> None:
        self._events.close()


def _ends_within_a_line(path: Path) -> bool:
    """Whether the last writer was killed in the middle of a line."""
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def run_job(spec: JobSpec, report: EventWriter) -> bool:
    """Carry out a job; True when it is done.  Every outcome is an event, none an exception."""
    try:
        write_atomically(spec.folder / RESULT, json.dumps(_outcome(spec, report), ensure_ascii=False))
    except Error as error:
        return _failed(report, type(error).__name__, error.message, error.hint, error.about)
    except MemoryError:
        return _failed(report, JobOutOfMemory.__name__, "the job ran out of memory", None)
    except ModuleNotFoundError as error:
        from sqlml.registry import missing_extra

        missing = missing_extra(error)
        return _failed(report, type(missing).__name__, missing.message, missing.hint)
    except Exception as error:
        report.log(traceback.format_exc())
        return _failed(report, InternalError.__name__, f"the job failed: {type(error).__name__}: {error}", None)
    report.write({"event": "done"})
    return True


def _outcome(spec: JobSpec, report: EventWriter) -> dict[str, Any]:
    """What the job leaves, as JSON."""
    if spec.kind == "predict":
        from sqlml_runners.scoring import run_prediction

        return run_prediction(spec, report).to_json()
    from sqlml.training import run_folds, run_training

    return (run_folds(spec, report) if spec.kind == "folds" else run_training(spec, report)).to_json()


def _failed(report: EventWriter, error: str, message: str, hint: str | None, about: str | None = None) -> bool:
    report.log(f"failed: {message}")
    report.write({"event": "failed", "error": error, "message": message, "hint": hint, "about": about})
    return False


def error_of(failure: Mapping[str, Any]) -> Error:
    """The error that a ``failed`` event tells of."""
    cls = getattr(errors, str(failure["error"]), errors.JobError)
    error: Error = cls(failure["message"], hint=failure.get("hint"), about=failure.get("about"))
    return error


class Tail:
    """Whole lines of a growing file, as events."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        self._rest = ""

    def events(self) -> list[Event]:
        *lines, self._rest = (self._rest + self._read()).split("\n")
        return [json.loads(line) for line in lines if line]

    def skip(self) -> None:
        """Forget a line that its writer did not live to end."""
        self._rest = ""


def last_lines(log: Path, count: int = 5) -> str:
    """The end of a log, each line on a line of its own."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
    return "".join(f"\n  {line}" for line in lines)


def write_atomically(path: Path, text: str) -> None:
    """The whole file or none of it."""
    draft = path.with_name(path.name + ".part")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _end_with_owner(go: threading.Event) -> None:
    while os.read(0, 4096):
        go.set()
    os._exit(OWNER_DIED)


class _Absent:
    """A finder of modules by which some are not installed, for every thread or for one.

    It keeps libraries from importing others that they merely look for: a second, and 150 MiB that would be there beside the rows.
    pyarrow would ask pandas whether a list is one of its own; XGBoost goes without its plots and estimators, and so without
    scikit-learn and SciPy's functions, where it cannot import the former.
    """

    def __init__(self, *names: str, thread: int | None = None) -> None:
        self._names = names
        self._thread = thread
        self.is_over = False  # it stays among the finders, whose list another thread may be going through

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if not self.is_over and name in self._names and self._thread in (None, threading.get_ident()):
            raise ModuleNotFoundError(f"No module named {name!r} in a job", name=name)


def _import_ahead(algorithm: str) -> None:
    """Import what a training needs: XGBoost while the rows are read, which goes on without Python's lock for the most part."""
    own = algorithm in ALGORITHMS or algorithm in FAMILIES or not algorithm
    if own:  # who knows what others' need
        sys.meta_path.insert(0, _Absent("pandas"))
    importlib.import_module("sqlml.training")
    if own and algorithm.startswith("xgboost"):
        threading.Thread(target=_import_xgboost, daemon=True).start()


def _import_xgboost() -> None:
    without = _Absent("sklearn", "xgboost.plotting", thread=threading.get_ident())  # the job itself may be importing them
    sys.meta_path.insert(0, without)
    try:
        with suppress(ImportError):  # whoever needs it imports it again, and tells
            importlib.import_module("xgboost")
            importlib.import_module("sqlml.algorithms.xgboost_kernel")
    finally:
        without.is_over = True


def main() -> int:
    go = threading.Event()
    threading.Thread(target=_end_with_owner, args=(go,), daemon=True).start()
    document, *more = sys.argv[1:]
    if more[:1] == [PRESTARTED]:
        _import_ahead(more[1])
        go.wait()
    spec = JobSpec.from_json(json.loads(Path(document).read_text(encoding="utf-8")))
    if isinstance(spec.plan, TrainPlan) and not more:
        _import_ahead(spec.plan.algorithm or "")
    report = EventWriter(spec.folder, sys.stdout)
    done = run_job(spec, report)
    report.close()
    return 0 if done else 1


if __name__ == "__main__":
    # Leave at once: libraries' threads and buffers have nothing left to say.
    status = main()
    sys.stdout.flush()
    os._exit(status)
