"""Jobs that nobody waits for: TRAIN … ASYNC, and CANCEL JOB."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import psutil
import sqlalchemy as sa
from sqlml_dialect import CancelJob, Span, Train

from sqlml.binder.parameters import Parameters
from sqlml.catalog import Catalog, Job
from sqlml.catalog import tables as t
from sqlml.catalog.database import open_database, writing
from sqlml.catalog.files import remove_job_data
from sqlml.contracts import Event
from sqlml.errors import BindError, Cancelled, Error, NotSupportedError, OperationalError
from sqlml.home import CATALOG_VARIABLE
from sqlml.statements.queries import Queries
from sqlml.statements.result import Result, rows_result
from sqlml.statements.train import _extract, _give_up, _located, plan_train, write_job

FOLLOWER = "sqlml.follower"
WORKER = "sqlml_runners.worker"
PAUSE = 0.03
CANCEL_SECONDS = 20.0
"""How long a job's process may take to stop before it is killed."""
COLUMNS = (("job", "int64"), ("model", "string"), ("state", "string"))


def run_train_async(
    node: Train, parameters: Parameters, queries: Queries, catalog: Catalog, on_event: Callable[[Event], None]
) -> Result:
    """Take the rows out of the database, hand the job to a process of its own, and return at once."""
    node = replace(node, asynchronous=False)
    plan = plan_train(node, parameters, queries)
    queries.tell_if_hidden(plan.model)
    job = catalog.start_job("train", plan.model, plan.statement, plan.runner)
    try:
        on_event({"event": "stage", "name": "reading"})
        _extract(node, plan, parameters, queries, job)
        write_job(plan, job)
        _start_follower(catalog, job)
    except BaseException as error:
        _give_up(catalog, job, error)
        if isinstance(error, Error):
            raise _located(error, node, parameters.source) from None
        raise
    row = {"job": job.id, "model": plan.model, "state": "running"}
    return rows_result([row], COLUMNS, f"SHOW JOBS and SHOW LOGS FOR JOB {job.id} tell how it goes; CANCEL JOB {job.id} stops it")


def _start_follower(catalog: Catalog, job: Job) -> None:
    """Start the process that follows the job, and make it the job's owner."""
    command = [sys.executable, "-m", FOLLOWER, str(catalog.home.folder.absolute()), str(job.id)]
    environment = dict(os.environ) | {CATALOG_VARIABLE: catalog.url}
    with (job.folder / "job.log").open("ab") as log:
        child = subprocess.Popen(
            command,
            cwd=catalog.home.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # it outlives the session, and a Ctrl-C in its terminal
        )
    try:
        _hand_over(catalog, job, psutil.Process(child.pid))
    except BaseException as error:
        child.kill()
        child.wait()
        if isinstance(error, psutil.Error):
            raise OperationalError(f"the process that should follow job {job.id} ended at once") from error
        raise
    threading.Thread(target=child.wait, name="reaper", daemon=True).start()  # no zombie when it ends before us


def _hand_over(catalog: Catalog, job: Job, process: psutil.Process) -> None:
    """From now on the job lives and dies with that process, not with this one."""
    engine = open_database(catalog.url)
    try:
        with writing(engine) as c:
            owner = {"owner_pid": process.pid, "owner_started": process.create_time()}
            c.execute(sa.update(t.jobs).where(t.jobs.c.id == job.id).values(owner))
    finally:
        engine.dispose()


# --- CANCEL JOB -------------------------------------------------------------------------------------------------------


def run_cancel_job(node: CancelJob, source: str, catalog: Catalog, interrupted: Callable[[], bool]) -> Result:
    """Stop a job, whichever session started it, and wait until it has stopped."""
    job = find_job(catalog, node.job, source, node.span)
    if job["state"] == "running" and _owner(job) is None and job["host"] == socket.gethostname():
        catalog.recover()  # the process that followed it died
        job = find_job(catalog, node.job, source, node.span)
    if job["state"] != "running":
        raise BindError(
            f"job {node.job} is over: {job['state']}", source=source, span=node.span, hint="SHOW JOBS lists those that run"
        )
    _stop(job, node, source, catalog, interrupted)
    state = _state(catalog, node.job)
    footer = {"cancelled": None, "running": "it was told to stop, and has not stopped yet"}.get(
        str(state), "it was over before it could be cancelled"
    )
    return rows_result([{"job": node.job, "model": job["model"], "state": state}], COLUMNS, footer)


