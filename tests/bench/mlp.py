"""``python -m tests.bench mlp [--data folder]``: the networks beside a torch script written by hand, of the same budget.

The script has everything ready as tensors (codes, standardised numbers) in memory, takes batches by index, has the same layers,
optimiser, schedule, epochs and batch size, and follows the same rows for early stopping.  The rate of training is rows times
epochs in a second; ours over the script's is above 1 where ours is quicker.  Whole sets are read from ``--data``
(``adult_census.csv``, ``bike_sharing_hour.csv``) where they are given, else the parts that the tests have.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import torch
from torch import nn

from sqlml.algorithms.options import check_options
from sqlml.contracts import FeatureMatrix, FitSpec, TrainingData
from sqlml.features.dataset import canonical
from sqlml.features.encode import FeatureEncoder
from sqlml.plan import InputColumn
from sqlml.registry import get_algorithm
from sqlml.types import Kind
from tests.jobs import Recorder

PARTS = Path(__file__).parent.parent / "fixtures" / "data"


@dataclass(frozen=True)
class Case:
    """A data set: where it lies, its target, and what is no feature of it."""

    name: str
    whole: str
    part: str
    target: str
    classes: bool
    excluded: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()


CASES = (
    Case("adult", "adult_census.csv", "adult.csv.gz", "income", True),
    Case(
        "bike",
        "bike_sharing_hour.csv",
        "bike.csv.gz",
        "count",
        False,
        ("instant", "dateday", "casual", "registered"),
        ("season", "weathersit", "weekday", "month", "hour"),
    ),
)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench mlp")
    parser.add_argument("--data", type=Path, help="a folder with the whole data sets")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(arguments)
    found = {case.name: run(case, options) for case in CASES}
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


def run(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Both, pair by pair with another seed each: figures of the held-out rows, and rates."""
    data, held_x, held_y = read_case(case, options.data)
    algorithm = get_algorithm("mlp_classifier" if case.classes else "mlp_regressor")
    settings = check_options(algorithm, {"max_epochs": options.epochs, "batch_size": 256, "device": options.device})
    print(f"{case.name}: {len(data.features.x):,} rows trained on, {len(held_x):,} held out, {options.epochs} epochs at most")
    warm = {**settings, "max_epochs": 2}
    fit_ours(data, warm, 0, options.threads, case.classes), fit_script(data, warm, 0, options.threads)
    rates: list[float] = []
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    for seed in range(options.runs):
        pairs = [fit_ours(data, settings, seed, options.threads, case.classes), fit_script(data, settings, seed, options.threads)]
        (predict, rate), (script, script_rate) = pairs
        rates.append(rate / script_rate)
        ours.append(figures(case.classes, held_y, predict(held_x)))
        theirs.append(figures(case.classes, held_y, script(held_x)))
    print(f"  {rate:,.0f} rows in a second in the last run, the script {script_rate:,.0f}")
    print(f"  rows in a second, ours over the script's  {statistics.median(rates):5.2f}  ({min(rates):.2f} to {max(rates):.2f})")
    for name in ours[0]:
        a, b = (statistics.mean(found[name] for found in side) for side in (ours, theirs))
        print(f"  {name:10} ours {a:.4f}  the script's {b:.4f}  difference {a - b:+.4f}")
    return {"rates": rates, "ours": ours, "script": theirs}


# --- data -------------------------------------------------------------------------------------------------------------


def read_case(case: Case, folder: Path | None) -> tuple[TrainingData, np.ndarray, np.ndarray]:
    """A fifth held out; of the rest a tenth decides when to stop."""
    path = folder / case.whole if folder else PARTS / case.part
    text = path.read_text(encoding="utf-8") if folder else None
    table = csv.read_csv(path) if text is None else _read_text(text)
    names = [name.strip() for name in table.column_names]
    table = table.rename_columns(names)
    y = table[case.target].to_pylist()
    inputs, columns = [], {}
    for name in names:
        if name in (case.target, *case.excluded):
            continue
        values = table[name].combine_chunks()
        is_text = pa.types.is_string(values.type) or name in case.texts
        kind = Kind.TEXT if is_text else Kind.NUMBER
        columns[name] = canonical(values.cast(pa.string()) if is_text else values, kind)
        inputs.append(InputColumn(name, "", kind))
    order = np.random.default_rng(0).permutation(len(y))
    a, b = int(0.72 * len(y)), int(0.8 * len(y))
    encoder = FeatureEncoder.fit(inputs, columns.__getitem__, order[:a], "codes", 1000)
    train, valid, held = encoder.transform_rows(columns.__getitem__, [order[:a], order[a:b], order[b:]])
    target = np.array([str(value).strip() == ">50K" for value in y], np.int64) if case.classes else np.array(y, np.float64)
    features = FeatureMatrix(train, encoder.names, encoder.categorical)
    data = TrainingData(
        features,
        target[order[:a]],
        valid_x=valid,
        valid_y=target[order[a:b]],
        heldout_x=held,
        heldout_y=target[order[b:]],
        n_classes=2 if case.classes else 0,
    )
    return data, held, target[order[b:]]


