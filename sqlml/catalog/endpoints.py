"""Endpoints as they should be: which versions stand behind which name, with which share of the traffic.  The server polls them.

Every change is one transaction that also writes down what came of it, so that ROLLBACK can go back to what was before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa

from sqlml.catalog import counters
from sqlml.catalog import tables as t
from sqlml.catalog.api_keys import LeftKeys, forget_endpoint
from sqlml.catalog.database import reading, writing
from sqlml.catalog.earlier import carry, carry_back
from sqlml.catalog.files import job_file
from sqlml.catalog.rows import now, user
from sqlml.catalog.shares import SERVES, Share, without
from sqlml.errors import BindError, did_you_mean
from sqlml.home import Home
from sqlml.job_folder import SAMPLE_ROWS
from sqlml.rollout import KEY, guard_of

QUERY_VERSION = "query_version"
"""Under this name the version of a query lies among its endpoint's options."""
_BACK_TO = "back_to"
"""Under this name what a ROLLBACK led to holds the revision that stands again: ROLLBACK itself is nothing to go back to."""
_GONE: Mapping[str, Any] = {"kind": "model", "options": {}, "definition": None, "arms": []}
"""The state that UNDEPLOY leads to: nothing serves, and nothing goes back to it."""


@dataclass(frozen=True)
class Arm:
    """One version behind an endpoint; ``weight`` is its share of the traffic in percent, 0 of what does not serve.

    ``keys`` are the columns that training took as KEY; ``sample`` is where rows of the training may lie.
    """

    model: str
    version: int
    uid: str
    bundle: Path
    sha256: str
    task: str
    role: str = SERVES
    weight: int = 100
    keys: tuple[str, ...] = ()
    sample: Path | None = None

    @property
    def name(self) -> str:
        """``churn@3``."""
        return f"{self.model}@{self.version}"


@dataclass(frozen=True)
class Endpoint:
    """An endpoint as it should be.  The weights of the arms that serve add up to 100; a query's arms are its parts.

    ``options`` are those of DEPLOY … WITH; ``definition`` is what a query computes, None of a model; ``revision`` grows with
    each change, and comes again never, not even after UNDEPLOY.  ``created_at`` is when it was first deployed, ``changed_at``
    when its last change was; None of one that never changes.
    """

    name: str
    arms: tuple[Arm, ...]
    revision: int
    created_at: datetime
    owner: str = ""
    kind: str = "model"
    options: Mapping[str, Any] = field(default_factory=dict)
    definition: Mapping[str, Any] | None = None
    changed_at: datetime | None = None

    @property
    def query_uid(self) -> str | None:
        """What its query is known by, as a version is by its uid: the same for the same models and steps; None of a model."""
        return None if self.definition is None else query_uid(self.definition)

    @property
    def query_version(self) -> int:
        """The number of its query: the revision that it came with.  A change of the options makes no other query."""
        return int(self.options.get(QUERY_VERSION) or self.revision)

    @property
    def main(self) -> Arm:
        """The arm with the largest share, of equal ones the first: its inputs and outputs are what the endpoint shows."""
        return max(self.arms, key=lambda arm: arm.weight)

    @property
    def serving(self) -> tuple[Arm, ...]:
        """The arms that answer."""
        return tuple(arm for arm in self.arms if arm.role == SERVES)

    @property
    def shares(self) -> tuple[Share, ...]:
        """The arms as ``put_endpoint`` takes them."""
        return tuple(Share(arm.uid, arm.role, arm.weight) for arm in self.arms)


