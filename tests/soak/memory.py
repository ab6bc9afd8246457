"""A network trained on a table that is larger than the memory it may use: the limit is kept, and the model is as good as any."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from sqlml_runners.process import ProcessRunner

from sqlml.errors import JobOutOfMemory
from sqlml.plan import JobSpec, Limits
from tests.jobs import make_job

COLUMNS, BATCH = 500, 20_000
LIMIT = 440 << 20
"""What the worker itself takes with torch and its other libraries is about 350 MiB."""


def run(rows: int) -> int:
    """The number of faults: the network must be trained, and trees, which need the whole matrix, must be stopped."""
    with tempfile.TemporaryDirectory(prefix="sqlml-soak-") as folder:
        network = _job(Path(folder) / "network", rows, "mlp_classifier", {"max_epochs": 1, "batch_size": 1024})
        size = (network.folder / "train.arrow").stat().st_size
        ProcessRunner().submit(network).wait(lambda _: None)
        accuracy = json.loads((network.folder / "result.json").read_text(encoding="utf-8"))["metrics"]["heldout"]["accuracy"]
        trees = _job(Path(folder) / "trees", rows, "xgboost_classifier", {"n_estimators": 1})
        try:
            ProcessRunner().submit(trees).wait(lambda _: None)
            stopped = False
        except JobOutOfMemory:
            stopped = True
    print(f"memory: {size >> 20} MiB of rows within {LIMIT >> 20} MiB, accuracy {accuracy:.3f}; trees stopped: {stopped}")
    return int(size <= LIMIT) + int(accuracy < 0.9) + int(not stopped)


def _job(folder: Path, rows: int, algorithm: str, options: dict[str, int]) -> JobSpec:
    """A job whose rows are written batch by batch."""
    schema = pa.schema([*((f"c{i}", pa.float32()) for i in range(COLUMNS)), ("y", pa.string())])
    spec = make_job(folder, schema.empty_table(), "y", algorithm, options=options, limits=Limits(memory=LIMIT, threads=2))
    generator = np.random.default_rng(0)
    with pa.OSFile(str(folder / "train.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for start in range(0, rows, BATCH):
            x = generator.standard_normal((min(BATCH, rows - start), COLUMNS), dtype=np.float32)
            y = pa.array(np.where(x[:, :20].sum(1) > 0, "yes", "no"))
            writer.write_batch(pa.record_batch([*(pa.array(x[:, i]) for i in range(COLUMNS)), y], schema=schema))
    return spec
