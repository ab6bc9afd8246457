"""Who may see metadata and figures, from this machine and from others."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from sqlml_runners.serving.app import make_app
from sqlml_runners.serving.doors import Door, is_loopback
from sqlml_runners.serving.keys import KeyEntry, KeyRing
from sqlml_runners.serving.models import Models, Slot

from sqlml.catalog.api_keys import hash_secret

KEYS = KeyRing(
    [
        KeyEntry("one", ((hash_secret("s-one"), None),), ("deposit",)),
        KeyEntry("both", ((hash_secret("s-both"), None),), ("deposit", "churn")),
        KeyEntry("old", ((hash_secret("s-old"), 1.0),), ("deposit", "churn")),
    ]
)


@dataclass
class Deployed(Models):
    """Two endpoints, of which nothing is loaded."""

    slots: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()
        self._slots = dict.fromkeys(("deposit", "churn"), Slot(None))  # type: ignore[arg-type]


async def ask_supervisor(what: str) -> Any:
    return {"said": what}


def ask(client: str, path: str, secret: str = "", *, open_figures: bool = False) -> int:
    app = make_app(Deployed(), ask_supervisor, Door(lambda: KEYS, open_figures))

    async def get() -> int:
        transport = httpx.ASGITransport(app, client=(client, 1), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as asker:
            return (await asker.get(path, headers={"x-api-key": secret} if secret else {})).status_code

    return asyncio.run(get())


def test_figures_are_for_this_machine_and_for_keys_of_all_endpoints() -> None:
    path = "/sqlml/endpoints"
    assert [ask(here, path) for here in ("127.0.0.1", "::1", "127.3.2.1", "::ffff:127.0.0.1")] == [200] * 4
    assert [ask(away, path) for away in ("10.0.0.7", "2001:db8::1", "::ffff:10.0.0.7", "")] == [401] * 4
    assert ask("10.0.0.7", "/metrics") == 401
    assert ask("10.0.0.7", path, "s-both") == 200
    assert ask("10.0.0.7", path, "s-one") == 403
    assert [ask("10.0.0.7", path, secret) for secret in ("s-old", "nonsense")] == [401, 401]
    assert ask("10.0.0.7", path, open_figures=True) == 200
    assert ask("10.0.0.7", "/v2/health/live") == 200


@pytest.mark.parametrize("client", ["", "localhost", "unix:", "1.2.3"])
def test_what_is_no_address_is_not_this_machine(client: str) -> None:
    assert not is_loopback(client)
