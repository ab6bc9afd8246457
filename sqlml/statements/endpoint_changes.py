"""What a statement makes of an endpoint: its versions with their shares, its options, the guard of a roll-out.

DEPLOY, ALTER ENDPOINT → EndpointChange (all checked, nothing written) → applied, or shown by EXPLAIN
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from sqlml_dialect import AlterEndpoint, Deploy, Ident, ModelRef, Option, SetOptions, SetTraffic, Span

from sqlml.algorithms.options import got
from sqlml.binder.models import check_name, resolve_model
from sqlml.binder.options import bind_option, option_span
from sqlml.binder.parameters import Parameters
from sqlml.catalog import Catalog, Endpoint, Share, Version
from sqlml.catalog.shares import SERVES, SHADOW, with_shadow, with_share
from sqlml.contracts import OptionSpec
from sqlml.endpoint_options import (
    DEPLOY_OPTIONS,
    KEPT_OPTIONS,
    OWNER,
    ROLLOUT_OPTIONS,
    STATEMENT_OPTIONS,
    merged,
    option_fault,
    settings,
)
from sqlml.errors import BindError, Error, NotSupportedError, did_you_mean, listing
from sqlml.rollout import KEY, MAX_ERROR_RATE, Guard, guard_of
from sqlml.statements.endpoint_arms import check_arms, differences
from sqlml.statements.misplaced_options import check_placed
from sqlml.statements.refresh_schedule import copy_names
from sqlml.training.goals import GOALS
from sqlml.types import UNSUPERVISED

QUERY = "query"
"""The kind of an endpoint that computes a query with several models in it."""
_Place: TypeAlias = Callable[[str], Span | None]
"""Where an option was given, by its name."""
_TRIGGERS = ("promote_after", "max_error_rate", "max_latency", "metric")


@dataclass(frozen=True)
class EndpointChange:
    """An endpoint as it is (``before``, None: it is new) and as it is to be.  ``versions`` are those of the arms, by uid."""

    endpoint: str
    before: Endpoint | None
    shares: tuple[Share, ...]
    options: Mapping[str, Any]
    versions: Mapping[str, Version]
    reason: str

    @property
    def revision(self) -> int:
        """The revision that the change is made from, 0 of none."""
        return self.before.revision if self.before else 0

    @property
    def notices(self) -> tuple[str, ...]:
        """What the person should know of it."""
        return differences([(self.versions[share.uid], share) for share in self.shares if share.uid in self.versions])


def bind_deploy(node: Deploy, parameters: Parameters, catalog: Catalog) -> EndpointChange:
    """What DEPLOY makes; raises what is wrong with it."""
    source = parameters.source
    if node.runner is not None:
        raise NotSupportedError("DEPLOY … ON: endpoints are served on this machine only", source=source, span=node.runner.span)
    version = resolve_model(catalog, node.model, source)
    name, span = (node.endpoint.name, node.endpoint.span) if node.endpoint else (version.model, node.model.span)
    check_name(name, source, span, OWNER)
    before = catalog.endpoint(name)
    _check_kind(before, source, span, "another name, or UNDEPLOY ENDPOINT it first")
    given = bind_given(node.options, DEPLOY_OPTIONS, parameters)
    place = partial(option_span, node.options)
    shares = _deployed(version, before, given, name, source, place("traffic") or place("shadow") or span)
    versions = _versions(shares, catalog)
    guard = _guard(version, before, given, shares, source, place)
    options = _options(before, given, guard, versions, source, place)
    check_arms([(versions[share.uid], share) for share in shares], source, node.model.span)
    return EndpointChange(before.name if before else name, before, tuple(shares), options, versions, "DEPLOY")


def bind_alter(node: AlterEndpoint, parameters: Parameters, catalog: Catalog) -> EndpointChange:
    """What ALTER ENDPOINT makes; raises what is wrong with it."""
    before = find_endpoint(catalog, node.endpoint, parameters.source)
    if isinstance(node.action, SetTraffic):
        return _bind_traffic(node.action, before, parameters, catalog, node.endpoint.span)
    return _bind_settings(node.action, before, parameters, catalog)


def find_endpoint(catalog: Catalog, name: Ident, source: str) -> Endpoint:
    """The endpoint of a name.  ``BindError`` points at it where there is none."""
    found = {endpoint.name.lower(): endpoint for endpoint in catalog.endpoints()}
    if name.name.lower() not in found:
        names = [endpoint.name for endpoint in found.values()]
        hint = did_you_mean(name.name, names) or ("SHOW ENDPOINTS lists all" if names else "nothing is deployed")
        raise BindError(f"unknown endpoint {name.name}", source=source, span=name.span, hint=hint)
    return found[name.name.lower()]


# --- DEPLOY -----------------------------------------------------------------------------------------------------------


def _deployed(
    version: Version, before: Endpoint | None, given: Mapping[str, Any], name: str, source: str, span: Span
) -> list[Share]:
    """The arms: the version alone, or with a part of the traffic, or in the shadow of those that are there."""
    percent, shadow = given.get("traffic"), bool(given.get("shadow"))
    if shadow and percent is not None:
        raise BindError("a shadow gets a copy of every request and no traffic", source=source, span=span, hint="leave out one")
    if not shadow and percent in (None, 100):
        return [Share(version.uid)]
    shares = before.shares if before else ()
    if not any(share.role == SERVES and share.uid != version.uid for share in shares):
        rest = "answer" if shadow else f"take the other {100 - (percent or 0)} %"
        raise BindError(
            f"there is no other version at endpoint {name} to {rest}", source=source, span=span,
            hint=f"DEPLOY MODEL {version.name} gives it all of the traffic",
        )  # fmt: skip
    _check_no_other_trial(version, before, source, span)
    return with_shadow(shares, version.uid) if shadow else with_share(shares, version.uid, percent or 0)


def _check_no_other_trial(version: Version, before: Endpoint | None, source: str, span: Span) -> None:
    """One roll-out at a time: figures of a second version would be mixed into those that the first is compared with."""
    guard = guard_of(before.options) if before else None
    if before is None or guard is None or guard.candidate == version.uid:
        return
    tried = next((arm.name for arm in before.arms if arm.uid == guard.candidate), "another version")
    raise BindError(
        f"endpoint {before.name} is trying out {tried} already", source=source, span=span,
        hint=f"wait for the end, ROLLBACK ENDPOINT {before.name}, or settle it with ALTER ENDPOINT {before.name} SET TRAFFIC (…)",
    )  # fmt: skip


def _guard(
    version: Version, before: Endpoint | None, given: Mapping[str, Any], shares: Sequence[Share], source: str, place: _Place
) -> Guard | None:
    """The guard of the roll-out: the one given, else the one that the same version has, as long as it gets a part only."""
    asked = {spec.name: given[spec.name] for spec in ROLLOUT_OPTIONS if given.get(spec.name) is not None}
    if not asked:
        kept = guard_of(before.options) if before else None
        return kept if kept and kept.candidate == version.uid and len(shares) > 1 else None
    if not asked.keys() & set(_TRIGGERS):
        name = next(iter(asked))
        raise _without_metric(name, "says nothing alone: it belongs to a metric", source, place)
    if "metric" not in asked and (idle := next((n for n in asked if n in ("tolerance", "min_feedback")), None)):
        raise _without_metric(idle, "belongs to a metric, and none is given", source, place)
    if given.get("traffic") == 0:
        raise BindError("a version that is tried out needs some traffic", source=source, span=place("traffic"))
    metric = asked.get("metric")
    goals = GOALS.get(version.task, {}) if version.task not in UNSUPERVISED else {}
    if metric is not None:
        _check_metric(version, metric, goals, source, place("metric"))
    if before is None or all(share.uid == version.uid for share in before.shares):
        raise BindError(
            f"there is no other version to go back to, should {version.name} not do well", source=source,
            span=place(next(iter(asked))), hint="a roll-out is guarded where something is served already",
        )  # fmt: skip
    if len(shares) == 1:
        raise BindError(
            f"a guard watches a share, and {version.name} would take all of the traffic at once", source=source,
            span=place("traffic") or place(next(iter(asked))), hint="add traffic = 10, or shadow = true",
        )  # fmt: skip
    if "promote_after" in asked:  # a version that fails must not be promoted because nobody said so
        asked.setdefault("max_error_rate", MAX_ERROR_RATE)
    return Guard(version.uid, **asked, maximize=metric is not None and goals[metric])


def _without_metric(option: str, what: str, source: str, place: _Place) -> BindError:
    hint = "as in WITH (traffic = 10, promote_after = 1000, metric = 'log_loss', tolerance = 0.01)"
    return BindError(f"{option} {what}", source=source, span=place(option), hint=hint)


def _check_metric(version: Version, metric: str, goals: Mapping[str, bool], source: str, span: Span | None) -> None:
    if metric in goals:
        return
    near = did_you_mean(metric, goals)
    hint = near or (f"it has: {', '.join(goals)}" if goals else "a model without a target has no truth to compare with")
    raise BindError(f"{version.name} has no metric {metric} that tells better from worse", source=source, span=span, hint=hint)


# --- ALTER ENDPOINT -----------------------------------------------------------------------------------------------------


def _bind_traffic(action: SetTraffic, before: Endpoint, parameters: Parameters, catalog: Catalog, span: Span) -> EndpointChange:
    source = parameters.source
    _check_kind(before, source, span, "its versions stand in the query: DEPLOY QUERY it again with others")
    shares: list[Share] = []
    for (written, value), place in zip(action.shares, action.places, strict=True):
        version = _version_of(written, before, catalog, source, place)
        percent = _percent(parameters.resolve(value), version, source, place)
        if any(share.uid == version.uid for share in shares):
            raise BindError(f"{version.name} is given twice", source=source, span=place)
        shares.append(Share(version.uid, SERVES, percent))
    total = sum(share.weight for share in shares)
    if total != 100:
        raise BindError(
            f"the shares add up to {total} %, not 100 %", source=source, span=action.span,
            hint="0 keeps a version loaded without traffic; one that is left out leaves",
        )  # fmt: skip
    named = {share.uid for share in shares}
    shares += [share for share in before.shares if share.role == SHADOW and share.uid not in named]
    versions = _versions(shares, catalog)
    check_arms([(versions[share.uid], share) for share in shares], source, action.span)
    options = {name: value for name, value in before.options.items() if name != KEY}  # a person has taken over
    return EndpointChange(before.name, before, tuple(shares), options, versions, "SET TRAFFIC")


def _version_of(written: ModelRef | int, before: Endpoint, catalog: Catalog, source: str, span: Span) -> Version:
    """A version of SET TRAFFIC; a bare number is one of the endpoint's only model."""
    if isinstance(written, ModelRef):
        return resolve_model(catalog, written, source)
    models = sorted({arm.model for arm in before.arms})
    if len(models) > 1:
        raise BindError(
            f"endpoint {before.name} serves several models: version {written} of which?", source=source, span=span,
            hint=f"write {models[0]}@{written} or {models[1]}@{written}",
        )  # fmt: skip
    try:
        return catalog.resolve(models[0], written)
    except Error as error:
        raise error.located(source, span) from None


