"""CREATE, ALTER and DROP of API keys.  A secret is in the result of the statement that makes it, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlml_dialect import AlterApiKey, CreateApiKey, DropApiKey, Ident, Option, RotateApiKey

from sqlml.binder.models import check_name
from sqlml.binder.options import bind_options
from sqlml.binder.parameters import Parameters
from sqlml.catalog import ApiKey, Catalog
from sqlml.contracts import OptionSpec
from sqlml.endpoint_options import KEY_OPTIONS, ROTATE_OPTIONS
from sqlml.errors import BindError, listing
from sqlml.statements.deploy import Serving
from sqlml.statements.endpoint_changes import find_endpoint
from sqlml.statements.handler import Handler, Handlers, always, no_columns, same_columns
from sqlml.statements.misplaced_options import check_placed
from sqlml.statements.result import Result, rows_result

OWNER = "an API key"
_COLUMNS = [("api_key", "string"), ("endpoints", "string"), ("rate_limit", "double"), ("expires_at", "timestamp[us]")]
_SECRET_COLUMNS = [("api_key", "string"), ("secret", "string"), ("endpoints", "string"), ("expires_at", "timestamp[us]")]
LONGEST = 100 * 366 * 86_400.0
"""Seconds: what lasts longer has no end that a calendar could name."""


def key_handlers(serving: Serving) -> Handlers:
    """CREATE, ALTER and DROP of API keys.  A server that runs knows them when the statement is over."""
    catalog, secrets = serving.catalog, same_columns(_SECRET_COLUMNS)

    def known(run: Callable[[], Result]) -> Result:
        result = run()
        serving.server.states()  # who is asked for these reads the catalog first
        return result

    return {
        CreateApiKey: Handler(
            lambda n, p: known(lambda: run_create_key(n, p, serving)),
            writes=always,
            lasts=lambda node: "have API keys",
            columns=secrets,
        ),
        RotateApiKey: Handler(lambda n, p: known(lambda: run_rotate_key(n, p, catalog)), writes=always, columns=secrets),
        AlterApiKey: Handler(
            lambda n, p: known(lambda: run_alter_key(n, p, catalog)), writes=always, columns=same_columns(_COLUMNS)
        ),
        DropApiKey: Handler(lambda n, p: known(lambda: run_drop_key(n, p.source, catalog)), writes=always, columns=no_columns),
    }


@dataclass(frozen=True)
class NewKey:
    """A key that is to be made: the endpoints' names (none: all of them), and its options."""

    name: str
    endpoints: tuple[str, ...]
    rate_limit: float | None
    lasts: timedelta | None


def bind_create_key(node: CreateApiKey, parameters: Parameters, catalog: Catalog) -> NewKey:
    """What CREATE API KEY makes; raises what is wrong with it."""
    check_name(node.name.name, parameters.source, node.name.span, OWNER)
    endpoints = tuple(find_endpoint(catalog, endpoint, parameters.source).name for endpoint in node.endpoints)
    options = _options(node.options, KEY_OPTIONS, parameters)
    taken = next((key.name for key in catalog.api_keys() if key.name.lower() == node.name.name.lower()), None)
    if taken is not None:
        hint = f"ALTER API KEY {taken} ROTATE gives it a new secret"
        raise BindError(f"there is an API key {taken} already", source=parameters.source, span=node.name.span, hint=hint)
    return NewKey(node.name.name, endpoints, options["rate_limit"], _length(options["expires"]))


def run_create_key(node: CreateApiKey, parameters: Parameters, serving: Serving) -> Result:
    """Make a key; the one row has its secret."""
    catalog = serving.catalog
    new = bind_create_key(node, parameters, catalog)
    secret = catalog.create_api_key(new.name, new.endpoints, new.rate_limit, new.lasts)
    for endpoint in new.endpoints:
        found = catalog.endpoint(endpoint)
        if found is not None and found.options.get("auth") != "key":
            serving.notice(f"endpoint {found.name} answers without a key, too: ALTER ENDPOINT {found.name} SET (auth = 'key')")
    return _shown(catalog.api_key(new.name), secret)


