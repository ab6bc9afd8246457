"""What an endpoint goes on taking when versions leave it: see ``sqlml.earlier_columns`` and ``sqlml.earlier_targets``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from sqlml.catalog import tables as t
from sqlml.catalog.shares import SERVES
from sqlml.earlier_columns import NO_EARLIER, Reader, carried, earlier_columns, with_earlier
from sqlml.earlier_targets import earlier_targets, target_of, with_targets
from sqlml.errors import BundleError
from sqlml.plan import InputColumn, TargetColumn
from sqlml.types import Kind


def carry(c: sa.Connection, before: Mapping[str, Any] | None, state: Mapping[str, Any]) -> dict[str, Any]:
    """A new state of an endpoint with the columns of versions that leave.  Where all of them leave, none of theirs is kept."""
    if before is None:
        return dict(state)
    state = _with_targets(c, before, state)
    roles = {uid: role for uid, role, _ in before["arms"]}
    staying = {uid for uid, _, _ in state["arms"]}
    if state["kind"] != "model" or not staying & roles.keys():
        return {**state, "options": with_earlier(state["options"], NO_EARLIER)}
    leaving = [_reader(c, uid, role) for uid, role in roles.items() if uid not in staying]
    found = carried(earlier_columns(before["options"]), [_reader(c, uid, role) for uid, role, _ in state["arms"]], leaving)
    return {**state, "options": with_earlier(state["options"], found)}


def carry_back(c: sa.Connection, left: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """A state that an endpoint goes back to, with the columns of what it leaves: who has begun to send them is answered on."""
    state = _with_targets(c, left, state)
    if state["kind"] != "model":
        return state
    staying = {uid for uid, _, _ in state["arms"]}
    known = earlier_columns(left["options"])
    leaving = [_reader(c, uid, role) for uid, role, _ in left["arms"] if uid not in staying]
    leaving.append(Reader(known.inputs, known.keys, answers=False))
    found = carried(earlier_columns(state["options"]), [_reader(c, uid, role) for uid, role, _ in state["arms"]], leaving)
    return {**state, "options": with_earlier(state["options"], found)}


def _with_targets(c: sa.Connection, left: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """A state with the targets of versions, or of a query, that have left: also where all have, their truths may come late."""
    earlier = (*earlier_targets(state["options"]), *earlier_targets(left["options"]), *_targets(c, left))
    return {**state, "options": with_targets(state["options"], _targets(c, state), earlier)}


def _targets(c: sa.Connection, state: Mapping[str, Any]) -> list[TargetColumn]:
    """The targets of a state's versions, of a query the columns of its answer; none of versions that were dropped."""
    uids = [uid for uid, _, _ in state["arms"]]
    query = sa.select(t.versions.c.uid, t.versions.c.targets).where(t.versions.c.uid.in_(uids))
    found = {uid: [target_of(document) for document in documents] for uid, documents in c.execute(query)}
    if state["definition"] is None:
        return [target for uid in uids for target in found.get(uid, ())]
    from sqlml.composition.plan import Composition  # only where there is a query: it reads more than a catalog needs
    from sqlml.composition.truths import answer_targets

    classes = {uid: targets[0].classes for uid, targets in found.items() if len(targets) == 1}
    try:
        return answer_targets(Composition.from_json(state["definition"]), classes)
    except BundleError:  # of other days
        return []


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
