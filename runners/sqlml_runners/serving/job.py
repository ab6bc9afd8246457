"""One request, from the moment it is taken up to its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from sqlml_runners.serving.forms import Call, Form, Reply
from sqlml_runners.serving.limits import Policy
from sqlml_runners.serving.models import Route
from sqlml_runners.serving.paths import Target
from sqlml_runners.serving.protocol import BadRequest
from sqlml_runners.serving.rows import key_text
from sqlml_runners.serving.served import Served

Result = Reply | BadRequest


class Job:
    """What is known of a request; filled bit by bit, by whoever has it in hand.

    ``finish`` is called once with the answer.  ``served`` None: the rows decide which version it is.
    """

    __slots__ = (
        "began", "body", "call", "client", "deadline", "endpoint", "error", "finish", "form", "gone", "headers", "key", "late",
        "method", "number", "path", "policy", "query", "route", "served", "size", "target", "task",
    )  # fmt: skip

    def __init__(
        self, target: Target, method: str, path: str, query: bytes, headers: Mapping[bytes, bytes], client: str, number: str,
        began: float,
    ) -> None:  # fmt: skip
        self.target = target
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.client = client
        self.number = number  # the request's id
        self.began = began
        self.endpoint = ""  # in lower case, once it is known
        self.key = ""  # the API key's name
        self.error = ""
        self.size = 0  # of the body
        self.served: Served | None = None
        self.call: Call | None = None
        self.gone = False  # nobody waits any more
        self.late = False  # its body took too long

    # what comes later; a request that was refused has none of it
    route: Route
    policy: Policy
    deadline: float
    form: Form
    body: bytes
    finish: Callable[[Result], None]
    task: asyncio.Task[Any] | None

    def decode(self) -> Served:
        """Read the body, and choose the version by it where requests stick by a column."""
        served = self.served or self.route.main
        call = self.form.decode(served, self.body, self)
        self.policy.check_rows(call.n)
        if self.served is None:
            chosen = self.served = self.route.choose(sticky_value(self.route, served, call))  # from here on it is its request
            if chosen is not served:
                call = self.form.decode(chosen, self.body, self)
            served = chosen
        self.call = call
        return served


def sticky_value(route: Route, served: Served, call: Call) -> str | None:
    """The value of the first row by which requests stick; None without one, and of an empty one."""
    sticky = route.split.sticky
    name = served.rows.names.get(sticky.name.lower()) if sticky is not None else None
    if name is None or not call.n:
        return None
    if call.rows is not None:
        value = call.rows[0][served.rows.order.index(name)]
    else:
        columns = {**call.more, **call.arrow(served)}
        value = columns[name][0].as_py() if name in columns else None
    if value is None or value != value:
        return None
    return key_text(value).strip() or None


def choose(route: Route, headers: Mapping[bytes, bytes]) -> Served | None:
    """The version that answers; None where the rows decide."""
    sticky = route.split.sticky
    if sticky is None or len(route.arms) == 1:
        return route.choose()
    if sticky.kind != "header":
        return None
    value = headers.get(sticky.name.encode(), b"").strip()
    return route.choose(value.decode("latin-1") if value else None)
