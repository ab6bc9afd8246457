"""TRANSFORM as a whole: what is read, what comes out, that nothing leaks, and that one row is as good as many."""

from __future__ import annotations

import datetime as dt
import json
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlml.errors import DataError, TrainingDataError
from sqlml.features.program import Select
from sqlml.features.transform import Transform, TransformError, plan_transform
from sqlml.types import Kind, arrow_type
from tests.features.transforms import bank, describe, fit, one, plan, ready, run

ALL = [
    "ML.STANDARD_SCALER(age) OVER () AS age_s",
    "age_s * 2 AS twice",
    "ML.MIN_MAX_SCALER(balance) OVER ()",
    "ML.ROBUST_SCALER(duration) OVER () AS d",
    "ML.QUANTILE_BUCKETIZE(day, 5) OVER ()",
    "ML.ONE_HOT_ENCODER(job) OVER () AS j",
    "ML.LABEL_ENCODER(education) OVER () AS e",
    "ML.TF_IDF(string_split(job || '-' || education, '-')) OVER () AS words",
    "ML.IMPUTER(nullif(contact, 'unknown'), 'most_frequent') OVER () AS contact_i",
    "ML.FEATURE_CROSS(STRUCT(job, marital))",
    "ML.POLYNOMIAL_EXPAND(STRUCT(age, day)) AS p",
    "ML.NORMALIZER([age, balance, day]) AS n",
    "ML.BUCKETIZE(ML.STANDARD_SCALER(campaign) OVER () + 1, [0, 1, 2]) AS b",
    "ML.HASH_BUCKETIZE(month, 4) AS h",
    "ML.NGRAMS(string_split(job, '-'), [1, 2]) AS g",
    "log(balance + 10000) AS lb",
    "age // 10 AS decade",
    "decade % 3 AS third",
    "* EXCLUDE (y, duration)",
]


def bank_transform(rows: range = range(0, 6000, 2)) -> Transform:
    return fit(ALL, bank(), rows)


def same(found: Any, expected: Any) -> None:
    assert list(found) == list(expected)
    for name in found:
        assert found[name].to_pylist() == expected[name].to_pylist(), name
        assert found[name].type == expected[name].type, name


# --- results ----------------------------------------------------------------------------------------------------------