def _read_text(text: str) -> pa.Table:
    """A file of which some lines are broken in two: those are left out."""
    lines = text.splitlines()
    width = lines[0].count(",")
    whole = [",".join(cell.strip() for cell in line.split(",")) for line in lines if line.count(",") == width]
    return csv.read_csv(pa.BufferReader("\n".join(whole).encode()))


def figures(classes: bool, y: np.ndarray, raw: np.ndarray) -> dict[str, float]:
    """Accuracy and area under the curve, or R²."""
    from sklearn.metrics import accuracy_score, r2_score, roc_auc_score

    if not classes:
        return {"r2": float(r2_score(y, raw))}
    return {"accuracy": float(accuracy_score(y, raw > 0.5)), "auc": float(roc_auc_score(y, raw))}


# --- ours, and the script ---------------------------------------------------------------------------------------------


def fit_ours(data: TrainingData, settings: Mapping[str, Any], seed: int, threads: int, classes: bool) -> tuple[Any, float]:
    """What predicts, and the rows in a second."""
    algorithm = get_algorithm("mlp_classifier" if classes else "mlp_regressor")
    own = {option.name: settings[option.name] for option in algorithm.options}
    report = Recorder()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        predictor = algorithm.fit(data, FitSpec(own, seed, threads, folder=Path(folder)), report)
    took = time.perf_counter() - started
    rate = len(data.features.x) * len(report.steps) / took
    return (lambda x: predictor.predict(x)[:, 1] if classes else predictor.predict(x)), rate


class Script(nn.Module):
    """What one writes in an afternoon."""

    def __init__(self, sizes: list[int], numbers: int, hidden: list[int], dropout: float) -> None:
        super().__init__()
        dims = [max(1, min(64, round(1.6 * size**0.56))) for size in sizes]
        self.embeddings = nn.ModuleList([nn.Embedding(size + 1, dim) for size, dim in zip(sizes, dims, strict=True)])
        widths = [sum(dims) + numbers, *hidden]
        layers: list[nn.Module] = []
        for i in range(len(hidden)):
            layers += [nn.Linear(widths[i], widths[i + 1]), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, codes: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        embedded = [embedding(codes[:, j]) for j, embedding in enumerate(self.embeddings)]
        scores: torch.Tensor = self.layers(torch.cat([*embedded, numbers], 1))
        return scores[:, 0]


def fit_script(data: TrainingData, settings: Mapping[str, Any], seed: int, threads: int) -> tuple[Any, float]:
    """The same budget, by hand."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    device = torch.device(settings["device"])
    x = data.features.x
    categorical = np.array(data.features.categorical)
    sizes = [int(np.nanmax(x[:, j])) + 1 for j in np.flatnonzero(categorical)]
    mean, std = np.nanmean(x[:, ~categorical], 0), np.nanstd(x[:, ~categorical], 0)

    def tensors(rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        codes = torch.from_numpy(np.nan_to_num(rows[:, categorical] + 1).astype(np.int64))
        numbers = torch.from_numpy(np.nan_to_num((rows[:, ~categorical] - mean) / std).astype(np.float32))
        return codes.to(device), numbers.to(device)

    classes = data.n_classes > 0
    y_mean, y_std = (0.0, 1.0) if classes else (float(np.mean(data.y)), float(np.std(data.y)))  # type: ignore[arg-type]
    loss_of = nn.BCEWithLogitsLoss() if classes else nn.MSELoss()

    def targets(values: Any) -> torch.Tensor:
        return torch.from_numpy(((values - y_mean) / y_std).astype(np.float32)).to(device)

    started = time.perf_counter()
    (codes, numbers), y = tensors(x), targets(data.y)
    (valid_codes, valid_numbers), valid_y = tensors(data.valid_x), targets(data.valid_y)  # type: ignore[arg-type]
    model = Script(sizes, numbers.shape[1], settings["hidden"], settings["dropout"]).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["learning_rate"], weight_decay=settings["weight_decay"])
    batch, epochs = settings["batch_size"], settings["max_epochs"]
    steps = epochs * -(-len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings["learning_rate"], total_steps=steps, pct_start=settings["warmup"], cycle_momentum=False
    )
    best, best_loss, best_epoch, done = model.state_dict(), float("inf"), 0, 0
    for epoch in range(epochs):
        model.train()
        order = torch.randperm(len(x), device=device)
        for start in range(0, len(x), batch):
            part = order[start : start + batch]
            optimizer.zero_grad()
            loss_of(model(codes[part], numbers[part]), y[part]).backward()
            optimizer.step()
            schedule.step()
        done = epoch + 1
        model.eval()
        with torch.no_grad():
            loss = float(loss_of(model(valid_codes, valid_numbers), valid_y))
        if loss < best_loss:
            best, best_loss, best_epoch = {k: v.clone() for k, v in model.state_dict().items()}, loss, done
        elif settings["patience"] and done - best_epoch >= settings["patience"]:
            break
    rate = len(x) * done / (time.perf_counter() - started)
    model.load_state_dict(best)

    def predict(rows: np.ndarray) -> Any:
        with torch.no_grad():
            z = model(*tensors(rows)).cpu().numpy()
        return 1 / (1 + np.exp(-z)) if classes else z * y_std + y_mean

    return predict, rate
