"""Rows on their way into Spark: Parquet files that both this process and the cluster reach."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sqlml.engines.spark.types import in_types, stored_schema
from sqlml.errors import OperationalError
from sqlml.spark_common.place import Place, read_parquet
from sqlml.spark_common.session import is_connect

if TYPE_CHECKING:
    import pyarrow as pa

MOST_SENT = 64 << 20
"""Bytes of rows that go to a cluster through its driver, where there is no place for files."""


class Stage:
    """The staged rows of one engine, by name.

    On this machine they lie in a temporary folder; for a cluster in the folder or URL ``staging``, or, where there is none, they
    go through the driver's memory as long as they are few.
    """

    def __init__(self, session: Any, staging: str | None) -> None:
        self._session = session
        self._given = staging
        self._folder: Place | None = None
        self._staged: dict[str, tuple[Place | None, int]] = {}  # name → (file, rows)

    def frame(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch], name: str) -> Any:
        """The rows as a DataFrame, until ``drop``."""
        self.drop(name)
        stored = stored_schema(schema)
        place = self._place()
        if place is None:
            return self._through_driver(stored, batches, name)
        place.create()
        file = place.below(f"{uuid.uuid4().hex}.parquet")
        self._staged[name] = (file, 0)
        self._staged[name] = (file, self._write(file, stored, batches))
        return read_parquet(self._session, file)

    def drop(self, name: str) -> int:
        """Let go of staged rows; how many there were."""
        file, rows = self._staged.pop(name, (None, 0))
        if file is not None:
            file.remove()
        return rows

    def close(self) -> None:
        for name in list(self._staged):
            self.drop(name)
        if self._folder is not None and self._given is None:
            shutil.rmtree(self._folder.path, ignore_errors=True)
        self._folder = None

    def _place(self) -> Place | None:
        if self._folder is None:
            if self._given is not None:
                self._folder = Place(self._given)
            elif not is_connect(self._session) and str(self._session.sparkContext.master).startswith("local"):
                self._folder = Place(tempfile.mkdtemp(prefix="sqlml-spark-"))
        return self._folder

    @staticmethod
    def _write(file: Place, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
        import pyarrow.parquet as pq

        rows = 0
        with file.write() as sink, pq.ParquetWriter(sink, schema) as writer:
            for batch in batches:
                writer.write_batch(in_types(batch.columns, schema))
                rows += batch.num_rows
        return rows

    def _through_driver(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch], name: str) -> Any:
        import pyarrow as pa

        found: list[pa.RecordBatch] = []
        size = 0
        for batch in batches:
            found.append(in_types(batch.columns, schema))
            size += found[-1].nbytes
            if size > MOST_SENT:
                raise OperationalError(
                    f"more than {MOST_SENT >> 20} MiB of rows cannot go to the cluster through its driver",
                    hint="give the connection a place for files that both reach: staging = 's3://…' or a shared folder",
                )
        table = pa.Table.from_batches(found, schema)
        self._staged[name] = (None, table.num_rows)
        return self._session.createDataFrame(table)
