"""What an endpoint goes on taking when versions leave it: see ``sqlml.earlier_columns``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from sqlml.catalog import tables as t
from sqlml.catalog.shares import SERVES
from sqlml.earlier_columns import NO_EARLIER, Reader, carried, earlier_columns, with_earlier
from sqlml.plan import InputColumn
from sqlml.types import Kind


def carry(c: sa.Connection, before: Mapping[str, Any] | None, state: Mapping[str, Any]) -> dict[str, Any]:
    """A new state of an endpoint with the columns of versions that leave.  Where all of them leave, none of theirs is kept."""
    if before is None:
        return dict(state)
    roles = {uid: role for uid, role, _ in before["arms"]}
    staying = {uid for uid, _, _ in state["arms"]}
    if state["kind"] != "model" or not staying & roles.keys():
        return {**state, "options": with_earlier(state["options"], NO_EARLIER)}
    leaving = [_reader(c, uid, role) for uid, role in roles.items() if uid not in staying]
    found = carried(earlier_columns(before["options"]), [_reader(c, uid, role) for uid, role, _ in state["arms"]], leaving)
    return {**state, "options": with_earlier(state["options"], found)}


def carry_back(c: sa.Connection, left: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """A state that an endpoint goes back to, with the columns of what it leaves: who has begun to send them is answered on."""
    if state["kind"] != "model":
        return dict(state)
    staying = {uid for uid, _, _ in state["arms"]}
    known = earlier_columns(left["options"])
    leaving = [_reader(c, uid, role) for uid, role, _ in left["arms"] if uid not in staying]
    leaving.append(Reader(known.inputs, known.keys, answers=False))
    found = carried(earlier_columns(state["options"]), [_reader(c, uid, role) for uid, role, _ in state["arms"]], leaving)
    return {**state, "options": with_earlier(state["options"], found)}


def _reader(c: sa.Connection, uid: str, role: str) -> Reader:
    """What a version reads; nothing of one that was dropped."""
    query = (
        sa.select(t.inputs.c.name, t.inputs.c.sql_type, t.inputs.c.kind)
        .join(t.versions, t.inputs.c.version_id == t.versions.c.id)
        .where(t.versions.c.uid == uid)
        .order_by(t.inputs.c.position)
    )
    inputs = [InputColumn(name, sql_type, Kind(kind)) for name, sql_type, kind in c.execute(query)]
    keys = c.execute(sa.select(t.versions.c.key_columns).where(t.versions.c.uid == uid)).scalar_one_or_none()
    return Reader(inputs, tuple(keys or ()), role == SERVES)
