"""Predictions as functions, wherever a query can hold one."""

from __future__ import annotations

from pathlib import Path

import pytest

import sqlml
from sqlml.bundles.model import Model

YES = "PREDICT_PROBA(buys, 'yes')"


def one(connection: sqlml.Connection, text: str, values: object = ()) -> object:
    """The only value of the first row."""
    row = connection.execute(text, values).fetchone()  # type: ignore[arg-type]
    assert row is not None
    return row[0]


QUERIES = (
    "SELECT count(*) FROM people WHERE PREDICT(buys) = 'yes'",
    "SELECT count(PREDICT(buys)) FILTER (PREDICT(buys) = 'yes') FROM people",
    "SELECT n FROM (SELECT PREDICT(buys) AS p, count(*) AS n FROM people GROUP BY PREDICT(buys)) WHERE p = 'yes'",
    "SELECT n FROM (SELECT PREDICT(buys) AS p, count(*) AS n FROM people GROUP BY 1 HAVING PREDICT(buys) = 'yes')",
    "WITH s AS (SELECT *, PREDICT(buys) AS p FROM people) SELECT count(*) FROM s WHERE p = 'yes'",
    "SELECT count(*) FROM people AS a JOIN people AS b ON a.id = b.id AND PREDICT(buys USING a.*) = 'yes'",
    "SELECT count(*) FROM people AS a WHERE (SELECT PREDICT(buys USING a.*)) = 'yes'",
    "SELECT count(*) FROM people AS a WHERE EXISTS (SELECT 1 WHERE PREDICT(buys) = 'yes')",
    "SELECT sum(CASE WHEN PREDICT(buys) = 'yes' THEN 1 ELSE 0 END)::INTEGER FROM people",
    "SELECT count(*) FROM people WHERE PREDICT(buys USING people.*) = 'yes'",
    "SELECT count(*) FROM people WHERE PREDICT(buys USING age, job, balance) = 'yes'",
    "SELECT count(*) FROM people WHERE PREDICT(buys USING *, age + 0 AS age) = 'yes'",
    "SELECT count(*) FROM people WHERE buys(age, job, balance) = 'yes'",
    "SELECT count(*) FROM people WHERE buys(balance := balance, age := age, job := job) = 'yes'",
    "SELECT count(*) FROM people WHERE buys(*) = 'yes'",
    "SELECT count(*) FROM people AS p WHERE \"buys@1\"(p.*) = 'yes'",
    "SELECT count(*) FROM people WHERE predict_proba(Buys@1)['yes'] > 0.5",
    "SELECT count(*) FROM people WHERE if(PREDICT_PROBA(buys, bought) > 0.5, bought, if(bought = 'no', 'yes', 'no')) = 'yes'",
    "SELECT count(*) FROM ML.PREDICT(MODEL buys, (FROM people)) WHERE predicted_bought = 'yes'",
    "SELECT count(*) FROM ML.PREDICT(MODEL buys, TABLE people) AS s JOIN people USING (id) WHERE s.predicted_bought = 'yes'",
    "SELECT max(r) FROM (SELECT rank() OVER (PARTITION BY PREDICT(buys) ORDER BY id) AS r, PREDICT(buys) AS p FROM people) "
    "WHERE p = 'yes'",
    "SELECT count(*) FROM (SELECT DISTINCT id, PREDICT(buys) AS p FROM people) WHERE p = 'yes'",
    "SELECT count(*) FROM people WHERE list_contains([PREDICT(buys)], 'yes')",
    "SELECT count(*) FROM people WHERE list_transform([age], lambda a: PREDICT(buys USING a AS age, job, balance)) = ['yes']",
)


@pytest.mark.parametrize("query", QUERIES)
def test_everywhere(shared: sqlml.Connection, query: str) -> None:
    expected = one(shared, "SELECT count(*) FROM (SELECT PREDICT(buys) AS p FROM people) WHERE p = 'yes'")
    assert 0 < expected < 600  # type: ignore[operator]
    assert one(shared, query) == expected


def test_order_by(shared: sqlml.Connection) -> None:
    rows = shared.execute(f"SELECT {YES} FROM people ORDER BY {YES} DESC, id").fetchall()
    assert rows == sorted(rows, reverse=True)


