"""COMPARE MODELS: versions beside each other: figures, what each was trained on, and in what they differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlml_dialect import CompareModels

from sqlml.binder.models import resolve_model
from sqlml.binder.options import bind_options, option_span
from sqlml.binder.parameters import Parameters
from sqlml.catalog import Catalog, Version
from sqlml.contracts import Notice
from sqlml.errors import BindError, listing
from sqlml.evaluation.functions import THRESHOLD
from sqlml.evaluation.scores import Measured
from sqlml.statements.describe import parse_train
from sqlml.statements.handler import Handler, Handlers
from sqlml.statements.queries import Queries
from sqlml.statements.result import Result, rows_result
from sqlml.statements.scoring import measured_heldout, measured_query, subject_of
from sqlml.training.goals import GOALS
from sqlml.types import UNMEASURED, Task, label_text

ABSENT = "–"
"""What a version shows where it has no such feature, option or figure."""


@dataclass(frozen=True)
class _Line:
    """A row of the result: what is compared, the versions' values in order, and for figures the winner and its lead."""

    item: str
    name: str
    values: tuple[str, ...]
    best: str | None = None
    difference: float | None = None
    note: str | None = None


def compare_handlers(queries: Queries, catalog: Catalog, notice: Notice) -> Handlers:
    """COMPARE MODELS."""
    return {CompareModels: Handler(lambda n, p: run_compare(n, p, queries, catalog, notice))}


def run_compare(node: CompareModels, parameters: Parameters, queries: Queries, catalog: Catalog, notice: Notice) -> Result:
    """A row for each figure, then one for everything in which the versions differ; a column for each version.

    Without a query the figures are those of the rows that each version held out, with a notice where these are not the same
    rows; with one, all versions are measured on its rows.
    """
    versions = bind_compare(node, parameters, catalog)
    threshold = _threshold(node, parameters, versions)
    rows = [catalog.describe(version.uid) for version in versions]
    if node.query is None:
        figures, counts = _heldout(node, versions, threshold, catalog, parameters.source)
        for text in _not_the_same(versions, rows):
            notice(text)
        footer = "figures of the rows that each version held out"
    else:
        figures, counts = _measured(node, versions, threshold, parameters, queries, catalog)
        footer = "figures of the rows of the query, the same for all"
    lines = [*_metric_lines(versions, figures), _plain("rows", "measured", [f"{count:,}" for count in counts])]
    lines += _differences(versions, rows)
    return _result(versions, lines, footer)


def bind_compare(node: CompareModels, parameters: Parameters, catalog: Catalog) -> tuple[Version, ...]:
    """The versions to compare.  ``BindError`` unless they are different versions that predict the same."""
    source = parameters.source
    versions = tuple(resolve_model(catalog, ref, source) for ref in node.models)
    first = versions[0]
    for ref, version in zip(node.models, versions, strict=True):
        if version.task in UNMEASURED:
            raise BindError(
                f"{version.name} {UNMEASURED[version.task]}: there is nothing to measure", source=source, span=ref.span
            )
    for index, (ref, version) in enumerate(zip(node.models[1:], versions[1:], strict=True), 1):
        if version.task is not first.task or _targets(version) != _targets(first):
            raise BindError(
                f"{version.name} cannot be compared with {first.name}: {_aim(version)}, {_aim(first)}", source=source,
                span=ref.span, hint="versions that predict the same column, as the same kind of answer, can be compared",
            )  # fmt: skip
        if version.uid in {earlier.uid for earlier in versions[:index]}:
            others = f"SHOW VERSIONS OF {version.model} lists the others"
            hint = others if node.models[0].version else f"{node.models[0].text} means {first.name} now; {others}"
            raise BindError(f"{version.name} is there twice", source=source, span=ref.span, hint=hint)
    return versions


def _targets(version: Version) -> dict[str, Task]:
    return {target.name.lower(): target.task for target in version.targets}


def _aim(version: Version) -> str:
    names = listing(target.name for target in version.targets)
    return f"{version.name} is a {version.task} of {names}" if names else f"{version.name} is a {version.task}"


def _threshold(node: CompareModels, parameters: Parameters, versions: Sequence[Version]) -> float | None:
    threshold: float | None = bind_options(node.options, (THRESHOLD,), "COMPARE MODELS", parameters)["threshold"]
    span = option_span(node.options, "threshold")
    if span is not None and not any(len(target.classes) == 2 for target in versions[0].targets):
        raise BindError("a threshold is for models of two classes", source=parameters.source, span=span)
    return threshold


# --- figures ----------------------------------------------------------------------------------------------------------

Figures = list[Mapping[str, float | None]]
"""Of each version: metric → figure; of several targets ``target.metric``."""


def _heldout(
    node: CompareModels, versions: Sequence[Version], threshold: float | None, catalog: Catalog, source: str
) -> tuple[Figures, list[int]]:
    figures: Figures = []
    for ref, version in zip(node.models, versions, strict=True):
        if version.heldout_rows == 0:
            raise BindError(
                f"{version.name} was trained without held-out rows: there are none to compare it on", source=source,
                span=ref.span, hint="give rows: COMPARE MODELS … AS SELECT …",
            )  # fmt: skip
        if threshold is None:
            figures.append(catalog.metrics(version.uid, "heldout"))
        else:
            what = "COMPARE MODELS … AS SELECT …"
            measured = measured_heldout(subject_of(version, catalog), version, catalog, source, ref.span, what)
            figures.append(_figures(measured, threshold))
    return figures, [version.heldout_rows for version in versions]


