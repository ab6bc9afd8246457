"""SHOW: questions about what there is."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import reduce

from sqlml_dialect import DescribeModel, DialectError, Show, ShowCreateModel, ShowLogs, quote_identifier, quote_string
from sqlml_dialect.calls import BUILTINS
from sqlml_dialect.fitted import FittedCall, find_fitted
from sqlml_dialect.generator import SHOWN
from sqlml_dialect.similar import nearest

from sqlml.binder.models import resolve_model
from sqlml.catalog import Catalog
from sqlml.errors import Error, did_you_mean
from sqlml.features.fitted import FUNCTIONS
from sqlml.job_folder import LOG
from sqlml.statements.describe import run_describe
from sqlml.statements.door import DOOR
from sqlml.statements.handler import Handler, Handlers
from sqlml.statements.jobs import find_job
from sqlml.statements.log_relations import FileRelation
from sqlml.statements.misplaced_options import meant_of_endpoints
from sqlml.statements.queries import Queries
from sqlml.statements.relations import Relation
from sqlml.statements.result import Result, rows_result, stream_result
from sqlml.statements.schema import RelationTable
from sqlml.types import Column, kind_of_arrow


def show_handlers(queries: Queries, catalog: Catalog, schema: str) -> Handlers:
    """SHOW and DESCRIBE."""
    return {
        Show: Handler(lambda n, p: run_show(n, p.source, queries, catalog, schema)),
        ShowLogs: Handler(lambda n, p: run_show_logs(n, p.source, catalog)),
        ShowCreateModel: Handler(lambda n, p: run_show_create(n, p.source, catalog)),
        DescribeModel: Handler(lambda n, p: run_describe(n, p.source, catalog)),
    }


def run_show(node: Show, source: str, queries: Queries, catalog: Catalog, schema: str) -> Result:
    """``SHOW x`` is ``SELECT * FROM sqlml.x``.  LIKE filters by name, whatever the case: of runs the model's, of jobs the model's
    or the kind.
    """
    wanted = None if node.model is None else resolve_model(catalog, node.model, source).model
    copied = queries.copied_relation(node.subject)
    if copied is not None:
        return _shown(copied, wanted, node)
    relation = f"{quote_identifier(schema)}.main.{quote_identifier(node.subject)}"
    conditions = [] if wanted is None else [f"model = {quote_string(wanted)}"]
    if node.like is not None:
        like = (f"{column} ILIKE {quote_string(node.like)}" for column in NAME_COLUMNS[node.subject])
        conditions.append(f"({' OR '.join(like)})")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    text = f"SELECT * FROM {relation}{where}"  # noqa: S608
    return stream_result(queries.run_bound(text, (0, len(text))))


def _shown(relation: Relation | FileRelation, model: str | None, node: Show) -> Result:
    """The same of a relation that the database itself does not have: it is asked for nothing, not even a temporary table."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = RelationTable(relation).compute(())
    table = rows if isinstance(rows, pa.Table) else rows.read_all()
    if model is not None:
        table = table.filter(pc.equal(table["model"], model))
    if node.like is not None:
        matches = [pc.match_like(table[name], node.like, ignore_case=True) for name in NAME_COLUMNS[node.subject]]
        table = table.filter(reduce(pc.or_kleene, matches))
    columns = tuple(Column(name, sql_type, kind_of_arrow(table.schema.field(name).type)) for name, sql_type in relation.columns)
    return Result(columns, table.schema, (batch for batch in table.to_batches()))


NAME_COLUMNS = {
    "models": ("model",),
    "versions": ("model",),
    "runs": ("model",),
    "jobs": ("model", "kind"),
    "endpoints": ("endpoint",),
    "algorithms": ("algorithm",),
    "runners": ("runner",),
    "connections": ("connection",),
    "functions": ("function", "model"),
    "api_keys": ("api_key",),
    "server_settings": ("option",),
}
_VERSIONS = "VERSIONS OF m"


