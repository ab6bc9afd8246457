"""The feature matrix from Python values is the one from Arrow."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sqlml.features.column_code import CODES, DENSE
from sqlml.features.encode import FeatureEncoder
from sqlml.features.row_values import RowEncoder
from sqlml.plan import InputColumn
from sqlml.types import SQL_TYPE, Kind, arrow_type

_RANDOM = np.random.default_rng(5)
N = 120


def _values(kind: Kind) -> list[Any]:
    days = _RANDOM.integers(-9000, 20_000, N)
    moments = [
        datetime(1970, 1, 1) + timedelta(days=int(d), seconds=int(d) * 37 % 86400, microseconds=int(d) % 977) for d in days
    ]
    made: dict[Kind, list[Any]] = {
        Kind.NUMBER: list(_RANDOM.normal(size=N)),
        Kind.BOOLEAN: [bool(v) for v in _RANDOM.random(N) < 0.4],
        Kind.TEXT: [f"w{i % 5}" for i in range(N)],
        Kind.DATE: [moment.date() for moment in moments],
        Kind.TIME: [moment.time() for moment in moments],
        Kind.TIMESTAMP: list(moments),
        Kind.TIMESTAMPTZ: [moment.replace(tzinfo=timezone(timedelta(hours=5))) for moment in moments],
    }
    return [None if i % 11 == 3 else value for i, value in enumerate(made[kind])]


KINDS = (Kind.NUMBER, Kind.TEXT, Kind.DATE, Kind.BOOLEAN, Kind.TIME, Kind.NUMBER, Kind.TIMESTAMP, Kind.TEXT, Kind.TIMESTAMPTZ)
INPUTS = tuple(InputColumn(f"c{i}", SQL_TYPE[kind], kind) for i, kind in enumerate(KINDS))
COLUMNS = {i.name: _values(i.kind) for i in INPUTS}


def _encoder(inputs: tuple[InputColumn, ...], columns: dict[str, list[Any]], encoding: str) -> FeatureEncoder:
    arrays = _arrays(inputs, columns)
    return FeatureEncoder.fit(inputs, arrays.__getitem__, np.arange(len(columns[inputs[0].name])), encoding, 4)


def _arrays(inputs: tuple[InputColumn, ...], columns: dict[str, list[Any]]) -> dict[str, pa.Array]:
    return {i.name: pa.array(columns[i.name], arrow_type(i.kind)) for i in inputs}


@pytest.mark.parametrize("encoding", [CODES, DENSE])
@pytest.mark.parametrize("n", [0, 1, 7, N])
def test_every_kind_gives_the_same_matrix(encoding: str, n: int) -> None:
    encoder = _encoder(INPUTS, COLUMNS, encoding)
    names = [i.name for i in reversed(INPUTS)]
    rows = [tuple(COLUMNS[name][j] for name in names) for j in range(n)]
    expected = encoder.transform({name: array[:n] for name, array in _arrays(INPUTS, COLUMNS).items()}, n)
    np.testing.assert_array_equal(RowEncoder(encoder, names).matrix(rows), expected)


@pytest.mark.parametrize("encoding", [CODES, DENSE])
@pytest.mark.parametrize(
    "row",
    [
        (1e300, "never seen", date(1, 1, 1), True, time(23, 59, 59, 999999), -1e300, datetime(9999, 12, 31, 23, 59), None, None),
        (float("nan"), None, None, None, None, 2.0**70, None, "w1", datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (0, "", date(9999, 12, 31), False, time(0), None, datetime(1, 1, 1), "W1", datetime(2024, 2, 29, tzinfo=UTC)),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_values_at_the_rim(encoding: str, row: tuple[Any, ...]) -> None:
    encoder = _encoder(INPUTS, COLUMNS, encoding)
    arrays = {i.name: pa.array([value], arrow_type(i.kind)) for i, value in zip(INPUTS, row, strict=True)}
    found = RowEncoder(encoder, [i.name for i in INPUTS]).matrix([row])
    np.testing.assert_array_equal(found, encoder.transform(arrays, 1))


@pytest.mark.parametrize("encoding", [CODES, DENSE])
def test_inputs_that_give_no_feature_and_one_number_alone(encoding: str) -> None:
    inputs = (InputColumn("same", "DOUBLE", Kind.NUMBER), InputColumn("x", "DOUBLE", Kind.NUMBER))
    columns: dict[str, list[Any]] = {"same": [1.0, 1.0, 1.0], "x": [1.0, None, 3.0]}
    encoder = _encoder(inputs, columns, encoding)
    rows = list(zip(columns["same"], columns["x"], strict=True))
    np.testing.assert_array_equal(RowEncoder(encoder, ["same", "x"]).matrix(rows), encoder.transform(_arrays(inputs, columns), 3))


def test_numbers_alone_go_the_short_way() -> None:
    inputs = tuple(InputColumn(f"c{i}", "DOUBLE", Kind.NUMBER) for i in range(3))
    columns = {i.name: _values(Kind.NUMBER) for i in inputs}
    encoder = _encoder(inputs, columns, CODES)
    rows = list(zip(*columns.values(), strict=True))
    np.testing.assert_array_equal(RowEncoder(encoder, list(columns)).matrix(rows), encoder.transform(_arrays(inputs, columns), N))


def test_lists_are_not_taken() -> None:
    inputs = (InputColumn("v", "DOUBLE[]", Kind.NUMBERS),)
    encoder = _encoder(inputs, {"v": [[1.0], [2.0], [0.5]]}, CODES)
    assert not RowEncoder.takes(encoder)
    assert RowEncoder.takes(_encoder(INPUTS, COLUMNS, CODES))
