"""uvicorn's connection, which ends although its client reads nothing: closing alone would wait for it for ever."""

from asyncio import TimerHandle, Transport

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

UNREAD_SECONDS = 30.0
"""How long answers may wait until the client has read so much that all the rest is sent."""

LAST_SECONDS = 10.0
"""The same once the server ends."""


class ReadOrAborted(HttpToolsProtocol):
    """Ends, with what is not sent, when that has waited for too long."""

    _abort: TimerHandle | None = None
    _running: RequestResponseCycle | None = None
    """The last one that began; uvicorn's `cycle` is the last one that came."""
    _is_last = False
    """The server ends."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=1, low=0)  # writing pauses when anything waits; TLS would always, at 0

    def connection_lost(self, exc: Exception | None) -> None:
        self._keep()
        if self._running is not None:
            self._running.disconnected = True  # else it would write to what is closed, and raise
            self._running.message_event.set()  # uvicorn wakes only the last that came
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._abort is None:
            self._abort_after(LAST_SECONDS if self._is_last else UNREAD_SECONDS)

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self._is_last:  # else a client that reads slowly could keep the server
            self._keep()

    def shutdown(self) -> None:
        super().shutdown()
        self._is_last = True
        if self.flow.write_paused:
            self._abort_after(LAST_SECONDS)

    def _abort_after(self, seconds: float) -> None:
        self._keep()
        self._abort = self.loop.call_later(seconds, self.transport.abort)

    def _keep(self) -> None:
        if self._abort is not None:
            self._abort.cancel()
            self._abort = None
