"""A version that serves no more stays in memory for a while: who goes back to it has it at once."""

from __future__ import annotations

import shutil

import pytest
from sqlml_runners.serving import models as module
from sqlml_runners.serving.models import Models

from sqlml.catalog import Endpoint, Version
from sqlml.errors import BundleError
from tests.serving.conftest import Place


def endpoint(place: Place, version: Version) -> Endpoint:
    place.catalog.deploy("m", version)
    [found] = place.catalog.endpoints()
    return found


def put(models: Models, found: Endpoint) -> None:
    models.announce(found)
    models.load(found)
    assert models.switch("m", found.revision)


def test_going_back_reads_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (place.publish("m", seed=seed) for seed in (1, 2))
    models = Models()
    put(models, endpoint(place, first))
    before = models.get("m")
    put(models, endpoint(place, second))
    shutil.rmtree(first.bundle)
    models.sweep()
    put(models, endpoint(place, first))
    assert models.get("m").model is before.model
    assert models.get("m").arm.version == 1
    put(models, endpoint(place, second))
    monkeypatch.setattr(module, "LEFT_SECONDS", -1.0)
    models.sweep()
    with pytest.raises(BundleError, match="is missing"):
        models.load(endpoint(place, first))
    assert models.get("m").arm.version == 2


@pytest.mark.parametrize("leave", ["park", "remove"])
def test_nothing_stays_of_an_endpoint_that_is_unloaded(place: Place, leave: str) -> None:
    first, second = (place.publish("m", seed=seed) for seed in (1, 2))
    models = Models()
    for version in (first, second):
        put(models, endpoint(place, version))
    now = models.slot("m").endpoint
    models.park(now) if leave == "park" else models.remove("m")
    shutil.rmtree(first.bundle)
    with pytest.raises(BundleError, match="is missing"):
        models.load(endpoint(place, first))


def test_a_model_that_was_renamed_answers_under_its_new_name(place: Place) -> None:
    first, second = (place.publish("m", seed=seed) for seed in (1, 2))
    models = Models()
    put(models, endpoint(place, first))
    put(models, endpoint(place, second))
    place.catalog.rename("m", "newer")
    put(models, endpoint(place, first))
    served = models.get("m")
    assert b'"newer"' in served.writer.encode(served.sample)
    assert served.arm.name == "newer@1"


def test_what_was_loaded_for_an_endpoint_that_is_gone_does_not_stay(place: Place) -> None:
    first = place.publish("m")
    models = Models()
    found = endpoint(place, first)
    models.announce(found)
    models.remove("m")
    models.load(found)
    assert not models.switch("m", found.revision)
