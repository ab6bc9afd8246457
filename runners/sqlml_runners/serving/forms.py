"""The forms in which a request may come: each reads a body for a version and writes its answer.  No I/O.

content type → Form;   body → Call: rows of values, or Arrow columns of many rows → [model] → Reply
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import parse_qs

import msgspec

from sqlml_runners.serving import arrow_body, csv_body
from sqlml_runners.serving.accept import choose_type
from sqlml_runners.serving.limits import Policy
from sqlml_runners.serving.outputs import Predictions, plain_values
from sqlml_runners.serving.protocol import BadRequest, Columns, Rows, columns_of
from sqlml_runners.serving.rows import decode_rows
from sqlml_runners.serving.served import Served
from sqlml_runners.serving.v2 import InferCall, decode_infer, encode_infer

JSON = b"application/json"
ARROW = b"application/vnd.apache.arrow.stream"
CSV = b"text/csv"
_AS_JSON = frozenset({JSON, b"text/plain", b"application/x-www-form-urlencoded", b"text/json", b"*/*", b""})
"""What is read as JSON: curl -d calls it a form."""
_ANSWERED_AS_JSON = frozenset({JSON, b"*/*"})
"""What most callers accept, if they say so at all."""
_ARROWS = frozenset({ARROW, b"application/vnd.apache.arrow.file", b"application/x-apache-arrow-stream"})
_JSON_SIZE = b"inference-header-content-length"


class Call(msgspec.Struct, frozen=True):
    """What a request asks: ``n`` rows, as values or as Arrow columns, with their keys for the prediction log.

    ``more`` are the columns beside the inputs, where ``columns`` has those; ``extra`` is the form's own.
    """

    n: int
    rows: Rows | None = None
    columns: Columns | None = None
    more: Columns = {}
    keys: Sequence[str | None] | None = None
    extra: Any = None

    def arrow(self, served: Served) -> Columns:
        """The columns, in any case."""
        return columns_of(served.rows.inputs, self.rows or ()) if self.columns is None else self.columns


class Reply(msgspec.Struct, frozen=True):
    """An answer: its body, its type, and more headers."""

    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()
    status: int = 200


class Asked(Protocol):
    """What stands around a body: the headers, the query behind the path, and the endpoint's limits."""

    headers: Mapping[bytes, bytes]
    query: bytes
    policy: Policy


class Form(Protocol):
    """One form of requests.  ``wrong`` is the status of a row that cannot be computed; ``bulk``: for many rows, not for one."""

    wrong: int
    bulk: bool

    def decode(self, served: Served, body: bytes, asked: Asked) -> Call:
        """Read a body.  ``BadRequest`` for what does not fit."""

    def run(self, served: Served, call: Call) -> Predictions:
        """Answer one request by itself."""

    def encode(self, served: Served, call: Call, predictions: Predictions) -> Reply:
        """Write the answer."""


class RowsForm:
    """``{"rows": [{…}]}``, answered in kind unless another form is asked for."""

    wrong, bulk = 422, False

    def __init__(self, writes: bytes = JSON) -> None:
        self._writes = writes

    def decode(self, served: Served, body: bytes, asked: Asked) -> Call:
        """Read a body."""
        rows = decode_rows(served.rows, body)
        return Call(len(rows), rows)

    def run(self, served: Served, call: Call) -> Predictions:
        """Answer one request by itself."""
        return served.run_rows(call.rows or ())

    def encode(self, served: Served, call: Call, predictions: Predictions) -> Reply:
        """Write the answer."""
        return _reply(self._writes, served, predictions)


class InferForm:
    """The Open Inference Protocol, version 2, with or without binary tensors."""

    wrong, bulk = 400, False

    def decode(self, served: Served, body: bytes, asked: Asked) -> Call:
        """Read a body."""
        size = asked.headers.get(_JSON_SIZE)
        form, length = served.rows, None if size is None else _size(size, len(body))
        call = decode_infer(form.inputs, body, length, form.keys, form.spare)
        return Call(len(call.rows), call.rows, extra=call)

    def run(self, served: Served, call: Call) -> Predictions:
        """Answer one request by itself."""
        return served.run_rows(call.rows or ())

    def encode(self, served: Served, call: Call, predictions: Predictions) -> Reply:
        """Write the answer."""
        extra: InferCall = call.extra
        answer = encode_infer(served.endpoint, served.label, extra, served.outputs, predictions)
        if answer.json_size is None:
            return Reply(answer.body)
        return Reply(answer.body, b"application/octet-stream", ((_JSON_SIZE, b"%d" % answer.json_size),))


class BulkForm:
    """Many rows at once, as Arrow or as CSV, answered in kind unless JSON is asked for."""

    wrong, bulk = 422, True

    def __init__(self, reads: bytes, writes: bytes) -> None:
        self._read = arrow_body.read_arrow_body if reads == ARROW else csv_body.read_csv_body
        self._writes = writes

    def decode(self, served: Served, body: bytes, asked: Asked) -> Call:
        """Read a body."""
        bulk = self._read(served.rows, body, asked.policy)
        return Call(bulk.n, columns=bulk.columns, more=bulk.more, keys=bulk.keys)

    def run(self, served: Served, call: Call) -> Predictions:
        """Answer one request by itself."""
        return served.run(call.columns or {})

    def encode(self, served: Served, call: Call, predictions: Predictions) -> Reply:
        """Write the answer."""
        return _reply(self._writes, served, predictions)


