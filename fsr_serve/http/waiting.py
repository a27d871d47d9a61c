"""How long a client waits, and whether it still does."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from anyio import CancelScope

from fsr_serve.errors import RequestError
from fsr_serve.http.served_request import ServedRequest
from fsr_serve.settings import Settings

TIMEOUT_HEADER = "X-Request-Timeout-Ms"

Result = TypeVar("Result")


def request_timeout(request: ServedRequest, settings: Settings) -> float:
    """Seconds from the end of the body to the deadline. Raises RequestError when the header is out of range."""
    longest = settings.request_timeout_ms
    given = request.header(TIMEOUT_HEADER.lower().encode(), str(longest))
    if not (given.isascii() and given.isdecimal() and len(given) <= 9 and 1 <= int(given) <= longest):
        raise RequestError(
            400,
            "parameter_out_of_range",
            f"{TIMEOUT_HEADER} is {given[:50]!r}; expected a whole number of milliseconds from 1 to {longest}",
        )
    return int(given) / 1000


async def while_connected(request: ServedRequest, work: Awaitable[Result]) -> Result:
    """The result of `work`, which is cancelled when the client leaves first. The body must have been read to its end.

    Raises RequestError 499 `client_left`, which nobody reads but the metrics.
    """
    with CancelScope() as scope:
        watch = asyncio.get_running_loop().create_task(_disconnect(request))
        watch.add_done_callback(lambda _: scope.cancel())
        try:
            return await work
        finally:
            watch.cancel()
    request.server.metrics.cancelled.inc()
    raise RequestError(499, "client_left", "the client left before the answer")


async def _disconnect(request: ServedRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
