"""Spark as a place where data lives: tables of its catalog, Parquet folders (``parquet."/folder"``), whatever it reads.

Queries go to Spark as they were written, but for names in double quotes, which Spark would take for strings.  Small results come
in one piece; larger ones are computed by the cluster into its own disks, then fetched partition by partition, so that neither
this process nor Spark's driver holds them as a whole.
"""

from __future__ import annotations

import queue
import re
import threading
import uuid
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlml.contracts import Stream
from sqlml.engines.spark.nearest import near_relation
from sqlml.engines.spark.stage import Stage
from sqlml.engines.spark.types import arrow_schema, columns_of, in_types, zone_name
from sqlml.errors import BindError, Cancelled, DatabaseError, EngineError, Error
from sqlml.spark_common.errors import first_line, spark_condition, spark_errors
from sqlml.spark_common.session import acquire, is_connect, release
from sqlml.spark_common.tables import write_table
from sqlml.spark_common.text import is_query, quote, quote_parts, with_backticks
from sqlml.types import Column

if TYPE_CHECKING:
    import pyarrow as pa

SMALL = 8 << 20
"""Results that Spark expects to be smaller, in bytes, are fetched in one piece."""

_WRAP = "SELECT * FROM (\n"
_ABSENT = ("TABLE_OR_VIEW_NOT_FOUND", "SCHEMA_NOT_FOUND", "PATH_NOT_FOUND", "REQUIRES_SINGLE_PART_NAMESPACE")
_MISSING_COLUMN = re.compile(r"with name (?:`(?:[^`]|``)+`\.)*`((?:[^`]|``)+)` cannot be resolved")
_STATISTICS = re.compile(r"Statistics\(sizeInBytes=([\d.E+]+) ([KMGTPE]?i?B)(?:, rowCount=([\d.E+]+))?")
_KEEPS_ROWS = re.compile(r"[\s+:-]*(?:Project|Sort|Window|Repartition\w*)\b")
_UNITS = {unit: 1024**power for power, unit in enumerate(("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"))}
_AGAIN = 0.2
"""Seconds between two looks, whether somebody wants what runs to stop."""
_PATIENCE = 3.0
"""Seconds that a stopped action has to come back."""
_MOST_TABLES = 200
T = TypeVar("T")


