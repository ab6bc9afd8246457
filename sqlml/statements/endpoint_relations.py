"""The rows of the relations about endpoints: what is served and how it goes, how all are, what was changed, who may ask."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa

from sqlml.algorithms.options import expectation
from sqlml.bundles.runtimes import read_crossovers, runtimes_path
from sqlml.catalog import Arm, Catalog, Endpoint, Share
from sqlml.catalog import tables as t
from sqlml.catalog.rows import now
from sqlml.catalog.shares import SERVES
from sqlml.contracts import ArmState, EndpointState
from sqlml.endpoint_options import KEPT_OPTIONS, SERVER_DEFAULTS, SERVER_OPTIONS, own_options, settings
from sqlml.home import endpoint_url
from sqlml.rollout import Guard, guard_of
from sqlml.server_settings import read_settings
from sqlml.statements.endpoint_copies import copies_text

Rows: TypeAlias = list[dict[str, Any]]
States: TypeAlias = Callable[[], tuple[str | None, Mapping[str, EndpointState]]]
"""The endpoint server's base URL (None: not running) and the state of each endpoint."""


def endpoint_rows(catalog: Catalog, states: States) -> Rows:
    """A row for each version behind each endpoint, with the figures of the running server."""
    desired = catalog.endpoints()
    base, known = states() if desired else (None, {})
    rows: Rows = []
    for endpoint in desired:
        seen = known.get(endpoint.name.lower())
        figures = {arm.uid: arm for arm in seen.arms} if seen else {}
        shared = _endpoint(endpoint, base, seen) | {"look_ups": copies_text(catalog, endpoint)}
        rows += [shared | _arm(arm, endpoint, shared["state"], figures.get(arm.uid)) for arm in endpoint.arms]
    return rows


def _endpoint(endpoint: Endpoint, base: str | None, seen: EndpointState | None) -> dict[str, Any]:
    """What all versions of an endpoint share."""
    state = "stopped" if base is None else seen.state if seen and seen.revision >= endpoint.revision else "loading"
    options = own_options(endpoint.options)
    return {
        "endpoint": endpoint.name,
        "url": endpoint_url(base, endpoint.name) if base else None,
        "state": state,
        "error": seen.error if seen else None,
        "replicas": seen.replicas if seen else None,
        "queue": seen.queue if seen else None,
        "options": json.dumps(options, ensure_ascii=False),
        "revision": endpoint.revision,
        "owner": endpoint.owner,
        "created_at": endpoint.created_at,
        "changed_at": endpoint.changed_at,
    }


def _arm(arm: Arm, endpoint: Endpoint, state: str, seen: ArmState | None) -> dict[str, Any]:
    """What is a version's own: in a state of its own where the server tells it of the newest revision."""
    guard = guard_of(endpoint.options)
    row: dict[str, Any] = {"version": arm.name, "role": arm.role, "traffic": arm.weight if arm.role == SERVES else None}
    measured = read_crossovers(runtimes_path(arm.bundle.parent.parent, arm.sha256), here=False)
    row["runtime"] = measured.text() if measured else None
    row["rollout"] = guard_text(guard) if guard and guard.candidate == arm.uid else None
    if seen is None:
        return row
    row |= {"requests": seen.requests, "errors": seen.errors, "latency_p50": seen.latency_p50, "latency_p99": seen.latency_p99}
    return row | ({"state": seen.state, "error": seen.error} if state not in ("stopped", "loading") else {})


def guard_text(guard: Guard) -> str:
    """``promote_after = 1000, max_error_rate = 0.01``, lengths of time in ms."""
    given = {
        "promote_after": guard.promote_after,
        "max_error_rate": guard.max_error_rate,
        "max_latency": None if guard.max_latency is None else f"'{guard.max_latency * 1000:g} ms'",
        "metric": None if guard.metric is None else f"'{guard.metric}'",
        "tolerance": guard.tolerance if guard.metric else None,
        "min_feedback": guard.min_feedback if guard.metric else None,
    }
    return ", ".join(f"{name} = {value:g}" if isinstance(value, float) else f"{name} = {value}"
                     for name, value in given.items() if value is not None)  # fmt: skip


def option_rows(catalog: Catalog) -> Rows:
    """Every option of every endpoint: its value, and whether it is the endpoint's own."""
    return [
        {
            "endpoint": endpoint.name,
            "option": spec.name,
            "value": None if value is None else str(value),
            "own": spec.name in endpoint.options,
            "values": expectation(spec),
            "description": spec.doc,
        }
        for endpoint in catalog.endpoints()
        for spec, value in zip(KEPT_OPTIONS, settings(endpoint.options).values(), strict=True)
    ]


def setting_rows(catalog: Catalog) -> Rows:
    """Every option of the endpoints' server on this machine: its value (none: as by default), and what it may be."""
    given = read_settings(catalog.home.folder) | {"memory": catalog.endpoints_memory()}
    return [
        {
            "option": spec.name,
            "value": None if given.get(spec.name) is None else str(given[spec.name]),
            "default": SERVER_DEFAULTS.get(spec.name),
            "values": expectation(spec),
            "description": spec.doc,
        }
        for spec in SERVER_OPTIONS
    ]


def change_rows(catalog: Catalog) -> Rows:
    """Every change of every endpoint, the oldest first."""
    query = sa.select(t.versions.c.uid, t.versions.c.version, t.models.c.name).join(t.models)
    names = {row["uid"]: f"{row['name']}@{row['version']}" for row in catalog.rows(query)}
    rows: Rows = []
    for change in catalog.endpoint_changes():
        state = change["state"]
        options = own_options(state["options"])
        row = {"versions": shares_text([Share(*arm) for arm in state["arms"]], names) or None, "options": json.dumps(options)}
        guard = guard_of(state["options"])
        rows.append({**change, **row, "rollout": guard_text(guard) if guard else None})
    return rows


def shares_text(shares: Sequence[Share], names: Mapping[str, str]) -> str:
    """``churn@3``, and of several ``churn@3 90 %, churn@4 10 %, churn@5 shadow``; a version that is gone is so."""
    shown = [(names.get(share.uid, "a dropped version"), share) for share in shares]
    if len(shown) == 1:
        return shown[0][0]
    return ", ".join(f"{name} {share.weight} %" if share.role == SERVES else f"{name} {share.role}" for name, share in shown)


def endpoint_text(endpoint: Endpoint) -> str:
    """The same of an endpoint as it is."""
    return shares_text(endpoint.shares, {arm.uid: arm.name for arm in endpoint.arms})


def key_rows(catalog: Catalog) -> Rows:
    """API keys, without anything that opens an endpoint: ``secrets`` counts those that are valid now."""
    moment = now()
    return [
        {
            "api_key": key.name,
            "prefix": key.prefix,
            "endpoints": list(key.endpoints) or None,
            "rate_limit": key.rate_limit,
            "secrets": len(key.valid_hashes(moment)),
            "expires_at": key.expires_at,
            "owner": key.owner,
            "created_at": key.created_at,
        }
        for key in catalog.api_keys()
    ]
