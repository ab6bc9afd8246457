"""Follows a job that its session does not wait for: ``python -m sqlml.follower <home> <job>``, started by TRAIN … ASYNC.

    job.json, train.arrow → [runner] → bundle, result.json → (catalog) → a version

It never sees the database: the session has extracted the rows.  The catalog's URL comes by ``SQLML_CATALOG``, since it may hold
a password.  SIGTERM cancels the job.  The job's row names this process as its owner, so that others know it is alive; when it is
killed, the runner's process ends with it, and whoever opens the catalog next finds the job lost.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from sqlml.catalog import Catalog, Job
from sqlml.catalog.files import remove_job_data
from sqlml.contracts import Event, JobHandle
from sqlml.errors import Cancelled, Error
from sqlml.home import CATALOG_VARIABLE
from sqlml.job_folder import DOCUMENT
from sqlml.plan import JobSpec
from sqlml.statements.runners import open_runner
from sqlml.statements.train import publish_job

HANDOVER_SECONDS = 30.0
"""How long the session may take to name this process as the job's owner."""


class _Follower:
    """One job in the hands of this process."""

    def __init__(self, catalog: Catalog, job: Job) -> None:
        self.catalog = catalog
        self.job = job
        self._handle: JobHandle | None = None
        self._cancelled = False

    def cancel(self, *_: Any) -> None:
        """Stop the job, now or as soon as it has begun."""
        self._cancelled = True
        if self._handle is not None:
            self._handle.cancel()

    def is_mine(self) -> bool:
        """Wait until the job is this process's own; False where it is over before."""
        deadline = time.monotonic() + HANDOVER_SECONDS
        while time.monotonic() < deadline:
            row = self.catalog.job(self.job.id)
            if row is None or row["state"] != "running":
                return False
            if row["owner_pid"] == os.getpid():
                return True
            time.sleep(0.02)
        return False

    def follow(self) -> None:
        """Run the job to its end and publish what it made; every outcome is written to the job's row."""
        try:
            self._train()
        except BaseException as error:
            if not isinstance(error, Error):
                traceback.print_exc()
            state = "cancelled" if isinstance(error, Cancelled | KeyboardInterrupt) else "failed"
            text = error.message if isinstance(error, Error) else f"{type(error).__name__}: {error}"
            self.catalog.end_job(self.job, state, text)
            remove_job_data(self.job.folder)

    def _train(self) -> None:
        document = json.loads((self.job.folder / DOCUMENT).read_text(encoding="utf-8"))
        spec = JobSpec.from_json(document)
        self._handle = open_runner(self.catalog, spec.plan.runner).submit(spec)
        if self._cancelled:
            self._handle.cancel()
        self._handle.wait(_ignore)
        if self._cancelled:
            raise Cancelled("cancelled")
        publish_job(self.catalog, spec)


def _ignore(event: Event) -> None:
    """The job writes its own events and log: there is nobody to tell."""


def main(home: str, job_id: str) -> int:
    """Follow a job; 0 where it was this process's to follow, however it ended."""
    catalog = Catalog.open(Path(home), os.environ.get(CATALOG_VARIABLE))
    follower = _Follower(catalog, Job(int(job_id), catalog.home.jobs / job_id))
    signal.signal(signal.SIGTERM, follower.cancel)
    if not follower.is_mine():
        return 1
    follower.follow()
    catalog.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
