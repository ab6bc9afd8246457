"""Encoding: every kind of column, what is missing, and that the state survives JSON."""

from __future__ import annotations

import datetime as dt
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlml.errors import BindError, TrainingDataError
from sqlml.features.dataset import canonical
from sqlml.features.encode import FeatureEncoder
from sqlml.plan import InputColumn
from sqlml.types import SQL_TYPE, Kind, kind_of_arrow


def fit(
    columns: dict[str, pa.Array],
    encoding: str = "codes",
    most: int = 1000,
    positions: dict[str, tuple[str, ...]] | None = None,
) -> tuple[FeatureEncoder, dict[str, pa.Array]]:
    kinds = {name: kind_of_arrow(values.type) or Kind.TEXT for name, values in columns.items()}
    ready = {name: canonical(values, kinds[name]) for name, values in columns.items()}
    inputs = [InputColumn(name, SQL_TYPE[kind], kind) for name, kind in kinds.items()]
    n = len(next(iter(columns.values())))
    encoder = FeatureEncoder.fit(inputs, ready.__getitem__, np.arange(n), encoding, most, positions)
    again = FeatureEncoder.from_json(json.loads(json.dumps(encoder.to_json())))
    assert again.columns == encoder.columns
    return again, ready


def encode(values: pa.Array, encoding: str = "codes", most: int = 1000) -> np.ndarray[Any, Any]:
    encoder, ready = fit({"c": values}, encoding, most)
    return encoder.transform(ready, len(values))


NAN = np.nan
BIG = float(np.finfo(np.float32).max)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([1, None, 3], pa.int64()), [[1], [NAN], [3]]),
        (pa.array([1.5, NAN, np.inf, -np.inf, 1e300]), [[1.5], [NAN], [BIG], [-BIG], [BIG]]),
        (pa.array([True, None, False]), [[1], [NAN], [0]]),
        (pa.array(["b", "a", None, "b"]), [[0], [1], [NAN], [0]]),
        (pa.array(["b", "a", None, "b"]).dictionary_encode(), [[0], [1], [NAN], [0]]),
        (pa.array(["b", "a", "b"], pa.large_string()), [[0], [1], [0]]),
        (pa.array([dt.time(0, 0, 1), dt.time(1), None]), [[1], [3600], [NAN]]),
        (pa.array([None, "x"]), [[NAN], [0]]),
        (pa.array([5.0, None, 5.0]), [[5], [NAN], [5]]),
        (pa.array([2**64 - 1, 1], pa.uint64()), [[2.0**64], [1]]),
        (pa.array([1, None]).cast(pa.decimal128(38, 2)), [[1], [NAN]]),
    ],
)
def test_codes(values: pa.Array, expected: list[list[float]]) -> None:
    np.testing.assert_array_equal(encode(values), np.array(expected, np.float32))


def test_dates_give_the_parts_that_vary() -> None:
    encoder, ready = fit({"d": pa.array([dt.date(2024, 2, 29), dt.date(1969, 12, 31), None])})
    assert encoder.names == ("d: days", "d: year", "d: month", "d: day", "d: weekday")
    found = encoder.transform(ready, 3)
    assert found[0].tolist() == [19782, 2024, 2, 29, 4]
    assert found[1].tolist() == [-1, 1969, 12, 31, 3]
    assert np.isnan(found[2]).all()
    encoder, _ = fit({"d": pa.array([dt.date(2024, 2, 1), dt.date(2024, 2, 2)])})
    assert encoder.names == ("d: days", "d: day", "d: weekday")


def test_timestamps_give_hour_and_minute_where_they_vary() -> None:
    stamps = [dt.datetime(2024, 1, 1, 5), dt.datetime(2024, 1, 1, 6), None]
    encoder, ready = fit({"t": pa.array(stamps, pa.timestamp("ns"))})
    assert encoder.names == ("t: hour",)
    assert encoder.transform(ready, 3)[:2, 0].tolist() == [5, 6]
    zoned = pa.array([dt.datetime(2024, 1, 1, 5, 30), dt.datetime(1960, 1, 1, 23, 59)], pa.timestamp("us", "Asia/Shanghai"))
    encoder, ready = fit({"t": zoned})
    assert encoder.names == ("t: days", "t: year", "t: weekday", "t: hour", "t: minute")
    assert encoder.transform(ready, 2)[1].tolist() == [-3653, 1960, 5, 23, 59]


