"""Results as text, against the golden files in ``tests/fixtures/render``: a query, then ``==== format`` and what it prints."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from sqlml.shell.render import Look, cells_wide, cut, render
from sqlml.shell.values import shown

FIXTURES = Path(__file__).parents[1] / "fixtures" / "render"


def sections(path: Path) -> tuple[str, list[tuple[str, str]]]:
    """The query of a file, and each ``==== heading`` with the text below it."""
    query, *rest = re.split(r"^==== (.*)\n", path.read_text(), flags=re.MULTILINE)
    return query, list(zip(rest[::2], rest[1::2], strict=True))


def cases() -> Iterator[tuple[str, str, str, str]]:
    for path in sorted(FIXTURES.glob("*.sql")):
        query, parts = sections(path)
        for heading, expected in parts:
            yield path.stem, query, heading, expected


def printed(query: str, heading: str) -> str:
    """What a heading such as ``table 80 rows=3 kind=explain_model`` asks for."""
    style, *settings = heading.split()
    options = dict(setting.split("=") for setting in settings if "=" in setting)
    widths = [int(setting) for setting in settings if setting.isdigit()]
    look = Look(width=widths[0] if widths else None, rows=int(options.get("rows", 40)))
    return "".join(line + "\n" for line in render(query_table(query), style, look, kind=options.get("kind", "sql")))


def query_table(query: str) -> pa.Table:
    with duckdb.connect() as connection:
        return connection.sql(query).to_arrow_table()


@pytest.mark.parametrize(
    ("query", "heading", "expected"), [pytest.param(*case, id=f"{name}-{case[1]}") for name, *case in cases()]
)
def test_golden(query: str, heading: str, expected: str) -> None:
    assert printed(query, heading) == expected


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.sql")), ids=lambda path: path.stem)
@pytest.mark.parametrize("width", [20, 40, 80, 140])
def test_a_table_never_passes_the_width_and_every_line_is_as_long(path: Path, width: int) -> None:
    query, _ = sections(path)
    table = query_table(query)
    lines = list(render(table, "table", Look(width=width)))
    box = [line for line in lines if line[0] in "┌│├└"]
    assert len({cells_wide(line) for line in box}) <= 1
    assert all(cells_wide(line) <= width for line in box)


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.sql")), ids=lambda path: path.stem)
def test_csv_and_json_are_read_back_by_the_standard_library(path: Path) -> None:
    query, _ = sections(path)
    table = query_table(query)
    rows = list(csv.reader(io.StringIO("".join(line + "\n" for line in render(table, "csv")), newline="")))
    assert rows[0] == table.column_names
    assert len(rows) == table.num_rows + 1
    assert len(json.loads("\n".join(render(table, "json")))) == table.num_rows


def test_numbers_keep_every_digit_in_csv() -> None:
    table = pa.table({"x": [0.1, 1 / 3, 1e300, 123456789.123456789]})
    assert [float(line) for line in list(render(table, "csv"))[1:]] == table.column("x").to_pylist()


def test_colour_dims_null_only() -> None:
    lines = list(render(pa.table({"a": [None, "NULL"]}), "table", Look(colour=True)))
    assert [("\x1b[2mNULL" in line, "'NULL'" in line) for line in lines[3:5]] == [(True, False), (False, True)]


@pytest.mark.parametrize(
    ("text", "width", "expected"), [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("日本語", 5, "日本…"), ("日本語", 4, "日…")]
)
def test_cut_counts_cells(text: str, width: int, expected: str) -> None:
    assert cut(text, width) == expected


@pytest.mark.parametrize(
    ("name", "values", "texts"),
    [
        ("n", [938, 2264], ["938", "2,264"]),
        ("n", [-1000, None], ["-1,000", None]),
        ("rows", [9042], ["9,042"]),
        ("customer_id", [45211], ["45211"]),
        ("customerId", [45211], ["45211"]),
        ("ID", [45211], ["45211"]),
        ("paid", [45211], ["45,211"]),
        ("PAID", [45211], ["45,211"]),
        ("port", [8080], ["8080"]),
        ("main.date_part('year', d)", [1999, 2026, None], ["1999", "2026", None]),
        ("born", [1999, 12], ["1,999", "12"]),
    ],
)
def test_integers_have_separators_except_identifiers_and_years(
    name: str, values: list[int | None], texts: list[str | None]
) -> None:
    assert shown(name, pa.chunked_array([values])) == texts


@pytest.mark.parametrize(
    ("times", "texts"),
    [
        (["10:00:05.047034", None], ["10:00:05", None]),
        (["10:00:05.047034", "10:00:05.047034"], ["10:00:05", "10:00:05"]),
        (["10:00:05.25", "10:00:05"], ["10:00:05.250", "10:00:05.000"]),
        (["10:00:05.000001", "10:00:05"], ["10:00:05.000001", "10:00:05.000000"]),
    ],
)
def test_a_timestamp_has_the_digits_that_tell_it_apart(times: list[str | None], texts: list[str | None]) -> None:
    query = " UNION ALL ".join(
        f"SELECT {n} AS n, {repr(f'2026-11-20 {t}') if t else 'NULL'}::{{}} AS t" for n, t in enumerate(times)
    )
    column = query_table(f"SELECT t FROM ({query.replace('{}', 'TIMESTAMP')}) ORDER BY n").column("t")
    assert shown("t", column) == [text and f"2026-11-20 {text}" for text in texts]


def test_the_last_two_columns_stay_in_sight() -> None:
    table = pa.table(
        {**{f"column_{n}": [n] for n in range(20)}, "predicted_y": ["yes"], "predicted_y_probs": ["{no: 0.1, yes: 0.9}"]}
    )
    for kind in ("sql", "predict", "show"):
        lines = list(render(table, "table", Look(width=80), kind=kind))
        assert "│ … │ predicted_y │ predicted_y_probs   │" in lines[1]
        assert lines[-1].startswith("… 17 more columns: column_3, column_4")


def test_large_numbers_reach_json_whole() -> None:
    table = query_table(
        "SELECT 9223372036854775807 AS a, 12345678901234567890.123456789::DECIMAL(38, 9) AS b, 'inf'::DOUBLE AS c"
    )
    (row,) = json.loads("\n".join(render(table, "json")), parse_float=str)
    assert row == {"a": 9223372036854775807, "b": "12345678901234567890.123456789", "c": None}
