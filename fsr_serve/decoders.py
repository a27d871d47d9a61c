"""Threads that decode, and how long what is given to them takes."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from time import perf_counter
from typing import TypeVar

from fsr_serve.batch_time import DECAY

Result = TypeVar("Result")


class Decoders:
    """A thread for each of a worker's cores: more would not decode faster, only hold more images in memory."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(self._threads, "decode")
        self._lock = Lock()
        self._left = 0
        self._images = self._seconds = 0.0  # of the latest, the older the less

    async def run(self, decode: Callable[[], Result], images: int) -> Result:
        """What `decode` makes of so many images in a thread. Cancelled while it waits for one, it never starts."""
        self._count(images)
        future = self._pool.submit(self._timed, decode, images)
        future.add_done_callback(lambda _: self._count(-images))
        return await asyncio.wrap_future(future)

    def predict(self, images: int) -> float:
        """Seconds until one thread has decoded so many more, after those that are waiting; 0 before the first."""
        with self._lock:
            each = self._seconds / self._images if self._images else 0.0
            return each * (self._left / self._threads + images)

    def _timed(self, decode: Callable[[], Result], images: int) -> Result:
        started = perf_counter()
        try:
            return decode()
        finally:
            with self._lock:
                self._images = DECAY * self._images + images
                self._seconds = DECAY * self._seconds + perf_counter() - started

    def _count(self, images: int) -> None:
        with self._lock:
            self._left += images
