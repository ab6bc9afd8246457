"""Where the owner of a job and its pod exchange files: a folder that both see, or an object store.

    the job's place/   in/   job.json, train.arrow, validation.arrow, rows.arrow, start/ (the bundle of WARM START, or of PREDICT)
                       out/  what the worker left, and at last ``ended``

A file is there as a whole or not at all, and ``ended`` is written last.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlml.errors import BundleError, MissingExtra, OperationalError
from sqlml.job_folder import (
    BUNDLE,
    DOCUMENT,
    EVENTS,
    HELDOUT_ROWS,
    PREDICT_ROWS,
    PREDICTIONS,
    RESULT,
    SAMPLE_ROWS,
    TRAIN_ROWS,
    VALIDATION_ROWS,
)
from sqlml.plan import JobSpec, PredictPlan, StartPlan

IN, OUT, START, ENDED = "in", "out", "start", "ended"
INPUTS = (TRAIN_ROWS, VALIDATION_ROWS, PREDICT_ROWS)
RESULTS = (EVENTS, RESULT, HELDOUT_ROWS, SAMPLE_ROWS, BUNDLE, PREDICTIONS)


class Staging:
    """The place of one job, by its URL or path."""

    def __init__(self, place: str) -> None:
        self.place = place.rstrip("/")
        try:
            from fsspec.core import url_to_fs

            self._files, self._root = url_to_fs(self.place)
        except ModuleNotFoundError as error:
            from sqlml.registry import missing_extra

            raise missing_extra(error) from error
        except ImportError as error:  # the file system's own package
            package = f"{self.place.partition('://')[0]}fs"
            raise MissingExtra(
                f"{self.place} cannot be reached: {error}", hint=f"install it with: pip install {package}"
            ) from error
        except ValueError as error:
            raise OperationalError(f"{self.place} is no place for files: {error}", hint="see the option staging") from error

    # --- the owner's side ---

    def send(self, spec: JobSpec, stopped: Callable[[], None]) -> None:
        """Put a job there.  ``stopped`` raises where the job was cancelled meanwhile."""
        self._guard("written", lambda: self._send(spec, stopped))

    def _send(self, spec: JobSpec, stopped: Callable[[], None]) -> None:
        plan = spec.plan
        bundle = plan.bundle if isinstance(plan, PredictPlan) else plan.start.bundle if plan.start is not None else None
        if bundle is not None:
            self._put(Path(bundle), f"{IN}/{START}")
        for name in INPUTS:
            stopped()
            if (spec.folder / name).exists():
                self._put(spec.folder / name, f"{IN}/{name}")
        document = json.dumps(spec.to_json(), ensure_ascii=False, default=str)
        self._write(f"{IN}/{DOCUMENT}", document)

    def ended(self) -> bool:
        """Whether the pod has written all that it will."""
        return bool(self._guard("read", lambda: self._files.exists(self._path(f"{OUT}/{ENDED}"))))

    def fetch(self, folder: Path) -> None:
        """Take what the worker left into the job's folder."""
        self._guard("read", lambda: self._fetch(folder))

    def _fetch(self, folder: Path) -> None:
        for name in RESULTS:
            if self._files.exists(self._path(f"{OUT}/{name}")):
                self._get(f"{OUT}/{name}", folder / name)

    def remove(self) -> None:
        """Take the job's place away; nothing is said where that fails: it is only room."""
        with suppress(Exception):
            self._files.rm(self._root, recursive=True)

    # --- the pod's side ---

    def receive(self, folder: Path) -> JobSpec:
        """Take a job into a folder of this machine; it is that folder's now."""
        return JobSpec.from_json(self._guard("read", lambda: self._receive(folder)))

    def _receive(self, folder: Path) -> dict[str, Any]:
        for name in (*INPUTS, START):
            if self._files.exists(self._path(f"{IN}/{name}")):
                self._get(f"{IN}/{name}", folder / name)
        spec = JobSpec.from_json(json.loads(self._files.cat_file(self._path(f"{IN}/{DOCUMENT}"))))
        plan = spec.plan
        if isinstance(plan, PredictPlan):
            plan = replace(plan, bundle=str(folder / START))
        elif plan.start is not None:
            plan = replace(plan, start=StartPlan(plan.start.name, str(folder / START), plan.start.sha256))
        document = replace(spec, folder=folder, plan=plan).to_json()
        (folder / DOCUMENT).write_text(json.dumps(document, ensure_ascii=False, default=str), encoding="utf-8")
        return document

    def give(self, folder: Path) -> None:
        """Put there what the worker left in a folder; ``ended`` comes last."""
        self._guard("written", lambda: self._give(folder))

    def _give(self, folder: Path) -> None:
        for name in RESULTS:
            if (folder / name).exists():
                self._put(folder / name, f"{OUT}/{name}")
        self._write(f"{OUT}/{ENDED}", "")

    # --- files ---

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _put(self, source: Path, name: str) -> None:
        """A file, or a folder with all that is in it."""
        files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
        for path in files:
            target = self._path(name if source.is_file() else f"{name}/{path.relative_to(source).as_posix()}")
            self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._files.put_file(str(path), target)

    def _get(self, name: str, target: Path) -> None:
        whole = self._path(name)
        found = [whole] if self._files.isfile(whole) else self._files.find(whole)
        for path in found:
            within = str(path)[len(whole.lstrip("/")) + str(path).index(whole.lstrip("/")) :].strip("/")
            place = target / within if within else target
            if not place.resolve().is_relative_to(target.resolve()):
                raise BundleError(f"{self.place} has a file outside its folder: {path}")
            place.parent.mkdir(parents=True, exist_ok=True)
            self._files.get_file(path, str(place))

    def _write(self, name: str, text: str) -> None:
        path = self._path(name)
        self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._files.pipe_file(path, text.encode())

    def _guard(self, what: str, act: Callable[[], Any]) -> Any:
        """Do something with files; ``OperationalError`` in words where that fails, whatever the store's own errors are."""
        from sqlml.errors import Error

        try:
            return act()
        except Error:
            raise
        except Exception as error:
            said = str(error) or type(error).__name__
            hint = "may this process, and may the pods, read and write there?"
            raise OperationalError(f"{self.place} cannot be {what}: {said}", hint=hint) from error
