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
from typing import Any

import psutil
from sqlml_dialect import CancelJob, Span, Train

from sqlml.binder.parameters import Parameters
from sqlml.catalog import Catalog, Job
from sqlml.catalog.files import remove_job_data
from sqlml.contracts import Follow, OnEvent, SessionRunner
from sqlml.errors import BindError, Cancelled, Error, NotSupportedError, OperationalError
from sqlml.home import CATALOG_VARIABLE
from sqlml.job_folder import DOCUMENT, EVENTS, LOG
from sqlml.statements.handler import Handler, Handlers, always, same_columns
from sqlml.statements.job_run import job_run
from sqlml.statements.queries import Queries
from sqlml.statements.result import Result, own_columns, rows_result
from sqlml.statements.runners import open_runner
from sqlml.statements.train import located, plan_train, prepare_job, run_train
from sqlml.types import Column

FOLLOWER = "sqlml.follower"
WORKER = "sqlml_runners.worker"
PAUSE = 0.03
CANCEL_SECONDS = 20.0
"""How long a job's process may take to stop before it is killed."""
COLUMNS = (("job", "int64"), ("model", "string"), ("state", "string"))


def train_handlers(
    queries: Queries, catalog: Catalog, on_event: OnEvent, follow: Follow, interrupted: Callable[[], bool]
) -> Handlers:
    """TRAIN, here or ASYNC, and CANCEL JOB."""

    def train(node: Train, parameters: Parameters) -> Result:
        if node.asynchronous:
            return run_train_async(node, parameters, queries, catalog, on_event)
        return run_train(node, parameters, queries, catalog, on_event, follow)

    def columns(node: Train, parameters: Parameters) -> tuple[Column, ...] | None:
        if node.asynchronous:
            return own_columns(COLUMNS)
        from sqlml.statements.train_plan import train_columns

        return train_columns(node, parameters, queries, catalog)

    return {
        Train: Handler(train, writes=always, lasts=lambda node: "train ASYNC" if node.asynchronous else None, columns=columns),
        CancelJob: Handler(
            lambda n, p: run_cancel_job(n, p.source, catalog, interrupted), writes=always, columns=same_columns(COLUMNS)
        ),
    }


def run_train_async(node: Train, parameters: Parameters, queries: Queries, catalog: Catalog, on_event: OnEvent) -> Result:
    """Take the rows out of the database, hand the job to a process of its own, and return at once."""
    plan = plan_train(node, parameters, queries, catalog)
    if plan.runner == "inline":
        raise NotSupportedError(
            "ON inline runs here and now, ASYNC elsewhere and later", source=parameters.source,
            span=node.runner.span if node.runner else node.model.span, hint="leave out one of the two",
        )  # fmt: skip
    queries.tell_if_hidden(plan.model)
    runner = open_runner(catalog, plan.runner)
    detached = runner.detached() if isinstance(runner, SessionRunner) else None
    if detached is not None:
        on_event({"event": "notice", "text": f"ASYNC: {detached}"})
    try:
        with job_run(catalog, "train", plan.model, plan.statement, plan.runner) as job:
            prepare_job(node, plan, parameters, queries, catalog, job, on_event, runner, detached=detached)
            _start_follower(catalog, job)
    except Error as error:
        raise located(error, node, parameters.source) from None
    row = {"job": job.id, "model": plan.model, "state": "running"}
    return rows_result([row], COLUMNS, f"SHOW JOBS and SHOW LOGS FOR JOB {job.id} tell how it goes; CANCEL JOB {job.id} stops it")


def _start_follower(catalog: Catalog, job: Job) -> None:
    """Start the process that follows the job, and make it the job's owner."""
    command = [sys.executable, "-m", FOLLOWER, str(catalog.home.folder.absolute()), str(job.id)]
    environment = dict(os.environ) | {CATALOG_VARIABLE: catalog.url}
    with (job.folder / LOG).open("ab") as log:
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
        catalog.hand_over(job, child.pid, psutil.Process(child.pid).create_time())  # it lives and dies with that process now
    except BaseException as error:
        child.kill()
        child.wait()
        if isinstance(error, psutil.Error):
            raise OperationalError(f"the process that should follow job {job.id} ended at once") from error
        raise
    threading.Thread(target=child.wait, name="reaper", daemon=True).start()  # no zombie when it ends before us


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
    state = catalog.job_state(node.job)
    footer = {"cancelled": None, "running": "it was told to stop, and has not stopped yet"}.get(
        str(state), "it was over before it could be cancelled"
    )
    return rows_result([{"job": node.job, "model": job["model"], "state": state}], COLUMNS, footer)


def find_job(catalog: Catalog, number: int, source: str, span: Span) -> Mapping[str, Any]:
    """A job's row.  ``BindError`` where there is none of that number."""
    job = catalog.job(number)
    if job is None:
        raise BindError(f"there is no job {number}", source=source, span=span, hint="SHOW JOBS lists all")
    return job


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
        begun = (
            catalog.home.jobs / str(node.job) / EVENTS
        ).exists()  # else its process waits for the rows, and ending it is no end
        worker = _worker(process, catalog, node.job) if begun and not follows else None
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
    document = str(catalog.home.jobs / str(number) / DOCUMENT)
    for child in session.children():
        arguments = child.cmdline()
        if WORKER in arguments and document in arguments:
            return child
    return None


def _end_worker(worker: psutil.Process, number: int, catalog: Catalog, interrupted: Callable[[], bool]) -> None:
    """Say in the job's events why it ends, then end it: its session reads that, gives up, and writes the job's row."""
    why = {"event": "failed", "error": "JobCancelled", "message": f"cancelled by CANCEL JOB {number}", "hint": None}
    with (catalog.home.jobs / str(number) / EVENTS).open("a", encoding="utf-8") as events:
        events.write(json.dumps(why) + "\n")
    with suppress(psutil.Error):
        worker.terminate()
    deadline = time.monotonic() + CANCEL_SECONDS
    while catalog.job_state(number) == "running" and time.monotonic() < deadline:
        if interrupted():
            raise Cancelled("cancelled: the job was told to stop, and may still run")
        time.sleep(PAUSE)


def _end(process: psutil.Process, number: int, catalog: Catalog, interrupted: Callable[[], bool]) -> None:
    """Ask the process to stop, and wait until the job's row says that it has; kill it where it does not."""
    deadline = time.monotonic() + CANCEL_SECONDS
    try:
        process.terminate()  # psutil asks again whether it is still the same process
        while catalog.job_state(number) == "running" and process.is_running():
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
