"""EVALUATE ENDPOINT: figures of what an endpoint really answered, a model's or a query's, as far as the truth came back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa
from sqlml_dialect import EvaluateEndpoint, Ident, quote_string

from sqlml.algorithms.metrics import Metrics
from sqlml.binder.options import bind_options, option_span
from sqlml.binder.parameters import Parameters
from sqlml.catalog import Catalog, Endpoint, Version
from sqlml.catalog.rows import now
from sqlml.contracts import EndpointServer, OptionSpec
from sqlml.errors import BindError, UnknownModel, UnknownVersion, count_of, did_you_mean, listing
from sqlml.evaluation.functions import THRESHOLD
from sqlml.evaluation.live import LiveScores, measure_live, read_feedback
from sqlml.evaluation.live_query import AnswerColumn, measure_query
from sqlml.home import Home
from sqlml.prediction_log import feedback_files, prediction_files
from sqlml.statements.endpoint_changes import QUERY, find_endpoint
from sqlml.statements.evaluate import find_slices
from sqlml.statements.handler import Handler, Handlers
from sqlml.statements.query_answers import answer_columns, earlier_queries, may_be_probability, query_of
from sqlml.statements.result import Result
from sqlml.statements.scoring import check_threshold, table_result
from sqlml.types import UNSUPERVISED, label_text

OPTIONS = (
    THRESHOLD,
    OptionSpec("last", "duration", None, "only predictions that are no older: '7 days'", low=0, open_low=True),
)


def evaluate_endpoint_handlers(catalog: Catalog, server: EndpointServer) -> Handlers:
    """EVALUATE ENDPOINT."""

    def run(node: EvaluateEndpoint, parameters: Parameters) -> Result:
        server.write_predictions()
        return run_evaluate_endpoint(node, parameters, catalog)

    return {EvaluateEndpoint: Handler(run)}


@dataclass(frozen=True)
class LiveEvaluation:
    """What EVALUATE ENDPOINT measures: the versions that the log has, or the queries with the columns of their answers, by uid;
    those of today first.
    """

    endpoint: Endpoint
    versions: tuple[Version, ...]
    queries: Mapping[str, Sequence[AnswerColumn]]
    by: tuple[str, ...]
    options: Mapping[str, Any]

    @property
    def names(self) -> list[str]:
        """The versions, or the query's models."""
        return [version.name for version in self.versions] or [arm.name for arm in self.endpoint.arms]


def bind_evaluate_endpoint(node: EvaluateEndpoint, parameters: Parameters, catalog: Catalog) -> LiveEvaluation:
    """Names, options and columns settled; raises what is wrong with them."""
    source = parameters.source
    endpoint = find_endpoint(catalog, node.endpoint, source)
    options = bind_options(node.options, OPTIONS, "EVALUATE ENDPOINT", parameters)
    if endpoint.kind == QUERY:
        return _bind_query(node, endpoint, options, source, catalog)
    serving = [catalog.by_uid(arm.uid) for arm in endpoint.arms]
    if serving[0].task in UNSUPERVISED or not serving[0].targets:
        message = f"{serving[0].name} has no target: nothing could turn out to be true of its answers"
        raise BindError(message, source=source, span=node.endpoint.span)
    threshold = option_span(node.options, THRESHOLD.name)
    if threshold is not None:
        check_threshold(serving[0], source, threshold)
    versions = (*serving, *_earlier(endpoint, serving, catalog))
    names = list(dict.fromkeys(column.name for version in versions for column in version.inputs))
    return LiveEvaluation(endpoint, versions, {}, tuple(_column(by, names, source) for by in node.by), options)


def _bind_query(
    node: EvaluateEndpoint, endpoint: Endpoint, options: Mapping[str, Any], source: str, catalog: Catalog
) -> LiveEvaluation:
    """The queries that the log has, and the parameters that are asked for."""
    now = query_of(endpoint)
    columns = answer_columns(now, catalog)
    if not columns:
        lists = listing(result.name for result in now.composition.results)
        raise BindError(
            f"endpoint {endpoint.name} answers with lists alone ({lists}): no truth can be compared with a list", source=source,
            span=node.endpoint.span, hint="DEPLOY QUERY it with a column that takes one value of it, as in embedding[1] AS first",
        )  # fmt: skip
    threshold = option_span(node.options, THRESHOLD.name)
    if threshold is not None and not any(map(may_be_probability, columns)):
        message = f"a threshold is for probabilities; {endpoint.name} answers with none"
        raise BindError(message, source=source, span=threshold)
    logged = {folder.name for folder in prediction_files(catalog.home, endpoint.name)}
    queries = [now, *(query for query in earlier_queries(endpoint, catalog) if query.uid in logged)]
    names = list(dict.fromkeys(column.name for query in queries for column in query.composition.parameters))
    by = tuple(_column(by, names, source) for by in node.by)
    return LiveEvaluation(endpoint, (), {query.uid: answer_columns(query, catalog) for query in queries}, by, options)


