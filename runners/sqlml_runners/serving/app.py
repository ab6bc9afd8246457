"""The HTTP application: routes over ``Models``.

Requests for predictions are plain Starlette routes: they get bytes and give bytes, decoded by msgspec.  Small bodies are answered
on the event loop, others in a pool of threads, so that a long prediction never holds up a health check.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from sqlml.version import __version__
from sqlml_runners.serving.models import Models, Served
from sqlml_runners.serving.openapi import openapi_document
from sqlml_runners.serving.protocol import BadRequest
from sqlml_runners.serving.v2 import server_metadata

INLINE_BYTES = 16 * 1024
"""A body longer than this is answered in a thread."""

Handler = Callable[[Request], Awaitable[Response]]


def make_app(models: Models) -> FastAPI:
    """The application over a holder of models; it neither starts nor closes the holder."""
    app = FastAPIOffline(redoc_url=None, title="sqlml endpoints", version=__version__)
    app.openapi = lambda: openapi_document(__version__, models.served())  # type: ignore[method-assign]
    _add_errors(app)
    _add_server_routes(app, models)
    _add_model_routes(app, models)
    _add_prediction_routes(app, models)
    return app


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(BadRequest)
    async def bad_request(_request: Request, error: BadRequest) -> Response:
        return Response(error.body(), error.status, media_type="application/json")

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        return _json({"error": f"{request.method} {request.url.path}: {error.detail}; see /docs"}, error.status_code)

    @app.exception_handler(ClientDisconnect)
    async def gone(_request: Request, _error: ClientDisconnect) -> Response:
        return Response(status_code=400)  # nobody reads it

    @app.exception_handler(Exception)
    async def fault(_request: Request, _error: Exception) -> Response:  # Starlette logs it with its traceback
        return _json({"error": "internal error of the server; its log (logs/server.log) says more"}, 500)


def _add_server_routes(app: FastAPI, models: Models) -> None:
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
    def endpoints() -> Response:
        models.sync()  # so that who has just written to the catalog sees it here
        return _json(models.states())


def _add_model_routes(app: FastAPI, models: Models) -> None:
    @app.get("/v2/models/{name}")
    @app.get("/v2/models/{name}/versions/{version}")
    async def metadata(name: str, version: str | None = None) -> Response:
        return _json(models.get(name, version).metadata())

    @app.get("/v2/models/{name}/ready")
    @app.get("/v2/models/{name}/versions/{version}/ready")
    async def ready(name: str, version: str | None = None) -> Response:
        served = models.get(name, version)
        return _json({"name": served.endpoint.name, "ready": True})


def _add_prediction_routes(app: FastAPI, models: Models) -> None:
    pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="predict")

    def handler(answer: Callable[[Served, bytes], bytes]) -> Handler:
        async def handle(request: Request) -> Response:
            served = models.get(request.path_params["name"], request.path_params.get("version"))
            body = await request.body()
            if served.quick and len(body) <= INLINE_BYTES:
                content = answer(served, body)
            else:
                content = await asyncio.get_running_loop().run_in_executor(pool, answer, served, body)
            return Response(content, media_type="application/json")

        return handle

    app.add_route("/models/{name}/predict", handler(Served.predict), methods=["POST"])
    app.add_route("/v2/models/{name}/infer", handler(Served.infer), methods=["POST"])
    app.add_route("/v2/models/{name}/versions/{version}/infer", handler(Served.infer), methods=["POST"])
