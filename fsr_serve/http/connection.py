"""uvicorn's connection, with bounds that it has not on what comes outside of bodies.

Its parser keeps a head, and the trailers after a body, in memory until their end, however long that takes.
"""

from asyncio import TimerHandle, Transport
from collections.abc import Callable
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade
from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from fsr_serve.errors import RequestError
from fsr_serve.http.responses import LINGER_SECONDS, detailed
from fsr_serve.http.served_request import plain_or_new
from fsr_serve.http.unread import ReadOrAborted
from fsr_serve.http.upgrade import pass_over

HEAD_BYTES = 65_536
"""Of the request line and the headers; also of what comes between two pieces of a body, and after the last one."""

HEAD_FIELDS = 100
"""Headers, or trailers: one of seven bytes takes 160 of memory."""

WAITING_REQUESTS = 100
"""On one connection, behind the one that is answered: each takes 2 kB of memory, and comes in as few as 20 bytes."""

HEAD_SECONDS = 30.0
"""From the start of a connection, or the first byte after an answer, to the end of the next head."""


class _NoFurtherError(Exception):
    """Ends the parsing of what still comes."""


class Connection(ReadOrAborted):
    """Answers 431 to a head that is too large, closes when one is late, and stays with HTTP/1.1."""

    _bytes_outside = 0
    """Read since a head, a piece of a body or a message ended."""
    _end: TimerHandle | None = None
    """Closes the connection."""
    _is_ended = False
    """What still comes is thrown away."""

    def __init__(self, *given: Any, count: Callable[[RequestError], None], **named: Any) -> None:
        """`count` is told of what is refused here, before there is a request; the rest is uvicorn's."""
        super().__init__(*given, **named)
        self._count = count

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.headers = []
        self._close_after(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stay_open()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        start = 0
        while start < len(data) and not (self._is_ended or self.transport.is_closing()):
            piece = data[start : start + HEAD_BYTES - self._bytes_outside]
            self._bytes_outside += len(piece)
            start += self._read(piece)  # begins to count anew where something ends
            is_too_large = self._bytes_outside == HEAD_BYTES or len(self.headers) > HEAD_FIELDS
            if is_too_large and not self._is_ended:
                self._refuse(_too_large())
        if self._end is None and (self.cycle is None or self.cycle.response_complete):
            self._close_after(HEAD_SECONDS)  # uvicorn's keep-alive timeout ended with the first byte

    def on_message_begin(self) -> None:
        if len(self.pipeline) == WAITING_REQUESTS:
            self._end_after_the_last()
            raise _NoFurtherError
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if len(self.headers) > HEAD_FIELDS:
            raise _NoFurtherError
        if self.parser.should_upgrade():
            return
        self._bytes_outside = 0
        self._stay_open()
        super().on_headers_complete()
        self.headers = []  # trailers are no headers

    def on_body(self, body: bytes) -> None:
        self._bytes_outside = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if len(self.headers) > HEAD_FIELDS:
            raise _NoFurtherError
        if self.parser.should_upgrade():
            return
        self._bytes_outside = 0
        super().on_message_complete()

    def _read(self, piece: bytes) -> int:
        """How much of it was read."""
        try:
            try:
                self.parser.feed_data(piece)
            except HttpParserUpgrade as offer:
                pass_over(self)
                return int(offer.args[0])
        except (HttpParserError, HttpParserUpgrade):
            if not self._is_ended and len(self.headers) <= HEAD_FIELDS:
                self._refuse(_malformed())
        return len(piece)

    def _close_after(self, seconds: float) -> None:
        self._stay_open()
        self._end = self.loop.call_later(seconds, self.transport.close)

    def _stay_open(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None

    def _refuse(self, error: RequestError) -> None:
        """Throw away what still comes: closing with unread data would reset the client's connection."""
        self._count(error)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle is not self._running or cycle.response_started or not cycle.more_body:
                self._end_after_the_last()  # the answer would be taken for another request's
                return
            cycle.disconnected = True  # what it would say has no place any more
            cycle.message_event.set()
        self._is_ended = True
        self.headers.clear()
        self.transport.write(_answer(error))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._close_after(LINGER_SECONDS)

    def _end_after_the_last(self) -> None:
        """Throw away what still comes, and close after the answer to the last request that came whole."""
        self._is_ended = True
        self.headers.clear()
        if self.cycle.more_body and self.pipeline:
            self.pipeline.popleft()
        last = self.pipeline[0][0] if self.pipeline else self._running
        assert last is not None
        last.keep_alive = False
        self.cycle = last
        self.flow.resume_reading()


def _too_large() -> RequestError:
    message = f"the head or the trailers have more than {HEAD_BYTES} bytes, or {HEAD_FIELDS} fields; shorten them"
    return RequestError(431, "head_too_large", message)


def _malformed() -> RequestError:
    return RequestError(400, "malformed_http", "this is no request of HTTP/1.1; send one as RFC 9112 has it")


def _answer(error: RequestError) -> bytes:
    body = to_json(detailed(error, plain_or_new("")))
    head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return STATUS_LINE[error.status] + head.encode() + body
