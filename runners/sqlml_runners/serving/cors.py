"""Pages of other origins: which may read answers, and what a browser is told when it asks before.  Pure functions.

    Origin of a request + the origins that the server was told → headers of the answer;   OPTIONS → the whole answer

Off unless the server was told origins.  Keys travel in headers, so no answer allows credentials such as cookies.
Only the endpoints' own paths are for pages: figures (``/metrics``, ``/sqlml/endpoints``) are shown without a key to whoever asks
from this machine, and a page in a browser on it asks from there, too, whoever wrote it.
https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlml.server_settings import ANY_ORIGIN
from sqlml_runners.serving.forms import Reply
from sqlml_runners.serving.protocol import BadRequest

Headers = tuple[tuple[bytes, bytes], ...]
_FOR_PAGES = ("/models/", "/v2/")
"""What the paths begin with that pages of other origins may ask."""

MAX_AGE = 600
"""Seconds for which a browser need not ask again."""
_EXPOSED = b"x-request-id, retry-after, www-authenticate, inference-header-content-length"


class Cors:
    """The origins whose pages may ask; none: no header says anything of origins."""

    def __init__(self, origins: Sequence[str] = ()) -> None:
        self._any = ANY_ORIGIN in origins
        self._allowed: dict[bytes, Headers] = {origin.encode(): _allow(origin.encode()) for origin in origins}
        self.on = bool(origins)

    def covers(self, path: str) -> bool:
        """Whether pages of other origins may ask for a path: a key or nothing protects it, never the place that is asked from."""
        return self.on and (path == "/v2" or path.startswith(_FOR_PAGES))

    def headers(self, origin: bytes | None) -> Headers:
        """What an answer says to a page of ``origin``; where it may not read it, only that answers differ by origin."""
        if not self.on:
            return ()
        if self._any:
            return () if origin is None else _allow(b"*")
        return self._allowed.get(origin or b"", ((b"vary", b"origin"),))

    def preflight(self, headers: Mapping[bytes, bytes]) -> Reply:
        """The answer to what a browser asks before it sends a request.  ``BadRequest`` 403 for an origin that may not ask."""
        origin = headers.get(b"origin", b"")
        if not self._any and origin not in self._allowed:
            shown = origin.decode("latin-1")
            hint = f"start the server with --cors-origin {shown}, or ALTER ENDPOINTS SET (cors_origins = '{shown}')"
            raise BadRequest(403, f"pages of {shown} may not ask this server", hint=hint, headers=((b"vary", b"origin"),))
        more: Headers = (
            (b"access-control-allow-methods", b"GET, POST"),
            (b"access-control-allow-headers", headers.get(b"access-control-request-headers", b"content-type")),
            (b"access-control-max-age", b"%d" % MAX_AGE),
        )
        return Reply(b"", b"text/plain", (*self.headers(origin), *more), 204)

    def is_preflight(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request only asks whether another one may be sent, for a path that pages may ask."""
        asks = method == "OPTIONS" and b"origin" in headers and b"access-control-request-method" in headers
        return asks and self.covers(path)


NO_CORS = Cors()


def _allow(origin: bytes) -> Headers:
    vary: Headers = () if origin == b"*" else ((b"vary", b"origin"),)
    return ((b"access-control-allow-origin", origin), (b"access-control-expose-headers", _EXPOSED), *vary)
