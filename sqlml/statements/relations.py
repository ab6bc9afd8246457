"""The relations of the schema ``sqlml``: what each is called, its columns with their SQL types, and where its rows come from.

``SHOW x`` is ``SELECT * FROM sqlml.x``.  Rows are plain dictionaries; times are in UTC.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from sqlml.algorithms.options import all_options, expectation
from sqlml.catalog import Resource
from sqlml.catalog import tables as t
from sqlml.catalog.store import Catalog
from sqlml.job_folder import EVENTS, LOG
from sqlml.registry import get, get_algorithm, names
from sqlml.statements.endpoint_relations import Rows, States, change_rows, endpoint_rows, key_rows, option_rows, setting_rows
from sqlml.statements.log_relations import FileRelation, log_relations

TAGS = "MAP(VARCHAR,VARCHAR)"
LAST_EVENTS = 4096
"""Bytes at the end of a job's events in which its last step and stage are looked for."""


@dataclass(frozen=True)
class Relation:
    """``columns``: (name, SQL type) in order; ``rows``: its rows now."""

    name: str
    columns: tuple[tuple[str, str], ...]
    rows: Callable[[], Rows]


@dataclass(frozen=True)
class _Listed:
    """A relation of any catalog: ``columns`` as ``name TYPE, name TYPE``."""

    name: str
    columns: str
    rows: Callable[[Catalog, States], Rows]


