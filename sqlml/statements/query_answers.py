"""The queries that an endpoint computed, now and earlier, and the columns of their answers as EVALUATE and feedback see them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlml.catalog import Catalog, Endpoint, query_uid
from sqlml.composition.plan import Composition, Result
from sqlml.composition.truths import asked_of, is_list, is_passed_on, query_targets, sole_answer, truths_of
from sqlml.errors import BindError, BundleError, UnknownModel, UnknownVersion
from sqlml.evaluation.live_query import AnswerColumn
from sqlml.plan import TargetColumn
from sqlml.types import Task


@dataclass(frozen=True)
class PastQuery:
    """A query of an endpoint, by what the log knows it by."""

    uid: str
    composition: Composition


def query_of(endpoint: Endpoint) -> PastQuery:
    """The query of today.  ``BundleError`` for one in a format of other days."""
    if endpoint.definition is None:
        raise BundleError(f"the endpoint {endpoint.name} has no query", hint="deploy it again")
    return PastQuery(query_uid(endpoint.definition), Composition.from_json(endpoint.definition))


def earlier_queries(endpoint: Endpoint, catalog: Catalog) -> tuple[PastQuery, ...]:
    """The queries that the endpoint had before, the last first; without those in a format of other days."""
    key, now = endpoint.name.lower(), query_of(endpoint).uid
    found: dict[str, PastQuery] = {}
    for change in reversed(catalog.endpoint_changes()):
        definition = change["state"].get("definition") if change["endpoint"] == key else None
        if definition is None or (uid := query_uid(definition)) == now or uid in found:
            continue
        with suppress(BundleError):
            found[uid] = PastQuery(uid, Composition.from_json(definition))
    return tuple(found.values())


def target_fault(targets: Iterable[str | None], endpoint: Endpoint, catalog: Catalog) -> str | None:
    """What is wrong with the first of some targets of feedback on an endpoint's answers, and what to do; None where each is a
    column of its query, or of one that it had before.
    """
    results, who = query_of(endpoint).composition.results, f"endpoint {endpoint.name}"
    own = query_targets(results)
    wrong = [target for target in targets if own.fault(target, who) is not None]
    if not wrong:
        return None
    before = [result for query in earlier_queries(endpoint, catalog) for result in query.composition.results]
    every = query_targets(results, before)
    return next((fault for target in wrong if (fault := every.fault(target, who)) is not None), None)


def truth_targets(target: str | None, endpoint: Endpoint, catalog: Catalog) -> list[TargetColumn]:
    """What can turn out to be true of a column of the endpoint's queries, now and earlier (None: the only one)."""
    found: list[TargetColumn] = []
    now = query_of(endpoint)
    name = (target or sole_answer(now.composition.results) or "").lower()
    for query in (now, *earlier_queries(endpoint, catalog)):
        asked = asked_of(query.composition)
        for result in query.composition.results:
            if result.name.lower() == name:
                found += truths_of(result, _column(result, asked, catalog, sole=False).classes)
    return found


def answer_columns(query: PastQuery, catalog: Catalog) -> tuple[AnswerColumn, ...]:
    """The columns of a query's answer that a truth can be compared with: all but lists."""
    results = query.composition.results
    sole = sole_answer(results)
    asked = asked_of(query.composition)
    return tuple(_column(result, asked, catalog, sole=result.name == sole) for result in results if not is_list(result))


def may_be_probability(column: AnswerColumn) -> bool:
    """Whether a threshold could mean something for a column: probabilities of two classes, and numbers that are not whole."""
    plain = column.sql_type in ("DOUBLE", "FLOAT") or column.sql_type.startswith("DECIMAL")
    return not column.label and (len(column.classes) == 2 or plain)


def _column(result: Result, asked: Mapping[str, tuple[str, str]], catalog: Catalog, *, sole: bool) -> AnswerColumn:
    uid, output = asked.get(result.slot, ("", ""))
    task, classes = _model(uid, catalog)
    label = output == "predict" and task in (Task.CLASSIFICATION, Task.CLUSTERING)
    own = tuple(classes) if label or result.classes else ()
    return AnswerColumn(result.name, result.sql_type, own or result.classes, label, sole, is_passed_on(result))


def _model(uid: str, catalog: Catalog) -> tuple[Task | None, Sequence[Any]]:
    """A version's task and classes; nothing of one that was dropped, or of none."""
    try:
        version = catalog.by_uid(uid)
    except (UnknownModel, UnknownVersion, BindError):
        return None, ()
    return version.task, version.classes