def _percent(value: Any, version: Version, source: str, span: Span) -> int:
    if isinstance(value, bool) or value not in range(101):
        raise BindError(
            f"the share of {version.name} is a whole percentage from 0 to 100 (got {got(value)})", source=source, span=span
        )
    return int(value)


def _bind_settings(action: SetOptions, before: Endpoint, parameters: Parameters, catalog: Catalog) -> EndpointChange:
    source = parameters.source
    _check_settable(action.options, before, source)
    given = bind_given(action.options, KEPT_OPTIONS, parameters)
    if not given:
        raise BindError("no option is given", source=source, span=action.span, hint=f"there are: {option_names(KEPT_OPTIONS)}")
    versions = _versions(before.shares, catalog)
    options = _options(before, given, guard_of(before.options), versions, source, partial(option_span, action.options))
    return EndpointChange(before.name, before, before.shares, options, versions, "SET")


def _check_settable(options: Sequence[Option], before: Endpoint, source: str) -> None:
    """Say where an option belongs that is one of DEPLOY's only."""
    for option in options:
        name = option.name.name.lower()
        if name in {spec.name for spec in STATEMENT_OPTIONS}:
            hint = (
                f"ALTER ENDPOINT {before.name} SET TRAFFIC (…) divides the traffic; DEPLOY … WITH (shadow = true) adds a shadow"
            )
            raise BindError(f"{name} is an option of DEPLOY", source=source, span=option.name.span, hint=hint)
        if name in {spec.name for spec in ROLLOUT_OPTIONS}:
            hint = "give it to DEPLOY, again where the version is there already: DEPLOY MODEL … WITH (traffic = …, …)"
            raise BindError(f"{name} belongs to the roll-out of a version", source=source, span=option.name.span, hint=hint)


