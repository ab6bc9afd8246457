"""Jobs on Spark: the runner's contract, the same models as on one machine, predictions where the rows are."""

from __future__ import annotations

import datetime as dt
import gzip
import itertools
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from sqlml_runners.spark.cluster import Cluster
from sqlml_runners.spark.predicting import run_prediction
from sqlml_runners.spark.runner import SparkRunner
from sqlml_runners.spark.tables import read_rows

from sqlml.bundles.model import Model
from sqlml.errors import BindError, EngineError, InternalError, JobCancelled, JobTimeout, NotSupportedError, OperationalError
from sqlml.plan import JobSpec, Limits, PredictPlan, SplitPlan, TrainOutcome
from sqlml.spark_common import tables as spark_tables
from sqlml.spark_common.tables import write_table
from tests.jobs import make_job, people, run, train, write_arrow
from tests.kits import check_runner
from tests.servers import spark_session

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

DATA = Path(__file__).parents[1] / "fixtures" / "data"
BY = SplitPlan("by", column="held")


@pytest.fixture(scope="module")
def runner() -> SparkRunner:
    """A runner on the session that all tests share."""
    spark_session()
    return SparkRunner("cluster")


def fixture(name: str, rows: int) -> pa.Table:
    """The first rows of a data set, every fourth of them marked ``held``."""
    table = pa.csv.read_csv(pa.BufferReader(gzip.decompress((DATA / f"{name}.csv.gz").read_bytes()))).slice(0, rows)
    return table.append_column("held", pa.array(np.arange(table.num_rows) % 4 == 0))


def run_spark(runner: SparkRunner, spec: JobSpec) -> tuple[Model, TrainOutcome]:
    """Run a training job to its end and open what it left."""
    runner.submit(spec).wait(lambda _: None)
    outcome = TrainOutcome.from_json(json.loads((spec.folder / "result.json").read_text(encoding="utf-8")))
    return Model.open(spec.folder / "bundle", outcome.bundle_sha256), outcome


def read_arrow(path: Path) -> pa.Table:
    with pa.ipc.open_file(path) as file:
        return file.read_all()


def test_the_contract(runner: SparkRunner, tmp_path: Path) -> None:
    numbers = itertools.count()
    table = pa.table({"a": list(range(200)), "b": [i % 7 for i in range(200)], "t": [str(i % 3 > 0) for i in range(200)]})

    def make(rounds: int, limits: Limits) -> JobSpec:
        folder = tmp_path / str(next(numbers))
        return make_job(folder, table, "t", "xgboost_classifier", options={"n_estimators": rounds}, limits=limits)

    check_runner(runner, make)


def test_boosting_learns_what_it_learns_on_one_machine(runner: SparkRunner, tmp_path: Path) -> None:
    table = fixture("adult", 2000)
    how: dict[str, Any] = {"split": BY, "options": {"n_estimators": 15}, "key": ["fnlwgt"]}
    job = make_job(tmp_path / "spark", table, "income", "xgboost_classifier", **how)
    model, outcome = run_spark(runner, job)
    local, expected, _ = train(tmp_path / "local", table, "income", "xgboost_classifier", **how)
    assert model.manifest.heads[0].encoder == local.manifest.heads[0].encoder
    assert (outcome.rows, outcome.heldout_rows) == (expected.rows, expected.heldout_rows)
    for name in ("accuracy", "roc_auc", "log_loss"):
        assert outcome.metrics["heldout"][name] == pytest.approx(expected.metrics["heldout"][name], abs=0.01)
    assert (model.folder / "model.onnx").is_file()
    assert model.predict(table.slice(0, 50)).equals(local.predict(table.slice(0, 50)))
    for name in ("heldout.arrow", "sample.arrow"):
        found, kept = (read_arrow(tmp_path / where / name) for where in ("spark", "local"))
        assert found.schema == kept.schema
        assert found.num_rows == kept.num_rows
    info = {row["input"]: row for row in expected.feature_info}
    for row in outcome.feature_info:
        wanted = info[row["input"]]
        assert list(row) == list(wanted)
        assert list(row.values())[1:] == [value if value is None else pytest.approx(value) for value in list(wanted.values())[1:]]
    assert [step for step, part, metric, _ in outcome.curves if (part, metric) == ("train", "logloss")] == list(range(1, 16))
    assert outcome.libraries["pyspark"]


