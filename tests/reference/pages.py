"""Pages of the reference: their examples, run in order against a prepared database, and the outputs shown below them.

A page is markdown.  A ``sql`` block is run, statement by statement; a ``text`` block right behind it holds what
the shell prints.  ``python -m tests.reference`` writes the outputs into the pages anew, and the tables that come from the code.
What changes from run to run (times, hosts, paths) is shown as ``…``.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

import sqlml
from sqlml.contracts import OptionSpec
from sqlml.data import sample
from sqlml.shell.render import Look, render
from sqlml.shell.run import run_statement, split

ROOT = Path(__file__).parent.parent.parent / "dialect" / "reference"
INTRODUCTION = ROOT / "README.md"
WIDTH = 118
SAMPLE = "sqlml/data/bank_marketing.csv.gz"

_BLOCK = re.compile(r"```sql\n(?P<sql>.*?)```\n(?P<output>\n?```text\n(?P<text>.*?)```\n)?", re.DOTALL)
_GENERATED = re.compile(r"(<!-- generated: (?P<name>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?")
_TIME = r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?"
_MARK = r"__sqlml_[0-9a-f]{12}_\w+|[0-9a-f]{12,64}|sqlml_[\w-]{4}(?=…)|(?<=__sqlml_linear\()\d+|(?<=__sqlml_trees\()\d+"
_SIZE = r"\d+(?:\.\d+)? (?:s|ms|MiB)"
_VOLATILE = re.compile(rf"\b(?:{_TIME}|{_MARK}|{_SIZE}|http://127\.0\.0\.1:\d+)(?!\w)")
_CHANGING = {
    "seconds",
    "duration",
    "duration_ms",
    "created_at",
    "finished_at",
    "owner",
    "host",
    "peak_memory",
    "libraries",
    "bundle",
    "secret",
    "prefix",
    "expires_at",
}
_CHANGING_ITEMS = {"run", "data", "bundle"}


def pages() -> list[Path]:
    """Every page, the introduction first."""
    return [INTRODUCTION, *sorted(path for path in ROOT.rglob("*.md") if path != INTRODUCTION)]


def prepare(folder: Path) -> Path:
    """The database that the examples use, made by the examples of the introduction; its folder can be copied."""
    rewritten(INTRODUCTION, folder)
    return folder


def rewritten(page: Path, folder: Path) -> str:
    """The page with its outputs as they are now; its database is ``folder/bank.duckdb``."""
    text = page.read_text(encoding="utf-8")
    notices: list[str] = []
    connection = sqlml.connect(
        str(folder / "bank.duckdb"), on_event=lambda e: notices.append(e["text"]) if e["event"] == "notice" else None
    )
    with connection:

        def replaced(match: re.Match[str]) -> str:
            lines = list(_outputs(connection, match["sql"], notices, folder))
            shown = "\n".join(line.rstrip() for line in lines)
            block = f"```sql\n{match['sql']}```\n"
            return f"{block}\n```text\n{shown}\n```\n" if match["output"] else block

        return _BLOCK.sub(replaced, text)


def _outputs(connection: sqlml.Connection, script: str, notices: list[str], folder: Path) -> Iterator[str]:
    for piece in split(script.replace("{folder}", str(folder)).replace(SAMPLE, sample("bank_marketing"))):
        notices.clear()
        try:
            result = run_statement(connection, piece.text)
        except sqlml.Error as error:
            yield from f"error: {error}".replace(str(folder), "").splitlines()
            continue
        yield from (_steady(f"notice: {text}") for text in notices)
        if result.table is not None:
            yield from map(_steady, render(_settled(result.table), "table", Look(WIDTH, 12), kind=result.kind))
        if result.footer:
            yield _steady(result.footer)


def _settled(table: pa.Table) -> pa.Table:
    """The table with what changes from run to run as ``…``."""
    for index, name in enumerate(table.column_names):
        if name in _CHANGING:
            table = table.set_column(index, name, pa.array(["…"] * len(table)))
        elif name == "url":  # a server's port is any that is free
            urls = [re.sub(r"^http://127\.0\.0\.1:\d+", "…", url) if url else url for url in table["url"].to_pylist()]
            table = table.set_column(index, name, pa.array(urls, pa.string()))
    if "item" in table.column_names and "detail" in table.column_names:
        rows = zip(table["item"].to_pylist(), table["name"].to_pylist(), table["detail"].to_pylist(), strict=True)
        details = ["…" if item in _CHANGING_ITEMS and name != "query" else detail for item, name, detail in rows]
        table = table.set_column(table.column_names.index("detail"), "detail", pa.array(details, pa.string()))
    return table


def _steady(line: str) -> str:
    return _VOLATILE.sub("…", line)


def copy_of(prepared: Path, folder: Path) -> Path:
    """A copy of the prepared database for one page."""
    shutil.copytree(prepared, folder, dirs_exist_ok=True)
    return folder


def same(expected: str, found: str) -> bool:
    """Whether two pages say the same, numbers within a hundredth and boxes as wide as they like."""
    return _skeleton(expected) == _skeleton(found) and all(
        abs(a - b) <= 0.01 * max(abs(a), abs(b), 1e-3) for a, b in zip(_numbers(expected), _numbers(found), strict=True)
    )


def _skeleton(text: str) -> str:
    return re.sub(r"[─━█▏▎▍▌▋▊▉ ]+", " ", _NUMBER.sub("0", text))


def _numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in _NUMBER.findall(text) if number.strip(",")]


def with_generated(text: str) -> str:
    """The page with its generated tables as the code has them."""
    return _GENERATED.sub(lambda match: match[1] + TABLES[match["name"]]() + match[3], text)


def algorithms_table() -> str:
    """Every algorithm: name, task, what it is, whether it explains, can go on (WARM START), stops early."""
    from sqlml.registry import get_algorithm, names

    lines = [
        "| algorithm | task | what it is | explains | warm start | early stopping |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in names("algorithm"):
        a = get_algorithm(name)
        marks = ["yes" if flag else "" for flag in (a.explains, a.warm_start, a.early_stopping)]
        lines.append(f"| `{a.name}` | {a.task.value} | {a.doc} | {' | '.join(marks)} |")
    return "\n".join(lines) + "\n"


def options_table() -> str:
    """Every option of every algorithm."""
    from sqlml.algorithms.options import all_options, expectation
    from sqlml.registry import get_algorithm, names

    lines: list[str] = []
    for name in names("algorithm"):
        options = all_options(get_algorithm(name))
        if not options:
            continue
        lines += [f"## {name}", "", "| option | default | values | meaning |", "| --- | --- | --- | --- |"]
        for o in options:
            default = "" if o.default is None else f"`{o.default}`"
            lines.append(f"| `{o.name}` | {default} | {expectation(o)} | {o.doc} |")
        lines.append("")
    return "\n".join(lines)


def connections_table() -> str:
    """Every option of every type of connection."""
    from sqlml.connections import CONNECTION_TYPES

    return _options_of(CONNECTION_TYPES)


def runners_table() -> str:
    """Every option of every type of runner."""
    from sqlml.registry import get, names

    return _options_of({name: get("runner_type", name).options for name in names("runner_type")})


def endpoint_options_table() -> str:
    """Every option of an endpoint."""
    from sqlml_dialect.generator import size_text

    from sqlml.algorithms.options import expectation
    from sqlml.endpoint_options import DEPLOY_OPTIONS

    shown: Mapping[str, Callable[[Any], str]] = {
        "bool": lambda v: str(v).lower(),
        "size": size_text,
        "duration": lambda v: f"{v:g} s",
    }
    lines = ["| option | default | values | meaning |", "| --- | --- | --- | --- |"]
    for o in DEPLOY_OPTIONS:
        default = "" if o.default is None else f"`{shown.get(o.type, str)(o.default)}`"
        lines.append(f"| `{o.name}` | {default} | {expectation(o)} | {o.doc} |")
    return "\n".join(lines) + "\n"


def shipping_table() -> str:
    """Every option of every format of EXPORT ENDPOINT."""
    from sqlml.shipping.shipment import OPTIONS

    lines = ["| option | formats | meaning |", "| --- | --- | --- |"]
    formats: dict[tuple[str, str], list[str]] = {}
    for form, options in OPTIONS.items():
        for o in options:
            formats.setdefault((o.name, o.doc), []).append(form)
    for (name, doc), found in formats.items():
        lines.append(f"| `{name}` | {'all' if len(found) == len(OPTIONS) else ', '.join(found)} | {doc} |")
    return "\n".join(lines) + "\n"


def _options_of(types: Mapping[str, Sequence[OptionSpec]]) -> str:
    lines = ["| type | option | meaning |", "| --- | --- | --- |"]
    lines += [f"| {name} | `{o.name}` | {o.doc} |" for name, options in types.items() for o in options]
    return "\n".join(lines) + "\n"


TABLES = {
    "algorithms": algorithms_table,
    "options": options_table,
    "connections": connections_table,
    "runners": runners_table,
    "endpoint_options": endpoint_options_table,
    "shipping": shipping_table,
}
