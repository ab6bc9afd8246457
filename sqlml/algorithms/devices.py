"""Which GPUs there are, asked without importing a learning library, and what the option ``device`` comes to."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from sqlml.contracts import OptionSpec
from sqlml.errors import BindError, count_of

DEVICE = OptionSpec(
    "device", "device", "auto", "where it is trained; auto: on a GPU where there is one, else on the CPU; predictions: on the CPU"
)
_SECONDS = 10


def visible_gpus() -> tuple[str, ...]:
    """The names of the GPUs that this process may use, in CUDA's order; empty without a driver or without a device."""
    found, wanted = _all_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return found
    places = [place.strip() for place in wanted.split(",")]
    numbers = [int(place) for place in places if place.isdigit() and int(place) < len(found)]
    # devices may also be named by their UUID: how many there are is then all that is known
    return tuple(found[i] for i in numbers) or found[: sum(place.startswith(("GPU-", "MIG-")) for place in places)]


@cache
def _all_gpus() -> tuple[str, ...]:
    """By ``nvidia-smi -L`` where it is installed, else by the driver's own files."""
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    nodes = [path for path in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
    listed = _nvidia_smi("-L") if shutil.which("nvidia-smi") else ""
    names = re.findall(r"^GPU \d+: (.*?)(?: \(UUID.*)?$", listed, re.MULTILINE)
    if names:
        return tuple(names)
    models = [re.search(r"^Model:\s*(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE) for path in files]
    return tuple(match[1].strip() if match else "NVIDIA GPU" for match in models) if nodes else ()


def used_memory(number: int) -> int:
    """The bytes of a GPU's memory that are in use, by whomever; 0 where nobody tells."""
    text = _nvidia_smi("--query-gpu=memory.used", "--format=csv,noheader,nounits", f"--id={number}")
    return int(text.split()[0]) * 2**20 if text.split()[:1] and text.split()[0].isdigit() else 0


def _nvidia_smi(*arguments: str) -> str:
    try:
        done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def device_number(device: str) -> int:
    """1 of ``cuda:1``, 0 of ``cuda``."""
    return int(device.partition(":")[2] or 0)


def choose_device(wanted: str, usable: int, why_none: str) -> str:
    """``cpu`` or ``cuda:<n>`` for what the option says, with ``usable`` GPUs for the library at hand.

    ``BindError`` for a GPU that is not there; ``why_none`` says what the library is, and why it has none.
    """
    if wanted == "cpu" or (wanted == "auto" and not usable):
        return "cpu"
    number = 0 if wanted == "auto" else device_number(wanted)
    if number < usable:
        return f"cuda:{number}"
    here = (
        f"there is no GPU here ({why_none})"
        if not usable
        else f"there {'is' if usable == 1 else 'are'} {count_of(usable, 'GPU')}"
    )
    hint = "'auto' takes a GPU where there is one and the CPU otherwise" + (f"; the first is 'cuda:{0}'" if usable else "")
    raise BindError(f"device = '{wanted}': {here}", hint=hint, about=DEVICE.name)


def torch_device(wanted: str) -> str:
    """The same for torch, which is imported."""
    import torch

    usable = torch.cuda.device_count() if wanted != "cpu" and torch.cuda.is_available() else 0
    built = "" if torch.version.cuda else ", which is built without CUDA"
    return choose_device(wanted, usable, f"torch {torch.__version__}{built}")


def xgboost_device(wanted: str) -> str:
    """The same for xgboost, which is imported."""
    if wanted == "cpu" or (wanted == "auto" and not visible_gpus()):
        return "cpu"  # most often: without a look at how it was built
    import xgboost

    built = bool(xgboost.build_info().get("USE_CUDA"))
    usable = len(visible_gpus()) if built else 0
    why = "" if built else ", which is built without CUDA"
    return choose_device(wanted, usable, f"xgboost {xgboost.__version__}{why}")


def gpu_notice(device: str, memory: int) -> str:
    """``trained on cuda:0 (NVIDIA H200), 512 MiB of its memory``"""
    found, number = visible_gpus(), device_number(device)
    name = f" ({found[number]})" if number < len(found) else ""
    return f"trained on {device}{name}, {memory / 2**20:,.0f} MiB of its memory"


def check_device(wanted: str, libraries: tuple[str, ...]) -> str:
    """What the option says for an algorithm of one of these libraries; ``BindError`` for a GPU that is not there."""
    return torch_device(wanted) if "torch" in libraries else xgboost_device(wanted)
