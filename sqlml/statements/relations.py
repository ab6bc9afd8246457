"""The relations of the schema ``sqlml``: what each is called, its columns with their SQL types, and where its rows come from.

``SHOW x`` is ``SELECT * FROM sqlml.x``.  Rows are plain dictionaries; times are in UTC.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import sqlalchemy as sa

from sqlml.algorithms.options import all_options, expectation
from sqlml.catalog import tables as t
from sqlml.catalog.store import Catalog
from sqlml.home import endpoint_url
from sqlml.registry import get, get_algorithm, names

Rows: TypeAlias = list[dict[str, Any]]
States: TypeAlias = Callable[[], tuple[str | None, Mapping[str, tuple[str, str | None]]]]
"""The endpoint server's base URL (None: not running) and the state of each endpoint."""


@dataclass(frozen=True)
class Relation:
    """``columns``: (name, SQL type) in order; ``rows``: its rows now."""

    name: str
    columns: tuple[tuple[str, str], ...]
    rows: Callable[[], Rows]


def relations(catalog: Catalog, states: States) -> tuple[Relation, ...]:
    """Every relation of a catalog."""

    def relation(name: str, columns: str, rows: Callable[[], Rows]) -> Relation:
        pairs = tuple((c.split(" ", 1)[0], c.split(" ", 1)[1]) for c in columns.split(", "))
        return Relation(name, pairs, lambda: [{key: row.get(key) for key, _ in pairs} for row in rows()])

    return (
        relation(
            "models",
            "model VARCHAR, versions BIGINT, newest BIGINT, champion BIGINT, task VARCHAR, target VARCHAR, comment VARCHAR, "
            "owner VARCHAR, created_at TIMESTAMP",
            lambda: _models(catalog),
        ),
        relation(
            "versions",
            "model VARCHAR, version BIGINT, aliases VARCHAR[], algorithm VARCHAR, task VARCHAR, target VARCHAR, rows BIGINT, "
            "heldout_rows BIGINT, split VARCHAR, seed BIGINT, options VARCHAR, statement VARCHAR, parameters VARCHAR, "
            "query VARCHAR, fingerprint VARCHAR, duration DOUBLE, peak_memory BIGINT, libraries VARCHAR, host VARCHAR, "
            "job BIGINT, bundle VARCHAR, bundle_sha256 VARCHAR, owner VARCHAR, created_at TIMESTAMP",
            lambda: _versions(catalog),
        ),
        relation(
            "inputs",
            "model VARCHAR, version BIGINT, position BIGINT, name VARCHAR, type VARCHAR, kind VARCHAR, encoding VARCHAR",
            lambda: _of_versions(catalog, t.inputs, t.inputs.c.position, {"sql_type": "type"}),
        ),
        relation(
            "metrics",
            "model VARCHAR, version BIGINT, split VARCHAR, metric VARCHAR, value DOUBLE",
            lambda: _of_versions(catalog, t.metrics, sa.desc(t.metrics.c.split), {}, t.metrics.c.position),
        ),
        relation(
            "curves",
            "model VARCHAR, version BIGINT, step BIGINT, split VARCHAR, metric VARCHAR, value DOUBLE",
            lambda: _of_versions(catalog, t.curves, t.curves.c.step, {}, t.curves.c.split),
        ),
        relation(
            "runs",
            "job BIGINT, model VARCHAR, version BIGINT, state VARCHAR, algorithm VARCHAR, rows BIGINT, duration DOUBLE, "
            "error VARCHAR, owner VARCHAR, created_at TIMESTAMP, finished_at TIMESTAMP",
            lambda: _runs(catalog),
        ),
        relation(
            "jobs",
            "job BIGINT, kind VARCHAR, model VARCHAR, version BIGINT, state VARCHAR, runner VARCHAR, error VARCHAR, "
            "statement VARCHAR, host VARCHAR, owner VARCHAR, created_at TIMESTAMP, finished_at TIMESTAMP",
            lambda: _jobs(catalog),
        ),
        relation("logs", "job BIGINT, line BIGINT, text VARCHAR", lambda: _logs(catalog)),
        relation(
            "endpoints",
            "endpoint VARCHAR, version VARCHAR, url VARCHAR, state VARCHAR, error VARCHAR, owner VARCHAR, created_at TIMESTAMP",
            lambda: _endpoints(catalog, states),
        ),
        relation(
            "algorithms", "algorithm VARCHAR, task VARCHAR, library VARCHAR, description VARCHAR", _algorithms
        ),
        relation(
            "options",
            "algorithm VARCHAR, option VARCHAR, type VARCHAR, default VARCHAR, values VARCHAR, description VARCHAR",
            _options,
        ),
        relation("runners", "runner VARCHAR, type VARCHAR, cores BIGINT, memory BIGINT, gpus VARCHAR[]", _runners),
    )  # fmt: skip


