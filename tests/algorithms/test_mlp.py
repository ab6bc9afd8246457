"""Multi-layer perceptrons: against torch itself, resumed, odd rows, contributions, options."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sqlml.algorithms.arrays import load_arrays
from sqlml.algorithms.checkpoints import last_step, newest_step, write_step
from sqlml.algorithms.mlp_predictor import MlpPredictor
from sqlml.algorithms.options import check_options
from sqlml.algorithms.shuffle import file_matrix
from sqlml.contracts import FitSpec, TrainingData
from sqlml.errors import BindError, TrainingDataError
from sqlml.registry import get_algorithm
from tests.algorithms.fitting import classes_of, fit, numbers, table
from tests.jobs import Recorder

SMALL: dict[str, Any] = {"hidden": [16, 8], "max_epochs": 6, "batch_size": 32}


def mixed(rows: int = 300) -> np.ndarray:
    """Numbers with gaps, and column 2 of codes with gaps."""
    x = numbers(rows)
    x[:, 2] = np.random.default_rng(1).integers(0, 6, rows)
    x[::11, 2], x[::7, 0] = np.nan, np.nan
    return x


def data_of(classes: int, rows: int = 300, **more: Any) -> TrainingData:
    x = mixed(rows)
    y = classes_of(np.nan_to_num(x), classes) if classes else np.nan_to_num(x).sum(1) * 100 + 1_000
    return replace(table(x, y, (2,)), **more)


def fitted(data: TrainingData, report: Recorder | None = None, threads: int = 1, **options: Any) -> MlpPredictor:
    name = "mlp_classifier" if data.n_classes else "mlp_regressor"
    folder, seed = options.pop("folder", None), options.pop("seed", 0)
    spec = FitSpec(check_options(get_algorithm(name), {**SMALL, **options}), seed, threads, folder=folder)
    found = get_algorithm(name).fit(data, spec, report or Recorder())
    assert isinstance(found, MlpPredictor)
    return found


def same(one: MlpPredictor, two: MlpPredictor) -> bool:
    return one.arrays.keys() == two.arrays.keys() and all(np.array_equal(one.arrays[n], two.arrays[n]) for n in one.arrays)


# --- what it computes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "tanh"])
@pytest.mark.parametrize("classes", [0, 2, 3])
def test_the_predictor_is_torchs_network(classes: int, activation: str) -> None:
    import torch

    from sqlml.algorithms.mlp_network import Network

    data = data_of(classes)
    ours = fitted(data, activation=activation)
    x = np.vstack([data.features.x, np.full((1, 5), np.nan), np.full((1, 5), 3.4e38), np.full((1, 5), -3.4e38)])
    x[-1, 2], x[-2, 2] = -1, 99
    x = x.astype(np.float32)
    network = Network.from_arrays(ours.arrays)
    with torch.no_grad():
        z = network(*network.prepare(torch.from_numpy(x))).double()
    if classes:
        wanted = torch.softmax(torch.cat([torch.zeros_like(z), z], 1) if classes == 2 else z, 1).numpy()
    else:
        mean, scale = ours.arrays["target"]
        wanted = z[:, 0].numpy() * scale + mean
    assert np.abs(ours.predict(x) - wanted).max() <= 1e-5 * max(1, np.abs(wanted).max())
    assert np.isfinite(ours.predict(x)).all()


def test_optimiser_is_torchs_own() -> None:
    import torch

    from sqlml.algorithms.adamw import AdamW

    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(4, 3, generator=generator), torch.randn(4, generator=generator)]
    mine, theirs = ([torch.nn.Parameter(value.clone()) for value in drawn] for _ in range(2))
    ours = AdamW(mine[:1], mine[1:], 0.1)
    other = torch.optim.AdamW([{"params": theirs[:1], "weight_decay": 0.1}, {"params": theirs[1:], "weight_decay": 0.0}], lr=0.01)
    x = torch.randn(8, 3, generator=generator)
    for _ in range(20):
        ours.step((torch.nn.functional.linear(x, mine[0], mine[1]) ** 2).sum(), 0.01)
        other.zero_grad()
        (torch.nn.functional.linear(x, theirs[0], theirs[1]) ** 2).sum().backward()  # type: ignore[no-untyped-call]
        other.step()
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("classes", [0, 2, 4])
def test_it_learns(classes: int) -> None:
    data = data_of(classes, 3_000)
    ours = fitted(data, hidden=[32], max_epochs=40)
    raw = ours.predict(data.features.x)
    if classes:
        assert (raw.argmax(1) == data.y).mean() > (0.93 if classes == 2 else 0.8)
    else:
        assert isinstance(data.y, np.ndarray)
        assert 1 - ((raw - data.y) ** 2).sum() / ((data.y - data.y.mean()) ** 2).sum() > 0.98


def test_a_linear_network_has_a_linear_models_contributions() -> None:
    data = data_of(0)
    ours = fitted(data, hidden=[])
    found = ours.contributions(data.features.x)
    weight, scale = ours.arrays["weight_0"].astype(float), ours.arrays["target"][1]
    apart = ours.first_inputs(data.features.x) - ours.arrays["reference"]
    width = ours.arrays["embedding_0"].shape[1]
    assert np.allclose(found[:, 0, 1], (apart[:, width + 1] * weight[width + 1, 0]) * scale)
    assert np.allclose(found[:, 0, 2], (apart[:, :width] @ weight[:width, 0]) * scale)


def test_contributions_and_importance_find_what_matters() -> None:
    x = numbers(2_000)
    ours = fitted(table(x, (x[:, 3] > 0).astype(int)), max_epochs=20)
    assert ours.importance().argmax() == 3
    assert ours.importance()[3] > 0.7
    far = np.where(np.arange(5) == 3, 30, x.mean(0)).astype(np.float32)[None]
    assert ours.contributions(far)[0, 0].argmax() == 3


def test_threads_and_blocks_change_nothing() -> None:
    ours = fitted(data_of(3))
    x = mixed(10_000)
    one = ours.predict(x)
    ours.threads = 3
    assert np.array_equal(ours.predict(x), one)
    assert np.allclose(ours.predict(x[5_000:5_001]), one[5_000:5_001], atol=1e-6)


# --- odd rows ---------------------------------------------------------------------------------------------------------


def test_an_unseen_category_is_the_average_of_all() -> None:
    x = numbers()
    x[:, 2] = np.random.default_rng(1).integers(0, 6, len(x))
    ours = fitted(table(x, classes_of(x, 2), (2,)))
    row, unseen = x[:1].copy(), x[:1].copy()
    share = np.bincount(x[:, 2].astype(int)) / len(x)
    embedding = ours.arrays["embedding_0"]
    assert np.allclose(embedding[0], share @ embedding[1:], atol=1e-6)
    unseen[0, 2], row[0, 2] = 6, np.nan
    assert np.array_equal(ours.predict(unseen), ours.predict(row))


def test_a_number_that_was_never_missing_is_its_mean() -> None:
    x = numbers()
    ours = fitted(table(x, classes_of(x, 2)))
    gap, mean = x[:1].copy(), x[:1].copy()
    gap[0, 1], mean[0, 1] = np.nan, x[:, 1].astype(np.float64).mean()
    assert np.allclose(ours.predict(gap), ours.predict(mean), atol=1e-5)
    assert not len(ours.arrays["flags"])


def test_what_does_not_vary_counts_nothing_whatever_comes() -> None:
    x = numbers()
    y = classes_of(x, 2)
    x[:, 4] = 1e6
    ours = fitted(table(x, y))
    other = x.copy()
    other[:, 4] = -5
    assert np.array_equal(ours.predict(other), ours.predict(x))


def test_one_class_one_row_no_weight() -> None:
    x = numbers(40)
    none = np.zeros(40, np.int64)
    alone = replace(table(x, none), n_classes=2)
    assert fitted(alone, max_epochs=60, learning_rate=0.02).predict(x)[:, 0].min() > 0.8
    assert np.isfinite(fitted(replace(alone, weight=np.zeros(40))).predict(x)).all()
    one = table(x[:1], np.array([5.0]))
    assert np.allclose(fitted(one, max_epochs=60, learning_rate=0.02, dropout=0.0).predict(x[:1]), 5, atol=0.5)


def test_weights_count() -> None:
    x = numbers(600)
    y = np.random.default_rng(0).integers(0, 2, 600)
    ours = fitted(replace(table(x, y), weight=np.where(y == 1, 9.0, 1.0)), hidden=[], max_epochs=20, learning_rate=0.05)
    assert 0.85 < ours.predict(x)[:, 1].mean() < 0.95


def test_a_loss_that_explodes_is_told() -> None:
    with pytest.raises(TrainingDataError, match="no longer a finite number in epoch"):
        fitted(data_of(0), learning_rate=1e30, warmup=0.0)


# --- epochs -----------------------------------------------------------------------------------------------------------


def test_early_stopping_keeps_the_best_epoch() -> None:
    data = data_of(2)
    noise = np.random.default_rng(0).integers(0, 2, 300)
    held = replace(data, y=noise, valid_x=data.features.x[:100], valid_y=noise[:100][::-1].copy())
    report = Recorder()
    ours = fitted(held, report, max_epochs=200, patience=4, schedule="constant", learning_rate=0.01)
    losses = [figures["valid_logloss"] for _, _, figures in report.steps]
    assert ours.parameters()["rounds"] == np.argmin(losses) + 1
    assert len(losses) == np.argmin(losses) + 1 + 4 < 200
    p = ours.predict(held.features.x[:100])[np.arange(100), np.asarray(held.valid_y)]
    assert -np.log(p).mean() == pytest.approx(min(losses), abs=1e-5)


def test_figures_are_in_the_targets_unit() -> None:
    data = data_of(0)
    report = Recorder()
    ours = fitted(replace(data, heldout_x=data.features.x[:50], heldout_y=np.asarray(data.y)[:50]), report)
    off = ours.predict(data.features.x[:50]) - np.asarray(data.y)[:50]
    assert report.steps[-1][2]["heldout_rmse"] == pytest.approx(np.sqrt((off**2).mean()), rel=1e-4)
    assert [step for step, _, _ in report.steps] == list(range(1, 7))


@pytest.mark.parametrize("schedule", ["cosine", "plateau", "constant"])
def test_the_same_seed_gives_the_same_network(schedule: str) -> None:
    import torch

    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    one, two = fitted(data_of(2), schedule=schedule), fitted(data_of(2), schedule=schedule)
    assert same(one, two)
    assert not same(one, fitted(data_of(2), schedule=schedule, seed=1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_fits_in_many_threads_at_once_do_not_disturb_each_other() -> None:
    wanted = fitted(data_of(2))
    found: list[MlpPredictor] = []
    pool = [threading.Thread(target=lambda: found.append(fitted(data_of(2)))) for _ in range(3)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    assert [same(one, wanted) for one in found] == [True] * 3


def test_a_matrix_in_a_file_gives_the_same_network(tmp_path: Path) -> None:
    data = data_of(3)
    x = file_matrix(tmp_path / "x", *data.features.x.shape)
    x[:] = data.features.x
    assert same(fitted(replace(data, features=replace(data.features, x=x)), folder=tmp_path / "fit"), fitted(data))


def test_going_on_from_another_network() -> None:
    data = data_of(2)
    first = fitted(data, activation="tanh")
    report = Recorder()
    spec = FitSpec(check_options(get_algorithm("mlp_classifier"), {"max_epochs": 3}), 0, 1, first)
    second = get_algorithm("mlp_classifier").fit(data, spec, report)
    assert second.parameters()["rounds"] == 9
    assert report.notices == ["hidden = [16, 8] and activation = 'tanh', as in the model to go on from"]


# --- resumed ----------------------------------------------------------------------------------------------------------


class Killed(Exception):
    """What stands for a signal."""


class Dying(Recorder):
    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def step(self, step: int, total: int, metrics: Any) -> None:
        super().step(step, total, metrics)
        if step == self.after:
            raise Killed


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_a_fit_that_was_cut_off_goes_on_to_the_same_result(tmp_path: Path, schedule: str) -> None:
    data = data_of(2)
    data = replace(data, valid_x=data.features.x[:60], valid_y=np.asarray(data.y)[:60])
    whole = Recorder()
    wanted = fitted(data, whole, schedule=schedule, max_epochs=12)
    for after in (3, 7):
        with pytest.raises(Killed):
            fitted(data, Dying(after), schedule=schedule, max_epochs=12, folder=tmp_path / "fits" / "a")
        assert last_step(tmp_path) is not None
    again = Recorder()
    assert same(fitted(data, again, schedule=schedule, max_epochs=12, folder=tmp_path / "fits" / "a"), wanted)
    assert again.steps == whole.steps  # the curves of the whole fit
    done = Recorder()
    assert same(fitted(data, done, schedule=schedule, max_epochs=12, folder=tmp_path / "fits" / "a"), wanted)


def test_another_fits_checkpoint_is_not_taken(tmp_path: Path) -> None:
    fitted(data_of(2), folder=tmp_path)
    assert same(fitted(data_of(2), folder=tmp_path, seed=1), fitted(data_of(2), seed=1))


def test_a_damaged_checkpoint_is_told_and_left(tmp_path: Path) -> None:
    (tmp_path / "step-3").write_bytes(b"nothing of the kind")
    report = Recorder()
    assert same(fitted(data_of(2), report, folder=tmp_path), fitted(data_of(2)))
    assert report.notices == ["the checkpoint step-3 cannot be read (UnpicklingError): training from the start"]


def test_a_checkpoint_that_wants_to_run_code_does_not(tmp_path: Path) -> None:
    import pickle

    import torch

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"fit": Evil()}, tmp_path / "step-1", pickle_module=pickle)
    report = Recorder()
    fitted(data_of(2), report, folder=tmp_path)
    assert not (tmp_path / "ran").exists()
    assert "cannot be read" in report.notices[0]


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def test_steps_are_whole_or_not_at_all(tmp_path: Path) -> None:
    def fails(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("no room")

    folder = tmp_path / "fits" / "one"
    assert (newest_step(folder), last_step(tmp_path)) == (None, None)
    write_step(folder, 9, lambda path: _write(path, b"nine"))
    with pytest.raises(OSError, match="no room"):
        write_step(folder, 10, fails)
    assert last_step(tmp_path) == 9
    write_step(folder, 10, lambda path: _write(path, b"ten"))
    newest = newest_step(folder)
    assert newest is not None
    assert newest.read_bytes() == b"ten"
    assert last_step(tmp_path) == 10


# --- options and files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"hidden": [64, 0]}, "option hidden of mlp_classifier is a list of integers ≥ 1 and ≤ 65536 (got a list)"),
        ({"hidden": [1.5]}, "option hidden of mlp_classifier is a list of integers ≥ 1 and ≤ 65536 (got a list)"),
        ({"hidden": 64}, "option hidden of mlp_classifier is a list of integers ≥ 1 and ≤ 65536 (got the number 64)"),
        ({"dropout": 1}, "option dropout of mlp_classifier is a number ≥ 0 and < 1 (got the number 1)"),
        (
            {"device": "gpu"},
            "option device of mlp_classifier is 'auto', 'cpu', 'cuda' or 'cuda:<number>' (got the text 'gpu')",
        ),
    ],
)
def test_options_out_of_range(given: dict[str, Any], message: str) -> None:
    with pytest.raises(BindError) as caught:
        check_options(get_algorithm("mlp_classifier"), given)
    assert caught.value.message == message


def test_options_are_kept_as_they_are() -> None:
    found = check_options(get_algorithm("mlp_regressor"), {"hidden": [], "device": "CUDA:1", "patience": 0})
    assert (found["hidden"], found["device"], found["patience"]) == ([], "cuda:1", 0)
    assert check_options(get_algorithm("mlp_regressor"), found) == found


def test_what_is_saved_is_arrays_and_is_read_without_torch(tmp_path: Path) -> None:
    fit("mlp_classifier", data_of(2), **SMALL).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mlp.npz"]
    assert {"embedding_0", "weight_0", "bias_2", "mean"} <= load_arrays(tmp_path / "mlp.npz").keys()
    import os
    import subprocess
    import sys

    code = (
        "import sys, numpy; from pathlib import Path; from sqlml.registry import get_algorithm\n"
        f"p = get_algorithm('mlp_classifier').load(Path({str(tmp_path)!r}))\n"
        "print(p.predict(numpy.zeros((3, 5), 'float32')).shape, 'torch' in sys.modules)"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == "(3, 2) False"
