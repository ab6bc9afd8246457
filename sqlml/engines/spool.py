"""Rows to be written on the connection that they come from: as they come, or by way of a file while it is busy with them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


@contextmanager
def apart(
    schema: pa.Schema, batches: Iterable[pa.RecordBatch], is_reading: Callable[[], bool]
) -> Iterator[Iterator[pa.RecordBatch]]:
    """The batches; ``is_reading``, asked when the first one is there, says whether the connection is busy with the others.

    The file lies in the folder for temporary files, as large as the rows are in memory, and goes at the end.
    """
    import pyarrow as pa

    rest = iter(batches)
    first = next(rest, None)  # whoever begins to read only when asked has begun now
    if first is None:
        yield iter(())
    elif not is_reading():
        yield _after(first, rest)
    else:
        with tempfile.TemporaryDirectory(prefix="sqlml-") as folder:
            path = str(Path(folder) / "rows.arrow")
            with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, schema) as writer:
                for batch in _after(first, rest):
                    writer.write_batch(batch)
            with pa.OSFile(path) as file, pa.ipc.open_stream(file) as reader:
                yield iter(reader)


def _after(first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from rest
