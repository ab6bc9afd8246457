"""What happens inside Spark's Python workers: rows as Arrow arrays → the bundle's model, read once per process → answers.

Imported by the workers alone, where sqlml has to be installed with the libraries of the models that it predicts with.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sqlml.bundles.answers import answer as answer_output
from sqlml.contracts import RowModel
from sqlml.errors import BindError, count_of, listing
from sqlml.types import Kind

_lock = threading.Lock()
_models: dict[str, RowModel] = {}


@dataclass(frozen=True)
class Job:
    """What a function has to do, as it travels to the workers.

    ``bundle`` is a folder on this machine or, ``archive``, the name of one that Spark unpacks for its workers.
    """

    name: str
    output: str
    bundle: str
    sha256: str
    inputs: tuple[tuple[str, Kind], ...]
    archive: bool = False

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"inputs": [(name, kind.value) for name, kind in self.inputs]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Job:
        """From what ``to_json`` gives."""
        return cls(**{**document, "inputs": tuple((name, Kind(kind)) for name, kind in document["inputs"])})


def answer(job: Job, arrays: Sequence[pa.Array], named: Mapping[str, pa.Array]) -> pa.Array:
    """The answers for one batch of rows, in types that Spark takes."""
    rows = _rows(job, arrays, named)
    return _answer(_model(job), job.output, rows)


def _model(job: Job) -> RowModel:
    if job.sha256 not in _models:
        with _lock:
            if job.sha256 not in _models:
                from sqlml.bundles.model import Model

                _models[job.sha256] = Model.open(_folder(job), job.sha256)
    return _models[job.sha256]


def _folder(job: Job) -> Path:
    if not job.archive:
        return Path(job.bundle)
    from pyspark import SparkFiles

    return Path(SparkFiles.get(job.bundle))


# --- rows in ----------------------------------------------------------------------------------------------------------


def _rows(job: Job, arrays: Sequence[pa.Array], named: Mapping[str, pa.Array]) -> pa.StructArray:
    """One struct with a field for each input: from a struct, from named arguments, or by place in DESCRIBE order."""
    given = _by_name(job, arrays, named)
    lowered = {name.lower(): name for name in given}
    found = {name: name if name in given else lowered.get(name.lower()) for name, _ in job.inputs}
    missing = [name for name, key in found.items() if key is None]
    if missing:
        raise BindError(
            f"{job.name} needs columns that are not there: {listing(missing)}", hint=f"there are: {listing(given) or 'none'}"
        )
    columns = [_readable(given[found[name] or ""], kind) for name, kind in job.inputs]
    return pa.StructArray.from_arrays(columns, [name for name, _ in job.inputs])


def _by_name(job: Job, arrays: Sequence[pa.Array], named: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
    if named and not arrays:
        return dict(named)
    if len(arrays) == 1 and pa.types.is_struct(arrays[0].type) and not named:
        return dict(zip((field.name for field in arrays[0].type), arrays[0].flatten(), strict=True))
    if len(arrays) == len(job.inputs) and not named:
        return {name: array for (name, _), array in zip(job.inputs, arrays, strict=True)}
    names = [name for name, _ in job.inputs]
    raise BindError(
        f"{job.name}() takes {count_of(len(names), 'argument')} or one struct, got {len(arrays) + len(named)}",
        hint=f"in this order: {listing(names, 30)}\nor by name: {job.name}(struct(*))",
    )


def _readable(array: pa.Array, kind: Kind) -> pa.Array:
    """A column as the model can read it.

    Spark has no TIME: such values come as text.
    """
    if kind is Kind.TIME and (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        dated = pc.binary_join_element_wise("1970-01-01", pc.cast(array, pa.string()), " ")  # Arrow reads no times of day alone
        return pc.cast(pc.cast(dated, pa.timestamp("us")), pa.time64("us"))
    if kind is Kind.TIMESTAMPTZ and pa.types.is_timestamp(array.type) and not array.type.tz:
        raise BindError(
            "a local time (TIMESTAMP_NTZ) is no moment: the model takes TIMESTAMP", hint="say which: CAST(column AS TIMESTAMP)"
        )
    return array


# --- answers out ------------------------------------------------------------------------------------------------------


def _answer(model: RowModel, output: str, rows: pa.StructArray) -> pa.Array:
    found = answer_output(model, output, rows)
    wanted = _spark_type(found.type)
    return found if found.type == wanted else found.cast(wanted)


def _spark_type(data_type: pa.DataType) -> pa.DataType:
    """The type that Spark's own type for it has in Arrow: TIME is text, integers are BIGINT."""
    import pyarrow.types as t

    if t.is_time(data_type):
        return pa.string()
    if t.is_integer(data_type):
        return pa.int64()
    if t.is_floating(data_type):
        return pa.float64()
    if t.is_struct(data_type):
        return pa.struct([(field.name, _spark_type(field.type)) for field in data_type])
    if t.is_map(data_type):
        return data_type
    if t.is_list(data_type) or t.is_large_list(data_type) or t.is_fixed_size_list(data_type):
        return pa.list_(_spark_type(data_type.value_type))
    return data_type
