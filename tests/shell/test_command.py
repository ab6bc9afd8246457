"""The command ``sqlml`` as a child process: what it prints where, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sqlml.version import __version__

COMMAND = (sys.executable, "-m", "sqlml")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "COLUMNS": "", "PYTHONWARNINGS": "default"}


def sqlml(*arguments: str, stdin: str | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=cwd,
        env=ENVIRONMENT,
        timeout=60,
    )


def test_statements_run_in_the_order_given(tmp_path: Path) -> None:
    (tmp_path / "two.sql").write_text("INSERT INTO t VALUES (2);")
    done = sqlml("-c", "CREATE TABLE t (a INT)", "-f", "two.sql", "-c", "SELECT a + 1 AS b FROM t; SELECT 'x' c", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["┌───┐", "│ b │", "├───┤", "│ 3 │", "└───┘", "┌───┐", "│ c │", "├───┤", "│ x │", "└───┘"]


@pytest.mark.slow
def test_formats_print_the_data_and_nothing_else() -> None:
    query = "SELECT range AS n, 'a,b' AS s FROM range(100)"
    lines = sqlml("--format", "csv", "-c", query).stdout.splitlines()
    assert (lines[:2], len(lines)) == (["n,s", '0,"a,b"'], 101)
    rows = json.loads(sqlml("--format", "json", "-c", "CREATE TABLE t (a INT)", "-c", query).stdout)
    assert rows[99] == {"n": 99, "s": "a,b"}
    assert sqlml("--format", "markdown", "-c", query).stdout.splitlines()[0] == "| n | s |"


def test_results_one_after_the_other() -> None:
    script = "SELECT 1 AS a; CREATE TABLE t (a INT); SELECT NULL::VARCHAR AS b"
    assert sqlml("--format", "csv", "-c", script, "-c", "SELECT 3 AS c").stdout == 'a\n1\n\nb\n""\n\nc\n3\n'
    assert sqlml("--format", "markdown", "-c", script).stdout == "| a |\n| ---: |\n| 1 |\n\n| b |\n| --- |\n| NULL |\n"
    assert sqlml("--format", "json", "-c", script).stdout == '[\n  {"a": 1}\n]\n[\n  {"b": null}\n]\n'


@pytest.mark.slow
def test_a_table_is_cut_unless_all_rows_are_wanted() -> None:
    query = "SELECT * FROM range(100)"
    assert sqlml("-c", query).stdout.splitlines()[-1] == "… 60 more rows"
    assert len(sqlml("--rows", "0", "-c", query).stdout.splitlines()) == 104


@pytest.mark.slow
def test_standard_input_is_a_script() -> None:
    done = sqlml(stdin="SELECT 1 AS a;\nSELECT 2 AS b")
    assert [line for line in done.stdout.splitlines() if line[2] in "12"] == ["│ 1 │", "│ 2 │"]
    assert sqlml(stdin="").stdout == ""


@pytest.mark.slow
def test_a_file_is_kept(tmp_path: Path) -> None:
    assert sqlml("a.duckdb", "-c", "CREATE TABLE t AS SELECT 7 AS a", cwd=tmp_path).returncode == 0
    assert "│ 7 │" in sqlml("a.duckdb", "-c", "FROM t", cwd=tmp_path).stdout


def test_an_error_goes_to_stderr_and_stops() -> None:
    done = sqlml("-c", "SELECT 1 AS one", "-c", "SELEC 2", "-c", "SELECT 3 AS three")
    assert done.returncode == 1
    assert "one" in done.stdout
    assert "three" not in done.stdout
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_an_error_in_a_file_names_the_line(tmp_path: Path) -> None:
    script = "SELECT 1;\n\n-- now\nTRAIN MODEL m\n  USINGG xgboost_classifier TARGET y AS SELECT 1;\nSELECT 3;"
    (tmp_path / "road.sql").write_text(script)
    done = sqlml("-f", "road.sql", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("road.sql:5:3: statement 2: error: unknown clause USINGG\n")
    assert "  line 5:    USINGG xgboost_classifier" in done.stderr
    assert "3" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--format", "xml"), 2, "invalid choice"),
        (("--rows", "many"), 2, "many is not a number of rows"),
        (("--what",), 2, "unrecognized arguments"),
        (("-f", "none.sql"), 1, "error: cannot read none.sql: No such file or directory"),
        (("no/such/folder/a.duckdb", "-c", "SELECT 1"), 1, "error: "),
        (("serve", "no/such/folder/a.duckdb"), 1, "cannot"),
        (("stop", "none.duckdb"), 1, "error: none.duckdb has no models"),
        (("serve",), 2, "DATABASE"),
    ],
)
def test_wrong_use(arguments: tuple[str, ...], status: int, words: str, tmp_path: Path) -> None:
    done = sqlml(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (status, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_version_and_help() -> None:
    assert sqlml("--version").stdout == f"sqlml {__version__}\n"
    assert "sqlml serve DATABASE" in sqlml("--help").stdout


def test_a_reader_that_goes_away_is_no_error() -> None:
    script = f"{' '.join(COMMAND)} --format csv -c 'SELECT * FROM range(1000000)' | head -n 2"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=ENVIRONMENT, timeout=60)
    assert (done.stdout, done.stderr) == ("range\n0\n", "")


@pytest.mark.slow
def test_ctrl_c_ends_a_script() -> None:
    query = "SELECT count(*) FROM range(100000000000)"
    child = subprocess.Popen(
        [*COMMAND, "-c", "SELECT 'begun'", "-c", query, "-c", "SELECT 'after'"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    assert child.stdout is not None
    while "└" not in child.stdout.readline():
        pass
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert child.returncode == 130
    assert "after" not in out
    assert err == "cancelled\n"


def test_heavy_libraries_wait_until_needed() -> None:
    script = "import sys; import sqlml.shell.main as m; m.main(['-c', 'SELECT 1']); print([n for n in %r if n in sys.modules])"
    heavy = (
        "xgboost", "sklearn", "fastapi", "pandas", "prompt_toolkit", "rich.progress", "onnxruntime", "altair", "IPython",
        "alembic", "pyarrow.compute", "yaml", "msgspec", "sqlml.training", "sqlml.evaluation",
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script % (heavy,)], capture_output=True, text=True, env=ENVIRONMENT, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
