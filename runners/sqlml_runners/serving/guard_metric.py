"""``python -m sqlml_runners.serving.guard_metric``: the metric of a guarded roll-out, from the log and the feedback.

It is a process of its own, which the supervisor starts now and then: what it needs, numpy and pyarrow over a whole log, has no
business in a process that must not die.  It prints one JSON document, ``Sides``.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sqlml.catalog import Catalog, Endpoint
from sqlml.evaluation.live import LiveScores, measure_live
from sqlml.home import CATALOG_VARIABLE
from sqlml.rollout import Guard, guard_of
from sqlml_runners.serving.guards import Side, Sides


def measure_guard(catalog: Catalog, endpoint: Endpoint, guard: Guard) -> Sides:
    """Both sides since the endpoint's last change; of several targets the first counts."""
    versions = {arm.uid: catalog.by_uid(arm.uid) for arm in endpoint.arms}
    targets = {uid: version.targets[:1] for uid, version in versions.items()}
    found = measure_live(catalog.home, endpoint.name, targets, since=endpoint.changed_at)
    own = [_side(scores, guard) for scores in found if scores.uid == guard.candidate]
    others = [_side(scores, guard) for scores in found if scores.uid != guard.candidate and scores.role == "serves"]
    return Sides(max(own, key=_rows, default=Side()), max(others, key=_rows, default=Side()))


def _side(scores: LiveScores, guard: Guard) -> Side:
    return Side(scores.scores.known.rows, scores.scores.measure().get(guard.metric or ""))


def _rows(side: Side) -> int:
    return side.rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both sides; nothing where the endpoint is gone or has no guard any more."""
    parser = argparse.ArgumentParser(prog="python -m sqlml_runners.serving.guard_metric", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--endpoint", required=True)
    given = parser.parse_args(arguments)
    catalog = Catalog.open(given.home, os.environ.get(CATALOG_VARIABLE))
    try:
        endpoint = catalog.endpoint(given.endpoint)
        guard = guard_of(endpoint.options) if endpoint else None
        if endpoint is not None and guard is not None:
            sys.stdout.buffer.write(msgspec.json.encode(measure_guard(catalog, endpoint, guard)))
    finally:
        catalog.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
