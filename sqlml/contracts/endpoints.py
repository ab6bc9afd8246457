"""The seam of the server of endpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class ArmState:
    """One version behind an endpoint, as the server has it.

    ``state`` as the endpoint's, or ``damaged``: its bundle on disk is, it serves on from memory.  Figures since the server began.
    ``latency_p50`` and ``latency_p99`` are seconds, over the last minute; None without a request.
    """

    uid: str
    state: str
    error: str | None = None
    requests: int = 0
    errors: int = 0
    latency_p50: float | None = None
    latency_p99: float | None = None


@dataclass(frozen=True)
class EndpointState:
    """An endpoint as the server has it.

    ``revision`` is the newest of the catalog's that the server knows; ``state`` says how that stands: ``loading``; ``ready``, it
    answers in every worker; ``failed``, with the reason, and what was there before goes on; ``idle``, unloaded until a request
    comes.  ``queue``: requests that wait or are being answered.  ``undone``: revisions that killed workers, and how; what was
    there before them is back.
    """

    name: str
    revision: int
    state: str
    error: str | None = None
    arms: tuple[ArmState, ...] = ()
    replicas: int = 1
    queue: int = 0
    undone: Mapping[int, str] = field(default_factory=dict)


class EndpointServer(Protocol):
    """The server of one catalog's endpoints, as the session sees it."""

    def ensure(self) -> str:
        """Start it where none runs; its base URL."""

    def wait_ready(self, endpoint: str, revision: int, timeout: float, cancelled: Callable[[], bool]) -> str:
        """Wait until an endpoint answers as this revision of it says (or a later one); the endpoint's URL.

        ``ServingError`` with the reason otherwise, ``Cancelled`` as soon as ``cancelled()`` is true.
        """

    def states(self) -> Mapping[str, EndpointState]:
        """By the endpoint's name in lower case, from the running server; empty where none runs."""

    def write_predictions(self) -> None:
        """Let the running server write what it still holds of the prediction log and the feedback, for who is about to read them.

        It takes 0.3 s at most, never raises, and does nothing where none runs.
        """

    def url(self) -> str | None:
        """The base URL of the running server."""

    def stop(self) -> bool:
        """Stop it; False where none ran."""
