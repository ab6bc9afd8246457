"""The catalog: the schema's migrations, deployment's safety, several processes at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import sqlml
from sqlml.catalog import Catalog, counters, database, tables
from sqlml.errors import BindError
from tests.sessions import session_of

_SCRIPTS = str(Path(database.__file__).with_name("migrations"))


def test_migrations_lead_to_the_tables(tmp_path: Path) -> None:
    """A catalog that older versions made, brought up to date, is the one that is made today."""
    today, migrated = (sa.create_engine(f"sqlite:///{tmp_path / name}") for name in ("today.db", "migrated.db"))
    database.open_database(str(today.url)).dispose()
    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    with migrated.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    database.open_database(str(migrated.url)).dispose()
    for engine in (today, migrated):
        with engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
    assert _shape(today) == _shape(migrated)
    assert ScriptDirectory(_SCRIPTS).get_heads() == [database.HEAD]
    today.dispose()
    migrated.dispose()


def _shape(engine: sa.Engine) -> dict[str, object]:
    """Everything that the database says of its tables, and the revision."""
    inspector = sa.inspect(engine)
    found: dict[str, object] = {}
    for name in inspector.get_table_names():
        columns = {c["name"]: (str(c["type"]), c["nullable"]) for c in inspector.get_columns(name)}
        keys = inspector.get_pk_constraint(name), inspector.get_foreign_keys(name)
        unique = sorted(str(u["column_names"]) for u in inspector.get_unique_constraints(name))
        found[name] = columns, keys, unique, sorted(map(str, inspector.get_indexes(name)))
    with engine.connect() as connection:
        found["revision"] = connection.execute(sa.text("SELECT version_num FROM alembic_version")).all()
    return found


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
        job = session_of(one)._catalog.start_job("train", "m", "TRAIN …", "inline")
        session_of(two)._catalog.recover()
        assert two.execute(f"SELECT state FROM sqlml.jobs WHERE job = {job.id}").fetchone() == ("running",)
        session_of(one)._catalog.end_job(job, "failed", "for no reason")
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


def test_a_drop_that_fails_keeps_the_files(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    version = catalog.resolve("buys")
    kept = [version.bundle / "manifest.json", catalog.home.jobs / str(version.job_id) / "heldout.arrow"]

    def full(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as broken:
        broken.setattr(counters, "count_up", full)
        with pytest.raises(OSError, match="no space"):
            catalog.drop("buys", None, cascade=False)
    assert all(path.exists() for path in kept)
    assert catalog.resolve("buys") == version
    catalog.drop("buys", None, cascade=False)
    assert not any(path.exists() for path in kept)
    catalog.close()


def test_a_bundle_that_is_published_again_meanwhile_stays(catalog: Catalog) -> None:
    version = catalog.resolve("buys")
    catalog._remove_files({version.sha256}, set())
    assert version.bundle.is_dir()
    catalog.close()


def test_a_job_in_other_hands(catalog: Catalog) -> None:
    job = catalog.start_job("train", "m", "TRAIN …", "inline")
    catalog.hand_over(job, 1, 2.5)
    row = catalog.job(job.id)
    assert row is not None
    assert (row["owner_pid"], row["owner_started"], catalog.job_state(job.id)) == (1, 2.5, "running")
    catalog.forget_job(job)
    assert (catalog.job(job.id), catalog.job_state(job.id)) == (None, None)
    catalog.close()


@pytest.mark.parametrize(
    ("url", "absolute"),
    [
        ("sqlite:///rel.db", "sqlite:///{here}/rel.db"),
        ("sqlite:///file:rel.db?uri=true", "sqlite:///file:{here}/rel.db?uri=true"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
        ("sqlite://", "sqlite://"),
    ],
)
def test_the_url_is_the_same_from_everywhere(url: str, absolute: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = database.absolute_url(url)
    assert database.parse_url(found) == database.parse_url(absolute.format(here=tmp_path))
    assert database.absolute_url(found) == found


def test_a_model_renamed_while_it_is_trained(database: Path) -> None:
    def rename(event: Mapping[str, object]) -> None:
        if event.get("name") == "training":
            other.execute("ALTER MODEL buys RENAME TO sold")

    with sqlml.connect(database) as other, sqlml.connect(database, on_event=rename) as one:
        trained = one.execute(
            "TRAIN MODEL buys TARGET bought EXCLUDE (id, spent) WITH (n_estimators = 2) ON inline AS FROM people"
        )
        assert (trained.fetchone() or ())[:2] == ("sold", 2)
        models = one.execute("SELECT model, version FROM sqlml.versions WHERE model IN ('buys', 'sold') ORDER BY ALL").fetchall()
        assert models == [("sold", 1), ("sold", 2)]
        assert one.execute("SELECT model FROM sqlml.jobs ORDER BY job DESC LIMIT 1").fetchone() == ("sold",)


def test_a_folder_whose_name_means_something_in_a_url(tmp_path: Path) -> None:
    place = tmp_path / "50%41? #ü.sqlml"
    Catalog.open(place).close()
    assert (place / "catalog.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [place.name]
