"""The option ``device``: what it comes to without a GPU, and the error that says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlml_runners.process import ProcessRunner

from sqlml.algorithms import devices
from sqlml.algorithms.devices import choose_device, visible_gpus
from sqlml.errors import BindError
from sqlml.registry import get_algorithm, names
from tests.jobs import make_job, people

EXCLUDED = ["z", "w", "町", "day", "at", "clock"]


@pytest.mark.parametrize(
    ("wanted", "usable", "found"),
    [("auto", 0, "cpu"), ("cpu", 2, "cpu"), ("auto", 2, "cuda:0"), ("cuda", 1, "cuda:0"), ("cuda:1", 2, "cuda:1")],
)
def test_what_a_device_comes_to(wanted: str, usable: int, found: str) -> None:
    assert choose_device(wanted, usable, "the library") == found


def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(BindError) as caught:
        choose_device("cuda", 0, "torch 9, which is built without CUDA")
    assert caught.value.message == "device = 'cuda': there is no GPU here (torch 9, which is built without CUDA)"
    with pytest.raises(BindError, match="device = 'cuda:4': there are 2 GPUs"):
        choose_device("cuda:4", 2, "")


@pytest.mark.parametrize(
    ("listed", "visible", "found"),
    [
        (("A", "B"), None, ("A", "B")),
        (("A", "B"), "1", ("B",)),
        (("A", "B"), "", ()),
        (("A", "B"), "-1", ()),
        (("A", "B"), "GPU-x", ("A",)),
        ((), "0", ()),
    ],
)
def test_visible_gpus(
    monkeypatch: pytest.MonkeyPatch, listed: tuple[str, ...], visible: str | None, found: tuple[str, ...]
) -> None:
    monkeypatch.setattr(devices, "_all_gpus", lambda: listed)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_gpus() == found


WITH_DEVICE = [n for n in names("algorithm") if any(o.name == "device" for o in get_algorithm(n).options)]


def test_who_has_a_device() -> None:
    assert {name.rpartition("_")[0] for name in WITH_DEVICE} == {"xgboost", "random_forest", "mlp"}


@pytest.mark.skipif(bool(visible_gpus()), reason="there is a GPU here")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name.startswith("mlp") else ()) for name in WITH_DEVICE],  # torch loads slowly
)
def test_without_a_gpu_training_is_refused_before_anything_is_read(tmp_path: Path, name: str) -> None:
    target = "y" if name.endswith("classifier") else "x"
    spec = make_job(tmp_path, people(60), target, name, exclude=EXCLUDED, options={"device": "cuda"})
    (tmp_path / "train.arrow").unlink()  # it is not even opened
    with pytest.raises(BindError, match=r"device = 'cuda': there is no GPU here \((torch|xgboost) \d") as caught:
        ProcessRunner().submit(spec)
    assert "'auto' takes a GPU where there is one" in (caught.value.hint or "")
