"""The rest of a result put aside: in memory while it is small, then in a file, and an error where it came."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sqlml.engines.spool import KEPT_BYTES, Spool
from sqlml.errors import OperationalError

ROWS = 100_000
WORDS = pa.DictionaryArray.from_arrays(pa.array([None, 0, 1] * ROWS, pa.int32()), ["a", "b"])


def batch(number: int, rows: int = ROWS) -> pa.RecordBatch:
    return pa.record_batch({"i": pa.array(np.arange(number, number + rows)), "w": WORDS.slice(0, rows)})


def batches(count: int, error: Exception | None = None) -> Iterator[pa.RecordBatch]:
    for number in range(count):
        yield batch(number)
    if error is not None:
        raise error


def test_a_few_rows_stay_in_memory() -> None:
    spool = Spool(iter([batch(0, 10), batch(10, 10)]))
    assert not spool.is_on_disk
    assert [each.num_rows for each in spool] == [10, 10]


def test_many_rows_come_from_a_file_that_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spool = Spool(batches(20))
    assert spool.is_on_disk
    assert sum(each.nbytes for each in batches(20)) > 2 * KEPT_BYTES
    assert list(tmp_path.iterdir()) == []
    assert list(spool) == list(batches(20))
    assert not spool.is_on_disk
    assert next(spool, None) is None


def test_a_sliced_batch_keeps_its_rows() -> None:
    parts = [batch(0).slice(7, 50_000)] * 20
    spool = Spool(parts)
    assert spool.is_on_disk
    assert list(spool) == parts


@pytest.mark.parametrize("count", [1, 20], ids=["in memory", "on disk"])
def test_an_error_comes_behind_the_rows_before_it(count: int) -> None:
    spool = Spool(batches(count, OperationalError("no more")))
    for number in range(count):
        assert next(spool) == batch(number)
    for _ in range(2):  # and again
        with pytest.raises(OperationalError, match="no more"):
            next(spool)


def test_close_lets_go() -> None:
    spool = Spool(batches(20))
    next(spool)
    spool.close()
    assert not spool.is_on_disk
    assert next(spool, None) is None


def test_no_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: open("/dev/full", "w+b", buffering=0))  # noqa: SIM115
    spool = Spool(batches(20))
    with pytest.raises(OperationalError, match=r"could not be put aside.*No space left") as raised:
        next(spool)
    assert "TMPDIR" in str(raised.value)
    assert not spool.is_on_disk