def query_uid(definition: Mapping[str, Any]) -> str:
    """What the query of a definition is known by; its example does not count."""
    kept = {name: value for name, value in definition.items() if name != "example"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


class _Deployable(Protocol):
    """A version, as far as it is deployed."""

    @property
    def uid(self) -> str: ...

    @property
    def name(self) -> str: ...


class Endpoints:
    """The endpoints' part of ``Catalog``."""

    home: Home
    _engine: sa.Engine

    def deploy(self, endpoint: str, version: _Deployable) -> int:
        """Put one version behind an endpoint, new or not, with all of its traffic and the options that it has; its revision."""
        found = self.endpoint(endpoint)
        return self.put_endpoint(endpoint, [Share(version.uid)], options=found.options if found else {}, reason="DEPLOY")

    def put_endpoint(
        self,
        endpoint: str,
        shares: Sequence[Share],
        *,
        options: Mapping[str, Any],
        reason: str,
        kind: str = "model",
        definition: Mapping[str, Any] | None = None,
        of: int | None = None,
    ) -> int:
        """Make an endpoint what is given here, new or not; its revision.

        ``of``: the revision that the change was made from, 0 of none.  ``BindError`` where it is another by now, or a version is
        gone.
        """
        arms = [[share.uid, share.role, share.weight] for share in shares]
        state = {"kind": kind, "options": dict(options), "definition": definition, "arms": arms}
        with writing(self._engine) as c:
            if of is not None and _revision_of(c, endpoint) != of:
                raise BindError(
                    f"endpoint {endpoint} was changed by somebody else at the same time", hint="look at it and try again"
                )
            before = _state_of(c, endpoint)
            state = _numbered(c, endpoint, before, carry(c, before, state))
            revision = _put(c, endpoint, state)
            _write_down(c, endpoint, revision, reason, state)
            counters.count_up(c, counters.ENDPOINTS)
        return revision

    def rollback_endpoint(self, endpoint: str, reason: str = "ROLLBACK", *, of: int | None = None) -> int:
        """Make an endpoint what it was before its last change that still stands; its revision.

        A second time goes one change further back.  ``of``: only where the endpoint still has this revision, else nothing is
        done (somebody was quicker).  ``BindError`` where there is nothing to go back to, or a version of then was dropped.
        """
        with writing(self._engine) as c:
            name = _known(c, endpoint)
            if of is not None and _revision_of(c, name) != of:
                return _revision_of(c, name)
            changes = _standing(c, name)
            if len(changes) < 2:
                raise BindError(f"endpoint {name} has no earlier state to go back to", hint="SHOW ENDPOINTS tells what it serves")
            last, before = changes[0], changes[1]
            c.execute(sa.update(t.endpoint_changes).where(t.endpoint_changes.c.id == last["id"]).values(undone=True))
            state = carry_back(c, last["state"], before["state"])
            _change_state(c, before["id"], state)
            revision = _put(c, name, state)
            _write_down(c, name, revision, reason, {**state, _BACK_TO: before["revision"]})
            counters.count_up(c, counters.ENDPOINTS)
        return revision

    def earlier(self, endpoint: str) -> tuple[tuple[Share, ...], Mapping[str, Any]] | None:
        """The arms and options that ROLLBACK would go back to; None where there is nothing to go back to."""
        with reading(self._engine) as c:
            changes = _standing(c, endpoint)
        if len(changes) < 2:
            return None
        state = changes[1]["state"]
        return tuple(Share(*arm) for arm in state["arms"]), state["options"]

    def settle_endpoint(self, endpoint: str, *, promote: bool, reason: str, of: int) -> int | None:
        """End a guarded roll-out: the version that is tried out gets all of the traffic, or leaves, and what was there before it
        comes back, or, where a version of then was dropped, the others take over; the new revision.  What was set otherwise
        meanwhile stays.  ROLLBACK goes to what was before the roll-out.

        None, and nothing is done, where the endpoint has another revision by now or no roll-out.  ``BindError`` where no other
        version is left.
        """
        with writing(self._engine) as c:
            name = _known(c, endpoint)
            [current, *_] = changes = _standing(c, name)
            guard = guard_of(current["state"]["options"])
            if guard is None or _revision_of(c, name) != of:
                return None
            own = [change for change in changes if _tries(change, guard.candidate)]
            before = next((change for change in changes if not _tries(change, guard.candidate)), None)
            before = before if before and _all_there(c, before["state"]) else None
            state = _settled(current["state"], before and before["state"], guard.candidate, promote=promote)
            restored = before if before and state == before["state"] else None
            state = carry(c, current["state"], state) if promote else carry_back(c, current["state"], state)
            if restored:
                _change_state(c, restored["id"], state)
            ids = [change["id"] for change in own]
            c.execute(sa.update(t.endpoint_changes).where(t.endpoint_changes.c.id.in_(ids)).values(undone=True))
            revision = _put(c, name, state)
            _write_down(c, name, revision, reason, {**state, _BACK_TO: restored["revision"]} if restored else state)
            counters.count_up(c, counters.ENDPOINTS)
        return revision

    def undeploy(self, endpoint: str, reason: str = "UNDEPLOY") -> LeftKeys:
        """Remove an endpoint; what becomes of its API keys.  ``BindError`` where there is none of that name."""
        with writing(self._engine) as c:
            keys = _remove(c, _known(c, endpoint), reason)
            counters.count_up(c, counters.ENDPOINTS)
        return keys

    def endpoint(self, name: str) -> Endpoint | None:
        """One endpoint, by its name in any case."""
        return next((e for e in self.endpoints() if e.name.lower() == name.lower()), None)

    def endpoints(self) -> list[Endpoint]:
        """What should be served."""
        arms_query = (
            sa.select(t.arms, t.versions.c.uid, t.versions.c.version, t.versions.c.task, t.versions.c.bundle_sha256,
                      t.versions.c.key_columns, t.versions.c.job_id, t.models.c.name.label("model"))
            .join(t.versions, t.arms.c.version_id == t.versions.c.id)
            .join(t.models, t.versions.c.model_id == t.models.c.id)
            .order_by(t.arms.c.position)
        )  # fmt: skip
        changes = t.endpoint_changes
        last = (changes.c.endpoint == t.endpoints.c.key) & (changes.c.revision == t.endpoints.c.revision)
        query = sa.select(t.endpoints, changes.c.created_at.label("changed_at")).join(changes, last).order_by(t.endpoints.c.key)
        with reading(self._engine) as c:
            rows = [dict(row) for row in c.execute(query).mappings()]
            arms = [dict(row) for row in c.execute(arms_query).mappings()]
        return [self._endpoint(row, [self._arm(arm) for arm in arms if arm["endpoint_id"] == row["id"]]) for row in rows]

    def _endpoint(self, row: Mapping[str, Any], arms: Sequence[Arm]) -> Endpoint:
        return Endpoint(
            row["name"], tuple(arms), row["revision"], row["created_at"], row["owner"],
            row["kind"], row["options"], row["definition"], row["changed_at"],
        )  # fmt: skip

    def _arm(self, row: Mapping[str, Any]) -> Arm:
        sha256 = row["bundle_sha256"]
        return Arm(
            row["model"], row["version"], row["uid"], self.home.bundles / sha256, sha256, row["task"], row["role"], row["weight"],
            tuple(row["key_columns"]), job_file(self.home, row["job_id"], SAMPLE_ROWS),
        )  # fmt: skip

    def endpoint_changes(self) -> list[Mapping[str, Any]]:
        """Every change of every endpoint, the oldest first: endpoint, revision, reason, state, undone, owner, created_at;
        ``stands``: ROLLBACK could go back to it, or it is what the endpoint is.
        """
        with reading(self._engine) as c:
            rows = c.execute(sa.select(t.endpoint_changes).order_by(t.endpoint_changes.c.id)).mappings()
            return [{**row, "stands": _stands(row)} for row in rows]

    def endpoints_revision(self) -> int:
        """A number that grows with every change of an endpoint, of an API key, or of what they all may take."""
        with reading(self._engine) as c:
            return counters.read_counter(c, counters.ENDPOINTS)

    def endpoints_memory(self) -> int | None:
        """How many bytes the models of all endpoints may take; None where nobody has said."""
        with reading(self._engine) as c:
            return counters.read_counter(c, counters.MEMORY) or None

    def set_endpoints_memory(self, size: int | None) -> None:
        """Say how many bytes the models of all endpoints may take; None: as the server was started."""
        with writing(self._engine) as c:
            counters.set_number(c, counters.MEMORY, size)
            counters.count_up(c, counters.ENDPOINTS)


def _uid_of(state: Mapping[str, Any]) -> str | None:
    return None if state["definition"] is None else query_uid(state["definition"])


def _numbered(c: sa.Connection, endpoint: str, before: Mapping[str, Any] | None, state: Mapping[str, Any]) -> dict[str, Any]:
    """A new state with its query's version: that of before where the query is the same."""
    uid = _uid_of(state)
    if uid is None:
        return dict(state)
    if before is not None and _uid_of(before) == uid:
        version = before["options"].get(QUERY_VERSION) or _revision_of(c, endpoint)
    else:
        version = _last_revision(c, endpoint.lower()) + 1
    return {**state, "options": {**state["options"], QUERY_VERSION: version}}


def drop_arms(c: sa.Connection, endpoints: Iterable[str], versions: sa.Select[Any]) -> LeftKeys:
    """Take versions, by a query of their ids, from endpoints: the others take over, and one that nothing is left of goes.

    What becomes of the API keys of those.
    """
    keys = LeftKeys()
    uids = set(c.execute(sa.select(t.versions.c.uid).where(t.versions.c.id.in_(versions))).scalars())
    for name in endpoints:
        before = _standing(c, name)[0]["state"]
        state = dict(before)
        arms = without([Share(*arm) for arm in state["arms"]], uids)
        if not arms:
            keys = keys.and_then(_remove(c, name, "DROP MODEL"))
            continue
        guard = guard_of(state["options"])
        state["arms"] = [[share.uid, share.role, share.weight] for share in arms]
        state["options"] = _unguarded(state["options"]) if guard and guard.candidate in uids else state["options"]
        state = carry(c, before, state)
        _write_down(c, name, _put(c, name, state), "DROP MODEL", state)
    counters.count_up(c, counters.ENDPOINTS)
    return keys


def _remove(c: sa.Connection, name: str, reason: str) -> LeftKeys:
    """An endpoint goes; what it was does not come back under its name.  What becomes of its API keys."""
    key = name.lower()
    revision = _last_revision(c, key) + 1
    c.execute(sa.delete(t.endpoints).where(t.endpoints.c.key == key))
    c.execute(sa.update(t.endpoint_changes).where(t.endpoint_changes.c.endpoint == key).values(undone=True))
    _write_down(c, key, revision, reason, _GONE)
    return forget_endpoint(c, name)


def _settled(current: Mapping[str, Any], before: Mapping[str, Any] | None, candidate: str, *, promote: bool) -> dict[str, Any]:
    """What an endpoint is after a roll-out."""
    shares = [Share(*arm) for arm in current["arms"]]
    if promote:
        arms = [Share(candidate), *(share for share in shares if share.role != SERVES and share.uid != candidate)]
    else:
        arms = without(shares, {candidate}) if before is None else [Share(*arm) for arm in before["arms"]]
    if not arms:
        raise BindError("there is no other version to go back to", hint="SHOW ENDPOINTS tells what it serves")
    own = [[share.uid, share.role, share.weight] for share in arms]
    return {**current, "options": _unguarded(current["options"]), "arms": own}


def _all_there(c: sa.Connection, state: Mapping[str, Any]) -> bool:
    """Whether no version of a state was dropped."""
    uids = {uid for uid, _, _ in state["arms"]}
    return len(c.execute(sa.select(t.versions.c.uid).where(t.versions.c.uid.in_(uids))).all()) == len(uids)


def _tries(change: Mapping[str, Any], candidate: str) -> bool:
    """Whether a change belongs to the roll-out of a version."""
    guard = guard_of(change["state"]["options"])
    return guard is not None and guard.candidate == candidate


def _unguarded(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != KEY}


def _put(c: sa.Connection, endpoint: str, state: Mapping[str, Any]) -> int:
    """Write an endpoint and its arms; its revision."""
    key = endpoint.lower()
    versions = {uid: _version_id(c, uid) for uid, _, _ in state["arms"]}
    revision = _last_revision(c, key) + 1
    values = {name: state[name] for name in ("kind", "options", "definition")} | {"revision": revision}
    if c.execute(sa.update(t.endpoints).where(t.endpoints.c.key == key).values(values)).rowcount == 0:
        c.execute(sa.insert(t.endpoints).values(values | {"name": endpoint, "key": key, "owner": user(), "created_at": now()}))
    endpoint_id = c.execute(sa.select(t.endpoints.c.id).where(t.endpoints.c.key == key)).scalar_one()
    c.execute(sa.delete(t.arms).where(t.arms.c.endpoint_id == endpoint_id))
    for position, (uid, role, weight) in enumerate(state["arms"], 1):
        arm = {"endpoint_id": endpoint_id, "version_id": versions[uid], "position": position, "role": role, "weight": weight}
        c.execute(sa.insert(t.arms).values(arm))
    return revision


def _version_id(c: sa.Connection, uid: str) -> int:
    found = c.execute(sa.select(t.versions.c.id).where(t.versions.c.uid == uid)).scalar_one_or_none()
    if found is None:
        raise BindError("a version that was to be served was dropped meanwhile", hint="SHOW MODELS lists what there is")
    return int(found)


def _write_down(c: sa.Connection, endpoint: str, revision: int, reason: str, state: Mapping[str, Any]) -> None:
    row = {"endpoint": endpoint.lower(), "revision": revision, "reason": reason, "state": dict(state), "undone": False}
    c.execute(sa.insert(t.endpoint_changes).values(row | {"owner": user(), "created_at": now()}))


def _change_state(c: sa.Connection, change: int, state: Mapping[str, Any]) -> None:
    """What the endpoint is by a change that stands again: only the columns that it takes for others' sake are more."""
    c.execute(sa.update(t.endpoint_changes).where(t.endpoint_changes.c.id == change).values(state=dict(state)))


def _standing(c: sa.Connection, endpoint: str) -> list[Mapping[str, Any]]:
    """The changes that were not rolled back and that are no rollbacks, the newest first."""
    own = (t.endpoint_changes.c.endpoint == endpoint.lower()) & ~t.endpoint_changes.c.undone
    query = sa.select(t.endpoint_changes).where(own).order_by(t.endpoint_changes.c.id.desc())
    return [dict(row) for row in c.execute(query).mappings() if _stands(row)]


def _stands(change: Mapping[str, Any] | sa.RowMapping) -> bool:
    state = change["state"]
    return not change["undone"] and _BACK_TO not in state and bool(state["arms"])


def _state_of(c: sa.Connection, endpoint: str) -> Mapping[str, Any] | None:
    """What an endpoint is now; None where there is none."""
    return _standing(c, endpoint)[0]["state"] if _revision_of(c, endpoint) else None


def _last_revision(c: sa.Connection, key: str) -> int:
    last = sa.select(sa.func.max(t.endpoint_changes.c.revision)).where(t.endpoint_changes.c.endpoint == key)
    return int(c.execute(last).scalar() or 0)


def _revision_of(c: sa.Connection, endpoint: str) -> int:
    """An endpoint's revision, 0 where there is none."""
    return int(c.execute(sa.select(t.endpoints.c.revision).where(t.endpoints.c.key == endpoint.lower())).scalar() or 0)


def _known(c: sa.Connection, endpoint: str) -> str:
    """The endpoint's name as it was first written.  ``BindError`` where there is none of that name."""
    names: Sequence[str] = c.execute(sa.select(t.endpoints.c.name)).scalars().all()
    found = next((name for name in names if name.lower() == endpoint.lower()), None)
    if found is None:
        hint = did_you_mean(endpoint, names) or ("SHOW ENDPOINTS lists all" if names else "nothing is deployed")
        raise BindError(f"unknown endpoint {endpoint}", hint=hint)
    return found
