"""What the supervisor is asked, and how: a Unix socket in a private folder, one word a line in, one JSON document a line out."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from sqlml.contracts import ArmState, EndpointState
from sqlml_runners.serving.figures import Totals
from sqlml_runners.serving.fleet import Fleet

LONGEST = 80
"""Bytes of the folder's path: a socket's own may not have more than about 100."""


class ControlSocket:
    """Answers sessions on this machine, whatever the workers are doing.  Only the user who started the server can reach it."""

    def __init__(self, tell: Callable[[str], Awaitable[Any]]) -> None:
        self._tell = tell
        self._folder: Path | None = None
        self._server: asyncio.Server | None = None

    async def open(self) -> str:
        """Listen; where."""
        self.close()
        place = tempfile.gettempdir()
        self._folder = Path(tempfile.mkdtemp(prefix="sqlml-", dir=place if len(place) < LONGEST else "/tmp"))  # noqa: S108
        self._server = await asyncio.start_unix_server(self._serve, self._folder / "control")
        return str(self._folder / "control")

    def there(self) -> bool:
        """Whether others can still find it."""
        return self._folder is not None and (self._folder / "control").exists()

    def close(self) -> None:
        """Listen no more, and leave nothing."""
        if self._server is not None:
            self._server.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(msgspec.json.encode(await self._tell(line.decode(errors="replace").strip())) + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            pass  # whoever asked has gone, or talks nonsense
        finally:
            writer.close()


def told_states(fleet: Fleet, totals: Totals, now: float) -> dict[str, Any]:
    """Every endpoint as it stands, with its figures, as JSON: by its name, the fields of ``EndpointState``."""
    states = [_with_figures(state, fleet, totals, now) for state in fleet.states()]
    return {state.name: msgspec.to_builtins(state, str_keys=True) for state in states}


def _with_figures(state: EndpointState, fleet: Fleet, totals: Totals, now: float) -> EndpointState:
    key = state.name.lower()
    queue = sum(seat.under_way.get(key, 0) for seat in fleet.seats.values())
    arms = tuple(_arm_with_figures(arm, key, fleet.counted_as(key, arm.uid), totals, now) for arm in state.arms)
    return replace(state, arms=arms, queue=queue)


def _arm_with_figures(arm: ArmState, key: str, uid: str, totals: Totals, now: float) -> ArmState:
    total = totals.of(key, uid, now)
    return replace(
        arm,
        requests=total.requests,
        errors=total.errors,
        latency_p50=total.latency_p50,
        latency_p99=total.latency_p99,
    )
