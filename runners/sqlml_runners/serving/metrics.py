"""``GET /metrics``: what all workers did since the server began, in Prometheus' text form.

workers' ``Figures`` → Counters, in the supervisor → a plain document → the text, written by whichever worker was asked
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from sqlml_runners.serving.counters import Document
from sqlml_runners.serving.figures import bucket_end

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS = range(24, 104, 4)
"""The buckets whose ends are told: 64 microseconds and each doubling, up to 34 seconds."""
_BATCHES = (1, 2, 4, 8, 16, 32, 64)


def metrics_text(document: Document) -> bytes:
    """Prometheus' text."""
    registry = CollectorRegistry()
    registry.register(_Once(document))
    return generate_latest(registry)


def read_document(plain: Any) -> Document:
    """What the supervisor answered."""
    return msgspec.convert(plain, Document, strict=False)


class _Once(Collector):
    def __init__(self, document: Document) -> None:
        self._document = document

    def collect(self) -> Iterator[Any]:
        yield from _requests(self._document)
        yield from _logs(self._document)
        yield from _now(self._document)


def _requests(document: Document) -> Iterator[Any]:
    names = ["endpoint", "version"]
    requests = CounterMetricFamily("sqlml_requests", "Requests, by what they were answered with", labels=[*names, "status"])
    rows = CounterMetricFamily("sqlml_rows", "Rows that were predicted", labels=names)
    dropped = CounterMetricFamily("sqlml_shadow_dropped", "Requests of which a shadow had no room for a copy", labels=names)
    seconds = HistogramMetricFamily("sqlml_request_duration_seconds", "How long an answer took", labels=names)
    for arm in document.arms:
        labels = [arm.endpoint, arm.version]
        for status, count in sorted(arm.statuses.items()):
            requests.add_metric([*labels, str(status)], count)
        rows.add_metric(labels, arm.rows)
        if arm.dropped:
            dropped.add_metric(labels, arm.dropped)
        total = sum(bucket_end(number) * count for number, count in arm.latencies.items())
        seconds.add_metric(labels, _cumulated(arm.latencies, _BOUNDS, lambda number: f"{bucket_end(number):.6g}"), total)
    yield from (requests, rows, dropped, seconds)


def _logs(document: Document) -> Iterator[Any]:
    together = HistogramMetricFamily("sqlml_batch_requests", "How many requests were scored together", labels=[])
    total = sum(size * times for size, times in document.batches.items())
    together.add_metric([], _cumulated(document.batches, _BATCHES, str), total)
    yield together
    for name, text, counts in (
        ("sqlml_logged_rows", "Rows that the prediction log has taken", document.logged),
        ("sqlml_unlogged_rows", "Rows that the prediction log had to drop", document.unlogged),
    ):
        family = CounterMetricFamily(name, text, labels=["endpoint"])
        for endpoint, count in sorted(counts.items()):
            family.add_metric([endpoint], count)
        yield family


def _now(document: Document) -> Iterator[Any]:
    waiting = GaugeMetricFamily("sqlml_queue_requests", "Requests that wait or are being answered", labels=["endpoint"])
    states = GaugeMetricFamily("sqlml_endpoint_state", "1 for the state that an endpoint is in", labels=["endpoint", "state"])
    for endpoint, state in sorted(document.states.items()):
        waiting.add_metric([endpoint], document.queue.get(endpoint, 0))
        states.add_metric([endpoint, state], 1)
    yield from (waiting, states)
    yield GaugeMetricFamily("sqlml_workers", "Worker processes that take requests", value=document.workers)
    yield GaugeMetricFamily("sqlml_connections", "Open connections", value=document.connections)


def _cumulated(counts: Mapping[int, int], bounds: Iterable[int], name: Callable[[int], str]) -> list[tuple[str, float]]:
    """Prometheus' buckets: how many were at most each bound, and how many there were."""
    told = [(name(bound), float(sum(times for number, times in counts.items() if number <= bound))) for bound in bounds]
    return [*told, ("+Inf", float(sum(counts.values())))]
