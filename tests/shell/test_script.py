"""``sqlml -f``: many statements, comments, dollar quotes; the first error stops and names its place in the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shell.test_command import sqlml

BEFORE = """\
-- a script; with a semicolon
CREATE TABLE t (a VARCHAR); /* another; one
 over two lines */ INSERT INTO t VALUES ('a;b'), ($$c;'d$$), ($tag$e;$$f;$tag$), (E'g\\';h');
INSERT INTO t SELECT "x;y" FROM (SELECT 'i' AS "x;y");;
"""


def test_statements_are_cut_at_their_own_semicolons(tmp_path: Path) -> None:
    (tmp_path / "script.sql").write_text(BEFORE + "SELECT string_agg(a, '|') AS all FROM t -- the end")
    done = sqlml("--format", "csv", "-f", "script.sql", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "all\na;b|c;'d|e;$$f;|g';h|i\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "place", "message"),
    [
        ("TRAIN MODEL m\n  TARGTE y AS FROM t;", "6:3: statement 4", "unknown clause TARGTE"),
        ("SELECT 1; TRAIN m TARGET y AS FROM t", "5:17: statement 5", "expected MODEL, found m"),
        ("SELECT PREDICT(churn)\nFROM t;", "5:16: statement 4", "unknown model churn"),
        ("SELECT 1,\n\n   nothing FROM t;", "7:4: statement 4", "Binder Error: "),
        ("/* why */ SELEC 1;", "5:11: statement 4", "Parser Error: "),
        ("SELECT $$open; SELECT 2;", "5:8: statement 4", "Parser Error: "),
        ("DEPLOY MODEL m;", "5:14: statement 4", "unknown model m"),
    ],
)
def test_an_error_names_its_place_in_the_file(wrong: str, place: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "script.sql").write_text(f"{BEFORE}{wrong}\nINSERT INTO t VALUES ('after');\n")
    done = sqlml("a.duckdb", "-f", "script.sql", cwd=tmp_path)
    assert (done.returncode, done.stdout.count("after")) == (1, 0)
    assert done.stderr.startswith(f"script.sql:{place}: error: {message}"), done.stderr
    assert f"  line {place.partition(':')[0]}:  " in done.stderr
    rows = sqlml("a.duckdb", "--format", "csv", "-c", "SELECT count(*) AS n FROM t", cwd=tmp_path)
    assert rows.stdout == "n\n5\n"


def test_standard_input_is_named_too() -> None:
    done = sqlml(stdin="SELECT 1;\nSELECT nothing")
    assert done.returncode == 1
    assert done.stderr.startswith("standard input:2:8: statement 2: error: Binder Error: ")