class SparkEngine:
    """The engine of one connection to Spark, in this process or behind Spark Connect."""

    name = "spark"
    dialect = "spark"
    notice: str | None = None

    def __init__(self, session: Any, staging: str | None = None) -> None:
        self.session = session
        self._stage = Stage(session, staging)
        self._tag = f"sqlml-{uuid.uuid4().hex}"
        self._stops: weakref.WeakSet[threading.Event] = weakref.WeakSet()  # one for each statement that is not over

    @classmethod
    def open(cls, options: Mapping[str, Any]) -> SparkEngine:
        """Open, by the options of ``open_spark``; a session that runs in this process already is used.

        ``staging`` is a folder or URL that both this process and the cluster can write and read, for rows that come from here.
        """
        return cls(acquire(options), options.get("staging"))

    def close(self) -> None:
        """Let go of the session; it ends with the last who holds it, where sqlml began it."""
        self._stage.close()
        release(self.session)

    def quote(self, name: str) -> str:
        """A name as Spark's SQL takes it."""
        return quote(name)

    def fold(self, name: str) -> str:
        return name

    # --- asking -----------------------------------------------------------------------------------------------------

    def describe(self, query: str, parameters: Any = ()) -> tuple[Column, ...]:
        """The columns of a query, analysed but not run.  ``BindError`` where the text is not one query."""
        return columns_of(self._analysed(query, parameters).schema)

    def _analysed(self, query: str, parameters: Any) -> Any:
        """The query inside another, so that it is a query and nothing else: Spark runs other statements at once."""
        if not is_query(query):
            raise BindError("the query must be one SELECT (or FROM, WITH, VALUES, TABLE)")
        text = f"{_WRAP}{with_backticks(query)}\n)"
        with self._translated(query, len(_WRAP), text):
            return self._sql(text, parameters)

    def bind(self, text: str, parameters: Any = ()) -> None:
        """Check a statement without running it; raises what running it would raise at once."""
        if is_query(text):
            self._analysed(text, parameters)
            return
        with self._translated(text):
            plan = "\n".join(str(row[0]) for row in self._sql(f"EXPLAIN {with_backticks(text)}", parameters).collect())
        self._check_plan(text, plan)

    def _check_plan(self, text: str, plan: str) -> None:
        """``EngineError`` where Spark's plan of a statement is that it has none."""
        if plan.startswith("Error occurred during query planning"):
            with self._translated(text):
                raise EngineError(first_line(plan.partition("\n")[2]))

    def missing_column(self, error: Error) -> str | None:
        """The column whose absence an error tells of, if it does."""
        match = _MISSING_COLUMN.search(error.message)
        return match[1].replace("``", "`") if match else None

    def scope(self, before: str, after: str) -> tuple[str, ...]:
        """The columns in scope at a place: Spark names a few in its errors, never all."""
        return ()

    def sample_clause(self, seed: int, rows: int) -> str:
        """What follows ``FROM (query)``: the sample depends on the selected values and the seed, not on the rows' order.

        By their JSON, since ``xxhash64`` itself passes over NULLs and would not tell (1, NULL) from (NULL, 1).
        """
        row = "to_json(struct(*), map('ignoreNullFields', 'false'))"
        hashed = f"|> EXTEND xxhash64({seed}, {row}) AS __sqlml_hash, {row} AS __sqlml_row"
        return (
            f" AS __sqlml_rows {hashed} |> ORDER BY __sqlml_hash, __sqlml_row |> LIMIT {rows} |> DROP __sqlml_hash, __sqlml_row"
        )

    def has_schema(self, name: str) -> bool:
        """Whether there is a schema (database) of this name in the session's catalog."""
        with self._translated(name):
            return "`" not in name and bool(self.session.catalog.databaseExists(quote(name)))

    def has_function(self, name: str) -> bool:
        """Whether Spark knows a function of this name, or the name is a reserved word."""
        with self._translated(name):
            if "`" not in name and self.session.catalog.functionExists(quote(name)):
                return True
            return name.upper() in {"IN", "VALUES", "EXISTS", "ANY", "ALL", "SOME", "NOT", "AND", "OR", "CASE", "CAST", "USING"}

    def table_rows(self, parts: Sequence[str]) -> int | None:
        """How many rows a table, view or folder has, by its name's parts; None where there is none."""
        text = f"SELECT count(*) FROM {quote_parts(parts)}"  # noqa: S608
        stop = self._begin()
        try:
            return int(self._wait(lambda: self.session.sql(text).collect(), stop)[0][0])
        except Exception as error:
            if (spark_condition(error) or "").startswith(_ABSENT):
                return None
            with self._translated(text, stop=stop):
                raise

    def estimate_rows(self, query: str, parameters: Any = ()) -> int | None:
        """How many rows Spark expects of a query: known for tables with statistics (ANALYZE TABLE), else None."""
        self._analysed(query, parameters)
        rows = self._statistics(query, parameters)[1]
        return None if rows is None else int(rows)

    def _statistics(self, text: str, parameters: Any) -> tuple[float | None, float | None]:
        """(bytes, rows) that Spark expects of a query."""
        with self._translated(text):
            plan = str(self._sql(f"EXPLAIN COST {with_backticks(text)}", parameters).collect()[0][0])
        head, _, optimized = plan.partition("== Optimized Logical Plan ==\n")
        return _expected(optimized) if not head else (None, None)

    def transaction(self) -> int | None:
        """None: Spark has no transactions."""
        return None

    def names(self) -> dict[str, tuple[str, ...]]:
        """Tables of the current schema and temporary views, and their columns, for completion."""
        columns: set[str] = set()
        with self._translated(""):
            tables = [row["tableName"] for row in self.session.sql("SHOW TABLES").collect()]
        for table in tables[:_MOST_TABLES]:
            with suppress(EngineError), self._translated(""):  # a view whose tables or functions are gone has no columns
                columns.update(self.session.table(quote(table)).columns)
        return {"tables": tuple(tables), "columns": tuple(sorted(columns))}

    # --- running ----------------------------------------------------------------------------------------------------

    def run(self, text: str, parameters: Any = ()) -> Stream:
        """Run one statement of Spark; of a query, nothing runs before its first batch is asked for."""
        import pyarrow as pa

        if is_query(text):
            return self._query(text, parameters)
        stop = self._begin()
        with self._translated(text, stop=stop):
            frame = self._wait(lambda: self._sql(with_backticks(text), parameters), stop)
            if not frame.schema.fields:
                return Stream((), pa.schema([]), _nothing(), has_rows=False)
            schema, rows = self._arrow_schema(frame), self._wait(frame.toArrow, stop)
            if frame.schema.names == ["plan"] and rows.num_rows:
                self._check_plan(text, "\n".join(rows["plan"].to_pylist()))
            return Stream(columns_of(frame.schema), schema, _given(_batches(rows, schema)))

    def _query(self, text: str, parameters: Any) -> Stream:
        stop = self._begin()
        with self._translated(text, stop=stop):
            frame = self._wait(lambda: self._sql(with_backticks(text), parameters), stop)
            schema = self._arrow_schema(frame)
        if not frame.schema.fields:  # WITH … INSERT, which Spark has carried out
            return Stream((), schema, _nothing(), has_rows=False)
        size = self._statistics(text, parameters)[0]
        read = self._whole if size is not None and size <= SMALL else self._in_parts
        return Stream(columns_of(frame.schema), schema, self._guarded(text, read(frame, schema, stop), stop))

    def _guarded(
        self, text: str, batches: Iterator[pa.RecordBatch], stop: threading.Event
    ) -> Generator[pa.RecordBatch, None, None]:
        while True:
            with self._translated(text, stop=stop):
                _check(stop)
                batch = next(batches, None)
            if batch is None:
                return
            if batch.num_rows:
                yield batch

    def _whole(self, frame: Any, schema: pa.Schema, stop: threading.Event) -> Iterator[pa.RecordBatch]:
        yield from _batches(self._wait(frame.toArrow, stop), schema)

    def _in_parts(self, frame: Any, schema: pa.Schema, stop: threading.Event) -> Iterator[pa.RecordBatch]:
        """The cluster computes all partitions at once, as Arrow files on its own disks; they come here one after the other."""
        import pyarrow as pa
        from pyspark import StorageLevel

        written = frame.mapInArrow(_as_files(), "file binary").persist(StorageLevel.DISK_ONLY)
        try:
            self._wait(written.count, stop)
            for row in written.toLocalIterator(prefetchPartitions=True):
                yield from _batches(pa.ipc.open_stream(row[0]).read_all(), schema)
        finally:
            written.unpersist()

    def run_many(self, text: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each row of parameters."""
        for row in parameters:
            for _ in self.run(text, row).batches:
                continue

    def interrupt(self) -> None:
        """Stop what runs, from any thread; a result that is not read to its end yet is not read on."""
        for stop in list(self._stops):
            stop.set()

    # --- writing ----------------------------------------------------------------------------------------------------

    def register(self, name: str, rows: pa.Table | pa.RecordBatchReader) -> None:
        """Let statements of the session read Arrow rows under a name, as a temporary view, until ``unregister``.

        A reader's rows are staged at once, batch by batch.
        """
        import pyarrow as pa

        batches = rows if isinstance(rows, pa.RecordBatchReader) else rows.to_batches()
        with self._translated(name):
            self._stage.frame(rows.schema, batches, name).createOrReplaceTempView(quote(name))

    def unregister(self, name: str) -> bool:
        """Forget a table of ``register``."""
        with self._translated(name):
            self.session.catalog.dropTempView(name)
        self._stage.drop(name)
        return True

    def write(self, parts: Sequence[str], schema: pa.Schema, batches: Iterable[pa.RecordBatch], mode: str) -> int:
        """Write rows into a table or, ``parquet."/folder"``, into a folder of files; how many there were.

        ``create``, ``replace`` or ``append`` by the columns' names.  All rows are staged before the table is touched; see
        ``write_table`` for what is left where it fails.
        """
        stop = self._begin()
        staged = f"write-{uuid.uuid4().hex}"
        target = quote_parts(parts)
        try:
            with self._translated(target, stop=stop):
                frame = self._stage.frame(schema, batches, staged)
                self._wait(lambda: write_table(self.session, frame, parts, mode, lambda: _check(stop)), stop)
        finally:
            count = self._stage.drop(staged)
        return count

    # --- inside -----------------------------------------------------------------------------------------------------

    def _sql(self, text: str, parameters: Any) -> Any:
        if not parameters:
            return self.session.sql(text)
        return self.session.sql(text, dict(parameters) if isinstance(parameters, Mapping) else list(parameters))

    def _arrow_schema(self, frame: Any) -> pa.Schema:
        """The Arrow types of a frame's columns; moments bear the session's time zone, in which Spark shows them."""
        moments = re.search(r"\btimestamp\b", frame.schema.simpleString())
        return arrow_schema(frame.schema, zone_name(self.session.conf.get("spark.sql.session.timeZone")) if moments else "UTC")

    def _begin(self) -> threading.Event:
        """What ``interrupt`` sets, for as long as somebody holds it."""
        stop = threading.Event()
        self._stops.add(stop)
        return stop

    def _wait(self, action: Callable[[], T], stop: threading.Event) -> T:
        """What an action gives, whose jobs are stopped as soon as ``stop`` is set.

        It runs on a thread of its own, since Spark itself waits for nobody, and forgets a request to stop that comes before its
        job has begun.  The thread is given up if it does not come back soon after.
        """
        done: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
        threading.Thread(target=self._act, args=(action, stop, done), name="sqlml-spark", daemon=True).start()
        patience = _PATIENCE
        while True:
            try:
                result, error = done.get(timeout=_AGAIN)
            except queue.Empty:
                if not stop.is_set():
                    continue
                self._cancel_jobs()
                patience -= _AGAIN
                if patience <= 0:
                    raise Cancelled("cancelled") from None
                continue
            if error is not None:
                raise error
            return cast(T, result)

    def _act(
        self, action: Callable[[], T], stop: threading.Event, done: queue.SimpleQueue[tuple[T | None, BaseException | None]]
    ) -> None:
        try:
            self._tag_jobs()
            _check(stop)
            done.put((action(), None))
        except BaseException as error:
            done.put((None, error))

    def _tag_jobs(self) -> None:
        """Mark the jobs that this thread begins.  In this process by the context's tags: the session's own do not reach those
        that fetch Arrow.
        """
        if is_connect(self.session):
            self.session.addTag(self._tag)
        else:
            self.session.sparkContext.addJobTag(self._tag)
            self.session.sparkContext.setInterruptOnCancel(True)

    def _cancel_jobs(self) -> None:
        if is_connect(self.session):
            self.session.interruptTag(self._tag)
        else:
            self.session.sparkContext.cancelJobsWithTag(self._tag)

    @contextmanager
    def _translated(
        self, text: str, shift: int = 0, sent: str | None = None, stop: threading.Event | None = None
    ) -> Iterator[None]:
        """Spark's errors as ours, placed in ``text``; Spark got ``sent``, in which it begins at ``shift``."""
        got = with_backticks(text) if sent is None else sent
        try:
            with spark_errors(got):
                yield
        except DatabaseError as error:
            if stop is not None and stop.is_set():
                raise Cancelled("cancelled") from None
            near = near_relation(self.session, error.message)
            if near is not None:
                error.hint = near
            if error.source == got:
                same = len(with_backticks(text)) == len(text)
                _move(error, text if same else None, shift)
            raise


def _expected(plan: str) -> tuple[float | None, float | None]:
    """(bytes, rows) of an optimized plan: the bytes of its top, the rows of the first operator that tells, if those above it
    keep all rows.
    """
    size = None
    for line in plan.splitlines():
        match = _STATISTICS.search(line)
        if match is None:
            return size, None
        size = float(match[1]) * _UNITS[match[2]] if size is None else size
        if match[3]:
            return size, float(match[3])
        if not _KEEPS_ROWS.match(line):
            return size, None
    return size, None


def _check(stop: threading.Event) -> None:
    if stop.is_set():
        raise Cancelled("cancelled")


def _move(error: DatabaseError, text: str | None, shift: int) -> None:
    span = error.span
    fits = text is not None and span is not None and span[0] >= shift and span[1] - shift <= len(text)
    error.source = text if fits else None
    error.span = (span[0] - shift, span[1] - shift) if fits and span else None


def _as_files() -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What workers do with their rows: each batch as a small Arrow file.  Made here, so that workers need no sqlml for it."""

    def files(batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow as pa

        for batch in batches:
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, batch.schema) as writer:
                writer.write_batch(batch)
            yield pa.RecordBatch.from_arrays([pa.array([sink.getvalue().to_pybytes()], pa.binary())], ["file"])

    return files


def _batches(table: pa.Table, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in table.to_batches():
        yield in_types(batch.columns, schema)


def _given(batches: Iterator[pa.RecordBatch]) -> Generator[pa.RecordBatch, None, None]:
    yield from batches


def _nothing() -> Generator[pa.RecordBatch, None, None]:
    yield from ()
