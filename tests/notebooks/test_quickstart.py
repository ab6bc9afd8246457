"""The notebooks run from top to bottom, and what they print last is what a reader should see."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbclient
import nbformat as _nbformat
import pytest

nbformat: Any = _nbformat  # it carries no types
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def executed(notebook: Any, folder: Path) -> Any:
    """The notebook after a run in a fresh kernel of this Python."""
    try:
        _execute(notebook, folder)
    except RuntimeError as error:
        if "didn't respond" not in str(error):
            raise
        _execute(notebook, folder)  # its ports are chosen before it opens them, and another test may have been faster
    return notebook


def _execute(notebook: Any, folder: Path) -> None:
    client = nbclient.NotebookClient(
        notebook, timeout=120, startup_timeout=45, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.shutdown_kernel = "graceful"  # by its own exit, as Jupyter ends it
    client.execute()


@pytest.fixture(autouse=True)
def same_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel finds what this process finds."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))


def outputs(notebook: Any, kind: str) -> list[str]:
    """Everything of one MIME type that the cells showed."""
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output["data"][kind] for output in shown if kind in output.get("data", {})]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Jupyter's own parts
def test_quickstart(tmp_path: Path) -> None:
    notebook = executed(nbformat.read(NOTEBOOKS / "quickstart.ipynb", as_version=4), tmp_path)
    assert len(outputs(notebook, "image/svg+xml")) == 2
    text = "\n".join(outputs(notebook, "text/plain"))
    assert "36,169" in text
    assert "roc_auc" in text
    assert "ready" in text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_failed_statement_fails_the_cell_with_its_message_alone(tmp_path: Path) -> None:
    cells = ["%load_ext sqlml", "%%sqlml\nTRAIN MODEL m USINGG kmeans AS SELECT 1"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with pytest.raises(nbclient.exceptions.CellExecutionError):
        executed(notebook, tmp_path)
    (output,) = notebook.cells[1].outputs
    assert output["output_type"] == "error"
    assert "USINGG" in "\n".join(output["traceback"])
    assert "Traceback" not in "\n".join(output["traceback"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_values_are_escaped_and_variables_are_values(tmp_path: Path) -> None:
    cells = [
        "%load_ext sqlml",
        'evil = "<script>\'; DROP TABLE t; --"',
        "%%sqlml kept <<\nCREATE TABLE t AS SELECT $evil AS a; SELECT a, count(*) AS n FROM t GROUP BY a",
        "kept",
        "assert kept.df().shape == (1, 2)",
        "%%sqlml\nSELECT $nowhere",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="there is no variable nowhere"):
        executed(notebook, tmp_path)
    (shown,) = outputs(nbformat.v4.new_notebook(cells=[notebook.cells[3]]), "text/html")
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_line_with_a_statement_runs_it_and_makes_no_database_of_that_name(tmp_path: Path) -> None:
    cells = ["%load_ext sqlml\n%sqlml a.duckdb", "%sqlml CREATE TABLE t AS SELECT 41 AS a", "%sqlml select a + 1 AS b FROM t"]
    done = executed(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), tmp_path)
    assert "42" in str(done.cells[-1].outputs)
    assert sorted(path.name for path in tmp_path.iterdir() if "duckdb" in path.name) == ["a.duckdb"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("last", ["SELECT 1 AS a", "SELEC 1", "SELECT error('no')", "TRAIN MODEL m TARGET z AS SELECT 1 AS a"])
def test_a_kernel_ends_without_a_word(last: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cells = ["%load_ext sqlml\n%sqlml a.duckdb", "%%sqlml kept <<\nSELECT 1 AS a", f"%%sqlml\n{last}"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with suppress(nbclient.exceptions.CellExecutionError):
        executed(notebook, tmp_path)
    assert "nanobind" not in capfd.readouterr().err
