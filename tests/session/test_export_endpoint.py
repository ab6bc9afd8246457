"""EXPORT ENDPOINT as a statement."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlml_runners.serving.control import LocalServer

import sqlml
from sqlml.catalog import Catalog, FrozenCatalog, Share
from sqlml.errors import BindError, BundleError, NotSupportedError, OperationalError, ProgrammingError
from sqlml.home import home_of
from tests.shipping.test_image import ask, running

IMAGE = "image = 'registry.example/team/buys:1'"


@pytest.fixture
def endpoint(connection: sqlml.Connection, database: Path) -> Iterator[Catalog]:
    """An endpoint ``api`` in the catalog, which nobody serves."""
    catalog = Catalog.open(home_of(database))
    catalog.put_endpoint("Api", [Share(catalog.resolve("buys").uid)], options={"replicas": 3, "sticky": "column:id"}, reason="t")
    yield catalog
    catalog.close()


def rows(connection: sqlml.Connection, text: str, values: Any = ()) -> list[dict[str, Any]]:
    cursor = connection.execute(text, values)
    names = [d[0] for d in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def test_a_folder_is_written(connection: sqlml.Connection, endpoint: Catalog, tmp_path: Path) -> None:
    place = tmp_path / "image"
    [row] = rows(connection, "EXPORT ENDPOINT api TO ?", [str(place)])
    files = [path for path in place.rglob("*") if path.is_file()]
    assert row == {
        "endpoint": "Api", "versions": "buys@1", "format": "docker", "path": str(place), "files": len(files),
        "bytes": sum(path.stat().st_size for path in files), "note": "image/README.md says how to run it",
    }  # fmt: skip
    [found] = FrozenCatalog(place / "frozen.json").endpoints()
    assert (found.name, found.main.name, found.options["replicas"]) == ("Api", "buys@1", 3)
    with pytest.raises(BindError, match="is there already"):
        connection.execute(f"EXPORT ENDPOINT api TO '{place}'")
    [row] = rows(connection, f"EXPORT ENDPOINT api TO '{place}' FORMAT kubernetes WITH (overwrite = true, {IMAGE})")
    assert sorted(path.name for path in place.iterdir()) == [
        "README.md", "deployment.yaml", "disruption.yaml", "image", "kustomization.yaml", "service.yaml",
    ]  # fmt: skip
    assert row["note"].startswith("the prediction log is off")


def test_the_plan(connection: sqlml.Connection, endpoint: Catalog, tmp_path: Path) -> None:
    statement = f"EXPORT ENDPOINT api TO '{tmp_path}/x' FORMAT kserve WITH ({IMAGE})"
    lines = [row["plan"] for row in rows(connection, f"EXPLAIN {statement}")]
    assert lines[0] == "EXPORT ENDPOINT Api: a folder, all of it or nothing"
    assert "├─ objects: InferenceService" in lines
    assert lines[-1] == "└─ buys@1: 100 % of the requests"
    assert not list(tmp_path.glob("x*"))


@pytest.mark.slow
def test_a_query_answers_elsewhere(connection: sqlml.Connection, database: Path, tmp_path: Path) -> None:
    """With two models and a table that it looks into, from the folder alone."""
    query = """SELECT (PREDICT_PROBA(buys, 'yes') + PREDICT(spends) / 1000) / 2 AS score, upper(PREDICT(buys)) AS guess
               FROM people WHERE id = $id"""
    server = LocalServer(home_of(database))
    try:
        connection.execute(f"DEPLOY QUERY q AS {query}")
        body = json.dumps({"rows": [{"id": 7}, {"id": 599}, {"id": -1}]}).encode()
        expected = ask(f"{server.url()}/models/q/predict", body)
        [row] = rows(connection, f"EXPORT ENDPOINT q TO '{tmp_path}/image'")
        assert "copied as they are now" in row["note"]
    finally:
        server.stop()
    shutil.rmtree(home_of(database))
    with running(tmp_path / "image", tmp_path / "state") as url:
        assert ask(f"{url}/models/q/predict", body)["predictions"] == expected["predictions"]


@pytest.mark.parametrize(
    ("text", "kind", "points_at", "words"),
    [
        ("EXPORT ENDPOINT apy TO 'x'", BindError, "apy", "did you mean Api?"),
        ("EXPORT ENDPOINT api TO 'x' FORMAT doker", BindError, "doker", "did you mean docker?"),
        ("EXPORT ENDPOINT api TO '/nowhere/at/all'", BindError, "'/nowhere/at/all'", "there is no folder /nowhere/at"),
        ("EXPORT ENDPOINT api TO 'x' FORMAT kubernetes", BindError, "api", "image is missing"),
        ("EXPORT ENDPOINT api TO 'x' FORMAT docker WITH (image = 'a')", BindError, "image", "it has: overwrite, base"),
        ("EXPORT ENDPOINT api TO 'x' WITH (base = 'a b')", BindError, "'a b'", "no image's name"),
        ("EXPLAIN EXPORT ENDPOINT api TO 'x' WITH (base = 'a b')", BindError, "'a b'", "no image's name"),
        (f"EXPORT ENDPOINT api TO 'x' FORMAT kserve WITH (cpu = 0, {IMAGE})", BindError, "0", "a number ≥ 0.01"),
    ],
)
def test_mistakes_point_at_their_place(
    connection: sqlml.Connection, endpoint: Catalog, text: str, kind: type[ProgrammingError], points_at: str, words: str
) -> None:
    with pytest.raises(kind) as caught:
        connection.execute(text)
    assert words in str(caught.value)
    assert caught.value.span is not None
    assert text[slice(*caught.value.span)] == points_at
    assert not Path("x").exists()


def test_all_or_nothing(connection: sqlml.Connection, endpoint: Catalog, tmp_path: Path) -> None:
    version = endpoint.resolve("buys")
    endpoint.put_endpoint("two", [Share(version.uid, weight=60), Share(endpoint.resolve("spends").uid, weight=40)],
                          options={"replicas": 2, "promote_after": 9}, reason="t")  # fmt: skip
    with pytest.raises(NotSupportedError, match="roll-out under way"):
        connection.execute(f"EXPORT ENDPOINT two TO '{tmp_path}/x'")
    next((version.bundle / "native").iterdir()).write_bytes(b"x")
    with pytest.raises(BundleError, match="damaged"):
        connection.execute(f"EXPORT ENDPOINT api TO '{tmp_path}/x'")
    (tmp_path / "file").touch()
    with pytest.raises((BindError, OperationalError), match="cannot write"):
        connection.execute(f"EXPORT ENDPOINT api TO '{tmp_path}/file/x'")
    assert [path.name for path in tmp_path.iterdir() if path.name != "copy"] == ["file"]
