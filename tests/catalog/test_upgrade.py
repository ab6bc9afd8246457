"""A home written before several targets, transforms and tags were kept: its catalog is brought up, its bundles still predict.

``old_home/format_1.tar.gz`` was written by the code of the first catalog and bundle format, with the answers that it gave.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

import sqlml

FIXTURE = Path(__file__).parent.parent / "fixtures" / "old_home" / "format_1.tar.gz"
QUERY = (
    "SELECT id, PREDICT(buys@1), round(PREDICT_PROBA(buys@1, 'yes'), 9), PREDICT_PROBA(buys@2, 'yes'), PREDICT(spend), "
    "PREDICT(groups) FROM t ORDER BY id LIMIT 40"
)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_an_old_home_predicts_as_it_did(old: Path) -> None:
    expected = json.loads((old / "expected.json").read_text(encoding="utf-8"))["rows"]
    with sqlml.connect(str(old / "shop.duckdb")) as connection:
        connection.execute(f"CREATE TABLE t AS FROM '{old / 't.csv'}'")
        found = connection.execute(QUERY).fetchall()
        for row, before in zip(found, expected, strict=True):  # linear functions sum in another order now: 16 digits
            assert [str(value) for value in row[:3]] == before[:3]
            assert [*row[3:]] == pytest.approx([float(value) for value in before[3:]], rel=1e-14)
        assert connection.execute("EVALUATE MODEL buys").fetchall()
        assert connection.execute("SELECT count(*) FROM sqlml.inputs WHERE model = 'buys'").fetchall() == [(4,)]
        assert connection.execute("SELECT count(*) > 10 FROM sqlml.metrics").fetchall() == [(True,)]
        columns = [d[0] for d in connection.execute("PREDICT MODEL buys@2 AS FROM t").description or ()]
        assert columns[-2:] == ["predicted_buys", "predicted_buys_probs"]
        assert connection.execute("SELECT champion FROM sqlml.models WHERE model = 'buys'").fetchall() == [(1,)]
        connection.execute("TRAIN MODEL buys TARGET buys EXCLUDE (id) WITH (n_estimators = 2) AS FROM t")
        assert connection.execute("SELECT max(version) FROM sqlml.versions WHERE model = 'buys'").fetchall() == [(3,)]
