"""An endpoint that is parked: who may have it loaded."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlml_runners.serving.doors import Door
from sqlml_runners.serving.models import Models
from sqlml_runners.serving.protocol import BadRequest
from sqlml_runners.serving.reception import Reception

from sqlml.catalog import Arm, Endpoint


def test_nobody_without_a_key_has_an_endpoint_loaded() -> None:
    wanted: list[str] = []
    models = Models(wanted.append)
    arm = Arm("m", 1, "uid", Path("/b"), "sha", "")
    models.park(Endpoint("Deposit", (arm,), 1, datetime(2026, 1, 1, tzinfo=UTC), options={"auth": "key"}))
    reception = Reception(models)
    with pytest.raises(BadRequest, match="the endpoint needs an API key") as caught:
        asyncio.run(reception.wake("deposit", {}))
    assert caught.value.status == 401
    with pytest.raises(BadRequest, match="the API key is unknown"):
        asyncio.run(reception.wake("deposit", {b"x-api-key": b"guessed"}))
    with pytest.raises(BadRequest, match="the endpoint needs an API key"):
        Door().check_parked(models.slot("deposit"), {})
    assert wanted == []