def test_everything_at_once() -> None:
    transform = bank_transform()
    out = transform.apply(ready(bank()), 6000)
    assert list(out) == [c.name for c in transform.outputs]
    for column in transform.outputs:
        assert out[column.name].type == arrow_type(column.kind)
        assert len(out[column.name]) == 6000
    kinds = {c.name: c.kind for c in transform.outputs}
    assert kinds["words"] is kinds["j"] is kinds["n"] is Kind.NUMBERS
    assert kinds["g"] is Kind.TEXTS
    assert kinds["job_marital"] is kinds["month"] is Kind.TEXT
    assert "duration" in [i.name for i in transform.inputs]
    assert "duration" not in out
    assert "y" not in [i.name for i in transform.inputs]
    assert np.allclose(np.array(out["twice"].to_pylist()), np.array(out["age_s"].to_pylist()) * 2)
    assert out["third"].to_pylist()[:9] == [a // 10 % 3 for a in bank()["age"].to_pylist()[:9]]
    widths = {c.name: len(c.features) for c in transform.outputs if c.features}
    assert {name: len(out[name][0]) for name in widths} == widths


def test_one_row_is_as_good_as_many() -> None:
    transform = bank_transform()
    columns = ready(bank())
    whole = transform.apply(columns, 6000)
    for i in (0, 1, 1, 4321):  # the first call learns the types, later ones use prepared statements
        same(transform.apply({n: v.slice(i, 1) for n, v in columns.items()}, 1), {n: v.slice(i, 1) for n, v in whole.items()})
    some = {n: pa.chunked_array([v.slice(10, 3), v.slice(13, 0), v.slice(13, 4)]) for n, v in columns.items()}
    same(transform.apply(some, 7), {n: v.slice(10, 7) for n, v in whole.items()})


def test_no_rows() -> None:
    out = bank_transform().apply({n: v.slice(0, 0) for n, v in ready(bank()).items()}, 0)
    assert {len(values) for values in out.values()} == {0}


def test_nothing_leaks_from_other_rows() -> None:
    rows = range(0, 6000, 2)
    document = bank_transform(rows).to_json()
    random = np.random.default_rng(0)
    order = np.arange(6000)
    order[1::2] = random.choice(np.arange(0, 6000, 2), 3000)
    changed = {}
    for name, values in bank().items():
        other = values.take(pa.array(order))
        if pa.types.is_integer(values.type):
            noise = np.where(np.arange(6000) % 2, 10**6, 0)
            other = pa.array(other.to_numpy(zero_copy_only=False).astype(np.int64) + noise)
        elif pa.types.is_string(values.type):
            other = pa.array([v + "!" if i % 2 else v for i, v in enumerate(other.to_pylist())])
        changed[name] = other
    assert fit(ALL, changed, rows).to_json()["program"]["steps"] == document["program"]["steps"]
    assert bank_transform(range(1, 6000, 2)).to_json() != document


def test_many_threads() -> None:
    transform = bank_transform()
    columns = ready(bank())
    expected = transform.apply(columns, 6000)
    rows = [{n: v.slice(i, 1) for n, v in columns.items()} for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for i, found in enumerate(pool.map(lambda row: transform.apply(row, 1), rows)):
            same(found, {n: v.slice(i, 1) for n, v in expected.items()})
        for found in pool.map(lambda _: transform.apply(columns, 6000), range(4)):
            same(found, expected)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.one_of(st.none(), st.floats()), st.one_of(st.none(), st.text(max_size=4))), min_size=1, max_size=12),
    st.data(),
)
def test_rows_of_anything(rows: list[tuple[float | None, str | None]], data: st.DataObject) -> None:
    texts = [w.encode("utf-8", "ignore").decode() if w is not None else None for _, w in rows]
    columns = {"x": pa.array([x for x, _ in rows], pa.float64()), "w": pa.array(texts, pa.string())}
    transform = fit(
        [
            "ML.STANDARD_SCALER(x) OVER () AS a",
            "coalesce(a, 0) + 1 AS b",
            "ML.BUCKETIZE(x, [0])",
            "ML.ONE_HOT_ENCODER(w, 'none', 9, 1) OVER () AS o",
            "w || '!' AS w2",
            "ML.TF_IDF([w], 9, 1) OVER () AS t",
            "*",
        ],
        columns,
    )
    whole = transform.apply(ready(columns), len(rows))
    i = data.draw(st.integers(0, len(rows) - 1))
    for _ in range(2):
        single = transform.apply({n: v.slice(i, 1) for n, v in ready(columns).items()}, 1)
        for name, values in single.items():
            expected = whole[name][i].as_py()
            found = values[0].as_py()
            both_nan = isinstance(found, float) and isinstance(expected, float) and math.isnan(found) and math.isnan(expected)
            assert both_nan or found == expected, name


# --- what the SQL means -----------------------------------------------------------------------------------------------


def test_columns_have_their_own_types() -> None:
    columns = {"i": pa.array([47, None]), "d": pa.array([1.25, 2.0]), "e": pa.array(["a", "zz"]), "l": pa.array([[1, 2], None])}
    types = {"i": "INTEGER", "d": "DECIMAL(6,2)", "e": "ENUM('a', 'b')", "l": "INTEGER[]"}
    assert one("i // 10", columns, types=types) == [4, None]
    assert one("i::VARCHAR", columns, types=types) == ["47", None]
    assert one("d::VARCHAR", columns, types=types) == ["1.25", "2.00"]
    assert one("e::VARCHAR", columns, types=types) == ["a", None]  # a value that the type has not
    assert one("l[1] // 2 + i % 10", columns, types=types) == [7, None]
    assert one("i / 2", columns, types={**types, "i": "no_such_type"}) == [23.5, None]
    assert one("i::VARCHAR", columns, types={**types, "i": "TINYINT"}) == ["47", None]


