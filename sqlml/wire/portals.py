"""What lives between a client's messages: prepared statements, results that wait to be fetched."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlml.engines.spool import Spool
from sqlml.wire.messages import Field
from sqlml.wire.types import WireType

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Outcome:
    """What a statement came to: its columns (None: no rows), its rows as batches, and its tag for a number of rows."""

    fields: tuple[Field, ...] | None
    batches: Generator[pa.RecordBatch, None, None] | None
    tag: Callable[[int], str]
    raw: Generator[bytes | memoryview, None, None] | None = None  # messages that are made already: COPY TO STDOUT


@dataclass
class Prepared:
    """A statement that was parsed.  ``fields`` is what it was described with: () before, None where it gives no rows."""

    text: str
    verb: str
    oids: tuple[int, ...] = ()
    described: bool = False
    fields: tuple[Field, ...] | None = None


@dataclass
class Portal:
    """A statement with its values, and its result once it runs."""

    prepared: Prepared
    values: tuple[Any, ...] = ()
    formats: tuple[int, ...] = ()
    holdable: bool = False
    fields: tuple[Field, ...] | None = None
    outcome: Outcome | None = None
    held: pa.RecordBatch | None = None  # what was read and not sent
    spool: Spool | None = None  # all behind it, once another statement had to run

    def begin(self, outcome: Outcome) -> None:
        """It runs."""
        self.outcome = outcome
        self.fields = outcome.fields

    def fetch(self, limit: int = 0) -> Iterator[pa.RecordBatch]:
        """The next rows, 0: all that are left."""
        left = limit
        while True:
            batch = self._next()
            if batch is None:
                return
            if limit and batch.num_rows > left:
                self.held = batch.slice(left)
                batch = batch.slice(0, left)
            if batch.num_rows:
                yield batch
            left -= batch.num_rows
            if limit and left <= 0:
                return

    def is_over(self) -> bool:
        """Whether no row is left."""
        batch = self._next()
        if batch is None:
            return True
        self.held = batch
        return False

    def _next(self) -> pa.RecordBatch | None:
        while True:
            if self.held is not None:
                batch, self.held = self.held, None
            elif self.spool is not None:
                batch = next(self.spool, None)
            elif self.outcome is None or self.outcome.batches is None:
                return None
            else:
                batch = next(self.outcome.batches, None)
            if batch is None or batch.num_rows:
                return batch

    def settle(self) -> None:
        """Another statement begins: what still streams is put aside.  What goes wrong is told to who fetches."""
        if self.spool is None and self.outcome is not None and self.outcome.batches is not None:
            self.spool = Spool(self.outcome.batches)
            self.outcome.batches.close()

    def close(self) -> None:
        """Let go of the rows."""
        if self.outcome is not None and self.outcome.batches is not None:
            self.outcome.batches.close()
        if self.spool is not None:
            self.spool.close()
        self.held, self.outcome, self.spool = None, None, None

    @property
    def types(self) -> tuple[WireType, ...]:
        return tuple(column.type for column in self.fields or ())


def column_formats(formats: Sequence[int], count: int) -> tuple[int, ...]:
    """A format for each column: none given is text, one given is for all."""
    if len(formats) <= 1:
        return (formats[0] if formats else 0,) * count
    return tuple(formats)


def text_rows(names: Sequence[str], rows: Sequence[Sequence[str | None]], tag: str) -> Outcome:
    """A small result of texts."""
    import pyarrow as pa

    from sqlml.wire.types import TEXT

    columns = [pa.array([row[i] for row in rows], pa.string()) for i in range(len(names))]
    batch = pa.RecordBatch.from_arrays(columns, names=list(names))
    return Outcome(tuple(Field(name, TEXT) for name in names), (b for b in [batch]), lambda _: tag)


def iter_nothing() -> Generator[pa.RecordBatch, None, None]:
    """No rows."""
    yield from ()


def nothing(tag: str) -> Outcome:
    """A statement that only had to be said."""
    return Outcome(None, None, lambda _: tag)
