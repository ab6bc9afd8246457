"""A job's rows on the cluster: read by the job's query or from its Arrow file, staged under safe names, hashed and counted.

    query or train.arrow → DataFrame → columns c0, c1, … t, w, k0, … and h, u, v

``h`` is a hash of the row's values, ``u`` and ``v`` are numbers in [0, 1) that follow from it, from the seed and, among equal
rows, from a count: the same rows get the same numbers whatever their order and wherever they lie.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sqlml.errors import TrainingDataError
from sqlml.job_folder import STAGED_ROWS
from sqlml.plan import TrainPlan
from sqlml.spark_common.place import Place, read_parquet
from sqlml.spark_common.text import quote, with_backticks
from sqlml.training import rules
from sqlml.types import Kind, arrow_type, kind_of_arrow
from sqlml_runners.spark.cluster import Cluster

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetWriter

_FILE_ROWS = 500_000
"""Rows of one Parquet file: so many are read by one task."""
_CAST = {
    Kind.NUMBER: "double",
    Kind.BOOLEAN: "boolean",
    Kind.TEXT: "string",
    Kind.DATE: "date",
    Kind.TIMESTAMP: "timestamp_ntz",
    Kind.TIMESTAMPTZ: "timestamp",
    Kind.NUMBERS: "array<double>",
    Kind.TEXTS: "array<string>",
}
SPARK_TYPE = _CAST | {Kind.TIME: "bigint"}
"""The type in which values of a kind travel between Spark and Python; times as microseconds since midnight."""


@dataclass(frozen=True)
class Staged:
    """Rows ready to be worked with.

    ``columns`` maps names to columns of ``frame``, in order; ``kinds`` are those of the features; ``whole`` are the names of
    columns of whole numbers; ``types`` the Arrow types of all as they came.
    """

    frame: Any
    columns: Mapping[str, str]
    keys: Mapping[str, str]
    kinds: Mapping[str, Kind]
    types: Mapping[str, pa.DataType]
    whole: frozenset[str]
    rows: int
    fingerprint: str


# --- from Arrow to Spark ----------------------------------------------------------------------------------------------


def read_rows(cluster: Cluster, query: str | None, path: Path) -> Any:
    """The DataFrame of a query, in which names may stand in double quotes, or of an Arrow file in the job's folder.

    The file's rows are first written as Parquet where the cluster sees them, until ``cluster.forget()``.
    """
    if query is not None:
        return cluster.session.sql(with_backticks(query))
    place = cluster.staging(path.parent).below(STAGED_ROWS[path.name])
    cluster.staged.append(place)
    write_parquet(path, place)
    return read_parquet(cluster.session, place)


def write_parquet(path: Path, folder: Place) -> None:
    """An Arrow file or stream as Parquet files, batch by batch.  ``TrainingDataError`` for a file that is neither."""
    import pyarrow.parquet as pq

    folder.remove()
    folder.create()
    try:
        reader = open_arrow(path)
    except pa.ArrowInvalid as error:
        raise TrainingDataError(f"the job's rows in {path.name} cannot be read: {error}") from error
    names = reader.schema.names
    written, writer, part = 0, _writer(folder, 0, pq, reader.schema), 0
    for batch in reader:
        plain = [plain_array(array) for array in batch.columns]
        writer.write_batch(pa.RecordBatch.from_arrays(plain, names=names))
        written += batch.num_rows
        if written >= _FILE_ROWS:
            writer.close()
            part, written = part + 1, 0
            writer = _writer(folder, part, pq, reader.schema)
    writer.close()


def _writer(folder: Place, part: int, pq: Any, schema: pa.Schema) -> ParquetWriter:
    plain = pa.schema([(f.name, plain_array(pa.nulls(0, f.type)).type) for f in schema])
    writer: ParquetWriter = pq.ParquetWriter(folder.below(f"rows-{part:05}.parquet").path, plain, filesystem=folder.system)
    return writer


def open_arrow(path: Path) -> Any:
    """A reader of the batches of an Arrow IPC file or stream."""
    source = pa.memory_map(str(path))
    try:
        file = pa.ipc.open_file(source)
        return pa.RecordBatchReader.from_batches(file.schema, (file.get_batch(i) for i in range(file.num_record_batches)))
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_stream(source)


def plain_array(array: pa.Array) -> pa.Array:
    """An array in a type that Spark reads from Parquet: no dictionaries, no nanoseconds, times as microseconds (int64)."""
    t = pa.types
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        array = array.cast(kind.storage_type)
        return plain_array(array)
    if isinstance(kind, pa.DictionaryType):
        return plain_array(array.cast(kind.value_type))
    if t.is_timestamp(kind):
        return array.cast(pa.timestamp("us", kind.tz), safe=False)
    if t.is_date64(kind):
        return array.cast(pa.date32())
    if t.is_time(kind):
        return array.cast(pa.time64("us"), safe=False).cast(pa.int64())
    if t.is_null(kind) or t.is_float16(kind):
        return array.cast(pa.float64())
    if t.is_uint64(kind):
        return array.cast(pa.decimal128(20))
    if t.is_large_string(kind) or t.is_string_view(kind) or t.is_duration(kind) or t.is_decimal256(kind) or t.is_interval(kind):
        return array.cast(pa.string())
    return array


def arrow_schema(frame: Any) -> pa.Schema:
    """The Arrow types of a DataFrame's columns."""
    from pyspark.sql.pandas.types import to_arrow_schema

    return to_arrow_schema(frame.schema)