def test_dates_and_times() -> None:
    stamp = dt.datetime(2024, 2, 29, 13, 30)
    columns = {
        "d": pa.array([stamp.date(), None]),
        "t": pa.array([stamp.time(), None]),
        "s": pa.array([stamp, None]),
        "z": pa.array([stamp, None], pa.timestamp("us", "UTC")),
    }
    texts = ["year(d) AS y", "hour(t) AS h", "s + INTERVAL 1 DAY AS next", "hour(z) AS zh", "z AS same", "d + 1 AS tomorrow"]
    transform = fit(texts, columns)
    for n in (2, 1, 1):
        out = transform.apply({name: v.slice(0, n) for name, v in ready(columns).items()}, n)
        first = [values[0].as_py() for values in out.values()]
        zoned = stamp.replace(tzinfo=dt.UTC)
        assert first == [2024, 13, stamp + dt.timedelta(1), 13, zoned, dt.date(2024, 3, 1)]
        assert n == 1 or [values[1].as_py() for values in out.values()] == [None] * 6


def test_a_date_beyond_python() -> None:
    columns = {"s": pa.array([2**62], pa.int64()).cast(pa.timestamp("us")), "x": pa.array([1.0])}
    for _ in range(2):
        assert one("s - INTERVAL 1 DAY < s", columns) == [True]


def test_earlier_items_by_name() -> None:
    columns = {"a": pa.array([1, 2, 3]), "b": pa.array([10, 20, 30])}
    assert run(["a + 1 AS c", "c * 2 AS d", "d + c AS e"], columns)["e"] == [6, 9, 12]
    assert run(["a * 100 AS b", "b + 1 AS c"], columns)["c"] == [11, 21, 31]  # the column, not the item
    found = run(["ML.MAX_ABS_SCALER(a) OVER () AS m", "m * b AS x", "ML.MIN_MAX_SCALER(x) OVER () AS y", "y + m AS z"], columns)
    assert found["z"] == pytest.approx([1 / 3, (40 / 3 - 10 / 3) / (30 - 10 / 3) + 2 / 3, 2])
    assert run(["a // 2 AS h", "ML.MAX_ABS_SCALER(b) OVER () + h % 2 AS x"], columns)["x"][2] == 2


def selects(texts: list[str], columns: Any) -> int:
    steps = fit(texts, columns).to_json()["program"]["steps"]
    return sum(step["step"] == "select" for step in steps)


def test_no_more_queries_than_needed() -> None:
    columns = {"a": pa.array([1, 2, 3]), "b": pa.array([10, 20, 30])}
    assert selects(["a + 1 AS c", "c * 2 AS d", "b - d AS e", "*"], columns) == 1
    assert selects(["ML.STANDARD_SCALER(a) OVER () AS x", "*"], columns) == 0
    assert selects(["ML.STANDARD_SCALER(a) OVER () AS x", "b + 1 AS y"], columns) == 1
    assert selects(["ML.STANDARD_SCALER(a) OVER () * 2 AS x", "b + 1 AS y"], columns) == 1
    assert selects(["ML.STANDARD_SCALER(a + 1) OVER () * 2 AS x", "b + 1 AS y"], columns) == 2
    assert Select((), ()).wanted == ()


def test_structs_and_lists() -> None:
    columns = {"a": pa.array([1, None]), "w": pa.array(["x y", None])}
    found = run(
        ["{'n': a, 'in': {'t': w}} AS s", "string_split(w, ' ') AS l", "[a, 2]::FLOAT[2] AS v", "[w IS NULL] AS q"][:3], columns
    )
    assert found == {"s_n": [1, None], "s_in_t": ["x y", None], "l": [["x", "y"], None], "v": [[1, 2], [None, 2]]}
    assert one("list_transform([a, 2], lambda a: a + 1)", columns) == [[2, 3], [None, 3]]
    assert one("[x * 2 for x in [a] if x > 0]", columns) == [[2], []]
    assert [i.name for i in fit(["list_transform([1], lambda w: w + a)"], columns).inputs] == ["a"]


