"""How a server is to serve, as its command line says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

MEMORY_SHARE = 0.5
_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True)
class ServerOptions:
    """How to serve.  ``port`` None: 8080 where it is free, else any.

    ``tls_cert`` and ``tls_key``, PEM files: endpoints speak https.
    ``grpc_port``: where the Open Inference Protocol over gRPC is spoken, too (0: any free port; None: nowhere).
    ``cors``: the origins whose pages may ask, ``*``: all.
    ``open_metrics``: whoever reaches the server may see the figures of all endpoints.
    ``frozen`` is a file of EXPORT ENDPOINT, served in place of what a catalog says; ``arm`` only this version of it.

    A server in the background leaves by itself: ``idle_seconds`` after its start where nothing was ever deployed,
    ``linger_seconds`` after its last endpoint was undeployed, and when its home has been deleted.  ``memory``: how many bytes of
    models all workers together may hold (None: half of what the machine has); ``calm_seconds``: how long fewer workers would
    have done before one leaves; ``hang_seconds``: how long a worker may say nothing before it is replaced.
    """

    home: Path
    catalog: str | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    foreground: bool = False
    frozen: Path | None = None
    arm: str | None = None
    idle_seconds: float = 30
    linger_seconds: float = 2
    memory: int | None = None
    calm_seconds: float = 30
    hang_seconds: float = 30
    tls_cert: Path | None = None
    tls_key: Path | None = None
    grpc_port: int | None = None
    open_metrics: bool = False
    cors: tuple[str, ...] = ()


def memory_budget(given: int | None) -> int:
    """What was given, else half of the memory that this machine, or its container, has."""
    return given if given is not None else int(MEMORY_SHARE * min(_limit(path) for path in _CGROUP))


def _limit(path: Path) -> int:
    machine = int(psutil.virtual_memory().total)
    try:
        return min(machine, int(path.read_text(encoding="ascii")))
    except (OSError, ValueError):  # another version of cgroups, or "max"
        return machine
