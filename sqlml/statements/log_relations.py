"""The relations that lie in Parquet files: the prediction log and the feedback.

A database that calls Python functions reads the files itself, by SQL that names those of the moment; for any other they are read
here, and copied batch by batch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from sqlml_dialect import quote_identifier, quote_string

from sqlml.home import Home
from sqlml.prediction_log import FEEDBACK, PREDICTIONS, feedback_files, prediction_files, relation_schema

if TYPE_CHECKING:
    import pyarrow as pa

Columns: TypeAlias = tuple[tuple[str, str], ...]
_STRUCTS = frozenset({"inputs", "outputs"})
BATCH_ROWS = 65_536


@dataclass(frozen=True)
class FileRelation:
    """A relation over groups of Parquet files, those of a group being alike; ``structs`` are columns shown as JSON."""

    name: str
    columns: Columns
    groups: Callable[[], Sequence[Sequence[Path]]]
    structs: frozenset[str] = frozenset()

    def sql(self) -> str:
        """A query of DuckDB over the files that are there now."""
        parts = [
            f"SELECT {self._select(group)} FROM read_parquet([{_list(group)}], hive_partitioning = false)"  # noqa: S608
            for group in self.groups()
        ]
        empty = ", ".join(f"CAST(NULL AS {sql_type}) AS {quote_identifier(name)}" for name, sql_type in self.columns)
        return " UNION ALL ".join(parts) or f"SELECT {empty} WHERE false"

    def reader(self) -> pa.RecordBatchReader:
        """The rows of the files that are there now."""
        import pyarrow as pa

        schema = relation_schema(self.columns)
        return pa.RecordBatchReader.from_batches(schema, self._batches(schema))

    def _batches(self, schema: pa.Schema) -> Generator[pa.RecordBatch, None, None]:
        import pyarrow as pa
        import pyarrow.dataset as ds

        from sqlml.features.database import ROWS, select

        for group in self.groups():
            shown_as = self._select(group)
            for batch in ds.dataset([str(path) for path in group]).to_batches(batch_size=BATCH_ROWS):
                rows = pa.Table.from_batches([batch])
                shown = select(f"SELECT {shown_as} FROM {ROWS}", rows) if self.structs else rows  # noqa: S608
                yield from shown.cast(schema).to_batches()

    def _select(self, group: Sequence[Path]) -> str:
        """What is selected of a group's files."""
        if not self.structs:
            return ", ".join(quote_identifier(name) for name, _ in self.columns)
        import pyarrow.parquet as pq

        schema = pq.read_schema(group[-1])
        return ", ".join(
            _json_sql(quote_identifier(name), schema.field(name).type) if name in self.structs else quote_identifier(name)
            for name, _ in self.columns
        )


def _list(files: Sequence[Path]) -> str:
    return ", ".join(quote_string(str(path)) for path in files)


def _json_sql(quoted: str, kind: pa.DataType) -> str:
    """A struct as JSON text.  JSON has no NaN and no infinity, which ``to_json`` writes all the same: they are null."""
    written = f"CAST(to_json({quoted}) AS VARCHAR)"
    finite = finite_sql(quoted, kind)
    if finite == quoted:
        return f"{written} AS {quoted}"
    odd = f"regexp_matches({written}, '[:\\[,]-?(NaN|Infinity)')"
    return f"CASE WHEN {odd} THEN CAST(to_json({finite}) AS VARCHAR) ELSE {written} END AS {quoted}"


def finite_sql(value: str, kind: pa.DataType, depth: int = 0) -> str:
    """A value with NULL for each number in it that is not finite; the text itself where there can be none."""
    import pyarrow as pa

    if pa.types.is_floating(kind):
        return f"CASE WHEN isfinite({value}) THEN {value} END"
    if pa.types.is_struct(kind):
        names = [quote_identifier(field.name) for field in kind]
        parts = [finite_sql(f"{value}.{name}", field.type, depth) for name, field in zip(names, kind, strict=True)]
        if all(part == f"{value}.{name}" for name, part in zip(names, parts, strict=True)):
            return value
        return f"struct_pack({', '.join(f'{name} := {part}' for name, part in zip(names, parts, strict=True))})"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        item = f"item{depth}"
        inner = finite_sql(item, kind.value_type, depth + 1)
        return value if inner == item else f"list_transform({value}, lambda {item}: {inner})"
    return value


def log_relations(home: Home, write: Callable[[], None] = lambda: None) -> tuple[FileRelation, ...]:
    """The relations ``predictions`` and ``feedback`` of a home; ``write`` lets the server write what it still holds of them."""

    def predictions() -> list[list[Path]]:
        write()
        return list(prediction_files(home).values())

    def feedback() -> list[list[Path]]:
        write()
        return [files] if (files := feedback_files(home)) else []

    return (
        FileRelation("predictions", PREDICTIONS, predictions, _STRUCTS),
        FileRelation("feedback", FEEDBACK, feedback),
    )
