"""The driver's values as ours: numerics from their texts, infinite dates, JSON and UUIDs without their wrapping."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlml.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_DAYS = (-2147472692, -2147472691, 2**31 - 1, -3_000_000)
_MICROSECONDS = (-9222425352054775809, -9222425352054775808, 2**63 - 1, -220_000_000_000_000_000)
"""What the driver makes of infinity and -infinity (it adds 30 years to the largest and the smallest number, and wraps), the
number that we give, and one below all that are real: PostgreSQL's time begins in 4713 BC."""


def plain(array: pa.Array, name: str) -> pa.Array:
    """The storage of an extension type."""
    return getattr(array, "storage", array)


def convert_number(array: pa.Array, name: str) -> pa.Array:
    """The texts of numerics as doubles; ``nan``, ``inf`` and ``-inf`` too."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.cast(plain(array, name), pa.float64())


def convert_decimal(precision: int, scale: int) -> Callable[[pa.Array, str], pa.Array]:
    """The texts of numerics as exact decimals.  ``DataError`` where one is NaN, which no decimal is."""

    def convert(array: pa.Array, name: str) -> pa.Array:
        import pyarrow as pa
        import pyarrow.compute as pc

        try:
            return pc.cast(plain(array, name), pa.decimal128(precision, scale))
        except pa.ArrowInvalid:
            raise DataError(
                f"column {name} has the numeric value NaN, which no decimal has",
                hint=f"cast it: {name}::double precision, or leave it out: nullif({name}, 'NaN')",
            ) from None

    return convert


def convert_dates(array: pa.Array, name: str) -> pa.Array:
    """Infinite dates and timestamps as DuckDB has them: the largest number, and its negative."""
    import pyarrow as pa
    import pyarrow.compute as pc

    number = pa.int32() if pa.types.is_date(array.type) else pa.int64()
    plus, minus, most, least = _DAYS if pa.types.is_date(array.type) else _MICROSECONDS
    values = array.view(number)
    smallest = pc.min(values).as_py()
    if smallest is None or smallest > least:
        return array
    wrapped = pc.less(values, pa.scalar(least, number))
    known = pc.is_in(values, value_set=pa.array([plus, minus], number))
    if pc.any(pc.and_not(wrapped, known)).as_py():
        raise DataError(
            f"column {name} has a time after the year 294246, which Arrow cannot hold",
            hint=f"leave it out, or cast it: {name}::text",
        )
    found = pc.if_else(pc.equal(values, pa.scalar(plus, number)), pa.scalar(most, number), values)
    found = pc.if_else(pc.equal(values, pa.scalar(minus, number)), pa.scalar(-most, number), found)
    return found.view(array.type)


def in_lists(convert: Callable[[pa.Array, str], pa.Array]) -> Callable[[pa.Array, str], pa.Array]:
    """The same for the elements of lists."""

    def convert_lists(array: pa.Array, name: str) -> pa.Array:
        import pyarrow as pa

        mask = array.is_null() if array.null_count else None
        return pa.ListArray.from_arrays(array.offsets, convert(array.values, name), mask=mask)

    return convert_lists
