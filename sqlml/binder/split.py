"""SPLIT and VALIDATE ON: which rows are to be held out."""

from __future__ import annotations

from sqlml_dialect import Ident, SplitBy, SplitNone, SplitRandom, SplitTime, Train

from sqlml.binder.columns import Columns
from sqlml.errors import BindError
from sqlml.plan import SplitPlan
from sqlml.types import Column, Kind

DEFAULT_SPLIT = 0.2
_MARKS = (Kind.BOOLEAN, Kind.NUMBER, Kind.TEXT)
_TIMES = (Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ, Kind.TIME, Kind.NUMBER)


def bind_split(node: Train, source: str, columns: Columns, targets: tuple[Column, ...]) -> SplitPlan:
    """Settle which rows are held out.  ``BindError`` points at the clause."""
    split = node.split
    if node.validate is not None:
        if split is not None and not isinstance(split, SplitNone):
            raise BindError(
                "VALIDATE ON gives the held-out rows, so SPLIT has nothing to do", source=source, span=split.span,
                hint="leave out one of the two",
            )  # fmt: skip
        return SplitPlan("query")
    match split:
        case SplitNone():
            return SplitPlan("none")
        case SplitBy(column=name):
            hint = "a column of true and false (true: held out), or of the words 'train', 'validation' and 'test'"
            column = _column(name, "SPLIT BY", _MARKS, hint, source, columns, targets)
            return SplitPlan("by", column=column.name)
        case SplitTime(column=name):
            hint = "a column of dates, times or numbers; SPLIT BY takes marks"
            column = _column(name, "SPLIT TIME", _TIMES, hint, source, columns, targets)
            return SplitPlan("time", _fraction(split, source), column.name)
    return SplitPlan("random", _fraction(split, source))


def _column(
    name: Ident, clause: str, kinds: tuple[Kind, ...], hint: str, source: str, columns: Columns, targets: tuple[Column, ...]
) -> Column:
    column = columns.find(name)
    if column in targets:
        raise BindError(f"{clause} takes another column than the target", source=source, span=name.span)
    if column.kind not in kinds:
        raise BindError(
            f"{clause} cannot read {column.name}, which has the type {column.sql_type}", source=source, span=name.span, hint=hint
        )
    return column


def _fraction(split: SplitRandom | SplitTime | None, source: str) -> float:
    fraction = split.fraction if split is not None else None
    if split is not None and fraction is not None and not 0 < fraction < 1:
        word = "TIME column" if isinstance(split, SplitTime) else "RANDOM"
        raise BindError(
            f"SPLIT {word} takes a share between 0 and 1 (got {fraction:g})", source=source,
            span=split.span, hint=f"as in SPLIT {word} 0.2; SPLIT NONE holds nothing out",
        )  # fmt: skip
    return DEFAULT_SPLIT if fraction is None else fraction
