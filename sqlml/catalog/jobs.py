"""Jobs: started, handed over, over; and what a process that died has left."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from sqlml.catalog import files
from sqlml.catalog import tables as t
from sqlml.catalog.database import insert_one, reading, writing
from sqlml.catalog.rows import now, user
from sqlml.home import Home


@dataclass(frozen=True)
class Job:
    """A job that was started."""

    id: int
    folder: Path


class Jobs:
    """The jobs' part of ``Catalog``."""

    home: Home
    _engine: sa.Engine

    def start_job(self, kind: str, model: str, statement: str, runner: str) -> Job:
        """A new job, running, owned by this process; its folder is made."""
        pid, started = _own_process()
        row = {
            "kind": kind, "model": model, "state": "running", "runner": runner, "statement": statement,
            "host": socket.gethostname(), "owner_pid": pid, "owner_started": started, "owner": user(), "created_at": now(),
        }  # fmt: skip
        with writing(self._engine) as c:
            job_id = insert_one(c, t.jobs, row)
            folder = files.make_job_folder(self.home, job_id)
        return Job(job_id, folder)

    def hand_over(self, job: Job, pid: int, started: float) -> None:
        """From now on the job lives and dies with that process, ``started`` at that time, not with this one."""
        with writing(self._engine) as c:
            c.execute(sa.update(t.jobs).where(t.jobs.c.id == job.id).values(owner_pid=pid, owner_started=started))

    def job(self, number: int) -> Mapping[str, Any] | None:
        """A job's row; None where there is none of that number, or it was forgotten."""
        with reading(self._engine) as c:
            row = c.execute(sa.select(t.jobs).where(t.jobs.c.id == number)).mappings().first()
            return None if row is None else dict(row)

    def job_state(self, number: int) -> str | None:
        """A job's state; None where it was refused for its data, and forgotten."""
        row = self.job(number)
        return None if row is None else str(row["state"])

    def end_job(self, job: Job, state: str, error: str | None = None) -> None:
        """The job is over without a version: ``failed`` or ``cancelled``.  One that has published stays ``done``."""
        with writing(self._engine) as c:
            running = sa.and_(t.jobs.c.id == job.id, t.jobs.c.state == "running")
            c.execute(sa.update(t.jobs).where(running).values(state=state, error=error, finished_at=now()))

    def forget_job(self, job: Job) -> None:
        """The job was refused for what it was asked: nothing of it stays."""
        with writing(self._engine) as c:
            c.execute(sa.delete(t.jobs).where(t.jobs.c.id == job.id))
        shutil.rmtree(job.folder, ignore_errors=True)

    def recover(self) -> None:
        """Clean up after processes that died: their jobs become ``lost``, their data goes, bundles of no version go."""
        with reading(self._engine) as c:
            running = c.execute(sa.select(t.jobs).where(t.jobs.c.state == "running")).mappings().all()
        alive = {row["id"] for row in running if row["host"] != socket.gethostname() or _alive(dict(row))}
        lost = [row["id"] for row in running if row["id"] not in alive]
        if lost:
            with writing(self._engine) as c:
                c.execute(
                    sa.update(t.jobs)
                    .where(t.jobs.c.id.in_(lost), t.jobs.c.state == "running")
                    .values(state="lost", error="the process that followed this job died", finished_at=now())
                )
        for job_id in {*lost, *files.jobs_with_data(self.home)}:
            self._remove_data_of(job_id)
        self._remove_orphans()

    def _remove_data_of(self, job_id: int) -> None:
        with writing(self._engine) as c:  # a job that starts now has its row before its data
            state = c.execute(sa.select(t.jobs.c.state).where(t.jobs.c.id == job_id)).scalar()
            if state != "running":
                files.remove_job_data(self.home.jobs / str(job_id))

    def _remove_orphans(self) -> None:
        old = files.old_bundles(self.home)
        if old:
            with writing(self._engine) as c:  # nobody publishes meanwhile
                known = set(c.execute(sa.select(t.versions.c.bundle_sha256)).scalars())
                files.remove_bundles(self.home, set(old) - known)


def _own_process() -> tuple[int, float]:
    import psutil

    process = psutil.Process()
    return process.pid, process.create_time()


def _alive(row: Mapping[str, Any]) -> bool:
    import psutil

    try:
        return bool(abs(psutil.Process(row["owner_pid"]).create_time() - row["owner_started"]) < 1)
    except psutil.Error:
        return False
