"""Versions as functions of Spark, ``sqlml.spark.register`` and what a session's SQL then understands, in a real session."""

from __future__ import annotations

import datetime as dt
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlml_udfs.spark.target as udfs
from sqlml_udfs.spark.target import SparkTarget
from sqlml_udfs.spark.types import spark_type

import sqlml
from sqlml.bundles.model import Model
from sqlml.catalog import Catalog
from sqlml.errors import BindError, NotSupportedError, OperationalError, ParseError, UnknownModel, UnknownVersion
from tests.bundles.handmade import Learn, make_bundle, open_sort, same
from tests.kits import check_target
from tests.servers import spark_session


@pytest.fixture(scope="module")
def spark(people_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A session with the view ``people`` and the functions ``buys`` and ``spends``."""
    folder = tmp_path_factory.mktemp("spark")
    shutil.copytree(people_folder, folder / "home")
    database = folder / "home" / "people.duckdb"
    with sqlml.connect(database) as connection:
        connection.execute(f"COPY people TO '{folder / 'people.parquet'}'")
        connection.execute("TRAIN MODEL buys USING naive_bayes TARGET bought EXCLUDE (id, spent) ON inline AS FROM people")
    session = spark_session()
    session.read.parquet(str(folder / "people.parquet")).createOrReplaceTempView("people")
    session.home = database
    with sqlml.connect(database):  # another holder of the database: only the catalog beside it is read
        assert sqlml.spark.register(session, "buys@1", name="buys", database=database) == "buys@1"
        assert sqlml.spark.register(session, "spends", database=database) == "spends@1"
    yield session
    for name in ("buys", "spends"):
        sqlml.spark.unregister(session, name)


@pytest.fixture(scope="module")
def expected(spark: Any) -> dict[int, tuple[str, float]]:
    """id → (class, probability of yes), by the model itself."""
    catalog = Catalog.open(spark.home.with_suffix(".sqlml"))
    model = Model.open(catalog.resolve("buys", 1).bundle)
    catalog.close()
    rows = spark.table("people").toArrow()
    classes, raw = model.predict(rows).to_pylist(), model.raw(rows)
    return {i: (c, float(p)) for i, c, p in zip(rows["id"].to_pylist(), classes, raw[:, 1], strict=True)}


def column(frame: Any) -> list[Any]:
    """The first column of a result."""
    return list(frame.toArrow().column(0).to_pylist())


@pytest.mark.parametrize("sort", ["lists", "several", "only transform"])
def test_the_contract(sort: str, tmp_path: Path) -> None:
    session = spark_session()
    model = open_sort(tmp_path, sort)

    def run(query: str) -> list[Any]:
        return column(session.sql(query))

    target = SparkTarget(session)
    check_target(target, run, model)
    for name in list(target._installed):
        target.remove(name)


# --- values of every kind ---------------------------------------------------------------------------------------------

ODD: dict[str, list[Any]] = {
    "number": [1.0, None, math.inf, -math.inf, 0.0, -1e300, 3.5, 2.0],
    "whole": [1, 2, None, -5, 2**31 - 1, 0, 7, 3],
    "money": [Decimal("1.50"), Decimal("-99.25"), None, Decimal("0.00"), Decimal("7.75"), Decimal("3.10"), None, Decimal("2.00")],
    "flag": [True, False, None, True, False, None, True, False],
    "wörd 漢": ["a", None, "never seen", "", 'it\'s "ß" 😀', "ß", "a", "b"],
    "day": [
        dt.date(1959, 12, 31),
        None,
        dt.date(2024, 2, 29),
        dt.date(1500, 1, 1),
        dt.date(1970, 1, 1),
        None,
        dt.date(2000, 5, 5),
        dt.date(1969, 12, 31),
    ],
    "local": [
        dt.datetime(1960, 1, 1, 23, 30), None, dt.datetime(2024, 3, 10, 2, 30), dt.datetime(1800, 6, 1), None,
        dt.datetime(2024, 7, 1, 12), dt.datetime(1969, 12, 31, 23, 59, 59, 999999), dt.datetime(2001, 1, 1),
    ],
    "moment": [dt.datetime(1960, 1, 1, 23, 30, tzinfo=dt.UTC), None, dt.datetime(2024, 3, 10, 7, 30, tzinfo=dt.UTC), None]
    + [dt.datetime(2024, 11, 3, 6, 30, tzinfo=dt.UTC)] * 4,
    "clock": [dt.time(1, 2, 3), None, dt.time(23, 59, 59, 999999), dt.time(0), dt.time(12), dt.time(13), None, dt.time(6)],
    "vector": [[1.0, 2.0], None, [0.0, -1.0], [math.inf, 0.0], [5.0, 5.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.0]],
    "tags": [["a"], None, [], ["a", "b"], ["new"], ["b"], ["a"], ["b", "a"]],
}  # fmt: skip
ODD_TYPES = {
    "number": pa.float64(), "whole": pa.int32(), "money": pa.decimal128(10, 2), "flag": pa.bool_(), "wörd 漢": pa.string(),
    "day": pa.date32(), "local": pa.timestamp("us"), "moment": pa.timestamp("us", "UTC"), "clock": pa.time64("us"),
    "vector": pa.list_(pa.float64()), "tags": pa.list_(pa.string()),
}  # fmt: skip


def odd_table(times: int = 1) -> pa.Table:
    return pa.table({name: pa.array(values * times, ODD_TYPES[name]) for name, values in ODD.items()})


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Model]]:
    """A model of a column of each kind, and the view ``odd`` of rows that want to go wrong, in a time zone with summer time."""
    folder = tmp_path_factory.mktemp("odd")
    table = odd_table(30)
    answers = pa.array([f"c{(i % 8) // 3}" for i in range(table.num_rows)])
    bundle = folder / "bundle"
    bundle.mkdir()
    finite = table.set_column(0, "number", pa.array([v if v is None or math.isfinite(v) else 9.0 for v in ODD["number"]] * 30))
    make_bundle(bundle, finite, [Learn("xgboost_classifier", "y", answers, {"n_estimators": 6})])
    given = odd_table().append_column("row", pa.array(range(8)))
    given = given.set_column(given.column_names.index("clock"), "clock", given["clock"].cast(pa.string()))
    pq.write_table(given, folder / "odd.parquet")
    session = spark_session()
    zone = session.conf.get("spark.sql.session.timeZone")
    session.conf.set("spark.sql.session.timeZone", "America/New_York")
    reader = session.read.option("datetimeRebaseMode", "CORRECTED")
    reader.parquet(str(folder / "odd.parquet")).createOrReplaceTempView("odd")
    sqlml.spark.register(session, "odd_model", path=bundle)
    yield session, Model.open(bundle)
    sqlml.spark.unregister(session, "odd_model")
    session.conf.set("spark.sql.session.timeZone", zone)


@pytest.mark.parametrize("call", ["odd_model(*)", "odd_model(struct(o.*))", "PREDICT(odd_model)"])
def test_values_of_every_kind_reach_the_model_as_they_are(odd: tuple[Any, Model], call: str) -> None:
    session, model = odd
    assert column(session.sql(f"SELECT {call} FROM odd AS o ORDER BY row")) == model.predict(odd_table()).to_pylist()


def test_each_value_missing_and_each_alone(odd: tuple[Any, Model]) -> None:
    session, model = odd
    names = list(ODD)
    asked, wanted = [], []
    for missing in names:
        fields = ", ".join(f"{'NULL' if n == missing else f'`{n}`'} AS `{n}`" for n in names)
        asked.append(f"SELECT {names.index(missing)} AS k, row, PREDICT_PROBA(odd_model USING {fields}) AS p FROM odd")
        rows = odd_table().set_column(names.index(missing), missing, pa.nulls(8, ODD_TYPES[missing]))
        wanted += model.probs_map(model.raw(rows)).to_pylist()
    found = session.sql(" UNION ALL ".join(asked) + " ORDER BY k, row").select("p")
    assert same(column(found), wanted)


def test_a_moment_for_a_local_time_is_what_the_session_s_clock_showed(odd: tuple[Any, Model]) -> None:
    session, model = odd
    other = "CAST(local AS TIMESTAMP) AS local, * EXCEPT (local)"
    assert column(
        session.sql(f"SELECT PREDICT_PROBA(odd_model, 'c1') FROM (SELECT {other} FROM odd WHERE row <> 2) ORDER BY row")
    )
    rows = odd_table().take([0, 1, 3, 4, 5, 6, 7])
    found = column(session.sql(f"SELECT odd_model(*) FROM (SELECT {other} FROM odd WHERE row <> 2) ORDER BY row"))
    assert found == model.predict(rows).to_pylist()


def test_a_view_of_no_rows_has_no_answers(odd: tuple[Any, Model]) -> None:
    assert column(odd[0].sql("SELECT odd_model(*) FROM odd WHERE row > 100")) == []


# --- what a session understands ---------------------------------------------------------------------------------------


def test_every_way_to_call_a_model(spark: Any, expected: dict[int, tuple[str, float]]) -> None:
    calls = [
        "buys(*)", "buys(p.*)", "buys(age, job, balance)", "buys(balance => balance, age => age, job => job)", "PREDICT(buys)",
        "PREDICT(buys USING *)", "PREDICT(buys USING balance, job, age + 0 AS age)", "`buys@1`(*)", "PREDICT(buys@1)",
        "buys(struct(*))", "BUYS(*)",
    ]  # fmt: skip
    answers = ", ".join(f"{call} AS c{i}" for i, call in enumerate(calls))
    proba = "PREDICT_PROBA(buys, 'yes') AS p, PREDICT_PROBA(buys)['yes'] AS q, PREDICT_PROBA(buys, bought) AS r"
    rows = spark.sql(f"SELECT id, bought, {answers}, {proba} FROM people AS p").toArrow().to_pylist()
    assert len(rows) == 600
    for row in rows:
        answer, yes = expected[row["id"]]
        assert {row[f"c{i}"] for i in range(len(calls))} == {answer}
        assert row["p"] == row["q"] == pytest.approx(yes, abs=1e-9)
        assert row["r"] == pytest.approx(yes if row["bought"] == "yes" else 1 - yes, abs=1e-9)


def test_columns_keep_their_names_and_other_text_its_bytes(spark: Any) -> None:
    text = "SELECT 'it\\'s buys(*) it\\'s', \"buys(*)\", buys(*), PREDICT_PROBA(buys, 'yes') /* buys(*) */ FROM people LIMIT 1"
    frame = spark.sql(text)
    assert frame.columns == ["it's buys(*) it's", "buys(*)", "buys(*)", "PREDICT_PROBA(buys, 'yes')"]
    assert frame.collect()[0][:2] == ("it's buys(*) it's", "buys(*)")
    assert spark.sql("SELECT buys(*) AS a, {one} AS b FROM {df} LIMIT 1", df=spark.table("people"), one=1).columns == ["a", "b"]


def test_parameters_keep_their_places(spark: Any) -> None:
    asked = "SELECT PREDICT(buys USING ? AS balance, job, ? AS age) AS a, buys(?, 'cook', 3.5) AS b FROM people WHERE id = ?"
    row = spark.sql(asked, args=[3.5, 90, 90, 1]).collect()[0]
    assert row.a == row.b == "yes"
    with pytest.raises(NotSupportedError, match="order of the"):
        spark.sql("SELECT PREDICT_PROBA(buys, ? USING ? AS age, job, balance) FROM people", args=["yes", 3])


def test_reasons_and_nested_calls(spark: Any) -> None:
    row = spark.sql(
        "SELECT PREDICT_REASONS(buys, 2) AS r, PREDICT(buys USING *, PREDICT(spends) AS age) AS n FROM people"
    ).first()
    assert [reason.feature for reason in row.r][:1] == ["age"]
    assert row.n in ("no", "yes")


@pytest.mark.parametrize(
    "call",
    ["buys(*)", "buys()", "buys(struct(*))", "buys(age, job, balance)", "buys(job => job, balance => balance, age => age)"],
)
def test_frames_call_models_too_by_name(spark: Any, expected: dict[int, tuple[str, float]], call: str) -> None:
    shuffled = spark.table("people").select("spent", "job", "BALANCE", "id", "age")
    rows = shuffled.selectExpr("id", f"{call} AS p").toArrow().to_pylist()
    assert {row["id"]: row["p"] for row in rows} == {i: answer for i, (answer, _) in expected.items()}


@pytest.mark.parametrize(
    ("columns", "call", "missing"),
    [
        (("age", "balance"), "buys(*)", "job: needed by buys, which is given age, balance"),
        (("id", "job", "balance"), "buys(*)", "age: needed by buys, which is given id, job, balance"),
        (("age", "job", "id"), "buys(*)", "balance: needed"),
        (("age", "job", "balance"), "buys(struct(age, job))", "balance: needed"),
        (("age", "job", "balance"), "buys(nix => 1)", "age, job, balance: needed"),
    ],
)
def test_frames_without_the_columns_are_refused_at_once(spark: Any, columns: tuple[str, ...], call: str, missing: str) -> None:
    from pyspark.errors import AnalysisException

    with pytest.raises(AnalysisException, match=missing):
        spark.table("people").select(*columns).selectExpr(call)


def test_a_star_over_a_join_is_one_side_s_or_refused(spark: Any) -> None:
    from pyspark.errors import AnalysisException

    joined = "FROM people AS a JOIN people AS b ON a.id = b.id"
    assert len(column(spark.sql(f"SELECT buys(b.*) {joined} LIMIT 3"))) == 3
    with pytest.raises(AnalysisException, match="ambiguous"):
        spark.sql(f"SELECT buys(*) {joined}")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("SELECT PREDICT(bys) FROM people", BindError, "did you mean buys"),
        ("SELECT PREDICT(buys@9) FROM people", UnknownVersion, "no version 9"),
        ("SELECT PREDICT_PROBA(buys, 'maybe') FROM people", BindError, "its classes: no, yes"),
        ("SELECT PREDICT_PROBA(spends) FROM people", BindError, "no probabilities"),
        ("SELECT buys(age, job) FROM people", BindError, r"takes 3 arguments, got 2[\s\S]*age => …"),
        ("SELECT PREDICT(buys USING nix) FROM people", BindError, "no input nix"),
        ("SELECT PREDICT('buys') FROM people", ParseError, "without quotes"),
        ("SELECT * FROM ML.PREDICT(MODEL buys, TABLE people)", NotSupportedError, "Spark"),
    ],
)
def test_mistakes_are_told_in_our_words(spark: Any, text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        spark.sql(text)


def test_missing_columns_are_spark_s_to_tell_with_what_the_model_takes(spark: Any) -> None:
    from pyspark.errors import AnalysisException

    with pytest.raises(AnalysisException, match=r"`job` cannot be resolved.*`age`, `balance`") as caught:
        spark.sql("SELECT buys(*) FROM (SELECT age, balance FROM people)")
    assert caught.value.__notes__ == ["buys is buys@1, which takes: age, job, balance"]


def test_registering_again_renews_views_and_unregistering_takes_all_away(spark: Any, odd: tuple[Any, Model]) -> None:
    from pyspark.errors import AnalysisException

    sqlml.spark.register(spark, "buys@1", name="again", database=spark.home)
    spark.sql("CREATE OR REPLACE TEMP VIEW kept AS SELECT again(*) AS a, PREDICT_PROBA(again, 'yes') AS p FROM people")
    spark.table("people").selectExpr("again(*) AS a").createOrReplaceTempView("plain")
    before = column(spark.sql("SELECT sum(p) FROM kept"))
    assert sqlml.spark.register(spark, "buys", name="again", database=spark.home) == "buys@2"
    assert column(spark.sql("SELECT sum(p) FROM kept")) != before
    assert sqlml.spark.registered(spark)["again"] == "buys@2"
    assert column(spark.sql("SELECT PREDICT(again@1) FROM people LIMIT 1"))
    sqlml.spark.unregister(spark, "AGAIN")
    with pytest.raises(AnalysisException):
        spark.sql("SELECT again(*) FROM people")
    assert not [row for row in spark.sql("SHOW USER FUNCTIONS").collect() if "again" in row[0]]
    with pytest.raises(BindError, match="no model again"):
        sqlml.spark.unregister(spark, "again")


def test_models_of_a_server_with_its_catalog(spark: Any, postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(OperationalError, match="no models lie beside") as raised:
        sqlml.spark.register(spark, "old", database=postgres.replace("postgres:@", "postgres:hush@"), catalog="database")
    assert "hush" not in str(raised.value)
    with sqlml.connect(postgres, catalog="database") as connection:
        connection.execute(
            "TRAIN MODEL old TARGET t WITH (n_estimators = 2) ON inline AS "
            "SELECT i AS a, i > 100 AS t FROM generate_series(1, 200) i"
        )
    assert sqlml.spark.register(spark, "old", database=postgres, catalog="database") == "old@1"
    assert spark.sql("SELECT old(*) AS o FROM (SELECT 3 AS a)").collect()[0]["o"] is False
    sqlml.spark.unregister(spark, "old")
    with pytest.raises(BindError, match="for the models of a PostgreSQL server"):
        sqlml.spark.register(spark, "old", catalog="database")


def test_what_cannot_be_registered(spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register = sqlml.spark.register
    with pytest.raises(BindError, match=r'function of the Spark session already[\s\S]*name="buys_model"'):
        register(spark, "buys", name="upper", database=spark.home)
    with pytest.raises(UnknownModel, match="did you mean buys"):
        register(spark, "bys", database=spark.home)
    with pytest.raises(OperationalError, match="no models lie beside"):
        register(spark, "buys", database=tmp_path / "nix.duckdb")
    with pytest.raises(BindError, match="SparkSession"):
        register(None, "buys")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OperationalError, match=r"no \*.sqlml folder"):
        register(spark, "buys")
    for name in ("a.sqlml", "b.sqlml"):
        shutil.copytree(spark.home.with_suffix(".sqlml"), tmp_path / name)
    with pytest.raises(OperationalError, match=r"'a.duckdb', 'b.duckdb'"):
        register(spark, "buys")
    assert not list(tmp_path.glob("nix*"))


def test_a_bundle_goes_to_a_cluster_as_an_archive(
    spark: Any, expected: dict[int, tuple[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udfs, "_is_local", lambda session: False)
    sqlml.spark.register(spark, "buys@1", name="sent", database=spark.home)
    assert column(spark.sql("SELECT sent(*) FROM people ORDER BY id LIMIT 5")) == [expected[i][0] for i in range(5)]
    sqlml.spark.unregister(spark, "sent")


def test_types_in_spark_s_words() -> None:
    assert (
        spark_type('STRUCT("a ""b`" DOUBLE[], z MAP(VARCHAR, BIGINT))[]')
        == 'ARRAY<STRUCT<`a "b```: ARRAY<DOUBLE>, `z`: MAP<STRING, BIGINT>>>'
    )
    assert spark_type("TIMESTAMP WITH TIME ZONE") == "TIMESTAMP"
    for wrong in ("UHUGEINT", "DOUBLE DOUBLE", "STRUCT(a"):
        with pytest.raises(ValueError, match=r"type"):
            spark_type(wrong)


PROGRAM = """
import sqlml
from pyspark.sql import SparkSession

spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
sqlml.spark.register(spark, "buys")
frame = spark.createDataFrame([(90, "cook", 1.0), (5, None, 2.0)], "age int, job string, balance double")
frame.createOrReplaceTempView("t")
print([row.p for row in spark.sql("SELECT buys(*) AS p FROM t").collect()])
print([row.p for row in frame.selectExpr("buys(*) AS p").collect()])
spark.stop()
"""


def test_a_plain_program_needs_two_lines(spark: Any, tmp_path: Path) -> None:
    shutil.copytree(spark.home.parent, tmp_path / "work")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path / "work",
        env={name: value for name, value in os.environ.items() if not name.startswith(("PYSPARK", "SPARK"))},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.stdout.splitlines() == ["['yes', 'no']", "['yes', 'no']"], done.stderr[-2000:]
