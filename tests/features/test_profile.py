"""Notices: what is pointed out, in which words, and what is not."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sqlml.features.dataset import read_dataset
from sqlml.features.profile import profile_notices, sql_name
from sqlml.plan import InputColumn
from sqlml.types import SQL_TYPE, Task
from tests.jobs import write_arrow

N = 1000
RANDOM = np.random.default_rng(0)
Y = RANDOM.integers(0, 2, N)
NOISE = RANDOM.normal(size=N)


def notices(folder: Path, table: Mapping[str, object], y: np.ndarray = Y, task: Task = Task.CLASSIFICATION) -> list[str]:
    write_arrow(folder / "t.arrow", pa.table(table))
    data = read_dataset(folder / "t.arrow", dict.fromkeys(table))
    inputs = [InputColumn(name, SQL_TYPE[kind], kind) for name, kind in data.kinds.items()]
    return profile_notices(data, inputs, "y", np.arange(N), y, task)


def test_nothing_to_say(tmp_path: Path) -> None:
    table = {
        "x": NOISE,
        "price": RANDOM.integers(0, 10**9, N),
        "word": RANDOM.choice(["a", "b"], N),
        "zip": np.char.mod("%05d", RANDOM.integers(0, 300, N)),
        "weak": Y + NOISE,
    }
    assert notices(tmp_path, table) == []
    assert notices(tmp_path, {"x": NOISE, "z": Y}, NOISE + RANDOM.normal(size=N), Task.REGRESSION) == []


def test_numbers_as_text(tmp_path: Path) -> None:
    charges = np.char.mod("%.2f", np.abs(NOISE) * 100).astype(object)
    charges[:2] = " "
    assert notices(tmp_path, {"TotalCharges": pa.array(charges.tolist())}) == [
        "TotalCharges is text, but 99.8 % of its values are numbers (the rest: ' '): "
        "TRY_CAST(TotalCharges AS DOUBLE) would make it a number"
    ]


def test_blanks(tmp_path: Path) -> None:
    words = RANDOM.choice([" State-gov", " Private", "?"], N)
    found = notices(tmp_path, {"work class": words})
    assert len(found) == 1
    assert found[0].startswith("values of work class begin or end with blanks (' ")
    assert found[0].endswith('): trim("work class") takes them off')


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("number", RANDOM.permutation(N), "a different whole number in every row"),
        ("customer_id", RANDOM.choice(10**9, N, replace=False), "a different whole number in every row"),
        ("stamp", np.cumsum(RANDOM.integers(1, 10**6, N)), "a different whole number in every row"),
        ("key", [str(uuid.UUID(int=i)) for i in range(N)], "a different text in every row"),
    ],
)
def test_identifiers(tmp_path: Path, name: str, values: object, why: str) -> None:
    assert notices(tmp_path, {name: values}) == [f"{name} looks like a row identifier ({why}): EXCLUDE ({name})"]


@pytest.mark.parametrize(
    "values",
    [
        Y + NOISE * 0.01,
        np.where(Y == 1, "gone", "here"),
        pa.array([7 if v else None for v in Y]),
        pa.array([None if v else 19000 + i % 90 for i, v in enumerate(Y)], pa.int32()).cast(pa.date32()),
    ],
)
def test_answers_for_classes(tmp_path: Path, values: object) -> None:
    found = notices(tmp_path, {"x": NOISE, "left": values})
    assert len(found) == 1
    assert found[0].startswith("left alone tells y almost perfectly (AUC ")
    assert found[0].endswith("EXCLUDE (left) if it is not known at prediction time")


def test_answers_for_numbers(tmp_path: Path) -> None:
    y = RANDOM.exponential(size=N)
    assert "R²" in notices(tmp_path, {"x": NOISE, "copy": y * 3 + 1}, y, Task.REGRESSION)[0]
    parts = {"a b": NOISE, "b": y, "c": RANDOM.normal(size=N)}
    assert notices(tmp_path, parts, NOISE + y, Task.REGRESSION) == [
        'y is exactly a weighted sum of a b, b: EXCLUDE ("a b", b) if they are not known at prediction time'
    ]


def test_unused(tmp_path: Path) -> None:
    found = notices(tmp_path, {"x": NOISE, "one": np.ones(N), "word": ["w"] * N, "null": pa.nulls(N), "nan": np.full(N, np.nan)})
    assert found == ["null, nan are NULL in every row and not used", "one, word have one value only and are not used"]


def test_of_lists_there_is_nothing_to_say(tmp_path: Path) -> None:
    lists = {"v": pa.array([[float(v), 1.0] for v in Y]), "s": pa.array([["x"]] * N), "null": pa.nulls(N, pa.list_(pa.string()))}
    assert notices(tmp_path, {"x": NOISE, **lists}) == []


def test_names_in_sql() -> None:
    assert [sql_name(n) for n in ("a_1", "two words", 'q"', "é")] == ["a_1", '"two words"', '"q"""', '"é"']
