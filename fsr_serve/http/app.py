"""The app: every public route on one screen, and the one place where errors become answers."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import perf_counter

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from fsr_serve.errors import RequestError, without_frames
from fsr_serve.http import admin, open_inference, openapi
from fsr_serve.http.classify import classify, classify_file
from fsr_serve.http.page import PAGE_POLICY, page
from fsr_serve.http.responses import ErrorResponse, ErrorShape, detailed, plain
from fsr_serve.http.served_request import ServedRequest, plain_or_new
from fsr_serve.keys import Scope as KeyScope
from fsr_serve.schemas import Liveness, Readiness
from fsr_serve.server import Server

Handler = Callable[[ServedRequest], Awaitable[Response]]

BENTOML_ROUTE = "/bentoml/classify"

logger = logging.getLogger("fsr_serve")


def create_app(server: Callable[[], Server]) -> Starlette:
    """The app of one worker; `server` gives what the worker holds, and is called for each request."""
    app = Starlette(
        routes=[
            Route("/classify", _Observed("/classify", classify, "infer"), methods=["POST"]),
            Route(BENTOML_ROUTE, _Observed(BENTOML_ROUTE, classify_file, "infer"), methods=["POST"]),
            *_open_inference_routes(),
            *_admin_routes(),
            Route("/", _page, methods=["GET"]),
            Route("/livez", _live, methods=["GET"]),
            Route("/readyz", _Observed("/readyz", _ready, None, is_quiet=True), methods=["GET"]),
            Route("/metrics", _Observed("/metrics", _metrics, "metrics", is_quiet=True), methods=["GET"]),
            Route("/openapi.json", _openapi, methods=["GET"]),
        ],
        exception_handlers={HTTPException: _http_error},
    )
    app.state.server = server
    return app


def _admin_routes() -> list[BaseRoute]:
    def route(path: str, handler: Handler, method: str) -> Route:
        return Route(path, _Observed(path, handler, "admin"), methods=[method])

    return [
        route("/admin/models", admin.models, "GET"),
        route("/admin/models/{name}/load", admin.load, "POST"),
        route("/admin/models/{name}/rollback", admin.rollback, "POST"),
    ]


def _open_inference_routes() -> list[BaseRoute]:
    def route(path: str, handler: Handler, scope: KeyScope | None = None, method: str = "GET") -> Route:
        return Route(path, _Observed(path, handler, scope, plain, is_quiet=scope is None), methods=[method])

    routes: list[BaseRoute] = [
        route("/v2", open_inference.server_metadata, "infer"),
        route("/v2/health/live", open_inference.server_live),
        route("/v2/health/ready", _ready),
    ]
    for model in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        routes += [
            route(model, open_inference.model_metadata, "infer"),
            route(f"{model}/ready", open_inference.model_ready, "infer"),
            route(f"{model}/infer", open_inference.infer, "infer", "POST"),
        ]
    return routes


class OwnRoutesFirst:
    """Hands every path that `own` has a route for to it, and the rest (BentoML's schema and pages) onwards."""

    def __init__(self, app: ASGIApp, own: Starlette) -> None:
        self._others = app
        self._own = own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_own = False
        if scope["type"] == "http":
            for route in self._own.routes:
                match, path = route.matches(scope)
                if match is Match.FULL and isinstance(path["endpoint"], _Observed):
                    await path["endpoint"]({**scope, **path, "app": self._own}, receive, send)
                    return
                is_own = is_own or match is not Match.NONE
            is_own = is_own or _is_open_inference(scope)  # what is not there: its 404 has the shape of the protocol
        await (self._own if is_own else self._others)(scope, receive, send)


class _Observed:
    """Ask for a key of `scope`, give each request an id, turn what goes wrong into an answer, and count the outcome.

    An ASGI app that refuses nothing by raising, so Starlette's layers around a handler may be left out.
    """

    def __init__(
        self,
        route: str,
        handler: Handler,
        scope: KeyScope | None,
        shape: ErrorShape = detailed,
        *,
        is_quiet: bool = False,
    ) -> None:
        """`is_quiet`: answers are neither counted nor logged, for what asks every few seconds."""
        self._route = route
        self._handler = handler
        self._scope = scope
        self._shape = shape
        self._is_quiet = is_quiet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._respond(scope, receive, send)
        await response(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> Response:
        started = perf_counter()
        request = ServedRequest(scope, receive, send)
        server = request.server
        try:
            if self._scope is not None:
                request.key = server.keys.authorize(request.header(b"authorization"), self._scope)
            response = await self._handler(request)
        except RequestError as error:
            response = self._refuse(request, without_frames(error))
        except Exception as error:
            logger.exception("request %s failed", request.request_id)
            without_frames(error)
            failure = RequestError(500, "internal", "the server failed; its log has the details under this request id")
            response = self._refuse(request, failure)
        finally:
            request.release()
        response.headers["X-Request-ID"] = request.request_id
        if server.lifecycle.is_draining:
            response.headers["Connection"] = "close"  # so that the next request goes to another server
        if not self._is_quiet:
            self._observe(request, response.status_code, perf_counter() - started)
        return response

    def _observe(self, request: ServedRequest, status: int, seconds: float) -> None:
        server = request.server
        server.metrics.requests(self._route, status).inc()
        server.metrics.request_duration(self._route).observe(seconds)
        if server.settings.access_log:
            logger.info(
                "request %s of %s: %s %s in %.1f ms",
                request.request_id,
                "anybody" if request.key is None else f"key {request.key!r}",
                self._route,
                status,
                1000 * seconds,
            )

    def _refuse(self, request: ServedRequest, error: RequestError) -> Response:
        request.server.metrics.count_refusal(error)
        return ErrorResponse(error, request.request_id, self._shape, body_ended=request.body_ended)


async def _page(request: Request) -> Response:
    return HTMLResponse(page(), headers={"Content-Security-Policy": PAGE_POLICY})


async def _live(request: Request) -> Response:
    answer: Liveness = {"live": True}
    return JSONResponse(answer)


async def _ready(request: ServedRequest) -> Response:
    """A server exists only once its model is verified and warmed; until then no worker answers."""
    classifier = await request.server.check_ready()
    answer: Readiness = {"ready": True, "model": classifier.identity, **classifier.engine}
    return JSONResponse(answer)


async def _openapi(request: Request) -> Response:
    return JSONResponse(openapi.document())


async def _metrics(request: ServedRequest) -> Response:
    text = await asyncio.to_thread(generate_latest, request.server.scraped)  # of many workers it takes a while
    return Response(text, media_type=CONTENT_TYPE_LATEST)


async def _http_error(request: Request, error: Exception) -> Response:
    """What the router itself refuses, in the shape of every other error."""
    assert isinstance(error, HTTPException)
    code = "method_not_allowed" if error.status_code == 405 else "not_found"
    message = f"{request.method} {request.scope['path'][:200]}: {error.detail}"
    refusal = RequestError(error.status_code, code, message)
    request.app.state.server().metrics.count_refusal(refusal)
    shape = plain if _is_open_inference(request.scope) else detailed
    return ErrorResponse(refusal, _request_id(request), shape, body_ended=False, headers=dict(error.headers or {}))


def _is_open_inference(scope: Scope) -> bool:
    return f"{scope['path']}/".startswith("/v2/")


def _request_id(request: Request) -> str:
    return plain_or_new(request.headers.get("x-request-id", ""))
