"""The same row gives the same answer, alone and among others."""

from __future__ import annotations

import random

import pytest

from sqlml.native.library import library
from tests.serving.conftest import Place


@pytest.mark.skipif(
    library() is None, reason="without the native library few rows are ONNX Runtime's, which adds up in another order"
)
def test_a_row_alone_and_among_others_has_the_same_answer_to_the_last_digit(bank: Place) -> None:
    chance = random.Random(3)
    rows = [
        {
            "age": chance.choice([chance.randint(18, 90), chance.uniform(18, 90), None]),
            "job": chance.choice(["technician", "admin", "retired", "unheard of", None]),
            "own house": chance.choice([True, False, None]),
            "since": f"20{chance.randint(10, 24)}-0{chance.randint(1, 9)}-11",
        }
        for _ in range(300)
    ]
    status, whole = bank.call("/models/deposit/predict", {"rows": rows})
    assert status == 200
    for size in (1, 7):
        parts = [bank.call("/models/deposit/predict", {"rows": rows[i : i + size]})[1] for i in range(0, 300, size)]
        assert [row for part in parts for row in part["predictions"]] == whole["predictions"]
