"""What an option is: of an algorithm, a connection, a runner, a statement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class OptionSpec:
    """One option of an algorithm, under the library's own name.

    ``type`` is ``int``, ``float``, ``bool``, ``str``, ``list[float]``, ``list[int]``, ``device`` ('auto', 'cpu', 'cuda',
    'cuda:1'), ``class_weight`` ('balanced', or a number for each class),
    or several of these, as in ``float | str``; of connections and runners also ``struct``, ``size`` (bytes) and ``duration``
    (seconds).  ``low`` and ``high`` are the ends of the allowed range of numbers, inclusive
    unless ``open_low`` / ``open_high``; ``choices`` are the allowed words; ``default`` None means "the library's own".
    """

    name: str
    type: str
    default: Any
    doc: str
    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False
    choices: tuple[str, ...] = ()
