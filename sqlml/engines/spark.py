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
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlml.contracts import Stream
from sqlml.engines.spark_stage import Stage
from sqlml.engines.spark_text import is_query, quote, quote_parts, with_backticks
from sqlml.engines.spark_types import arrow_schema, columns_of, in_types
from sqlml.errors import BindError, Cancelled, DatabaseError, EngineError, Error
from sqlml.spark_errors import spark_condition, spark_errors
from sqlml.spark_session import is_connect, open_spark
from sqlml.types import Column

if TYPE_CHECKING:
    import pyarrow as pa

SMALL = 8 << 20
"""Results that Spark expects to be smaller, in bytes, are fetched in one piece."""

FILE_FORMATS = frozenset({"parquet", "orc", "json", "csv", "avro", "text", "delta"})
"""``parquet."/folder"`` is a folder of files in place of a table."""

_WRAP = "SELECT * FROM (\n"
_ABSENT = ("TABLE_OR_VIEW_NOT_FOUND", "SCHEMA_NOT_FOUND", "PATH_NOT_FOUND", "REQUIRES_SINGLE_PART_NAMESPACE")
_MISSING_COLUMN = re.compile(r"with name (?:`(?:[^`]|``)+`\.)*`((?:[^`]|``)+)` cannot be resolved")
_STATISTICS = re.compile(r"Statistics\(sizeInBytes=([\d.E+]+) ([KMGTPE]?i?B)(?:, rowCount=([\d.E+]+))?")
_KEEPS_ROWS = re.compile(r"[\s+:-]*(?:Project|Sort|Window|Repartition\w*)\b")
_UNITS = {unit: 1024**power for power, unit in enumerate(("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"))}
_AGAIN = 0.2
"""Seconds between two requests to stop: Spark forgets one that comes before its job has begun."""
_PATIENCE = 3.0
"""Seconds that a stopped action has to come back."""
_MOST_TABLES = 200
T = TypeVar("T")


