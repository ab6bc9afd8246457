"""The prediction log as a worker writes it: what was asked and answered, in batches, to raw files; and feedback to Parquet.

    record → values in memory → some hundred requests, an Arrow batch → a thread → a raw file every two seconds

The thread does next to nothing: raw files become Parquet in a process of their own (``settling``), or by who reads them.

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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import random

import pyarrow as pa

from sqlml.home import Home
from sqlml.prediction_log import RawFile, drop_oldest, feedback_folder, merge_parts, predictions_folder, write_part
from sqlml_runners.serving.job import Job
from sqlml_runners.serving.logged import Answered, Packed
from sqlml_runners.serving.outputs import Predictions, part_of
from sqlml_runners.serving.served import Block, Served

log = logging.getLogger("sqlml.serving")

FILE_ROWS = 65_536
FILE_SECONDS = 2.0
NICE = 10
"""How much less urgent the thread is than requests, on a processor that is busy with them: it still gets a tenth of it."""
MOST_ROWS = 500_000
"""Rows that may wait for the disk."""
AGAIN_SECONDS = 5.0
"""So long after a fault feedback is refused, rather than taken and lost."""
MERGED = 24
"""So many small files of an endpoint's feedback become one."""


@dataclass(frozen=True)
class _Part:
    """Rows for the disk: answers or feedback, for one folder; ``limit``: how large the whole log of answers may be."""

    folder: Path
    rows: Packed | pa.RecordBatch
    n: int
    endpoint: str
    limit: int = 0


class PredictionLog:
    """Filled on the event loop, written by a thread of its own; ``record_alone`` is for any thread."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._pending: dict[str, tuple[Answered, int]] = {}  # with the limit of the log
        self._parts: queue.SimpleQueue[_Part | Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0  # rows handed over and not written yet
        self._thread = threading.Thread(target=self._write_all, name="prediction-log", daemon=True)
        self._failing = False
        self._faulted = -math.inf  # when
        self._files: dict[Path, tuple[RawFile, _Part]] = {}  # the thread's: what it writes, and the part that came last
        self._feedback: dict[Path, list[_Part]] = {}
        self._gathering = 0.0  # since when
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
        if answered.full:
            del self._pending[key]
            self._pack(*found)

    def flush(self) -> None:
        """Hand over what there is, for the disk."""
        pending, self._pending = self._pending, {}
        for answered, limit in pending.values():
            self._pack(answered, limit)

    def write(self, done: Callable[[], None]) -> None:
        """Let others read what there is, and call ``done`` in the thread when they can."""
        self.flush()
        self._parts.put(done)

    def _pack(self, answered: Answered, limit: int) -> None:
        served = answered.served
        endpoint = served.endpoint.lower()
        if not answered.n:
            return
        if self._waiting + answered.n > MOST_ROWS:
            self._count(self._dropped, endpoint, answered.n)
            return
        try:
            rows = answered.packed()
        except Exception as error:  # a log is no reason to fail
            self._fault(endpoint, answered.n, error)
            return
        self._hand_over(_Part(predictions_folder(self._home, endpoint, served.arm.uid), rows, answered.n, endpoint, limit))

    def _fault(self, endpoint: str, n: int, error: Exception) -> None:
        self._count(self._dropped, endpoint, n)
        if not self._failing:
            log.error("the log of %s cannot be written, requests are answered without: %s", endpoint, error)
        self._failing = True
        self._faulted = time.monotonic()

    def keep_feedback(self, endpoint: str, rows: pa.RecordBatch) -> bool:
        """Keep rows of feedback; False where there is no room for them."""
        if time.monotonic() < self._faulted + AGAIN_SECONDS or self._waiting + rows.num_rows > MOST_ROWS:
            return False
        self._hand_over(_Part(feedback_folder(self._home, endpoint), rows, rows.num_rows, endpoint))
        return True

    def _hand_over(self, part: _Part) -> None:
        with self._lock:
            self._waiting += part.n
        self._parts.put(part)

    def take_counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """How many rows were written and dropped since the last time, by the endpoint."""
        with self._lock:
            found = dict(self._written), dict(self._dropped)
            self._written.clear()
            self._dropped.clear()
        return found

    def _count(self, rows: Counter[str], endpoint: str, n: int) -> None:
        with self._lock:
            rows[endpoint] += n

    def close(self) -> None:
        """Write what there is, and stop."""
        self.flush()
        self._parts.put(None)
        self._thread.join(timeout=10)

    # --- the thread ---

    def _write_all(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # where threads have no priorities of their own: then it is as urgent
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        ending = False
        while not ending:
            began = [file.began for file, _ in self._files.values()] + ([self._gathering] if self._feedback else [])
            due = min(began) + FILE_SECONDS if began else None
            try:
                part = self._parts.get(timeout=None if due is None else max(0.0, due - time.monotonic()))
            except queue.Empty:
                pass
            else:
                ending = part is None
                if isinstance(part, _Part):
                    self._take(part)
                elif part is not None:  # somebody is about to read
                    self._finish(all_of_it=True)
                    part()
            self._finish(all_of_it=ending)

    def _take(self, part: _Part) -> None:
        if isinstance(part.rows, Packed):
            with self._counted(part.endpoint, part.n):
                self._append(part, part.rows)
            return
        if not self._feedback:
            self._gathering = time.monotonic()
        self._feedback.setdefault(part.folder, []).append(part)

    def _append(self, part: _Part, rows: Packed) -> None:
        file, _ = self._files.pop(part.folder, (None, part))
        if file is not None and not file.schema.equals(rows.batch.schema, check_metadata=True):  # which has the role
            file.close()
            file = None
        if file is None:
            file = RawFile(part.folder, rows.batch.schema)
        try:
            file.write([rows.batch.serialize()], rows.n)  # without the interpreter's lock
        except BaseException:
            file.discard()
            raise
        self._files[part.folder] = file, part

    def _finish(self, *, all_of_it: bool) -> None:
        """Close what is old or large enough, or everything."""
        now = time.monotonic()
        for folder, (file, part) in list(self._files.items()):
            if all_of_it or now >= file.began + FILE_SECONDS or file.rows >= FILE_ROWS:
                del self._files[folder]
                self._close(file, part)
        if self._feedback and (all_of_it or now >= self._gathering + FILE_SECONDS):
            gathered, self._feedback = self._feedback, {}
            for folder, parts in gathered.items():
                with self._counted(parts[0].endpoint, sum(part.n for part in parts)):
                    write_part(folder, pa.Table.from_batches([part.rows for part in parts]))
                self._attempt(parts[0].endpoint, partial(merge_parts, folder, MERGED))

    def _close(self, file: RawFile, part: _Part) -> None:
        for step in (file.close, lambda: drop_oldest(part.folder.parent, part.limit)):
            self._attempt(part.endpoint, step)

    def _attempt(self, endpoint: str, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as error:  # the thread goes on
            log.warning("the files of the log of %s cannot be tidied: %s", endpoint, error)

    @contextlib.contextmanager
    def _counted(self, endpoint: str, n: int) -> Iterator[None]:
        """Rows that are written, or dropped where that fails: a full disk, above all; the thread goes on."""
        try:
            yield
        except Exception as error:
            self._fault(endpoint, n, error)
        else:
            self._count(self._written, endpoint, n)
            self._failing = False
        finally:
            with self._lock:
                self._waiting -= n