def _earlier(endpoint: Endpoint, serving: Sequence[Version], catalog: Catalog) -> list[Version]:
    """Versions that the log has and that serve no more; those that were dropped have no classes any more to compare with."""
    known = {version.uid for version in serving}
    found = []
    for folder in prediction_files(catalog.home, endpoint.name):
        if folder.name not in known:
            try:
                found.append(catalog.by_uid(folder.name))
            except (UnknownModel, UnknownVersion, BindError):
                continue
    kept = [version for version in found if version.task not in UNSUPERVISED]
    return sorted(kept, key=lambda version: (version.model.lower(), version.version))


def _column(by: Ident, names: Sequence[str], source: str) -> str:
    """A column of the input, as the endpoint calls it."""
    for name in names:
        if name.lower() == by.name.lower():
            return name
    hint = did_you_mean(by.name, names) or f"it takes: {listing(names, 20)}"
    raise BindError(f"the endpoint takes no column {by.name}", source=source, span=by.span, hint=hint)


def run_evaluate_endpoint(node: EvaluateEndpoint, parameters: Parameters, catalog: Catalog) -> Result:
    """A row of figures for each version and role; of several targets, and of slices, a row each."""
    live = bind_evaluate_endpoint(node, parameters, catalog)
    last = live.options["last"]
    since = None if last is None else now() - timedelta(seconds=last)
    if live.queries:
        found = measure_query(catalog.home, live.endpoint.name, live.queries, live.by, since)
    else:
        targets = {version.uid: version.targets for version in live.versions}
        found = measure_live(catalog.home, live.endpoint.name, targets, live.by, since)
    rows = [row for scores in found for row in _rows(scores, node, live, parameters.source)]
    return table_result(_table(rows, live), _footer(found, live, catalog.home))


@dataclass(frozen=True)
class _Row:
    scores: LiveScores
    values: Mapping[str, Any]
    rows: int
    figures: Metrics


def _rows(scores: LiveScores, node: EvaluateEndpoint, live: LiveEvaluation, source: str) -> list[_Row]:
    """The figures of one version, as a whole or by slice."""
    slices = find_slices(node.by, scores.kept, source) if node.by else [({}, None)]
    own = [(values, scores.scores if picked is None else scores.scores.pick(picked)) for values, picked in slices]
    return [_Row(scores, values, part.known.rows, part.measure(live.options["threshold"])) for values, part in own]


def _table(rows: Sequence[_Row], live: LiveEvaluation) -> pa.Table:
    """Model, version, role and, of several, target first; then the slice, or how many predictions were logged; rows; figures.

    A query is called as the endpoint is, its version is the endpoint's revision, as in the log.
    """
    models = {version.uid: version.model for version in live.versions}
    columns: dict[str, pa.Array] = {
        "model": pa.array([models.get(row.scores.uid, live.endpoint.name) for row in rows], pa.string()),
        "version": pa.array([row.scores.version for row in rows], pa.int64()),
        "role": pa.array([row.scores.role for row in rows], pa.string()),
    }
    if live.queries or any(len(version.targets) > 1 for version in live.versions):
        columns["target"] = pa.array([row.scores.target.name for row in rows], pa.string())
    for name in live.by:
        columns[name] = _values([row.values[name] for row in rows])
    if not live.by:
        columns["predictions"] = pa.array([row.scores.logged for row in rows], pa.int64())
    columns["rows"] = pa.array([row.rows for row in rows], pa.int64())
    figures = dict.fromkeys(name for row in rows for name in row.figures)
    arrays = [*columns.values(), *(pa.array([row.figures.get(name) for row in rows], pa.float64()) for name in figures)]
    return pa.Table.from_arrays(arrays, names=[*columns, *figures])


def _values(values: Sequence[Any]) -> pa.Array:
    """The values of a slice column; as texts where they are of one kind for one version and of another for another."""
    kinds = {type(value) for value in values if value is not None}
    mixed = len(kinds) > 1 and not kinds <= {int, float}
    return pa.array(
        [label_text(v) if mixed and v is not None else v for v in values], None if kinds and not mixed else pa.string()
    )


def _footer(found: Sequence[LiveScores], live: LiveEvaluation, home: Home) -> str:
    name = live.endpoint.name
    if not found:
        last = live.options["last"]
        return f"no prediction of endpoint {name} is logged" + ("" if last is None else f" of the last {last:g} s")
    known = sum(scores.scores.known.rows for scores in found)
    given = read_feedback(feedback_files(home, name)).num_rows
    if known:
        return f"{name}: {count_of(known, 'row')} with feedback" + (f", of {given:,} that were given" if given > known else "")
    if given:
        how = f"SELECT request_id, row, key FROM sqlml.predictions WHERE endpoint = {quote_string(name.lower())}"  # noqa: S608
        return (
            f"no feedback matches a logged prediction: of {count_of(given, 'row')} for {name} none has the request_id and row of "
            f"one, or its key, as they are in {how}"
        )
    named = ", target" if len(found) > 1 else ""
    return f"no feedback yet: INSERT INTO sqlml.feedback (endpoint, request_id, truth{named}) VALUES ('{name}', …)"  # noqa: S608