def test_linear_models_answer_as_on_one_machine(runner: SparkRunner, tmp_path: Path) -> None:
    table = fixture("bike", 1200).drop(["instant", "dateday", "casual", "registered"])
    options = {"alpha": 0.3, "l1_ratio": 0.0}
    how: dict[str, Any] = {"split": BY, "options": options, "weight": "humidity"}
    model, outcome = run_spark(runner, make_job(tmp_path / "spark", table, "count", "linear_regression", **how))
    local, expected, _ = train(tmp_path / "local", table, "count", "linear_regression", **how)
    assert outcome.metrics["heldout"]["r2"] == pytest.approx(expected.metrics["heldout"]["r2"], abs=1e-6)
    rows = table.slice(0, 100)
    assert np.allclose(model.raw(rows), local.raw(rows), rtol=1e-6)


def test_transform_weights_and_gaps(runner: SparkRunner, tmp_path: Path) -> None:
    table = people(900)
    how: dict[str, Any] = {
        "exclude": ["z"],
        "weight": "w",
        "options": {"class_weight": {"yes": 3.0}},
        "split": SplitPlan("time", 0.2, column="at"),
        "transform": ["x", 'ML.STANDARD_SCALER("count of") OVER () AS s', "ML.ONE_HOT_ENCODER(町) OVER () AS t", "clock", "day"],
    }
    model, outcome = run_spark(runner, make_job(tmp_path / "spark", table, "y", "logistic_regression", **how))
    local, expected, _ = train(tmp_path / "local", table, "y", "logistic_regression", **how)
    assert set(expected.notes) == set(outcome.notes)
    assert outcome.heldout_rows == expected.heldout_rows
    assert np.allclose(model.raw(table), local.raw(table), atol=2e-3)
    assert outcome.metrics["heldout"]["accuracy"] == pytest.approx(expected.metrics["heldout"]["accuracy"], abs=0.01)


def test_a_query_random_parts_early_stopping_and_a_second_fit(runner: SparkRunner, tmp_path: Path) -> None:
    """The same rows in another order give the same model; the family's member is chosen from the target."""
    session = runner.session()
    rows = "SELECT id % 97 AS age, concat('job ', id % 5) AS job, id % 97 + id % 13 > 60 AS bought FROM range(1200)"
    model = []
    for name, order in (("one", "id"), ("two", "hash(id)")):
        session.sql(f"{rows} ORDER BY {order}").createOrReplaceTempView("visits")
        table = pa.table({"age": [1], "job": ["a"], "bought": [True]})
        options = {"n_estimators": 40, "early_stopping_rounds": 2, "refit": True}
        job = make_job(tmp_path / name, table, "bought", None, options=options)
        (job.folder / "train.arrow").unlink()
        made, outcome = run_spark(runner, replace(job, query='SELECT "age", "job", "bought" FROM visits'))
        model.append(outcome)
        assert made.head.classes == (False, True)
    assert model[0].bundle_sha256 == model[1].bundle_sha256
    assert model[0].fingerprint == model[1].fingerprint
    assert model[0].algorithm == "xgboost_classifier"
    assert abs(model[0].heldout_rows - 240) <= 2
    assert model[0].rows == 1200
    assert any("fitted again on all 1,200 rows" in note for note in model[0].notes)


def test_clusters(runner: SparkRunner, tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(300, 2)) + np.repeat([[0, 0], [20, 0], [0, 20]], 100, 0)
    table = pa.table({"a": points[:, 0], "b": points[:, 1]})
    how: dict[str, Any] = {"split": SplitPlan("none"), "options": {"n_clusters": 3}}
    model, outcome = run_spark(runner, make_job(tmp_path, table, None, "kmeans", **how))
    found = model.predict(table).to_numpy().reshape(3, 100)
    assert sorted(found[:, 0]) == [1, 2, 3]
    assert (found == found[:, :1]).all()
    assert outcome.metrics["train"]["silhouette"] == pytest.approx(0.93, abs=0.05)


