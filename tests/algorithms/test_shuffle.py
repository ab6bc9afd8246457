"""Shuffled rows: the same full permutation whether the matrix lies in memory or in a file, and little of it in memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from sqlml.algorithms.shuffle import deal, draw_order, file_matrix, read_blocks, shuffled
from sqlml.errors import OperationalError


def matrix(n: int, k: int) -> np.ndarray:
    return np.arange(n * k, dtype=np.float32).reshape(n, k)


def in_a_file(folder: Path, x: np.ndarray) -> np.ndarray:
    out = file_matrix(folder, *x.shape)
    out[:] = x
    return out


@pytest.mark.parametrize("dealt", [False, True])
@pytest.mark.parametrize("n", [1, 999, 5_000])
def test_the_order_does_not_depend_on_where_the_rows_are(tmp_path: Path, n: int, dealt: bool) -> None:
    x = matrix(n, 7)
    order = draw_order(n, 3, 0)
    window = 28 * (40 if dealt else 400)
    found = list(shuffled(in_a_file(tmp_path, x), order, 16, tmp_path, window))
    rows, numbers = (np.concatenate(parts) for parts in zip(*found, strict=True))
    assert np.array_equal(numbers, order)
    assert np.array_equal(rows, x[order])
    plain = list(shuffled(x, order, 16, None))
    assert np.array_equal(np.concatenate([rows for rows, _ in plain]), rows)
    assert all(len(rows) % 16 == 0 for rows, _ in found[:-1])
    assert not list(tmp_path.iterdir())


def test_every_place_is_as_likely_for_every_row() -> None:
    """Of 2,000 epochs each row is as often in each tenth of the order, within five standard deviations; no two are alike."""
    n, epochs = 100, 2_000
    places = np.stack([np.argsort(draw_order(n, 0, epoch)) for epoch in range(epochs)])
    counts = np.stack([np.bincount(places[:, row] // 10, minlength=10) for row in range(n)])
    assert np.abs(counts - epochs / 10).max() < 5 * np.sqrt(epochs * 0.1 * 0.9)
    assert len(np.unique(places, axis=0)) == epochs
    assert np.array_equal(draw_order(n, 0, 5), draw_order(n, 0, 5))
    assert not np.array_equal(draw_order(n, 1, 5), draw_order(n, 0, 5))


def test_dealing_leaves_rows_out_and_takes_any_blocks(tmp_path: Path) -> None:
    x = matrix(100, 3)
    order = np.array([50, 3, 99, 4, 0])
    blocks = ((start, x[start : start + 7]) for start in range(0, 100, 7))
    found = list(deal(blocks, order, 3, 2, tmp_path))
    assert [start for start, _ in found] == [0, 2, 4]
    assert np.array_equal(np.concatenate([rows for _, rows in found]), x[order])


def test_little_is_in_memory(tmp_path: Path) -> None:
    x = file_matrix(tmp_path, 200_000, 100)  # 76 MiB
    tracemalloc.start()
    for place, block in read_blocks(x):
        x[place] = block + 1
    for rows, _ in shuffled(x, draw_order(len(x), 0, 0), 256, tmp_path, 2 << 20):
        assert rows[0, 0] == 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OperationalError, match=r"the encoded rows need 4 MiB in .*: No space left on device"):
        file_matrix(tmp_path, 1 << 18, 4)
