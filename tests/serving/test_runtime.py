"""ONNX Runtime for few rows, the library for many: which computes, that both agree, and that it is measured once."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlml_runners.serving.control import LocalServer
from sqlml_runners.serving.runtime import HeadRuntime, crossover
from sqlml_runners.serving.served import Served, load_served

import sqlml
from sqlml.bundles.manifest import MANIFEST, file_sha256
from sqlml.bundles.runtimes import Crossovers, read_crossovers, runtimes_path, write_crossovers
from sqlml.catalog import Arm, Catalog
from sqlml.home import home_of

TRAIN = """TRAIN MODEL buys USING xgboost_classifier TARGET y WITH (n_estimators = 60, max_depth = 6) ON inline AS
    SELECT sin(i) AS a, cos(3 * i) AS b, i % 17 AS c, CASE WHEN sin(i) + cos(3 * i) > 0.3 THEN 'yes' ELSE 'no' END AS y
    FROM range(600) t(i)"""

SUMS = "TRAIN MODEL sums USING xgboost_regressor TARGET a ON inline AS SELECT i AS x, 2 * i AS a FROM range(200) t(i)"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    database = tmp_path_factory.mktemp("runtime") / "a.duckdb"
    with sqlml.connect(database) as connection:
        connection.execute(TRAIN)
        connection.execute(SUMS)
    return database


@pytest.fixture
def database(trained: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of one's own, in which nothing is measured yet."""
    folder = tmp_path / "copy"
    shutil.copytree(trained.parent, folder)
    yield folder / trained.name
    LocalServer(home_of(folder / trained.name)).stop()


def arm_of(database: Path, model: str = "buys") -> Arm:
    catalog = Catalog.open(home_of(database))
    version = catalog.resolve(model, 1)
    catalog.close()
    return Arm(model, 1, version.uid, version.bundle, version.sha256, str(version.task))


def load(database: Path, model: str = "buys") -> Served:
    return load_served("e", arm_of(database, model))


def notes(database: Path) -> Path:
    return runtimes_path(home_of(database), arm_of(database).sha256)


def test_few_rows_go_to_onnx_runtime_and_many_to_the_library_and_both_agree(database: Path) -> None:
    write_crossovers(notes(database), [100.0])
    (runtime,) = load(database).runtimes
    assert runtime.quick is not None
    assert runtime.crossover == 100.0
    random = np.random.default_rng(0)
    x = random.standard_normal((300, 3)).astype(np.float32)
    assert np.abs(runtime.quick(x).reshape(300, -1) - runtime.native(x)).max() <= 1e-6
    taken: list[str] = []

    def quick(rows: Any) -> Any:
        taken.append("ONNX Runtime")
        return asked(rows)

    def native(rows: Any) -> Any:
        taken.append("the library")
        return runtime.native(rows)

    asked = runtime.quick
    counted = HeadRuntime(native, quick, 100.0)
    for n in (1, 99, 100, 300):
        assert counted.raw(x[:n]).reshape(n, -1) == pytest.approx(runtime.native(x[:n]).reshape(n, -1), abs=1e-6)
    assert taken == ["ONNX Runtime", "ONNX Runtime", "the library", "the library"]
    assert len(counted.raw(x[:0])) == 0


def test_what_the_first_worker_measured_is_kept_and_taken_over(database: Path) -> None:
    served = load(database)
    kept = read_crossovers(notes(database), 1)
    assert kept is not None
    assert kept.rows == (served.runtimes[0].crossover,)
    write_crossovers(notes(database), [12345.0])  # nobody would measure that
    assert load(database).runtimes[0].crossover == 12345.0
    write_crossovers(notes(database), [math.inf])
    assert math.isinf(load(database).runtimes[0].crossover)
    write_crossovers(notes(database), [0.0])
    assert load(database).runtimes[0].quick is None


def test_another_machine_s_figures_do_not_count_here(database: Path) -> None:
    load(database)
    document = json.loads(notes(database).read_text())
    document["library_from"], document["measured_on"]["host"] = [12345.0], "elsewhere"
    notes(database).write_text(json.dumps(document))
    assert read_crossovers(notes(database), here=False) == Crossovers((12345.0,))
    assert load(database).runtimes[0].crossover != 12345.0
    for text in ("", "{", '{"library_from": 7, "measured_on": {}}', '{"library_from": [1, 2], "measured_on": {}}'):
        notes(database).write_text(text)
        load(database)
        assert read_crossovers(notes(database), 1) is not None  # and written anew


def test_onnx_that_does_not_give_what_the_library_gives_is_not_used(database: Path) -> None:
    arm = arm_of(database)
    graph = arm.bundle / "model.onnx"
    with sqlml.connect(database) as connection:
        connection.execute(TRAIN.replace("> 0.3", "> 0.1"))
        catalog = Catalog.open(home_of(database))
        other = catalog.resolve("buys", 2).bundle / "model.onnx"
        catalog.close()
    graph.chmod(0o600)
    graph.write_bytes(other.read_bytes())
    manifest = json.loads((arm.bundle / MANIFEST).read_text())
    manifest["files"]["model.onnx"] = file_sha256(graph)
    (arm.bundle / MANIFEST).chmod(0o600)
    (arm.bundle / MANIFEST).write_text(json.dumps(manifest))
    served = load_served("e", replace(arm, sha256=file_sha256(arm.bundle / MANIFEST)))
    assert served.runtimes[0].quick is None


def test_sums_of_trees_are_the_library_s(database: Path) -> None:
    (runtime,) = load(database, "sums").runtimes
    assert runtime == HeadRuntime(runtime.native)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([(1, 19), (4, 10), (20, 12)], pytest.approx(16 + 112 * 6 / 14)),  # between 16 and 128 rows
        ([(9, 1), (9, 1), (9, 1)], 0.0),
        ([(1, 9), (9, 18), (99, 198)], 0.0),  # hardly slower for one row: one way for all
        ([(1, 19), (1, 19), (1, 19)], math.inf),
        ([(1, 30), (4, 30), (16, 32)], pytest.approx(128 + 16 * 112 / 10)),  # beyond the last
    ],
)
def test_where_one_overtakes_the_other(times: list[tuple[float, float]], expected: float) -> None:
    microseconds = [(first * 1e-6, second * 1e-6) for first, second in times]
    assert crossover((1, 16, 128), microseconds) == expected


@pytest.mark.slow
def test_deploy_keeps_it_and_show_endpoints_tells(database: Path) -> None:
    with sqlml.connect(database) as connection:
        connection.execute("DEPLOY MODEL buys WITH (replicas = 2)")
        ((runtime,),) = connection.execute("SELECT runtime FROM sqlml.endpoints").fetchall()
        path = notes(database)
        kept = read_crossovers(path, 1)
        assert kept is not None
        assert runtime == kept.text()
        assert not list(path.parent.glob("*.lock"))
        connection.execute("UNDEPLOY ENDPOINT buys")
        connection.execute("DROP MODEL buys")
        assert not path.exists()
