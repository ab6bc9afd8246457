"""What is to be shipped where: an endpoint, a format and its options, checked together; the endpoint as it will serve there."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlml.catalog.api_keys import ApiKey
from sqlml.catalog.endpoints import Arm, Endpoint
from sqlml.catalog.rows import now
from sqlml.contracts import OptionSpec
from sqlml.endpoint_options import ROLLOUT_OPTIONS, replicas
from sqlml.errors import BindError, Error, NotSupportedError
from sqlml.exports.blame import about
from sqlml.shipping.image import alone, copies_of, default_base, is_image

FORMATS = ("docker", "kubernetes", "kserve")

_ANY = (
    OptionSpec("overwrite", "bool", False, "replace what is there"),
    OptionSpec("base", "str", None, "the image to build on; left out: python:<this version>-slim"),
)
_CLUSTER = (
    OptionSpec("image", "str", None, "the name under which the image is pushed: 'registry.example/team/churn:3'; must be given"),
    OptionSpec("name", "str", None, "the name of the objects; left out: the endpoint's, as Kubernetes writes names"),
    OptionSpec("namespace", "str", None, "the namespace; left out: that of whoever applies the files"),
    OptionSpec("cpu", "float", 1.0, "the cores that a pod asks for", low=0.01),
    OptionSpec("memory", "size", 10**9, "the memory that a pod asks for, and may have", low=64 * 2**20),
    OptionSpec("pull_secret_name", "str", None, "the secret with which the image is pulled"),
    OptionSpec("service_account", "str", None, "the service account of the pods"),
    OptionSpec(
        "predictions", "str", None, "a volume claim for the prediction log, a folder for each pod; left out: there is none"
    ),
    OptionSpec(
        "prometheus", "str", None, "where Prometheus answers, for the autoscaler 'keda': 'http://prometheus.monitoring:9090'"
    ),
    OptionSpec("cpu_target", "int", 70, "the share of their cores, in percent, at which 'hpa' adds pods", low=1, high=100),
    OptionSpec("queue_target", "int", 16, "the requests under way for each pod at which more pods are added", low=1),
)
OPTIONS: Mapping[str, tuple[OptionSpec, ...]] = {
    "docker": _ANY,
    "kubernetes": (
        *_ANY,
        *_CLUSTER,
        OptionSpec(
            "autoscaler",
            "str",
            None,
            "what adds and removes pods; left out: 'hpa' where the endpoint's replicas have two ends",
            choices=("none", "hpa", "keda"),
        ),
        OptionSpec(
            "canary",
            "str",
            "server",
            "who divides the requests: every pod, or the number of pods of each version",
            choices=("server", "deployments"),
        ),
    ),
    "kserve": (
        *_ANY,
        *_CLUSTER,
        OptionSpec("version", "str", "0.20", "KServe's version"),
        OptionSpec("mode", "str", "standard", "KServe's mode", choices=("standard", "knative")),
        OptionSpec(
            "autoscaler",
            "str",
            None,
            "what adds and removes pods; left out: 'hpa' or, in mode knative, 'knative' where the "
            "endpoint's replicas have two ends",
            choices=("none", "hpa", "keda", "knative"),
        ),
        OptionSpec("canary", "str", "server", "who divides the requests: every pod, or KServe", choices=("server", "kserve")),
    ),
}
"""The options of each format."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_CLAIM = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_VERSION = re.compile(r"v?(\d{1,4})\.(\d{1,4})(\.\d{1,4})?")
_LONGEST_NAME = 40
"""Kubernetes and KServe add to a name, and 63 letters is the end."""


