"""The cluster as a job sees it: its session, how much runs at once, and how work on it is stopped."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlml.spark_common.place import Place
from sqlml.spark_common.session import is_connect
from sqlml_runners.spark.checks import is_local, no_staging

_WAIT_SECONDS = 30.0
"""So long a cluster may take to give its first executor."""


@dataclass(frozen=True)
class Cluster:
    """A session with the options of its runner."""

    session: Any
    options: Mapping[str, Any]
    name: str
    kept: list[Any] = field(default_factory=list)
    """The frames that are kept by the cluster for this job."""
    staged: list[Place] = field(default_factory=list)
    """The copies of rows that were made for this job."""

    @property
    def connect(self) -> bool:
        """Whether the session is a client of Spark Connect."""
        return is_connect(self.session)

    @property
    def local(self) -> bool:
        """Whether executors see this machine's files."""
        if self.connect:
            return is_local(self.options)
        return str(self.session.sparkContext.master).startswith("local")

    @property
    def host(self) -> str:
        """Where executors reach the driver."""
        return str(self.session.sparkContext.getConf().get("spark.driver.host", "127.0.0.1"))

    @property
    def gives_gpus(self) -> bool:
        """Whether the cluster gives its executors GPUs."""
        return self.session.sparkContext.getConf().get("spark.executor.resource.gpu.amount") is not None

    def slots(self) -> int:
        """How many tasks run at once; waits a little for the first executor."""
        from xgboost.spark.utils import _get_max_num_concurrent_tasks

        until = time.monotonic() + _WAIT_SECONDS
        while True:
            found = int(_get_max_num_concurrent_tasks(self.session.sparkContext))
            if found or time.monotonic() > until:
                return found
            time.sleep(0.5)

    def parallelism(self) -> int:
        """How many tasks run at once, as far as it is known without waiting."""
        if self.connect:
            return int(self.session.conf.get("spark.sql.shuffle.partitions", "1"))
        return int(self.session.sparkContext.defaultParallelism)

    def memory(self) -> int:
        """Bytes that all executors may use for data, or of a server the driver's own figure; at least one GiB is said."""
        if self.connect:
            return 1 << 30
        status = self.session.sparkContext._jsc.sc().getExecutorMemoryStatus()
        sizes = [int(status.values().toSeq().apply(i)._1()) for i in range(status.size())]
        return max(sum(sizes), 1 << 20)

    def staging(self, folder: Path) -> Place:
        """Where files for the executors go: the job's folder, or in the folder or URL of the option ``staging``."""
        place = self.options.get("staging")
        if place:
            mark = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:12]  # homes may share the place, and a name
            return Place(str(place)).below(f"sqlml-{mark}-{folder.name}")
        if not self.local:
            raise no_staging(self.name)
        return Place(folder)

    def keep(self, frame: Any) -> Any:
        """Let the cluster keep a frame's rows, in memory or on disk, until ``forget``."""
        from pyspark import StorageLevel

        kept = frame.persist(StorageLevel.MEMORY_AND_DISK)
        self.kept.append(kept)
        return kept

    def forget(self) -> None:
        """Let go of what was kept, and remove what was staged."""
        while self.kept:
            with suppress(Exception):  # Spark is gone, and the rows with it
                self.kept.pop().unpersist()
        while self.staged:
            self.staged.pop().remove()

    def tagged(self, tag: str) -> None:
        """What this thread asks of Spark from now on bears a tag."""
        if self.connect:
            self.session.addTag(tag)
        else:
            self.session.sparkContext.addJobTag(tag)

    def stop(self, tag: str) -> None:
        """Stop what bears a tag, from any thread."""
        act: Callable[[str], Any] = self.session.interruptTag if self.connect else self.session.sparkContext.cancelJobsWithTag
        with suppress(Exception):  # there may be nothing left to stop, or no Spark
            act(tag)
