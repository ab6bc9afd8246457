"""The canonical order, the fingerprint, and the split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sqlml.errors import TrainingDataError
from sqlml.features.dataset import Dataset, read_dataset, take
from sqlml.features.split import split_rows
from sqlml.types import Kind
from tests.jobs import write_arrow

TABLE = pa.table(
    {
        "n": pa.array([1, 2, None, 4, 4], pa.int32()),
        "w": pa.array(["a", None, "c", "d", "d"]),
        "t": pa.array([1, 2, 3, 4, 4], pa.timestamp("us")),
        "other": [1, 2, 3, 4, 5],
    }
)
COLUMNS = {"n": Kind.NUMBER, "w": Kind.TEXT, "t": None}


def read(folder: Path, table: pa.Table, stream: bool = True) -> Dataset:
    path = folder / f"{len(list(folder.iterdir()))}.arrow"
    write_arrow(path, table, stream)
    return read_dataset(path, COLUMNS)


def ordered(data: Dataset) -> list[dict[str, object]]:
    return list(pa.table({name: data.column(name) for name in data.kinds}).take(pa.array(data.order)).to_pylist())


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    one = read(tmp_path, TABLE)
    for turn in range(1, 5):
        order = [(i + turn) % 5 for i in range(5)]
        two = read(tmp_path, TABLE.take(pa.array(order)), stream=False)
        assert two.fingerprint == one.fingerprint
        assert ordered(two) == ordered(one)


def test_the_database_s_types_do_not_matter_but_values_do(tmp_path: Path) -> None:
    one = read(tmp_path, TABLE)
    wider = TABLE.set_column(0, "n", TABLE["n"].cast(pa.float64())).set_column(1, "w", TABLE["w"].dictionary_encode())
    assert read(tmp_path, wider).fingerprint == one.fingerprint
    changed = TABLE.set_column(0, "n", pa.array([1, 2, None, 4, 5]))
    assert read(tmp_path, changed).fingerprint != one.fingerprint
    assert read(tmp_path, TABLE.slice(0, 4)).fingerprint != one.fingerprint


def test_many_chunks(tmp_path: Path) -> None:
    table = pa.table({"n": np.arange(300_000) % 9_999, "w": np.char.mod("%d", np.arange(300_000) % 77), "t": np.arange(300_000)})
    whole = read(tmp_path, table)
    pieces = pa.concat_tables([table.slice(200_000), table.slice(0, 100_000), table.slice(100_000, 100_000)])
    assert read(tmp_path, pieces).fingerprint == whole.fingerprint


def test_no_rows_and_missing_columns(tmp_path: Path) -> None:
    empty = read(tmp_path, TABLE.slice(0, 0))
    assert len(empty.order) == 0
    write_arrow(tmp_path / "t.arrow", TABLE)
    with pytest.raises(TrainingDataError, match="the rows have no column x"):
        read_dataset(tmp_path / "t.arrow", {"x": Kind.TEXT})
    write_arrow(tmp_path / "t.arrow", pa.table({"l": [[{"a": 1}]]}))
    with pytest.raises(TrainingDataError, match="column l has values of a type that no model can use"):
        read_dataset(tmp_path / "t.arrow", {"l": None})


def test_split_by_class() -> None:
    classes = np.repeat([0, 1, 2], [1000, 100, 1])
    kept, taken = split_rows(np.arange(1101), 0.2, 0, classes)
    assert np.bincount(classes[taken], minlength=3).tolist() == [200, 20, 0]
    assert sorted([*kept, *taken]) == list(range(1101))
    assert (np.diff(kept) > 0).all()
    again = split_rows(np.arange(1101), 0.2, 0, classes)[1]
    assert np.array_equal(taken, again)
    assert not np.array_equal(taken, split_rows(np.arange(1101), 0.2, 1, classes)[1])


@pytest.mark.parametrize(("n", "held"), [(0, 0), (1, 0), (2, 0), (3, 1), (5, 1), (10, 2)])
def test_split_of_few_rows(n: int, held: int) -> None:
    kept, taken = split_rows(np.arange(n), 0.2, 0)
    assert (len(kept), len(taken)) == (n - held, held)
    assert len(split_rows(np.arange(n), 0.99, 0)[0]) >= min(n, 1)


def test_threads_do_not_change_the_order(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    table = pa.table({"n": generator.integers(0, 50_000, 250_000), "w": pa.array(generator.integers(0, 9, 250_000).astype(str))})
    write_arrow(tmp_path / "rows.arrow", table, False)
    one, three = (read_dataset(tmp_path / "rows.arrow", {"n": None, "w": None}, threads) for threads in (1, 3))
    assert one.fingerprint == three.fingerprint
    assert (one.order == three.order).all()


def test_rows_that_are_alike_stay_in_their_order(tmp_path: Path) -> None:
    table = pa.table({"n": np.random.default_rng(0).integers(0, 50, 20_000), "w": ["a"] * 20_000, "t": [0] * 20_000})
    order = read(tmp_path, table).order
    values = table["n"].to_numpy()[order]
    alike = values[1:] == values[:-1]
    assert alike.sum() == 20_000 - 50
    assert (np.diff(order)[alike] > 0).all()


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.int16(), pa.string()])
def test_some_rows_of_many_pieces(kind: pa.DataType) -> None:
    whole = pa.array([None if i % 11 == 0 else i for i in range(1000)]).cast(kind)
    pieces = pa.chunked_array([whole.slice(0, 300), whole.slice(300, 0), whole.slice(300, 1), whole.slice(301)])
    random = np.random.default_rng(0)
    for rows in (random.integers(0, 1000, 500), np.array([999, 0, 0, 300]), np.array([], np.int64)):
        for values in (whole, pieces):
            assert take(values, rows).to_pylist() == whole.take(pa.array(rows)).to_pylist()


def test_floats_of_32_bits_and_of_64_have_one_order(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    values[:3] = np.nan, np.inf, -0.0
    one, two = (
        read(tmp_path, pa.table({"n": pa.array(values).cast(kind), "w": ["a"] * 5000, "t": [0] * 5000}))
        for kind in (pa.float32(), pa.float64())
    )
    assert one.fingerprint == two.fingerprint
    assert (one.order == two.order).all()
    assert one.column("n").type == pa.float64()