def run_rotate_key(node: RotateApiKey, parameters: Parameters, catalog: Catalog) -> Result:
    """Give a key a new secret; the one row has it."""
    options = bind_rotate_key(node, parameters, catalog)
    try:
        secret = catalog.rotate_api_key(node.name.name, timedelta(seconds=options["grace"]), _length(options["expires"]))
    except BindError as error:
        raise error.located(parameters.source, node.name.span) from None
    return _shown(catalog.api_key(node.name.name), secret)


def bind_rotate_key(node: RotateApiKey, parameters: Parameters, catalog: Catalog) -> dict[str, Any]:
    """The options of ALTER API KEY … ROTATE; raises what is wrong with it."""
    find_key(catalog, node.name, parameters.source)
    return _options(node.options, ROTATE_OPTIONS, parameters)


def run_alter_key(node: AlterApiKey, parameters: Parameters, catalog: Catalog) -> Result:
    """Change a key's options; its secrets stay."""
    given = bind_alter_key(node, parameters, catalog)
    changes: dict[str, Any] = {name: value for name, value in given.items() if name == "rate_limit"}
    if "expires" in given:
        changes["lasts"] = _length(given["expires"])
    key = catalog.alter_api_key(find_key(catalog, node.name, parameters.source).name, **changes)
    row = {
        "api_key": key.name,
        "endpoints": endpoints_text(key.endpoints),
        "rate_limit": key.rate_limit,
        "expires_at": key.expires_at,
    }
    return rows_result([row], _COLUMNS)


def bind_alter_key(node: AlterApiKey, parameters: Parameters, catalog: Catalog) -> dict[str, Any]:
    """The options of ALTER API KEY … SET that were given, NULL among them: no limit, no end; raises what is wrong with it."""
    find_key(catalog, node.name, parameters.source)
    found = _options(node.options, KEY_OPTIONS, parameters)
    names = {option.name.name.lower() for option in node.options}
    given = {spec.name: found[spec.name] for spec in KEY_OPTIONS if spec.name in names}
    if not given:
        hint = f"there are: {listing([spec.name for spec in KEY_OPTIONS])}"
        raise BindError("no option is given", source=parameters.source, span=node.span, hint=hint)
    return given


def run_drop_key(node: DropApiKey, source: str, catalog: Catalog) -> Result:
    """Forget a key."""
    if node.if_exists and node.name.name.lower() not in {key.name.lower() for key in catalog.api_keys()}:
        return Result()
    catalog.drop_api_key(find_key(catalog, node.name, source).name)
    return Result()


def find_key(catalog: Catalog, name: Ident, source: str) -> ApiKey:
    """The key of a name.  ``BindError`` points at it where there is none."""
    try:
        return catalog.api_key(name.name)
    except BindError as error:
        raise error.located(source, name.span) from None


def endpoints_text(endpoints: Sequence[str]) -> str:
    """``e, f`` or ``all endpoints``"""
    return listing(endpoints) if endpoints else "all endpoints"


def _options(options: Sequence[Option], specs: Sequence[OptionSpec], parameters: Parameters) -> dict[str, Any]:
    check_placed(options, specs, parameters.source)
    found = bind_options(options, specs, OWNER, parameters)
    for option in options:
        length = found.get(option.name.name.lower())
        if option.name.name.lower() in ("grace", "expires") and length is not None and length > LONGEST:
            hint = "leave it out for a key without an end" if option.name.name.lower() == "expires" else None
            span = option.value_span
            raise BindError(f"{option.name.name} is 100 years at most", source=parameters.source, span=span, hint=hint)
    return found


def _length(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _shown(key: ApiKey, secret: str) -> Result:
    row = {"api_key": key.name, "secret": secret, "endpoints": endpoints_text(key.endpoints), "expires_at": key.expires_at}
    footer = f"the secret is shown this once: keep it now; send it as  authorization: Bearer {secret[:10]}…"
    return rows_result([row], _SECRET_COLUMNS, footer=footer)
