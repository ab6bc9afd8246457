"""On a real GPU: training there, prediction on the CPU, figures as on the CPU.  Skipped where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sqlml.algorithms.devices import torch_device, visible_gpus, xgboost_device
from sqlml.algorithms.options import check_options
from sqlml.contracts import FitSpec, Predictor
from sqlml.errors import BindError
from sqlml.registry import get_algorithm
from tests.algorithms.fitting import classes_of, numbers, table
from tests.jobs import Recorder


def why_not(library: str) -> str | None:
    """Why no GPU can be used by a library."""
    if not visible_gpus():
        return "there is no GPU here"
    try:
        (torch_device if library == "torch" else xgboost_device)("cuda")
    except BindError as error:
        return error.message
    return None


NAMES = {
    "mlp_classifier": "torch",
    "mlp_regressor": "torch",
    "xgboost_classifier": "xgboost",
    "xgboost_regressor": "xgboost",
    "random_forest_classifier": "xgboost",
}
CASES = [
    pytest.param(name, marks=pytest.mark.skipif(why_not(library) is not None, reason=f"{library}: {why_not(library)}"))
    for name, library in NAMES.items()
]


def fitted(name: str, device: str, folder: Path | None = None, **options: Any) -> tuple[Predictor, np.ndarray, np.ndarray]:
    x = numbers(4_000)
    y = classes_of(x, 2) if name.endswith("classifier") else x.sum(1).astype(np.float64)
    data = replace(table(x, y), heldout_x=x[:500], heldout_y=y[:500])
    algorithm = get_algorithm(name)
    spec = FitSpec(check_options(algorithm, {"device": device, **options}), 0, 2, folder=folder)
    return algorithm.fit(data, spec, Recorder()), x, y


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:0"])
def test_trained_on_the_gpu_predicts_on_the_cpu(name: str, device: str, tmp_path: Path) -> None:
    found, x, y = fitted(name, device)
    assert found.gpu_memory > 0
    raw = found.predict(x)
    found.save(tmp_path)
    assert np.array_equal(get_algorithm(name).load(tmp_path).predict(x), raw)
    there, _, _ = fitted(name, "cpu")
    if raw.ndim == 2:
        assert abs((raw.argmax(1) == y).mean() - (there.predict(x).argmax(1) == y).mean()) < 0.02
    else:
        assert 1 - ((raw - y) ** 2).sum() / ((y - y.mean()) ** 2).sum() > 0.9


@pytest.mark.skipif(why_not("torch") is not None, reason=f"torch: {why_not('torch')}")
@pytest.mark.parametrize("precision", ["auto", "float32", "bf16"])
def test_precision(precision: str, tmp_path: Path) -> None:
    found, x, y = fitted("mlp_classifier", "cuda", tmp_path, precision=precision)
    assert (found.predict(x).argmax(1) == y).mean() > 0.9


@pytest.mark.skipif(why_not("torch") is not None, reason=f"torch: {why_not('torch')}")
def test_a_gpu_too_many() -> None:
    with pytest.raises(BindError, match="device = 'cuda:99': there"):
        fitted("mlp_classifier", "cuda:99")
