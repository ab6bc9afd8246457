"""``numeric`` as Arrow: exact decimals, and the texts of those that are no decimals.

Binary form (src/backend/utils/adt/numeric.c, numeric_send): how many digits of base 10,000 there are, the weight of the first,
the sign, how many decimal places are shown; then the digits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.engines.postgres.cells import Cells, array_of
from sqlml.engines.postgres.forms import Form
from sqlml.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

OID = 1700
EXACT = 38  # digits of decimal128
FAST, FAST_SCALE = 18, 16  # digits, and those after the point, for which 64 bits are enough at every step

_HEAD = 8
_NEGATIVE, _NAN = 0x4000, 0xC000
_POWERS = 10 ** np.arange(FAST + 1, dtype=np.int64)
_NUMBER = np.dtype(">u8")


def digits_of(modifier: int) -> tuple[int, int]:
    """Precision and scale as decimal128 takes them, of a modifier that is not -1."""
    precision, scale = declared(modifier)
    if scale < 0:  # numeric(3, -2) rounds to hundreds: 5 digits, none after the point
        return precision - scale, 0
    return max(precision, scale), scale


def declared(modifier: int) -> tuple[int, int]:
    """Precision and scale as they were declared (numeric.c, make_numeric_typmod)."""
    packed = modifier - 4
    return (packed >> 16) & 0xFFFF, ((packed & 0x7FF) ^ 1024) - 1024


def decimals(precision: int, scale: int) -> Form:
    """The form of ``numeric(precision, scale)``, up to ``FAST`` digits."""
    return Form(pa.decimal128(precision, scale), partial(_decimals, precision, scale))


def _decimals(precision: int, scale: int, cells: Cells, name: str) -> pa.Array:
    head = cells.take(_NUMBER).astype(np.uint64)
    count = (head >> np.uint64(48)).astype(np.int64)
    weight = (head >> np.uint64(32)).astype(np.uint16).view(np.int16).astype(np.int64)
    sign = (head >> np.uint64(16)).astype(np.uint16)
    if cells.null is not None:
        count[cells.null] = sign[cells.null] = 0
    if (sign >= _NAN).any():
        raise no_decimal(name)
    total = _unscaled(cells, count, weight, scale)
    np.negative(total, out=total, where=sign == _NEGATIVE)
    halves = np.empty((len(cells), 2), np.int64)
    halves[:, 0], halves[:, 1] = total, total >> 63
    return array_of(pa.decimal128(precision, scale), halves, cells.null)


def _unscaled(cells: Cells, count: NDArray[np.int64], weight: NDArray[np.int64], scale: int) -> NDArray[np.int64]:
    """The numbers without their point: those before it and those after it summed apart, so that nothing overflows."""
    places = -(-scale // 4) * 4  # after the point, in whole digits of base 10,000
    whole, part = np.zeros(len(cells), np.int64), np.zeros(len(cells), np.int64)
    word = np.empty(0, np.uint64)
    for number in range(int(count.max(initial=0))):
        if number % 4 == 0:
            word = cells.take(_NUMBER, _HEAD + 2 * number).astype(np.uint64)
        digit = (word >> np.uint64(48 - 16 * (number % 4))).astype(np.uint16).astype(np.int64)
        digit[count <= number] = 0
        power = 4 * (weight - number)
        before = power >= 0
        digit *= _POWERS.take(np.where(before, power, power + places), mode="clip")  # beyond: where there is no digit
        whole += digit * before
        part += digit * ~before
    exact: NDArray[np.int64] = whole * _POWERS[scale] + part // _POWERS[places - scale]
    return exact


def no_decimal(name: str) -> DataError:
    """The error for a value that no decimal is."""
    return DataError(
        f"column {name} has the numeric value NaN, which no decimal has",
        hint=f"cast it: {name}::double precision, or leave it out: nullif({name}, 'NaN')",
    )


# --- numerics that the server gives as texts --------------------------------------------------------------------------


def slow_texts() -> Form:
    """The form of any numeric, one by one: for a statement in which nothing can be cast to text."""
    return Form(pa.string(), _slow_texts)


def _slow_texts(cells: Cells, name: str) -> pa.Array:
    from psycopg.types.numeric import NumericBinaryLoader

    load, texts = NumericBinaryLoader(OID).load, []
    for i in range(len(cells)):
        start = int(cells.starts[i])
        null = cells.null is not None and cells.null[i]
        texts.append(None if null else format(load(bytes(cells.buffer[start : start + int(cells.lengths[i])])), "f"))
    return pa.array(texts, pa.string())


def as_number(array: pa.Array, name: str) -> pa.Array:
    """Texts as doubles; ``NaN`` and infinities too."""
    return pc.cast(array, pa.float64())


def as_decimal(precision: int, scale: int) -> Callable[[pa.Array, str], pa.Array]:
    """Texts as exact decimals.  ``DataError`` where one is NaN."""

    def convert(array: pa.Array, name: str) -> pa.Array:
        try:
            return pc.cast(array, pa.decimal128(precision, scale))
        except pa.ArrowInvalid:
            raise no_decimal(name) from None

    return convert


def in_lists(array: pa.Array, name: str) -> pa.Array:
    """Lists of texts as lists of doubles."""
    return pc.cast(array, pa.list_(pa.float64()))
