"""The app: every public route on one screen, and the one place where errors become answers."""

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from uuid import uuid4

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fsr_serve.errors import RequestError
from fsr_serve.http.classify import classify
from fsr_serve.http.responses import ErrorResponse
from fsr_serve.server import Server

Handler = Callable[[Request], Awaitable[Response]]

logger = logging.getLogger("fsr_serve")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def create_app(server: Callable[[], Server]) -> Starlette:
    """The app of one worker. `server` is called once, when the app starts."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.server = server()
        yield

    return Starlette(
        routes=[
            Route("/classify", _observed("/classify", classify), methods=["POST"]),
            Route("/metrics", _metrics, methods=["GET"]),
        ],
        exception_handlers={HTTPException: _http_error},
        lifespan=lifespan,
    )


def _observed(route: str, handler: Handler) -> Handler:
    """Give each request an id, turn what goes wrong into an answer, and count the outcome."""

    async def endpoint(request: Request) -> Response:
        started = perf_counter()
        metrics = request.app.state.server.metrics
        request.state.request_id = _request_id(request)
        request.state.body_ended = False
        try:
            response = await handler(request)
        except RequestError as error:
            metrics.errors.labels(error.code).inc()
            response = _error(request, error)
        except Exception:
            logger.exception("request %s failed", request.state.request_id)
            failure = RequestError(500, "internal", "the server failed; its log has the details under this request id")
            metrics.errors.labels(failure.code).inc()
            response = _error(request, failure)
        response.headers["X-Request-ID"] = request.state.request_id
        metrics.requests.labels(route, response.status_code).inc()
        metrics.request_duration.labels(route).observe(perf_counter() - started)
        return response

    return endpoint


def _error(request: Request, error: RequestError) -> Response:
    return ErrorResponse(error, request.state.request_id, body_ended=request.state.body_ended)


async def _metrics(request: Request) -> Response:
    server: Server = request.app.state.server
    return Response(server.metrics.render(), media_type=CONTENT_TYPE_LATEST)


async def _http_error(request: Request, error: Exception) -> Response:
    """404 and 405 of the router, in the shape of every other error."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    message = f"{request.method} {request.url.path[:200]}: {error.detail}"
    refusal = RequestError(error.status_code, code, message)
    return ErrorResponse(refusal, _request_id(request), body_ended=False, headers=dict(error.headers or {}))


def _request_id(request: Request) -> str:
    """The client's X-Request-ID where it is a plain one, else a new one."""
    given = request.headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid4().hex
