"""What a running job tells, as a person sees it: a bar while it runs, gone when it is done, and notices above it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

BAR_WIDTH = 34


def step_text(event: Mapping[str, Any]) -> str:
    """What an event ``step`` tells beside its number: metrics, or rows a second."""
    rate = event.get("rows_per_second")
    return metrics_text(event.get("metrics") or {}) if rate is None else f"{_rounded(rate)} rows/s"


def _rounded(number: float) -> str:
    """Two or three digits: ``950``, ``12 k``, ``1.24 M``."""
    for size, sign in ((1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{sign}"
    return f"{number:.0f}"


def metrics_text(metrics: Mapping[str, float]) -> str:
    """The held-out metrics where there are any, else the training part's: ``logloss 0.281  roc_auc 0.797``."""
    for prefix in ("heldout_", "valid_", "train_", ""):
        chosen = {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}
        if chosen:
            return "  ".join(f"{name} {value:.4g}" for name, value in chosen.items())
    return ""


class LiveProgress:
    """Draws a connection's events on a terminal; a bar begins with the first event and stays until ``close``."""

    def __init__(self, notice: Callable[[str], None], stream: TextIO | None = None) -> None:
        self._notice = notice
        self._stream = stream or sys.stderr
        self._live: tuple[Progress, TaskID] | None = None

    def __call__(self, event: Mapping[str, Any]) -> None:
        """One event of ``Connection.on_event``."""
        if event["event"] == "notice":
            self._say(str(event["text"]))
        elif event["event"] == "stage":
            live, task = self._bar()
            live.reset(task, description=str(event["name"]), total=None, metrics="", counter="", eta="")
        elif event["event"] == "step":
            self._step(int(event["step"]), int(event["total"]), step_text(event))

    def close(self) -> None:
        """Take the bar away."""
        if self._live is not None:
            self._live[0].stop()
            self._live = None

    def _say(self, text: str) -> None:
        """A notice, above the bar where one is drawn."""
        if self._live is None:
            self._notice(text)
            return
        self._live[0].stop()
        self._notice(text)
        self._live[0].start()

    def _step(self, step: int, total: int, text: str) -> None:
        live, task = self._bar()
        shown = text or live.tasks[0].fields["metrics"]  # of a large table not every step has figures
        live.update(task, total=total, completed=step, counter=f"{step:,}/{total:,}", metrics=shown)
        left = live.tasks[0].time_remaining
        live.update(task, eta="" if left is None or step >= total else f"eta {_eta(left)}")

    def _bar(self) -> tuple[Progress, TaskID]:
        if self._live is None:
            self._live = _new_bar(self._stream)
        return self._live


def _eta(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:,.0f} min"


def _new_bar(stream: TextIO) -> tuple[Progress, TaskID]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    columns = [
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(BAR_WIDTH),
        *(TextColumn(f" {{task.fields[{name}]}}", table_column=Column(no_wrap=True)) for name in ("counter", "metrics", "eta")),
    ]
    live = Progress(*columns, console=Console(file=stream), transient=True, refresh_per_second=8)
    task = live.add_task("", total=None, counter="", metrics="", eta="")
    live.start()
    return live, task
