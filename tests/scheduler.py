"""Which tests of a parallel run go to the same process: those of files that share something dear."""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadScopeScheduling

TOGETHER = {
    "tests/engines/test_spark.py": "spark",
    "tests/parity/test_everywhere.py": "spark",
    "tests/runners/test_spark.py": "spark",
    "tests/runners/test_spark_session.py": "spark",
    "tests/session/test_spark_runner.py": "spark",
    "tests/udfs/test_spark.py": "spark",
    "tests/dbapi/test_dbapi.py": "dbapi",
    "tests/dbapi/test_pep249.py": "dbapi",
    "tests/evaluation/test_parity.py": "studied",
    "tests/evaluation/test_relations.py": "relations",
    "tests/serving/test_http.py": "endpoint",
    "tests/serving/test_triton_client.py": "triton",
    "tests/wire/test_clients.py": "wire",
    "tests/wire/test_guests.py": "wire over http",
    "tests/wire/test_http.py": "wire over http",
    "tests/wire/test_pgjdbc.py": "wire",
    "tests/wire/test_psql.py": "wire",
    "tests/wire/test_psycopg.py": "wire",
    "tests/wire/test_server.py": "wire server",
}
"""File → what its tests share: the one Spark session, models of large tables, a server of endpoints."""


class SharedScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Every test by itself, wherever there is room, but for those that share.

    (xdist's own ``xdist_group`` does nothing under pytest 9.2, which has no ``_nodeid`` to write the group's name to.)
    """

    def _split_scope(self, nodeid: str) -> str:
        return TOGETHER.get(nodeid.partition("::")[0], nodeid)


def make_scheduler(config: Any, log: Any) -> SharedScheduling | None:
    """The scheduler of ``--dist loadgroup``; xdist's own for anything else."""
    return SharedScheduling(config, log) if config.getvalue("dist") == "loadgroup" else None
