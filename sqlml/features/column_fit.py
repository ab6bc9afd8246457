"""What an input's training rows say of it: its categories, its means, whether it varies at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.features.column_code import CODES, DENSE, PARTS, ColumnCode, read_parts
from sqlml.features.dataset import Values, take
from sqlml.features.vectors import fit_set, fit_vector
from sqlml.plan import InputColumn
from sqlml.types import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GLANCE = 1_000
"""Of so many rows most columns show that they vary."""


def fit_column(
    column: InputColumn,
    values: Values,
    rows: NDArray[np.int64],
    encoding: str,
    max_categories: int,
    names: Sequence[str],
) -> ColumnCode:
    """An input's code, learnt from the rows numbered ``rows``; ``names`` of a vector's positions, where they have any."""
    if column.kind is Kind.TEXT:
        return _fit_text(column, values, rows, max_categories)
    if column.kind is Kind.TEXTS:
        return _fit_texts(column, values, rows, max_categories)
    if column.kind is Kind.NUMBERS:
        return _fit_numbers(column, values, rows, encoding, names)
    if column.kind is Kind.NUMBER and encoding == CODES and _is_plain(values, rows):
        return ColumnCode(column.name, column.kind, PARTS[Kind.NUMBER])
    parts = PARTS[column.kind]
    read = read_parts(values, column.kind, parts)
    if encoding != CODES or len(rows) < len(values):
        read = [part[rows] for part in read]
    absent = np.isnan(read[0])
    if absent.all():
        return ColumnCode(column.name, column.kind, (), note="not used: every training row is NULL")
    varies = [bool(np.fmin.reduce(part) < np.fmax.reduce(part)) for part in read]
    if not any(varies):
        if not absent.any():
            return ColumnCode(column.name, column.kind, (), note="not used: one value only in the training rows")
        varies[0] = True  # that it is missing is all there is to learn
    useful = [(part, value) for part, value, varied in zip(parts, read, varies, strict=True) if varied]
    code = ColumnCode(column.name, column.kind, tuple(part for part, _ in useful), bool(absent.any()))
    if encoding == CODES:
        return code
    kept = [(part, value[~absent]) for part, value in useful]
    means = tuple(float(value.mean()) for _, value in kept)
    scales = tuple(float(value.std()) or 1.0 for _, value in kept)
    return ColumnCode(code.name, code.kind, code.parts, code.missing, means=means, scales=scales)


def _is_plain(values: Values, rows: NDArray[np.int64]) -> bool:
    """Whether numbers have no NULL and no NaN at all, and vary among some of the first rows."""
    if values.null_count or not len(rows):
        return False
    some = read_parts(take(values, rows[:_GLANCE]), Kind.NUMBER, ("value",))[0]
    pieces = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    known = not any(
        np.isnan(np.min(piece.to_numpy(), initial=np.inf)) for piece in pieces
    )  # NaN is the least of any that has one
    return known and bool(some.min() < some.max())


def _fit_numbers(column: InputColumn, values: Values, rows: NDArray[np.int64], encoding: str, names: Sequence[str]) -> ColumnCode:
    """Every position of a vector that varies; the first, where all there is to learn is that it is missing."""
    fit = fit_vector(column.name, values, rows)
    if not fit.known:
        return ColumnCode(column.name, column.kind, (), note="not used: every training row is NULL")
    if not fit.width:
        return ColumnCode(column.name, column.kind, (), note="not used: its lists are empty")
    kept = np.flatnonzero(fit.varies)
    if not len(kept):
        if not fit.missing:
            return ColumnCode(column.name, column.kind, (), note="not used: one value only in the training rows")
        kept = np.zeros(1, np.intp)
    dense = encoding == DENSE
    return ColumnCode(
        column.name,
        column.kind,
        tuple(str(i) for i in kept),
        fit.missing,
        means=tuple(fit.means[kept].tolist()) if dense else (),
        scales=tuple(np.where(fit.deviations[kept] > 0, fit.deviations[kept], 1.0).tolist()) if dense else (),
        width=fit.width,
        labels=tuple(names[int(i)] for i in kept) if len(names) == fit.width else (),
    )


def _fit_texts(column: InputColumn, values: Values, rows: NDArray[np.int64], max_categories: int) -> ColumnCode:
    """The categories that most lists have, at most ``max_categories``."""
    fit = fit_set(values, rows, max_categories)
    if not fit.known:
        return ColumnCode(column.name, column.kind, (), note="not used: every training row is NULL")
    if not fit.categories:
        return ColumnCode(column.name, column.kind, (), note="not used: one value only in the training rows")
    return ColumnCode(column.name, column.kind, ("set",), fit.missing, fit.categories, fit.others)


def _fit_text(column: InputColumn, values: Values, rows: NDArray[np.int64], max_categories: int) -> ColumnCode:
    """The most frequent values, at most ``max_categories``; equally frequent ones in the order of their text."""
    words, counts, absent = count_values(values, rows)
    if not words:
        return ColumnCode(column.name, column.kind, (), note="not used: every training row is NULL")
    if len(words) == 1 and not absent:
        return ColumnCode(column.name, column.kind, (), note="not used: one value only in the training rows")
    ranked = sorted(range(len(words)), key=lambda i: (-counts[i], words[i]))
    kept = tuple(words[i] for i in ranked[:max_categories])
    others = len(words) - len(kept)
    return ColumnCode(column.name, column.kind, PARTS[Kind.TEXT], bool(absent or others), kept, others)


def count_values(values: Values, rows: NDArray[np.int64]) -> tuple[list[str], list[int], int]:
    """The distinct texts of some rows, how often each occurs, and the number of NULLs."""
    whole = values if isinstance(values, pa.Array) else values.combine_chunks()
    pieces = whole.chunks if isinstance(whole, pa.ChunkedArray) else [whole]
    encoded = pa.chunked_array([p.dictionary_encode() for p in pieces], pa.dictionary(pa.int32(), pa.string()))
    table = encoded.unify_dictionaries()
    words = table.chunk(0).dictionary if table.num_chunks else pa.array([], pa.string())
    codes = np.concatenate([pc.fill_null(c.indices, -1).to_numpy() for c in table.chunks] or [np.zeros(0, np.int32)])[rows]
    counts = np.bincount(codes[codes >= 0], minlength=len(words))
    seen = np.flatnonzero(counts)
    return words.take(pa.array(seen)).to_pylist(), counts[seen].tolist(), int((codes < 0).sum())
