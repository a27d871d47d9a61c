"""Threads that decode, and how long what is given to them takes."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from time import perf_counter
from typing import TypeVar

from fsr_serve.batch_time import DECAY

Encoded = TypeVar("Encoded")
Result = TypeVar("Result")


class Decoders:
    """A thread for each of a worker's cores: more would not decode faster, only hold more images in memory."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(self._threads, "decode")
        self._lock = Lock()
        self._requests = self._left = 0  # those that wait for a thread or have one, and their images
        self._images = self._seconds = 0.0  # of the latest, the older the less

    async def run(self, decode: Callable[[Encoded], Result], encoded: Sequence[Encoded]) -> list[Result]:
        """What `decode` makes of each image of a request, in one thread. Cancelled, it begins no other image."""
        wanted = list(encoded)
        images = len(wanted)
        self._count(1, images)
        future = self._pool.submit(self._decode_all, decode, wanted)
        future.add_done_callback(lambda _: self._count(-1, -images))
        try:
            return await asyncio.wrap_future(future)
        finally:
            wanted.clear()  # ends the thread's way through it, where nobody waits any more

    def predict(self, images: int) -> float:
        """Seconds until one thread has decoded so many more, after those that are waiting.

        0 while a thread is free: what waits for nobody is always tried, or a wrong estimate would never mend.
        """
        with self._lock:
            if self._requests < self._threads or not self._images:
                return 0.0
            return self._seconds / self._images * (self._left / self._threads + images)

    def _decode_all(self, decode: Callable[[Encoded], Result], wanted: list[Encoded]) -> list[Result]:
        return [self._timed(decode, image) for image in wanted]

    def _timed(self, decode: Callable[[Encoded], Result], image: Encoded) -> Result:
        started = perf_counter()
        try:
            return decode(image)
        finally:
            with self._lock:
                self._images = DECAY * self._images + 1
                self._seconds = DECAY * self._seconds + perf_counter() - started

    def _count(self, requests: int, images: int) -> None:
        with self._lock:
            self._requests += requests
            self._left += images
