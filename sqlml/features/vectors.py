"""Lists as features: vectors of numbers, one feature for each position, and sets of texts, one 0/1 feature for each category.

Wide vectors (thousands of words) are read in blocks of rows, so that what is held beside the feature matrix stays small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.errors import BindError, TrainingDataError, count_of
from sqlml.features.dataset import Values, take

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK = 1 << 19
"""Numbers that a block holds at most."""
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class VectorFit:
    """What is learnt of a vector: its length, and of each position whether it varies, its mean and its deviation."""

    width: int
    varies: NDArray[np.bool_]
    means: NDArray[np.float64]
    deviations: NDArray[np.float64]
    missing: bool  # NULL, or NULL at a position, in some row
    known: int  # rows that are not NULL


def fit_vector(name: str, values: Values, rows: NDArray[np.int64]) -> VectorFit:
    """Learn from the rows numbered ``rows`` of a column of lists.  ``TrainingDataError`` for lists of several lengths."""
    lengths = take(pc.list_value_length(values), rows).drop_null()
    found = sorted(pc.unique(lengths).to_pylist())
    if len(found) > 1:
        raise TrainingDataError(
            f"{name} has lists of {found[0]:,} and of {found[-1]:,} numbers: as a feature a list must have one length",
            hint=f"take what all rows have ({name}[1:{max(found[0], 1)}]), or numbers of it: list_sum({name}), len({name})",
        )
    width = found[0] if found else 0
    missing = len(lengths) < len(rows)
    if not width:
        return VectorFit(0, np.zeros(0, bool), np.zeros(0), np.zeros(0), missing, len(lengths))
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    total, count, squares = np.zeros(width), np.zeros(width), np.zeros(width)
    for _, block in vector_blocks(name, values, rows, width):
        np.fmin(low, np.fmin.reduce(block, axis=0), out=low)
        np.fmax(high, np.fmax.reduce(block, axis=0), out=high)
        unknown = np.isnan(block)
        count += len(block) - unknown.sum(0)
        block[unknown] = 0.0
        total += block.sum(0)
    missing = missing or bool((count < len(lengths)).any())
    means = total / np.maximum(count, 1)
    for _, block in vector_blocks(name, values, rows, width):
        block -= means
        block[np.isnan(block)] = 0.0
        squares += np.einsum("ij,ij->j", block, block)
    return VectorFit(width, low < high, means, np.sqrt(squares / np.maximum(count, 1)), missing, len(lengths))


def vector_blocks(
    name: str, values: Values, rows: NDArray[np.int64] | None, width: int
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """A column of lists as matrices (rows of the block, width) to write into, NaN for NULL, each with its place among ``rows``.

    ``BindError`` names the column where a list has another length.
    """
    whole = _whole(values)
    wanted = np.arange(len(whole)) if rows is None else rows
    lengths = pc.fill_null(pc.list_value_length(whole), width).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(lengths[wanted] != width)
    if len(wrong):
        found = count_of(int(lengths[wanted[wrong[0]]]), "number")
        raise BindError(f"{name} has {found} in a row, and the model was trained with {count_of(width, 'number')}")
    flat = np.asarray(whole.flatten().to_numpy(zero_copy_only=False), np.float64)
    known = whole.is_valid().to_numpy(zero_copy_only=False)
    starts = np.cumsum(np.where(known, lengths, 0)) - lengths  # rows that are not wanted may have other lengths
    regular = len(flat) == width * int(known.sum())
    step = max(1, _BLOCK // max(width, 1))
    for start in range(0, len(wanted), step):
        place = slice(start, min(start + step, len(wanted)))
        part = wanted[place]
        at = np.where(known[part], starts[part], 0)
        if not known[part].any():
            block = np.full((len(part), width), np.nan)
        elif regular:
            block = flat.reshape(-1, width)[at // width]
        else:
            block = flat[at[:, None] + np.arange(width)]
        np.clip(block, -_LARGEST, _LARGEST, out=block)
        block[~known[part]] = np.nan
        yield place, block


@dataclass(frozen=True)
class SetFit:
    """What is learnt of sets: the categories kept, most frequent first, and how many there are besides."""

    categories: tuple[str, ...]
    others: int
    missing: bool
    known: int


def fit_set(values: Values, rows: NDArray[np.int64], max_categories: int) -> SetFit:
    """The categories that most of the rows numbered ``rows`` have, those left out that every row has."""
    taken = _whole(take(values, rows))
    known = len(taken) - taken.null_count
    flat, of_row = flat_elements(taken)
    coded = pc.dictionary_encode(flat)
    codes = np.asarray(pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False), np.int64)
    size = max(len(coded.dictionary), 1)
    once = np.unique(of_row[codes >= 0] * size + codes[codes >= 0])
    counts = np.bincount(once % size, minlength=size)
    words = coded.dictionary.to_pylist()
    constant = taken.null_count == 0
    ranked = sorted(
        (-int(counts[i]), word) for i, word in enumerate(words) if counts[i] and not (constant and counts[i] == known)
    )
    kept = tuple(word for _, word in ranked[:max_categories])
    return SetFit(kept, len(ranked) - len(kept), not constant, known)


def write_set(values: Values, rows: NDArray[np.int64] | None, categories: pa.Array, out: NDArray[np.float32]) -> None:
    """Write 1 where a row has a category, else 0, into (n, categories); NaN where the row is NULL."""
    taken = _whole(values if rows is None else take(values, rows))
    flat, of_row = flat_elements(taken)
    codes = np.asarray(pc.fill_null(pc.index_in(flat, value_set=categories), -1).to_numpy(zero_copy_only=False), np.int64)
    out[:] = 0
    out[of_row[codes >= 0], codes[codes >= 0]] = 1
    if taken.null_count:
        out[taken.is_null().to_numpy(zero_copy_only=False)] = np.nan


def flat_elements(values: pa.Array) -> tuple[pa.Array, NDArray[np.int64]]:
    """The elements of lists, and the row of each."""
    lengths = np.asarray(pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False), np.int64)
    return values.flatten(), np.repeat(np.arange(len(values)), lengths)


def position_names(name: str, labels: Sequence[str], positions: Sequence[str]) -> list[str]:
    """The features of a vector: ``words: free`` where positions have names, else ``v[3]`` as SQL counts."""
    if labels:
        return [f"{name}: {label}" for label in labels]
    return [f"{name}[{int(position) + 1}]" for position in positions]


def _whole(values: Values) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    combined = values.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)
