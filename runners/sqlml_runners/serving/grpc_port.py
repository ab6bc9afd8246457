"""The port that gRPC listens on: asked for, checked and held before any worker starts.  Needs no gRPC."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from sqlml.errors import ServingError
from sqlml.registry import missing_extra


def check_grpc() -> None:
    """``MissingExtra``, with the line that installs it, where gRPC is not there."""
    for module in ("grpc", "google.protobuf"):
        try:
            there = find_spec(module) is not None
        except ModuleNotFoundError:
            there = False
        if not there:
            raise missing_extra(ModuleNotFoundError(name=module))


@contextmanager
def held_port(host: str, port: int | None) -> Iterator[str | None]:
    """``host:port`` as gRPC writes it, while nobody else can take the port; None where none is asked for.

    Each worker listens there by itself (SO_REUSEPORT), and the system divides the connections among them.
    """
    if port is None:
        yield None
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:  # whoever listens with SO_REUSEPORT would share his port with us
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
            number = probe.getsockname()[1]
        holder = socket.socket(family)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((host, number))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ServingError(
            f"gRPC cannot listen on {host} port {port}: {reason}", hint="give another --grpc-port, or 0: a free one is then taken"
        ) from error
    with holder:
        yield f"[{host}]:{number}" if family == socket.AF_INET6 else f"{host}:{number}"
