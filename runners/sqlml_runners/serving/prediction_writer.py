"""The prediction log as a worker writes it: what was asked and answered, in batches, to Parquet files; and feedback likewise.

    record → values in memory → Arrow batches of a few hundred rows → a thread → a file every two seconds → older ones merged

Nothing here waits or fails for a request: what finds no room, in memory or on the disk, is dropped and counted.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import random

import pyarrow as pa

from sqlml.home import Home
from sqlml.prediction_log import drop_oldest, feedback_folder, merge_parts, predictions_folder, write_part
from sqlml_runners.serving.job import Job
from sqlml_runners.serving.logged import Answered, LaidOut, file_table
from sqlml_runners.serving.outputs import Predictions, part_of
from sqlml_runners.serving.served import Block, Served

log = logging.getLogger("sqlml.serving")

PACK_ROWS = 512
"""So many rows are laid out as Arrow at once: more would hold up the requests between."""
FILE_ROWS = 65_536
FILE_SECONDS = 2.0
NICE = 10
"""How much less urgent the thread is than requests, on a processor that is busy with them: it still gets a tenth of it."""
MOST_ROWS = 500_000
"""Rows that may wait for the disk."""
MERGED = 24
"""So many small files of one version become one."""


@dataclass(frozen=True)
class _Part:
    """Rows for the disk: answers or feedback, for one folder; ``limit``: how large the whole log may be (None: not bounded)."""

    folder: Path
    rows: LaidOut | pa.RecordBatch
    n: int
    endpoint: str
    limit: int | None = None


class PredictionLog:
    """Filled on the event loop, written by a thread of its own; ``record_alone`` is for any thread."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._pending: dict[str, tuple[Answered, int]] = {}  # with the limit of the log
        self._parts: queue.SimpleQueue[_Part | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0  # rows handed over and not written yet
        self._thread = threading.Thread(target=self._write_all, name="prediction-log", daemon=True)
        self._failing = False
        self._written: Counter[str] = Counter()  # rows, by the endpoint
        self._dropped: Counter[str] = Counter()

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def record(self, served: Served, jobs: Sequence[Job], predictions: Predictions, block: Block | None) -> None:
        """Keep the answers of some requests, one after the other; of each with the probability that its endpoint says.

        ``block``: their rows as numbers, where they are nothing else.
        """
        share = jobs[0].policy.log
        if share >= 1.0:
            self._keep(served, jobs, predictions, block)
        elif share > 0.0:
            start = 0
            for job in jobs:
                stop = start + (job.call.n if job.call else 0)
                if random() < share:  # noqa: S311 - a sample, not a secret
                    part = None if block is None else block[start:stop]
                    self._keep(served, [job], [part_of(answer, start, stop) for answer in predictions], part)
                start = stop

    def record_alone(self, served: Served, job: Job, predictions: Predictions) -> None:
        """The same for a large request, from any thread."""
        if job.policy.log >= 1.0 or random() < job.policy.log:  # noqa: S311 - a sample, not a secret
            answered = Answered(served)
            answered.add([job], predictions, None, time.time(), time.perf_counter())
            self._pack(answered, job.policy.log_limit)

    def _keep(self, served: Served, jobs: Sequence[Job], predictions: Predictions, block: Block | None) -> None:
        key = f"{served.endpoint} {served.arm.uid}"
        found = self._pending.get(key)
        if found is None or found[0].served is not served:
            if found is not None:
                self._pack(*found)
            found = self._pending[key] = (Answered(served), jobs[0].policy.log_limit)
        answered = found[0]
        answered.add(jobs, predictions, block, time.time(), time.perf_counter())
        if answered.n >= PACK_ROWS:
            del self._pending[key]
            self._pack(*found)

    def flush(self) -> None:
        """Hand over what there is, for the disk."""
        pending, self._pending = self._pending, {}
        for answered, limit in pending.values():
            self._pack(answered, limit)

    def _pack(self, answered: Answered, limit: int) -> None:
        served = answered.served
        endpoint = served.endpoint.lower()
        if not answered.n:
            return
        if self._waiting + answered.n > MOST_ROWS:
            self._dropped[endpoint] += answered.n
            return
        try:
            rows = answered.laid_out()
        except Exception as error:  # a log is no reason to fail
            self._fault(endpoint, answered.n, error)
            return
        self._hand_over(_Part(predictions_folder(self._home, endpoint, served.arm.uid), rows, answered.n, endpoint, limit))

    def _fault(self, endpoint: str, n: int, error: Exception) -> None:
        self._dropped[endpoint] += n
        if not self._failing:
            log.error("the log of %s cannot be written, requests are answered without: %s", endpoint, error)
        self._failing = True

    def keep_feedback(self, endpoint: str, rows: pa.RecordBatch) -> bool:
        """Keep rows of feedback; False where there is no room for them."""
        if self._failing or self._waiting + rows.num_rows > MOST_ROWS:
            return False
        self._hand_over(_Part(feedback_folder(self._home, endpoint), rows, rows.num_rows, endpoint))
        return True

    def _hand_over(self, part: _Part) -> None:
        with self._lock:
            self._waiting += part.n
        self._parts.put(part)

    def take_counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """How many rows were written and dropped since the last time, by the endpoint."""
        (written, self._written), (dropped, self._dropped) = (self._written, Counter()), (self._dropped, Counter())
        return dict(written), dict(dropped)

    def close(self) -> None:
        """Write what there is, and stop."""
        self.flush()
        self._parts.put(None)
        self._thread.join(timeout=10)

    # --- the thread ---

    def _write_all(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # where threads have no priorities of their own: then it is as urgent
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        gathered: dict[Path, list[_Part]] = {}
        due, ending = math.inf, False
        while not ending:
            try:
                part = self._parts.get(timeout=None if due == math.inf else max(0.0, due - time.monotonic()))
            except queue.Empty:
                pass
            else:
                ending = part is None
                if part is not None:
                    gathered.setdefault(part.folder, []).append(part)
                    due = min(due, time.monotonic() + FILE_SECONDS)
            for folder, parts in list(gathered.items()):
                if ending or time.monotonic() >= due or sum(one.n for one in parts) >= FILE_ROWS:
                    self._write(folder, gathered.pop(folder))
            due = due if gathered else math.inf

    def _write(self, folder: Path, parts: Sequence[_Part]) -> None:
        endpoint, count = parts[0].endpoint, sum(part.n for part in parts)
        try:
            write_part(folder, _table([part.rows for part in parts]))
        except Exception as error:  # a full disk, above all: the thread goes on
            self._fault(endpoint, count, error)
        else:
            self._written[endpoint] += count
            self._failing = False
            self._tidy(folder, parts[0])
        finally:
            with self._lock:
                self._waiting -= count

    def _tidy(self, folder: Path, part: _Part) -> None:
        try:
            merge_parts(folder, MERGED)
            if part.limit is not None:
                drop_oldest(folder.parent, part.limit)
        except (OSError, pa.ArrowException) as error:
            log.warning("the files of the log of %s cannot be tidied: %s", part.endpoint, error)


def _table(rows: Sequence[LaidOut | pa.RecordBatch]) -> pa.Table:
    answers = [one for one in rows if isinstance(one, LaidOut)]
    return file_table(answers) if answers else pa.Table.from_batches(rows)
