"""A result that is still being read: some batches ahead, kept in memory when another statement needs the connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from sqlml.engines.postgres.chunks import Chunk, Copying
from sqlml.engines.postgres.link import Link

if TYPE_CHECKING:
    import pyarrow as pa


BatchOf: TypeAlias = "Callable[[Chunk, Callable[[], None]], pa.RecordBatch]"
"""From rows as the server sends them to a batch; the function is called now and then in between."""

AHEAD = 3
"""Batches that are read before they are asked for: on a busy machine whoever reads and whoever asks take turns less often."""


class Reading:
    """The rows of a query, made Arrow on the connection's thread: two threads would spend more time on whose turn it is.

    ``in_transaction``: it was begun inside a transaction of the user's, which a cancelled query would abort.
    """

    def __init__(self, link: Link, copying: Copying, batch_of: BatchOf, *, in_transaction: bool) -> None:
        self.is_over = False  # nothing of it is left on the connection
        self._link = link
        self._copying = copying
        self._batch_of = batch_of
        self._in_transaction = in_transaction
        self._kept: deque[pa.RecordBatch] = deque()
        self._error: BaseException | None = None
        self._ahead: deque[Future[pa.RecordBatch | None]] = deque(link.submit(self._read) for _ in range(AHEAD))

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
        self._end()
        if not self._in_transaction:
            self._link.cancel()
        with suppress(Exception):  # the connection is closed already
            self._link.submit(self._discard)

    def _fetch(self) -> pa.RecordBatch | None:
        if not self._ahead:
            return None
        try:
            batch = self._link.wait(self._ahead.popleft())
        except BaseException:
            self._end()
            raise
        if batch is None:
            self._end()
        else:
            self._ahead.append(self._link.submit(self._read))
        return batch

    def _end(self) -> None:
        self.is_over = True
        self._ahead.clear()

    def _read(self) -> pa.RecordBatch | None:
        chunk = self._copying.read()
        if chunk is None:
            return None
        try:
            return self._batch_of(chunk, self._copying.listen)
        except BaseException:
            if not self._in_transaction:
                self._link.cancel()
            self._discard()
            raise

    def _discard(self) -> None:
        """The server still has to be heard out: after a cancel its answer to that, within a transaction all that is left."""
        with suppress(Exception):  # the answer to the cancel
            self._copying.skip()
