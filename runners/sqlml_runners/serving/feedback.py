"""``POST /models/{m}/feedback``: what turned out to be true of predictions, as rows for the log.  No I/O.

{"feedback": [{"request_id": "…", "truth": "yes"}, {"key": "customer 7", "truth": 12.5}]}, or one such object alone
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import msgspec
import pyarrow as pa

from sqlml.earlier_targets import earlier_targets
from sqlml.features.truths import find_wrong_truth
from sqlml.plan import TargetColumn
from sqlml.prediction_log import feedback_schema
from sqlml.types import label_text
from sqlml_runners.serving.models import Route
from sqlml_runners.serving.protocol import BadRequest, decode_json, does_not_fit
from sqlml_runners.serving.rows import key_text

MOST = 10_000
"""Rows of one request."""


class Truth(msgspec.Struct, forbid_unknown_fields=True):
    """One row: by the request's id and its number there, or by its key.
    ``target`` where there are several: of a query a column of its answer.
    """

    truth: str | int | float | bool
    request_id: str | None = None
    row: Annotated[int, msgspec.Meta(ge=0)] = 0
    key: str | int | float | None = None
    target: str | None = None


class _Feedback(msgspec.Struct, forbid_unknown_fields=True):
    feedback: list[Truth]


_ALONE: msgspec.json.Decoder[Truth] = msgspec.json.Decoder(Truth)
_SEVERAL: msgspec.json.Decoder[_Feedback] = msgspec.json.Decoder(_Feedback)
_PLAIN: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])


def decode_feedback(route: Route, body: bytes, owner: str) -> pa.RecordBatch:
    """The rows of a body.  ``BadRequest`` 400 for what is not JSON, 422 for what does not fit."""
    try:
        document = decode_json(_PLAIN.decode, body)
        alone = "feedback" not in document
        rows = [decode_json(_ALONE.decode, body)] if alone else decode_json(_SEVERAL.decode, body).feedback
    except msgspec.ValidationError as error:
        raise does_not_fit(error) from error
    if len(rows) > MOST:
        raise BadRequest(413, f"{len(rows):,} rows of feedback; one request may have {MOST:,}")
    for i, row in enumerate(rows):
        _check(row, "" if alone else f"feedback[{i}]", route)
    batch = _batch(route.key, rows, owner)
    _check_truths(route, batch, alone=alone)
    return batch


def _check(row: Truth, place: str, route: Route) -> None:
    where = f"{place}: " if place else ""
    if row.request_id is None and row.key is None:
        raise BadRequest(422, f"{where}neither request_id nor key says which prediction is meant", place or None)
    fault = route.main.target_fault(row.target, f"endpoint {route.endpoint.name}")
    if fault is not None and not (row.target and _earlier(route, row.target.lower())):
        raise BadRequest(422, f"{where}{fault}", f"{place}.target".strip("."))


def _check_truths(route: Route, batch: pa.RecordBatch, *, alone: bool) -> None:
    """422 for the first truth that no version, of now or earlier, could have meant: no class of any, or no number."""
    wrong = find_wrong_truth(batch["target"], batch["truth"], (partial(_present, route), partial(_earlier, route)))
    if wrong is not None:
        place = "" if alone else f"feedback[{wrong.place}]: "
        raise BadRequest(422, f"{place}{wrong.message}", f"{place.rstrip(': ')}.truth".strip("."), hint=wrong.hint)


def _present(route: Route, name: str | None) -> list[TargetColumn]:
    asked = (route.main.sole_target or "").lower() if name is None else name
    versions = (*route.arms, *route.shadows)
    return [target for served in versions for target in served.truth_targets if target.name.lower() == asked]


def _earlier(route: Route, name: str | None) -> list[TargetColumn]:
    if name is None and route.endpoint.definition is not None:  # of a query a column of today's
        name = (route.main.sole_target or "").lower()
    return [target for target in earlier_targets(route.endpoint.options) if name is None or target.name.lower() == name]


def _batch(endpoint: str, rows: list[Truth], owner: str) -> pa.RecordBatch:
    n, moment = len(rows), datetime.now(UTC).replace(tzinfo=None)
    columns: dict[str, list[Any]] = {
        "endpoint": [endpoint] * n,
        "request_id": [row.request_id for row in rows],
        "row": [row.row for row in rows],
        "key": [None if row.key is None else key_text(row.key) for row in rows],
        "target": [row.target for row in rows],
        "truth": [label_text(row.truth) for row in rows],
        "owner": [owner] * n,
        "given_at": [moment] * n,
    }
    schema = feedback_schema()
    return pa.RecordBatch.from_arrays([pa.array(columns[field.name], field.type) for field in schema], schema=schema)
