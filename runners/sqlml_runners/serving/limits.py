"""What one request may cost an endpoint: the options of DEPLOY … WITH as plain values, and the refusals.  No I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlml.endpoint_options import settings
from sqlml.errors import count_of
from sqlml_runners.serving.protocol import BadRequest


@dataclass(frozen=True)
class Policy:
    """The limits of one endpoint: ``max_body`` in bytes, ``timeout`` in seconds; ``log``: the part that is logged."""

    max_queue: int
    max_rows: int
    max_body: int
    timeout: float
    keyed: bool  # a request needs an API key
    log: float
    log_limit: int

    @staticmethod
    def of(options: Mapping[str, Any]) -> Policy:
        """From an endpoint's options, those that were not given at their defaults."""
        given = settings(options)
        return Policy(
            given["max_queue"], given["max_rows"], given["max_body"], given["timeout"], given["auth"] == "key", given["log"],
            given["log_limit"],
        )  # fmt: skip

    def check_rows(self, n: int) -> None:
        """413 for more rows than one request may have."""
        if n > self.max_rows:
            message = f"{n:,} rows; one request may have {count_of(self.max_rows, 'row')} (option max_rows)"
            raise BadRequest(413, message, hint="send them in several requests")

    def too_large(self, size: int | None) -> BadRequest:
        """413 for a body of a size (None: larger than may be)."""
        what = "the body is too large" if size is None else f"the body has {size:,} bytes"
        return BadRequest(
            413, f"{what}; one request may have {self.max_body:,} bytes (option max_body)", hint="send less at a time"
        )

    def too_late(self) -> BadRequest:
        """504 for a request whose time is over."""
        return BadRequest(504, f"the request took longer than {self.timeout:g} s, waiting included (option timeout)")

    def too_slow(self) -> BadRequest:
        """408 for a body that does not arrive."""
        return BadRequest(408, f"the body did not arrive within {self.timeout:g} s (option timeout)")

    def too_many(self, waiting: int, seconds: float) -> BadRequest:
        """503 for one request more than may wait; ``seconds`` is how long those there may take."""
        message = f"{count_of(waiting, 'request')} are waiting or under way, as many as may be (option max_queue)"
        return BadRequest(503, message, hint="try again a little later", retry_after=max(1, math.ceil(seconds)))
