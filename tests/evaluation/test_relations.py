"""The functions as tables in queries of every kind, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import sqlml

PEOPLE = """
    CREATE TABLE people AS SELECT i AS id, CASE WHEN i % 10 <> 0 THEN (i * 7919) % 97 END AS age,
    [NULL, 'clerk', 'cook', 'it''s "ß"'][1 + i % 4] AS job, (i * 31 % 100) / 10.0 AS balance,
    CASE WHEN (i * 7919) % 97 + i * 13 % 20 > 55 THEN 'yes' ELSE 'no' END AS bought,
    ['Ä b', 'c"d', 'expected_label', 'Target'][1 + ((i * 7919) % 97 + i % 7) // 27] AS kind, 1 + i % 3 AS w,
    ((i * 7919) % 97 * 2 + i % 5)::DOUBLE AS spent FROM range(600) AS numbers(i)
"""
MODELS = (
    "TRAIN MODEL buys USING xgboost_classifier TARGET bought EXCLUDE (kind, spent, w) KEY id, job WITH (n_estimators = 4) "
    "ON inline AS FROM people",
    "TRAIN MODEL kinds USING logistic_regression TARGET kind EXCLUDE (id, bought, spent) WEIGHT w ON inline AS FROM people",
    "TRAIN MODEL spends USING linear_regression TARGET spent SPLIT NONE ON inline AS SELECT age, balance, spent FROM people",
    "TRAIN MODEL both TARGET bought, spent EXCLUDE (id, kind, w) KEY job ON inline WITH (n_estimators = 3) AS FROM people",
    "TRAIN MODEL groups USING kmeans WITH (n_clusters = 3) ON inline AS SELECT age, balance FROM people",
    "TRAIN MODEL axes USING pca WITH (n_components = 2) ON inline AS SELECT age, balance, job FROM people",
    "TRAIN MODEL odd USING isolation_forest ON inline AS SELECT age, balance FROM people",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("relations")
    with sqlml.connect(folder / "people.duckdb") as connection:
        connection.execute(PEOPLE)
        for statement in MODELS:
            connection.execute(statement)
    return folder / "people.duckdb"


@pytest.fixture(scope="module")
def c(folder: Path) -> Any:
    with sqlml.connect(folder) as connection:
        yield connection


def one(c: sqlml.Connection, query: str, values: Any = ()) -> Any:
    [row] = c.execute(query, values).fetchall()
    return row[0] if len(row) == 1 else row


def names(c: sqlml.Connection, query: str) -> list[str]:
    return [column[0] for column in c.execute(query).description or ()]


# --- where they stand --------------------------------------------------------------------------------------------------


def test_they_are_filtered_joined_and_named_like_tables(c: sqlml.Connection) -> None:
    assert one(c, "SELECT min(recall) > 0.8 FROM ML.ROC_CURVE(MODEL buys, (FROM people)) WHERE recall > 0.8")
    joined = """
        WITH roc AS (SELECT * FROM ML.ROC_CURVE(MODEL buys, TABLE people))
        SELECT count(*) = (SELECT count(*) FROM roc) FROM roc JOIN ML.PRECISION_RECALL_CURVE(MODEL buys, TABLE people) AS pr
        USING (threshold) WHERE roc.recall = pr.recall
    """
    assert one(c, joined)
    assert one(c, "SELECT (SELECT count(*) FROM ML.FEATURE_INFO(MODEL buys)) + 1") == 3
    assert one(c, "SELECT t.a FROM ML.EVALUATE(MODEL buys) AS t(a)") == one(c, "SELECT precision FROM ML.EVALUATE(MODEL buys)")


def test_their_queries_hold_calls_of_models_and_of_other_functions(c: sqlml.Connection) -> None:
    inner = "SELECT p.* FROM ML.PREDICT(MODEL buys, (FROM people)) AS p WHERE predicted_bought = 'yes' AND PREDICT(spends) > 0"
    assert one(c, f"SELECT recall FROM ML.EVALUATE(MODEL buys, ({inner}))") == 1.0
    least = "SELECT min(threshold) FROM ML.ROC_CURVE(MODEL buys)"
    assert one(c, f"SELECT accuracy FROM ML.EVALUATE(MODEL buys, (FROM people WHERE age > ({least})))") > 0.8
    assert names(c, "PREDICT MODEL buys AS SELECT p.* FROM people AS p, ML.EVALUATE(MODEL buys)")[-2:] == [
        "predicted_bought", "predicted_bought_probs",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("SELECT ?, accuracy FROM ML.EVALUATE(MODEL buys, (FROM people WHERE id > ?), STRUCT(? AS threshold)) WHERE recall > ?",
         ("x", 100, 0.3, 0)),
        ("SELECT $4, accuracy FROM ML.EVALUATE(MODEL buys, (FROM people WHERE id > $1), {'threshold': $2}) WHERE recall > $3",
         (100, 0.3, 0, "x")),
        ("SELECT $x, accuracy FROM ML.EVALUATE(MODEL buys, (FROM people WHERE id > $n), {'threshold': $t}) WHERE recall > $r",
         {"n": 100, "t": 0.3, "r": 0, "x": "x"}),
    ],
    ids=["?", "$1", "$name"],
)  # fmt: skip
def test_parameters_reach_the_place_where_they_stand(c: sqlml.Connection, query: str, values: Any) -> None:
    want = one(c, "SELECT accuracy FROM ML.EVALUATE(MODEL buys, (FROM people WHERE id > 100), STRUCT(0.3 AS threshold))")
    assert one(c, query, values) == ("x", want)


@pytest.mark.parametrize("values", [(1,), (1, 2, 3)])
def test_parameters_are_counted(c: sqlml.Connection, values: tuple[int, ...]) -> None:
    with pytest.raises(sqlml.ProgrammingError, match="the statement has 2 parameters"):
        c.execute("SELECT ? FROM ML.EVALUATE(MODEL buys, (FROM people WHERE id > ?))", values)


def test_an_open_transaction_sees_its_own_rows(c: sqlml.Connection) -> None:
    query = "SELECT accuracy FROM ML.EVALUATE(MODEL buys, (FROM people))"
    before = one(c, query)
    c.execute("BEGIN")
    c.execute("UPDATE people SET bought = CASE bought WHEN 'yes' THEN 'no' ELSE 'yes' END")
    assert one(c, query) == pytest.approx(1 - before)
    c.execute("CREATE TABLE kept AS SELECT * FROM ML.ROC_CURVE(MODEL buys)")
    c.execute("INSERT INTO kept SELECT * FROM ML.ROC_CURVE(MODEL buys)")
    assert one(c, "SELECT count(*) FROM kept") == 2 * one(c, "SELECT count(*) FROM ML.ROC_CURVE(MODEL buys)")
    c.execute("ROLLBACK")
    assert one(c, query) == before
    c.execute("SELECT * FROM ML.ROC_CURVE(MODEL buys)").fetchone()  # not read to its end
    assert one(c, query) == before
    left = "SELECT count(*) FROM duckdb_views() WHERE view_name LIKE '\\_\\_sqlml%' ESCAPE '\\' AND database_name = 'temp'"
    assert one(c, left) == 0


def test_explain_and_describe_run_nothing(c: sqlml.Connection) -> None:
    c.execute("CREATE OR REPLACE TEMP TABLE bad AS SELECT 'x' AS n")
    fails = "SELECT * REPLACE (CAST((SELECT n FROM bad) AS INT) AS age) FROM people"
    assert c.execute(f"EXPLAIN SELECT * FROM ML.ROC_CURVE(MODEL buys, ({fails}))").fetchall()
    described = c.execute(f"DESCRIBE SELECT * FROM ML.ROC_CURVE(MODEL kinds, ({fails}))").fetchall()
    assert [(row[0], row[1]) for row in described[:2]] == [("class", "VARCHAR"), ("threshold", "DOUBLE")]
    with pytest.raises(sqlml.Error, match="Could not convert"):
        c.execute(f"SELECT * FROM ML.ROC_CURVE(MODEL buys, ({fails}))")


@pytest.mark.parametrize("made", ["CREATE VIEW v AS", "CREATE OR REPLACE TEMP MACRO v() AS TABLE", "PREPARE v AS"])
def test_what_is_computed_once_cannot_be_kept(c: sqlml.Connection, made: str) -> None:
    with pytest.raises(sqlml.NotSupportedError, match="is computed once") as error:
        c.execute(f"{made} SELECT * FROM ML.ROC_CURVE(MODEL buys)")
    assert "CREATE TABLE" in str(error.value)


def test_views_of_what_answers_row_by_row_outlive_the_connection(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder.parent, tmp_path / "copy")
    file = tmp_path / "copy" / folder.name
    with sqlml.connect(file) as first:
        first.execute(
            "CREATE VIEW why AS SELECT id, baseline_prediction_value FROM ML.EXPLAIN_PREDICT(MODEL buys, (FROM people))"
        )
        first.execute("CREATE VIEW strange AS FROM ML.DETECT_ANOMALIES(MODEL odd, STRUCT(0.1 AS contamination), TABLE people)")
    with sqlml.connect(file) as second:
        assert one(second, "SELECT count(DISTINCT baseline_prediction_value) FROM why") == 1
        assert one(second, "SELECT count(*) FROM strange WHERE is_anomaly") > 20


def test_what_answers_row_by_row_stands_in_views(c: sqlml.Connection) -> None:
    explained = "ML.EXPLAIN_PREDICT(MODEL buys, (FROM people), STRUCT(1 AS top_k_features))"
    c.execute(f"CREATE VIEW explained AS SELECT id, probability, top_feature_attributions AS top FROM {explained}")
    strange = "ML.DETECT_ANOMALIES(MODEL groups, STRUCT(0.05 AS contamination), TABLE people)"
    c.execute(f"CREATE VIEW strange AS SELECT * FROM {strange}")
    assert one(c, "SELECT count(*) FROM explained WHERE len(top) = 1 AND probability BETWEEN 0.5 AND 1") == 600
    assert 0 < one(c, "SELECT count(*) FROM strange WHERE is_anomaly") < 100
    c.execute("DROP VIEW explained")
    c.execute("DROP VIEW strange")


# --- what answers row by row -------------------------------------------------------------------------------------------


def test_explain_predict_adds_up(c: sqlml.Connection) -> None:
    added = ["predicted_bought", "probability", "top_feature_attributions", "baseline_prediction_value", "prediction_value",
             "approximation_error"]  # fmt: skip
    query = "SELECT * FROM ML.EXPLAIN_PREDICT(MODEL buys, (FROM people))"
    assert names(c, query)[-6:] == added
    total = "list_sum(list_transform(top_feature_attributions, lambda a: a.attribution)) + baseline_prediction_value"
    assert one(c, f"SELECT max(abs(prediction_value - ({total}))) < 1e-5 FROM ({query})")  # both features, of single floats


@pytest.mark.parametrize(
    ("model", "figure", "more"),
    [("odd", "anomaly_score", []), ("groups", "normalized_distance", ["centroid_id"]), ("axes", "mean_squared_error", [])],
)
def test_anomalies_are_the_share_that_was_asked_for(c: sqlml.Connection, model: str, figure: str, more: list[str]) -> None:
    query = f"SELECT * FROM ML.DETECT_ANOMALIES(MODEL {model}, STRUCT(0.1 AS contamination), TABLE people)"
    assert names(c, query)[-2 - len(more) :] == ["is_anomaly", figure, *more]
    assert 20 < one(c, f"SELECT count(*) FROM ({query}) WHERE is_anomaly") < 120
    assert one(c, f"SELECT max({figure}) FILTER (NOT is_anomaly) <= min({figure}) FILTER (is_anomaly) FROM ({query})")


def test_an_isolation_forest_has_a_limit_of_its_own(c: sqlml.Connection) -> None:
    own = "SELECT is_anomaly, anomaly_score FROM ML.DETECT_ANOMALIES(MODEL odd, TABLE people)"
    full = "SELECT is_anomaly, anomaly_score FROM ML.PREDICT(MODEL odd, TABLE people)"
    assert c.execute(own).fetchall() == c.execute(full).fetchall()


# --- columns that follow from the model --------------------------------------------------------------------------------


def test_classes_become_columns_whatever_their_names(c: sqlml.Connection) -> None:
    found = names(c, "SELECT * FROM ML.CONFUSION_MATRIX(MODEL kinds, TABLE people)")
    assert found == ["expected_label", "Target_1", 'c"d', "expected_label_1", "Ä b"]
    total = one(
        c, 'SELECT sum("Target_1" + "c""d" + expected_label_1 + "Ä b") FROM ML.CONFUSION_MATRIX(MODEL kinds, TABLE people)'
    )
    assert total == one(c, "SELECT sum(w) FROM people")  # a version trained with WEIGHT counts weights
    labels = c.execute("SELECT expected_label FROM ML.CONFUSION_MATRIX(MODEL kinds)").fetchall()
    assert labels == [("Target",), ('c"d',), ("expected_label",), ("Ä b",)]


def test_more_than_two_classes_are_told_from_the_rest(c: sqlml.Connection) -> None:
    assert one(c, "SELECT count(DISTINCT class) FROM ML.CALIBRATION_CURVE(MODEL kinds, TABLE people)") == 4
    query = "SELECT list(DISTINCT class) FROM ML.ROC_CURVE(MODEL kinds, TABLE people, STRUCT('c\"d' AS class))"
    assert one(c, query) == ['c"d']
    weights = "SELECT class_label, count(*) FROM ML.WEIGHTS(MODEL kinds) GROUP BY 1 ORDER BY 1"
    assert len(c.execute(weights).fetchall()) == 4


def test_the_other_of_two_classes_can_be_the_positive_one(c: sqlml.Connection) -> None:
    no = "ML.ROC_CURVE(MODEL buys, TABLE people, [0.4], STRUCT('no' AS class))"
    want = one(c, "SELECT count(*) FROM people WHERE bought = 'no' AND PREDICT_PROBA(buys, 'no') >= 0.4")
    assert one(c, f"SELECT true_positives FROM {no}") == want


def test_several_targets_have_a_row_each(c: sqlml.Connection) -> None:
    query = "SELECT * FROM ML.EVALUATE(MODEL both, TABLE people)"
    assert names(c, query)[:2] == ["target", "precision"]
    found = c.execute(f"SELECT target, accuracy IS NULL, r2_score IS NULL FROM ({query})").fetchall()
    assert found == [("bought", False, True), ("spent", True, False)]
    assert one(c, "SELECT list(DISTINCT target) FROM ML.ROC_CURVE(MODEL both)") == ["bought"]
    assert one(c, "SELECT count(DISTINCT target) FROM ML.TRAINING_INFO(MODEL both)") == 2
    assert one(c, "SELECT count(DISTINCT target) FROM ML.GLOBAL_EXPLAIN(MODEL both)") == 2


def test_components(c: sqlml.Connection) -> None:
    lengths = """
        SELECT principal_component_id, sum(coalesce(numerical_value, 0) ** 2) + sum(coalesce(
        list_sum(list_transform(categorical_value, lambda v: v.value ** 2)), 0))
        FROM ML.PRINCIPAL_COMPONENTS(MODEL axes) GROUP BY 1
    """
    assert sorted(c.execute(lengths).fetchall()) == [(1, pytest.approx(1)), (2, pytest.approx(1))]
    info = c.execute("SELECT * FROM ML.PRINCIPAL_COMPONENT_INFO(MODEL axes)").fetchall()
    assert info[1][3] == pytest.approx(info[0][2] + info[1][2])
    assert one(c, "SELECT total_explained_variance_ratio FROM ML.EVALUATE(MODEL axes, TABLE people)") == pytest.approx(
        info[1][3], abs=0.05
    )
    assert one(c, "SELECT total_explained_variance_ratio FROM ML.EVALUATE(MODEL axes)") > 0.3
    assert one(c, "SELECT len(cluster_info) FROM ML.TRAINING_INFO(MODEL groups)") == 3


# --- rows that cannot be measured --------------------------------------------------------------------------------------


def test_rows_whose_target_is_not_known_are_left_out(c: sqlml.Connection) -> None:
    some = "SELECT * REPLACE (CASE id % 3 WHEN 0 THEN NULL WHEN 1 THEN 'perhaps' ELSE bought END AS bought) FROM people"
    rest = "SELECT * FROM people WHERE id % 3 = 2"
    query = "SELECT accuracy, log_loss, roc_auc FROM ML.EVALUATE(MODEL buys, ({}))"
    assert one(c, query.format(some)) == pytest.approx(one(c, query.format(rest)))


def test_one_class_alone_leaves_some_figures_undefined(c: sqlml.Connection) -> None:
    yes = "(FROM people WHERE bought = 'yes')"
    assert one(c, f"SELECT roc_auc FROM ML.EVALUATE(MODEL buys, {yes})") is None
    assert one(c, f"SELECT count(*) - count(false_positive_rate) > 0 FROM ML.ROC_CURVE(MODEL buys, {yes})")
    assert one(c, f"SELECT sum(yes) FROM ML.CONFUSION_MATRIX(MODEL buys, {yes}) WHERE expected_label = 'no'") == 0


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("ML.EVALUATE(MODEL spends)", ["without held-out rows", "ML.EVALUATE(MODEL spends, (SELECT …))"]),
        ("ML.EVALUATE(MODEL buys, (FROM people WHERE false))", ["gave no rows to evaluate on"]),
        ("ML.EVALUATE(MODEL buys, (SELECT * REPLACE (NULL AS bought) FROM people))", ["none of the 600 rows", "found: NULL"]),
        ("ML.EVALUATE(MODEL buys, (SELECT bought FROM people))", ["needs columns", "age, balance"]),
        ("ML.EVALUATE(MODEL buys, (SELECT age, balance FROM people))", ["must give its target bought"]),
        ("ML.EVALUATE(MODEL kinds, (SELECT * REPLACE (NULL AS w) FROM people))", ["weight w is NULL", "coalesce(w, 1)"]),
        ("ML.ROC_CURVE(MODEL spends)", ["for models of classes", "spends@1 predicts a number", "ML.EVALUATE"]),
        ("ML.WEIGHTS(MODEL buys)", ["for linear models", "buys@1 is xgboost_classifier", "ML.FEATURE_IMPORTANCE"]),
        ("ML.FEATURE_IMPORTANCE(MODEL spends)", ["for trees", "linear_regression", "ML.WEIGHTS"]),
        ("ML.CENTROIDS(MODEL axes)", ["for clusters", "ML.PRINCIPAL_COMPONENTS"]),
        ("ML.PRINCIPAL_COMPONENTS(MODEL groups)", ["for principal components", "ML.CENTROIDS"]),
        ("ML.GLOBAL_EXPLAIN(MODEL odd)", ["can be explained", "ML.FEATURE_INFO"]),
        ("ML.GLOBAL_EXPLAIN(MODEL spends, STRUCT(true AS class_level_explain))", ["is for models of classes"]),
        ("ML.TRIAL_INFO(MODEL buys)", ["trained with TUNE", "ML.TRAINING_INFO"]),
        ("ML.DETECT_ANOMALIES(MODEL buys, TABLE people)", ["isolation_forest, kmeans and pca"]),
        ("ML.DETECT_ANOMALIES(MODEL groups, TABLE people)", ["0.02 AS contamination"]),
        ("ML.TRANSFORM(MODEL buys, TABLE people)", ["trained without TRANSFORM", "ML.PREDICT"]),
        ("ML.EXPLAIN_PREDICT(MODEL odd, TABLE people)", ["no contributions"]),
        ("ML.CENTROIDS(MODEL groups, (FROM people))", ["takes no query"]),
        ("ML.ROC_CURVE(MODEL buys, STRUCT(3 AS threshhold))", ["no option threshhold", "did you mean thresholds?"]),
        ("ML.EVALUATE(MODEL buys, STRUCT(3 AS threshold))", ["option threshold", "≥ 0 and ≤ 1"]),
        ("ML.EVALUATE(MODEL kinds, STRUCT(0.3 AS threshold))", ["models of two classes"]),
        ("ML.ROC_CURVE(MODEL buys, STRUCT('maybe' AS class))", ["no class maybe", "no, yes"]),
        ("ML.CALIBRATION_CURVE(MODEL buys, STRUCT('even' AS strategy))", ["'uniform', 'quantile'"]),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong_where_and_what_to_do(c: sqlml.Connection, query: str, words: list[str]) -> None:
    with pytest.raises(sqlml.Error) as error:
        c.execute(f"SELECT * FROM {query}")
    text = str(error.value)
    assert "^" in text, text
    for word in words:
        assert word in text, text


def test_rows_that_cannot_be_measured_leave_the_connection_free(c: sqlml.Connection) -> None:
    with pytest.raises(sqlml.DataError) as kept:  # the error, and with it what it happened in, is still there
        c.execute("SELECT * FROM ML.EVALUATE(MODEL kinds, (SELECT * REPLACE (NULL AS w) FROM people))")
    c.begin()
    c.commit()
    assert "w" in kept.value.message
