"""A composition run over columns: formulas and SQL side by side, NULLs, no rows, values that no formula knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import sqlml
from sqlml.bundles.model import Model
from sqlml.catalog import Catalog
from sqlml.composition.plan import Composition
from sqlml.composition.run import Composed
from sqlml.errors import BundleError, DataError
from sqlml.types import arrow_type


def opened(connection: sqlml.Connection, query: str) -> Composed:
    """The query as DEPLOY QUERY settles it, opened from its JSON."""
    from sqlml_dialect import find_calls

    from sqlml.binder.compose import compose
    from sqlml.binder.compose_expressions import Names
    from sqlml.binder.models import resolve_model

    home = connection.models_home
    assert home is not None
    catalog = Catalog.open(Path(home))
    try:
        names = Names(
            lambda span: find_calls(query[slice(*span)], ["buys", "spends"], span[0]),
            lambda ref: resolve_model(catalog, ref, query),
            lambda span: (),
        )
        settled = compose(query, (0, len(query)), "e", names)
        composition = Composition.from_json(json.loads(json.dumps(settled.composition.to_json())))
        assert composition == settled.composition
        return Composed(composition, [Model.open(v.bundle, v.sha256) for v in settled.versions], {})
    finally:
        catalog.close()


def run(composed: Composed, *rows: dict[str, Any]) -> list[list[Any]]:
    parameters = {
        column.name: pa.array([row.get(column.name) for row in rows], arrow_type(column.kind))
        for column in composed.composition.parameters
    }
    return [list(column.tolist()) for column in composed.run(parameters)]


ROW = {"age": 40.0, "job": "cook", "balance": 3.5}


def test_formulas_and_sql_stand_side_by_side(shared: sqlml.Connection) -> None:
    composed = opened(
        shared,
        "SELECT PREDICT_PROBA(buys, 'yes') * 2 AS a, PREDICT_PROBA(buys)['yes'] * 2 AS b, upper($job) AS c, $job = 'cook' AS d",
    )
    [a], [b], [c], [d] = run(composed, ROW)
    assert (a, c, d) == (b, "COOK", True)


def test_nulls_and_what_is_not_finite_are_the_databases_to_compute(shared: sqlml.Connection) -> None:
    composed = opened(
        shared, "SELECT $x::DOUBLE / $y::DOUBLE AS q, CASE WHEN $x > 0 THEN 'up' ELSE 'down' END AS w, PREDICT(spends) AS s"
    )
    rows = [ROW | {"x": x, "y": y} for x, y in ((1, 2), (None, 2), (1, 0), (-1, 4))]
    quotients, words, _ = run(composed, *rows)
    expected = shared.execute(
        "SELECT x / y FROM (VALUES (1.0::DOUBLE, 2.0::DOUBLE), (NULL, 2), (1, 0), (-1, 4)) t(x, y)"
    ).fetchall()
    assert quotients == [q for (q,) in expected]
    assert words == ["up", "down", "up", "down"]
    assert [column[:1] for column in run(composed, rows[0])[:2]] == [[0.5], ["up"]]


def test_no_rows(shared: sqlml.Connection) -> None:
    assert run(opened(shared, "SELECT PREDICT_PROBA(buys, 'yes') / 2 AS p, PREDICT_PROBA(buys) AS all, lower($job) AS j")) == [
        [],
        [],
        [],
    ]


def test_types_keep_their_form(shared: sqlml.Connection) -> None:
    composed = opened(
        shared,
        "SELECT $n::INTEGER + 1 AS n, $day::DATE AS day, $at::TIMESTAMP AS at, [$n::DOUBLE, 2] AS list, NULL AS nothing, "
        "$n::DECIMAL(8, 2) AS d, PREDICT(buys) = 'yes' AS truth",
    )
    from datetime import date, datetime

    found = run(composed, ROW | {"n": 3.0, "day": date(2024, 2, 29), "at": datetime(2024, 2, 29, 12, 30)})
    assert found[:6] == [[4], ["2024-02-29"], ["2024-02-29 12:30:00"], [[3.0, 2.0]], [None], [3.0]]
    assert [type(column[0]) for column in (found[0], found[5], found[6])] == [int, float, bool]


def test_a_row_that_cannot_be_computed(shared: sqlml.Connection) -> None:
    composed = opened(shared, "SELECT CAST($job AS INTEGER) AS n, PREDICT(buys) AS b")
    with pytest.raises(DataError, match="the query cannot compute a row: Could not convert string 'cook'"):
        run(composed, ROW)


def test_the_same_question_is_asked_once(shared: sqlml.Connection) -> None:
    composed = opened(
        shared, "SELECT PREDICT(buys) AS a, PREDICT_PROBA(buys, 'no') AS b, PREDICT(buys USING $age, $job, $balance) AS c"
    )
    assert [type(step).__name__ for step in composed.composition.steps] == ["Ask"]


def test_sql_that_was_changed_in_the_catalog_is_not_run(shared: sqlml.Connection) -> None:
    document = opened(shared, "SELECT upper($job) AS j, PREDICT(buys) AS b").composition.to_json()
    text = json.dumps(document)
    for evil in ("read_text('/etc/passwd')", "(SELECT 1)", "upper(other)"):
        with pytest.raises(BundleError, match="the endpoint's query cannot be used"):
            Composition.from_json(json.loads(text.replace('upper(\\"$job\\")', evil)))
    with pytest.raises(BundleError, match="format 9"):
        Composition.from_json(document | {"format": 9})
