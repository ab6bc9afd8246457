"""The HTTP application of what is no prediction: health, metadata, figures, the documents.  Predictions are answered before it.

See ``hot``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from sqlml.version import __version__
from sqlml_runners.serving.doors import Door
from sqlml_runners.serving.generate import generate_handler
from sqlml_runners.serving.metrics import CONTENT_TYPE, metrics_text, read_document
from sqlml_runners.serving.models import Models
from sqlml_runners.serving.openapi import openapi_document
from sqlml_runners.serving.protocol import BadRequest
from sqlml_runners.serving.served import Served
from sqlml_runners.serving.v2_metadata import server_metadata

Ask = Callable[[str], Awaitable[Any]]
"""How a worker asks the supervisor for what only it knows: ``endpoints``, ``metrics``."""


def make_app(models: Models, ask: Ask, door: Door | None = None) -> FastAPI:
    """The application over a worker's models; ``ask`` is how it asks the supervisor, ``door`` who may see what."""
    door = door or Door()
    app = FastAPIOffline(redoc_url=None, title="sqlml endpoints", version=__version__)
    app.openapi = lambda: openapi_document(__version__, _shown(models))  # type: ignore[method-assign]
    _add_errors(app)
    _add_server_routes(app, models, ask, door)
    _add_model_routes(app, models, door)
    app.add_route("/models/{name}/generate", generate_handler(models), methods=["POST"])
    return app


def _shown(models: Models) -> list[Served]:
    """What anybody may read about: who has the key of another endpoint asks for its metadata."""
    return [route.main for route in models.routes() if not route.policy.keyed]


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(BadRequest)
    async def bad_request(_request: Request, error: BadRequest) -> Response:
        headers = {name.decode(): value.decode() for name, value in error.headers}
        return Response(error.body(), error.status, headers, media_type="application/json")

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        return _json({"error": f"{request.method} {request.url.path}: {error.detail}; see /docs"}, error.status_code)

    @app.exception_handler(ClientDisconnect)
    async def gone(_request: Request, _error: ClientDisconnect) -> Response:
        return Response(status_code=400)  # nobody reads it

    @app.exception_handler(Exception)
    async def fault(_request: Request, _error: Exception) -> Response:  # Starlette logs it with its traceback
        return _json({"error": "internal error of the server; its log (logs/server.log) says more"}, 500)


def _add_server_routes(app: FastAPI, models: Models, ask: Ask, door: Door) -> None:
    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("/docs")

    @app.get("/v2")
    async def metadata() -> Response:
        return _json(server_metadata(__version__))

    @app.get("/v2/health/live")
    async def live() -> Response:
        return _json({"live": True})

    @app.get("/v2/health/ready")
    async def ready() -> Response:
        is_ready = models.ready()
        return _json({"ready": is_ready}, 200 if is_ready else 503)

    @app.get("/sqlml/endpoints")
    async def endpoints(request: Request) -> Response:
        door.check_figures(_client(request), dict(request.headers.raw), models.names())
        return _json(await ask("endpoints"))

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        door.check_figures(_client(request), dict(request.headers.raw), models.names())
        return Response(metrics_text(read_document(await ask("metrics"))), headers={"content-type": CONTENT_TYPE})


def _client(request: Request) -> str:
    return request.client.host if request.client else ""


def _add_model_routes(app: FastAPI, models: Models, door: Door) -> None:
    @app.get("/v2/models/{name}")
    @app.get("/v2/models/{name}/versions/{version}")
    async def metadata(request: Request, name: str, version: str | None = None) -> Response:
        door.check_parked(models.slot(name), dict(request.headers.raw))
        await models.wake(name)
        route = models.route(name)
        door.check_metadata(route, dict(request.headers.raw))
        return _json(route.metadata() if version is None else route.need(version).metadata())

    @app.get("/v2/models/{name}/ready")
    @app.get("/v2/models/{name}/versions/{version}/ready")
    async def ready(name: str, version: str | None = None) -> Response:
        slot = models.slot(name)
        if not slot.parked:  # what is parked would answer
            route = models.route(name)
            if version is not None:
                route.need(version)
        return _json({"name": slot.endpoint.name, "ready": True})