# --- predictions ------------------------------------------------------------------------------------------------------


Predict = Callable[..., Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, str, pa.Table]:
    """A model trained on this machine, its bundle's SHA-256, and rows with every kind of column."""
    table = people(300)
    folder = tmp_path_factory.mktemp("model")
    spec = make_job(folder, table, "y", "xgboost_classifier", exclude=["z", "w"], options={"n_estimators": 4})
    model, outcome, _ = run(spec)
    return model, outcome.bundle_sha256, table


@pytest.fixture
def predict(runner: SparkRunner, trained: tuple[Model, str, pa.Table], tmp_path: Path) -> Predict:
    model, sha256, _ = trained

    def job(query: str | None = None, limits: Limits | None = None, **plan: Any) -> Path:
        settled = PredictPlan("m", 1, str(model.folder), sha256, limits or Limits(), "cluster", "PREDICT MODEL m", **plan)
        runner.submit(JobSpec(7, "predict", tmp_path, settled, query)).wait(lambda _: None)
        return tmp_path

    return job


def test_predictions_in_files(predict: Predict, trained: tuple[Model, str, pa.Table], tmp_path: Path) -> None:
    model, _, table = trained
    write_arrow(tmp_path / "rows.arrow", table)
    predict()
    found = pq.read_table(tmp_path / "predictions").replace_schema_metadata(None)
    expected = model.full(table)
    assert found.select(table.column_names).to_pylist() == table.to_pylist()
    assert found.column("predicted_y").to_pylist() == expected.column("predicted_y").to_pylist()
    assert found.column("predicted_y_probs").to_pylist() == expected.column("predicted_y_probs").to_pylist()
    assert json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["rows"] == 300
    assert not (tmp_path / "rows").exists()


QUERY = (
    "SELECT id / 100D AS x, id % 9 AS `count of`, '東京' AS `町`, true AS ok, current_date() AS day, current_timestamp() AS at, "
    "CAST(NULL AS BIGINT) AS clock, id FROM range(50)"
)


def test_predictions_in_a_table(predict: Predict, runner: SparkRunner) -> None:
    """All or nothing: what fails leaves the table as it was, and no other behind."""
    session = runner.session()
    into = ("default", "scored")
    try:
        predict(QUERY, into=into)
        with pytest.raises(BindError, match=r"default\.scored exists"):
            predict(QUERY, into=into)
        predict(QUERY, into=into, mode="append")
        assert session.table("scored").count() == 100
        predict("SELECT * EXCEPT (predicted_y, predicted_y_probs) FROM scored WHERE id < 7", into=into, mode="replace")
        assert session.table("scored").count() == 14
        with pytest.raises(OperationalError, match="enough"):
            predict(QUERY.replace("id %", "raise_error('enough') + id %"), into=into, mode="replace")
        assert session.table("scored").count() == 14
        assert [row.tableName for row in session.sql("SHOW TABLES IN default").collect() if "scored" in row.tableName] == [
            "scored"
        ]
    finally:
        session.sql("DROP TABLE IF EXISTS scored")


