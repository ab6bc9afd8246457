"""What a server says in its log where it listens beyond this machine: what others could read, and who needs no key.  Pure."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TypeAlias

from sqlml.catalog import Endpoint
from sqlml.endpoint_options import settings
from sqlml.errors import listing
from sqlml_runners.serving.doors import is_loopback
from sqlml_runners.serving.options import ServerOptions

Line: TypeAlias = tuple[int, str]
"""A line of the log: its level and its text."""


def clear_line(options: ServerOptions) -> Line | None:
    """Of a server beyond loopback without TLS; in a container, where that is meant, no warning."""
    if not _reaches_out(options) or options.tls_cert is not None:
        return None
    where = options.host or "every address"
    if options.frozen is not None:
        return logging.INFO, f"listening on {where} without TLS, as a container does: what stands in front of it speaks TLS"
    return (
        logging.WARNING,
        f"listening on {where} without TLS: rows and API keys travel in clear; "
        "give --tls-cert and --tls-key, or put a proxy in front that speaks TLS",
    )


class OpenEndpoints:
    """The endpoints that answer whoever reaches the server, each told once as long as it stays so."""

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._told: frozenset[str] = frozenset()

    def news(self, endpoints: Iterable[Endpoint]) -> Line | None:
        """Those that are open and were not told yet."""
        if not _reaches_out(self._options):
            return None
        names = [endpoint.name for endpoint in endpoints if settings(endpoint.options)["auth"] != "key"]
        fresh = [name for name in names if name.lower() not in self._told]
        self._told = frozenset(name.lower() for name in names)
        if not fresh:
            return None
        text = f"whoever reaches the server may ask without a key: {listing(fresh)}"
        if self._options.frozen is not None:
            return logging.INFO, text
        return logging.WARNING, f"{text}; ALTER ENDPOINT … SET (auth = 'key') asks for one"


def _reaches_out(options: ServerOptions) -> bool:
    return options.host.lower() != "localhost" and not is_loopback(options.host)
