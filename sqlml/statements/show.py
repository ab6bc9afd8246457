"""SHOW and DESCRIBE MODEL: questions about what there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlml_dialect import DescribeModel, Show, ShowCreateModel, ShowLogs, quote_identifier, quote_string

from sqlml.binder.models import resolve_model
from sqlml.catalog import Catalog
from sqlml.contracts import Engine
from sqlml.errors import BindError, did_you_mean
from sqlml.statements.result import Result, rows_result, stream_result
from sqlml.types import label_text


def run_show(node: Show, source: str, engine: Engine, catalog: Catalog, schema: str) -> Result:
    """``SHOW x`` is ``SELECT * FROM sqlml.x``; LIKE filters by the first column, whatever the case."""
    relation = f"{quote_identifier(schema)}.main.{quote_identifier(node.subject)}"
    conditions = []
    if node.model is not None:
        version = resolve_model(catalog, node.model, source)
        conditions.append(f"model = {quote_string(version.model)}")
    if node.like is not None:
        conditions.append(f"{FIRST_COLUMN[node.subject]} ILIKE {quote_string(node.like)}")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return stream_result(engine.run(f"SELECT * FROM {relation}{where}"))  # noqa: S608


FIRST_COLUMN = {
    "models": "model",
    "versions": "model",
    "runs": "model",
    "jobs": "model",
    "endpoints": "endpoint",
    "algorithms": "algorithm",
    "runners": "runner",
}


def misspelt_show(text: str) -> str | None:
    """``did you mean SHOW ALGORITHMS?`` for a SHOW that is not ours and that the database refused."""
    words = text.split()
    if len(words) < 2 or words[0].upper() != "SHOW":
        return None
    near = did_you_mean(words[1], [*(subject.upper() for subject in FIRST_COLUMN), "VERSIONS OF m", "LOGS FOR JOB n"])
    return near.replace("mean ", "mean SHOW ") if near else None


def run_show_logs(node: ShowLogs, source: str, catalog: Catalog) -> Result:
    """The lines of a job's log."""
    path = catalog.home.jobs / str(node.job) / "job.log"
    if not path.is_file():
        raise BindError(f"there is no job {node.job}", source=source, span=node.span, hint="SHOW JOBS lists all")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [{"line": number, "text": text} for number, text in enumerate(lines, 1)]
    return rows_result(rows, [("line", "int64"), ("text", "string")])


def run_show_create(node: ShowCreateModel, source: str, catalog: Catalog) -> Result:
    """The statement that made a version."""
    version = resolve_model(catalog, node.model, source)
    row = {"model": version.model, "version": version.version, "statement": version.statement}
    return rows_result([row], [("model", "string"), ("version", "int64"), ("statement", "string")])


def run_describe(node: DescribeModel, source: str, catalog: Catalog) -> Result:
    """What a version is: what it predicts, from what, how it was made, how good it is."""
    version = resolve_model(catalog, node.model, source)
    row = catalog.describe(version.uid)
    lines = [*_about(version.name, row), *_inputs(row), *_making(row)]
    for split in ("heldout", "train"):
        figures = catalog.metrics(version.uid, split)
        lines += [("metric", name, split, "undefined" if value is None else f"{value:.6g}") for name, value in figures.items()]
    lines += [("note", "", "", note) for note in row["notes"]]
    columns = [("item", "string"), ("name", "string"), ("type", "string"), ("detail", "string")]
    return rows_result([dict(zip(("item", "name", "type", "detail"), line, strict=True)) for line in lines], columns)


Line = tuple[str, str, str, str]


def _about(name: str, row: Mapping[str, Any]) -> list[Line]:
    lines: list[Line] = [("model", name, row["task"], row["algorithm"])]
    if row["target"]:
        classes = ", ".join(label_text(c) for c in row["classes"])
        lines.append(("target", row["target"], row["target_sql_type"] or "", f"classes: {classes}" if classes else ""))
    return lines


def _inputs(row: Mapping[str, Any]) -> list[Line]:
    return [("input", i["name"], i["sql_type"], i["encoding"]) for i in row["inputs"]]


def _making(row: Mapping[str, Any]) -> list[Line]:
    lines: list[Line] = [("option", name, "", str(value)) for name, value in sorted(row["options"].items()) if value is not None]
    return [
        *lines,
        ("split", row["split"], "", f"seed {row['seed']}"),
        ("rows", "trained on", "", f"{row['rows']:,}"),
        ("rows", "held out", "", f"{row['heldout_rows']:,}"),
        ("data", "fingerprint", "", row["fingerprint"]),
        ("data", "query", "", row["query"]),
        ("run", "job", "", str(row["job_id"])),
        ("run", "created at", "", f"{row['created_at']:%Y-%m-%d %H:%M:%S} UTC by {row['owner']} on {row['host']}"),
        ("run", "duration", "", f"{row['duration']:.1f} s"),
        ("run", "peak memory", "", f"{row['peak_memory'] / 2**20:,.0f} MiB"),
        ("run", "libraries", "", ", ".join(f"{name} {v}" for name, v in sorted(row["libraries"].items()))),
        ("bundle", "SHA-256", "", row["bundle_sha256"]),
    ]