def test_a_table_that_cannot_be_replaced_keeps_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old rows come back under their name; where even that fails, the error says what is where."""
    session = spark_session()
    failing: list[str] = []
    plain = spark_tables._rename

    def rename(session: Any, parts: Sequence[str], other: Sequence[str]) -> None:
        if any(word in parts[-1] for word in failing):
            raise OperationalError(f"no {parts[-1]}")
        plain(session, parts, other)

    def tables() -> list[str]:
        return [row.tableName for row in session.sql("SHOW TABLES IN default").collect() if "precious" in row.tableName]

    monkeypatch.setattr(spark_tables, "_rename", rename)
    try:
        write_table(session, session.range(3), ("default", "precious"), "create")
        failing.append("_new_")
        with pytest.raises(OperationalError, match="no precious_new"):
            write_table(session, session.range(5), ("default", "precious"), "replace")
        assert session.table("precious").count() == 3
        assert tables() == ["precious"]
        failing.append("_old_")
        with pytest.raises(OperationalError, match=r"could not be replaced, nor its old rows put back") as raised:
            write_table(session, session.range(5), ("default", "precious"), "replace")
        new, old = sorted(tables())
        assert raised.value.hint is not None
        assert f"the old ones are in default.{old}, the new ones in default.{new}" in raised.value.hint
        assert (session.table(old).count(), session.table(new).count()) == (3, 5)
    finally:
        for name in tables():
            session.sql(f"DROP TABLE {name}")


def test_a_job_that_was_given_up_writes_no_table(
    runner: SparkRunner, trained: tuple[Model, str, pa.Table], tmp_path: Path
) -> None:
    """Its thread may come back long after its caller was told that it is cancelled."""
    model, sha256, _ = trained
    plan = PredictPlan("m", 1, str(model.folder), sha256, Limits(), "cluster", "PREDICT MODEL m", into=("default", "late"))
    spec = JobSpec(7, "predict", tmp_path, plan, QUERY)
    stopped = threading.Event()

    class Late(Told):
        def stage(self, name: str) -> None:
            if stopped.is_set():
                raise JobCancelled("cancelled")
            if name == "predicting":  # from here on Spark writes, and hears of nothing
                stopped.set()

    with pytest.raises(JobCancelled):
        run_prediction(spec, Cluster(runner.session(), {}, "cluster"), Late())
    assert not [row for row in runner.session().sql("SHOW TABLES IN default").collect() if "late" in row.tableName]


class Told:
    """A report that nobody reads."""

    def step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        return

    def notice(self, text: str) -> None:
        return


def test_a_job_without_a_log_says_so(runner: SparkRunner, tmp_path: Path) -> None:
    spec = make_job(tmp_path / "job", pa.table({"a": [1.0, 2.0], "b": [0, 1]}), "b", "xgboost_classifier")
    (spec.folder / "job.log").mkdir()
    with pytest.raises(InternalError, match="IsADirectoryError"):
        runner.submit(spec).wait(lambda _: None)


def test_names_in_double_quotes_are_names(predict: Predict, tmp_path: Path) -> None:
    query = QUERY.replace("`", '"').replace("id % 9", '"id" % 9')
    found = pq.read_table(predict(query) / "predictions")
    assert set(found.column("count of").to_pylist()) == set(range(9))


def test_a_moment_for_a_local_time_is_one_wherever_it_is_asked(predict: Predict, runner: SparkRunner, tmp_path: Path) -> None:
    """In Spark's time zone where Spark reads the rows; in the zone that they bear where they come in a file."""
    session = runner.session()
    hours = pa.table(
        {"at": pa.array([dt.datetime(2024, 1, 1, h) for h in range(24)] * 20), "y": [float(h) for h in range(24)] * 20}
    )
    spec = make_job(tmp_path / "model", hours, "y", "xgboost_regressor", options={"n_estimators": 40, "learning_rate": 0.5})
    model, outcome, _ = run(spec)
    moment = pa.table(
        {"at": pa.array([dt.datetime(2024, 1, 1, 17)], pa.timestamp("us", "UTC")).cast(pa.timestamp("us", "America/New_York"))}
    )
    noon = model.predict(pa.table({"at": [dt.datetime(2024, 1, 1, 12)]})).to_pylist()
    assert noon == pytest.approx([12], abs=0.5)
    assert model.predict(moment).to_pylist() == noon
    zone = session.conf.get("spark.sql.session.timeZone")

    def predicted(folder: str, query: str | None) -> list[float]:
        (tmp_path / folder).mkdir()
        write_arrow(tmp_path / folder / "rows.arrow", moment)
        plan = PredictPlan("m", 1, str(model.folder), outcome.bundle_sha256, Limits(), "cluster", "PREDICT MODEL m")
        runner.submit(JobSpec(8, "predict", tmp_path / folder, plan, query)).wait(lambda _: None)
        return list(pq.read_table(tmp_path / folder / "predictions").column("predicted_y").to_pylist())

    session.conf.set("spark.sql.session.timeZone", "America/New_York")
    try:
        assert predicted("query", "SELECT TIMESTAMP '2024-01-01 12:00:00' AS at") == noon
        session.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
        assert predicted("file", None) == noon
    finally:
        session.conf.set("spark.sql.session.timeZone", zone)


