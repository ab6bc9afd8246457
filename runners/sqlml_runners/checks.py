"""What can be told of a job before any row is read for it."""

from __future__ import annotations

import os
from pathlib import Path

from sqlml.algorithms.devices import DEVICE, check_device
from sqlml.errors import OperationalError
from sqlml.plan import PredictPlan, TrainPlan
from sqlml.registry import candidates


def wanted_device(plan: TrainPlan) -> str:
    """The option ``device`` as it was given; ``auto`` without it."""
    return next((str(value).lower() for name, value in plan.options.items() if name.lower() == DEVICE.name), "auto")


def check_gpu(plan: TrainPlan | PredictPlan) -> None:
    """``BindError`` for a GPU that is asked for and not to be had; to ask, the learning library is imported."""
    if not isinstance(plan, TrainPlan) or not wanted_device(plan).startswith("cuda"):
        return
    for algorithm in candidates(plan.algorithm):
        if DEVICE in algorithm.options:
            check_device(wanted_device(plan), algorithm.libraries)


def check_folder(staging: str | None, runner: str) -> None:
    """``OperationalError`` where the folder of a runner's option ``staging`` is not there and cannot be made; URLs pass."""
    if not staging or "://" in staging:
        return
    path = Path(staging).absolute()
    nearest = next(place for place in (path, *path.parents) if place.exists())
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return
    why = f"{nearest} cannot be written" if nearest.is_dir() else f"{nearest} is no folder"
    raise OperationalError(
        f"staging '{staging}' of the runner {runner} cannot be used: {why}",
        hint="is it mounted here? CREATE OR REPLACE RUNNER names another one",
        about="runner",
    )
