"""Where statements end, which parameters they name, and the texts around a result."""

from __future__ import annotations

import pyarrow as pa
import pytest

from sqlml.shell.output import duration, summary
from sqlml.shell.progress import metrics_text
from sqlml.shell.run import Result, is_complete, parameter_names, split


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("", True),
        ("SELECT 1", False),
        ("SELECT 1;", True),
        ("SELECT 1; -- done", True),
        ("SELECT 1; /* not", False),
        ("SELECT ';", False),
        ("SELECT ';';", True),
        ("SELECT $$;", False),
        ("SELECT $a$;$a$;", True),
        ('SELECT ";', False),
        ("SELECT 1 -- ;", False),
        ("SELECT E'\\';", False),
        ("SELECT 1; SELECT 2", False),
    ],
)
def test_is_complete(text: str, complete: bool) -> None:
    assert is_complete(text) is complete


def test_split_keeps_the_text_and_knows_where_it_was() -> None:
    script = "-- first\nSELECT ';' ;\n\n/* two */ SELECT 2\n;;\n"
    pieces = split(script)
    assert [piece.text for piece in pieces] == ["SELECT ';'", "SELECT 2"]
    assert all(script[piece.start :].startswith(piece.text) for piece in pieces)


def test_parameter_names() -> None:
    assert parameter_names("SELECT $low, '$no', $1, $$text$$ WHERE a > $low AND b < $Höhe -- $comment") == ("low", "Höhe")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0001, "1 ms"), (0.012, "12 ms"), (0.2, "0.2 s"), (3.14, "3.1 s"), (59.97, "1 min 0 s"), (200, "3 min 20 s")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_summary_counts_where_somebody_counted() -> None:
    table = pa.table({"a": [1]})
    assert summary(Result(table, -1, None, "sql", 0.2)) == "1 row  0.2 s"
    assert summary(Result(None, 45211, None, "sql", 0.2)) == "45,211 rows  0.2 s"
    assert summary(Result(None, -1, None, "sql", 0.012)) == "ok  12 ms"


def test_metrics_prefer_the_rows_that_were_held_out() -> None:
    assert metrics_text({"train_logloss": 0.27, "heldout_logloss": 0.28111, "heldout_auc": 0.797}) == "logloss 0.2811  auc 0.797"
    assert metrics_text({"train_rmse": 12.5}) == "rmse 12.5"
    assert metrics_text({}) == ""