# --- both -------------------------------------------------------------------------------------------------------------


def bind_given(
    options: Sequence[Option], specs: Sequence[OptionSpec], parameters: Parameters, owner: str = OWNER
) -> dict[str, Any]:
    """The options that were given to ``owner``, checked; NULL is kept: it takes an option back to its default."""
    check_placed(options, specs, parameters.source)
    found: dict[str, Any] = {}
    for option in options:
        known = next((spec.name for spec in specs if spec.name == option.name.name.lower()), None)
        if known is not None and parameters.resolve(option.value) is None:
            found[known] = None
        else:
            name, value = bind_option(option, specs, owner, parameters)
            found[name] = value
    return found


def _options(
    before: Endpoint | None,
    given: Mapping[str, Any],
    guard: Guard | None,
    versions: Mapping[str, Version],
    source: str,
    place: _Place,
) -> dict[str, Any]:
    """The options that stay, and the guard among them."""
    kept = {spec.name for spec in KEPT_OPTIONS}
    own = {name: value for name, value in (before.options if before else {}).items() if name in kept}
    options = merged(own, {name: value for name, value in given.items() if name in kept})
    columns = {name: None for version in versions.values() for name in (*(i.name for i in version.inputs), *version.key)}
    fault = option_fault(options, list(columns), looks_up=before is not None and bool(copy_names(before)))
    if fault is not None:
        span = place(fault.option) or next((found for name in given if (found := place(name))), None)
        raise BindError(fault.message, source=source, span=span, hint=fault.hint)
    if guard is not None and guard.metric is not None and settings(options)["log"] == 0:
        raise BindError(
            f"{guard.metric} is computed from the prediction log, and log = 0 keeps none", source=source,
            span=place("log") or place("metric"), hint="leave log out, or watch by max_error_rate and max_latency alone",
        )  # fmt: skip
    return options | ({KEY: guard.to_json()} if guard else {})


def _versions(shares: Sequence[Share], catalog: Catalog) -> dict[str, Version]:
    return {share.uid: catalog.by_uid(share.uid) for share in shares}


def _check_kind(before: Endpoint | None, source: str, span: Span, instead: str) -> None:
    if before is not None and before.kind == QUERY:
        raise BindError(f"endpoint {before.name} computes a query, not one model", source=source, span=span, hint=instead)


def option_names(specs: Sequence[OptionSpec]) -> str:
    return listing((spec.name for spec in specs), 20)
