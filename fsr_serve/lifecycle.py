"""The end of a worker: first readiness says so, then requests go on for a while, then the server stops."""

import logging
import signal
import threading
import time
from dataclasses import dataclass
from types import FrameType

logger = logging.getLogger("fsr_serve")


@dataclass
class Lifecycle:
    """`is_draining` from SIGTERM on, `is_closed` once no more requests are taken."""

    is_draining: bool = False
    is_closed: bool = False

    def drain_on_sigterm(self, drain_seconds: float) -> None:
        """Put this before the handler of SIGTERM that is there; the server closes just before that one is called.

        Others that come meanwhile change nothing: whoever signals a whole group of processes, as systemd does, sends
        a worker two. Call from the main thread, after the web server has set its handler.
        """
        stop = signal.getsignal(signal.SIGTERM)

        def handle(number: int, frame: FrameType | None) -> None:
            def drain() -> None:
                logger.info("draining for %g seconds, then no more requests are taken", drain_seconds)
                time.sleep(drain_seconds)
                self.is_closed = True
                if callable(stop):
                    stop(number, frame)

            if not self.is_draining:
                self.is_draining = True
                threading.Thread(target=drain, name="drain", daemon=True).start()

        signal.signal(signal.SIGTERM, handle)
