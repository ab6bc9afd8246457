"""The column to learn: what its values are, which classes there are, and how each is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as t

from sqlml.errors import TrainingDataError, listing
from sqlml.features.dataset import Values
from sqlml.types import label_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SHOWN_OF = 10_000
"""An error shows different values of so many rows at most."""


def plain_target(values: Values) -> Values | None:
    """Target values as string, bool, int64 or float64 with NaN as NULL and -0.0 as 0.0; None for dates, times and the rest."""
    if isinstance(values.type, pa.DictionaryType):
        values = pc.cast(values, values.type.value_type)
    kind = values.type
    if t.is_boolean(kind) or t.is_string(kind):
        return values
    if t.is_large_string(kind) or t.is_string_view(kind):
        return pc.cast(values, pa.string())
    if t.is_integer(kind) or (t.is_decimal(kind) and kind.scale == 0):
        try:
            return pc.cast(values, pa.int64())
        except pa.ArrowInvalid:  # beyond 64 bits
            return pc.cast(values, pa.float64(), safe=False)
    if t.is_floating(kind) or t.is_decimal(kind) or t.is_null(kind):
        values = pc.cast(values, pa.float64(), safe=False)
        return pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), pc.add(values, 0.0))
    return None


def find_classes(values: Values) -> tuple[Any, ...]:
    """The different values, ascending: str, bool, int or float."""
    return tuple(sorted(pc.unique(pc.drop_null(values)).to_pylist()))


def label_type(classes: Sequence[Any]) -> pa.DataType:
    """The Arrow type of predicted classes."""
    for python, arrow in ((bool, pa.bool_()), (int, pa.int64()), (float, pa.float64())):
        if classes and all(type(value) is python for value in classes):
            return arrow
    return pa.string()


def encode_classes(values: Values, classes: Sequence[Any]) -> NDArray[np.int64]:
    """Each value's place in ``classes``; -1 for NULL and for a value that is not there.

    ``values`` may have another type than the classes (``1`` for ``1.0``, text for a number): they are compared as the
    classes' type, or as text where that cannot be.
    """
    want = label_type(classes)
    if isinstance(values.type, pa.DictionaryType):
        values = pc.cast(values, values.type.value_type)
    try:
        plain = pc.cast(values, want)
        if pa.types.is_floating(want):
            plain = pc.add(plain, 0.0)  # -0.0 is 0.0
        codes = pc.index_in(plain, value_set=pa.array(classes, want))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        words = pa.array([label_text(value) for value in classes], pa.string())
        codes = pc.index_in(pc.cast(values, pa.string()), value_set=words)
    return np.asarray(pc.fill_null(codes, -1).to_numpy(zero_copy_only=False), np.int64)


def shown(value: Any) -> str:
    """A class in a message: as ``label_text`` has it, in quotes where it could not be seen."""
    text = label_text(value)
    return text if text and text == text.strip() else f"'{text}'"


def nothing_to_measure(target: str, values: Values, classes: Sequence[Any], of: str = "") -> TrainingDataError:
    """The error for rows none of which has a target to measure a model against; ``of`` says whose rows they are."""
    lead = f"the only row{of} does not have" if len(values) == 1 else f"none of the {len(values):,} rows{of} has"
    article = "an" if target[:1].lower() in tuple("aeiou") else "a"
    wanted = f"that the model knows: {listing(map(shown, classes), 20)}" if classes else "that is a finite number"
    found = pc.cast(pc.unique(values[:_SHOWN_OF]), pa.string()).to_pylist()
    words = listing("NULL" if value is None else shown(value) for value in found)
    return TrainingDataError(f"{lead} {article} {target} {wanted}", hint=f"found: {words}")
