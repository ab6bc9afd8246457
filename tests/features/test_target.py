"""The column to learn: its classes, and what is said where there are none of them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from sqlml.features.target import encode_classes, find_classes, nothing_to_measure, plain_target, shown


def test_minus_zero_is_zero_as_it_is_in_sql() -> None:
    plain = plain_target(pa.array([0.0, -0.0, 0.5, float("nan")]))
    assert plain is not None
    classes = find_classes(plain)
    assert [str(value) for value in classes] == ["0.0", "0.5"]
    assert encode_classes(pa.array([-0.0, 0.0, 0.5, None]), classes).tolist() == [0, 0, 1, -1]


def test_whole_numbers_beyond_floats_stay_apart() -> None:
    plain = plain_target(pa.array([2**53, 2**53 + 1, None]))
    assert plain is not None
    classes = find_classes(plain)
    assert classes == (2**53, 2**53 + 1)
    assert encode_classes(plain, classes).tolist() == [0, 1, -1]


@pytest.mark.parametrize(("value", "text"), [("a", "a"), ("", "''"), (" a", "' a'"), ("🙂", "🙂"), (True, "true"), (3, "3")])
def test_labels_that_could_not_be_seen_stand_in_quotes(value: Any, text: str) -> None:
    assert shown(value) == text


MEASURED = [
    ("season", pa.array([7, 8] * 3), (1, 2), "", "none of the 6 rows has a season that the model knows: 1, 2\n  found: 7, 8"),
    ("age", pa.nulls(2), (1, 2), "", "none of the 2 rows has an age that the model knows: 1, 2\n  found: NULL"),
    ("y", pa.array([None], pa.bool_()), (False, True), "", "the only row does not have a y that the model knows: false, true"),
    ("y", pa.array(["", "🙂"]), ("a",), " of V", "none of the 2 rows of V has a y that the model knows: a\n  found: '', 🙂"),
    ("y", pa.array([float("inf")] * 2), (), "", "none of the 2 rows has a y that is a finite number\n  found: inf"),
    ("y", pa.array([[2**31 - 2]], pa.list_(pa.int32())).flatten().cast(pa.date32()), (1,), "", "the only row does not have a y"),
]


@pytest.mark.parametrize(("target", "values", "classes", "of", "message"), MEASURED)
def test_nothing_to_measure(target: str, values: pa.Array, classes: tuple[Any, ...], of: str, message: str) -> None:
    assert str(nothing_to_measure(target, values, classes, of)).startswith(message)