def test_infinite_dates_are_missing_and_the_ends_of_time_do_not_break() -> None:
    infinite = pa.array([2**63 - 1, -(2**63 - 1), 0], pa.int64()).cast(pa.timestamp("us"))
    assert np.isnan(encode(infinite)[:, 0]).tolist() == [True, True, False]
    infinite = pa.array([2**31 - 1, -(2**31) + 1, 0], pa.int32()).cast(pa.date32())
    assert np.isnan(encode(infinite)[:, 0]).tolist() == [True, True, False]
    largest = pa.array([2**63 - 2, -(2**63 - 2), 0], pa.int64()).cast(pa.timestamp("us"))
    assert np.isfinite(encode(largest)).all()
    assert np.isfinite(encode(pa.array([2**31 - 2, -(2**31) + 2, 0], pa.int32()).cast(pa.date32()))).all()


def test_unseen_categories_are_missing_and_rare_ones_too() -> None:
    encoder, _ = fit({"c": pa.array(["a", "a", "b", "c"])}, most=2)
    found = encoder.transform({"c": pa.array(["b", "c", "z", None, "a"])}, 5)[:, 0]
    np.testing.assert_array_equal(found, np.array([1, NAN, NAN, NAN, 0], np.float32))
    assert encoder.categorical == (True,)
    assert encoder.describe() == (("c", "2 categories (1 rarer value as missing); NULL as missing"),)


def test_only_training_rows_are_looked_at() -> None:
    values = pa.array(["a", "b", "secret"])
    encoder = FeatureEncoder.fit([InputColumn("c", "VARCHAR", Kind.TEXT)], lambda _: values, np.array([0, 1]), "codes", 10)
    assert encoder.columns[0].categories == ("a", "b")
    matrices = encoder.transform_rows(lambda _: values, [np.array([2, 0]), np.array([1])])
    np.testing.assert_array_equal(matrices[0], np.array([[NAN], [0]], np.float32))
    assert matrices[1].tolist() == [[1]]


def test_constant_and_empty_columns_give_no_feature_and_say_so() -> None:
    encoder, ready = fit(
        {
            "one": pa.array([3, 3]),
            "none": pa.nulls(2, pa.string()),
            "null": pa.nulls(2),
            "word": pa.array(["x", "x"]),
            "n": pa.array([1, 2]),
        }
    )
    assert encoder.names == ("n",)
    assert encoder.input_of.tolist() == [4]
    assert dict(encoder.describe()) == {
        "one": "not used: one value only in the training rows",
        "none": "not used: every training row is NULL",
        "null": "not used: every training row is NULL",
        "word": "not used: one value only in the training rows",
        "n": "number",
    }
    assert encoder.transform(ready, 2).tolist() == [[1], [2]]
    assert encoder.sum_to_inputs(np.array([[7.0]])).tolist() == [[0, 0, 0, 0, 7]]


def test_dense() -> None:
    encoder, ready = fit(
        {"n": pa.array([1.0, 3.0, None]), "c": pa.array(["a", "b", "a"]), "m": pa.array([None, "x", "x"])}, "dense"
    )
    assert encoder.names == ("n", "n is missing", "c = a", "c = b", "m = x", "m is missing")
    assert encoder.transform(ready, 3).tolist() == [[-1, 0, 1, 0, 0, 1], [1, 0, 0, 1, 1, 0], [0, 1, 1, 0, 1, 0]]
    unseen = {"n": pa.array([2.0]), "c": pa.array([None], pa.string()), "m": pa.array(["?"])}
    assert encoder.transform(unseen, 1).tolist() == [[0, 0, 0, 0, 0, 1]]
    assert not any(encoder.categorical)
    assert encoder.describe()[0] == ("n", "number, standardised; NULL as the mean and a flag")


