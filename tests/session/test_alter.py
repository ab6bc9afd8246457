"""ALTER MODEL: names, aliases, tags and comments, and what becomes of views and endpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

import sqlml
from sqlml.catalog import Catalog


def run(connection: sqlml.Connection, statement: str) -> list[tuple[object, ...]]:
    cursor = connection.execute(statement)
    return cursor.fetchall() if cursor.description else []


def retrain(connection: sqlml.Connection) -> None:
    connection.execute("TRAIN MODEL buys USING logistic_regression TARGET bought EXCLUDE (id, spent) ON inline AS FROM people")


@pytest.mark.parametrize(
    ("literal", "kept"),
    [
        ("'it''s'", "it's"),
        ("''", ""),
        ("5", "5"),
        ("-1.5", "-1.5"),
        ("true", "true"),
        ("[1, 'a']", '[1, "a"]'),
        ("{'a': 1}", '{"a": 1}'),
    ],
)
def test_tags_are_kept_as_text(connection: sqlml.Connection, literal: str, kept: str) -> None:
    run(connection, f"ALTER MODEL buys SET TAG Team = {literal}")
    assert run(connection, "SELECT model, version, tag, value FROM sqlml.tags") == [("buys", None, "team", kept)]
    assert run(connection, "SELECT tags['team'] FROM sqlml.models WHERE model = 'buys'") == [(kept,)]


def test_a_tag_by_parameter(connection: sqlml.Connection) -> None:
    connection.execute("ALTER MODEL buys SET TAG team = ?", ["risk"])
    assert run(connection, "SELECT value FROM sqlml.tags") == [("risk",)]


def test_tags_of_a_model_and_of_its_versions(connection: sqlml.Connection) -> None:
    retrain(connection)
    run(connection, "ALTER MODEL buys SET ALIAS champion = 1")
    run(connection, "ALTER MODEL buys SET TAG stage = 'all'")
    run(connection, "ALTER MODEL buys@2 SET TAG stage = 'two'")
    run(connection, "ALTER MODEL buys@champion SET TAG stage = 'one'")
    run(connection, "ALTER MODEL buys@champion SET TAG stage = 'first'")
    tags = run(connection, "SELECT version, value FROM sqlml.tags ORDER BY version NULLS FIRST")
    assert tags == [(None, "all"), (1, "first"), (2, "two")]
    assert run(connection, "SELECT tags['stage'] FROM sqlml.versions WHERE model = 'buys'") == [("first",), ("two",)]
    described = run(connection, "DESCRIBE MODEL buys@2")
    assert ("tag", "stage", "model", "all") in described
    assert ("tag", "stage", "version", "two") in described
    run(connection, "ALTER MODEL buys UNSET TAG STAGE")
    run(connection, "DROP MODEL buys@2")
    assert run(connection, "SELECT version, value FROM sqlml.tags") == [(1, "first")]


def test_comments(connection: sqlml.Connection) -> None:
    run(connection, "ALTER MODEL buys SET COMMENT 'who buys'")
    run(connection, "ALTER MODEL buys@1 SET COMMENT 'the first'")
    assert run(connection, "SELECT comment FROM sqlml.models WHERE model = 'buys'") == [("who buys",)]
    assert run(connection, "SELECT comment FROM sqlml.versions WHERE model = 'buys'") == [("the first",)]
    described = run(connection, "DESCRIBE MODEL buys")
    assert ("comment", "", "model", "who buys") in described
    assert ("comment", "", "version", "the first") in described
    run(connection, "ALTER MODEL buys UNSET COMMENT")
    run(connection, "ALTER MODEL buys@1 SET COMMENT NULL")
    assert not [row for row in run(connection, "DESCRIBE MODEL buys") if row[0] == "comment"]


def test_aliases_come_and_go(connection: sqlml.Connection) -> None:
    run(connection, "ALTER MODEL buys SET ALIAS champion = 1")
    retrain(connection)
    assert run(connection, "SHOW MODELS LIKE 'buys'")[0][1:4] == (2, 2, 1)
    assert ("alias", "champion", "", "buys@champion means this version") in run(connection, "DESCRIBE MODEL buys")
    run(connection, "ALTER MODEL buys UNSET ALIAS Champion")
    assert run(connection, "DESCRIBE MODEL buys")[0][1] == "buys@2"


def test_rename(database: Path) -> None:
    notices: list[str] = []
    with sqlml.connect(database, on_event=lambda e: notices.append(str(e["text"])) if e["event"] == "notice" else None) as c:
        expected = run(c, "SELECT id, PREDICT(buys) FROM people ORDER BY id")
        run(c, "CREATE VIEW calls AS SELECT id, PREDICT(buys) AS p FROM people")
        run(c, "CREATE VIEW pins AS SELECT id, PREDICT(BUYS@1) AS p FROM people")
        run(c, "CREATE VIEW other AS SELECT id, PREDICT(spends) AS p FROM people")
        run(c, "ALTER MODEL buys SET ALIAS champion = 1")
        run(c, "ALTER MODEL buys SET TAG team = 'risk'")
        notices.clear()
        run(c, "ALTER MODEL buys RENAME TO purchases")
        [notice] = notices
        assert "calls" in notice
        assert "pins" in notice
        assert "other" not in notice
        assert "make them again with purchases" in notice
        assert run(c, "SELECT id, PREDICT(purchases@champion) FROM people ORDER BY id") == expected
        assert run(c, "SELECT model, value FROM sqlml.tags") == [("purchases", "risk")]
        with pytest.raises(sqlml.ProgrammingError, match="the view calls calls a model that is gone"):
            run(c, "FROM calls")
        with pytest.raises(sqlml.ProgrammingError, match="unknown model buys"):
            run(c, "SELECT PREDICT(buys) FROM people")
        run(c, "ALTER MODEL purchases RENAME TO Buys")
        assert run(c, "SELECT id, p FROM calls ORDER BY id") == expected
        assert run(c, "SELECT model FROM sqlml.models ORDER BY 1") == [("Buys",), ("groups",), ("spends",)]
        notices.clear()
        run(c, "ALTER MODEL buys RENAME TO BUYS")  # only how it is written
        assert notices == []
        assert run(c, "SELECT count(*) FROM calls") == [(600,)]


def test_an_endpoint_goes_on_under_the_new_name(connection: sqlml.Connection, database: Path) -> None:
    catalog = Catalog.open(database.with_suffix(".sqlml"))
    catalog.deploy("front", catalog.resolve("buys"))
    catalog.close()
    run(connection, "ALTER MODEL buys RENAME TO purchases")
    assert run(connection, "SELECT endpoint, version FROM sqlml.endpoints") == [("front", "purchases@1")]


def test_a_name_used_before_gets_no_old_number(connection: sqlml.Connection) -> None:
    run(connection, "ALTER MODEL buys RENAME TO purchases")
    retrain(connection)
    assert run(connection, "SELECT version FROM sqlml.versions WHERE model = 'buys'") == [(2,)]


@pytest.mark.parametrize(
    ("statement", "message", "hint"),
    [
        ("ALTER MODEL nope SET COMMENT 'x'", "unknown model nope", "SHOW MODELS lists all"),
        ("ALTER MODEL buys@7 SET COMMENT 'x'", "model buys has no version 7", "it has: 1"),
        ("ALTER MODEL buys SET TAG t = NULL", "the tag t needs a value", "UNSET TAG t takes it away"),
        ('ALTER MODEL buys SET TAG " " = 1', "' ' cannot be a tag: it needs a name that can be read", "as in SET TAG"),
        ("ALTER MODEL buys UNSET TAG team", "buys has no tag team", "SELECT * FROM sqlml.tags lists all"),
        ("ALTER MODEL buys UNSET ALIAS champion", "model buys has no alias champion", "SET ALIAS champion ="),
        ("ALTER MODEL buys SET ALIAS champion = 9", "model buys has no version 9", "it has: 1"),
        ('ALTER MODEL buys SET ALIAS "9" = 1', "'9' cannot be an alias", ""),
        ("ALTER MODEL buys@1 SET ALIAS champion = 1", "names and aliases are the model's, not a version's", "as in ALTER"),
        ("ALTER MODEL buys@1 RENAME TO b", "names and aliases are the model's", "as in ALTER MODEL buys RENAME TO b"),
        ("ALTER MODEL buys RENAME TO SPENDS", "there is a model spends already", "choose another name"),
        ('ALTER MODEL buys RENAME TO "a/b"', "'a/b' cannot be the name of a model: it contains /", "letters"),
    ],
)  # fmt: skip
def test_what_cannot_be_altered(shared: sqlml.Connection, statement: str, message: str, hint: str) -> None:
    with pytest.raises(sqlml.ProgrammingError) as raised:
        shared.execute(statement)
    error = raised.value
    assert error.message.startswith(message)
    assert hint in (error.hint or "")
    assert error.span is not None


def test_nothing_is_altered_in_a_transaction(connection: sqlml.Connection) -> None:
    for statement in ("ALTER MODEL buys SET TAG t = 1", "ALTER MODEL buys RENAME TO b"):
        connection.execute("BEGIN")
        with pytest.raises(sqlml.NotSupportedError, match="ALTER cannot run inside an open transaction"):
            connection.execute(statement)
        connection.execute("ROLLBACK")
