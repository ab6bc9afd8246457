"""Rows that stand in the way of the connection they come from: put into a file, so that it is free and memory stays small.

``apart``: rows to be written on that same connection.  ``Spool``: the rest of a result that is read later.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from sqlml.errors import Error, OperationalError

if TYPE_CHECKING:
    import pyarrow as pa

KEPT_BYTES = 4 << 20
"""So much of a result stays in memory; a file is made for what is larger."""


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


class Spool:
    """The rest of a result, read to its end at once; its batches then come from here, in their order, once.

    A small one stays in memory.  A larger one lies in a file without a name in the folder for temporary files, as large as the
    rows are in memory; it goes with ``close``, or with the process, however that ends.  An error of reading the result comes
    where it came then: behind the batches that came before it.
    """

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._file: IO[bytes] | None = None
        self._failure: Error | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())
        rest = iter(batches)
        few: list[pa.RecordBatch] = []
        size = 0
        try:
            for batch in rest:
                few.append(batch)
                size += batch.nbytes
                if size > KEPT_BYTES:
                    break
        except Error as error:
            self._failure = error
        if size > KEPT_BYTES and self._failure is None:
            self._write(few, rest)
        else:
            self._batches = iter(few)

    def _write(self, few: list[pa.RecordBatch], rest: Iterator[pa.RecordBatch]) -> None:
        import pyarrow as pa

        try:
            self._file = tempfile.TemporaryFile(prefix="sqlml-")  # noqa: SIM115 - closed by close
            with pa.ipc.new_stream(pa.PythonFile(self._file, "w"), few[0].schema) as writer:
                for batch in few:
                    writer.write_batch(batch)
                try:
                    for batch in rest:
                        writer.write_batch(batch)
                except Error as error:
                    self._failure = error
            self._file.seek(0)
            self._batches = iter(pa.ipc.open_stream(pa.PythonFile(self._file, "r")))
        except OSError as error:
            self.close()
            self._failure = OperationalError(
                f"the rest of a result could not be put aside: {error}",
                hint=f"make room in {tempfile.gettempdir()}, or set TMPDIR to a folder that has some; "
                "or read the result to its end before the next statement",
            )

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self

    def __next__(self) -> pa.RecordBatch:
        batch = next(self._batches, None)
        if batch is not None:
            return batch
        self.close()
        if self._failure is not None:
            raise self._failure
        raise StopIteration

    @property
    def is_on_disk(self) -> bool:
        """Whether a file is open."""
        return self._file is not None

    def close(self) -> None:
        """Let go of the rows that are left, and of the file."""
        self._batches = iter(())
        if self._file is not None:
            self._file.close()
            self._file = None
