"""Who may see what is no prediction: a keyed endpoint's metadata, and the figures of all endpoints.

Metadata tell a model's columns and classes, so they need the key that a prediction needs.  Figures (``/metrics``,
``/sqlml/endpoints``) tell of every endpoint: they are for callers on this machine, and for keys that open all endpoints,
unless the server was told otherwise (``--open-metrics``).  Health says nothing but yes or no, and is for everybody.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlml_runners.serving.keys import KeyRing

if TYPE_CHECKING:
    from sqlml_runners.serving.models import Route, Slot


@dataclass(frozen=True)
class Door:
    """``keys`` gives those that count now; ``open_figures``: everybody who reaches the server may see the figures."""

    keys: Callable[[], KeyRing] = KeyRing
    open_figures: bool = False

    def check_parked(self, slot: Slot, headers: Mapping[bytes, bytes]) -> None:
        """401 and 403, before an endpoint is loaded for somebody whom it would not answer."""
        if slot.parked and slot.endpoint.options.get("auth") == "key":
            self.keys().opens(headers, slot.endpoint.name.lower())

    def check_metadata(self, route: Route, headers: Mapping[bytes, bytes]) -> None:
        """401, 403, 429 as for a prediction, where the endpoint needs a key."""
        if route.policy.keyed:
            self.keys().check(headers, route.key)

    def check_figures(self, client: str, headers: Mapping[bytes, bytes], endpoints: Iterable[str]) -> None:
        """401 for a caller from elsewhere without a key, 403 for one with a key of some of the endpoints only."""
        if not self.open_figures and not is_loopback(client):
            self.keys().check_all(headers, endpoints)


def is_loopback(client: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
