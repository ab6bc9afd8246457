"""What endpoints, their server and their keys can be told: every option of DEPLOY, ALTER ENDPOINT(S) and API KEY, in one table.

The catalog keeps only what was given, as JSON: numbers, texts and booleans; sizes are bytes, lengths of time seconds.
Whoever serves asks ``settings`` for the rest.  A new option is a new line here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlml.contracts import OptionSpec

STATEMENT_OPTIONS = (
    OptionSpec("traffic", "int", None, "the version's share in percent; the others keep theirs in proportion", low=0, high=100),
    OptionSpec("shadow", "bool", False, "the version gets a copy of every request and its answers are logged, never returned"),
)
"""Options of DEPLOY that say what becomes of the version: they are not kept."""

KEPT_OPTIONS = (
    OptionSpec("replicas", "int", None, "worker processes, always as many", low=1, high=256),
    OptionSpec("min_replicas", "int", None, "worker processes at least (1)", low=1, high=256),
    OptionSpec("max_replicas", "int", None, "worker processes at most, started while requests wait", low=1, high=256),
    OptionSpec(
        "idle_timeout", "duration", None, "how long without a request until the model leaves memory", low=0, open_low=True
    ),
    OptionSpec("max_queue", "int", 256, "requests that may wait or be under way in a worker; one more gets 503", low=1),
    OptionSpec("max_rows", "int", 100_000, "rows of one request; more get 413", low=1),
    OptionSpec("max_body", "size", 32 * 10**6, "the size of a request's body; more gets 413", low=1),
    OptionSpec(
        "timeout", "duration", 30.0, "how long a request may take, waiting included; then it gets 504", low=0, open_low=True
    ),
    OptionSpec("sticky", "str", None, "what keeps a caller on one version: 'header:x-user' or 'column:customer_id'"),
    OptionSpec("auth", "str", "none", "'key': a request needs an API key", choices=("none", "key")),
    OptionSpec("log", "float", 1.0, "the part of the requests that the prediction log keeps", low=0, high=1),
    OptionSpec("log_limit", "size", 10**9, "the size of the prediction log on disk; the oldest rows go", low=10**6),
    OptionSpec("refresh_every", "duration", None, "how old the copies of tables that a query looks into may become", low=1),
)
"""Options that stay with the endpoint until they are changed."""

ROLLOUT_OPTIONS = (
    OptionSpec("promote_after", "int", None, "requests that the version answers before it gets all of the traffic", low=1),
    OptionSpec(
        "max_error_rate",
        "float",
        None,
        "the part of its requests that may fail; 0.01 beside promote_after",
        low=0,
        high=1,
        open_high=True,
    ),
    OptionSpec("max_latency", "duration", None, "what 99 % of its requests may take at most", low=0, open_low=True),
    OptionSpec(
        "metric", "str", None, "a figure, such as log_loss, in which it must not be worse than the others, by the feedback"
    ),
    OptionSpec("tolerance", "float", 0.0, "by how much the metric may be worse", low=0),
    OptionSpec("min_feedback", "int", 100, "rows with feedback that each side needs before the metric counts", low=1),
)
"""Options of a guarded roll-out: they are kept until the version is promoted or rolled back."""

SERVER_OPTIONS = (
    OptionSpec("memory", "size", None, "what the models of all endpoints may take in memory, all workers together", low=10**6),
    OptionSpec("port", "int", None, "the port of the server", low=1, high=65_535),
    OptionSpec("tls_certificate", "str", None, "a PEM file: the server speaks https by it, and by its key"),
    OptionSpec("tls_key", "str", None, "a PEM file: the private key of the certificate"),
    OptionSpec("grpc_port", "int", None, "the port at which gRPC is spoken, too", low=1, high=65_535),
    OptionSpec(
        "cors_origins", "str", None, "the origins whose pages may ask: 'https://shop.example', several with commas, '*': all"
    ),
)
"""Options of ``ALTER ENDPOINTS SET (…)``: of the server, for all endpoints together; all but ``memory`` from its next start."""

SERVER_DEFAULTS = {"memory": "half of the machine's", "port": "8080 where it is free, else any"}
"""What the server does where such an option is not set; without the others it does nothing of the kind."""

_EXPIRES = OptionSpec("expires", "duration", None, "how long the key opens its endpoints, from now", low=0, open_low=True)
KEY_OPTIONS = (
    OptionSpec("rate_limit", "float", None, "requests per second, over all endpoints and workers", low=0, open_low=True),
    _EXPIRES,
)
"""Options of API keys: ``CREATE API KEY k … WITH (…)`` and ``ALTER API KEY k SET (…)``."""

ROTATE_OPTIONS = (OptionSpec("grace", "duration", 0.0, "how long the secrets of before go on", low=0), _EXPIRES)
"""Options of ``ALTER API KEY k ROTATE WITH (…)``."""

DEPLOY_OPTIONS = (*STATEMENT_OPTIONS, *KEPT_OPTIONS, *ROLLOUT_OPTIONS)
"""What DEPLOY takes."""

OWNER = "an endpoint"
_STICKY = re.compile(r"\s*(header|column)\s*:\s*(\S(?:.*\S)?)\s*", re.IGNORECASE)
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Sticky(NamedTuple):
    """What keeps a caller on one version: a ``header`` (its name in lower case) or a ``column`` of the input."""

    kind: str
    name: str


class Replicas(NamedTuple):
    """How many worker processes an endpoint asks for; the server has as many as the one that asks for most."""

    least: int
    most: int


class OptionFault(NamedTuple):
    """What is wrong with an option that is well in itself, and what to do."""

    option: str
    message: str
    hint: str


def settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """Every option that stays, with its value: the endpoint's own, else the default."""
    found = {spec.name: options.get(spec.name) for spec in KEPT_OPTIONS}
    return {spec.name: spec.default if found[spec.name] is None else found[spec.name] for spec in KEPT_OPTIONS}


