"""Charts of results whose meaning is known: what a model goes by, and how its training went.

altair is imported when a chart is drawn; it is in the extra ``notebook``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from sqlml.errors import NotSupportedError

if TYPE_CHECKING:
    import altair as alt
    import pyarrow as pa


@runtime_checkable
class HasArrow(Protocol):
    """A result that gives its rows as an Arrow table."""

    def arrow(self) -> pa.Table:
        """The rows."""


Source: TypeAlias = "HasArrow | pa.Table"


def importance(result: Source, *, top: int = 15) -> alt.Chart:
    """Bars of what a model goes by, from the result of ``EXPLAIN MODEL m``; the ``top`` features, largest first."""
    altair = _altair()
    rows = sorted(_rows(result, "feature", "importance"), key=lambda row: -(row["importance"] or 0))[:top]
    order = [row["feature"] for row in rows]
    chart: alt.Chart = (
        altair.Chart(altair.Data(values=rows), width=420)
        .mark_bar()
        .encode(
            x=altair.X("importance:Q", title="importance (share of the whole)", axis=altair.Axis(tickCount=6)),
            y=altair.Y("feature:N", sort=order, title=None),
            tooltip=["feature:N", altair.Tooltip("importance:Q", format=".3f")],
        )
    )
    return chart


def curve(result: Source) -> alt.FacetChart:
    """Lines of each metric over the steps of training, from rows of ``sqlml.curves``; one panel for each metric.

    What a job tells of itself, such as its seconds, is left out: it says nothing of how good the model is.
    """
    altair = _altair()
    rows = [row for row in _rows(result, "step", "split", "metric", "value") if row["split"] != "job"]
    for row in rows:
        row["run"] = " ".join(filter(None, [_version(row), row["split"]]))
    lines = (
        altair.Chart(altair.Data(values=rows), width=300, height=200)
        .mark_line()
        .encode(
            x=altair.X("step:Q", title="step"),
            y=altair.Y("value:Q", title=None, scale=altair.Scale(zero=False)),
            color=altair.Color("run:N", title=None),
        )
    )
    chart: alt.FacetChart = lines.facet(column=altair.Column("metric:N", title=None)).resolve_scale(y="independent")
    return chart


def plot(result: Source) -> alt.Chart | alt.FacetChart:
    """The chart that suits a result by its columns.  ``NotSupportedError`` where none does."""
    names = set(_table(result).column_names)
    for needed, chart in _CHARTS:
        if needed <= names:
            return chart(result)
    raise NotSupportedError(
        "no ready chart for this result",
        hint="there are charts of EXPLAIN MODEL m and of SELECT * FROM sqlml.curves; .df() gives the rows to any other library",
    )


_CHARTS: tuple[tuple[frozenset[str], Callable[[Source], alt.Chart | alt.FacetChart]], ...] = (
    (frozenset({"feature", "importance"}), importance),
    (frozenset({"step", "split", "metric", "value"}), curve),
)


def _version(row: Mapping[str, Any]) -> str:
    """``deposit@1`` where the row says so."""
    return f"{row['model']}@{row['version']}" if "model" in row and "version" in row else ""


def _table(result: Source) -> pa.Table:
    return result.arrow() if isinstance(result, HasArrow) else result


def _rows(result: Source, *needed: str) -> list[dict[str, Any]]:
    """The rows as plain values, once the columns that a chart needs are there."""
    table = _table(result)
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        raise NotSupportedError(f"this chart needs the columns {', '.join(needed)}; there is no {', '.join(missing)}")
    kept = table.select([name for name in table.column_names if name in (*needed, "model", "version")])
    return [
        {name: float(value) if isinstance(value, Decimal) else value for name, value in row.items()} for row in kept.to_pylist()
    ]


def _altair() -> Any:
    from sqlml.registry import missing_extra

    try:
        import altair
    except ModuleNotFoundError as error:
        raise missing_extra(error) from error
    return altair
