"""A catalog that has been lost is not begun anew beside the models that it knew."""

from __future__ import annotations

from pathlib import Path

import pytest

import sqlml
from sqlml.home import Home, home_of


def test_a_lost_catalog_is_not_begun_anew(tmp_path: Path) -> None:
    database = tmp_path / "bank.duckdb"
    with sqlml.connect(database) as connection:
        connection.execute(
            "TRAIN MODEL m USING linear_regression TARGET y SPLIT NONE ON inline AS SELECT range AS x, 2 * x AS y FROM range(20)"
        )
    home = Home(home_of(database))
    kept = {path: path.read_bytes() for path in home.folder.glob("catalog.db*")}
    for path in kept:
        path.unlink()
    with pytest.raises(sqlml.OperationalError, match=r"catalog\.db is not there, and .*bundles has models") as raised:
        sqlml.connect(database)
    assert "put the file back" in str(raised.value)
    assert not home.catalog.exists()
    for path, content in kept.items():
        path.write_bytes(content)
    with sqlml.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM sqlml.models").fetchall() == [(1,)]