class SparkEngine:
    """The engine of one connection to Spark, in this process or behind Spark Connect."""

    name = "spark"
    dialect = "spark"
    notice: str | None = None
    calls_python = False

    def __init__(self, session: Any, staging: str | None = None, *, owned: bool = False) -> None:
        self.session = session
        self._owned = owned
        self._stage = Stage(session, staging)
        self._tag = f"sqlml-{uuid.uuid4().hex}"
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._running = 0

    @classmethod
    def open(cls, options: Mapping[str, Any]) -> SparkEngine:
        """Open, by the options of ``open_spark``; a session that runs in this process already is used, and left open.

        ``staging`` is a folder or URL that both this process and the cluster can write and read, for rows that come from here.
        """
        before = _active_session()
        session = open_spark(options)
        return cls(session, options.get("staging"), owned=before is None)

    def close(self) -> None:
        """End the session, where this engine began it and nobody else has work in it."""
        self._stage.close()
        if self._owned and (is_connect(self.session) or not self._is_busy()):
            self.session.stop()

    def _is_busy(self) -> bool:
        with spark_errors():
            context = self.session.sparkContext
            return context._jsc is not None and bool(context.statusTracker().getActiveJobsIds())

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
        if plan.startswith("Error occurred during query planning"):
            reason = re.sub(r"^\[[A-Z0-9_.]+\]\s*", "", plan.partition("\n")[2])
            raise EngineError(reason.partition("\n")[0])

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
        try:
            with self._statement():
                return int(self._wait(lambda: self.session.sql(text).collect())[0][0])
        except Exception as error:
            if (spark_condition(error) or "").startswith(_ABSENT):
                return None
            with self._translated(text):
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
        with self._translated(""):
            tables = [row["tableName"] for row in self.session.sql("SHOW TABLES").collect()]
            columns: set[str] = set()
            for table in tables[:_MOST_TABLES]:
                columns.update(self.session.table(quote(table)).columns)
        return {"tables": tuple(tables), "columns": tuple(sorted(columns))}

    # --- running ----------------------------------------------------------------------------------------------------

    def run(self, text: str, parameters: Any = ()) -> Stream:
        """Run one statement of Spark; of a query, nothing runs before its first batch is asked for."""
        import pyarrow as pa

        if is_query(text):
            return self._query(text, parameters)
        with self._statement(), self._translated(text):
            frame = self._wait(lambda: self._sql(with_backticks(text), parameters))
            if not frame.schema.fields:
                return Stream((), pa.schema([]), _nothing(), has_rows=False)
            schema = arrow_schema(frame.schema)
            return Stream(columns_of(frame.schema), schema, _given(_batches(self._wait(frame.toArrow), schema)))

    def _query(self, text: str, parameters: Any) -> Stream:
        with self._statement(), self._translated(text):
            frame = self._wait(lambda: self._sql(with_backticks(text), parameters))
            schema = arrow_schema(frame.schema)
        if not frame.schema.fields:  # WITH … INSERT, which Spark has carried out
            return Stream((), schema, _nothing(), has_rows=False)
        size = self._statistics(text, parameters)[0]
        read = self._whole if size is not None and size <= SMALL else self._in_parts
        return Stream(columns_of(frame.schema), schema, self._guarded(text, lambda: read(frame, schema)))

    def _guarded(self, text: str, read: Callable[[], Iterator[pa.RecordBatch]]) -> Generator[pa.RecordBatch, None, None]:
        with self._statement():
            batches = read()
            while True:
                with self._translated(text):
                    if self._stop.is_set():
                        raise Cancelled("cancelled")
                    batch = next(batches, None)
                if batch is None:
                    return
                if batch.num_rows:
                    yield batch

    def _whole(self, frame: Any, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        yield from _batches(self._wait(frame.toArrow), schema)

    def _in_parts(self, frame: Any, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The cluster computes all partitions at once, as Arrow files on its own disks; they come here one after the other."""
        import pyarrow as pa
        from pyspark import StorageLevel

        written = frame.mapInArrow(_as_files(), "file binary").persist(StorageLevel.DISK_ONLY)
        try:
            self._wait(written.count)
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
        """Stop what runs, from any thread."""
        if not self._running:
            return
        self._stop.set()
        threading.Thread(target=self._keep_stopping, name="sqlml-spark-interrupt", daemon=True).start()

    def _keep_stopping(self) -> None:
        pause = threading.Event()
        while self._running and self._stop.is_set():
            with spark_errors():
                self.session.interruptTag(self._tag)
            pause.wait(_AGAIN)

    # --- writing ----------------------------------------------------------------------------------------------------

    def register(self, name: str, table: pa.Table) -> None:
        """Let statements of the session read an Arrow table under a name, as a temporary view, until ``unregister``."""
        with self._translated(name):
            self._stage.frame(table.schema, table.to_batches(), name).createOrReplaceTempView(quote(name))

    def unregister(self, name: str) -> bool:
        """Forget a table of ``register``."""
        with self._translated(name):
            self.session.catalog.dropTempView(name)
        self._stage.drop(name)
        return True

    def write(self, parts: Sequence[str], schema: pa.Schema, batches: Iterable[pa.RecordBatch], mode: str) -> int:
        """Write rows into a table or, ``parquet."/folder"``, into a folder of files; how many there were.

        ``create``, ``replace`` or ``append`` by the columns' names.  All rows are staged before the table is touched; what Spark
        itself then does is all or nothing as far as the table's format goes (a replaced Parquet table is dropped first).
        """
        with self._statement():
            staged = f"write-{uuid.uuid4().hex}"
            target = quote_parts(parts)
            try:
                with self._translated(target):
                    frame = self._stage.frame(schema, batches, staged)
                    self._wait(lambda: self._write(frame, parts, mode))
            finally:
                count = self._stage.drop(staged)
        return count

    def _write(self, frame: Any, parts: Sequence[str], mode: str) -> None:
        if len(parts) == 2 and parts[0].lower() in FILE_FORMATS:
            how = {"create": "error", "replace": "overwrite", "append": "append"}[mode]
            frame.write.format(parts[0].lower()).mode(how).save(parts[1])
        elif mode == "append":
            view = f"__sqlml_{uuid.uuid4().hex[:12]}"
            frame.createOrReplaceTempView(view)
            try:
                self.session.sql(f"INSERT INTO {quote_parts(parts)} BY NAME SELECT * FROM {view}")  # noqa: S608
            finally:
                self.session.catalog.dropTempView(view)
        else:
            frame.write.mode("error" if mode == "create" else "overwrite").saveAsTable(quote_parts(parts))

    # --- inside -----------------------------------------------------------------------------------------------------

    def _sql(self, text: str, parameters: Any) -> Any:
        if not parameters:
            return self.session.sql(text)
        return self.session.sql(text, dict(parameters) if isinstance(parameters, Mapping) else list(parameters))

    @contextmanager
    def _statement(self) -> Iterator[None]:
        """While a statement runs: what ``interrupt`` stops."""
        with self._lock:
            if not self._running:
                self._stop.clear()
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1

    def _wait(self, action: Callable[[], T]) -> T:
        """What an action gives, whose jobs ``interrupt`` stops.

        It runs on a thread of its own, which is given up if it does not come back soon after: Spark forgets to answer where a
        job is stopped between two stages of an adaptive plan.
        """
        done: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
        threading.Thread(target=self._act, args=(action, done), name="sqlml-spark", daemon=True).start()
        patience = _PATIENCE
        while True:
            try:
                result, error = done.get(timeout=_AGAIN)
            except queue.Empty:
                patience -= _AGAIN if self._stop.is_set() else 0
                if patience <= 0:
                    raise Cancelled("cancelled") from None
                continue
            if error is not None:
                raise error
            return cast(T, result)

    def _act(self, action: Callable[[], T], done: queue.SimpleQueue[tuple[T | None, BaseException | None]]) -> None:
        try:
            self.session.addTag(self._tag)  # of this thread's jobs alone
            if self._stop.is_set():
                raise Cancelled("cancelled")
            done.put((action(), None))
        except BaseException as error:
            done.put((None, error))

    @contextmanager
    def _translated(self, text: str, shift: int = 0, sent: str | None = None) -> Iterator[None]:
        """Spark's errors as ours, placed in ``text``; Spark got ``sent``, in which it begins at ``shift``."""
        got = with_backticks(text) if sent is None else sent
        try:
            with spark_errors(got):
                yield
        except DatabaseError as error:
            if self._stop.is_set():
                raise Cancelled("cancelled") from None
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


def _active_session() -> Any:
    """The session that runs in this process, if one does."""
    import sys

    if "pyspark" not in sys.modules:
        return None
    from pyspark import SparkContext

    return SparkContext._active_spark_context


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
