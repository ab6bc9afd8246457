"""Columns to numbers: fitted on training rows, kept as JSON, applied again at every prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.features.column_code import CODES, LISTS, ColumnCode
from sqlml.features.column_fit import fit_column
from sqlml.features.dataset import Values, in_file_order
from sqlml.features.parallel import side_by_side
from sqlml.native.matrix import write_rows
from sqlml.plan import InputColumn
from sqlml.types import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray


class FeatureEncoder:
    """Fitted, immutable, safe to use from many threads.

    ``inputs`` are the input names, ``names`` and ``categorical`` describe the k features, ``input_of`` (k,) says which input each
    comes from; the features of an input stand side by side, inputs in order.
    """

    def __init__(self, columns: Sequence[ColumnCode], encoding: str) -> None:
        self.columns = tuple(columns)
        self.encoding = encoding
        features = [column.features(encoding) for column in self.columns]
        self.inputs = tuple(column.name for column in self.columns)
        self.names = tuple(name for group in features for name in group)
        self.categorical = tuple(
            encoding == CODES and column.kind is Kind.TEXT
            for column, group in zip(self.columns, features, strict=True)
            for _ in group
        )
        self.input_of = np.repeat(np.arange(len(features)), [len(group) for group in features]).astype(np.intp)
        ends = np.cumsum([len(group) for group in features], dtype=int) if features else np.zeros(0, int)
        self._spans = [(int(end) - len(group), int(end)) for end, group in zip(ends, features, strict=True)]

    @classmethod
    def fit(
        cls,
        inputs: Iterable[InputColumn],
        column: Callable[[str], Values],
        rows: NDArray[np.int64],
        encoding: str,
        max_categories: int,
        positions: Mapping[str, Sequence[str]] | None = None,
        threads: int = 1,
    ) -> FeatureEncoder:
        """Learn from the rows numbered ``rows`` of the canonical columns that ``column(name)`` gives (or ``narrow``).

        ``positions`` names the positions of vectors, by input.  ``TrainingDataError`` for vectors of several lengths.
        """
        named = positions or {}
        if encoding == CODES:
            rows = in_file_order(rows)  # codes do not depend on the order of the rows; means do, in their last digits

        def fitted(i: InputColumn) -> ColumnCode:
            return fit_column(i, column(i.name), rows, encoding, max_categories, named.get(i.name, ()))

        return cls(side_by_side(fitted, inputs, threads), encoding)

    def transform(self, columns: Mapping[str, Values], n: int) -> NDArray[np.float32]:
        """Canonical columns of n rows, by input name → float32 (n, k)."""
        out = self._matrix(n)
        for column, (start, end) in zip(self.columns, self._spans, strict=True):
            if start < end and column.kind in LISTS:
                column.write_list(columns[column.name], None, out[:, start:end], self.encoding)
            elif start < end:
                column.write(column.part_values(columns[column.name]), out[:, start:end], self.encoding)
        return out

    def scatter(self, columns: Mapping[str, Values], places: NDArray[Any], out: NDArray[np.float32]) -> None:
        """Canonical (or ``narrow``) columns of m rows to the rows ``places`` (m,) of ``out`` (·, k); -1: to none."""
        if self.encoding == CODES and not any(column.kind in LISTS for column in self.columns):
            parts = [part for column in self.columns for part in column.plain_parts(columns[column.name])]
            if write_rows(parts, places, out):
                return
        named = places >= 0
        rows = self.transform(columns, len(places))
        if named.all():
            out[places] = rows
        else:
            out[places[named]] = rows[named]

    def transform_rows(self, column: Callable[[str], Values], parts: Sequence[NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        """One matrix for each array of row numbers, column by column, so that no second copy of the table is made."""
        matrices = [self._matrix(len(rows)) for rows in parts]
        for code, (start, end) in zip(self.columns, self._spans, strict=True):
            if start < end and code.kind in LISTS:
                lists = column(code.name)
                for rows, out in zip(parts, matrices, strict=True):
                    code.write_list(lists, rows, out[:, start:end], self.encoding)
                continue
            values = code.part_values(column(code.name)) if start < end else []
            for rows, out in zip(parts, matrices, strict=True):
                code.write([value[rows] for value in values], out[:, start:end], self.encoding)
        return matrices

    def transform_batches(
        self, rows: Callable[[int, int], Mapping[str, Values]], n: int, size: int
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """All n rows in the order in which they came, ``size`` at a time: the number of the first, and their matrix.

        ``rows(start, length)`` gives the canonical columns of some rows.
        """
        for start in range(0, n, size):
            length = min(size, n - start)
            yield start, self.transform(rows(start, length), length)

    def _matrix(self, n: int) -> NDArray[np.float32]:
        return (np.empty if self.encoding == CODES else np.zeros)((n, len(self.names)), np.float32)

    def sum_to_inputs(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """(…, k) per feature → (…, inputs), summed over the features of each input; 0 for an input without features."""
        total = np.zeros((*values.shape[:-1], len(self.columns)))
        for i, (start, end) in enumerate(self._spans):
            total[..., i] = values[..., start:end].sum(-1)
        return total

    def describe(self) -> tuple[tuple[str, str], ...]:
        """For each input, what was done to it, in a line."""
        return tuple((column.name, column.describe(self.encoding)) for column in self.columns)

    def to_json(self) -> dict[str, Any]:
        """The whole state; floats survive exactly."""
        return {"encoding": self.encoding, "columns": [asdict(column) for column in self.columns]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> FeatureEncoder:
        """The inverse of ``to_json``, after a trip through JSON."""
        lists = ("parts", "categories", "means", "scales", "labels")  # the last is younger than the rest
        return cls(
            [
                ColumnCode(**{**column, **{name: tuple(column.get(name, ())) for name in lists}, "kind": Kind(column["kind"])})
                for column in document["columns"]
            ],
            document["encoding"],
        )
