"""Ratios of a road beside the bare library, pair by pair, so that a drifting machine cancels out; and the memory of a road."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


@dataclass
class Figure:
    """One road: ``ratios`` of the bare time to its own (1.00: as fast; higher is faster), ``work`` of the processors' time, the
    extra memory of its first run as a multiple of the features as float32, or why it was ``skipped``.
    """

    case: str
    road: str
    ratios: list[float] = field(default_factory=list)
    work: list[float] = field(default_factory=list)
    seconds: float = 0.0
    memory: float | None = None
    skipped: str | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)


def seconds(action: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def compare(figure: Figure, bare: Callable[[], object], road: Callable[[], object], runs: int, *, warm: bool = False) -> Figure:
    """The bare time over the road's for each pair of runs, after a warm-up; and the road's seconds, the median.

    ``warm``: both have run before.
    """
    if not warm:
        seconds(bare), seconds(road)
    pairs = [(_times(bare), _times(road)) for _ in range(runs)]
    figure.ratios = [first[0] / second[0] for first, second in pairs]
    figure.work = [first[1] / second[1] for first, second in pairs]
    figure.seconds = statistics.median(second[0] for _, second in pairs)
    return figure


def _times(action: Callable[[], object]) -> tuple[float, float]:
    """By the clock, and of processors: this process's and its children's."""
    before, start = os.times(), time.perf_counter()
    action()
    elapsed, after = time.perf_counter() - start, os.times()
    return elapsed, max(sum(after[:4]) - sum(before[:4]), 0.01)


def peak_growth(action: Callable[[], object]) -> int | None:
    """By how many bytes this process grows at most while the action runs; None where the system does not tell."""
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        action()
        return None
    reset.write_text("5", encoding="ascii")
    before = _status("VmRSS")
    action()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(name + ":")).split()[1]) * 1024


def apart(module: str, arguments: Sequence[str], limit: float = 3600) -> Figure:
    """Measure in a process of its own, whose last line of output is the figure."""
    places = [str(REPOSITORY / part) for part in ("", "dialect", "runners", "udfs")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=limit, env=environment, check=False
    )
    if done.returncode:
        raise SystemExit(f"{module} {' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    return Figure(**json.loads(done.stdout.splitlines()[-1]))


def tell(figure: Figure) -> None:
    """The figure as the last line of output."""
    print(json.dumps(asdict(figure)))


def markdown(figures: Sequence[Figure]) -> str:
    """A table to paste."""
    lines = ["| case | road | ratio | spread | by CPU time | extra memory |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    for figure in figures:
        if figure.skipped:
            lines.append(f"| {figure.case} | {figure.road} | skipped: {figure.skipped} | | | |")
            continue
        memory = "" if figure.memory is None else f"{figure.memory:.2f} x"
        spread = f"{min(figure.ratios):.2f} to {max(figure.ratios):.2f}"
        work = statistics.median(figure.work)
        lines.append(f"| {figure.case} | {figure.road} | {figure.median:.2f} | {spread} | {work:.2f} | {memory} |")
    return "\n".join(lines)


def as_json(figures: Sequence[Figure]) -> str:
    """All of it."""
    return json.dumps([asdict(figure) for figure in figures], indent=1)
