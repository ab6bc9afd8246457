"""The catalog: the schema's migrations, deployment's safety, several processes at once."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import sqlml
from sqlml.catalog import Catalog, database, tables
from sqlml.errors import BindError


def test_migrations_lead_to_the_tables(tmp_path: Path) -> None:
    Catalog.open(tmp_path / "a.sqlml").close()
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'a.sqlml' / 'catalog.db'}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
    engine.dispose()
    scripts = ScriptDirectory(str(Path(database.__file__).with_name("migrations")))
    assert scripts.get_heads() == [database.HEAD]


def test_opening_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        catalogs = list(pool.map(lambda _: Catalog.open(tmp_path / "a.sqlml"), range(4)))
    assert [catalog.model_names() for catalog in catalogs] == [()] * 4
    for catalog in catalogs:
        catalog.close()


def test_wal(database: Path) -> None:
    file = sqlite3.connect(database.with_suffix(".sqlml") / "catalog.db")
    assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    file.close()


@pytest.fixture
def catalog(database: Path) -> Catalog:
    return Catalog.open(database.with_suffix(".sqlml"))


def test_references(catalog: Catalog) -> None:
    assert catalog.resolve("BUYS").name == "buys@1"
    with pytest.raises(BindError, match="has no alias best"):
        catalog.resolve("buys", alias="best")
    catalog.set_alias("buys", "Best", 1)
    assert catalog.resolve("buys", alias="BEST").version == 1
    catalog.close()


def test_drop_is_refused_while_deployed(catalog: Catalog) -> None:
    version = catalog.resolve("buys")
    revision = catalog.endpoints_revision()
    catalog.deploy("Front", version)
    assert catalog.endpoints_revision() > revision
    with pytest.raises(BindError, match="is deployed at the endpoint Front") as raised:
        catalog.drop("buys", None, cascade=False)
    assert raised.value.hint == "UNDEPLOY ENDPOINT Front first, or DROP MODEL buys CASCADE"
    assert version.bundle.is_dir()
    catalog.drop("buys", 1, cascade=True)
    assert catalog.endpoints() == []
    assert not version.bundle.exists()
    with pytest.raises(BindError, match="unknown model"):
        catalog.resolve("buys")
    with pytest.raises(BindError, match="unknown endpoint"):
        catalog.undeploy("front")
    catalog.close()


def test_jobs_in_other_hands_are_left_alone(database: Path) -> None:
    with sqlml.connect(database) as one, sqlml.connect(database) as two:
        job = one.session._catalog.start_job("train", "m", "TRAIN …", "inline")
        two.session._catalog.recover()
        assert two.execute(f"SELECT state FROM sqlml.jobs WHERE job = {job.id}").fetchone() == ("running",)
        one.session._catalog.end_job(job, "failed", "for no reason")
        assert two.execute(f"SELECT state, error FROM sqlml.runs WHERE job = {job.id}").fetchone() == ("failed", "for no reason")


def test_describe_of_every_task(shared: sqlml.Connection) -> None:
    for model, task in (("buys", "classification"), ("spends", "regression"), ("groups", "clustering")):
        rows = shared.execute(f"DESCRIBE MODEL {model}").fetchall()
        assert (rows[0][0], rows[0][1], rows[0][2]) == ("model", f"{model}@1", task)
        inputs = {name: detail for item, name, _, detail in rows if item == "input"}
        assert all(inputs.values())
        assert {"split", "rows", "data", "run", "bundle", "metric"} <= {row[0] for row in rows}
    assert ("input", "job", "VARCHAR", "3 categories; NULL as missing") in shared.execute("DESCRIBE MODEL buys").fetchall()


@pytest.mark.parametrize("subject", ["MODELS", "VERSIONS OF buys", "RUNS", "JOBS", "ENDPOINTS", "ALGORITHMS", "RUNNERS"])
def test_show_is_the_relation(shared: sqlml.Connection, subject: str) -> None:
    relation = subject.split()[0].lower()
    where = " WHERE model = 'buys'" if "OF" in subject else ""
    shown, selected = shared.execute(f"SHOW {subject}"), shared.execute(f"SELECT * FROM sqlml.{relation}{where}")
    assert shown.description == selected.description
    assert shown.fetchall() == selected.fetchall()


@pytest.mark.parametrize(
    ("statement", "first"),
    [
        ("SHOW MODELS LIKE 'B%'", ["buys"]),
        ("SHOW MODELS LIKE '_uys'", ["buys"]),
        ("SHOW MODELS LIKE 'x'", []),
        ("SHOW ALGORITHMS LIKE '%regression'", ["logistic_regression", "linear_regression"]),
        ("SHOW RUNNERS LIKE 'in%'", ["inline"]),
    ],
)
def test_show_like(shared: sqlml.Connection, statement: str, first: list[str]) -> None:
    assert [row[0] for row in shared.execute(statement).fetchall()] == first


def test_relations_join_with_tables_and_stay_live(connection: sqlml.Connection) -> None:
    connection.execute("CREATE VIEW mine AS SELECT model FROM sqlml.models JOIN sqlml.versions USING (model) WHERE rows > 100")
    assert connection.execute("SELECT count(*) FROM mine").fetchone() == (3,)
    connection.execute("DROP MODEL groups")
    assert connection.execute("SELECT count(*) FROM mine").fetchone() == (2,)
    for relation in ("inputs", "metrics", "curves", "logs", "options"):
        assert connection.execute(f"SELECT * FROM sqlml.{relation}").fetchall()
