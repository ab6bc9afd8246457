"""Training of a multi-layer perceptron: epochs of shuffled batches, a learning rate by schedule, the best weights kept.

    rows → shuffled pieces → prepared on the device → batches → AdamW      after each epoch: losses, report, checkpoint

Everything that decides how the training goes on is in ``Progress``: that, the weights, the optimiser and the generator of random
numbers make a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sqlml.algorithms.adamw import AdamW
from sqlml.algorithms.checkpoints import newest_step, write_step
from sqlml.algorithms.devices import gpu_notice, torch_device
from sqlml.algorithms.mlp_network import Network, embedding_width, read_inputs
from sqlml.algorithms.mlp_predictor import HIDDEN, MlpPredictor
from sqlml.algorithms.shuffle import draw_order, read_blocks, shuffled
from sqlml.contracts import FitSpec, Report, TrainingData
from sqlml.errors import InternalError, TrainingDataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WATCHED = 50_000
"""The loss of held-out rows is of at most so many; it decides nothing."""
_BATCH = 256
_THREAD_PRODUCTS = 1 << 20
_SAMPLE = 1_000
_TOLERANCE = 1e-5
_FALL = 0.2
"""What the schedule plateau multiplies the learning rate by."""
_CHECKPOINT_SHARE = 0.05
"""The part of the time that writing checkpoints may take."""


def train_mlp(data: TrainingData, spec: FitSpec, report: Report) -> MlpPredictor:
    """Fit, or go on with a fit that was cut off; see ``sqlml.algorithms.mlp``."""
    device = torch.device(torch_device(spec.options["device"]))
    with _threads(spec.threads):
        training = _Training(data, spec, report, device)
        with _threads(min(torch.get_num_threads(), training.useful_threads())):
            training.run()
        made = training.predictor()
    if device.type == "cuda":
        report.notice(gpu_notice(str(device), made.gpu_memory))
    return made


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """torch's threads within; as they were afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass
class Progress:
    """How far it is: epochs done, the best loss and its epoch, the plateau schedule's factor, and the figures of each epoch."""

    epoch: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    factor: float = 1.0
    stale: int = 0  # epochs without improvement since the factor was last changed
    figures: list[dict[str, float]] = field(default_factory=list)


