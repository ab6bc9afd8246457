"""EXPORT MODEL and IMPORT MODEL as statements: files of every format, and the same answers in another database."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

import sqlml

PROBABILITIES = "SELECT id, PREDICT_PROBA(buys, 'yes') AS p FROM people ORDER BY id"


def rows(connection: sqlml.Connection, text: str, values: Any = ()) -> list[dict[str, Any]]:
    cursor = connection.execute(text, values)
    names = [d[0] for d in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


@pytest.mark.parametrize(
    ("path", "form", "files"),
    [
        ("buys", "bundle", 5),
        ("buys.tar", "bundle", 1),
        ("buys.tgz", "bundle", 1),
        ("buys.onnx", "onnx", 1),
        ("buys.json", "native", 1),
        ("buys.ubj", "native", 1),
        ("buys.sql", "sql", 1),
    ],
)
def test_the_ending_tells_the_format(shared: sqlml.Connection, tmp_path: Path, path: str, form: str, files: int) -> None:
    [row] = rows(shared, f"EXPORT MODEL buys TO '{tmp_path / path}'")
    assert (row["model"], row["version"], row["format"], row["path"]) == ("buys", 1, form, str(tmp_path / path))
    assert row["files"] == files
    assert row["bytes"] == sum(p.stat().st_size for p in (tmp_path / path, *(tmp_path / path).rglob("*")) if p.is_file())
    assert [p.name for p in tmp_path.iterdir()] == [path]


@pytest.mark.slow
@pytest.mark.parametrize("path", ["buys", "buys.tar.gz"])
def test_a_bundle_answers_the_same_in_another_database(database: Path, tmp_path: Path, path: str) -> None:
    place = tmp_path / path
    with sqlml.connect(database) as connection:
        connection.execute(f"EXPORT MODEL buys@1 TO '{place}'")
        expected = rows(connection, PROBABILITIES)
        connection.execute(f"COPY people TO '{tmp_path}/people.parquet'")
        metrics = connection.execute(
            "SELECT split, metric, value FROM sqlml.metrics WHERE model = 'buys' ORDER BY ALL"
        ).fetchall()
        shown = rows(connection, "SHOW CREATE MODEL buys")
    with sqlml.connect(tmp_path / "other.duckdb") as other:
        other.execute(f"CREATE TABLE people AS FROM '{tmp_path}/people.parquet'")
        [row] = rows(other, f"IMPORT MODEL buys FROM '{place}'")
        assert (row["version"], row["algorithm"], row["predicts"]) == (1, "xgboost_classifier", "bought: no, yes")
        assert rows(other, PROBABILITIES) == expected
        assert (
            other.execute("SELECT split, metric, value FROM sqlml.metrics WHERE model = 'buys' ORDER BY ALL").fetchall()
            == metrics
        )
        assert rows(other, "SHOW CREATE MODEL buys") == shown
        assert rows(other, f"IMPORT MODEL buys FROM '{place}'")[0]["version"] == 2
        assert len(rows(other, "SELECT PREDICT_REASONS(buys, 1) FROM people LIMIT 3")) == 3


def test_the_same_version_gives_the_same_file(shared: sqlml.Connection, tmp_path: Path) -> None:
    for name in "ab":
        shared.execute(f"EXPORT MODEL spends TO '{tmp_path / name}.tar.gz'")
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        card = json.loads(tar.extractfile("version.json").read())  # type: ignore[union-attr]
    assert card["name"] == "spends@1"
    assert card["plan"]["statement"].startswith("TRAIN MODEL spends")


def test_sql_runs_in_a_plain_database(database: Path, tmp_path: Path) -> None:
    with sqlml.connect(database) as connection:
        connection.execute(f"EXPORT MODEL buys TO '{tmp_path}/b.sql' WITH (table = 'people', keep = ['id'])")
        expected = rows(connection, "SELECT id, PREDICT(buys) AS y, PREDICT_PROBA(buys, 'yes') AS p FROM people ORDER BY id")
    with duckdb.connect(str(database)) as plain:
        found = plain.sql(f"SELECT * FROM ({(tmp_path / 'b.sql').read_text().rstrip().rstrip(';')}\n) ORDER BY id").fetchall()
    assert [(r["id"], r["y"]) for r in expected] == [(i, y) for i, y, *_ in found]
    assert np.abs(np.array([r["p"] for r in expected]) - np.array([f[3] for f in found])).max() < 1e-6


@pytest.mark.slow
def test_several_targets_are_one_query_and_one_bundle(database: Path, tmp_path: Path) -> None:
    with sqlml.connect(database) as connection:
        connection.execute(
            "TRAIN MODEL both TARGET bought, spent EXCLUDE (id) WITH (n_estimators = 3) ON inline AS SELECT * FROM people"
        )
        connection.execute(f"EXPORT MODEL both TO '{tmp_path}/both.sql' WITH (table = 'people', keep = ['id'])")
        text = (tmp_path / "both.sql").read_text().rstrip().rstrip(";")
        query = f"SELECT s.*, PREDICT(both) AS p FROM people JOIN ({text}\n) AS s USING (id)"
        for row in rows(connection, query):
            assert row["p"]["bought"] == row["predicted_bought"]
            assert abs(row["p"]["spent"] - row["predicted_spent"]) < 1e-4
        connection.execute(f"EXPORT MODEL both TO '{tmp_path}/both.tar'")
        assert rows(connection, f"IMPORT MODEL both FROM '{tmp_path}/both.tar'")[0]["version"] == 2
        with pytest.raises(sqlml.Error, match="several targets"):
            connection.execute(f"EXPORT MODEL both TO '{tmp_path}/both.onnx'")


@pytest.mark.slow
def test_onnx_there_and_back(database: Path, tmp_path: Path) -> None:
    with sqlml.connect(database) as connection:
        connection.execute(f"EXPORT MODEL groups TO '{tmp_path}/g.onnx'")
        [row] = rows(connection, f"EXPORT MODEL buys TO '{tmp_path}/b.onnx' WITH (inputs = 'matrix')")
        assert row["note"].startswith("takes the float32 matrix of: age, job, balance")
        [row] = rows(connection, f"EXPORT MODEL spends TO '{tmp_path}/s' FORMAT onnx")
        assert row["note"].startswith("takes the model's columns by name")
        train = "TRAIN MODEL two TARGET bought WITH (n_estimators = 4) ON inline AS SELECT age, balance, bought FROM people"
        connection.execute(train)
        connection.execute(f"EXPORT MODEL two TO '{tmp_path}/two.onnx'")
        connection.execute(f"IMPORT MODEL back FROM '{tmp_path}/two.onnx' WITH (classes = ['no', 'yes'], target = 'b')")
        text = "SELECT PREDICT(two) AS a, PREDICT(back) AS b, PREDICT_PROBA(two, 'yes') AS p, PREDICT_PROBA(back, 'yes') AS q"
        found = rows(connection, f"{text} FROM people")
        assert all(r["a"] == r["b"] and abs(r["p"] - r["q"]) < 1e-6 for r in found)
        assert rows(connection, "DESCRIBE MODEL back")
        with pytest.raises(sqlml.Error, match=r"contributions|explain"):
            connection.execute("SELECT PREDICT_REASONS(back, 1) FROM people").fetchall()


@pytest.mark.slow
def test_a_booster_becomes_a_model(database: Path, tmp_path: Path) -> None:
    import xgboost

    x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    matrix = xgboost.DMatrix(x, x[:, 0] > 0, feature_names=["age", "balance"])
    booster = xgboost.train({"objective": "binary:logistic", "nthread": 1}, matrix, 4)
    booster.save_model(tmp_path / "m.ubj")
    with sqlml.connect(database) as connection:
        connection.execute(f"IMPORT MODEL mine FROM '{tmp_path}/m.ubj' WITH (target = 'rich', classes = [false, true])")
        found = rows(connection, "SELECT PREDICT(mine) AS y, age, balance FROM people")
        own = booster.predict(
            xgboost.DMatrix(np.array([[r["age"], r["balance"]] for r in found]), feature_names=["age", "balance"])
        )
        assert [r["y"] for r in found] == (own > 0.5).tolist()
        assert rows(connection, "SHOW CREATE MODEL mine")
        assert rows(connection, "EXPLAIN MODEL mine")
        assert rows(connection, f"EXPORT MODEL mine TO '{tmp_path}/m.sql'")
        connection.execute(f"EXPORT MODEL mine TO '{tmp_path}/mine.tar'")
        connection.execute(f"IMPORT MODEL yours FROM '{tmp_path}/mine.tar'")
        assert rows(connection, "SELECT PREDICT(yours) AS y, age, balance FROM people") == found


def test_prepared_values_in_options(shared: sqlml.Connection, tmp_path: Path) -> None:
    text = f"EXPORT MODEL buys TO '{tmp_path}/b.sql' WITH (table = ?, dialect = ?)"
    shared.execute(text, ["customers", "snowflake"])
    assert "FROM customers" in (tmp_path / "b.sql").read_text()


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("EXPORT MODEL nobody TO '{t}/x'", "unknown model nobody"),
        ("EXPORT MODEL buys TO '{t}/none/x.sql'", "there is no folder"),
        ("EXPORT MODEL buys TO '{t}/there'", "is there already"),
        ("EXPORT MODEL buys TO '{t}/there.sql'", "is there already"),
        ("EXPORT MODEL buys TO '{t}/there.sql/x'", "is a file, not a folder"),
        ("EXPORT MODEL buys TO '{t}/x.sql' WITH (dialect = 'nonsense')", "unknown dialect nonsense"),
        ("EXPORT MODEL buys TO '{t}/x.sql' WITH (dialects = 'duckdb')", "did you mean dialect"),
        ("EXPORT MODEL buys TO '{t}/x.onnx' WITH (inputs = 'rows')", "one of 'columns', 'matrix'"),
        ("EXPORT MODEL buys TO '{t}/x.sql' WITH (max_nodes = 3)", "more than max_nodes = 3"),
        ("EXPORT MODEL buys TO '{t}/x.sql' WITH (overwrite = 1)", "true or false"),
        ("EXPORT MODEL buys TO '{t}/x.txt' FORMAT native", "neither .json nor .ubj"),
        ("EXPORT MODEL buys TO '/proc/x.sql'", "cannot write /proc/x.sql"),
        ("IMPORT MODEL x FROM '{t}/nothing.tar'", "there is no file"),
        ("IMPORT MODEL x FROM '{t}/there'", "without manifest.json"),
        ("IMPORT MODEL x FROM '{t}/there.sql'", "no model that is known here"),
        ("IMPORT MODEL x@2 FROM '{t}/there'", "gets its number by itself"),
        ("IMPORT MODEL x FROM '{t}/there' WITH (classes = ['a', 1])", "of one type"),
        ("IMPORT MODEL x FROM '{t}/there' WITH (task = 'ranking')", "one of 'classification', 'regression'"),
    ],
)
def test_what_is_refused_changes_nothing(shared: sqlml.Connection, tmp_path: Path, statement: str, words: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there.sql").write_text("before")
    before = rows(shared, "SELECT count(*) AS n FROM sqlml.jobs") + rows(shared, "SHOW MODELS")
    with pytest.raises(sqlml.Error, match=words):
        shared.execute(statement.format(t=tmp_path))
    assert rows(shared, "SELECT count(*) AS n FROM sqlml.jobs") + rows(shared, "SHOW MODELS") == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["there", "there.sql"]
    assert (tmp_path / "there.sql").read_text() == "before"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "marked"),
    [
        ("EXPORT MODEL buys TO '{t}/duckdb/x.sql' WITH (dialect = 'duckdb')", "'{t}/duckdb/x.sql'"),
        ("EXPORT MODEL buys TO '{t}/x' FORMAT sql WITH (table = 'nonsense', dialect = 'nonsense')", "'nonsense'"),
        ("EXPORT MODEL buys TO '{t}/x.sql' WITH (max_nodes = 3)", "3"),
        ("IMPORT MODEL x FROM '{t}/there' WITH (target = 'there', classes = ['a', 'b'])", "'there'"),
        ("IMPORT MODEL x FROM '{t}/m.ubj' WITH (target = 'm', task = 'regression')", "'regression'"),
    ],
)
def test_an_error_stands_at_the_path_or_the_option_it_is_about(
    shared: sqlml.Connection, tmp_path: Path, statement: str, marked: str
) -> None:
    (tmp_path / "there").mkdir()
    shared.execute(f"EXPORT MODEL buys TO '{tmp_path}/m.ubj'")
    text = statement.format(t=tmp_path)
    with pytest.raises(sqlml.Error) as caught:
        shared.execute(text)
    error = caught.value
    assert error.span is not None
    assert text[slice(*error.span)] == marked.format(t=tmp_path)
    assert error.span[0] == text.rindex(marked.format(t=tmp_path)) or "there" in marked


@pytest.mark.slow
def test_a_changed_transform_is_refused(database: Path, tmp_path: Path) -> None:
    with sqlml.connect(database) as connection:
        connection.execute(
            "TRAIN MODEL t TARGET bought TRANSFORM (ln(age + 1) AS x, balance) WITH (n_estimators = 2) ON inline "
            "AS SELECT age, balance, bought FROM people WHERE age > ?",
            [7],
        )
        connection.execute(f"EXPORT MODEL t TO '{tmp_path}/t'")
        connection.execute(f"IMPORT MODEL good FROM '{tmp_path}/t'")
        manifest, card = tmp_path / "t" / "manifest.json", tmp_path / "t" / "version.json"
        assert "parameters" not in json.loads(card.read_text())["plan"]
        document = json.loads(manifest.read_text())
        select = next(step for step in document["transform"]["program"]["steps"] if step["step"] == "select")
        select["expressions"][0]["sql"] = "1) FROM (SELECT 2); CREATE TABLE t AS (SELECT 3"
        manifest.write_text(json.dumps(document))
        sha256 = hashlib.sha256(manifest.read_bytes()).hexdigest()
        card.write_text(json.dumps(json.loads(card.read_text()) | {"manifest_sha256": sha256}))
        with pytest.raises(sqlml.Error, match="TRANSFORM cannot be used"):
            connection.execute(f"IMPORT MODEL bad FROM '{tmp_path}/t'")
        assert "bad" not in {m["model"] for m in rows(connection, "SHOW MODELS")}


@pytest.mark.slow
def test_an_import_can_be_interrupted(shared: sqlml.Connection, tmp_path: Path) -> None:
    shared.execute(f"EXPORT MODEL buys TO '{tmp_path}/b'")
    seen: list[str] = []

    def stop(event: Any) -> None:
        seen.append(event["event"])
        if len(seen) == 2:
            shared.interrupt()

    shared.on_event = stop
    try:
        with pytest.raises(sqlml.Error, match="cancelled"):
            shared.execute(f"IMPORT MODEL never FROM '{tmp_path}/b'")
    finally:
        shared.on_event = None
    assert len(seen) == 2


def test_overwrite_replaces(shared: sqlml.Connection, tmp_path: Path) -> None:
    (tmp_path / "x.sql").write_text("before")
    shared.execute(f"EXPORT MODEL spends TO '{tmp_path}/x.sql' WITH (overwrite = true)")
    assert (tmp_path / "x.sql").read_text().startswith("-- spends@1 as SQL for duckdb: linear_regression")
