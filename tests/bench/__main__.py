"""``python -m tests.bench``: what SQL costs beside the library alone, as one table; ``--quick``: in less than a minute.

``python -m tests.bench predict …`` and the other ``SECTIONS`` are measurements of their own.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

from tests.bench import predict, startup, train
from tests.bench.measuring import as_json, markdown

SECTIONS = (
    "predict",
    "train",
    "startup",
    "extraction",
    "gpu",
    "large",
    "lookups",
    "mlp",
    "postgres_functions",
    "pruning",
    "serving",
    "sessions",
    "wire",
)
"""Modules beside this one, each with a ``main(arguments)``."""
QUICK_ROADS = ("CREATE TABLE AS PREDICT_PROBA", "PREDICT INTO", "pandas")


def main() -> None:
    if sys.argv[1:2] and sys.argv[1] in SECTIONS:
        importlib.import_module(f"tests.bench.{sys.argv[1]}").main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--rows", type=int, help="of each table; left out: 1,000,000, or 50,000 with --quick")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few rows, few roads")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="where the figures go, too")
    options = parser.parse_args()
    rows = options.rows or (50_000 if options.quick else 1_000_000)
    runs = min(3, options.runs) if options.quick else options.runs
    figures = predict.measure(
        rows, runs, predict.QUICK if options.quick else list(predict.CASES), QUICK_ROADS if options.quick else None
    )
    figures += train.measure(rows, max(2, runs // 2), quick=options.quick)
    print(f"\n{rows:,} rows, median of {runs}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; 1.00: the bare library\n")
    print(markdown(figures))
    print()
    startup.main(["--runs", str(runs)])
    options.json.write_text(as_json(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