def test_names_of_columns_stay_as_typed(shared: sqlml.Connection) -> None:
    cursor = shared.execute("SELECT id, PREDICT(buys), predict_proba( buys ,'yes'), buys(*) AS own FROM people LIMIT 0")
    assert [d.name for d in cursor.description or ()] == ["id", "PREDICT(buys)", "predict_proba( buys ,'yes')", "own"]


def test_writing_statements(connection: sqlml.Connection) -> None:
    connection.execute("CREATE TABLE scores AS SELECT id, PREDICT(buys) AS p FROM people")
    assert connection.execute("INSERT INTO scores SELECT id, PREDICT(buys) FROM people").rowcount == 600
    connection.execute("ALTER TABLE people ADD COLUMN p VARCHAR")
    assert connection.execute("UPDATE people SET p = PREDICT(buys)").rowcount == 600
    assert one(connection, "SELECT count(*) FROM people WHERE p <> PREDICT(buys)") == 0
    assert connection.execute("DELETE FROM people WHERE PREDICT(buys) = 'yes'").rowcount > 0
    assert one(connection, "SELECT count(*) FROM people WHERE p = 'yes'") == 0
    connection.execute(
        "MERGE INTO scores USING people ON scores.id = people.id WHEN MATCHED THEN UPDATE SET p = PREDICT(buys USING people.*)"
    )


def test_nulls_and_the_unseen(shared: sqlml.Connection) -> None:
    cursor = shared.execute(
        "SELECT PREDICT(buys), PREDICT_PROBA(buys, 'yes'), PREDICT(spends), PREDICT(groups), PREDICT_REASONS(buys, 1) "
        "FROM (VALUES (NULL::INTEGER, NULL::VARCHAR, NULL::DOUBLE), (1, 'pilot', 1.0), (1, NULL, 1.0)) AS t(age, job, balance)"
    )
    nothing, unseen, missing = cursor.fetchall()
    assert None not in nothing
    assert unseen[:2] == missing[:2]


def test_no_rows(shared: sqlml.Connection) -> None:
    none = "FROM people WHERE false"
    assert shared.execute(f"SELECT PREDICT(buys), PREDICT_PROBA(buys), PREDICT_REASONS(spends) {none}").fetchall() == []
    assert shared.execute(f"PREDICT MODEL groups AS {none}").fetchall() == []
    assert shared.execute(f"EXPLAIN MODEL buys AS {none}").fetchall() == []


def test_equal_to_the_model_itself(shared: sqlml.Connection) -> None:
    [(bundle,)] = shared.execute("SELECT bundle FROM sqlml.versions WHERE model = 'buys'").fetchall()
    model = Model.open(Path(bundle))
    data = shared.execute("SELECT age, job, balance FROM people").fetch_arrow_table()
    found = [p for (p,) in shared.execute(f"SELECT {YES} FROM people").fetchall()]
    assert found == pytest.approx(list(model.probabilities(data)[:, 1]), abs=1e-9)


def test_probabilities_sum_to_one(shared: sqlml.Connection) -> None:
    for (probabilities,) in shared.execute("SELECT PREDICT_PROBA(buys) FROM people LIMIT 50").fetchall():
        assert list(probabilities) == ["no", "yes"]
        assert sum(probabilities.values()) == pytest.approx(1)


def test_reasons(shared: sqlml.Connection) -> None:
    [(reasons,)] = shared.execute("SELECT PREDICT_REASONS(buys, 2) FROM people LIMIT 1").fetchall()
    assert [set(reason) for reason in reasons] == [{"feature", "value", "contribution"}] * 2
    assert abs(reasons[0]["contribution"]) >= abs(reasons[1]["contribution"])
    assert len(one(shared, "SELECT PREDICT_REASONS(buys) FROM people LIMIT 1")) == 3  # type: ignore[arg-type]


