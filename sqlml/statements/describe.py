"""DESCRIBE MODEL: what a version is: what it predicts, from what, how it was made, how good it is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from sqlml_dialect import DescribeModel, DialectError, Train, parse

from sqlml.binder.models import resolve_model
from sqlml.catalog import Catalog, Version
from sqlml.catalog import tables as t
from sqlml.errors import count_of, listing
from sqlml.statements.result import Result, rows_result
from sqlml.types import Kind, Task, label_text

Line = tuple[str, str, str, str]
"""item, name, type, detail"""

COLUMNS = ("item", "name", "type", "detail")


def run_describe(node: DescribeModel, source: str, catalog: Catalog) -> Result:
    """A line for each thing that is known about a version."""
    version = resolve_model(catalog, node.model, source)
    row = catalog.describe(version.uid)
    lines = [
        ("model", version.name, row["task"], row["algorithm"]),
        *_words(version, row, catalog),
        *_targets(row),
        *(("input", i["name"], i["sql_type"], i["encoding"]) for i in row["inputs"]),
        *(("feature", c["name"], c["kind"], f"{c['sql']}; {c['state']}" if c["state"] else c["sql"]) for c in row["transform"]),
        *_roles(row),
        *_options(row),
        *_defaults(row),
        *_data(row),
        *_run(row, catalog),
        *_figures(version, catalog),
        *(("note", "", "", note) for note in row["notes"]),
    ]
    rows = [dict(zip(COLUMNS, line, strict=True)) for line in lines]
    return rows_result(rows, [(name, "string") for name in COLUMNS])


def _words(version: Version, row: Mapping[str, Any], catalog: Catalog) -> Iterator[Line]:
    """What people have said about it: aliases, comments, tags."""
    [model] = catalog.rows(sa.select(t.models).where(t.models.c.id == row["model_id"]))
    own = t.aliases.c.model_id == row["model_id"], t.aliases.c.version == version.version
    for alias in catalog.rows(sa.select(t.aliases.c.alias).where(*own).order_by("alias")):
        yield ("alias", alias["alias"], "", f"{version.model}@{alias['alias']} means this version")
    for whose, comment in (("model", model["comment"]), ("version", row["comment"])):
        if comment is not None:
            yield ("comment", "", whose, comment)
    tags = t.tags.c.model_id == row["model_id"], t.tags.c.version.in_([0, version.version])
    for tag in catalog.rows(sa.select(t.tags).where(*tags).order_by(t.tags.c.version, t.tags.c.tag)):
        yield ("tag", tag["tag"], "version" if tag["version"] else "model", tag["value"])
    if row["origin"]:
        yield ("origin", "", "", row["origin"])


def _targets(row: Mapping[str, Any]) -> Iterator[Line]:
    several = len(row["targets"]) > 1
    for target in row["targets"]:
        classes = listing((label_text(c) for c in target["classes"]), 50)
        detail = f"classes: {classes}" if classes else ""
        yield ("target", target["name"], target["sql_type"], ", ".join(filter(None, [target["task"] if several else "", detail])))


def _roles(row: Mapping[str, Any]) -> Iterator[Line]:
    """Columns of the query that are no features, and why."""
    plan = row["plan"] or {}
    for name in row["key_columns"]:
        yield ("key", name, "", "not a feature: it names the row")
    if plan.get("weight"):
        yield ("weight", plan["weight"], "", "not a feature: what each row counts in training and in the figures")
    for name in plan.get("excluded", ()):
        yield ("excluded", name, "", "not a feature: EXCLUDE")
    column = (plan.get("split") or {}).get("column")
    if column:
        yield ("split column", column, "", "not a feature: it says which rows are held out")


def _options(row: Mapping[str, Any]) -> Iterator[Line]:
    """Every option with its value, and where that comes from."""
    plan = row["plan"]
    given = {name.lower() for name in (plan or {}).get("options", {})}
    tuned = {name.lower() for name in ((plan or {}).get("tune") or {}).get("space", {})}
    for name, value in sorted(row["options"].items()):
        if value is None:
            continue
        whence = "tuned" if name.lower() in tuned else "given" if name.lower() in given else "default"
        whence = whence if plan else ""
        if name == "seed" and whence == "given" and " seed" not in f" {row['statement'].lower()}":
            whence = "default"
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping | list) else label_text(value)
        yield ("option", name, whence, text)
    if plan and plan.get("tune"):
        tune = plan["tune"]
        aim = f"{'maximize' if tune['maximize'] else 'minimize'} {tune['metric']}"
        yield ("tune", tune["method"], "", f"{count_of(tune['trials'], 'trial')}, {aim}: {listing(tune['space'])}")
    if plan and plan.get("start"):
        yield ("warm start", plan["start"]["name"], "", "training went on from this version")


def _defaults(row: Mapping[str, Any]) -> Iterator[Line]:
    """What was not said in the statement and moves the results all the same."""
    node = parse_train(row["statement"])
    if node is None:
        return
    if node.algorithm is None and node.target:
        why = "text, boolean, or at most two values" if row["task"] == Task.CLASSIFICATION else "numbers"
        yield ("default", "USING", "", f"{row['algorithm']}: the target is {why}")
    if node.split is None and node.validate is None and row["heldout_rows"]:
        each = ", the same part of each class" if row["task"] == Task.CLASSIFICATION and len(row["targets"]) == 1 else ""
        yield ("default", "SPLIT", "", f"{row['split']} with seed {row['seed']}{each}: metrics are of the rows held out")
    if row["heldout_rows"] and not row["options"].get("refit"):
        yield ("default", "refit", "", "false: the rows held out were not learnt from")
    if any(i["kind"] == Kind.TEXT for i in row["inputs"]) and not row["transform"]:
        yield ("default", "text columns", "", "categories; one not seen in training counts as missing")


def parse_train(statement: str) -> Train | None:
    """The statement that made a version; None where it was none of ours, or can no longer be read."""
    try:
        parsed = parse(statement)
    except DialectError:
        return None
    node = parsed[0].node if len(parsed) == 1 else None
    return node if isinstance(node, Train) else None


def _data(row: Mapping[str, Any]) -> Iterator[Line]:
    yield ("split", row["split"], "", f"seed {row['seed']}")
    sample = (row["plan"] or {}).get("sample_rows")
    if sample:
        yield ("rows", "sample", "", f"{sample:,} rows of the query, by seed {row['seed']}")
    yield ("rows", "trained on", "", f"{row['rows']:,}")
    yield ("rows", "held out", "", f"{row['heldout_rows']:,}")
    yield ("data", "fingerprint", "", row["fingerprint"])
    yield ("data", "query", "", row["query"])


def _run(row: Mapping[str, Any], catalog: Catalog) -> Iterator[Line]:
    [(trials,)] = [tuple(r.values()) for r in catalog.rows(_count_trials.where(t.trials.c.version_id == row["id"]))]
    if trials:
        yield ("run", "trials", "", f"{trials}, in sqlml.trials")
    yield ("run", "job", "", str(row["job_id"]))
    yield ("run", "created at", "", f"{row['created_at']:%Y-%m-%d %H:%M:%S} UTC by {row['owner']} on {row['host']}")
    yield ("run", "duration", "", f"{row['duration']:.1f} s")
    yield ("run", "peak memory", "", f"{row['peak_memory'] / 2**20:,.0f} MiB")
    yield ("run", "libraries", "", ", ".join(f"{name} {v}" for name, v in sorted(row["libraries"].items())))
    yield ("bundle", "SHA-256", "", row["bundle_sha256"])


_count_trials = sa.select(sa.func.count()).select_from(t.trials)


def _figures(version: Version, catalog: Catalog) -> Iterator[Line]:
    for split in ("heldout", "train"):
        for name, value in catalog.metrics(version.uid, split).items():
            yield ("metric", name, split, "undefined" if value is None else f"{value:.6g}")
