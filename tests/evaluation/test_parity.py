"""Every figure and curve, asked for in SQL, against scikit-learn and XGBoost on the same rows of four public data sets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as m
from sklearn.calibration import calibration_curve

import sqlml
from sqlml.bundles.model import Model
from sqlml.catalog import Version
from tests.sessions import session_of

EXACT = 1e-9
TWO = {
    "bank_trees": ("bank", "deposit", "yes"),
    "adult_linear": ("adult", "income", ">50K"),
    "sms_linear": ("sms", "label", "spam"),
}
BOTH = pytest.mark.parametrize("name", list(TWO))
NUMBERS = {
    "bike_trees": "bike",
    "bike_linear": "(SELECT *, CAST(season AS VARCHAR) AS quarter, NULLIF(weekday, 3) AS gap FROM bike)",
}


def rows(connection: sqlml.Connection, query: str) -> list[dict[str, Any]]:
    cursor = connection.execute(query)
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def column(found: list[dict[str, Any]], name: str) -> NDArray[Any]:
    return np.array([row[name] for row in found])


def loaded(connection: sqlml.Connection, name: str) -> Model:
    version: Version = session_of(connection)._catalog.resolve(name)
    return Model.open(version.bundle, version.sha256)


def truth(connection: sqlml.Connection, name: str) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64] | None]:
    """What is true of the rows, the probability of the second class, and the weights that EVALUATE uses.

    The probabilities by the model itself, whose bits EVALUATE's are: a linear function inside DuckDB sums in another order.
    """
    table, target, positive = TWO[name]
    weight = "hours_per_week" if name == "adult_linear" else "1"
    query = f"SELECT {target} = '{positive}' AS y, PREDICT_PROBA({name})['{positive}'] AS p, {weight} AS w FROM {table}"
    found = rows(connection, query)
    weights = column(found, "w").astype(np.float64) if name == "adult_linear" else None
    return column(found, "y"), column(found, "p"), weights


@BOTH
@pytest.mark.parametrize("threshold", [None, 0.3])
def test_figures_of_two_classes(studied: sqlml.Connection, name: str, threshold: float | None) -> None:
    y, p, w = truth(studied, name)
    chosen = p > 0.5 if threshold is None else p >= threshold
    options = "" if threshold is None else f", STRUCT({threshold} AS threshold)"
    [found] = rows(studied, f"SELECT * FROM ML.EVALUATE(MODEL {name}, TABLE {TWO[name][0]}{options})")
    assert list(found) == ["precision", "recall", "accuracy", "f1_score", "log_loss", "roc_auc"]
    want = {
        "precision": m.precision_score(y, chosen, sample_weight=w),
        "recall": m.recall_score(y, chosen, sample_weight=w),
        "accuracy": m.accuracy_score(y, chosen, sample_weight=w),
        "f1_score": m.f1_score(y, chosen, sample_weight=w),
        "log_loss": m.log_loss(y, p, sample_weight=w),
        "roc_auc": m.roc_auc_score(y, p, sample_weight=w),
    }
    for figure, value in want.items():
        # Single floats of a tree's two probabilities do not sum to 1 to the last digit: they are brought to do so.
        assert found[figure] == pytest.approx(value, abs=1e-7 if (name, figure) == ("bank_trees", "log_loss") else EXACT), figure
    [own] = rows(studied, f"EVALUATE MODEL {name} {'' if threshold is None else 'WITH (threshold = 0.3) '}AS FROM {TWO[name][0]}")
    assert own["rows"] == len(y)
    assert own["pr_auc"] == pytest.approx(m.average_precision_score(y, p, sample_weight=w), abs=EXACT)
    assert own["mcc"] == pytest.approx(m.matthews_corrcoef(y, chosen, sample_weight=w), abs=EXACT)
    assert own["brier"] == pytest.approx(m.brier_score_loss(y, p, sample_weight=w), abs=1e-7 if name == "bank_trees" else EXACT)


def test_figures_of_many_classes_weigh_them_alike(studied: sqlml.Connection) -> None:
    found = rows(studied, "SELECT relationship AS y, PREDICT(adult_many) AS z, PREDICT_PROBA(adult_many) AS p FROM adult")
    names = sorted({row["y"] for row in found})
    y = np.array([names.index(row["y"]) for row in found])
    z = np.array([names.index(row["z"]) for row in found])
    p = np.array([[row["p"][name] for name in names] for row in found])
    p = p / p.sum(1, keepdims=True)
    [own] = rows(studied, "SELECT * FROM ML.EVALUATE(MODEL adult_many, TABLE adult)")
    assert own["precision"] == pytest.approx(m.precision_score(y, z, average="macro", zero_division=0), abs=EXACT)
    assert own["recall"] == pytest.approx(m.recall_score(y, z, average="macro"), abs=EXACT)
    assert own["f1_score"] == pytest.approx(m.f1_score(y, z, average="macro"), abs=EXACT)
    assert own["accuracy"] == pytest.approx(m.accuracy_score(y, z), abs=EXACT)
    assert own["log_loss"] == pytest.approx(m.log_loss(y, p), abs=EXACT)
    assert own["roc_auc"] == pytest.approx(m.roc_auc_score(y, p, multi_class="ovr"), abs=EXACT)
    matrix = rows(studied, "SELECT * FROM ML.CONFUSION_MATRIX(MODEL adult_many, TABLE adult)")
    assert list(matrix[0]) == ["expected_label", *names]
    assert [[row[name] for name in names] for row in matrix] == m.confusion_matrix(y, z).tolist()
    for code, name in enumerate(names):
        curve = rows(studied, f"SELECT * FROM ML.ROC_CURVE(MODEL adult_many, TABLE adult) WHERE class = '{name}'")
        check_roc(curve, y == code, column(curve, "threshold"), np.array([row["p"][name] for row in found]), None)


@pytest.mark.parametrize("name", list(NUMBERS))
def test_figures_of_numbers(studied: sqlml.Connection, name: str) -> None:
    found = rows(studied, f"SELECT rides AS y, PREDICT({name}) AS z FROM {NUMBERS[name]}")
    y, z = column(found, "y").astype(np.float64), column(found, "z")
    [own] = rows(studied, f"SELECT * FROM ML.EVALUATE(MODEL {name}, (FROM {NUMBERS[name]}))")
    want = {
        "mean_absolute_error": m.mean_absolute_error(y, z),
        "mean_squared_error": m.mean_squared_error(y, z),
        "mean_squared_log_error": m.mean_squared_log_error(y, z) if (z > -1).all() else None,
        "median_absolute_error": m.median_absolute_error(y, z),
        "r2_score": m.r2_score(y, z),
        "explained_variance": m.explained_variance_score(y, z),
    }
    assert list(own) == list(want)
    for figure, value in want.items():
        assert own[figure] == (None if value is None else pytest.approx(value, rel=EXACT)), figure


def check_roc(
    found: list[dict[str, Any]], y: NDArray[np.bool_], at: NDArray[np.float64], p: NDArray[Any], w: NDArray[np.float64] | None
) -> None:
    fpr, tpr, thresholds = m.roc_curve(y, p, sample_weight=w, drop_intermediate=False)
    for row, threshold in zip(found, at, strict=True):
        # scikit-learn gives its own thresholds; the point of another is that of the next one from it on
        place = np.flatnonzero(thresholds >= threshold)[-1]
        assert row["threshold"] == threshold
        assert row["recall"] == pytest.approx(tpr[place], abs=EXACT)
        assert row["false_positive_rate"] == pytest.approx(fpr[place], abs=EXACT)
        chosen = p >= threshold
        weight = np.ones(len(y)) if w is None else w
        assert row["true_positives"] == pytest.approx(weight[chosen & y].sum())
        assert row["false_positives"] == pytest.approx(weight[chosen & ~y].sum())
        assert row["true_negatives"] == pytest.approx(weight[~chosen & ~y].sum())
        assert row["false_negatives"] == pytest.approx(weight[~chosen & y].sum())


@BOTH
def test_roc_curve(studied: sqlml.Connection, name: str) -> None:
    y, p, w = truth(studied, name)
    found = rows(studied, f"SELECT * FROM ML.ROC_CURVE(MODEL {name}, TABLE {TWO[name][0]})")
    assert list(found[0])[:3] == ["threshold", "recall", "false_positive_rate"]
    assert 50 < len(found) <= 100
    at = column(found, "threshold")
    assert (np.diff(at) < 0).all()
    check_roc(found, y, at, p, w)
    given = rows(studied, f"SELECT * FROM ML.ROC_CURVE(MODEL {name}, TABLE {TWO[name][0]}, GENERATE_ARRAY(0.0, 1.0, 0.05))")
    assert len(given) == 21
    check_roc(given, y, column(given, "threshold"), p, w)


@BOTH
def test_precision_recall_curve(studied: sqlml.Connection, name: str) -> None:
    y, p, w = truth(studied, name)
    precision, recall, thresholds = m.precision_recall_curve(y, p, sample_weight=w)
    found = rows(studied, f"SELECT * FROM ML.PRECISION_RECALL_CURVE(MODEL {name}, TABLE {TWO[name][0]})")
    assert list(found[0]) == ["threshold", "precision", "recall"]
    for row in found:
        place = np.flatnonzero(thresholds == row["threshold"])[0]
        assert row["precision"] == pytest.approx(precision[place], abs=EXACT)
        assert row["recall"] == pytest.approx(recall[place], abs=EXACT)


@BOTH
@pytest.mark.parametrize("threshold", [None, 0.2])
def test_confusion_matrix(studied: sqlml.Connection, name: str, threshold: float | None) -> None:
    y, p, w = truth(studied, name)
    options = "" if threshold is None else f", STRUCT({threshold} AS threshold)"
    found = rows(
        studied, f"SELECT * EXCLUDE (expected_label) FROM ML.CONFUSION_MATRIX(MODEL {name}, TABLE {TWO[name][0]}{options})"
    )
    want = m.confusion_matrix(y, p > 0.5 if threshold is None else p >= threshold, sample_weight=w)
    np.testing.assert_allclose([list(row.values()) for row in found], want, rtol=EXACT)


@pytest.mark.parametrize("name", ["bank_trees", "sms_linear"])
@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_calibration_curve(studied: sqlml.Connection, name: str, strategy: str) -> None:
    y, p, _ = truth(studied, name)
    fraction, mean = calibration_curve(y, p, n_bins=7, strategy=strategy)
    query = f"FROM ML.CALIBRATION_CURVE(MODEL {name}, TABLE {TWO[name][0]}, STRUCT(7 AS bins, '{strategy}' AS strategy))"
    found = rows(studied, query)
    assert list(found[0]) == ["bin", "lower", "upper", "count", "mean_predicted", "fraction_positive"]
    np.testing.assert_allclose(column(found, "mean_predicted"), mean, atol=EXACT)
    np.testing.assert_allclose(column(found, "fraction_positive"), fraction, atol=EXACT)
    assert column(found, "count").sum() == len(y)


def test_weights_give_the_predictions_back(studied: sqlml.Connection) -> None:
    """On the scale of the columns: a prediction is the sum of the weights times the values, and the constant."""
    found = rows(studied, "SELECT * FROM ML.WEIGHTS(MODEL bike_linear)")
    assert list(found[0]) == ["processed_input", "weight", "category_weights"]
    weight = {row["processed_input"]: row["weight"] for row in found}
    assert weight["quarter"] is None
    categories = next({c["category"]: c["weight"] for c in row["category_weights"]} for row in found if row["category_weights"])
    head = loaded(studied, "bike_linear").head
    means = {c.name: c.means[0] for c in head.encoder.columns if c.means}
    query = f"SELECT *, PREDICT(bike_linear) AS z FROM {NUMBERS['bike_linear']}"
    for row in rows(studied, query)[::50]:
        total = weight["__INTERCEPT__"] + categories[row["quarter"]]
        for name, value in weight.items():
            if value is not None and name in row:
                total += value * (means[name] if row[name] is None else row[name])
        total += weight["gap is missing"] * (row["gap"] is None)
        # the model reads single floats; the weights are doubles
        assert total == pytest.approx(row["z"], rel=1e-5, abs=1e-3)


def test_weights_are_those_that_were_learnt(studied: sqlml.Connection) -> None:
    head = loaded(studied, "sms_linear").head
    learnt = head.predictor.parameters()
    found = rows(studied, "SELECT * FROM ML.WEIGHTS(MODEL sms_linear, STRUCT(true AS standardize))")
    assert [row["weight"] for row in found] == [*learnt["coef"][0].tolist(), learnt["intercept"][0]]
    assert [row["processed_input"] for row in found] == [*head.encoder.names, "__INTERCEPT__"]
    plain = {row["processed_input"]: row["weight"] for row in rows(studied, "SELECT * FROM ML.WEIGHTS(MODEL sms_linear)")}
    scales = {c.name: (c.means[0], c.scales[0]) for c in head.encoder.columns}
    shift = sum(coef * scales[name][0] / scales[name][1] for name, coef in zip(scales, learnt["coef"][0], strict=True))
    assert plain["__INTERCEPT__"] == pytest.approx(learnt["intercept"][0] - shift, rel=EXACT)


def test_centroids_are_means_of_the_columns(studied: sqlml.Connection) -> None:
    found = rows(studied, "SELECT * FROM ML.CENTROIDS(MODEL sms_groups)")
    assert list(found[0]) == ["centroid_id", "feature", "numerical_value", "categorical_value"]
    head = loaded(studied, "sms_groups").head
    centres = head.predictor.parameters()["centers"]
    code = {c.name: c for c in head.encoder.columns}
    for row in found:
        column = code[row["feature"]]
        at = head.encoder.names.index(row["feature"])
        want = centres[row["centroid_id"] - 1, at] * column.scales[0] + column.means[0]
        assert row["numerical_value"] == pytest.approx(want, rel=EXACT)
    learnt = rows(studied, "SELECT * FROM ML.CENTROIDS(MODEL sms_groups, STRUCT(true AS standardize))")
    assert [row["numerical_value"] for row in learnt] == centres.ravel().tolist()


def test_figures_of_clusters(studied: sqlml.Connection) -> None:
    model = loaded(studied, "sms_groups")
    table = studied.execute("SELECT size, digits, capitals, loud FROM sms").fetch_arrow_table()
    x = model.encode(table)
    distances = model.predictor.predict(x)
    [found] = rows(studied, "SELECT * FROM ML.EVALUATE(MODEL sms_groups, TABLE sms)")
    assert found["davies_bouldin_index"] == pytest.approx(m.davies_bouldin_score(x, distances.argmin(1)), abs=EXACT)
    assert found["mean_squared_distance"] == pytest.approx((distances.min(1) ** 2).mean(), abs=EXACT)
    [held] = rows(studied, "SELECT * FROM ML.EVALUATE(MODEL sms_groups)")
    assert all(value is not None for value in held.values())


def test_feature_importance_is_xgboosts(studied: sqlml.Connection) -> None:
    model = loaded(studied, "bank_trees")
    booster = model.predictor.booster  # type: ignore[attr-defined]
    found = {row["feature"]: row for row in rows(studied, "SELECT * FROM ML.FEATURE_IMPORTANCE(MODEL bank_trees)")}
    assert set(found) == set(model.encoder.inputs)
    for figure in ("weight", "gain", "cover"):
        scores = {model.encoder.names[int(f[1:])]: v for f, v in booster.get_score(importance_type=figure).items()}
        for name, row in found.items():
            assert row[f"importance_{figure}"] == pytest.approx(scores.get(name, 0.0), rel=EXACT)


def test_global_explain_is_the_mean_size_of_xgboosts_contributions(studied: sqlml.Connection) -> None:
    import pyarrow as pa
    import xgboost

    version = session_of(studied)._catalog.resolve("bank_trees")
    path = session_of(studied)._catalog.home.jobs / str(version.job_id) / "sample.arrow"
    with pa.memory_map(str(path)) as file:
        sample = pa.ipc.open_file(file).read_all()
    model = loaded(studied, "bank_trees")
    matrix = xgboost.DMatrix(model.encode(sample), feature_types=["c" if c else "float" for c in model.encoder.categorical])
    booster = model.predictor.booster  # type: ignore[attr-defined]
    want = np.abs(booster.predict(matrix, pred_contribs=True)[:, :-1]).mean(0)
    found = {row["feature"]: row["attribution"] for row in rows(studied, "SELECT * FROM ML.GLOBAL_EXPLAIN(MODEL bank_trees)")}
    for name, value in zip(model.encoder.names, want, strict=True):
        assert found[name] == pytest.approx(value, rel=1e-5)


def test_loss_curves_end_at_the_models_own_loss(studied: sqlml.Connection) -> None:
    found = rows(studied, "SELECT * FROM ML.TRAINING_INFO(MODEL bank_trees)")
    assert list(found[0]) == ["training_run", "iteration", "loss", "eval_loss", "learning_rate", "duration_ms"]
    assert [row["iteration"] for row in found] == list(range(12))
    [held] = rows(studied, "SELECT * FROM ML.EVALUATE(MODEL bank_trees)")
    assert found[-1]["eval_loss"] == pytest.approx(held["log_loss"], rel=1e-5)
    numbers = rows(studied, "SELECT * FROM ML.TRAINING_INFO(MODEL bike_trees)")
    [held] = rows(studied, "SELECT * FROM ML.EVALUATE(MODEL bike_trees)")
    assert numbers[-1]["eval_loss"] == pytest.approx(held["mean_squared_error"], rel=1e-4)


def test_feature_info_tells_of_the_training_rows(studied: sqlml.Connection) -> None:
    found = {row["input"]: row for row in rows(studied, "SELECT * FROM ML.FEATURE_INFO(MODEL bank_trees)")}
    assert list(found["age"])[:6] == ["input", "min", "max", "mean", "median", "stddev"]
    assert 18 <= found["age"]["min"] < found["age"]["median"] < found["age"]["max"] <= 100
    assert found["marital"]["category_count"] == 3
    assert found["marital"]["min"] is None


@BOTH
def test_held_out_figures_are_those_of_the_rows_held_out(studied: sqlml.Connection, name: str) -> None:
    [own] = rows(studied, f"EVALUATE MODEL {name}")
    [found] = rows(studied, f"SELECT * FROM ML.EVALUATE(MODEL {name})")
    for figure, ours in (("roc_auc", "roc_auc"), ("log_loss", "log_loss"), ("f1_score", "f1"), ("accuracy", "accuracy")):
        assert found[figure] == pytest.approx(own[ours], abs=EXACT)
    cells = rows(studied, f"SELECT * EXCLUDE (expected_label) FROM ML.CONFUSION_MATRIX(MODEL {name})")
    total = np.array([list(row.values()) for row in cells])
    assert total.trace() / total.sum() == pytest.approx(own["accuracy"], abs=EXACT)


def test_slices_are_figures_of_their_rows(studied: sqlml.Connection) -> None:
    found = rows(studied, "EVALUATE MODEL bank_trees BY job AS FROM bank")
    assert sum(row["rows"] for row in found) == 3014
    for row in found[:3]:
        [alone] = rows(studied, f"EVALUATE MODEL bank_trees AS FROM bank WHERE job = '{row['job']}'")
        assert {name: value for name, value in row.items() if name != "job"} == pytest.approx(
            {name: value for name, value in alone.items() if name not in ("model", "version")}, abs=EXACT, nan_ok=True
        )
    held = rows(studied, "EVALUATE MODEL bank_trees BY housing")
    [whole] = rows(studied, "EVALUATE MODEL bank_trees")
    assert [row["housing"] for row in held] == [False, True]
    assert sum(row["accuracy"] * row["rows"] for row in held) / whole["rows"] == pytest.approx(whole["accuracy"], abs=EXACT)