_RELATIONS = (
    _Listed(
        "models",
        "model VARCHAR, versions BIGINT, newest BIGINT, champion BIGINT, task VARCHAR, target VARCHAR, comment VARCHAR, "
        f"tags {TAGS}, owner VARCHAR, created_at TIMESTAMP",
        lambda catalog, _: _models(catalog),
    ),
    _Listed(
        "versions",
        "model VARCHAR, version BIGINT, aliases VARCHAR[], algorithm VARCHAR, task VARCHAR, target VARCHAR, "
        "targets VARCHAR[], result VARCHAR, key_columns VARCHAR[], rows BIGINT, heldout_rows BIGINT, split VARCHAR, seed BIGINT, "
        "options VARCHAR, statement VARCHAR, parameters VARCHAR, query VARCHAR, fingerprint VARCHAR, duration DOUBLE, "
        "peak_memory BIGINT, peak_gpu_memory BIGINT, libraries VARCHAR, host VARCHAR, origin VARCHAR, comment VARCHAR, "
        f"tags {TAGS}, job BIGINT, "
        "bundle VARCHAR, bundle_sha256 VARCHAR, owner VARCHAR, created_at TIMESTAMP",
        lambda catalog, _: _versions(catalog),
    ),
    _Listed(
        "tags",
        "model VARCHAR, version BIGINT, tag VARCHAR, value VARCHAR, owner VARCHAR, created_at TIMESTAMP",
        lambda catalog, _: _tags(catalog),
    ),
    _Listed(
        "inputs",
        "model VARCHAR, version BIGINT, position BIGINT, name VARCHAR, type VARCHAR, kind VARCHAR, encoding VARCHAR",
        lambda catalog, _: _of_versions(catalog, t.inputs, t.inputs.c.position, {"sql_type": "type"}),
    ),
    _Listed(
        "features",
        "model VARCHAR, version BIGINT, position BIGINT, input VARCHAR, min DOUBLE, max DOUBLE, mean DOUBLE, "
        "median DOUBLE, stddev DOUBLE, category_count BIGINT, null_count BIGINT, dimension BIGINT",
        lambda catalog, _: _features(catalog),
    ),
    _Listed(
        "metrics",
        "model VARCHAR, version BIGINT, split VARCHAR, metric VARCHAR, value DOUBLE",
        lambda catalog, _: _of_versions(catalog, t.metrics, sa.desc(t.metrics.c.split), {}, t.metrics.c.position),
    ),
    _Listed(
        "curves",
        "model VARCHAR, version BIGINT, step BIGINT, split VARCHAR, metric VARCHAR, value DOUBLE",
        lambda catalog, _: _of_versions(catalog, t.curves, t.curves.c.step, {}, t.curves.c.split),
    ),
    _Listed(
        "trials",
        "model VARCHAR, version BIGINT, trial BIGINT, options VARCHAR, metrics VARCHAR, seconds DOUBLE, state VARCHAR, "
        "chosen BOOLEAN",
        lambda catalog, _: _trials(catalog),
    ),
    _Listed(
        "runs",
        "job BIGINT, model VARCHAR, version BIGINT, state VARCHAR, algorithm VARCHAR, rows BIGINT, duration DOUBLE, "
        "error VARCHAR, owner VARCHAR, created_at TIMESTAMP, finished_at TIMESTAMP",
        lambda catalog, _: _runs(catalog),
    ),
    _Listed(
        "jobs",
        "job BIGINT, kind VARCHAR, model VARCHAR, version BIGINT, state VARCHAR, progress VARCHAR, runner VARCHAR, "
        "error VARCHAR, statement VARCHAR, host VARCHAR, owner VARCHAR, created_at TIMESTAMP, finished_at TIMESTAMP",
        lambda catalog, _: _jobs(catalog),
    ),
    _Listed("logs", "job BIGINT, line BIGINT, text VARCHAR", lambda catalog, _: _logs(catalog)),
    _Listed(
        "endpoints",
        "endpoint VARCHAR, version VARCHAR, role VARCHAR, traffic BIGINT, url VARCHAR, state VARCHAR, error VARCHAR, "
        "requests BIGINT, errors BIGINT, latency_p50 DOUBLE, latency_p99 DOUBLE, queue BIGINT, replicas BIGINT, "
        "runtime VARCHAR, rollout VARCHAR, look_ups VARCHAR[], options VARCHAR, revision BIGINT, owner VARCHAR, "
        "created_at TIMESTAMP, changed_at TIMESTAMP",
        endpoint_rows,
    ),
    _Listed(
        "endpoint_options",
        "endpoint VARCHAR, option VARCHAR, value VARCHAR, own BOOLEAN, values VARCHAR, description VARCHAR",
        lambda catalog, _: option_rows(catalog),
    ),
    _Listed(
        "endpoint_changes",
        "endpoint VARCHAR, revision BIGINT, reason VARCHAR, versions VARCHAR, rollout VARCHAR, options VARCHAR, "
        "undone BOOLEAN, owner VARCHAR, created_at TIMESTAMP",
        lambda catalog, _: change_rows(catalog),
    ),
    _Listed(
        "server_settings",
        "option VARCHAR, value VARCHAR, default VARCHAR, values VARCHAR, description VARCHAR",
        lambda catalog, _: setting_rows(catalog),
    ),
    _Listed(
        "api_keys",
        "api_key VARCHAR, prefix VARCHAR, endpoints VARCHAR[], rate_limit DOUBLE, secrets BIGINT, expires_at TIMESTAMP, "
        "owner VARCHAR, created_at TIMESTAMP",
        lambda catalog, _: key_rows(catalog),
    ),
    _Listed("algorithms", "algorithm VARCHAR, task VARCHAR, library VARCHAR, description VARCHAR", lambda *_: _algorithms()),
    _Listed(
        "options",
        "algorithm VARCHAR, option VARCHAR, type VARCHAR, default VARCHAR, values VARCHAR, description VARCHAR",
        lambda *_: _options(),
    ),
    _Listed(
        "runners",
        "runner VARCHAR, type VARCHAR, cores BIGINT, memory BIGINT, gpus VARCHAR[], options VARCHAR, owner VARCHAR, "
        "created_at TIMESTAMP",
        lambda catalog, _: _runners(catalog),
    ),
    _Listed(
        "connections",
        "connection VARCHAR, type VARCHAR, url VARCHAR, options VARCHAR, owner VARCHAR, created_at TIMESTAMP",
        lambda catalog, _: _connections(catalog),
    ),
    _Listed(
        "functions",
        "function VARCHAR, database VARCHAR, model VARCHAR, version BIGINT, outputs VARCHAR[], owner VARCHAR, "
        "created_at TIMESTAMP",
        lambda catalog, _: _functions(catalog),
    ),
)