def test_parameters_keep_their_order(shared: sqlml.Connection) -> None:
    literal = shared.execute("SELECT PREDICT_PROBA(buys, 'yes' USING 2.5 AS balance, 'cook' AS job, 70 AS age)").fetchone()
    asked = "SELECT PREDICT_PROBA(buys, {} USING {} AS balance, {} AS job, {} AS age), {}"
    values = ["yes", 2.5, "cook", 70, "end"]
    for marks in (["?"] * 5, ["$1", "$2", "$3", "$4", "$5"]):
        assert shared.execute(asked.format(*marks), values).fetchone() == (*(literal or ()), "end")
    named = dict(zip("abcde", values, strict=True))
    assert shared.execute(asked.format("$a", "$b", "$c", "$d", "$e"), named).fetchone() == (*(literal or ()), "end")
    rows = shared.execute("SELECT id FROM ML.PREDICT(MODEL buys, (FROM people WHERE id < ?)) WHERE id > ?", [20, 17]).fetchall()
    assert rows == [(18,), (19,)]


def test_all_missing_columns_are_named_with_parameters_too(shared: sqlml.Connection) -> None:
    with pytest.raises(sqlml.ProgrammingError, match="does not have: age, balance"):
        shared.execute("SELECT PREDICT(buys) FROM (SELECT job, id FROM people) WHERE id > ?", [3])


def test_views_follow_their_model(connection: sqlml.Connection, database: object) -> None:
    connection.execute("CREATE VIEW scored AS SELECT id, PREDICT(buys) AS p, PREDICT_PROBA(buys, 'yes') AS y FROM people")
    connection.execute("CREATE VIEW pinned AS SELECT id, PREDICT_PROBA(buys@1, 'yes') AS y FROM people")
    connection.execute("CREATE VIEW over AS SELECT * FROM scored WHERE p = 'yes'")
    connection.execute("CREATE MACRO score(a) AS PREDICT(buys USING a AS age, 'cook' AS job, 1 AS balance)")
    first = one(connection, "SELECT avg(y) FROM scored")
    assert one(connection, "SELECT avg(y) FROM pinned") == first
    assert one(connection, "SELECT count(*) FROM over") == one(connection, "SELECT count(*) FROM scored WHERE p = 'yes'")
    connection.execute(
        "TRAIN MODEL buys TARGET bought EXCLUDE (id, spent) WITH (n_estimators = 2) ON inline "
        "AS SELECT * FROM people WHERE id < 300"
    )
    second = one(connection, "SELECT avg(y) FROM scored")
    assert second != first
    assert one(connection, "SELECT avg(y) FROM pinned") == first
    connection.close()
    with sqlml.connect(database) as again:  # type: ignore[arg-type]
        assert one(again, "SELECT avg(y) FROM scored") == second
        assert one(again, "SELECT avg(y) FROM pinned") == first
        assert one(again, "SELECT count(*) FROM over") > 0  # type: ignore[operator]
        assert one(again, "SELECT score(3)") in ("yes", "no")


def test_a_view_whose_model_changed_its_inputs(connection: sqlml.Connection) -> None:
    connection.execute("CREATE VIEW scored AS SELECT PREDICT(buys) FROM people")
    connection.execute("TRAIN MODEL buys TARGET bought WITH (n_estimators = 2) ON inline AS SELECT age, id, bought FROM people")
    with pytest.raises(sqlml.ProgrammingError) as raised:
        connection.execute("SELECT * FROM scored").fetchall()
    assert str(raised.value) == (
        "the view scored calls the model buys, whose version 2 needs id and has no job, balance\n"
        "  make the view again, or pin a version in it: PREDICT(buys@n)"
    )
    connection.execute("DROP MODEL buys")
    with pytest.raises(sqlml.ProgrammingError, match="the view scored calls a model that is gone: unknown model buys"):
        connection.execute("SELECT * FROM scored").fetchall()


def test_functions_of_the_user_win(connection: sqlml.Connection) -> None:
    connection.execute("CREATE MACRO predict(a) AS a + 1")
    assert one(connection, "SELECT predict(2)") == 3
    connection.execute("DROP MACRO predict")
    assert one(connection, "SELECT predict(buys) FROM people LIMIT 1") in ("yes", "no")