def own_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that somebody has given, without what lies among them: a roll-out's guard, columns of earlier versions."""
    known = {spec.name for spec in KEPT_OPTIONS}
    return {name: value for name, value in options.items() if name in known}


def replicas(options: Mapping[str, Any]) -> Replicas:
    """How many worker processes: ``replicas``, or from ``min_replicas`` to ``max_replicas``."""
    if options.get("replicas"):
        return Replicas(options["replicas"], options["replicas"])
    least = options.get("min_replicas") or 1
    return Replicas(least, max(least, options.get("max_replicas") or least))


def parse_sticky(text: str | None) -> Sticky | None:
    """``header:x-user`` or ``column:customer_id``; None for anything else."""
    found = _STICKY.fullmatch(text or "")
    if found is None:
        return None
    kind, name = found[1].lower(), found[2]
    if kind == "header":
        return Sticky(kind, name.lower()) if _HEADER.fullmatch(name) else None
    return Sticky(kind, name)


def merged(kept: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an endpoint after a change.  NULL takes one back to its default; of ``replicas`` and its two ends the last
    that was given counts.
    """
    ends = {"min_replicas", "max_replicas"}
    new = {name for name, value in given.items() if value is not None}
    drops = ends if "replicas" in new else {"replicas"} if new & ends else set()
    options = {name: value for name, value in kept.items() if name not in drops} | dict(given)
    return {name: value for name, value in options.items() if value is not None}


def option_fault(options: Mapping[str, Any], columns: Sequence[str] = (), *, looks_up: bool = False) -> OptionFault | None:
    """What is wrong with the options of an endpoint together; ``columns``: of its model; ``looks_up``: it reads tables."""
    if options.get("refresh_every") is not None and not looks_up:
        message = "refresh_every is of endpoints that look tables up, and this one reads none"
        return OptionFault("refresh_every", message, "DEPLOY QUERY … AS SELECT … FROM t WHERE t.key = $key makes one that does")
    least, most = options.get("min_replicas") or 1, options.get("max_replicas")
    if options.get("replicas") and (options.get("min_replicas") or most):
        return OptionFault("replicas", "replicas stands beside min_replicas or max_replicas", "give the number, or its ends")
    if most is not None and least > most:
        return OptionFault("max_replicas", f"max_replicas = {most} is less than min_replicas = {least}", "change one of them")
    if options.get("sticky") is not None:
        return _sticky_fault(options["sticky"], columns)
    return None


def _sticky_fault(text: str, columns: Sequence[str]) -> OptionFault | None:
    sticky = parse_sticky(text)
    if sticky is None:
        return OptionFault("sticky", f"'{text}' is nothing to stick by", "write 'header:x-user' or 'column:customer_id'")
    if sticky.kind == "column" and columns and sticky.name.lower() not in (name.lower() for name in columns):
        return OptionFault("sticky", f"the endpoint takes no column {sticky.name}", f"it takes: {', '.join(columns)}")
    return None