class _Training:
    def __init__(self, data: TrainingData, spec: FitSpec, report: Report, device: torch.device) -> None:
        self.data, self.spec, self.report, self.device = data, spec, report, device
        self.options = spec.options
        self.progress = Progress()
        self.start = spec.start if isinstance(spec.start, MlpPredictor) else None
        self.generator = torch.Generator(device).manual_seed(spec.seed)
        self.network = self._network().to(device)
        network = self.network
        self.optimizer = AdamW(list(network.weights), [*network.biases, *network.embeddings], self.options["weight_decay"])
        self.target = self._target()
        self.weight = _weights(data.weight)
        self.best = self._copy()
        rows = len(data.features.x)
        self.batch = self.options["batch_size"] or min(_BATCH, max(16, rows // 32))
        self.steps = math.ceil(rows / self.batch)
        self._written = (0.0, 0.0)  # when a checkpoint was written last, and how long it took
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    # --- what there is to begin with ---

    def _network(self) -> Network:
        outputs = self.data.n_classes if self.data.n_classes > 2 else 1
        if self.start is not None:
            return self._continued(self.start, outputs)
        inputs = read_inputs(self.data.features)
        widths = [embedding_width(int(size), self.options["embedding_dim"]) for size in inputs.sizes]
        network = Network(inputs, widths, self.options["hidden"], outputs, self.options["activation"])
        network.draw(torch.Generator().manual_seed(self.spec.seed))
        return network

    def _continued(self, start: MlpPredictor, outputs: int) -> Network:
        found = [start.classes, start.features, start.arrays["categories"].tolist()]
        categories = np.flatnonzero(self.data.features.categorical).tolist()
        if found != [self.data.n_classes, len(self.data.features.names), categories]:
            raise TrainingDataError("the model to go on from has other features or classes")
        network = Network.from_arrays(start.arrays)
        hidden = [len(bias) for bias in network.biases][:-1]
        if self.options["hidden"] not in (hidden, HIDDEN):
            raise TrainingDataError(
                f"WARM START goes on with hidden = {hidden}, the model's own; the statement asks for {self.options['hidden']}",
                hint="leave out hidden, or WARM START",
                about="warm_start",
            )
        if [hidden, network.activation] != [self.options["hidden"], self.options["activation"]]:
            self.report.notice(f"hidden = {hidden} and activation = '{network.activation}', as in the model to go on from")
        return network

    def _target(self) -> tuple[float, float]:
        """Mean and scale of a regression's target."""
        if self.data.n_classes:
            return 0.0, 1.0
        if self.start is not None:
            mean, scale = self.start.arrays["target"]
            return float(mean), float(scale)
        y = np.asarray(self.data.y, np.float64)
        return float(y.mean()), float(y.std()) or 1.0

    def _targets(self, y: NDArray[Any]) -> Tensor:
        """What the scores are compared with."""
        if self.data.n_classes > 2:
            return torch.from_numpy(np.ascontiguousarray(y, np.int64))
        mean, scale = self.target
        return torch.from_numpy(((np.asarray(y, np.float64) - mean) / scale).astype(np.float32))

    def useful_threads(self) -> int:
        """How many threads a step is worth: of a small one the threads' waiting for each other takes longer than the work."""
        products: int = self.batch * sum(weight.numel() for weight in self.network.weights)
        return int(max(1, products // _THREAD_PRODUCTS))

    # --- epochs ---

    def run(self) -> None:
        """All epochs, or those that are left."""
        self._resume()
        targets = self._targets(np.asarray(self.data.y))
        total = self.options["max_epochs"]
        for step, figures in enumerate(self.progress.figures):  # the curves of the whole fit, told again
            self.report.step(step + 1, total, figures)
        while self.progress.epoch < total and not self._finished():
            loss = self._epoch(targets)
            if not math.isfinite(loss):
                raise TrainingDataError(
                    f"the loss is no longer a finite number in epoch {self.progress.epoch + 1}",
                    hint="a smaller learning_rate may help, or a smaller scale of the weights",
                )
            figures = self._figures(loss)
            self._decide(figures)
            self._checkpoint(last=self.progress.epoch == total or self._finished())
            self.report.step(self.progress.epoch, total, figures)

    def _finished(self) -> bool:
        patience, state = self.options["patience"], self.progress
        return bool(patience and self.data.valid_x is not None and state.epoch - state.best_epoch >= patience)

    def _epoch(self, targets: Tensor) -> float:
        """One pass over all rows; the mean loss."""
        batch, done = self.batch, 0
        order = draw_order(len(self.data.features.x), self.spec.seed, self.progress.epoch)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for rows, numbers in shuffled(self.data.features.x, order, batch, self.spec.folder):
            places = torch.from_numpy(numbers)
            y = targets[places].to(self.device)
            weight = None if self.weight is None else self.weight[places].to(self.device)
            codes, values = self.network.prepare(torch.from_numpy(rows).to(self.device))
            for start in range(0, len(rows), batch):
                part = slice(start, start + batch)
                w = None if weight is None else weight[part]
                step = self.progress.epoch * self.steps + done
                total += self._step(codes[:, part], values[part], y[part], w, step)
                done += 1
        return float(total) / max(1, len(self.data.features.x))

    def _step(self, codes: Tensor, values: Tensor, y: Tensor, weight: Tensor | None, number: int) -> Tensor:
        """One batch; the sum of its losses."""
        with self._autocast():
            scores = self.network(codes, values, self.options["dropout"], self.generator)
        loss = self._loss(scores.float(), y, weight)
        self.optimizer.step(loss / len(y), self._rate(number))
        return loss.detach()

    def _autocast(self) -> Any:
        wanted = self.options["precision"]
        bf16 = wanted == "bf16" or (wanted == "auto" and self.device.type == "cuda")
        return torch.autocast(self.device.type, torch.bfloat16) if bf16 else nullcontext()

    def _loss(self, scores: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        """The sum over the rows of a batch."""
        functional = torch.nn.functional
        if weight is None:
            if self.data.n_classes > 2:
                return functional.cross_entropy(scores, y, reduction="sum")
            if self.data.n_classes:
                return functional.binary_cross_entropy_with_logits(scores[:, 0], y, reduction="sum")
            return functional.mse_loss(scores[:, 0], y, reduction="sum")
        if self.data.n_classes > 2:
            losses = functional.cross_entropy(scores, y, reduction="none")
        elif self.data.n_classes:
            losses = functional.binary_cross_entropy_with_logits(scores[:, 0], y, reduction="none")
        else:
            losses = (scores[:, 0] - y) ** 2
        return (losses * weight).sum()

    def _rate(self, number: int) -> float:
        """The learning rate of a step."""
        total = float(self.steps * self.options["max_epochs"])
        warm: float = self.options["warmup"] * total
        rate = float(self.options["learning_rate"])
        if number < warm:
            return rate * (number + 1) / (warm + 1)
        if self.options["schedule"] == "cosine":
            return rate * 0.5 * (1 + math.cos(math.pi * (number - warm) / max(1.0, total - warm)))
        return rate * self.progress.factor

    # --- after each epoch ---

    def _figures(self, loss: float) -> dict[str, float]:
        figures = {self._named("train"): self._shown(loss)}
        if self.data.valid_x is not None:
            figures[self._named("valid")] = self._shown(self._measured(self.data.valid_x, self.data.valid_y))
        if self.data.heldout_x is not None:
            held, y = self.data.heldout_x[:_WATCHED], np.asarray(self.data.heldout_y)[:_WATCHED]
            figures[self._named("heldout")] = self._shown(self._measured(held, y))
        return figures

    def _named(self, part: str) -> str:
        return f"{part}_{'logloss' if self.data.n_classes else 'rmse'}"

    def _shown(self, loss: float) -> float:
        """The mean loss as it is told: of a regression the root of the squares, in the target's own unit."""
        return loss if self.data.n_classes else math.sqrt(max(0.0, loss)) * self.target[1]

    @torch.no_grad()
    def _measured(self, x: NDArray[np.float32], y: Any) -> float:
        """The mean loss of some rows."""
        targets, total = self._targets(np.asarray(y)), 0.0
        for place, block in read_blocks(x):
            codes, values = self.network.prepare(torch.from_numpy(np.ascontiguousarray(block)).to(self.device))
            with self._autocast():
                scores = self.network(codes, values)
            total += float(self._loss(scores.float(), targets[place].to(self.device), None))
        return total / max(1, len(x))

    def _decide(self, figures: Mapping[str, float]) -> None:
        """Whether the weights are the best so far: by the rows for early stopping, or, without any, always."""
        state = self.progress
        state.epoch += 1
        state.figures.append(dict(figures))
        watched = self.options["patience"] and self.data.valid_x is not None
        loss = figures[self._named("valid" if watched else "train")]
        better = loss < state.best_loss
        state.stale = 0 if better else state.stale + 1
        if better:
            state.best_loss = loss
        if better or not watched:
            state.best_epoch = state.epoch
            self.best = self._copy()
        if self.options["schedule"] == "plateau" and state.stale >= max(1, (self.options["patience"] or 10) // 3):
            state.factor, state.stale = state.factor * _FALL, 0

    def _copy(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}

    # --- checkpoints ---

    def _checkpoint(self, last: bool) -> None:
        """Keep where it is: after every epoch, unless that would take a noticeable part of the time."""
        folder = self.spec.folder
        before, took = self._written
        now = time.perf_counter()
        if folder is None or not (last or before == 0 or took < _CHECKPOINT_SHARE * (now - before)):
            return
        state = {
            "fit": self._identity(),
            "progress": json.dumps(asdict(self.progress)),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "generator": self.generator.get_state(),
        }
        write_step(folder, self.progress.epoch, lambda path: torch.save(state, path))
        self._written = (time.perf_counter(), time.perf_counter() - now)

    def _resume(self) -> None:
        """Take up what a fit of the same rows and options kept in the folder.  Only tensors and plain values are read."""
        path = newest_step(self.spec.folder) if self.spec.folder else None
        if path is None:
            return
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except Exception as error:  # cut off with the whole machine: torch has no error of its own for that
            self.report.notice(f"the checkpoint {path.name} cannot be read ({type(error).__name__}): training from the start")
            return
        if state["fit"] != self._identity():
            return
        self.progress = Progress(**json.loads(state["progress"]))
        self.optimizer.load_state_dict(state["optimizer"])
        self.best = {name: value.cpu() for name, value in state["best"].items()}
        self.generator.set_state(state["generator"].cpu())

    def _identity(self) -> str:
        """What makes it the same fit: options, seed, and the rows, by some of them."""
        x, y = self.data.features.x, np.asarray(self.data.y)
        told = [dict(self.options), self.spec.seed, x.shape, self.data.features.names, self.data.n_classes]
        digest = hashlib.sha256(json.dumps(told, default=str).encode())
        digest.update(np.ascontiguousarray(x[:_SAMPLE]).data)
        digest.update(np.ascontiguousarray(y).data)
        return digest.hexdigest()

    # --- what comes of it ---

    def predictor(self) -> MlpPredictor:
        """The best weights, as arrays.  ``InternalError`` where they do not compute what torch does."""
        self.network.load_state_dict(self.best)
        self._mean_of_unseen()
        x = self.data.features.x[:_SAMPLE]
        arrays = self.network.arrays()
        before = 0 if self.start is None else int(self.start.arrays["rounds"][0])
        arrays |= {
            "classes": np.array([self.data.n_classes]),
            "target": np.array(self.target),
            "rounds": np.array([before + self.progress.best_epoch]),
        }
        draft = MlpPredictor(arrays)
        reference = draft.first_inputs(x).mean(0)
        draft = MlpPredictor(arrays | {"reference": reference})
        sizes = np.abs(draft.contributions(x)[:, :, :-1]).mean((0, 1))
        shares = sizes / sizes.sum() if sizes.sum() > 0 else sizes
        made = MlpPredictor(draft.arrays | {"importance": shares})
        _check(made, self.network.cpu(), np.ascontiguousarray(x))
        if self.device.type == "cuda":
            made.gpu_memory = torch.cuda.max_memory_reserved(self.device)
        return made

    @torch.no_grad()
    def _mean_of_unseen(self) -> None:
        """A category that is missing or new counts as the average of all, where training had no such row to learn from."""
        tables, columns = list(self.network.embeddings), self.network.inputs.categories
        counts = [np.zeros(len(table)) for table in tables]
        for _, block in read_blocks(self.data.features.x) if tables else ():
            for count, column in zip(counts, columns, strict=True):
                codes = np.nan_to_num(block[:, column], nan=-1).astype(np.int64) + 1
                count += np.bincount(codes[codes < len(count)], minlength=len(count))
        for table, count in zip(tables, counts, strict=True):
            if count[0] == 0 and count.sum() > 0:
                table[0] = torch.from_numpy(count / count.sum()).to(table) @ table


def _weights(weight: NDArray[np.float64] | None) -> Tensor | None:
    """With the mean 1: the loss stays of the size that the learning rate is meant for."""
    if weight is None:
        return None
    return torch.from_numpy((weight / (weight.mean() or 1.0)).astype(np.float32))


@torch.no_grad()
def _check(predictor: MlpPredictor, network: Network, x: NDArray[np.float32]) -> None:
    """Compare the predictor with torch itself on real rows."""
    z = network(*network.prepare(torch.from_numpy(x))).double().numpy()
    if predictor.classes > 2:
        expected = torch.softmax(torch.from_numpy(z), 1).numpy()
    elif predictor.classes:
        expected = torch.sigmoid(torch.from_numpy(np.hstack([-z, z]))).numpy()
    else:
        mean, scale = predictor.arrays["target"]
        expected = z[:, 0] * scale + mean
    largest = max(1.0, float(np.abs(expected).max(initial=0.0)))
    off = float(np.abs(predictor.predict(x) - expected).max(initial=0.0)) / largest
    if not off <= _TOLERANCE:
        raise InternalError(f"the trained network as a graph differs from torch's own answers by {off:.2g}")
