"""Threads that decode images or parse bodies, and how long what is given to them takes."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from time import perf_counter
from typing import TypeVar

from fsr_serve.batch_time import DECAY
from fsr_serve.errors import RequestError

Result = TypeVar("Result")
Encoded = TypeVar("Encoded", bound=bytes | RequestError)
"""An image file, or the error that says why there is none."""

FILE_COST = 4096
"""What a file costs besides its bytes, as so many more of them."""


class Decoders:
    """A thread for each of a worker's cores: more would not decode faster, only hold more images in memory."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(self._threads, "decode")
        self._lock = Lock()
        self._requests = self._left = 0  # those that wait for a thread or have one, and their cost
        self._cost = self._seconds = 0.0  # of the latest requests, the older the less

    async def run(self, decode: Callable[[Encoded], Result], encoded: Sequence[Encoded]) -> list[Result]:
        """What `decode` makes of each image of a request, in one thread. Cancelled, it begins no other image."""
        wanted, cost = list(encoded), _cost(encoded)
        self._count(1, cost)
        future = self._pool.submit(self._decode_all, decode, wanted)
        future.add_done_callback(lambda _: self._count(-1, -cost))
        try:
            return await asyncio.wrap_future(future)
        finally:
            wanted.clear()  # ends the thread's way through it, where nobody waits any more

    def predict(self, encoded: Sequence[bytes | RequestError]) -> float:
        """Seconds until one thread has decoded these too, after those that are waiting.

        0 while a thread is free: what waits for nobody is always tried, or a wrong estimate would never mend.
        """
        with self._lock:
            if self._requests < self._threads or not self._cost:
                return 0.0
            return self._seconds / self._cost * (self._left / self._threads + _cost(encoded))

    def _decode_all(self, decode: Callable[[Encoded], Result], wanted: list[Encoded]) -> list[Result]:
        started, cost = perf_counter(), 0
        decoded: list[Result] = []
        try:
            for image in wanted:
                cost += _cost([image])
                decoded.append(decode(image))
            return decoded
        finally:
            with self._lock:
                self._cost = DECAY * self._cost + cost
                self._seconds = DECAY * self._seconds + perf_counter() - started

    def _count(self, requests: int, cost: int) -> None:
        with self._lock:
            self._requests += requests
            self._left += cost


def _cost(encoded: Sequence[bytes | RequestError]) -> int:
    """In bytes: from thumbnails to photographs, files take time by their size rather than by their number."""
    return FILE_COST * len(encoded) + sum(len(image) for image in encoded if isinstance(image, bytes))
