"""JSON answers, and an error that a client can read while it is still sending."""

import asyncio

from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from fsr_serve.errors import RequestError
from fsr_serve.schemas import RequestErrorDetail

LINGER_SECONDS = 10.0
"""How long a refused client may go on sending before the connection is closed."""


class ErrorResponse(JSONResponse):
    """`{"error": {"code", "message", "request_id"}}`, sent at once, the rest of the request read and thrown away.

    Closing a connection with unread data resets it, and the client would lose the answer.
    """

    def __init__(self, error: RequestError, request_id: str, headers: dict[str, str] | None = None) -> None:
        detail: RequestErrorDetail = {"code": error.code, "message": error.message, "request_id": request_id}
        super().__init__({"error": detail}, error.status, headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_but_stay_open(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "more_body": True}
            await send(message)

        await super().__call__(scope, receive, send_but_stay_open)
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while (message := await receive())["type"] == "http.request" and message.get("more_body"):
                    pass
        except TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})