def test_what_predictions_refuse(predict: Predict) -> None:
    with pytest.raises(BindError, match="needs columns that are not there: x, count of"):
        predict("SELECT 1 AS a")
    with pytest.raises(BindError, match="have a column predicted_y already"):
        predict(QUERY.replace("id FROM", "1 AS predicted_y FROM"))
    with pytest.raises(EngineError, match="`nothing` cannot be resolved"):
        predict("SELECT nothing FROM range(3)")
    with pytest.raises(JobTimeout, match="time limit of 2 s"):
        predict(QUERY.replace("range(50)", "range(100000000)"), Limits(seconds=2))


# --- what it does not do ----------------------------------------------------------------------------------------------


def test_what_is_refused(runner: SparkRunner, tmp_path: Path) -> None:
    """In words that name who can do it, before any work is done."""
    table = pa.table({"a": [1.0, 2.0, 3.0, 4.0] * 5, "b": [0, 1] * 10})

    def refused(target: Any, algorithm: str | None, **how: Any) -> str:
        with pytest.raises(NotSupportedError) as raised:
            runner.submit(make_job(tmp_path / "job", table, target, algorithm, **how)).wait(lambda _: None)
        return str(raised.value)

    assert "ON process trains it; on Spark there are: xgboost_classifier" in refused("b", "random_forest_classifier")
    assert "more than one target does not run on Spark" in refused(["a", "b"], "xgboost")
    assert "tree_method = 'exact' cannot be distributed" in refused("b", "xgboost_classifier", options={"tree_method": "exact"})
    assert "WITH (memory = '4 GB')" in refused("b", "xgboost_classifier", limits=Limits(memory=2**30))
    many = SparkRunner("cluster", {"workers": 64}).submit(make_job(tmp_path / "job", table, "b", "xgboost_classifier"))
    with pytest.raises(OperationalError, match=r"needs its 64 workers at the same time, and the cluster runs 2 tasks"):
        many.wait(lambda _: None)
    with pytest.raises(NotSupportedError, match="exclude each other"):
        SparkRunner("cluster", {"master": "local[1]", "connect": "sc://localhost"})


# --- where rows are staged --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", [False, True])
def test_rows_of_files_are_staged_where_the_option_says_and_go_again(runner: SparkRunner, tmp_path: Path, url: bool) -> None:
    """Also beside rows that a query reads, and days of long ago; a URL is no folder of the job's."""
    shared, folder = tmp_path / "shared", tmp_path / "job"
    folder.mkdir()
    table = pa.table({"a": [1, 2], "day": [dt.date(1200, 2, 29), None], "at": [dt.time(1, 2, 3), dt.time(0)]})
    write_arrow(folder / "validation.arrow", table)
    cluster = Cluster(runner.session(), {"staging": f"file://{shared}" if url else str(shared)}, "cluster")
    assert read_rows(cluster, "SELECT 1 AS a", folder / "train.arrow").collect()[0]["a"] == 1
    frame = read_rows(cluster, None, folder / "validation.arrow")
    assert all(str(shared) in name for name in frame.inputFiles())
    assert [row["day"] for row in frame.orderBy("a").collect()] == [dt.date(1200, 2, 29), None]
    assert list(shared.rglob("*.parquet"))
    cluster.forget()
    assert not list(shared.rglob("*.parquet"))
    assert [path.name for path in folder.iterdir()] == ["validation.arrow"]


def test_predictions_come_from_a_url(runner: SparkRunner, predict: Predict, tmp_path: Path) -> None:
    predict(QUERY)
    [made] = [path.parent for path in tmp_path.rglob("predictions") if path.is_dir()]
    expected = pq.read_table(made / "predictions").sort_by("id").column("predicted_y")
    spec = JobSpec.from_json(json.loads((made / "job.json").read_text(encoding="utf-8")))
    shared = tmp_path / "elsewhere"
    SparkRunner("cluster", {"staging": f"file://{shared}"}).submit(spec).wait(lambda _: None)
    assert pq.read_table(made / "predictions").sort_by("id").column("predicted_y").equals(expected)
    assert not list(shared.rglob("*.parquet"))
