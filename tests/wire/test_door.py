"""``SELECT * FROM sqlml('…')`` by clients that describe before they execute, and by tools that ask for columns alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from tests.wire.places import USER, Place, serving

pytestmark = pytest.mark.slow
TRAIN = "TRAIN MODEL buys USING logistic_regression TARGET y KEY id ON inline AS SELECT id, x, y FROM rows"
STATEMENTS = {
    TRAIN: ["model", "version", "algorithm", "rows", "roc_auc", "log_loss", "f1", "seconds"],
    "TRAIN MODEL size USING linear_regression TARGET x SPLIT NONE ON inline AS SELECT id, x FROM rows": [
        "model", "version", "algorithm", "rows", "rmse", "mae", "r2", "seconds",
    ],
    "TRAIN MODEL two USING linear_regression TARGET x, id SPLIT NONE ON inline AS SELECT g, id, x FROM rows": [
        "model", "version", "target", "algorithm", "rows", "rmse", "mae", "r2", "seconds",
    ],
    "PREDICT MODEL known AS SELECT id, x FROM rows WHERE id < 3": ["id", "x", "predicted_y", "predicted_y_probs"],
    "EVALUATE MODEL known BY g AS SELECT * FROM rows": [
        "g", "rows", "roc_auc", "log_loss", "accuracy", "precision", "recall", "f1", "pr_auc", "mcc", "balanced_accuracy",
        "brier",
    ],
    "EXPLAIN MODEL known": ["feature", "importance"],
    "EXPLAIN MODEL known TOP 1 AS SELECT id, x FROM rows WHERE id = 1": ["id", "x", "predicted_y", "reasons"],
    "SHOW VERSIONS OF known": [],
    "SELECT PREDICT(known) AS p FROM rows WHERE id = 1": ["p"],
}  # fmt: skip
COLUMNS_ONLY = (
    "SELECT * FROM sqlml('{}') LIMIT 0",
    "SELECT * FROM (SELECT * FROM sqlml('{}')) AS virtual_table LIMIT 0",
    "SELECT * FROM (SELECT * FROM sqlml('{}')) AS t WHERE 1=0",
    "SELECT * FROM (SELECT * FROM sqlml('{}')) t WHERE false AND t.model <> ''",
    "SELECT t.* FROM (SELECT * FROM sqlml('{}') LIMIT 1000) t WHERE 1 <> 1",
    "SELECT * FROM sqlml('{}') FETCH FIRST 0 ROWS ONLY",
    "WITH t AS (SELECT * FROM sqlml('{}')) SELECT * FROM t LIMIT 0",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with serving(tmp_path_factory.mktemp("door") / "bank.duckdb") as (place, _):
        with connect(place) as client:
            client.execute(
                "CREATE TABLE rows AS SELECT i AS id, (i * 37 % 100)::DOUBLE AS x, (i * 37 % 100) > 50 AS y, i % 3 AS g "
                "FROM range(90) t(i)"
            )
            client.execute(TRAIN.replace("buys", "known").encode())
        yield place


def connect(place: Place) -> psycopg.Connection[Any]:
    return psycopg.connect(place.conninfo, autocommit=True)


async def _asyncpg(place: Place) -> Any:
    return await asyncpg.connect(host=place.host, port=place.port, database=place.database, user=USER)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_described_as_the_statement_itself_is(statement: str, place: Place) -> None:
    """The columns that asyncpg is told at Prepare, before anything runs, are those that come; and they are typed."""

    async def run() -> None:
        client = await _asyncpg(place)
        try:
            told = []
            for text in (statement, f"SELECT * FROM sqlml('{statement}')"):
                before = await client.fetchval("SELECT count(*) FROM sqlml.versions")
                prepared = await client.prepare(text)
                assert await client.fetchval("SELECT count(*) FROM sqlml.versions") == before
                told.append([(column.name, column.type.name) for column in prepared.get_attributes()])
                rows = await prepared.fetch()
                assert rows
                assert list(rows[0].keys()) == [name for name, _ in told[-1]]
                trained = await client.fetchval("SELECT count(*) FROM sqlml.versions") - before
                assert trained == (1 if statement.startswith("TRAIN") else 0)
            assert told[0] == told[1]
            names = [name for name, _ in told[0]]
            assert names == STATEMENTS[statement] or (not STATEMENTS[statement] and names[:2] == ["model", "version"])
            assert "rows" not in names or dict(told[0])["rows"] == "int8"
        finally:
            await client.close()

    asyncio.run(run())


@pytest.mark.parametrize("text", COLUMNS_ONLY)
@pytest.mark.parametrize("prepare", [False, True])
def test_columns_alone_train_nothing(text: str, prepare: bool, place: Place) -> None:
    with connect(place) as client:
        before = client.execute("SELECT count(*) FROM sqlml.versions").fetchone()
        cursor = client.execute(text.format(TRAIN).encode(), prepare=prepare)
        assert [column.name for column in cursor.description or ()] == STATEMENTS[TRAIN]
        assert cursor.fetchall() == []
        assert client.execute("SELECT count(*) FROM sqlml.versions").fetchone() == before


def test_part_of_the_answer_with_parameters(place: Place) -> None:
    with connect(place) as client:
        text = f"SELECT model, version + %s AS more, roc_auc FROM sqlml('{TRAIN}') WHERE model = %s"
        cursor = client.execute(text.encode(), (100, "buys"), prepare=True)
        [(model, more, roc_auc)] = cursor.fetchall()
        assert model == "buys"
        assert more > 100
        assert roc_auc > 0.9
        assert [column.type_code for column in cursor.description or ()] == [25, 20, 701]


def test_what_is_wrong_is_told_when_it_is_prepared(place: Place) -> None:
    async def run() -> None:
        client = await _asyncpg(place)
        try:
            with pytest.raises(asyncpg.PostgresError, match="nowhere"):
                await client.prepare("SELECT * FROM sqlml('TRAIN MODEL m TARGET y AS SELECT * FROM nowhere')")
            with pytest.raises(asyncpg.UndefinedColumnError, match="nope"):
                await client.prepare(f"SELECT nope FROM sqlml('{TRAIN}')")
        finally:
            await client.close()

    asyncio.run(run())


def test_a_target_whose_values_decide_is_one_column_of_json(place: Place) -> None:
    """Whether a number is a class is known from the rows, which nobody reads to describe a statement."""

    async def run() -> None:
        client = await _asyncpg(place)
        try:
            text = "TRAIN MODEL decided TARGET g SPLIT NONE ON inline AS SELECT x, g FROM rows"
            prepared = await client.prepare(f"SELECT * FROM sqlml('{text}')")
            assert [(column.name, column.type.name) for column in prepared.get_attributes()] == [("result", "json")]
            assert '"model": "decided"' in (await prepared.fetchval())
        finally:
            await client.close()

    asyncio.run(run())


def test_a_parameter_that_is_no_class(place: Place) -> None:
    with connect(place) as client:
        text = b"SELECT PREDICT_PROBA(known, %s) FROM rows WHERE id = %s"
        assert client.execute(text, ("true", 1)).fetchone() is not None
        with pytest.raises(psycopg.ProgrammingError, match="has no class 'perhaps'") as raised:
            client.execute(text, ("perhaps", 1))
        assert raised.value.diag.message_hint == "its classes: false, true"
        assert raised.value.diag.statement_position == "29"


def test_the_embedded_session_trains_nothing_for_columns(tmp_path: Path) -> None:
    import sqlml

    with sqlml.connect(tmp_path / "bank.duckdb") as connection:
        connection.execute("CREATE TABLE rows AS SELECT i AS id, i * 1.0 AS x, i > 50 AS y FROM range(90) t(i)")
        cursor = connection.execute(f"SELECT * FROM (SELECT * FROM sqlml('{TRAIN}')) AS t WHERE 1 = 0")
        assert [column[0] for column in cursor.description or ()] == STATEMENTS[TRAIN]
        assert connection.execute("SELECT count(*) FROM sqlml.models").fetchall() == [(0,)]
        cursor = connection.execute("SELECT * FROM sqlml('DROP MODEL nobodys') LIMIT 0")
        assert [column[0] for column in cursor.description or ()] == ["result", "rows"]


CHANGED = {
    "another target": ("PREDICT MODEL turned AS SELECT id, x FROM rows", "z", "id > 40 AS z"),
    "another target, in a select": ("SELECT * FROM sqlml('PREDICT MODEL turned AS SELECT id, x FROM rows')", "z", "id > 40 AS z"),
    "classes of another type": (
        "PREDICT MODEL turned AS SELECT id, x FROM rows",
        "y",
        "CASE WHEN y THEN 'yes' ELSE 'no' END AS y",
    ),
    "with a parameter": ("PREDICT MODEL turned AS SELECT id, x FROM rows WHERE id < $1::int", "z", "id > 40 AS z"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_a_model_that_was_trained_anew_is_no_row_of_nulls(case: str, place: Place) -> None:
    """A prepared statement keeps the columns that it was described with, or is refused as PostgreSQL refuses it."""
    text, target, column = CHANGED[case]
    values = (50,) if "$1" in text else ()
    train = "TRAIN MODEL turned USING logistic_regression TARGET {} SPLIT NONE ON inline AS SELECT x, {} FROM rows"

    async def run() -> None:
        client = await _asyncpg(place)
        try:
            await client.execute(train.format("y", "y"))
            prepared = await client.prepare(text)
            told = [column.name for column in prepared.get_attributes()]
            before = await prepared.fetch(*values)
            assert "predicted_y" in told
            assert before
            assert None not in [row["predicted_y"] for row in before]
            await client.execute("DROP MODEL turned")
            await client.execute(train.format(target, column))
            with pytest.raises(asyncpg.FeatureNotSupportedError, match="cached plan must not change result type"):
                await prepared.fetch(*values)
            again = await client.prepare(f"{text} ")
            assert f"predicted_{target}" in [column.name for column in again.get_attributes()]
            assert len(await again.fetch(*values)) == len(before)
        finally:
            await client.execute("DROP MODEL turned")
            await client.close()

    asyncio.run(run())


def test_a_table_that_has_changed(place: Place) -> None:
    changes = ("ALTER TABLE shaped ADD COLUMN b INTEGER", "ALTER TABLE shaped ALTER COLUMN a TYPE DOUBLE")

    async def run() -> None:
        client = await _asyncpg(place)
        try:
            for change in changes:
                await client.execute("CREATE TABLE shaped AS SELECT 7 AS a")
                prepared = await client.prepare("SELECT * FROM shaped")
                assert await prepared.fetchval() == 7
                await client.execute(change)
                with pytest.raises(asyncpg.FeatureNotSupportedError, match="cached plan must not change result type"):
                    await prepared.fetch()
                await client.execute("DROP TABLE shaped")
        finally:
            await client.close()

    asyncio.run(run())


def test_parameters_as_columns_of_the_answer(place: Place) -> None:
    """Their names and types are not known before their values are, and refuse nothing."""

    async def run() -> None:
        client = await _asyncpg(place)
        try:
            prepared = await client.prepare("SELECT $1::int, $2, $1::int + 1, feature FROM sqlml('EXPLAIN MODEL known')")
            [row] = await prepared.fetch(5, "text")
            assert tuple(row)[:3] == (5, "text", 6)
            analyzed = await client.prepare("EXPLAIN ANALYZE SELECT 1")
            assert "Total Time" in await analyzed.fetchval()
        finally:
            await client.close()

    asyncio.run(run())
