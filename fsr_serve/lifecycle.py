"""The end of a worker: first readiness says so, then requests go on for a while, then the server stops."""

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType


@dataclass
class Lifecycle:
    """`is_draining` from SIGTERM on."""

    is_draining: bool = False

    def drain_on_sigterm(self, drain_seconds: float, close: Callable[[], None]) -> None:
        """Put this before the handler of SIGTERM that is there; `close` is called just before that one.

        A second SIGTERM stops at once. Call from the main thread, after the web server has set its handler.
        """
        stop = signal.getsignal(signal.SIGTERM)

        def handle(number: int, frame: FrameType | None) -> None:
            def end() -> None:
                close()
                if callable(stop):
                    stop(number, frame)

            if self.is_draining or not drain_seconds:
                self.is_draining = True
                end()
                return
            self.is_draining = True
            timer = threading.Timer(drain_seconds, end)
            timer.daemon = True
            timer.start()

        signal.signal(signal.SIGTERM, handle)