# --- staging ----------------------------------------------------------------------------------------------------------


def stage(cluster: Cluster, raw: Any, plan: TrainPlan, *, split: bool) -> Staged:
    """Choose, rename and hash the rows that a plan names.  ``TrainingDataError`` where a column is missing or cannot be used.

    The cluster keeps the frame until ``cluster.forget()``.
    """
    from pyspark.sql import functions as sf

    schema = arrow_schema(raw)
    names = _names(schema.names)
    wanted = _wanted(plan, split)
    absent = [name for name in wanted if name.lower() not in names]
    if absent:
        raise TrainingDataError(f"the rows have no column {', '.join(absent)} (they have: {', '.join(schema.names)})")
    types = {name: schema.field(names[name.lower()]).type for name in wanted}
    kinds = {c.name: c.kind for c in plan.features if c.kind is not None}
    columns = {name: f"c{i}" for i, name in enumerate(wanted)}
    keys = {name: f"k{i}" for i, name in enumerate(plan.key) if name.lower() in names}
    picked = [_cast(sf.col(quote(names[name.lower()])), kinds.get(name), types[name]).alias(c) for name, c in columns.items()]
    picked += [sf.col(quote(names[name.lower()])).alias(k) for name, k in keys.items()]
    frame = _numbered(raw.select(*picked), list(columns.values()), list(keys.values()), types, columns, plan.seed)
    frame = cluster.keep(frame)
    total, rows = _totals(frame)
    digest = hashlib.sha256(json.dumps([*columns, *total], ensure_ascii=False, default=str).encode())
    whole = frozenset(name for name, kind in types.items() if pa.types.is_integer(kind))
    made = Staged(frame, columns, keys, kinds, types, whole, rows, digest.hexdigest())
    if plan.weight is not None and made.rows:
        _check_weight(made, plan.weight)
    return made


def _names(names: Sequence[str]) -> dict[str, str]:
    lowered = {name.lower(): name for name in names}
    if len(lowered) < len(names):
        twice = sorted({name for name in names if sum(name.lower() == other.lower() for other in names) > 1})
        raise TrainingDataError(f"the rows have columns of one name to Spark: {', '.join(twice)}", hint="name each otherwise: AS")
    return lowered


def _wanted(plan: TrainPlan, split: bool) -> list[str]:
    names = [c.name for c in plan.features if c.kind is not None]
    more = (*plan.targets, plan.weight, plan.split.column if split else None)
    return list(dict.fromkeys([*names, *(name for name in more if name is not None)]))


def _cast(column: Any, kind: Kind | None, data_type: pa.DataType) -> Any:
    """A feature in the type of its kind; what is no feature as it is."""
    if kind is None or kind is Kind.TIME:
        return column
    return column if kind_of_arrow(data_type) is kind and data_type == arrow_type(kind) else column.cast(_CAST[kind])


def _numbered(
    frame: Any, columns: Sequence[str], keys: Sequence[str], types: Mapping[str, pa.DataType], named: Mapping[str, str], seed: int
) -> Any:
    """With ``h``, ``u`` and ``v``."""
    from pyspark.sql import Window
    from pyspark.sql import functions as sf

    times = {c for name, c in named.items() if pa.types.is_time(types[name])}
    hashed = [sf.col(c).cast("string") if c in times else sf.col(c) for c in columns]
    frame = frame.withColumn("h", sf.xxhash64(*hashed))
    order = sf.xxhash64(*keys) if keys else sf.lit(0)
    frame = frame.withColumn("o", sf.row_number().over(Window.partitionBy("h").orderBy(order)))
    for name, number in (("u", seed), ("v", seed + 1)):
        mixed = sf.shiftrightunsigned(sf.xxhash64("h", "o", sf.lit(number)), 11)
        frame = frame.withColumn(name, mixed.cast("double") / float(1 << 53))
    return frame.drop("o")


def _totals(frame: Any) -> tuple[tuple[Any, ...], int]:
    """What all rows are, whatever their order: their number, the sum and the exclusive or of their hashes."""
    from pyspark.sql import functions as sf

    total = frame.agg(sf.count(sf.lit(1)), sf.sum(sf.col("h").cast("decimal(38,0)")), sf.bit_xor("h")).first()
    return tuple(total), int(total[0])


def _check_weight(staged: Staged, name: str) -> None:
    from pyspark.sql import functions as sf

    if kind_of_arrow(staged.types[name]) not in (Kind.NUMBER, Kind.BOOLEAN):
        raise rules.weight_is_no_number(name)
    w = weight_column(staged, name)
    nothing = w.isNull() | sf.isnan(w)
    low, high, absent = staged.frame.agg(sf.min(w), sf.max(w), sf.count_if(nothing)).first()
    rules.check_weights(name, int(absent), low, high)


def weight_column(staged: Staged, name: str) -> Any:
    """The weight of each row as a double."""
    from pyspark.sql import functions as sf

    return sf.col(staged.columns[name]).cast("double")
