"""The versions that are served: loaded, warmed and swapped so as to follow the catalog.

    catalog (wanted) → slot: loading → warm, in the watcher's thread → one reference is swapped → ready

A version that cannot be loaded leaves its slot ``failed`` with the reason, and the version before it goes on serving.  A request
keeps the version it began with; an old version is freed with its last request.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import msgspec

from sqlml.bundles.model import Model
from sqlml.catalog import Endpoint
from sqlml.errors import BindError, BundleError, DataError, listing
from sqlml_runners.serving.outputs import Output, Predictions, model_outputs, run_model
from sqlml_runners.serving.protocol import BadRequest, Columns
from sqlml_runners.serving.rows import RowForm, decode_rows, encode_rows, row_form
from sqlml_runners.serving.v2 import decode_infer, encode_infer, model_metadata

log = logging.getLogger("sqlml.serving")

POLL_SECONDS = 0.2
QUICK_SECONDS = 0.002
"""A request that takes no longer than this for one row may be answered on the event loop."""


class EndpointCatalog(Protocol):
    """What is asked of the catalog."""

    def endpoints_revision(self) -> int: ...
    def endpoints(self) -> Sequence[Endpoint]: ...


@dataclass(frozen=True)
class Served:
    """One version behind one endpoint, warm.  Safe to use from many threads."""

    endpoint: Endpoint
    model: Model
    rows: RowForm
    outputs: tuple[Output, ...]
    sample: Predictions  # of the manifest's example row
    quick: bool

    def predict(self, body: bytes) -> bytes:
        """Answer the plain form."""
        predictions = self._run(decode_rows(self.rows, body), 422)
        return encode_rows(self.endpoint.model, self.endpoint.version, self.outputs, predictions)

    def infer(self, body: bytes) -> bytes:
        """Answer a V2 inference request."""
        call = decode_infer(self.rows.inputs, body)
        predictions = self._run(call.columns, 400)
        return encode_infer(self.endpoint.name, self.endpoint.version, call, self.outputs, predictions)

    def _run(self, columns: Columns, status: int) -> Predictions:
        """Predict.  ``BadRequest`` with this status for a row from which TRANSFORM can compute nothing."""
        try:
            return run_model(self.model, columns)
        except (DataError, BindError) as error:
            raise BadRequest(status, error.message) from error

    def metadata(self) -> dict[str, Any]:
        """The V2 metadata of this version."""
        return model_metadata(self.endpoint.name, self.endpoint.version, self.rows.inputs, self.outputs, self.sample)


@dataclass(frozen=True)
class Slot:
    """An endpoint: what the catalog wants there, what is there, and how it stands."""

    wanted: Endpoint
    served: Served | None = None
    state: str = "loading"  # loading, ready, failed: of the wanted version
    error: str | None = None


def load_served(endpoint: Endpoint) -> Served:
    """Load a bundle and answer its example row a few times: once to warm it, then to time it."""
    model = Model.open(endpoint.bundle, endpoint.sha256)
    form = row_form(model.inputs)
    body = msgspec.json.encode({"rows": [dict(model.manifest.example)]})
    sample = run_model(model, decode_rows(form, body))
    served = Served(endpoint, model, form, model_outputs(model), sample, quick=True)
    return replace(served, quick=min(_seconds(served, body) for _ in range(3)) < QUICK_SECONDS)


def _seconds(served: Served, body: bytes) -> float:
    began = time.perf_counter()
    served.predict(body)
    return time.perf_counter() - began


class Models:
    """All endpoints of one catalog.  Reads are lock-free; only ``sync`` and the watcher's thread write."""

    def __init__(self, catalog: EndpointCatalog) -> None:
        self._catalog = catalog
        self._slots: Mapping[str, Slot] = {}
        self._revision: int | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="models", daemon=True)
        self._reachable = True
        self._empty_since: float | None = time.monotonic()

    def start(self) -> None:
        """Begin to follow the catalog."""
        self._watcher.start()

    def close(self) -> None:
        """Stop following; what is loaded stays usable."""
        self._stop.set()
        self._watcher.join(timeout=5)

    def get(self, name: str, version: str | None = None) -> Served:
        """The version that answers for an endpoint.  404 where there is no such name or version, 503 where none is warm."""
        slot = self.slot(name)
        if slot.served is None:
            status = "could not be loaded: " + slot.error if slot.error else "is loading"
            raise BadRequest(503, f"endpoint {slot.wanted.name} ({slot.wanted.model}@{slot.wanted.version}) {status}")
        if version is not None and version != str(slot.served.endpoint.version):
            serving = slot.served.endpoint.version
            raise BadRequest(404, f"endpoint {slot.wanted.name} has no version {version}; it serves {serving}")
        return slot.served

    def slot(self, name: str) -> Slot:
        """An endpoint by its name, in any case.  404 with the names there are."""
        found = self._slots.get(name.lower())
        if found is None:
            names = listing(slot.wanted.name for slot in self._slots.values())
            raise BadRequest(404, f"unknown model {name!r}; {'deployed: ' + names if names else 'nothing is deployed'}")
        return found

    def served(self) -> list[Served]:
        """Everything that can answer now."""
        return [slot.served for slot in self._slots.values() if slot.served is not None]

    def states(self) -> dict[str, dict[str, Any]]:
        """endpoint → model, version, state, error: of the wanted versions; ``serving`` is the version that answers."""
        return {
            slot.wanted.name: {
                "model": slot.wanted.model,
                "version": slot.wanted.version,
                "state": slot.state,
                "error": slot.error,
                "serving": slot.served.endpoint.version if slot.served else None,
            }
            for slot in self._slots.values()
        }

    def ready(self) -> bool:
        """The catalog has been read, and each endpoint answers or is known to be broken."""
        return self._revision is not None and all(slot.served or slot.state == "failed" for slot in self._slots.values())

    def empty_seconds(self) -> float | None:
        """For how long there has been no endpoint; None where there is one."""
        since = self._empty_since
        return None if since is None else time.monotonic() - since

    def sync(self) -> None:
        """Take note of what the catalog wants now.  A catalog that cannot be read changes nothing."""
        with self._lock:
            try:
                revision = self._catalog.endpoints_revision()
                if revision != self._revision:
                    self._want(self._catalog.endpoints())
                    self._revision = revision
            except Exception as error:  # serving goes on whatever becomes of the catalog
                if self._reachable:
                    log.warning("the catalog cannot be read, serving on: %s", error)
                self._reachable = False
            else:
                self._reachable = True

    def _want(self, endpoints: Sequence[Endpoint]) -> None:
        slots: dict[str, Slot] = {}
        for endpoint in endpoints:
            key = endpoint.name.lower()
            slot = self._slots.get(key)
            if slot is not None and slot.wanted == endpoint:
                slots[key] = slot
            else:
                slots[key] = Slot(endpoint, slot.served if slot else None)
        for key in self._slots.keys() - slots.keys():
            log.info("endpoint %s is gone", self._slots[key].wanted.name)
        self._slots = slots
        self._empty_since = (self._empty_since or time.monotonic()) if not slots else None

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.sync()
            waiting = next((slot for slot in self._slots.values() if slot.state == "loading"), None)
            if waiting is None:
                self._stop.wait(POLL_SECONDS)
            else:
                self._load(waiting.wanted)

    def _load(self, endpoint: Endpoint) -> None:
        name = f"{endpoint.model}@{endpoint.version} behind {endpoint.name}"
        try:
            served = load_served(endpoint)
        except Exception as error:  # whatever a bundle does must not stop the others
            log.error("cannot load %s: %s", name, error, exc_info=not isinstance(error, BundleError))
            reason = str(error) or type(error).__name__
            self._settle(endpoint, lambda slot: replace(slot, state="failed", error=reason))
        else:
            log.info("ready: %s", name)
            self._settle(endpoint, lambda slot: replace(slot, served=served, state="ready", error=None))

    def _settle(self, endpoint: Endpoint, change: Callable[[Slot], Slot]) -> None:
        with self._lock:
            key = endpoint.name.lower()
            slot = self._slots.get(key)
            if slot is not None and slot.wanted == endpoint:  # otherwise the catalog has changed its mind meanwhile
                self._slots = {**self._slots, key: change(slot)}