@pytest.mark.parametrize(
    ("name", "query"), [("sum", "SELECT sum(3)"), ("values", "SELECT * FROM (VALUES (3))"), ("coalesce", "SELECT coalesce(3)")]
)
def test_a_model_named_like_a_function_of_the_database(connection: sqlml.Connection, name: str, query: str) -> None:
    connection.execute(f'TRAIN MODEL "{name}" TARGET bought EXCLUDE (id, spent) WITH (n_estimators = 2) ON inline AS FROM people')
    cursor = connection.execute(query)
    assert cursor.fetchone() == (3,)
    assert cursor.notices == (f"{name} is a function of the database: the model of that name is reached by PREDICT({name})",)
    assert connection.execute(query).notices == ()
    assert one(connection, f'SELECT PREDICT("{name}") FROM people LIMIT 1') in ("yes", "no")


def test_into(connection: sqlml.Connection) -> None:
    assert connection.execute("PREDICT MODEL buys INTO scores AS FROM people LIMIT 7").rowcount == 7
    assert connection.execute("PREDICT MODEL buys INTO scores APPEND AS FROM people LIMIT 3").rowcount == 3
    assert one(connection, "SELECT count(*) FROM scores") == 10
    assert connection.execute("PREDICT MODEL buys INTO main.scores REPLACE AS FROM people LIMIT 2").rowcount == 2
    cursor = connection.execute("FROM scores")
    assert [d.name for d in cursor.description or ()][-2:] == ["predicted_bought", "predicted_bought_probs"]
    with pytest.raises(sqlml.DatabaseError):
        connection.execute("PREDICT MODEL buys INTO scores APPEND AS SELECT *, job::INTEGER AS new FROM people")
    assert one(connection, "SELECT count(*) FROM scores") == 2
    connection.execute('PREDICT MODEL groups INTO "odd ""name" AS FROM people')
    assert one(connection, 'SELECT count(DISTINCT centroid_id) FROM "odd ""name"') == 3


def test_explain_model(connection: sqlml.Connection) -> None:
    rows = connection.execute("EXPLAIN MODEL buys").fetchall()
    assert rows[0][0] == "age"
    assert sum(share for _, share in rows) == pytest.approx(1)
    assert connection.execute("EXPLAIN MODEL buys TOP 2 INTO weights").rowcount == 2
    assert connection.execute("FROM weights").fetchall() == rows[:2]
    cursor = connection.execute("EXPLAIN MODEL spends TOP 1 AS SELECT * FROM people LIMIT 3")
    assert [d.name for d in cursor.description or ()][-2:] == ["predicted_spent", "reasons"]
    assert {row[-1][0]["feature"] for row in cursor.fetchall()} == {"age"}
    assert connection.execute("EXPLAIN MODEL groups TOP 1 AS FROM people LIMIT 1").fetchone() is not None


def test_evaluate(shared: sqlml.Connection) -> None:
    held_out = shared.execute("EVALUATE MODEL buys")
    names = [d.name for d in held_out.description or ()]
    assert names[:5] == ["model", "version", "rows", "roc_auc", "log_loss"]
    row = dict(zip(names, held_out.fetchone() or (), strict=True))
    assert row["rows"] == 120
    assert row["roc_auc"] > 0.95
    strict = shared.execute("EVALUATE MODEL buys WITH (threshold = ?)", [0.9]).fetchone()
    assert strict is not None
    assert strict[names.index("recall")] < row["recall"]
    on_all = shared.execute("EVALUATE MODEL buys AS SELECT * FROM people WHERE id < ?", [300])
    assert on_all.fetchone()[2] == 300  # type: ignore[index]
    assert shared.execute("EVALUATE MODEL spends").fetchone()[3] < 5  # type: ignore[index]
    assert shared.execute("EVALUATE MODEL groups AS FROM people").fetchone() is not None


def test_explain_plan_runs_nothing(shared: sqlml.Connection) -> None:
    jobs = shared.execute("SELECT count(*) FROM sqlml.jobs").fetchone()
    lines = [
        line for (line,) in shared.execute("EXPLAIN TRAIN MODEL m TARGET bought LIMIT (TIME '1 min') AS FROM people").fetchall()
    ]
    assert lines[0] == "TRAIN MODEL m: a new version"
    assert any("limits: 60 s" in line for line in lines)
    assert shared.execute("EXPLAIN DROP MODEL buys").fetchall()[0] == ("DROP MODEL buys",)
    assert "__sqlml" not in str(shared.execute("EXPLAIN PREDICT MODEL buys INTO t AS FROM people").fetchall())
    assert "__sqlml" not in str(shared.execute("EXPLAIN SELECT 1, PREDICT(buys) FROM people").fetchall())
    assert shared.execute("SELECT count(*) FROM sqlml.jobs").fetchone() == jobs


