"""What a training job tells while it runs, and what of it is kept."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlml.contracts import Report


@dataclass
class Record:
    """Passes a job's reports on, and keeps what belongs into the outcome: curves and notes."""

    report: Report
    started: float = field(default_factory=time.perf_counter)
    curves: list[tuple[int, str, str, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Since the job began."""
        return time.perf_counter() - self.started

    def notice(self, text: str) -> None:
        """Something that the person should know; once is enough."""
        if text not in self.notes:
            self.notes.append(text)
            self.report.notice(text)

    def stage(self, name: str) -> None:
        self.report.stage(name)

    def step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        """A step that is shown and not kept: a trial, a fold."""
        self.report.step(step, total, metrics)

    def head(self, prefix: str, after: int) -> HeadRecord:
        """For the training of one head; its steps count on from ``after``."""
        return HeadRecord(self, prefix, after)


@dataclass(frozen=True)
class HeadRecord:
    """One head's part of the story; ``prefix`` is ``target.`` where there are several heads.

    Besides the algorithm's figures each step keeps the seconds since the training began, as the figure ``seconds`` of ``job``.
    """

    parent: Record
    prefix: str
    after: int
    started: float = field(default_factory=time.perf_counter)

    def step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        number, curves, shown = step + self.after, self.parent.curves, {}
        for name, value in metrics.items():
            part, _, metric = name.partition("_")
            shown[f"{part}_{self.prefix}{metric}"] = value
            if math.isfinite(value):
                curves.append((number, part, self.prefix + metric, float(value)))
        curves.append((number, "job", f"{self.prefix}seconds", time.perf_counter() - self.started))
        self.parent.report.step(number, total + self.after, shown)

    def notice(self, text: str) -> None:
        self.parent.notice(text)

    def stage(self, name: str) -> None:
        self.parent.stage(name)


class Silent:
    """A report of steps that nobody wants to see: of a trial, a fold, a second fit."""

    def __init__(self, record: Record | None = None) -> None:
        self._record = record

    def step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        return

    def notice(self, text: str) -> None:
        if self._record:
            self._record.notice(text)

    def stage(self, name: str) -> None:
        return
