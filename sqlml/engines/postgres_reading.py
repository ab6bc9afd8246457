"""A result that is still being read: one batch ahead, kept in memory when another statement needs the connection."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sqlml.engines.postgres_link import Link

if TYPE_CHECKING:
    import pyarrow as pa


class Reading:
    """The batches of a query in the driver's types.

    ``in_transaction``: it was begun inside a transaction of the user's, which a cancelled query would abort.
    """

    def __init__(self, link: Link, statement: Any, reader: Any, *, in_transaction: bool) -> None:
        self.schema: pa.Schema = reader.schema
        self.is_over = False  # nothing of it is left on the connection
        self._link = link
        self._statement = statement
        self._reader = reader
        self._in_transaction = in_transaction
        self._kept: deque[pa.RecordBatch] = deque()
        self._error: BaseException | None = None
        self._next: Future[pa.RecordBatch | None] | None = link.submit(self._read)

    def next(self) -> pa.RecordBatch | None:
        """The next batch; None at the end.  Raises the driver's error, once."""
        if self._kept:
            return self._kept.popleft()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return None if self.is_over else self._fetch()

    def keep(self) -> None:
        """Read all that is left into memory, so that the connection is free.  An error waits for whoever reads."""
        while not self.is_over:
            try:
                batch = self._fetch()
            except Exception as error:
                self._error = error
                return
            if batch is not None:
                self._kept.append(batch)

    def abandon(self) -> None:
        """Nobody wants the rest.  Returns at once, from any thread; the next statement waits until the connection is free."""
        self._kept.clear()
        self._error = None
        if self.is_over:
            return
        self.is_over = True
        self._next = None
        if not self._in_transaction:
            self._link.cancel()
        with suppress(Exception):  # the connection is closed already
            self._link.submit(self._discard)

    def _fetch(self) -> pa.RecordBatch | None:
        future = self._next
        if future is None:
            return None
        try:
            batch = self._link.wait(future)
        except BaseException:
            self._finish()
            raise
        if batch is None:
            self._finish()
        else:
            self._next = self._link.submit(self._read)
        return batch

    def _finish(self) -> None:
        self.is_over, self._next = True, None
        with suppress(Exception):  # the connection is closed already
            self._link.submit(self._statement.close)

    def _read(self) -> pa.RecordBatch | None:
        try:
            batch: pa.RecordBatch = self._reader.read_next_batch()
        except StopIteration:
            return None
        return batch

    def _discard(self) -> None:
        """After a cancel the server still has to be heard out; within a transaction libpq skips the rest by itself, undecoded."""
        try:
            while not self._in_transaction and self._read() is not None:
                continue
        except Exception:  # noqa: S110 - the answer to the cancel
            pass
        finally:
            self._statement.close()
