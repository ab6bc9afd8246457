"""``python -m tests.bench gpu [--rows n] [--device cuda:0]``: training on a GPU beside the same training on the CPU.

Rows are drawn; the time is that of the fit, without the imports and a first fit of few rows.  Without a GPU it says so.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from sqlml.algorithms.devices import check_device, visible_gpus
from sqlml.algorithms.options import check_options
from sqlml.contracts import FeatureMatrix, FitSpec, Predictor, TrainingData
from sqlml.errors import BindError
from sqlml.registry import get_algorithm
from tests.bench.tables import make_data
from tests.jobs import Recorder

CASES: dict[str, dict[str, Any]] = {
    "mlp_classifier": {"max_epochs": 3, "batch_size": 4096, "hidden": [1024, 512]},
    "xgboost_classifier": {"n_estimators": 200, "max_depth": 8},
}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench gpu")
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args(arguments)
    print(f"GPUs: {', '.join(visible_gpus()) or 'none'}")
    for name, settings in CASES.items():
        try:
            check_device(options.device, get_algorithm(name).libraries)
        except BindError as error:
            print(f"{name}: skipped, {error.message}")
            continue
        fit(name, make_rows(2_000), settings, options.device, options.threads)
        for rows in options.rows:
            data = make_rows(rows)
            (cpu, one), (gpu, two) = (fit(name, data, settings, where, options.threads) for where in ("cpu", options.device))
            x = data.features.x[:100_000]
            apart = float(np.abs(one.predict(x) - two.predict(x)).mean())
            memory = getattr(two, "gpu_memory", 0) / 2**20
            print(f"{name}, {rows:,} rows, {settings}: CPU {cpu:.2f} s, GPU {gpu:.2f} s, {cpu / gpu:.1f} times as fast")
            print(f"  {memory:,.0f} MiB of the GPU's memory; mean difference of the probabilities {apart:.4f}")


def make_rows(rows: int) -> TrainingData:
    """As the bench draws them."""
    x, y = make_data(rows)
    k = x.shape[1]
    return TrainingData(FeatureMatrix(x, tuple(f"f{j}" for j in range(k)), (False,) * k), y, n_classes=2)


def fit(name: str, data: TrainingData, settings: dict[str, Any], device: str, threads: int) -> tuple[float, Predictor]:
    """Seconds, and what predicts."""
    algorithm = get_algorithm(name)
    options = check_options(algorithm, {**settings, "device": device})
    own = {option.name: options[option.name] for option in algorithm.options}
    started = time.perf_counter()
    predictor = algorithm.fit(data, FitSpec(own, 0, threads), Recorder())
    return time.perf_counter() - started, predictor
