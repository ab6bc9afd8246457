"""SHOW: questions about what there is."""

from __future__ import annotations

from collections.abc import Collection

from sqlml_dialect import Show, ShowCreateModel, ShowLogs, quote_identifier, quote_string

from sqlml.binder.models import resolve_model
from sqlml.catalog import Catalog
from sqlml.contracts import Engine
from sqlml.errors import did_you_mean
from sqlml.statements.jobs import find_job
from sqlml.statements.result import Result, rows_result, stream_result


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


def misspelt_show(text: str, relations: Collection[str], schema: str) -> str | None:
    """``did you mean SHOW ALGORITHMS?`` for a SHOW that is not ours and that the database refused.

    A relation of ours that has no SHOW is read by SELECT.
    """
    words = text.split()
    if len(words) < 2 or words[0].upper() != "SHOW":
        return None
    if words[1].lower() in relations and words[1].lower() not in FIRST_COLUMN:
        return f"it is a relation: FROM {schema}.{words[1].lower()}"
    near = did_you_mean(words[1], [*(subject.upper() for subject in FIRST_COLUMN), "VERSIONS OF m", "LOGS FOR JOB n"])
    return near.replace("mean ", "mean SHOW ") if near else None


def run_show_logs(node: ShowLogs, source: str, catalog: Catalog) -> Result:
    """The lines of a job's log."""
    path = catalog.home.jobs / str(node.job) / "job.log"
    if not path.is_file():
        find_job(catalog, node.job, source, node.span)  # says where there is none
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    rows = [{"line": number, "text": text} for number, text in enumerate(lines, 1)]
    return rows_result(rows, [("line", "int64"), ("text", "string")])


def run_show_create(node: ShowCreateModel, source: str, catalog: Catalog) -> Result:
    """The statement that made a version."""
    version = resolve_model(catalog, node.model, source)
    row = {"model": version.model, "version": version.version, "statement": version.statement}
    return rows_result([row], [("model", "string"), ("version", "int64"), ("statement", "string")])