def test_names() -> None:
    columns = {"age": pa.array([1, 2]), "two words": pa.array([1, 2])}
    texts = [
        "ML.STANDARD_SCALER(age) OVER ()",
        "log(age + 5000)",
        '"two words"',
        "age",
        "CASE WHEN age > 1 THEN 'old' END",
        "-- c\nage + 1",
    ]
    assert list(run(texts, columns)) == [
        "standard_scaler_age",
        "log_age_5000",
        "two words",
        "age",
        "case_when_age_1_then_old_end",
        "age_1",
    ]


def test_stars() -> None:
    columns = {"a": pa.array([1, 2]), "b": pa.array([3, 4]), "c": pa.array(["x", "y"])}
    assert list(run(["*"], columns)) == ["a", "b", "c"]
    assert list(run(["* EXCLUDE (a, C)"], columns)) == list(run(["* EXCEPT (a, C)"], columns)) == ["b"]
    found = run(["* EXCLUDE b REPLACE (ML.MAX_ABS_SCALER(a) OVER () AS a, upper(c) AS c)"], columns)
    assert found == {"a": [0.5, 1], "c": ["X", "Y"]}
    assert list(run(["* RENAME (a AS z)"], columns)) == ["z", "b", "c"]
    assert [i.name for i in fit(["* EXCLUDE (b)", "a + 1"][:1], columns).inputs] == ["a", "c"]
    planned, outputs = plan(["* EXCLUDE (y)"], columns, others={"y": "the target"})
    assert [c.name for c in planned.inputs] == [c.name for c in outputs] == ["a", "b", "c"]


def test_columns_of_no_kind_are_left_out_of_a_star() -> None:
    columns = {"a": pa.array([1]), "i": pa.array([{"x": 1}])}
    planned, outputs = plan(["*"], columns)
    assert [c.name for c in outputs] == ["a"]
    assert [c.name for c in planned.inputs] == ["a"]


def test_describe() -> None:
    transform = fit(
        ["ML.STANDARD_SCALER(age) OVER () AS s", "log(age + 1) AS l", "ML.STANDARD_SCALER(age) OVER () * 2 AS t"], bank()
    )
    text = "mean 41.13, standard deviation 10.44"
    lines = dict(transform.describe())
    assert lines["l"] == "log(age + 1)"
    assert lines["s"].startswith("ML.STANDARD_SCALER(age) OVER (): mean ")
    assert transform.outputs[0].state == transform.outputs[2].state
    assert len(text.split(",")) == len(transform.outputs[0].state.split(","))
    assert transform.outputs[1].state == ""


def test_columns_of_the_plan() -> None:
    planned, outputs = plan(["age // 10 AS decade", "ML.ONE_HOT_ENCODER(job) OVER () AS j"], bank())
    assert [(c.name, c.sql_type, c.kind) for c in outputs] == [
        ("decade", "BIGINT", Kind.NUMBER),
        ("j", "DOUBLE[]", Kind.NUMBERS),
    ]
    assert [c.name for c in planned.inputs] == ["age", "job"]
    assert describe(bank())[0] in planned.inputs


def test_a_list_is_planned_again_over_what_it_reads() -> None:
    texts = ["* EXCLUDE (b)", "c + 1 AS d"]
    columns = {"a": pa.array([1]), "b": pa.array([2]), "c": pa.array([3])}
    planned, outputs = plan(texts, columns, others={})
    again = plan_transform(planned.items, planned.inputs, planned.frozen)
    assert again == (planned, outputs)
    with pytest.raises(TransformError, match="there is no column b"):
        plan_transform(planned.items, planned.inputs, planned.frozen, {})


# --- transform-only models --------------------------------------------------------------------------------------------


