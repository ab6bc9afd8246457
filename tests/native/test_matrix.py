"""Columns as the rows of a matrix: what C writes is what NumPy writes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sqlml.features.column_code import CODES
from sqlml.features.encode import FeatureEncoder
from sqlml.native import matrix
from sqlml.native.library import library
from sqlml.native.matrix import write_rows
from sqlml.plan import InputColumn
from sqlml.types import SQL_TYPE, Kind

LARGEST = np.finfo(np.float32).max
SHORT = np.array([np.inf, -np.inf, np.nan, 1e-45, -0.0, 16_777_216.0, LARGEST], np.float32)
ENDS = [np.inf, -np.inf, np.nan, 1e300, -1e300, 1e-310, -0.0, 16_777_217.0, 0.1]


@pytest.mark.parametrize("m", [0, 1, 63, 64, 65, 1000])
def test_rows_go_to_their_places(m: int) -> None:
    random = np.random.default_rng(m)
    columns: list[Any] = [random.standard_normal(m), random.standard_normal(m).astype(np.float32), np.resize(ENDS, m)]
    columns += [np.resize(SHORT, m), np.arange(2 * m, dtype=np.float64)[::2]]
    places = random.permutation(2 * m)[:m].astype(np.int32)
    places[::7] = -1
    out = np.full((2 * m, 5), 7, np.float32)
    wanted = out.copy()
    named = places >= 0
    with np.errstate(over="ignore"):
        rows = np.column_stack([np.clip(np.asarray(c, np.float64), -LARGEST, LARGEST) for c in columns]).astype(np.float32)
    wanted[places[named]] = rows[named]
    assert write_rows(columns, places, out) is (library() is not None)
    if library() is not None:
        assert np.array_equal(out, wanted, equal_nan=True)
        assert np.array_equal(np.signbit(out), np.signbit(wanted))


@pytest.mark.skipif(library() is None, reason="the native loops were not built")
def test_places_that_are_not_there_are_refused() -> None:
    out = np.zeros((3, 1), np.float32)
    for places in ([3], [-2]):
        with pytest.raises(ValueError, match="of a matrix of 3"):
            write_rows([np.ones(1)], np.array(places), out)
    with pytest.raises(ValueError, match="do not fit"):
        write_rows([np.ones(1)] * 2, np.array([0]), out)
    assert not out.any()


def test_an_encoder_writes_the_same_with_and_without_c(monkeypatch: pytest.MonkeyPatch) -> None:
    words = pa.chunked_array([["a", None, "b"], ["c", "a", "never seen"]])
    columns = {
        "n": (
            Kind.NUMBER,
            pa.chunked_array([pa.array([1, None, np.nan], pa.float64()), pa.array([np.inf, -1e300, 2], pa.float64())]),
        ),
        "f": (Kind.NUMBER, pa.array([1.5, None, np.nan, np.inf, 2, 3], pa.float32())),
        "w": (Kind.TEXT, words),
        "b": (Kind.BOOLEAN, pa.array([True, False, None, True, True, False])),
        "same": (Kind.NUMBER, pa.array([1.0] * 6)),
        "d": (Kind.DATE, pa.array([0, 1, None, 400, 800, -9], pa.int32()).cast(pa.date32())),
    }
    inputs = [InputColumn(name, SQL_TYPE[kind], kind) for name, (kind, _) in columns.items()]
    values = {name: column for name, (_, column) in columns.items()}
    encoder = FeatureEncoder.fit(inputs, values.__getitem__, np.arange(5), CODES, 10)
    places = np.array([4, -1, 0, 2, 1, 3])
    found = []
    for native in (library(), None):
        monkeypatch.setattr(matrix, "library", lambda native=native: native)
        out = np.zeros((5, len(encoder.names)), np.float32)
        encoder.scatter(values, places, out)
        found.append(out)
    assert np.array_equal(found[0], found[1], equal_nan=True)
    assert np.array_equal(found[1][places[[0, 2, 3, 4, 5]]], encoder.transform(values, 6)[[0, 2, 3, 4, 5]], equal_nan=True)