def find_job(catalog: Catalog, number: int, source: str, span: Span) -> Mapping[str, Any]:
    """A job's row.  ``BindError`` where there is none of that number."""
    rows = catalog.rows(sa.select(t.jobs).where(t.jobs.c.id == number))
    if not rows:
        raise BindError(f"there is no job {number}", source=source, span=span, hint="SHOW JOBS lists all")
    return rows[0]


def _owner(job: Mapping[str, Any]) -> psutil.Process | None:
    """The process that follows a job; None where it is gone, or another has its number by now."""
    try:
        process = psutil.Process(job["owner_pid"])
        same = abs(process.create_time() - job["owner_started"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
        return process if same else None
    except psutil.Error:
        return None


def _stop(job: Mapping[str, Any], node: CancelJob, source: str, catalog: Catalog, interrupted: Callable[[], bool]) -> None:
    if job["host"] != socket.gethostname():
        raise NotSupportedError(
            f"job {node.job} runs on another machine, {job['host']}", source=source, span=node.span, hint="cancel it there"
        )
    process = _owner(job)
    if process is None:
        return
    try:
        follows = FOLLOWER in process.cmdline()
        worker = None if follows else _worker(process, catalog, node.job)
    except psutil.Error:
        return  # it has just ended
    if follows:
        _end(process, node.job, catalog, interrupted)
    elif worker is not None:
        _end_worker(worker, node.job, catalog, interrupted)
    else:
        where = "this process" if process.pid == os.getpid() else f"process {process.pid}"
        raise NotSupportedError(
            f"job {node.job} is in the hands of a session in {where}, and has no process of its own that could be stopped",
            source=source, span=node.span,
            hint="cancel it there, with Ctrl-C or Connection.interrupt(); or try again, where it still reads its rows",
        )  # fmt: skip


def _worker(session: psutil.Process, catalog: Catalog, number: int) -> psutil.Process | None:
    """The process of a job that its session waits for."""
    document = str(catalog.home.jobs / str(number) / "job.json")
    for child in session.children():
        arguments = child.cmdline()
        if WORKER in arguments and arguments[-1] == document:
            return child
    return None


def _end_worker(worker: psutil.Process, number: int, catalog: Catalog, interrupted: Callable[[], bool]) -> None:
    """Say in the job's events why it ends, then end it: its session reads that, gives up, and writes the job's row."""
    why = {"event": "failed", "error": "JobCancelled", "message": f"cancelled by CANCEL JOB {number}", "hint": None}
    with (catalog.home.jobs / str(number) / "events.jsonl").open("a", encoding="utf-8") as events:
        events.write(json.dumps(why) + "\n")
    with suppress(psutil.Error):
        worker.terminate()
    deadline = time.monotonic() + CANCEL_SECONDS
    while _state(catalog, number) == "running" and time.monotonic() < deadline:
        if interrupted():
            raise Cancelled("cancelled: the job was told to stop, and may still run")
        time.sleep(PAUSE)


def _state(catalog: Catalog, number: int) -> str | None:
    """A job's state; None where it was refused for its data, and forgotten."""
    rows = catalog.rows(sa.select(t.jobs.c.state).where(t.jobs.c.id == number))
    return rows[0]["state"] if rows else None


def _end(process: psutil.Process, number: int, catalog: Catalog, interrupted: Callable[[], bool]) -> None:
    """Ask the process to stop, and wait until the job's row says that it has; kill it where it does not."""
    deadline = time.monotonic() + CANCEL_SECONDS
    try:
        process.terminate()  # psutil asks again whether it is still the same process
        while _state(catalog, number) == "running" and process.is_running():
            if interrupted():
                raise Cancelled("cancelled: the job was told to stop, and may still run")
            if time.monotonic() > deadline:
                process.kill()
                process.wait(CANCEL_SECONDS)
            time.sleep(PAUSE)
    except psutil.Error:
        pass  # gone
    # It died of the signal, before it could listen to it or because it would not: nobody else writes the job's row.
    folder = catalog.home.jobs / str(number)
    catalog.end_job(Job(number, folder), "cancelled", "cancelled")
    remove_job_data(folder)