@dataclass(frozen=True)
class Shipment:
    """An endpoint on its way, as it serves there; with ``least`` to ``most`` pods.  ``notes`` are for people.

    ``keys`` are the API keys that open it; none where it is open to all.
    """

    endpoint: Endpoint
    format: str
    options: Mapping[str, Any]
    name: str = ""
    least: int = 1
    most: int = 1
    autoscaler: str = "none"
    keys: tuple[ApiKey, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def base(self) -> str:
        """The image to build on."""
        return str(self.options["base"] or default_base())

    @property
    def divided(self) -> bool:
        """Whether the cluster divides the requests among versions, and not each pod."""
        return bool(self.options.get("canary", "server") != "server")


def make_shipment(endpoint: Endpoint, keys: Sequence[ApiKey], form: str, options: Mapping[str, Any]) -> Shipment:
    """Check what is asked for; nothing is dropped in silence.  ``keys`` are all that there are.

    ``BindError`` for an option that is wrong, ``NotSupportedError`` for what the endpoint does and the target cannot.
    """
    _check_base(options)
    _check_frozen(endpoint)
    opening = _opening(endpoint, keys)
    notes = ["the tables that it looks into are copied as they are now: for others, export it again"] * bool(copies_of(endpoint))
    notes += [f"it knows the API keys of now ({', '.join(key.name for key in opening)}): for others, export it again"] * bool(
        opening
    )
    if form == "docker":
        return Shipment(endpoint, form, options, keys=opening, notes=tuple(notes))
    name = _check_names(endpoint, options)
    if form == "kserve":
        kserve_version(options)
    least, most = replicas(endpoint.options)
    autoscaler = _autoscaler(form, options, least, most)
    if options["canary"] != "server":
        _check_divided(endpoint, form, options, least, autoscaler)
    limited = [key.name for key in opening if key.rate_limit is not None]
    if limited and most > 1:
        raise NotSupportedError(
            f"API key {limited[0]} has a rate limit in all, and {most} pods would each count their own requests",
            hint=f"limit the rate where all requests pass (a gateway), and make {limited[0]} anew without rate_limit",
        )
    kept, note = _log(endpoint, form, options)
    notes += [note] if note else []
    return Shipment(alone(kept), form, options, name, least, most, autoscaler, opening, tuple(notes))


def pods_of(arm: Arm, pods: int) -> int:
    """How many of the pods are a version's."""
    return pods * arm.weight // 100


# --- what cannot be shipped -------------------------------------------------------------------------------------------


def _check_frozen(endpoint: Endpoint) -> None:
    """What a server without a catalog cannot do."""
    guards = [spec.name for spec in ROLLOUT_OPTIONS if endpoint.options.get(spec.name) is not None]
    if guards:
        raise NotSupportedError(
            f"endpoint {endpoint.name} has a roll-out under way ({', '.join(guards)}): only a server with a catalog decides it",
            hint=f"wait for its end, or take the guard off: ALTER ENDPOINT {endpoint.name} SET ({guards[0]} = NULL)",
        )


def _opening(endpoint: Endpoint, keys: Sequence[ApiKey]) -> tuple[ApiKey, ...]:
    """The keys that an endpoint needs to know."""
    if endpoint.options.get("auth", "none") == "none":
        return ()
    found = tuple(key for key in keys if key.opens(endpoint.name) and key.valid_hashes(now()))
    if not found:
        hint = f"CREATE API KEY k FOR ENDPOINT {endpoint.name} first"
        raise BindError(f"no API key opens endpoint {endpoint.name}: nobody could ask it anything", hint=hint)
    return found


def _check_divided(endpoint: Endpoint, form: str, options: Mapping[str, Any], pods: int, autoscaler: str) -> None:
    """What a cluster that divides the requests itself cannot do."""
    canary = options["canary"]
    serving = endpoint.serving
    if len(serving) < 2:  # of a query no version serves by itself
        alone = f"endpoint {endpoint.name} has one version only: there is nothing to divide"
        raise about("canary", BindError(alone, hint="leave out canary"))
    hint = "canary = 'server': every pod divides the requests, and does that"
    for what, there in (("sticky routing", endpoint.options.get("sticky")), ("a shadow", len(serving) < len(endpoint.arms))):
        if there:
            never = f"endpoint {endpoint.name} has {what}, which canary = '{canary}' cannot do"
            raise about("canary", NotSupportedError(never, hint=hint))
    if form == "kubernetes":
        _check_pods(endpoint, pods, autoscaler)
    else:
        _check_kserve(endpoint, options)


def _check_pods(endpoint: Endpoint, pods: int, autoscaler: str) -> None:
    """Weights by numbers of pods: whole ones, which stay as they are."""
    if autoscaler != "none":
        never = f"weights by numbers of pods do not outlive an autoscaler ('{autoscaler}')"
        hint = f"ALTER ENDPOINT {endpoint.name} SET (replicas = n), or canary = 'server'"
        raise about("canary", NotSupportedError(never, hint=hint))
    weights = [arm.weight for arm in endpoint.serving]
    if any(pods * weight % 100 for weight in weights):
        needed = 100 // math.gcd(*weights)
        shares = ", ".join(f"{arm.name} = {arm.weight}" for arm in endpoint.serving)
        raise about(
            "canary",
            NotSupportedError(
                f"{pods} pods cannot be divided as {shares}",
                hint=f"ALTER ENDPOINT {endpoint.name} SET (replicas = {needed}) can, or a multiple of it; or canary = 'server'",
            ),
        )


def _check_kserve(endpoint: Endpoint, options: Mapping[str, Any]) -> None:
    if options["mode"] == "standard" and kserve_version(options) < (0, 20):
        hint = "from 0.20 on it has spec.canary; or mode = 'knative', or canary = 'server'"
        never = f"KServe {options['version']} has no canary in its standard mode: it would be ignored"
        raise about("version", NotSupportedError(never, hint=hint))
    if options["mode"] == "knative" and len(endpoint.serving) != 2:
        never = f"canaryTrafficPercent divides between two versions, and endpoint {endpoint.name} has {len(endpoint.serving)}"
        raise about("canary", NotSupportedError(never, hint="mode = 'standard' or canary = 'server'"))


def kserve_version(options: Mapping[str, Any]) -> tuple[int, int]:
    """KServe's version, the first two numbers."""
    found = _VERSION.fullmatch(options["version"])
    if found is None:
        raise about("version", BindError(f"'{options['version']}' is no version of KServe", hint="as in version = '0.20'"))
    return int(found[1]), int(found[2])


# --- options ----------------------------------------------------------------------------------------------------------


def _check_base(options: Mapping[str, Any]) -> None:
    if options["base"] is not None and not is_image(options["base"]):
        raise about("base", BindError(f"'{options['base']}' is no image's name", hint="as in base = 'python:3.12-slim'"))


def _check_names(endpoint: Endpoint, options: Mapping[str, Any]) -> str:
    """Every name that goes into an object; the object's own."""
    image = options["image"]
    if image is None:
        hint = "WITH (image = 'registry.example/team/churn:3')"
        raise BindError("image is missing: the name under which the image is pushed, and pulled by the cluster", hint=hint)
    if not is_image(image):
        raise about("image", BindError(f"'{image}' is no image's name", hint="as in image = 'registry.example/team/churn:3'"))
    for option, pattern in (
        ("namespace", _NAME),
        ("pull_secret_name", _CLAIM),
        ("service_account", _CLAIM),
        ("predictions", _CLAIM),
    ):
        if options[option] is not None and not (pattern.fullmatch(options[option]) and len(options[option]) <= 63):
            raise about(option, _no_name(options[option]))
    if options["name"] is not None:
        if not _NAME.fullmatch(options["name"]) or len(options["name"]) > _LONGEST_NAME:
            raise about("name", _no_name(options["name"], _LONGEST_NAME))
        return str(options["name"])
    made = re.sub(r"[^a-z0-9]+", "-", endpoint.name.lower())[:_LONGEST_NAME].strip("-")
    if not made:
        raise BindError(f"'{endpoint.name}' cannot be a name in Kubernetes", hint="WITH (name = 'churn')")
    return made


def _no_name(text: str, longest: int = 63) -> BindError:
    hint = f"small letters, digits and dashes, {longest} at most, with a letter or digit at both ends"
    return BindError(f"'{text}' cannot be a name in Kubernetes", hint=hint)


def _autoscaler(form: str, options: Mapping[str, Any], least: int, most: int) -> str:
    given = options["autoscaler"]
    knative = form == "kserve" and options["mode"] == "knative"
    if given is None:
        return "none" if least == most else "knative" if knative else "hpa"
    error: Error | None = None
    if given == "none" and least != most:
        error = BindError(f"the endpoint has {least} to {most} replicas, which needs an autoscaler", hint="'hpa' or 'keda'")
    elif given != "none" and least == most:
        hint = "ALTER ENDPOINT … SET (min_replicas = 1, max_replicas = 4) first"
        error = BindError(f"the endpoint has always {least} replica{'s' * (least > 1)}: nothing to scale", hint=hint)
    elif (given == "knative") is not knative and given != "none":
        only = "mode knative scales by 'knative' alone" if knative else "'knative' needs mode = 'knative'"
        error = NotSupportedError(f"the autoscaler '{given}' is not to be had: {only}", hint="leave out autoscaler")
    elif given == "keda" and options["prometheus"] is None:
        hint = "WITH (prometheus = 'http://prometheus.monitoring:9090')"
        error = BindError("the autoscaler 'keda' reads the queue from Prometheus: its address is missing", hint=hint)
    if error is not None:
        raise about("autoscaler", error)
    return str(given)


def _log(endpoint: Endpoint, form: str, options: Mapping[str, Any]) -> tuple[Endpoint, str | None]:
    """The prediction log goes to a claim, or is off; where somebody asked for it, it is not turned off in silence."""
    share = endpoint.options.get("log")
    if options["predictions"] is not None:
        if form == "kserve" and options["mode"] == "knative":
            never = NotSupportedError(
                "Knative mounts no volume claims: the prediction log cannot be kept", hint="mode = 'standard'"
            )
            raise about("predictions", never)
        return endpoint, None
    if share:
        raise NotSupportedError(
            f"endpoint {endpoint.name} keeps a prediction log (log = {share:g}), which would go with each pod",
            hint=f"WITH (predictions = 'a-volume-claim'), or ALTER ENDPOINT {endpoint.name} SET (log = 0)",
        )
    note = None if share == 0 else "the prediction log is off: predictions = 'a-volume-claim' keeps it"
    return replace(endpoint, options={**endpoint.options, "log": 0.0}), note
