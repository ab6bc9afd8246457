"""What is told of columns of numbers: what C finds is what NumPy finds, also where the library was not built."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sqlml.features.info import feature_info
from sqlml.native import figures
from sqlml.native.figures import number_figures, numbers_between
from sqlml.native.library import library
from sqlml.plan import InputColumn
from sqlml.types import Kind

pytestmark = pytest.mark.skipif(library() is None, reason="the native library was not built here")
FAR = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45]


def drawn(n: int, kind: Any, odd: bool) -> np.ndarray:
    values = np.random.default_rng(n).lognormal(sigma=2, size=n).astype(kind)
    if odd:
        values[np.random.default_rng(1).random(n) < 0.2] = np.nan
        values[: len(FAR)] = np.array(FAR, kind)[:n]
    return values


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 2047, 2048, 2049, 50_000])
def test_figures_are_numpys(n: int, odd: bool, kind: Any) -> None:
    values = drawn(n, kind, odd)
    found = number_figures([values[: n // 3], values[n // 3 :]])
    assert found is not None
    known = values[np.isfinite(values)].astype(np.float64)
    assert (found.known, found.absent, found.infinite) == (len(known), np.isnan(values).sum(), np.isinf(values).sum())
    assert (found.low, found.high) == (known.min(initial=np.inf), known.max(initial=-np.inf))
    if len(known):
        assert found.mean == pytest.approx(known.mean(), rel=1e-12)
        assert found.squares == pytest.approx(((known - known.mean()) ** 2).sum(), rel=1e-12)


def test_far_from_zero_the_spread_is_exact() -> None:
    found = number_figures([1e9 + np.arange(10_000) % 2, np.full(7, 1e9)])
    assert found is not None
    values = np.concatenate([np.arange(10_000) % 2, np.zeros(7)])
    assert found.squares / (found.known - 1) == pytest.approx(values.var(ddof=1), rel=1e-9)
    constant = number_figures([np.full(5_000, 1e100)])
    assert constant is not None
    assert constant.mean == pytest.approx(1e100, rel=1e-15)
    assert constant.squares / constant.known < (1e-15 * 1e100) ** 2
    (told,) = feature_info([InputColumn("x", "DOUBLE", Kind.NUMBER)], lambda _: pa.array(np.full(5_000, 0.1)), np.arange(5_000))
    assert (told["mean"], told["stddev"], told["median"]) == (0.1, 0.0, 0.1)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 7, 255, 256, 257, 70_000])
def test_values_between(n: int, kind: Any) -> None:
    values = drawn(n, kind, odd=True)
    pieces = [values[: n // 3], values[n // 3 :]]
    for low, high in ((0.5, 2.0), (-np.inf, np.inf), (3.0, 1.0)):
        found = numbers_between(pieces, low, high)
        assert found is not None
        inside, below = found
        assert inside.dtype == kind
        assert np.array_equal(inside, values[(values >= low) & (values <= high)])
        assert below == ((values < low) & (values > -np.inf)).sum()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 3, 1_000, 300_000])
def test_without_the_library_the_same_is_told(n: int, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    values = drawn(n, kind, odd=True)
    column = pa.chunked_array([pa.array(values[:10]), pa.array(values[10:], mask=np.arange(len(values[10:])) % 5 == 0)])
    inputs = [InputColumn("x", "DOUBLE", Kind.NUMBER)]
    (native,) = feature_info(inputs, lambda _: column, np.arange(n))
    monkeypatch.setattr(figures, "library", lambda: None)
    (plain,) = feature_info(inputs, lambda _: column, np.arange(n))
    assert plain == {name: value if not isinstance(value, float) else pytest.approx(value) for name, value in native.items()}
    assert number_figures([values]) is None
    assert numbers_between([values], 0, 1) is None


def test_other_arrays_are_refused() -> None:
    for wrong in (np.zeros(3, np.int64), np.zeros((3, 3))):
        with pytest.raises(ValueError, match="expected floats"):
            number_figures([wrong])
