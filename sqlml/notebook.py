"""sqlml in Jupyter: ``%load_ext sqlml``, then ``%sqlml bank.duckdb`` and ``%%sqlml`` cells.

A cell's statements run one after the other; the last result is the cell's value, so it is also ``_``.  Named parameters come from
the notebook's variables: ``WHERE age > $limit`` takes ``limit``, as a value and never as text of the statement.
"""

from __future__ import annotations

import atexit
import html
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import IPython.display as _display_module

import sqlml
from sqlml.errors import Error, InterfaceError, ProgrammingError
from sqlml.shell import render
from sqlml.shell.output import summary
from sqlml.shell.progress import step_text
from sqlml.shell.run import Cancelled, Result, parameter_names, run_statement, split

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd
    import pyarrow as pa
    from IPython.core.interactiveshell import InteractiveShell

    from sqlml.dbapi import Connection

ROWS = 20
"""How many rows a cell shows."""

_TEXT_WIDTH = 120  # of a result where a viewer shows no HTML
_ASSIGNMENT = re.compile(r"\s*([^\W\d]\w*)\s*<<\s*")
_STATEMENT = re.compile(
    r"\s*(SELECT|FROM|WITH|VALUES|SHOW|DESCRIBE|EXPLAIN|SUMMARIZE|TRAIN|PREDICT|EVALUATE|COMPARE|DEPLOY|UNDEPLOY|CREATE|DROP|ALTER|INSERT"
    r"|UPDATE|DELETE|EXPORT|IMPORT|COPY|BEGIN|COMMIT|ROLLBACK|SET)\s+\S",
    re.IGNORECASE,
)
_REFRESH = 0.2  # seconds between two looks of a progress line


_ui: Any = _display_module  # IPython's own functions carry no types


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """What ``%load_ext sqlml`` calls."""
    magics = SqlMagics(ipython.user_ns)
    atexit.register(magics.close)
    register: Any = ipython.register_magic_function  # its decorator hides its type
    register(magics.connect, "line", "sqlml")
    register(magics.run, "cell", "sqlml")


class CellError(Exception):
    """A statement of a cell failed: shown as its message alone, and the cell counts as failed."""

    def _render_traceback_(self) -> list[str]:
        """IPython prints these lines instead of a traceback."""
        return [f"error: {self}"]


class CellResult:
    """The result of a cell: a table to look at, and its rows to go on with."""

    def __init__(self, result: Result) -> None:
        self._result = result

    def arrow(self) -> pa.Table:
        """The rows as an Arrow table.  ``InterfaceError`` where the statement had none."""
        if self._result.table is None:
            raise InterfaceError("this statement gave no rows")
        return self._result.table

    def df(self) -> pd.DataFrame:
        """The rows as a pandas data frame."""
        from sqlml.registry import missing_extra

        try:
            import pandas as pd  # noqa: F401 - asked for by to_pandas, which would tell less
        except ModuleNotFoundError as error:
            raise missing_extra(error) from error
        return self.arrow().to_pandas()

    def plot(self) -> alt.Chart | alt.FacetChart:
        """The chart that suits the result: of EXPLAIN MODEL, or of rows of sqlml.curves."""
        from sqlml.plots import plot

        return plot(self)

    def _repr_html_(self) -> str:
        table = self._result.table
        rows = html_table(table, kind=self._result.kind) if table is not None else ""
        return f"{rows}<div>{html.escape(self._below()).replace(chr(10), '<br>')}</div>"

    def __repr__(self) -> str:
        table = self._result.table
        lines = [] if table is None else list(render.table_lines(table, render.Look(_TEXT_WIDTH, ROWS), kind=self._result.kind))
        return "\n".join([*lines, self._below()])

    def _below(self) -> str:
        return self._result.footer or summary(self._result)


def html_table(table: pa.Table, *, kind: str = "sql") -> str:
    """The first ROWS rows as an HTML table, everything escaped."""
    top = table.slice(0, ROWS)
    columns = render.columns_of(top, kind)
    head = "".join(f"<th{_side(column.right)}>{html.escape(column.header)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(_cell(column, index) for column in columns)}</tr>" for index in range(top.num_rows))
    more = table.num_rows - top.num_rows
    note = f"<div>… {render.count(more, 'more row')}</div>" if more else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


def _cell(column: render.Column, index: int) -> str:
    text = column.texts[index]
    shown = '<span style="opacity: 0.5">NULL</span>' if text is None else html.escape(text)
    return f"<td{_side(column.right)}>{shown}</td>"


