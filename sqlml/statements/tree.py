"""A plan as a tree of frozen nodes, and its two forms: lines that a person reads, and JSON that a program does.

As JSON a node is an object: ``node`` (its name), its fields, and ``children``, a list of nodes, where it has any.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlml.statements.result import Result, rows_result
from sqlml.types import label_text


@dataclass(frozen=True)
class PlanNode:
    """One thing that a statement would do.

    ``fields`` are its properties in order, JSON values; None and empty ones are left out of the lines.  ``title`` is its line
    where its name does not say enough; ``lines`` are what a person reads instead of the fields (none: the title says all);
    ``hidden`` are fields that only a program wants to see.
    """

    name: str
    fields: Mapping[str, Any]
    children: tuple[PlanNode, ...] = ()
    title: str = ""
    lines: tuple[str, ...] | None = None
    hidden: tuple[str, ...] = ()


def tree_result(root: PlanNode, form: str | None) -> Result:
    """The column ``plan``: a row for each line, or one row of JSON."""
    lines = [json.dumps(tree_json(root), ensure_ascii=False, indent=2, default=str)] if form == "json" else list(tree_lines(root))
    return rows_result([{"plan": line} for line in lines], [("plan", "string")])


def tree_json(node: PlanNode) -> dict[str, Any]:
    """The node as a JSON object."""
    document = {"node": node.name, **node.fields}
    return document | {"children": [tree_json(child) for child in node.children]} if node.children else document


def tree_lines(node: PlanNode) -> Iterator[str]:
    """The node's own line, then its fields and children as branches."""
    yield node.title or node.name.replace("_", " ")
    if node.lines is None:
        shown = {name: value for name, value in node.fields.items() if name not in node.hidden}
        leaves = [_leaf(name, value) for name, value in shown.items() if value not in (None, "", [], {})]
    else:
        leaves = [[line] for line in node.lines]
    branches = [*leaves, *(list(tree_lines(child)) for child in node.children)]
    for number, branch in enumerate(branches, 1):
        last = number == len(branches)
        yield f"{'└─' if last else '├─'} {branch[0]}"
        yield from (f"{'   ' if last else '│  '}{line}" for line in branch[1:])


def _leaf(name: str, value: Any) -> list[str]:
    """``name: value``; a text of several lines stands below its name, as it is."""
    text = _text(value)
    label = name.replace("_", " ")
    return [f"{label}:", *(f"  {line}" for line in text.splitlines())] if "\n" in text else [f"{label}: {text}"]


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} = {_text(item)}" for name, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else label_text(value)
