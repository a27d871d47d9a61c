"""/admin/models: which version serves."""

import asyncio
import logging

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import JSONResponse, Response

from fsr_serve.errors import RequestError
from fsr_serve.http.body import read_body
from fsr_serve.http.served_request import ServedRequest
from fsr_serve.schemas import Models

logger = logging.getLogger("fsr_serve")

MAX_BODY_BYTES = 4096


class LoadRequest(BaseModel):
    """The version to serve; the greatest there is when null."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: int | None = Field(default=None, ge=0, le=10**9)


async def models(request: ServedRequest) -> Response:
    server = request.server
    answer: Models = {"models": [await asyncio.to_thread(server.control.state)]}
    return JSONResponse(answer)


async def load(request: ServedRequest) -> Response:
    """Answers when every worker serves the version; after an error every one serves what it served before."""
    server = request.server
    body = await read_body(request, MAX_BODY_BYTES)
    try:
        asked = LoadRequest.model_validate_json(body or b"{}")
    except ValidationError as error:
        reasons = "; ".join(part["msg"] for part in error.errors(include_input=False, include_url=False))
        raise RequestError(
            400, "malformed_request", f'the body is no request to load: {reasons}; expected {{"version": NUMBER}}'
        ) from error
    server.check_not_draining()
    _log(request, f"load {'the greatest version' if asked.version is None else f'version {asked.version}'}")
    return JSONResponse(await asyncio.to_thread(server.control.load, request.path_params["name"], asked.version))


async def rollback(request: ServedRequest) -> Response:
    """Answers as `load` does."""
    server = request.server
    if await read_body(request, MAX_BODY_BYTES):
        raise RequestError(400, "malformed_request", "a rollback has no parameters; expected an empty body")
    server.check_not_draining()
    _log(request, "roll back")
    return JSONResponse(await asyncio.to_thread(server.control.rollback, request.path_params["name"]))


def _log(request: ServedRequest, what: str) -> None:
    logger.info("the key %r asks to %s, in request %s", request.key, what, request.request_id)
