"""EXPORT ENDPOINT: an endpoint as files that run elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlml_dialect import ExportEndpoint, Span
from sqlml_dialect.tokens import Kind, scan

from sqlml.binder.options import bind_options
from sqlml.binder.parameters import Parameters
from sqlml.catalog import Catalog, Endpoint
from sqlml.errors import BindError, Error, did_you_mean
from sqlml.exports.blame import option_of
from sqlml.exports.place import check_place, draft, size_of
from sqlml.shipping.shipment import FORMATS, OPTIONS, Shipment, make_shipment
from sqlml.shipping.writing import manifest_files, write_shipment
from sqlml.statements.result import Result, rows_result
from sqlml.statements.tree import PlanNode

DEFAULT_FORMAT = "docker"


@dataclass(frozen=True)
class _Bound:
    """The statement with everything in it settled."""

    shipment: Shipment
    path: Path
    overwrite: bool


def run_export_endpoint(node: ExportEndpoint, parameters: Parameters, catalog: Catalog) -> Result:
    """Write an endpoint to a folder: all of it, or nothing."""
    try:
        bound = _bind(node, parameters, catalog)
        check_place(bound.path, overwrite=bound.overwrite)
        with draft(bound.path, overwrite=bound.overwrite) as beside:
            write_shipment(bound.shipment, beside)
        files, size = size_of(bound.path)
    except Error as error:
        raise error.located(parameters.source, _place(error, node, parameters.source)) from None
    shipment = bound.shipment
    row = {
        "endpoint": shipment.endpoint.name, "versions": _versions(shipment), "format": shipment.format, "path": str(bound.path),
        "files": files, "bytes": size, "note": "; ".join((*shipment.notes, f"{bound.path.name}/README.md says how to run it")),
    }  # fmt: skip
    texts = [(name, "string") for name in ("endpoint", "versions", "format", "path")]
    return rows_result([row], [*texts, ("files", "int64"), ("bytes", "int64"), ("note", "string")])


def plan_export_endpoint(node: ExportEndpoint, parameters: Parameters, catalog: Catalog) -> PlanNode:
    """What EXPORT ENDPOINT would write; raises what is wrong with it."""
    try:
        bound = _bind(node, parameters, catalog)
    except Error as error:
        raise error.located(parameters.source, _place(error, node, parameters.source)) from None
    shipment = bound.shipment
    objects = [thing["kind"] for file in manifest_files(shipment).values() for thing in file]
    there = "something is there" if bound.path.exists() else "nothing is there yet"
    fields = {
        "endpoint": shipment.endpoint.name, "format": shipment.format, "path": str(bound.path), "now": there,
        "base": shipment.base, "objects": objects, "autoscaler": shipment.autoscaler if objects else None,
        "notes": list(shipment.notes),
    }  # fmt: skip
    arms = tuple(
        PlanNode("arm", {"version": arm.name, "role": arm.role, "weight": arm.weight, "sha256": arm.sha256}, (), title, ())
        for arm in shipment.endpoint.arms
        for title in [f"{arm.name}: {f'{arm.weight} % of the requests' if arm in shipment.endpoint.serving else arm.role}"]
    )
    return PlanNode("export", fields, arms, f"EXPORT ENDPOINT {shipment.endpoint.name}: a folder, all of it or nothing")


def _bind(node: ExportEndpoint, parameters: Parameters, catalog: Catalog) -> _Bound:
    source = parameters.source
    form = _format(node, source)
    endpoint = _endpoint(node, source, catalog)
    options = bind_options(node.options, OPTIONS[form], f"EXPORT ENDPOINT … FORMAT {form}", parameters)
    return _Bound(make_shipment(endpoint, catalog.api_keys(), form, options), _path(node.path), options["overwrite"])


def _endpoint(node: ExportEndpoint, source: str, catalog: Catalog) -> Endpoint:
    found = catalog.endpoint(node.endpoint.name)
    if found is None:
        names = [endpoint.name for endpoint in catalog.endpoints()]
        hint = did_you_mean(node.endpoint.name, names) or ("SHOW ENDPOINTS lists all" if names else "nothing is deployed")
        raise BindError(f"unknown endpoint {node.endpoint.name}", source=source, span=node.endpoint.span, hint=hint)
    return found


def _format(node: ExportEndpoint, source: str) -> str:
    form = (node.format or DEFAULT_FORMAT).lower()
    if form not in FORMATS:
        near = did_you_mean(form, FORMATS)
        there = f"there are: {', '.join(FORMATS)}"
        tokens = list(scan(source, *node.span))
        word = next(i for i, token in enumerate(tokens) if token.key == "FORMAT" and i > 2)
        span = (tokens[word + 1].start, tokens[word + 1].end)
        raise BindError(f"unknown format {node.format}", source=source, span=span, hint=f"{near}\n{there}" if near else there)
    return form


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _place(error: Error, node: ExportEndpoint, source: str) -> Span:
    """Where an error stands: the option that it is about; of the path at the path; else at the endpoint."""
    name = option_of(error)
    given = next((option.value_span for option in node.options if option.name.name.lower() == name), None)
    if given is not None:
        return given
    if error.message.startswith(("cannot write", f"{node.path} is")):
        tokens = scan(source, *node.span)
        return next(((token.start, token.end) for token in tokens if token.kind is Kind.STRING), node.span)
    return node.endpoint.span


def _versions(shipment: Shipment) -> str:
    return ", ".join(dict.fromkeys(arm.name for arm in shipment.endpoint.arms))