def _reply(kind: bytes, served: Served, predictions: Predictions) -> Reply:
    """An answer of a type: JSON, CSV or Arrow."""
    if kind == JSON:
        return Reply(served.writer.encode(predictions))
    if kind == CSV:
        return Reply(csv_body.write_csv_body(served.outputs, predictions), CSV)
    return Reply(arrow_body.write_arrow_body(served.outputs, predictions), ARROW)


class ExplainForm:
    """Rows, answered with what made each prediction: the features that moved it, the largest first."""

    wrong, bulk = 422, True

    def decode(self, served: Served, body: bytes, asked: Asked) -> Call:
        """Read a body; ``?top=3`` for the three largest contributions of each row."""
        rows = decode_rows(served.rows, body)
        return Call(len(rows), rows, extra=_top(asked.query))

    def run(self, served: Served, call: Call) -> Predictions:
        """What the model says of itself, as one Arrow array."""
        served.check_explains()
        top = len(served.model.encoder.inputs) if call.extra is None else call.extra
        return [served.model.explain(call.arrow(served), top).to_struct_array()]

    def encode(self, served: Served, call: Call, predictions: Predictions) -> Reply:
        """Write the answer."""
        document = {"model": served.arm.model, "version": served.arm.version, "explanations": plain_values(predictions[0])}
        return Reply(msgspec.json.encode(document))


ROWS, INFER, EXPLAIN = RowsForm(), InferForm(), ExplainForm()
_ROWS = {JSON: ROWS, ARROW: RowsForm(ARROW), CSV: RowsForm(CSV)}
_BULK = {(reads, writes): BulkForm(reads, writes) for reads in (ARROW, CSV) for writes in (ARROW, CSV, JSON)}


def form_of(form: Form, headers: Mapping[bytes, bytes]) -> Form:
    """The form of a request: that of its path for JSON, another by its content type, or by what is accepted of the answer.

    415 for types that nobody reads, 406 where nothing that could be answered is accepted.
    """
    given = headers.get(b"content-type", JSON)
    takes_json = headers.get(b"accept", JSON) in _ANSWERED_AS_JSON
    if given == JSON and takes_json and b"content-encoding" not in headers:
        return form
    kind = given.partition(b";")[0].strip().lower()
    if (encoding := headers.get(b"content-encoding", b"").strip()) not in (b"", b"identity"):
        raise BadRequest(415, f"content-encoding {encoding.decode('latin-1')} is not read: send the body as it is")
    if form is INFER and (kind in _AS_JSON or kind == b"application/octet-stream"):
        return form
    if kind in _AS_JSON or kind.endswith(b"+json"):
        return form if takes_json else _answered(form, headers)
    if form is ROWS and (kind == CSV or kind in _ARROWS):
        reads = CSV if kind == CSV else ARROW
        return _BULK[reads, _accepted(headers, (reads, *_ROWS))]
    more = f", {ARROW.decode()}, {CSV.decode()}" if form is ROWS else ""
    raise BadRequest(415, f"content-type {kind.decode('latin-1')!r} is not read; this path takes {JSON.decode()}{more}")


def _answered(form: Form, headers: Mapping[bytes, bytes]) -> Form:
    """The form of a JSON body: rows have answers of other types, too.  What V2 answers, its body says."""
    if form is INFER:
        return form
    kind = _accepted(headers, tuple(_ROWS) if form is ROWS else (JSON,))
    return _ROWS[kind] if form is ROWS else form


def _accepted(headers: Mapping[bytes, bytes], there: tuple[bytes, ...]) -> bytes:
    """What is answered of what is ``there``, the usual first.  406 where nothing of it is accepted."""
    accept = headers.get(b"accept", b"")
    found = _chosen(accept, there)
    if found is None:
        answers = b", ".join(dict.fromkeys(there)).decode()
        raise BadRequest(406, f"accept: nothing of {accept.decode('latin-1')!r} is answered; this path answers {answers}")
    return found


@lru_cache(64)
def _chosen(accept: bytes, there: tuple[bytes, ...]) -> bytes | None:
    """The same callers say the same with each request."""
    return choose_type(accept, there, dict.fromkeys(_ARROWS, ARROW))


def _size(text: bytes, length: int) -> int:
    if not text.isdigit() or int(text) > length:
        raise BadRequest(400, f"the header Inference-Header-Content-Length is {text.decode('latin-1')!r}, of {length} bytes")
    return int(text)


def _top(query: bytes) -> int | None:
    given = parse_qs(query.decode("latin-1")).get("top")
    if not given:
        return None
    if not given[-1].isdigit() or int(given[-1]) < 1:
        raise BadRequest(422, f"top: expected a whole number from 1, got {given[-1]!r}", "top")
    return int(given[-1])