def _models(catalog: Catalog) -> Rows:
    champion = (
        sa.select(t.aliases.c.version)
        .where(t.aliases.c.model_id == t.models.c.id, t.aliases.c.alias == "champion")
        .scalar_subquery()
    )
    newest = sa.func.max(t.versions.c.version)
    query = (
        sa.select(
            t.models.c.name.label("model"), sa.func.count().label("versions"), newest.label("newest"),
            champion.label("champion"), sa.func.max(t.versions.c.task).label("task"),
            sa.func.max(t.versions.c.target).label("target"), t.models.c.comment, t.models.c.owner, t.models.c.created_at,
        )
        .join(t.versions, t.versions.c.model_id == t.models.c.id)
        .group_by(t.models.c.id)
        .order_by(t.models.c.key)
    )  # fmt: skip
    return catalog.rows(query)


def _versions(catalog: Catalog) -> Rows:
    query = (
        sa.select(t.versions, t.models.c.name.label("model"))
        .join(t.models, t.models.c.id == t.versions.c.model_id)
        .order_by(t.models.c.key, t.versions.c.version)
    )
    aliases: dict[tuple[int, int], list[str]] = {}
    for row in catalog.rows(sa.select(t.aliases).order_by("alias")):
        aliases.setdefault((row["model_id"], row["version"]), []).append(row["alias"])
    rows = catalog.rows(query)
    for row in rows:
        row["aliases"] = aliases.get((row["model_id"], row["version"]), [])
        row["job"] = row["job_id"]
        row["bundle"] = str(catalog.home.bundles / row["bundle_sha256"])
        for key in ("options", "parameters", "libraries"):
            row[key] = json.dumps(row[key], ensure_ascii=False)
    return rows


def _of_versions(catalog: Catalog, table: sa.Table, order: Any, renamed: Mapping[str, str], *more: Any) -> Rows:
    query = (
        sa.select(table, t.models.c.name.label("model"), t.versions.c.version)
        .join(t.versions, t.versions.c.id == table.c.version_id)
        .join(t.models, t.models.c.id == t.versions.c.model_id)
        .order_by(t.models.c.key, t.versions.c.version, order, *more)
    )
    # a column called "name" in both tables: the inner one is the label of its own table
    return [{renamed.get(key, key): value for key, value in row.items()} for row in catalog.rows(query)]


def _runs(catalog: Catalog) -> Rows:
    version = sa.and_(t.versions.c.job_id == t.jobs.c.id)
    query = (
        sa.select(
            t.jobs.c.id.label("job"), t.jobs.c.model, t.jobs.c.version, t.jobs.c.state, t.versions.c.algorithm,
            t.versions.c.rows, t.versions.c.duration, t.jobs.c.error, t.jobs.c.owner, t.jobs.c.created_at, t.jobs.c.finished_at,
        )
        .join(t.versions, version, isouter=True)
        .where(t.jobs.c.kind == "train")
        .order_by(t.jobs.c.id)
    )  # fmt: skip
    return catalog.rows(query)


def _jobs(catalog: Catalog) -> Rows:
    return [row | {"job": row["id"]} for row in catalog.rows(sa.select(t.jobs).order_by(t.jobs.c.id))]


def _logs(catalog: Catalog) -> Rows:
    rows: Rows = []
    for job in catalog.rows(sa.select(t.jobs.c.id).order_by(t.jobs.c.id)):
        path = catalog.home.jobs / str(job["id"]) / "job.log"
        if path.is_file():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            rows += [{"job": job["id"], "line": number, "text": text} for number, text in enumerate(lines, 1)]
    return rows


def _endpoints(catalog: Catalog, states: States) -> Rows:
    desired = catalog.endpoints()
    base, known = states() if desired else (None, {})
    rows: Rows = []
    for endpoint in desired:
        state, error = known.get(endpoint.name.lower(), ("loading", None)) if base else ("stopped", None)
        rows.append(
            {
                "endpoint": endpoint.name,
                "version": f"{endpoint.model}@{endpoint.version}",
                "url": endpoint_url(base, endpoint.name) if base else None,
                "state": state,
                "error": error,
                "owner": endpoint.owner,
                "created_at": endpoint.created_at,
            }
        )
    return rows


def _algorithms() -> Rows:
    found = [get_algorithm(name) for name in names("algorithm")]
    return [{"algorithm": a.name, "task": a.task.value, "library": ", ".join(a.libraries), "description": a.doc} for a in found]


def _options() -> Rows:
    return [
        {
            "algorithm": name,
            "option": option.name,
            "type": option.type,
            "default": None if option.default is None else str(option.default),
            "values": expectation(option),
            "description": option.doc,
        }
        for name in names("algorithm")
        for option in all_options(get_algorithm(name))
    ]


def _runners() -> Rows:
    rows: Rows = []
    for name in names("runner"):
        runner = get("runner", name)()
        have = runner.resources()
        rows.append(
            {"runner": runner.name, "type": runner.type, "cores": have.cores, "memory": have.memory, "gpus": list(have.gpus)}
        )
    return rows