def test_infinite_dates_are_missing() -> None:
    """They have no year: a number for one would be far beyond everything that was learnt."""
    with sqlml.connect() as connection:
        connection.execute(
            "CREATE TABLE days AS SELECT DATE '2020-01-01' + i::INT AS day, TIMESTAMP '2020-01-01' + INTERVAL (i) HOUR AS at, "
            "i * 2.0 AS y FROM range(200) r(i)"
        )
        connection.execute("TRAIN MODEL m USING linear_regression TARGET y ON inline AS FROM days")
        for sign in ("", "-"):
            [(found, missing)] = connection.execute(
                f"SELECT PREDICT(m USING DATE '{sign}infinity' AS day, TIMESTAMP '{sign}infinity' AS at), "
                "PREDICT(m USING NULL AS day, NULL AS at)"
            ).fetchall()
            assert found == missing


def test_the_label_of_a_boolean_class_by_a_parameter_or_a_row(connection: sqlml.Connection) -> None:
    """In the words that a literal may have."""
    connection.execute(
        "TRAIN MODEL rich USING logistic_regression TARGET y SPLIT NONE ON inline AS SELECT age, balance > 5 AS y FROM people"
    )

    def asked(label: str, *values: object) -> list[float]:
        return [
            p for (p,) in connection.execute(f"SELECT PREDICT_PROBA(rich, {label}) FROM people ORDER BY id", values).fetchall()
        ]

    expected = pytest.approx(asked("'yes'"), rel=1e-12)
    for label in ("yes", "true", "T", True):
        assert asked("?", label) == expected
    assert asked("lower('YES')") == expected
    assert connection.execute("SELECT PREDICT_PROBA(rich, balance > 5) FROM people").fetchone() is not None
    assert one(connection, "SELECT PREDICT_PROBA(rich, ?) FROM people", [None]) is None
    assert one(connection, "SELECT PREDICT_PROBA(rich, lower('PERHAPS')) FROM people", []) is None


def test_a_label_of_a_parameter_that_is_no_class(connection: sqlml.Connection) -> None:
    """As the literal: an error that names the classes, wherever the call stands; what each row names may be unknown."""
    for text, values in (
        ("SELECT PREDICT_PROBA(buys, ?) FROM people", ["perhaps"]),
        ("SELECT id FROM people WHERE ? < age AND PREDICT_PROBA(buys, ?) > 0.5", [1, "perhaps"]),
        ("WITH p AS (SELECT PREDICT_PROBA(buys, $2::VARCHAR) AS p FROM people WHERE id > $1) SELECT * FROM p", [1, "perhaps"]),
        ("SELECT PREDICT_PROBA(buys, $label) FROM people", {"label": "perhaps"}),
    ):
        with pytest.raises(sqlml.ProgrammingError, match="has no class 'perhaps'") as caught:
            connection.execute(text, values)
        assert "its classes: no, yes" in str(caught.value)
    assert one(connection, "SELECT PREDICT_PROBA(buys, job) FROM people", []) is None
    connection.execute("CREATE TABLE chances (id INTEGER, p DOUBLE)")
    with pytest.raises(sqlml.ProgrammingError, match="has no class 'perhaps'"):
        connection.cursor().executemany(
            "INSERT INTO chances SELECT id, PREDICT_PROBA(buys, ?) FROM people WHERE id = ?", [["yes", 1], ["perhaps", 2]]
        )
    assert connection.execute("SELECT count(*) FROM chances").fetchone() == (0,)


def test_a_statement_that_runs_nothing_runs_no_door(connection: sqlml.Connection) -> None:
    for looks in ("EXPLAIN", "DESCRIBE"):
        with pytest.raises(sqlml.NotSupportedError, match="this statement runs nothing") as caught:
            connection.execute(f"{looks} SELECT * FROM sqlml('DROP MODEL buys')")
        assert "EXPLAIN DROP MODEL buys" in str(caught.value)
    assert connection.execute("SELECT count(PREDICT(buys)) FROM people").fetchone() == (600,)
