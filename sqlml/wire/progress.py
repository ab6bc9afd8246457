"""A statement's events as notices: what psql and the drivers show while TRAIN runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

SECONDS = 1.0
"""At most one notice of progress in so long."""


class Progress:
    """Turns a session's events into notices; steps are told from time to time, all else at once."""

    def __init__(self, notice: Callable[[str], None]) -> None:
        self._notice = notice
        self._told = 0.0

    def __call__(self, event: Mapping[str, Any]) -> None:
        """One event of ``Session.on_event``."""
        kind = event["event"]
        if kind == "notice":
            self._notice(str(event["text"]))
        elif kind == "stage":
            self._notice(str(event["name"]))
        elif kind == "step":
            self._step(event)

    def _step(self, event: Mapping[str, Any]) -> None:
        step, total, now = int(event["step"]), int(event["total"]), time.monotonic()
        if step < total and now - self._told < SECONDS:
            return
        self._told = now
        metrics = event.get("metrics") or {}
        shown = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, int | float))
        if "rows_per_second" in event:
            self._notice(f"{step:,} of about {total:,} rows, {event['rows_per_second']:,.0f} a second")
        else:
            self._notice(f"step {step:,} of {total:,}  {shown}".rstrip())
