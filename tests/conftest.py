"""Databases with models in them, trained once for the whole run and copied for each test that wants one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sqlml
from tests.scheduler import SharedScheduling, make_scheduler
from tests.servers import new_postgres

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait for each other by spinning take the others' processor

PEOPLE = """
    CREATE TABLE people AS SELECT i AS id, (i * 7919) % 97 AS age, [NULL, 'clerk', 'cook', 'it''s "ß"'][1 + i % 4] AS job,
    (i * 31 % 100) / 10.0 AS balance, CASE WHEN (i * 7919) % 97 + i * 13 % 20 > 55 THEN 'yes' ELSE 'no' END AS bought,
    ((i * 7919) % 97 * 2 + i % 5)::DOUBLE AS spent FROM range(600) AS numbers(i)
"""
"""600 people: ``bought`` (no, yes) and ``spent`` follow from ``age``; a quarter has no job."""

MODELS = (
    "TRAIN MODEL buys USING xgboost_classifier TARGET bought EXCLUDE (id, spent) WITH (n_estimators = 8) ON inline "
    "AS FROM people",
    "TRAIN MODEL spends USING linear_regression TARGET spent EXCLUDE (id, bought) ON inline AS FROM people",
    "TRAIN MODEL groups USING kmeans WITH (n_clusters = 3) ON inline AS SELECT age, balance FROM people",
)


SLOW_FILES = frozenset(
    {
        "algorithms/test_algorithms.py",
        "algorithms/test_forests.py",
        "algorithms/test_isolation.py",
        "algorithms/test_mlp.py",
        "algorithms/test_neighbors.py",
        "algorithms/test_xgboost_following.py",
        "catalog/test_postgres.py",
        "dialect/test_formatter.py",
        "dialect/test_fuzz.py",
        "dialect/test_generator.py",
        "engines/postgres/test_engine.py",
        "engines/postgres/test_errors.py",
        "engines/postgres/test_losses.py",
        "engines/postgres/test_names.py",
        "engines/postgres/test_parameters.py",
        "engines/postgres/test_types.py",
        "engines/postgres/test_write.py",
        "engines/test_spark.py",
        "engines/test_sqlalchemy.py",
        "evaluation/test_parity.py",
        "evaluation/test_relations.py",
        "exports/test_foreign.py",
        "exports/test_sql.py",
        "features/test_transform.py",
        "generation/test_generator.py",
        "notebooks/test_quickstart.py",
        "reference/test_reference.py",
        "runners/test_kubernetes.py",
        "runners/test_runners.py",
        "runners/test_spark.py",
        "runners/test_spark_cluster.py",
        "runners/test_spark_session.py",
        "serving/test_accept.py",
        "serving/test_generate.py",
        "serving/test_http.py",
        "serving/test_lifecycle.py",
        "serving/test_raw_log.py",
        "serving/test_request_path.py",
        "serving/test_shadows.py",
        "serving/test_sorts.py",
        "serving/test_triton_client.py",
        "session/test_api_keys.py",
        "session/test_async.py",
        "session/test_concurrency.py",
        "session/test_crash.py",
        "session/test_database_functions.py",
        "session/test_deploy_query.py",
        "session/test_disk.py",
        "session/test_endpoint_feedback.py",
        "session/test_endpoints.py",
        "session/test_errors.py",
        "session/test_explain_plan.py",
        "session/test_export.py",
        "session/test_export_endpoint.py",
        "session/test_kept_queries.py",
        "session/test_places.py",
        "session/test_resources.py",
        "session/test_train.py",
        "session/test_train_clauses.py",
        "session/test_train_folds.py",
        "shell/test_command.py",
        "shell/test_repl.py",
        "shell/test_script.py",
        "shell/test_serve.py",
        "training/test_folds.py",
        "training/test_networks.py",
        "training/test_refinements.py",
        "training/test_splits.py",
        "training/test_training.py",
        "training/test_tune.py",
        "udfs/test_duckdb_arrow.py",
        "udfs/test_postgres.py",
        "udfs/test_postgres_install.py",
        "udfs/test_spark.py",
    }
)
"""Files that take four seconds or more as a whole: none of them belongs to the quick tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow."""
    here = Path(__file__).parent
    for item in items:
        path = item.path.relative_to(here).as_posix()
        if path in SLOW_FILES:
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SharedScheduling | None:
    """Tests that share something dear run in one process."""
    return make_scheduler(config, log)


@pytest.fixture(scope="session")
def people_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``people.duckdb`` and the models ``buys``, ``spends`` and ``groups``; for copying only."""
    folder = tmp_path_factory.mktemp("people")
    with sqlml.connect(folder / "people.duckdb") as connection:
        connection.execute(PEOPLE)
        for statement in MODELS:
            connection.execute(statement)
    return folder


@pytest.fixture
def database(people_folder: Path, tmp_path: Path) -> Path:
    """A copy of the database of one's own."""
    shutil.copytree(people_folder, tmp_path / "copy")
    return tmp_path / "copy" / "people.duckdb"


@pytest.fixture
def connection(database: Path) -> Iterator[sqlml.Connection]:
    """A connection to a copy of one's own."""
    opened = sqlml.connect(database)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def shared(people_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlml.Connection]:
    """One connection for every test that changes nothing."""
    folder = tmp_path_factory.mktemp("shared") / "copy"
    shutil.copytree(people_folder, folder)
    opened = sqlml.connect(folder / "people.duckdb")
    yield opened
    opened.close()


@pytest.fixture
def postgres() -> Iterator[str]:
    """The URL of a new, empty PostgreSQL database on a real server."""
    yield from new_postgres()
