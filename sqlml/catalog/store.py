"""The catalog: every question and every change, each in one transaction.

A version's row is written only when its training has finished and its bundle lies in place, in the same transaction that counts
the version up: a process killed at any moment leaves no half-made version.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from sqlml.catalog import counters, files, rows
from sqlml.catalog import tables as t
from sqlml.catalog.api_keys import ApiKeys, LeftKeys
from sqlml.catalog.claim import Claim, claim_of
from sqlml.catalog.database import Watch, absolute_url, insert_all, insert_one, open_database, reading, writing
from sqlml.catalog.endpoints import Endpoints
from sqlml.catalog.functions import Functions, undeploy_versions
from sqlml.catalog.jobs import Job, Jobs
from sqlml.catalog.resources import Resources
from sqlml.catalog.rows import now, user
from sqlml.contracts import FunctionSignature
from sqlml.errors import BindError, OperationalError, UnknownModel, UnknownVersion, did_you_mean
from sqlml.home import Home
from sqlml.job_folder import BUNDLE
from sqlml.plan import InputColumn, TargetColumn, TrainOutcome, TrainPlan
from sqlml.types import Kind, Task


@dataclass(frozen=True)
class Version:
    """A version of a model, as everybody else needs it."""

    uid: str
    model: str
    version: int
    algorithm: str
    task: Task
    targets: tuple[TargetColumn, ...]
    key: tuple[str, ...]
    inputs: tuple[InputColumn, ...]
    result: str  # the SQL type of PREDICT
    added: tuple[tuple[str, str], ...]  # the columns that PREDICT MODEL adds, with their SQL types
    bundle: Path
    sha256: str
    job_id: int
    statement: str
    split: str
    heldout_rows: int
    rows: int
    example: Mapping[str, Any]
    origin: str | None  # where an imported version came from

    @property
    def name(self) -> str:
        """``churn@3``"""
        return f"{self.model}@{self.version}"

    @property
    def target(self) -> str | None:
        """The only target, or the first of several."""
        return self.targets[0].name if self.targets else None

    @property
    def classes(self) -> tuple[Any, ...]:
        """The classes of the only target, in the order of the probabilities; empty where there are none, or several targets."""
        return self.targets[0].classes if len(self.targets) == 1 else ()

    @property
    def signature(self) -> FunctionSignature:
        """What its functions take and give."""
        return FunctionSignature(tuple((i.name, i.kind) for i in self.inputs), self.result, self.added)


def _check_not_lost(home: Home) -> None:
    """A new catalog beside bundles would say that there are no models, and take what is served out of service."""
    if home.catalog.exists() or not home.catalog_mark.exists() or not home.bundles.is_dir() or not any(home.bundles.iterdir()):
        return
    raise OperationalError(
        f"{home.catalog} is not there, and {home.bundles} has models",
        hint="put the file back, or say where their catalog is: catalog=…; to begin anew move the folder bundles away",
    )


class Catalog(Jobs, Endpoints, ApiKeys, Resources, Functions):
    """The catalog of one home.  Safe to use from many threads and processes at once."""

    def __init__(self, home: Home, engine: sa.Engine, url: str) -> None:
        self.home = home
        self.url = url
        self._engine = engine
        self._watch = Watch(engine)
        weakref.finalize(self, engine.dispose).atexit = False  # where nobody closes it
        self._known: tuple[object, dict[str, Any]] = (None, {})  # what was asked, at a moment of the watch

    @classmethod
    def open(cls, home: Path, url: str | None = None) -> Catalog:
        """Open, and make where it is not there yet.  ``OperationalError`` where that cannot be, or where it has been lost."""
        place = Home(home)
        if url is None:
            _check_not_lost(place)
        address = absolute_url(url or place.catalog_url)
        place.create()
        engine = open_database(address)
        if url is None and not place.catalog_mark.exists():
            with suppress(OSError):  # a full disk: the next time
                place.catalog_mark.write_text(f"The models of this folder are in {place.catalog.name}.\n", encoding="utf-8")
        return cls(place, engine, address)

    def close(self) -> None:
        self._watch.close()
        self._engine.dispose()

    def claim_serving(self, who: str) -> Claim:
        """The claim to serve the endpoints, for the time of a ``with``; ``who``: as another server is to hear it."""
        return claim_of(self._engine, self.url, self.home.folder, who)

    def endpoints_revision(self) -> int:
        """A number that grows with every change of an endpoint or of an API key; cheap to ask where nothing changed."""
        revision: int = self.remembered("endpoints_revision", super().endpoints_revision)
        return revision

    def moment(self) -> object:
        """Equal as long as nothing in the catalog changes; of a database that does not tell, never."""
        return self._watch.moment()

    def remembered(self, key: str, ask: Callable[[], Any]) -> Any:
        """An answer, asked again only when the catalog has changed."""
        moment = self._watch.moment()
        if self._known[0] != moment:
            self._known = (moment, {})
        answers = self._known[1]
        if key not in answers:
            answers[key] = ask()
        return answers[key]

    def publish(self, plan: TrainPlan, outcome: TrainOutcome, job: Job, origin: str | None = None) -> Version:
        """Make a finished job's bundle the next version of its model: all of it, or nothing.

        ``origin`` says where an imported version came from.  A model that was renamed meanwhile gets it under its new name.
        """
        from sqlml.bundles.model import Model

        model = Model.open(job.folder / BUNDLE, outcome.bundle_sha256)
        with writing(self._engine) as c:
            name = c.execute(sa.select(t.jobs.c.model).where(t.jobs.c.id == job.id)).scalar() or plan.model
            plan = replace(plan, model=name)
            files.place_bundle(self.home, job.folder / BUNDLE, outcome.bundle_sha256)
            model_id, number = _next_version(c, name)
            version_id = insert_one(c, t.versions, rows.version_row(plan, outcome, model, job.id, model_id, number, origin))
            insert_all(c, t.inputs, rows.input_rows(version_id, model.inputs, outcome.encodings))
            insert_all(c, t.metrics, rows.metric_rows(version_id, outcome.metrics))
            insert_all(c, t.curves, [rows.curve_row(version_id, *point) for point in outcome.curves])
            insert_all(c, t.trials, rows.trial_rows(version_id, outcome.trials))
            c.execute(sa.update(t.jobs).where(t.jobs.c.id == job.id).values(state="done", version=number, finished_at=now()))
            counters.count_up(c, counters.MODELS)
        return self.resolve(name, number)

    def resolve(self, name: str, version: int | None = None, alias: str | None = None) -> Version:
        """The version that a reference means.  ``BindError`` names the nearest model or the versions that there are."""
        key = f"{name.lower()}@{version}@{alias}"
        found: Version = self.remembered(key, lambda: self._resolve(name, version, alias))
        return found

    def _resolve(self, name: str, version: int | None, alias: str | None) -> Version:
        with reading(self._engine) as c:
            model = self._model(c, name)
            number = version if version is not None else self._number(c, model, alias)
            query = sa.select(t.versions).where(t.versions.c.model_id == model["id"])
            row = (
                c.execute(query.where(t.versions.c.version == number) if number else query.order_by(sa.desc("version")))
                .mappings()
                .first()
            )
            if row is None:
                have = c.execute(
                    sa.select(t.versions.c.version).where(t.versions.c.model_id == model["id"]).order_by("version")
                ).scalars()
                raise UnknownVersion(
                    f"model {model['name']} has no version {number}", hint=f"it has: {', '.join(map(str, have)) or 'none'}"
                )
            inputs = c.execute(sa.select(t.inputs).where(t.inputs.c.version_id == row["id"]).order_by("position"))
            return self._version(model["name"], dict(row), [dict(i) for i in inputs.mappings()])

    def by_uid(self, uid: str) -> Version:
        """A version by its uid.  ``BindError`` where it is gone."""
        query = sa.select(t.models.c.name, t.versions.c.version).join(t.versions).where(t.versions.c.uid == uid)
        rows = self.rows(query)
        if not rows:
            raise BindError("the version was dropped meanwhile")
        return self.resolve(rows[0]["name"], rows[0]["version"])

    def _model(self, c: sa.Connection, name: str) -> Mapping[str, Any]:
        row = c.execute(sa.select(t.models).where(t.models.c.key == name.lower())).mappings().first()
        if row is None:
            known = c.execute(sa.select(t.models.c.name)).scalars().all()
            none = "there are no models yet: TRAIN MODEL makes one"
            hint = did_you_mean(name, known) or ("SHOW MODELS lists all" if known else none)
            raise UnknownModel(f"unknown model {name}", hint=hint)
        return dict(row)

    def _number(self, c: sa.Connection, model: Mapping[str, Any], alias: str | None) -> int | None:
        key = (alias or "champion").lower()
        rows = dict(c.execute(sa.select(t.aliases.c.alias, t.aliases.c.version).where(t.aliases.c.model_id == model["id"])).all())
        if alias is not None and key not in rows:
            raise UnknownVersion(
                f"model {model['name']} has no alias {alias}",
                hint=did_you_mean(alias, rows) or f"ALTER MODEL {model['name']} SET ALIAS {alias} = <version> makes one",
            )
        return rows.get(key)

    def _version(self, model: str, row: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]]) -> Version:
        return Version(
            uid=row["uid"],
            model=model,
            version=row["version"],
            algorithm=row["algorithm"],
            task=Task(row["task"]),
            targets=tuple(TargetColumn(c["name"], c["sql_type"], Task(c["task"]), tuple(c["classes"])) for c in row["targets"]),
            key=tuple(row["key_columns"]),
            result=row["result"],
            added=tuple((name, sql_type) for name, sql_type in row["added"]),
            inputs=tuple(InputColumn(i["name"], i["sql_type"], Kind(i["kind"])) for i in inputs),
            bundle=self.home.bundles / row["bundle_sha256"],
            sha256=row["bundle_sha256"],
            job_id=row["job_id"],
            statement=row["statement"],
            split=row["split"],
            heldout_rows=row["heldout_rows"],
            rows=row["rows"],
            example=row["example"],
            origin=row["origin"],
        )

    def model_names(self) -> tuple[str, ...]:
        """The models there are; cheap enough to ask with every statement."""
        names: tuple[str, ...] = self.remembered("names", self._model_names)
        return names

    def _model_names(self) -> tuple[str, ...]:
        return tuple(row["name"] for row in self.rows(sa.select(t.models.c.name).order_by("key")))

    def metrics(self, uid: str, split: str) -> dict[str, float | None]:
        """A version's figures, in their order."""
        query = (
            sa.select(t.metrics.c.metric, t.metrics.c.value)
            .join(t.versions, t.versions.c.id == t.metrics.c.version_id)
            .where(t.versions.c.uid == uid, t.metrics.c.split == split)
            .order_by(t.metrics.c.position)
        )
        return {row["metric"]: row["value"] for row in self.rows(query)}

    def describe(self, uid: str) -> Mapping[str, Any]:
        """Everything that a version keeps, as one row; ``inputs`` is a list of rows."""
        [row] = self.rows(sa.select(t.versions).where(t.versions.c.uid == uid))
        row["inputs"] = self.rows(sa.select(t.inputs).where(t.inputs.c.version_id == row["id"]).order_by("position"))
        return row

    def plan(self, uid: str) -> TrainPlan:
        """How a version was trained.  ``BindError`` for one made before plans were kept."""
        [row] = self.rows(sa.select(t.versions.c.plan, t.versions.c.version).where(t.versions.c.uid == uid))
        if row["plan"] is None:
            raise BindError(f"version {row['version']} was trained by an older sqlml, which kept no plan", hint="train it again")
        return TrainPlan.from_json(row["plan"])

    def outcome(self, uid: str) -> TrainOutcome:
        """What a version's job left behind."""
        [row] = self.rows(sa.select(t.versions).where(t.versions.c.uid == uid))

        def own(table: sa.Table, *order: Any) -> list[dict[str, Any]]:
            return self.rows(sa.select(table).where(table.c.version_id == row["id"]).order_by(*order))

        curves = own(t.curves, t.curves.c.step, t.curves.c.split, t.curves.c.metric)
        metrics = own(t.metrics, sa.desc(t.metrics.c.split), t.metrics.c.position)
        return rows.read_outcome(row, own(t.inputs, t.inputs.c.position), metrics, curves, own(t.trials, t.trials.c.trial))

    def unset_alias(self, name: str, alias: str) -> None:
        """Take an alias away.  ``UnknownVersion`` where there is none of that name."""
        with writing(self._engine) as c:
            model = self._model(c, name)
            self._number(c, model, alias)  # says which there are
            c.execute(sa.delete(t.aliases).where(t.aliases.c.model_id == model["id"], t.aliases.c.alias == alias.lower()))
            counters.count_up(c, counters.MODELS)

    def set_tag(self, name: str, version: int | None, tag: str, value: str) -> None:
        """Give a model, or one of its versions, a tag; an earlier value of it is replaced."""
        with writing(self._engine) as c:
            model = self._model(c, name)
            mine = self._tag(c, model, version, tag)
            c.execute(sa.delete(t.tags).where(mine))
            row = {"model_id": model["id"], "version": version or 0, "tag": tag.lower(), "value": value}
            c.execute(sa.insert(t.tags).values(row | {"owner": user(), "created_at": now()}))

    def unset_tag(self, name: str, version: int | None, tag: str) -> None:
        """Take a tag away.  ``BindError`` where there is none of that name."""
        with writing(self._engine) as c:
            model = self._model(c, name)
            if c.execute(sa.delete(t.tags).where(self._tag(c, model, version, tag))).rowcount == 0:
                known = c.execute(
                    sa.select(t.tags.c.tag).where(t.tags.c.model_id == model["id"], t.tags.c.version == (version or 0))
                ).scalars()
                what = model["name"] if version is None else f"{model['name']}@{version}"
                raise BindError(
                    f"{what} has no tag {tag}", hint=did_you_mean(tag, list(known)) or "SELECT * FROM sqlml.tags lists all"
                )

    def _tag(self, c: sa.Connection, model: Mapping[str, Any], version: int | None, tag: str) -> Any:
        self._need_version(c, model, version)
        return sa.and_(t.tags.c.model_id == model["id"], t.tags.c.version == (version or 0), t.tags.c.tag == tag.lower())

    def _need_version(self, c: sa.Connection, model: Mapping[str, Any], version: int | None) -> None:
        own = sa.select(t.versions.c.id).where(t.versions.c.model_id == model["id"], t.versions.c.version == version)
        if version is not None and c.execute(own).first() is None:
            raise UnknownVersion(f"model {model['name']} has no version {version}")

    def set_comment(self, name: str, version: int | None, comment: str | None) -> None:
        """Say something about a model, or about one of its versions; None takes it away."""
        with writing(self._engine) as c:
            model = self._model(c, name)
            self._need_version(c, model, version)
            table = t.models if version is None else t.versions
            mine = table.c.id == model["id"]
            if version is not None:
                mine = sa.and_(t.versions.c.model_id == model["id"], t.versions.c.version == version)
            c.execute(sa.update(table).where(mine).values(comment=comment))

    def rename(self, name: str, new: str) -> None:
        """Give a model another name, under which its versions, aliases, tags and endpoints go on."""
        with writing(self._engine) as c:
            model = self._model(c, name)
            taken = c.execute(sa.select(t.models.c.name).where(t.models.c.key == new.lower())).scalar()
            if taken is not None and new.lower() != name.lower():
                raise BindError(f"there is a model {taken} already", hint="choose another name, or DROP MODEL it first")
            dropped = counters.last_version(c, new)
            values = {"name": new, "key": new.lower(), "last_version": max(model["last_version"], dropped)}
            c.execute(sa.update(t.models).where(t.models.c.id == model["id"]).values(values))
            if new.lower() != name.lower():
                counters.remember_last(c, model)
            _rename_running(c, name, new)
            counters.count_up(c, counters.MODELS)
            counters.count_up(c, counters.ENDPOINTS)

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias at a version that exists."""
        self.resolve(name, version)
        with writing(self._engine) as c:
            model = self._model(c, name)
            c.execute(sa.delete(t.aliases).where(t.aliases.c.model_id == model["id"], t.aliases.c.alias == alias.lower()))
            row = {"model_id": model["id"], "alias": alias.lower(), "version": version, "owner": user(), "created_at": now()}
            c.execute(sa.insert(t.aliases).values(row))
            counters.count_up(c, counters.MODELS)

    def drop(self, name: str, version: int | None, *, cascade: bool) -> LeftKeys:
        """Remove a version, or a model with all of them.  Refused while deployed, unless ``cascade`` undeploys it too.

        What becomes of the API keys of endpoints that nothing is left of.

        Functions in databases are only forgotten: whoever can reach the database removes them there first.
        """
        with writing(self._engine) as c:
            model = self._model(c, name)
            chosen = sa.select(t.versions.c.id).where(t.versions.c.model_id == model["id"])
            if version is not None:
                chosen = chosen.where(t.versions.c.version == version)
                if c.execute(chosen).first() is None:
                    raise UnknownVersion(f"model {model['name']} has no version {version}")
            what = model["name"] if version is None else f"{model['name']}@{version}"
            keys = undeploy_versions(c, chosen, what, cascade=cascade)
            bundles, jobs = self._delete_versions(c, model, version)
            counters.count_up(c, counters.MODELS)
        self._remove_files(bundles, jobs)  # only now: had the transaction failed, the versions would be there without them
        return keys

    def _remove_files(self, bundles: set[str], jobs: set[int]) -> None:
        """Remove what no version has any more; bundles that a crash leaves there are found by ``recover``."""
        with writing(self._engine) as c:  # nobody publishes meanwhile
            again = c.execute(sa.select(t.versions.c.bundle_sha256).where(t.versions.c.bundle_sha256.in_(bundles)))
            files.remove_bundles(self.home, bundles - set(again.scalars()))
        files.remove_heldout(self.home, jobs)

    def _delete_versions(self, c: sa.Connection, model: Mapping[str, Any], version: int | None) -> tuple[set[str], set[int]]:
        """Delete the rows of a version, or of a model with all of them; the bundles and jobs that were theirs."""
        own = t.versions.c.model_id == model["id"]
        which = own if version is None else sa.and_(own, t.versions.c.version == version)
        bundles = set(c.execute(sa.select(t.versions.c.bundle_sha256).where(which)).scalars())
        jobs = set(c.execute(sa.select(t.versions.c.job_id).where(which)).scalars())
        ids = sa.select(t.versions.c.id).where(which)
        for table in (t.inputs, t.metrics, t.curves, t.trials):
            c.execute(sa.delete(table).where(table.c.version_id.in_(ids)))
        c.execute(sa.delete(t.versions).where(which))
        gone = t.aliases.c.model_id == model["id"]
        c.execute(sa.delete(t.aliases).where(gone if version is None else sa.and_(gone, t.aliases.c.version == version)))
        tagged = t.tags.c.model_id == model["id"]
        c.execute(sa.delete(t.tags).where(tagged if version is None else sa.and_(tagged, t.tags.c.version == version)))
        if c.execute(sa.select(t.versions.c.id).where(own)).first() is None:
            c.execute(sa.delete(t.aliases).where(gone))
            c.execute(sa.delete(t.tags).where(tagged))
            c.execute(sa.delete(t.models).where(t.models.c.id == model["id"]))
            counters.remember_last(c, model)
        return bundles, jobs

    def models_revision(self) -> int:
        """A number that grows with every change of what a model reference means; cheap enough to ask with every statement."""
        return int(self.remembered("revision", self._models_revision))

    def _models_revision(self) -> int:
        with reading(self._engine) as c:
            return counters.read_counter(c, counters.MODELS)

    def rows(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        """Rows of a question over the catalog's tables (for the relations of the schema ``sqlml``)."""
        with reading(self._engine) as c:
            return [dict(row) for row in c.execute(query).mappings()]


# --- pieces -----------------------------------------------------------------------------------------------------------


def _next_version(c: sa.Connection, name: str) -> tuple[int, int]:
    row = c.execute(sa.select(t.models).where(t.models.c.key == name.lower())).mappings().first()
    if row is None:
        before = counters.last_version(c, name)
        values = {"name": name, "key": name.lower(), "last_version": before + 1, "owner": user(), "created_at": now()}
        return insert_one(c, t.models, values), before + 1
    number = row["last_version"] + 1
    c.execute(sa.update(t.models).where(t.models.c.id == row["id"]).values(last_version=number))
    return row["id"], number


def _rename_running(c: sa.Connection, name: str, new: str) -> None:
    """What is being trained goes to the model under its new name."""
    running = c.execute(sa.select(t.jobs.c.id, t.jobs.c.model).where(t.jobs.c.state == "running")).all()
    its = [number for number, model in running if model.lower() == name.lower()]
    c.execute(sa.update(t.jobs).where(t.jobs.c.id.in_(its)).values(model=new))