def test_a_frozen_transform_keeps_its_state() -> None:
    columns = {"a": pa.array([1.0, 2, 3]), "w": pa.array(["x", "y", "x"])}
    texts = ["ML.MAX_ABS_SCALER(a) OVER () AS m", "ML.ONE_HOT_ENCODER(w, 'none', 5, 1) OVER () AS o"]
    document = json.loads(json.dumps(fit(texts, columns).to_json()))
    other = {"a": pa.array([10.0, 20]), "w": pa.array(["z", "y"]), "c": pa.array([1, 2])}
    frozen = {"prep(*)": document}
    transform = fit(["prep(*)", "m + c AS sum", "ML.MIN_MAX_SCALER(m) OVER () AS mm", "c"], other, frozen=frozen)
    out = {name: values.to_pylist() for name, values in transform.apply(ready(other), 2).items()}
    assert out["m"] == pytest.approx([10 / 3, 20 / 3])  # its own largest, 3
    assert out["o"] == [[1, 0, 0], [0, 0, 1]]
    assert out["sum"] == pytest.approx([13 / 3, 26 / 3])
    assert out["mm"] == [0, 1]
    assert transform.outputs[1].features == ("(other)", "x", "y")
    assert transform.outputs[0].state == "largest 3"
    assert [i.name for i in transform.inputs] == ["a", "w", "c"]
    with pytest.raises(TransformError, match=r"prep\(\*\) needs columns that are not there: w"):
        plan(["prep(*)"], {"a": other["a"]}, frozen=frozen)
    with pytest.raises(TransformError, match=r"prep\(\*\) was fitted with w as text, and here it is BIGINT"):
        plan(["prep(*)"], {"a": other["a"], "w": pa.array([1, 2])}, frozen=frozen)
    with pytest.raises(DataError, match="format 9"):
        Transform.from_json({"format": 9})


# --- vectors ----------------------------------------------------------------------------------------------------------


def test_vectors_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqlml.features.transform._MOST", 100)
    with pytest.raises(TrainingDataError, match=r"ML\.ONE_HOT_ENCODER gives 13 numbers for each of 6,000 rows") as caught:
        fit(["ML.ONE_HOT_ENCODER(job) OVER () AS j"], bank())
    assert "top_k" in (caught.value.hint or "")


def test_vectors_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    transform = fit(["ML.ONE_HOT_ENCODER(job) OVER () AS j"], bank())
    expected = transform.apply(ready(bank()), 6000)["j"].to_pylist()
    monkeypatch.setattr("sqlml.features.transform._BLOCK", 13 * 700)
    assert transform.apply(ready(bank()), 6000)["j"].to_pylist() == expected


def test_sparse_vectors_become_dense() -> None:
    columns = {"i": pa.array([2, 0, None, 9]), "x": pa.array([1.5, 2, 3, 4])}
    text = "CASE WHEN x < 3 THEN [{'index': i, 'value': x}, {'index': 0, 'value': 1}] END AS v"
    transform = fit([text, "x"], columns, [0, 1, 2])
    assert transform.outputs[0].features == ("0", "1", "2")
    assert transform.outputs[0].state == "3 positions"
    out = transform.apply(ready(columns), 4)
    assert out["v"].to_pylist() == [[1, 0, 1.5], [3, 0, 0], None, None]
    assert one("[{'index': i, 'value': x}]", columns, [0]) == [[0, 0, 1.5], [2, 0, 0], [0, 0, 0], [0, 0, 0]]
    with pytest.raises(TransformError, match=r"there is no function ML\.SPARSE"):
        plan(["ML.SPARSE(x)"], columns)


# --- processes --------------------------------------------------------------------------------------------------------

SCRIPT = """
import os, threading
import pyarrow as pa
from tests.features.transforms import fit, ready
columns = {"a": pa.array([1, 2, 3])}
transform = fit(["ML.STANDARD_SCALER(a + 1) OVER () * 2 AS x", "a // 2 AS h"], columns)
work = lambda: print(transform.apply(ready(columns), 3)["h"].to_pylist(), flush=True)
thread = threading.Thread(target=work)
thread.start(); thread.join()
child = os.fork()
if child == 0:
    work()
    os._exit(0)
os.waitpid(child, 0)
work()
"""


def test_nothing_is_left_when_python_ends() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", SCRIPT], capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n")[:3] == ["[0.0, 1.0, 1.0]"] * 3
    assert done.stderr == ""
    assert done.returncode == 0