def test_dense_keeps_digits_of_large_offsets() -> None:
    found = encode(pa.array([1e9, 1e9 + 1, 1e9 + 2]), "dense")
    assert np.allclose(found[:, 0], [-1.2247449, 0, 1.2247449])
    assert np.isfinite(encode(pa.array([1e308, -1e308, 0.0]), "dense")).all()


def test_names_of_any_script() -> None:
    names = ["年齢", 'say "hi"', "two words", "Größe", "x'y", ""]
    encoder, ready = fit({name: pa.array(["ä", "ö"]) for name in names})
    assert encoder.names == tuple(names)
    assert encoder.transform(ready, 2).shape == (2, 6)


def test_chunked_empty_and_many_threads() -> None:
    columns = {
        "n": pa.array([1.0, None, 2.0, 5.0]),
        "c": pa.array(["a", None, "b", "a"]),
        "d": pa.array([dt.date(2024, 1, i + 1) for i in range(4)]),
    }
    encoder, ready = fit(columns)
    whole = encoder.transform(ready, 4)
    pieces = {name: pa.chunked_array([v.slice(0, 1), v.slice(1, 0), v.slice(1)]) for name, v in ready.items()}
    np.testing.assert_array_equal(encoder.transform(pieces, 4), whole)
    assert encoder.transform({name: v.slice(0, 0) for name, v in ready.items()}, 0).shape == (0, whole.shape[1])
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: encoder.transform(ready, 4), range(50)):
            np.testing.assert_array_equal(found, whole)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.floats()), min_size=1, max_size=30),
    st.lists(st.one_of(st.none(), st.text(max_size=5)), min_size=1, max_size=30),
)
def test_anything_goes(numbers: list[float | None], words: list[str | None]) -> None:
    n = min(len(numbers), len(words))
    clean = [w.encode("utf-8", "ignore").decode() if w is not None else None for w in words[:n]]
    columns = {"n": pa.array(numbers[:n], pa.float64()), "w": pa.array(clean, pa.string())}
    for encoding in ("codes", "dense"):
        encoder, ready = fit(columns, encoding)
        found = encoder.transform(ready, n)
        assert not np.isinf(found).any()
        if encoding == "dense":
            assert not np.isnan(found).any()


# --- lists ------------------------------------------------------------------------------------------------------------

VECTORS = pa.array([[1, 5, 0], None, [3, 5, 2], [2, 5, None]])


def test_vectors() -> None:
    encoder, ready = fit({"v": VECTORS, "n": pa.array([1, 2, 3, 4])})
    assert encoder.names == ("v[1]", "v[3]", "n")  # the second position does not vary
    assert encoder.categorical == (False, False, False)
    assert encoder.input_of.tolist() == [0, 0, 1]
    expected = np.array([[1, 0, 1], [NAN, NAN, 2], [3, 2, 3], [2, NAN, 4]], np.float32)
    np.testing.assert_array_equal(encoder.transform(ready, 4), expected)
    parts = encoder.transform_rows(ready.__getitem__, [np.array([3, 0]), np.array([], np.int64)])
    np.testing.assert_array_equal(parts[0], expected[[3, 0]])
    assert parts[1].shape == (0, 3)
    assert encoder.describe()[0] == ("v", "vector of 3 numbers, 2 of them used; NULL as missing")
    assert encoder.sum_to_inputs(np.array([[1.0, 2, 4]])).tolist() == [[3, 4]]


def test_dense_vectors_are_standardised_by_position() -> None:
    encoder, ready = fit({"v": VECTORS}, "dense")
    assert encoder.names == ("v[1]", "v[3]", "v is missing")
    found = encoder.transform(ready, 4)
    deviation = np.sqrt(2 / 3)
    np.testing.assert_allclose(found, [[-1 / deviation, -1, 0], [0, 0, 1], [1 / deviation, 1, 0], [0, 0, 1]], rtol=1e-6)
    assert encoder.describe() == (("v", "vector of 3 numbers, 2 of them used, standardised; NULL as the mean and a flag"),)
    fixed, ready = fit({"v": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))}, "dense")
    assert fixed.transform(ready, 2).tolist() == [[-1, -1], [1, 1]]
    assert not np.isnan(fixed.transform({"v": pa.array([None, [1, None]], pa.list_(pa.float64()))}, 2)).any()