def relations(catalog: Catalog, states: States, write: Callable[[], None]) -> tuple[Relation | FileRelation, ...]:
    """Every relation of a catalog; ``write`` lets the endpoints' server write what it still holds of the prediction log."""
    return (*(_of_catalog(listed, catalog, states) for listed in _RELATIONS), *log_relations(catalog.home, write))


def _of_catalog(listed: _Listed, catalog: Catalog, states: States) -> Relation:
    columns = tuple((name, sql_type) for name, _, sql_type in (c.partition(" ") for c in listed.columns.split(", ")))
    return Relation(
        listed.name, columns, lambda: [{name: row.get(name) for name, _ in columns} for row in listed.rows(catalog, states)]
    )


def _models(catalog: Catalog) -> Rows:
    """Each model, with the task and target of the version that its bare name means."""
    champions = {row["model_id"]: row["version"] for row in catalog.rows(_champions)}
    tags = _tags_of(catalog)
    versions: dict[int, dict[int, dict[str, Any]]] = {}
    for row in catalog.rows(sa.select(t.versions.c.model_id, t.versions.c.version, t.versions.c.task, t.versions.c.targets)):
        versions.setdefault(row["model_id"], {})[row["version"]] = row
    rows: Rows = []
    for model in catalog.rows(sa.select(t.models).order_by(t.models.c.key)):
        own, champion = versions.get(model["id"], {}), champions.get(model["id"])
        if own:
            meant = own[champion or max(own)]
            names = ", ".join(target["name"] for target in meant["targets"]) or None
            rows.append(
                model
                | {"model": model["name"], "versions": len(own), "newest": max(own), "champion": champion}
                | {"task": meant["task"], "target": names, "tags": tags.get((model["id"], 0), {})}
            )
    return rows


_champions = sa.select(t.aliases.c.model_id, t.aliases.c.version).where(t.aliases.c.alias == "champion")


def _versions(catalog: Catalog) -> Rows:
    query = (
        sa.select(t.versions, t.models.c.name.label("model"))
        .join(t.models, t.models.c.id == t.versions.c.model_id)
        .order_by(t.models.c.key, t.versions.c.version)
    )
    aliases: dict[tuple[int, int], list[str]] = {}
    for row in catalog.rows(sa.select(t.aliases).order_by("alias")):
        aliases.setdefault((row["model_id"], row["version"]), []).append(row["alias"])
    tags = _tags_of(catalog)
    rows = catalog.rows(query)
    for row in rows:
        row["aliases"] = aliases.get((row["model_id"], row["version"]), [])
        row["tags"] = tags.get((row["model_id"], row["version"]), {})
        row["targets"] = [target["name"] for target in row["targets"]]
        row["job"] = row["job_id"]
        row["bundle"] = str(catalog.home.bundles / row["bundle_sha256"])
        for key in ("options", "parameters", "libraries"):
            row[key] = json.dumps(row[key], ensure_ascii=False)
    return rows


def _tags_of(catalog: Catalog) -> dict[tuple[int, int], dict[str, str]]:
    """(model's id, version or 0 for the model itself) → its tags."""
    tags: dict[tuple[int, int], dict[str, str]] = {}
    for row in catalog.rows(sa.select(t.tags).order_by(t.tags.c.tag)):
        tags.setdefault((row["model_id"], row["version"]), {})[row["tag"]] = row["value"]
    return tags


