"""EXPLAIN as PostgreSQL's clients write it: DuckDB takes fewer options, and ANALYZE whatever its value is.

A plan in JSON has PostgreSQL's keys, ``[{"Plan": {"Node Type": …, "Plans": […]}}]``, for the tools that draw it.
"""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

from sqlml_dialect.tokens import Token, scan, words

_LEFT_OUT = words("VERBOSE COSTS BUFFERS TIMING SUMMARY SETTINGS WAL GENERIC_PLAN MEMORY SERIALIZE")
"""Options of PostgreSQL's that change what is shown of a plan, not whether it runs."""
_FALSE = ("FALSE", "OFF", "0")
_LONGEST = 100
"""How many tokens of a statement the options are looked for in."""


def plain_explain(text: str) -> str:
    """The text without those of EXPLAIN's options in brackets that DuckDB has not, and without an ANALYZE that is not wanted."""
    read = _options(text)
    if read is None:
        return text
    found, end = read
    wanted = [(name, value) for name, value in found if name not in _LEFT_OUT and not (name == "ANALYZE" and _is_false(value))]
    kept = [f"{name} {value}".strip() for name, value in wanted]
    options = f"({', '.join(kept)}) " if kept else ""
    return f"EXPLAIN {options}{text[end:].lstrip()}"


def wants_json(text: str) -> bool:
    """Whether a text is EXPLAIN of a plan in JSON, which does not run."""
    read = _options(text)
    return read is not None and [(name, value.upper()) for name, value in read[0]] == [("FORMAT", "JSON")]


def plan_json(text: str) -> str:
    """DuckDB's plan in JSON as PostgreSQL's."""
    return json.dumps([{"Plan": _node(node)} for node in json.loads(text)], indent=2)


def _node(node: dict[str, Any]) -> dict[str, Any]:
    facts = dict(node.get("extra_info") or {})
    rows = str(facts.pop("Estimated Cardinality", ""))
    found: dict[str, Any] = {"Node Type": str(node["name"]).strip().replace("_", " ").title()}
    if rows.isdecimal():
        found["Plan Rows"] = int(rows)
    if "Table" in facts:
        found["Relation Name"] = str(facts.pop("Table")).rpartition(".")[2]
    found |= facts
    if node.get("children"):
        found["Plans"] = [_node(child) for child in node["children"]]
    return found


def _options(text: str) -> tuple[list[tuple[str, str]], int] | None:
    """The options in brackets with their values, and where the bracket ends; None where there are none."""
    if text.lstrip()[:7].upper() != "EXPLAIN":
        return None
    tokens = list(islice(scan(text), _LONGEST))
    if (
        [token.key for token in tokens[:2]] != ["EXPLAIN", "("]
        or not tokens[2:]
        or tokens[2].key in ("SELECT", "WITH", "FROM", "(")
    ):
        return None
    found: list[tuple[str, str]] = []
    parts: list[Token] = []
    for token in tokens[2:]:
        if token.key in (",", ")"):
            if parts:
                found.append((parts[0].key, " ".join(part.text for part in parts[1:])))
            if token.key == ")":
                return found, token.end
            parts = []
        else:
            parts.append(token)
    return None


def _is_false(value: str) -> bool:
    return value.upper().strip("'") in _FALSE
