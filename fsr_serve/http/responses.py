"""JSON answers, and an error that a client can read while it is still sending."""

import asyncio
import contextlib

from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from fsr_serve.errors import RequestError
from fsr_serve.schemas import RequestErrorDetail

LINGER_SECONDS = 30.0
"""How long a refused client may go on sending before the connection is closed."""


class ErrorResponse(JSONResponse):
    """`{"error": {"code", "message", "request_id"}}`, sent at once.

    Unless `body_ended`, the rest of the request is then read and thrown away: closing a connection with unread
    data resets it, and the client would lose the answer.
    """

    def __init__(
        self, error: RequestError, request_id: str, *, body_ended: bool, headers: dict[str, str] | None = None
    ) -> None:
        detail: RequestErrorDetail = {"code": error.code, "message": error.message, "request_id": request_id}
        super().__init__({"error": detail}, error.status, headers=headers)
        self._body_ended = body_ended
        if not body_ended:
            self.headers["Connection"] = "close"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_but_stay_open(message: Message) -> None:
            await send({**message, "more_body": True} if message["type"] == "http.response.body" else message)

        if self._body_ended:
            await super().__call__(scope, receive, send)
        else:
            await super().__call__(scope, receive, send_but_stay_open)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER_SECONDS):
                    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
                        pass
            await send({"type": "http.response.body", "body": b"", "more_body": False})