def _tags(catalog: Catalog) -> Rows:
    query = (
        sa.select(t.tags, t.models.c.name.label("model"))
        .join(t.models, t.models.c.id == t.tags.c.model_id)
        .order_by(t.models.c.key, t.tags.c.version, t.tags.c.tag)
    )
    return [row | {"version": row["version"] or None} for row in catalog.rows(query)]


def _features(catalog: Catalog) -> Rows:
    query = (
        sa.select(t.versions.c.feature_info, t.versions.c.version, t.models.c.name.label("model"))
        .join(t.models, t.models.c.id == t.versions.c.model_id)
        .order_by(t.models.c.key, t.versions.c.version)
    )
    return [
        {"model": row["model"], "version": row["version"], "position": position} | _plain(feature)
        for row in catalog.rows(query)
        for position, feature in enumerate(row["feature_info"], 1)
    ]


def _plain(feature: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of an input; of a date they are texts, which no column of numbers can hold."""
    texts = {name for name, value in feature.items() if isinstance(value, str) and name != "input"}
    return {name: None if name in texts else value for name, value in feature.items()}


def _trials(catalog: Catalog) -> Rows:
    rows = _of_versions(catalog, t.trials, t.trials.c.trial, {})
    return [row | {key: json.dumps(row[key], ensure_ascii=False) for key in ("options", "metrics")} for row in rows]


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
    rows = catalog.rows(sa.select(t.jobs).order_by(t.jobs.c.id))
    return [row | {"job": row["id"], "progress": _progress(catalog, row)} for row in rows]


def _progress(catalog: Catalog, job: Mapping[str, Any]) -> str | None:
    """``training 83/100``: the last that a running job has told."""
    path = catalog.home.jobs / str(job["id"]) / EVENTS
    if job["state"] != "running" or not path.is_file():
        return None
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LAST_EVENTS))
        lines = file.read().decode(errors="replace").splitlines()
    stage, step = None, None
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue  # cut off at either end
        if event["event"] == "stage":
            stage, step = event["name"], None
        elif event["event"] == "step":
            step = f"{event['step']}/{event['total']}"
    return " ".join(filter(None, [stage or "training", step])) if stage or step else None


def _logs(catalog: Catalog) -> Rows:
    rows: Rows = []
    for job in catalog.rows(sa.select(t.jobs.c.id).order_by(t.jobs.c.id)):
        path = catalog.home.jobs / str(job["id"]) / LOG
        if path.is_file():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            rows += [{"job": job["id"], "line": number, "text": text} for number, text in enumerate(lines, 1)]
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


def _runners(catalog: Catalog) -> Rows:
    """Those built in, with what they have to give; those created, which are not opened to be asked."""
    rows: Rows = []
    for name in names("runner"):
        runner = get("runner", name)()
        have = runner.resources()
        rows.append(
            {"runner": runner.name, "type": runner.type, "cores": have.cores, "memory": have.memory, "gpus": list(have.gpus)}
        )
    return rows + [_created(runner) for runner in catalog.resources("runner")]


def _created(resource: Resource) -> dict[str, Any]:
    """A resource as a row; nothing in its options is a secret."""
    row = {resource.what: resource.name, "type": resource.type, "owner": resource.owner, "created_at": resource.created_at}
    return row | {"options": json.dumps(resource.options, ensure_ascii=False)}


def _connections(catalog: Catalog) -> Rows:
    rows: Rows = []
    for connection in catalog.resources("connection"):
        place = next((name for name in ("url", "connect", "master") if name in connection.options), "")
        others = {name: value for name, value in connection.options.items() if name != place}
        rows.append(_created(replace(connection, options=others)) | {"url": connection.options.get(place)})
    return rows


def _functions(catalog: Catalog) -> Rows:
    return [
        {
            "function": function.text,
            "database": function.connection,
            "model": function.model,
            "version": function.version,
            "outputs": list(function.outputs),
            "owner": function.owner,
            "created_at": function.created_at,
        }
        for function in catalog.functions()
    ]