def test_positions_have_names() -> None:
    encoder, _ = fit({"words": VECTORS}, positions={"words": ("(other)", "call", "free")})
    assert encoder.names == ("words: (other)", "words: free")


def test_a_vector_has_one_length() -> None:
    with pytest.raises(TrainingDataError, match="v has lists of 1 and of 2 numbers: as a feature a list must have one length"):
        fit({"v": pa.array([[1], [1, 2]])})
    encoder, _ = fit({"v": VECTORS})
    with pytest.raises(BindError, match="v has 2 numbers in a row, and the model was trained with 3 numbers"):
        encoder.transform({"v": pa.array([[1.0, 2.0, 3.0], [1.0, 2.0]])}, 2)
    with pytest.raises(BindError, match="v has 0 numbers in a row"):
        encoder.transform_rows(lambda _: pa.array([[], [1.0, 2, 3]], pa.list_(pa.float64())), [np.array([1, 0])])


@pytest.mark.parametrize("encoding", ["codes", "dense"])
def test_lists_that_say_nothing(encoding: str) -> None:
    numbers, texts = pa.list_(pa.float64()), pa.list_(pa.string())
    columns = {
        "null": pa.nulls(3, numbers),
        "none": pa.nulls(3, texts),
        "empty": pa.array([[], [], []], numbers),
        "bare": pa.array([[], [], []], texts),
        "same": pa.array([[1.0, 2]] * 3),
        "all": pa.array([["x"]] * 3),
        "gaps": pa.array([[1.0, 2], None, [1, 2]]),
    }
    encoder, ready = fit(columns, encoding)
    notes = dict(encoder.describe())
    assert notes["null"] == notes["none"] == "not used: every training row is NULL"
    assert notes["empty"] == "not used: its lists are empty"
    assert notes["bare"] == notes["same"] == notes["all"] == "not used: one value only in the training rows"
    assert encoder.names == (("gaps[1]",) if encoding == "codes" else ("gaps[1]", "gaps is missing"))
    assert encoder.transform(ready, 3).shape == (3, len(encoder.names))


def test_sets_of_texts() -> None:
    column = pa.array([["a", "b", "a", None], ["b"], None, [], ["c", "b"]])
    encoder, ready = fit({"s": column}, most=2)
    assert encoder.names == ("s = b", "s = a")
    assert encoder.describe() == (("s", "list of 2 categories (1 rarer one left out), one feature each; NULL as missing"),)
    expected = np.array([[1, 1], [1, 0], [NAN, NAN], [0, 0], [1, 0]], np.float32)
    np.testing.assert_array_equal(encoder.transform(ready, 5), expected)
    np.testing.assert_array_equal(encoder.transform_rows(ready.__getitem__, [np.array([2, 0])])[0], expected[[2, 0]])
    encoder, ready = fit({"s": column}, "dense", most=2)
    assert encoder.names == ("s = b", "s = a", "s is missing")
    assert encoder.transform(ready, 5).tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0]]
    unseen = encoder.transform({"s": pa.array([["z"], None], pa.list_(pa.string()))}, 2)
    assert unseen.tolist() == [[0, 0, 0], [0, 0, 1]]


def test_the_state_of_before_lists_is_read() -> None:
    column = {"name": "n", "kind": "number", "parts": ["value"], "missing": True, "categories": [], "others": 0}
    document = {"encoding": "dense", "columns": [column | {"means": [2.0], "scales": [0.5], "note": ""}]}
    encoder = FeatureEncoder.from_json(document)
    assert encoder.transform({"n": pa.array([3.0, None])}, 2).tolist() == [[2, 0], [0, 1]]


def test_wide_vectors_are_quick() -> None:
    random = np.random.default_rng(0)
    matrix = (random.random((1000, 8000)) < 0.002).astype(float)
    column = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), 8000).cast(pa.list_(pa.float64()))
    started = time.perf_counter()
    encoder, ready = fit({"v": column}, "dense")
    found = encoder.transform(ready, 1000)
    assert time.perf_counter() - started < 10
    np.testing.assert_allclose(found.std(0), 1, rtol=1e-3)
