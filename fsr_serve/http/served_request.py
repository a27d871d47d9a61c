"""A request with what every handler asks of it."""

import random
import re

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from fsr_serve.requester import Requester
from fsr_serve.server import Server

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class ServedRequest(Request):
    """`server` is what the worker holds; `body_ended` says whether the end of the body was seen.

    `key` is the name of the key that it came with, where it needed one; `held_bytes` of the body are in memory, until
    `release`.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive, send)
        self.server: Server = scope["app"].state.server()
        self.body_ended = False
        self.key: str | None = None
        self.held_bytes = 0
        # of several with one name the first counts, as in Starlette, which looks through all of them each time
        self._values: dict[bytes, bytes] = dict(reversed(list(scope["headers"])))
        self.request_id = plain_or_new(self.header(b"x-request-id"))

    def header(self, name: bytes, default: str = "") -> str:
        """The value of the header with this name, in lower case."""
        value = self._values.get(name)
        return default if value is None else value.decode("latin-1")

    def hold(self, count: int) -> None:
        """So many more bytes of the body. Raises RejectedError where the worker holds too many."""
        self.server.bodies.take(count)
        self.held_bytes += count

    @property
    def requester(self) -> Requester:
        return Requester(self.request_id, self.key)

    def release(self) -> None:
        """The body is needed no more."""
        self.server.bodies.give_back(self.held_bytes)


def plain_or_new(request_id: str) -> str:
    """The client's X-Request-ID where it is a plain one, else a new one."""
    return request_id if _REQUEST_ID.fullmatch(request_id) else f"{random.getrandbits(128):032x}"
