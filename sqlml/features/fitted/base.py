"""What every function of TRANSFORM is made of, and the Arrow and numpy handiwork that they share.

arguments → options (constants) and one value column → state (JSON) → a function from column to column
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from numpy.typing import NDArray

Options: TypeAlias = Mapping[str, Any]
State: TypeAlias = Mapping[str, Any]
Apply: TypeAlias = Callable[[pa.Array], pa.Array]

_FEW = 64
"""Up to so many values are looked up one by one: building Arrow's table of a vocabulary takes longer."""


class Takes(StrEnum):
    """What a function takes as its first argument; each is a type that values are cast to before they reach it."""

    NUMBER = "a number"
    TEXT = "a text"
    NUMBER_OR_TEXT = "a number or a text"
    NUMBERS = "a list of numbers"
    TEXTS = "a list of texts"
    NUMBER_FIELDS = "a STRUCT of numbers"
    TEXT_FIELDS = "a STRUCT of texts"


@dataclass(frozen=True)
class Parameter:
    """An argument that must be a constant.

    ``type`` is ``int``, ``float``, ``bool``, ``str``, ``floats`` (a list) or ``ints`` (a list, or one integer); ``choices``
    are the allowed words, ``low`` and ``high`` the ends of the allowed range.
    """

    name: str
    type: str
    default: Any = None
    required: bool = False
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None


class FittedFunction(Protocol):
    """A function of TRANSFORM.  Instances hold no state: what was learnt is a JSON value that every call is given.

    ``over``: it learns from all training rows and is written with OVER ().
    """

    name: str
    over: bool
    takes: Takes
    value: str  # BigQuery's name of the first argument
    parameters: tuple[Parameter, ...]

    def check(self, options: Options) -> None:
        """Raise ``ValueError`` for options that do not go together."""

    def result(self, options: Options, fields: Sequence[str], given: pa.DataType) -> str:
        """The SQL type of the result; ``fields`` are those of a STRUCT, ``given`` the Arrow type of the values."""

    def fit(self, values: pa.Array, options: Options) -> State:
        """What is learnt from the training rows: JSON values, floats exact."""

    def bind(self, options: Options, state: State) -> Apply:
        """The function from values to results, of any number of rows; safe to use from many threads."""

    def describe(self, options: Options, state: State) -> str:
        """One line for people; empty where nothing was learnt."""

    def features(self, options: Options, state: State) -> tuple[str, ...]:
        """The names of a vector's positions; empty for everything else."""


class Scalar:
    """What functions without memory have in common."""

    over = False

    def check(self, options: Options) -> None:
        return None

    def fit(self, values: pa.Array, options: Options) -> State:
        return {}

    def describe(self, options: Options, state: State) -> str:
        return ""

    def features(self, options: Options, state: State) -> tuple[str, ...]:
        return ()


class Analytic:
    """What functions that learn from the training rows have in common."""

    over = True

    def check(self, options: Options) -> None:
        return None

    def features(self, options: Options, state: State) -> tuple[str, ...]:
        return ()


# --- numbers ----------------------------------------------------------------------------------------------------------


def floats(values: pa.Array) -> NDArray[np.float64]:
    """Arrow numbers as float64 (n,), NaN for NULL."""
    return np.asarray(values.to_numpy(zero_copy_only=False), np.float64)


def numbers(values: NDArray[Any]) -> pa.Array:
    """float64 (n,) as Arrow numbers, NULL for NaN."""
    return pa.array(np.asarray(values, np.float64), from_pandas=True)


def finite(values: pa.Array) -> NDArray[np.float64]:
    """The values to learn from: neither NULL nor NaN nor infinite; beyond 1e150 as 1e150, so that squares are numbers too."""
    known = floats(values)
    return np.clip(known[np.isfinite(known)], -1e150, 1e150)


def quantiles(known: NDArray[np.float64], shares: Sequence[float]) -> list[float]:
    """Quantiles that are values of the data (the inverse of the distribution function), as APPROX_QUANTILES gives them.

    The examples of BigQuery's ML.ROBUST_SCALER and ML.QUANTILE_BUCKETIZE come out as printed; interpolated ones would not.
    """
    return [float(value) for value in np.quantile(known, shares, method="inverted_cdf")]


def shown(value: float | None) -> str:
    """A number in a line for people."""
    return "NULL" if value is None else f"{value:.4g}"


# --- texts and vectors ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Vocabulary:
    """Words, and the place of each."""

    words: pa.Array
    places: Mapping[str, int]

    @classmethod
    def of(cls, words: Sequence[str]) -> Vocabulary:
        return cls(pa.array(words, pa.string()), {word: i for i, word in enumerate(words)})

    def find(self, values: pa.Array) -> NDArray[np.int64]:
        """The place of each text; -1 for NULL and for words that are not there."""
        if len(values) <= _FEW:
            places = self.places
            return np.array([places.get(value, -1) for value in values.to_pylist()], np.int64)
        return np.asarray(pc.fill_null(pc.index_in(values, value_set=self.words), -1).to_numpy(zero_copy_only=False), np.int64)


def word_counts(values: pa.Array) -> list[tuple[str, int]]:
    """Each different text that is not NULL, and how often it occurs."""
    counted = pc.value_counts(pc.drop_null(values))
    return list(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True))


def most_frequent(counts: Sequence[tuple[str, int]], top_k: int, least: int) -> tuple[str, ...]:
    """The ``top_k`` most frequent of the words that occur ``least`` times or more, in the order of the alphabet.

    Equally frequent ones are taken in that order too, as BigQuery's example of ML.LABEL_ENCODER has it.
    """
    ranked = sorted((-count, word) for word, count in counts if count >= least)
    return tuple(sorted(word for _, word in ranked[:top_k]))


def flat_list(values: pa.Array) -> tuple[pa.Array, NDArray[np.int64], NDArray[np.bool_]]:
    """A list column as its elements, their rows (elements,), and which rows are NULL (n,)."""
    absent = values.is_null().to_numpy(zero_copy_only=False)
    lengths = np.asarray(pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False), np.int64)
    return values.flatten(), np.repeat(np.arange(len(values)), lengths), absent


def vectors(matrix: NDArray[np.float64], absent: NDArray[np.bool_] | None = None) -> pa.Array:
    """(n, k) as lists of numbers, NULL where ``absent`` (n,)."""
    n, k = matrix.shape
    offsets = pa.array(np.arange(n + 1, dtype=np.int32) * k, pa.int32())
    mask = pa.array(absent) if absent is not None and absent.any() else None
    return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(matrix).ravel()), mask=mask)


def field_arrays(values: pa.Array) -> list[tuple[str, pa.Array]]:
    """The fields of a STRUCT column, NULL where the whole is NULL."""
    return [(field.name, array) for field, array in zip(values.type, values.flatten(), strict=True)]


def struct_type(names: Sequence[str], sql: str) -> str:
    """The SQL type of a STRUCT all of whose fields have one type."""
    return f"STRUCT({', '.join(quoted(name) + ' ' + sql for name in names)})"


def quoted(name: str) -> str:
    """A name between double quotes."""
    return '"' + name.replace('"', '""') + '"'