def our_hint(text: str, error: Error, relations: Collection[str], models: Sequence[str], schema: str) -> str | None:
    """What to say of a statement that the database refused, which knows nothing of ours; None where nothing of it is meant."""
    hint = misspelt_show(text, relations, schema) or misplaced_function(text, error.message)
    return hint or meant_of_endpoints(text, schema) or misspelt_name(text, error, models, schema)


def misspelt_show(text: str, relations: Collection[str], schema: str) -> str | None:
    """``did you mean SHOW ALGORITHMS?`` for a SHOW that is not ours and that the database refused.

    A relation of ours that has no SHOW is read by SELECT.
    """
    words = text.split()
    if len(words) < 2 or words[0].upper() != "SHOW":
        return None
    if words[1].lower() in relations and words[1].lower() not in NAME_COLUMNS:
        return f"it is a relation: FROM {schema}.{words[1].lower()}"
    if words[1].upper() == "VERSIONS":
        return f"write SHOW {_VERSIONS}"
    if words[1].upper() in ("FUNCTIONS", "DEPLOYED"):
        return f"write SHOW {SHOWN['functions']} for those of models"
    if words[1].upper() in ("KEYS", "API", "APIKEYS"):
        return f"write SHOW {SHOWN['api_keys']}"
    if words[1].upper() in ("SETTINGS", "SERVER", "SERVER_SETTINGS"):
        return f"write SHOW {SHOWN['server_settings']} for those of endpoints"
    subjects = (_VERSIONS if subject == "versions" else subject.upper() for subject in NAME_COLUMNS if subject not in SHOWN)
    near = did_you_mean(words[1], [*subjects, "LOGS FOR JOB n"])
    return near.replace("mean ", "mean SHOW ") if near else None


def misspelt_name(text: str, error: Error, models: Sequence[str], schema: str) -> str | None:
    """``did you mean PREDICT?`` where the database, which knows nothing of models, has no such function, table or schema.

    What the database itself proposes is told where it is nearer.
    """
    message = error.message
    words = text.split()
    table = re.search(r"Table with name \"?(\w+)\"? does not exist", message)
    if table is not None and words[0].upper() in ("DESCRIBE", "DESC") and table[1].lower() in {m.lower() for m in models}:
        return f"did you mean DESCRIBE MODEL {table[1]}?"
    missing = re.search(r'schema "(\w+)" does not exist', message)
    if missing is not None:
        return did_you_mean(missing[1], [schema])
    function = re.search(r"(Scalar|Table) Function with name \"?(\w+)\"? does not exist", message)
    if function is None:
        return None
    word = function[2]
    if function[1] == "Table":
        return f"did you mean {DOOR.lower()}('…')?" if nearest(word, [DOOR]) else None
    if word.lower() in BUILTINS:
        return f"{word.upper()} is found in the statement itself, not in a text within it, such as that of query('…')"
    ours = nearest(word, [*(name.upper() for name in BUILTINS), *models])
    theirs = re.findall(r'"(\w+)"', error.hint or "")
    if ours is None or (not ours.lower().startswith(word.lower()) and nearest(word, [ours, *theirs]) != ours):
        return None
    return f"did you mean {ours}?"


def misplaced_function(text: str, message: str) -> str | None:
    """What to say of ``SELECT ML.STANDARD_SCALER(…)`` where the database's message is that it has no such function."""
    try:
        names = {call.name for call in _every(find_fitted(text))} & FUNCTIONS.keys()
    except DialectError:
        return None
    missing = [name for name in sorted(names) if f"with name {name.lower()} does not exist" in message.lower()]
    return f"ML.{missing[0]} is for TRANSFORM (…) of TRAIN MODEL" if missing else None


def _every(calls: Iterable[FittedCall]) -> Iterator[FittedCall]:
    for call in calls:
        yield call
        yield from _every(call.inner)


def run_show_logs(node: ShowLogs, source: str, catalog: Catalog) -> Result:
    """The lines of a job's log."""
    path = catalog.home.jobs / str(node.job) / LOG
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
