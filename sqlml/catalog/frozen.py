"""An endpoint as a file: what a server needs of a catalog where there is none, such as in a container.

    frozen.json         the endpoint, its arms and options
    bundles/<sha256>/   the arms' bundles, beside it

It never changes: whoever wants another version writes another file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlml.catalog.api_keys import ApiKey
from sqlml.catalog.claim import FreeClaim
from sqlml.catalog.endpoints import Arm, Endpoint
from sqlml.errors import BindError, OperationalError, listing
from sqlml.version import __version__

FILE = "frozen.json"
BUNDLES = "bundles"
FORMAT = 1
_PLACES = ("bundle", "sample")
"""What of an arm is a path of the home; rows of the training go nowhere else."""


def frozen_text(endpoint: Endpoint, keys: Sequence[ApiKey] = ()) -> str:
    """An endpoint as JSON, the same for the same endpoint; its arms' bundles are known by their SHA-256.

    ``keys`` are those that open it: the SHA-256 of secrets that are 256 random bits, from which nobody finds the secret.
    """
    arms = [{name: value for name, value in asdict(arm).items() if name not in _PLACES} for arm in endpoint.arms]
    document = {
        "format": FORMAT,
        "sqlml": __version__,
        "name": endpoint.name,
        "kind": endpoint.kind,
        "created_at": endpoint.created_at.isoformat(),
        "options": dict(endpoint.options),
        "definition": None if endpoint.definition is None else dict(endpoint.definition),
        "arms": arms,
        "keys": [_key_document(key) for key in keys],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _key_document(key: ApiKey) -> dict[str, Any]:
    return {
        "name": key.name,
        "hashes": [[found, _text(end)] for found, end in key.hashes],
        "prefix": key.prefix,
        "rate_limit": key.rate_limit,
        "expires_at": _text(key.expires_at),
        "created_at": _text(key.created_at),
    }


def _text(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


class FrozenCatalog:
    """The endpoint of a file, as a server asks a catalog for what it serves.

    ``arm``: only this one of its versions, ``churn@4``, which then gets all of the requests.  ``OperationalError`` where the file
    is none of ours, or has no such arm.
    """

    def __init__(self, path: Path, arm: str | None = None) -> None:
        endpoint, self._keys = _read(path)
        self._endpoint = endpoint if arm is None else _only(endpoint, arm)

    def claim_serving(self, _who: str) -> FreeClaim:
        """Any number of servers may read a file."""
        return FreeClaim()

    def endpoints_revision(self) -> int:
        """Always the same: nothing changes."""
        return self._endpoint.revision

    def endpoints(self) -> list[Endpoint]:
        """The one endpoint."""
        return [self._endpoint]

    def endpoints_memory(self) -> None:
        """As the server was started."""

    def api_keys(self) -> tuple[ApiKey, ...]:
        """The keys that open the endpoint."""
        return self._keys

    def rollback_endpoint(self, endpoint: str, reason: str = "ROLLBACK", *, of: int | None = None) -> int:
        """``BindError``: there is nothing to go back to."""
        raise BindError(f"endpoint {endpoint} is frozen: it has no earlier state to go back to", hint="run the image before it")

    def settle_endpoint(self, endpoint: str, *, promote: bool, reason: str, of: int) -> int | None:
        """None: nothing is tried out here, since nothing changes."""
        return None

    def close(self) -> None:
        """Nothing is open."""


def _read(path: Path) -> tuple[Endpoint, tuple[ApiKey, ...]]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OperationalError(f"cannot read {path}: {error.strerror or error}", hint="EXPORT ENDPOINT writes it") from error
    except ValueError as error:
        raise _foreign(path, f"it is no JSON: {error}") from error
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        raise _foreign(path, f"its format is not {FORMAT}")
    try:
        arms = tuple(_arm(arm, path.absolute().parent / BUNDLES) for arm in document["arms"])
        created = datetime.fromisoformat(document["created_at"])
        name, kind = document["name"], document["kind"]
        endpoint = Endpoint(name, arms, 1, created, "", kind, document["options"], document["definition"])
        return endpoint, tuple(_key(key, name.lower()) for key in document["keys"])
    except (KeyError, TypeError, ValueError) as error:
        raise _foreign(path, f"{type(error).__name__}: {error}") from error


def _arm(document: Mapping[str, Any], bundles: Path) -> Arm:
    return Arm(**{**document, "keys": tuple(document["keys"])}, bundle=bundles / document["sha256"])


def _key(document: Mapping[str, Any], endpoint: str) -> ApiKey:
    hashes = tuple((found, _time(end)) for found, end in document["hashes"])
    created, expires = datetime.fromisoformat(document["created_at"]), _time(document["expires_at"])
    return ApiKey(document["name"], hashes, document["prefix"], (endpoint,), document["rate_limit"], expires, "", created)


def _only(endpoint: Endpoint, name: str) -> Endpoint:
    found = next((arm for arm in endpoint.serving if arm.name.lower() == name.lower()), None)
    if found is None:
        known = listing(arm.name for arm in endpoint.serving)
        raise OperationalError(f"endpoint {endpoint.name} has no version {name} that serves", hint=f"it has: {known}")
    return replace(endpoint, arms=(replace(found, weight=100),))


def _foreign(path: Path, why: str) -> OperationalError:
    return OperationalError(f"{path} is not what EXPORT ENDPOINT writes: {why}", hint="export the endpoint again")