def _side(right: bool) -> str:
    return f' style="text-align: {"right" if right else "left"}"'


@dataclass
class CellProgress:
    """One line below the cell that says how far a job is; notices above it."""

    handle: Any = None
    stage: str = ""
    told: str = ""
    shown: float = 0.0

    def __call__(self, event: Mapping[str, Any]) -> None:
        """One event of ``Connection.on_event``."""
        if event["event"] == "notice":
            _ui.display(Line(f"notice: {event['text']}"))
        elif event["event"] == "stage":
            self.stage, self.told = str(event["name"]), ""
            self._show("")
        elif event["event"] == "step" and (time.monotonic() - self.shown > _REFRESH or event["step"] == event["total"]):
            self.told = step_text(event) or self.told  # of a large table not every step has figures
            self._show(f"{event['step']:,}/{event['total']:,}  {self.told}")

    def close(self) -> None:
        """The line has done its work."""
        if self.handle is not None:
            self.handle.update(Line(""))

    def _show(self, text: str) -> None:
        self.shown = time.monotonic()
        line = Line(f"{self.stage} … {text}")
        if self.handle is None:
            self.handle = _ui.display(line, display_id=True)
        else:
            self.handle.update(line)


@dataclass(frozen=True)
class Line:
    """A line of text below a cell, as HTML and for whoever cannot show that."""

    text: str

    def _repr_html_(self) -> str:
        return f"<div>{html.escape(self.text)}</div>"

    def __repr__(self) -> str:
        return self.text


class SqlMagics:
    """``%sqlml`` and ``%%sqlml``, and the connection that they share; ``variables`` are the notebook's."""

    def __init__(self, variables: dict[str, Any]) -> None:
        self._variables = variables
        self._connection: Connection | None = None

    def connect(self, line: str) -> CellResult | None:
        """``%sqlml bank.duckdb`` opens a database (and closes the one before); ``%sqlml`` says which one is open.

        ``%sqlml SHOW MODELS`` runs a statement, as a cell would.
        """
        if _STATEMENT.match(line):
            return self.run("", line)
        if line.strip():
            self._open(line.strip().strip("'\""))
        _ui.display(Line(self._where()))
        return None

    def run(self, line: str, cell: str) -> CellResult | None:
        """``%%sqlml`` runs the cell; ``%%sqlml name <<`` keeps the result as ``name`` and shows nothing."""
        name = _assigned_name(line)
        results = [CellResult(self._run_one(piece.text)) for piece in split(cell)]
        for result in results[:-1]:
            _ui.display(result)
        last = results[-1] if results else None
        if name is None:
            return last
        self._variables[name] = last
        return None

    def close(self) -> None:
        """Close the database and let go of it: DuckDB's module complains at the kernel's end about what is still held then."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _run_one(self, text: str) -> Result:
        connection = self._connection or self._open(":memory:")
        progress = CellProgress()
        connection.on_event = progress
        try:
            return run_statement(connection, text, self._parameters(text))
        except Cancelled:
            raise CellError("cancelled") from None
        except Error as error:
            raise CellError(str(error)) from None
        finally:
            progress.close()

    def _parameters(self, text: str) -> dict[str, Any]:
        """The notebook's variables that a statement asks for by ``$name``."""
        names = parameter_names(text)
        missing = [name for name in names if name not in self._variables]
        if missing:
            raise ProgrammingError(f"there is no variable {missing[0]} for ${missing[0]}", hint="set it in a cell above")
        return {name: self._variables[name] for name in names}

    def _open(self, database: str) -> Connection:
        try:
            opened = sqlml.connect(database)
        except Error as error:
            raise CellError(str(error)) from None
        if self._connection is not None:
            self._connection.close()
        self._connection = opened
        return opened

    def _where(self) -> str:
        if self._connection is None:
            return "no database is open: %sqlml bank.duckdb opens one"
        if self._connection.database == ":memory:":
            return "in memory, gone with the kernel"
        home = self._connection.models_home
        models = f" · models in {Path(home).name}" if home else ""
        name = self._connection.database.rpartition("/")[2].partition("?")[0]
        through = f" · through {self._connection.through}" if self._connection.through else ""
        return f"{name}{' (new)' if self._connection.is_new else ''}{models}{through}"


def _assigned_name(line: str) -> str | None:
    """``name`` of ``name <<``; None where the result is to be shown."""
    if not line.strip():
        return None
    match = _ASSIGNMENT.fullmatch(line)
    if match is None:
        raise CellError(f"after %%sqlml comes nothing, or a name and <<, not {line.strip()}")
    return match.group(1)