def _measured(
    node: CompareModels,
    versions: Sequence[Version],
    threshold: float | None,
    parameters: Parameters,
    queries: Queries,
    catalog: Catalog,
) -> tuple[Figures, list[int]]:
    span = node.query.span if node.query else node.span
    sql, values = queries.bind(parameters.source, span), parameters.within(span)
    measured = [measured_query(subject_of(v, catalog), v, sql, span, values, queries) for v in versions]
    return [_figures(rows, threshold) for rows in measured], [rows.rows for rows in measured]


def _figures(measured: Measured, threshold: float | None) -> Mapping[str, float | None]:
    if len(measured.heads) == 1:
        return measured.heads[0].measure(threshold)
    return {
        f"{head.target.name if head.target else ''}.{name}": value
        for head in measured.heads
        for name, value in head.measure(threshold).items()
    }


def _metric_lines(versions: Sequence[Version], figures: Figures) -> Iterator[_Line]:
    tasks = {target.name: target.task for target in versions[0].targets}
    for name in dict.fromkeys(name for own in figures for name in own):
        target, _, metric = name.rpartition(".")
        more = GOALS.get(tasks.get(target, versions[0].task), {}).get(metric)
        values = [own.get(name) for own in figures]
        best, difference = _winner([v.name for v in versions], values, more)
        note = {True: "higher is better", False: "lower is better", None: None}[more]
        yield _Line("metric", name, tuple(ABSENT if v is None else f"{v:.6g}" for v in values), best, difference, note)


def _winner(names: Sequence[str], values: Sequence[float | None], more: bool | None) -> tuple[str | None, float | None]:
    """The version with the best figure, and how far it is from the next; none where two are equal or there is no better."""
    known = sorted(((value, name) for name, value in zip(names, values, strict=True) if value is not None), reverse=bool(more))
    if more is None or len(known) < 2:
        return None, None
    lead = abs(known[0][0] - known[1][0])
    return (known[0][1] if lead else None), lead


# --- in what they differ ----------------------------------------------------------------------------------------------


def _not_the_same(versions: Sequence[Version], rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Why the figures need not be of the same rows."""
    reasons = {"fingerprint": "the data", "split": "the split", "seed": "the seed", "validation": "the query of VALIDATE ON"}
    known = [dict(row) | {"validation": _validation(row["statement"])} for row in rows]
    differ = [what for key, what in reasons.items() if len({str(row[key]) for row in known}) > 1]
    if differ:
        names = listing(version.name for version in versions)
        yield (
            f"{names} may have held out different rows: {' and '.join(differ)} differ{'s' if len(differ) == 1 else ''}; "
            "COMPARE MODELS … AS SELECT … measures all on the same"
        )


def _validation(statement: str) -> str | None:
    """The query after VALIDATE ON in the statement that made a version."""
    node = parse_train(statement)
    return node.validate.text if node and node.validate else None


def _differences(versions: Sequence[Version], rows: Sequence[Mapping[str, Any]]) -> Iterator[_Line]:
    yield _plain("rows", "trained on", [f"{row['rows']:,}" for row in rows])
    yield from _different("model", "algorithm", [row["algorithm"] for row in rows])
    for name in _option_names(rows):
        yield from _different("option", name, [_option(row["options"], name) for row in rows])
    yield from _different("data", "split", [row["split"] for row in rows])
    yield from _different("data", "seed", [str(row["seed"]) for row in rows])
    yield from _different("data", "fingerprint", [row["fingerprint"] for row in rows])
    yield from _different("data", "classes", [_classes(version) for version in versions])
    yield from _features(rows)


def _option_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The options that all have, and those that somebody asked for: of other algorithms the defaults say nothing."""
    shared = set.intersection(*(set(row["options"]) for row in rows))
    plans = [row["plan"] or {} for row in rows]
    given = {name.lower() for plan in plans for name in (*plan.get("options", ()), *((plan.get("tune") or {}).get("space", ())))}
    return sorted({name for row in rows for name in row["options"] if name in shared or name.lower() in given})


def _option(options: Mapping[str, Any], name: str) -> str:
    if name not in options:
        return ABSENT
    value = options[name]
    if value is None:
        return "NULL"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping | list) else label_text(value)


def _classes(version: Version) -> str:
    return "; ".join(listing((label_text(c) for c in target.classes), 20) for target in version.targets)


def _features(rows: Sequence[Mapping[str, Any]]) -> Iterator[_Line]:
    """The features that not all have, and those that are made in different ways."""
    made = [{c["name"]: c["sql"] for c in row["transform"]} or {i["name"]: i["sql_type"] for i in row["inputs"]} for row in rows]
    for name in dict.fromkeys(name for own in made for name in own):
        values = [own.get(name, ABSENT) for own in made]
        note = "not in all" if ABSENT in values else "made in different ways"
        yield from _different("feature", name, values, note)


def _plain(item: str, name: str, values: Sequence[str]) -> _Line:
    return _Line(item, name, tuple(values))


def _different(item: str, name: str, values: Sequence[str], note: str | None = None) -> Iterator[_Line]:
    if len(set(values)) > 1:
        yield _Line(item, name, tuple(values), note=note)


def _result(versions: Sequence[Version], lines: Sequence[_Line], footer: str) -> Result:
    names = [version.name for version in versions]
    columns = [("item", "string"), ("name", "string"), *((name, "string") for name in names)]
    columns += [("best", "string"), ("difference", "double"), ("note", "string")]
    rows = [
        {"item": line.item, "name": line.name, "best": line.best, "difference": line.difference, "note": line.note}
        | dict(zip(names, line.values, strict=True))
        for line in lines
    ]
    return rows_result(rows, columns, footer)
