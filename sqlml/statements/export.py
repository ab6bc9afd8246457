"""EXPORT MODEL and IMPORT MODEL: versions as files, and files as versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlml_dialect import Export, ExportEndpoint, Import, Option, Span
from sqlml_dialect.tokens import Kind, scan

from sqlml.algorithms.options import check_value, got
from sqlml.binder.models import check_new_name, resolve_model
from sqlml.binder.parameters import Parameters
from sqlml.bundles.model import Model
from sqlml.catalog import Catalog, Version
from sqlml.contracts import OnEvent, OptionSpec
from sqlml.errors import (
    BindError,
    Error,
    NotSupportedError,
    did_you_mean,
    listing,
)
from sqlml.exports.blame import about, option_of
from sqlml.exports.bundle import Card, write_bundle
from sqlml.exports.foreign import TASKS, Wishes, renamed
from sqlml.exports.place import check_place, draft, size_of
from sqlml.exports.reading import read_apart
from sqlml.registry import missing_extra
from sqlml.statements.export_endpoint import run_export_endpoint
from sqlml.statements.handler import Handler, Handlers, always, same_columns
from sqlml.statements.job_run import job_run
from sqlml.statements.result import Result, rows_result

FORMATS = ("bundle", "onnx", "native", "sql")

_LISTS = ("inputs", "classes", "keep", "ends")
_OVERWRITE = OptionSpec("overwrite", "bool", False, "replace what is there")
_EXPORTED = (
    ("model", "string"), ("version", "int64"), ("format", "string"), ("path", "string"), ("files", "int64"), ("bytes", "int64"),
    ("note", "string"),
)  # fmt: skip
_IMPORTED = (("model", "string"), ("version", "int64"), ("algorithm", "string"), ("inputs", "string"), ("predicts", "string"))
_EXPORT: Mapping[str, tuple[OptionSpec, ...]] = {
    "bundle": (_OVERWRITE,),
    "native": (_OVERWRITE,),
    "onnx": (
        _OVERWRITE,
        OptionSpec(
            "inputs",
            "str",
            None,
            "where the graph begins: the model's columns or the feature matrix",
            choices=("columns", "matrix"),
        ),
    ),
    "sql": (
        _OVERWRITE,
        OptionSpec("dialect", "str", "duckdb", "whose SQL it is, under sqlglot's name"),
        OptionSpec("table", "str", "rows_to_predict", "the table that is read"),
        OptionSpec("keep", "list", None, "the columns of the table that the result keeps; left out: the model's inputs"),
        OptionSpec("max_nodes", "int", 20_000, "most nodes of all trees together", low=1),
    ),
}
_IMPORT = (
    OptionSpec("inputs", "list", None, "names of the inputs, in order"),
    OptionSpec("target", "str", None, "the name of what is predicted"),
    OptionSpec("classes", "list", None, "names of the classes, in the order of the probabilities"),
    OptionSpec("task", "str", None, "what the answer is, where the file does not tell", choices=TASKS),
    OptionSpec("ends", "list", None, "of a language model: the tokens that end a text"),
    OptionSpec("context", "int", None, "of a language model: how many tokens it can read", low=2),
)
_ENDINGS = {
    (".tar",): "bundle",
    (".tar.gz", ".tgz"): "bundle",
    (".onnx",): "onnx",
    (".json", ".ubj"): "native",
    (".sql",): "sql",
}


# --- EXPORT -----------------------------------------------------------------------------------------------------------


def file_handlers(catalog: Catalog, on_event: OnEvent) -> Handlers:
    """EXPORT and IMPORT MODEL, EXPORT ENDPOINT."""
    return {
        Export: Handler(lambda n, p: run_export(n, p, catalog), columns=same_columns(_EXPORTED)),
        ExportEndpoint: Handler(lambda n, p: run_export_endpoint(n, p, catalog)),
        Import: Handler(lambda n, p: run_import(n, p, catalog, on_event), writes=always, columns=same_columns(_IMPORTED)),
    }


def run_export(node: Export, parameters: Parameters, catalog: Catalog) -> Result:
    """Write a version to a file or a folder: all of it, or nothing."""
    source = parameters.source
    version = resolve_model(catalog, node.model, source)
    path = _path(node.path)
    form = _format(node, path, source)
    options = _options(node.options, parameters, _EXPORT[form], f"EXPORT … FORMAT {form}")
    try:
        check_place(path, overwrite=options["overwrite"])
        model = Model.open(version.bundle, version.sha256)
        with draft(path, overwrite=options["overwrite"]) as beside:
            note = _WRITERS[form](model, version, catalog, beside, path, options)
        files, size = size_of(path)
    except Error as error:
        raise error.located(source, _place(error, node, source)) from None
    row = {
        "model": version.model, "version": version.version, "format": form, "path": str(path), "files": files, "bytes": size,
        "note": note,
    }  # fmt: skip
    return rows_result([row], _EXPORTED)


def _place(error: Error, node: Export | Import, source: str) -> Span:
    """Where an error stands: the option that it is about, else the path."""
    name = option_of(error)
    given = next((o.value_span for o in node.options if o.name.name.lower() == name), None)
    return given or _behind(node, source, Kind.STRING)


def _behind(node: Export | Import, source: str, kind: Kind, word: str = "") -> Span:
    """The first token of a kind, behind a word if one is given; all of the statement where there is none."""
    tokens = list(scan(source, *node.span))
    first = next((i for i, token in enumerate(tokens) if word and token.key == word), -1)
    return next(((t.start, t.end) for t in tokens[first + 1 :] if t.kind is kind), node.span)


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _format(node: Export, path: Path, source: str) -> str:
    if node.format is None:
        name = path.name.lower()
        return next((form for endings, form in _ENDINGS.items() if name.endswith(endings)), "bundle")
    form = node.format.lower()
    if form not in FORMATS:
        near = did_you_mean(form, FORMATS)
        there = f"there are: {', '.join(FORMATS)}"
        raise BindError(
            f"unknown format {node.format}",
            source=source,
            span=_behind(node, source, Kind.WORD, "FORMAT"),
            hint=f"{near}\n{there}" if near else there,
        )
    return form


def _packed(path: Path) -> str | None:
    name = path.name.lower()
    return "gz" if name.endswith((".tar.gz", ".tgz")) else "tar" if name.endswith(".tar") else None


def _write_bundle(model: Model, version: Version, catalog: Catalog, beside: Path, path: Path, options: Mapping[str, Any]) -> str:
    row = catalog.describe(version.uid)
    card = Card(version.name, row["created_at"].isoformat(), catalog.plan(version.uid), catalog.outcome(version.uid))
    write_bundle(version.bundle, card, beside, packed=_packed(path))
    return f"IMPORT MODEL {version.model} FROM '{path.name}' makes a version of it anywhere"


def _write_native(model: Model, version: Version, catalog: Catalog, beside: Path, path: Path, options: Mapping[str, Any]) -> str:
    from sqlml.exports.native import check_native, write_native

    return write_native(model, check_native(model, path), beside, path.suffix)


def _write_onnx(model: Model, version: Version, catalog: Catalog, beside: Path, path: Path, options: Mapping[str, Any]) -> str:
    from sqlml.exports import onnx
    from sqlml.exports.samples import sample_rows

    head = onnx.check_onnx(model)
    why = onnx.why_matrix(model)
    if why and options["inputs"] == "columns":
        never = NotSupportedError(f"{version.name} cannot begin with its columns: {why}", hint="WITH (inputs = 'matrix')")
        raise about("inputs", never)
    columns = why is None and options["inputs"] != "matrix"
    graph = onnx.columns_graph(model, head) if columns else onnx.matrix_graph(model, head)
    off = onnx.difference(model, graph, sample_rows(model), columns=columns)
    onnx.check_difference(off, "ONNX")
    onnx.write_graph(graph, beside)
    if columns:
        return f"takes the model's columns by name; {off:.1g} from the model at most"
    because = f"{why}; so " if why and options["inputs"] is None else ""
    return f"{because}takes the float32 matrix of: {listing(head.encoder.names, 50)}; {off:.1g} from the model at most"


def _write_sql(model: Model, version: Version, catalog: Catalog, beside: Path, path: Path, options: Mapping[str, Any]) -> str:
    from sqlml.exports.onnx import check_difference

    try:
        from sqlml.exports.sql import model_sql
        from sqlml.exports.sql_check import sql_difference
    except ModuleNotFoundError as error:
        raise missing_extra(error) from error

    text = model_sql(
        model,
        title=version.name,
        dialect=options["dialect"],
        table=options["table"],
        keep=options["keep"],
        max_nodes=options["max_nodes"],
    )
    off = sql_difference(model, options["max_nodes"])
    check_difference(off, "SQL")
    beside.write_text(text, encoding="utf-8")
    return f"reads the table {options['table']}; {off:.1g} from the model at most, tried in DuckDB"


_WRITERS: Mapping[str, Callable[[Model, Version, Catalog, Path, Path, Mapping[str, Any]], str]] = {
    "bundle": _write_bundle,
    "native": _write_native,
    "onnx": _write_onnx,
    "sql": _write_sql,
}


# --- IMPORT -----------------------------------------------------------------------------------------------------------


def run_import(node: Import, parameters: Parameters, catalog: Catalog, on_event: OnEvent) -> Result:
    """Make a file the next version of a model: all of it, or nothing."""
    source = parameters.source
    name = check_new_name(node.model, source)
    options = _options(node.options, parameters, _IMPORT, "IMPORT")
    path = _path(node.path)
    statement = source[slice(*node.span)]

    def alive() -> None:
        on_event({"event": "stage", "name": "reading"})  # raises where the statement was cancelled

    try:
        with job_run(catalog, "import", name, statement, "") as job:
            card = read_apart(path, job.folder, Wishes(**options), alive)
            origin = f"{path.name} ({card.name})" if card.plan.statement else path.name
            version = catalog.publish(renamed(card.plan, name, statement), card.outcome, job, origin=origin)
    except Error as error:
        raise error.located(source, _place(error, node, source)) from None
    row = {
        "model": version.model, "version": version.version, "algorithm": version.algorithm,
        "inputs": listing(i.name for i in version.inputs), "predicts": listing(_predicts(version)),
    }  # fmt: skip
    return rows_result([row], _IMPORTED, footer=f"imported from {origin}")


def _predicts(version: Version) -> list[str]:
    return [
        f"{t.name}: {listing(map(str, t.classes), 5)}" if t.classes else f"{t.name}: {t.sql_type}" for t in version.targets
    ] or [name for name, _ in version.added]


# --- options ----------------------------------------------------------------------------------------------------------


def _options(options: Sequence[Option], parameters: Parameters, specs: Sequence[OptionSpec], owner: str) -> dict[str, Any]:
    """Every option with its value, given or default.  ``BindError`` points at the one that is wrong."""
    known = {spec.name: spec for spec in specs}
    found = {spec.name: spec.default for spec in specs}
    for option in options:
        name = option.name.name.lower()
        if name not in known:
            near = did_you_mean(name, known)
            there = f"it has: {listing(known)}"
            raise BindError(
                f"{owner} has no option {option.name.name}", source=parameters.source, span=option.name.span,
                hint=f"{near}\n{there}" if near else there,
            )  # fmt: skip
        value = parameters.resolve(option.value)
        try:
            found[name] = (
                _items(name, value, owner)
                if name in _LISTS and known[name].type == "list"
                else check_value(known[name], value, owner)
            )
        except Error as error:
            raise error.located(parameters.source, option.value_span) from None
    return found


def _items(name: str, value: Any, owner: str) -> tuple[Any, ...]:
    """A list of names; classes may be numbers and booleans too."""
    wanted: tuple[type, ...] = (str, int, float, bool) if name == "classes" else (str,)
    plain = isinstance(value, tuple | list) and all(isinstance(item, wanted) for item in value)
    if plain and len({type(item) for item in value}) == 1:
        return tuple(value)
    shape = "['no', 'yes'], of one type" if name == "classes" else "['age', 'balance']"
    raise BindError(f"option {name} of {owner} is a list, as in {shape} (got {got(value)})")
