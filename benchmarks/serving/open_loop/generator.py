"""One process of load: sends requests at given times, whether or not earlier ones are answered.

`python -m benchmarks.serving.open_loop.generator PORT FOLDER`: the folder holds `times.npy` (seconds) and the requests
`0`, `1`, ... as they go over the wire. It says "ready", reads from stdin the time of CLOCK_MONOTONIC that counts as 0,
and leaves `answers.npy` (n, 3): seconds from the planned time to sending and to the answer's end, and its status.
0 is a connection that broke, -1 an answer that never came.
"""

import asyncio
import re
import selectors
import sys
import time
from pathlib import Path

import numpy as np

BROKEN, UNANSWERED = 0, -1
PATIENCE_SECONDS = 30.0
"""After the last request."""
IDLE_SECONDS = 3.0
"""Older idle connections are not used again: the server may be closing them."""

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """HTTP/1.1 with one request at a time."""

    def __init__(self, generator: "Generator") -> None:
        self._generator = generator
        self._received = bytearray()
        self.request: int | None = None
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._received, 0, end)
        if length is None or len(self._received) < end + 4 + int(length[1]):
            return
        status = int(self._received[9:12])
        self._received.clear()
        self._generator.answered(self, status)

    def connection_lost(self, error: Exception | None) -> None:
        if self.request is not None:
            self._generator.answered(self, BROKEN)
        self._generator.idle.pop(self, None)


class Generator:
    """Sends the requests in turn and notes the answers."""

    def __init__(self, port: int, requests: list[bytes], times: np.ndarray) -> None:
        self._port, self._requests, self._times = port, requests, times
        self.idle: dict[Connection, None] = {}
        self.answers = np.full((len(times), 3), np.nan)
        self.answers[:, 2] = UNANSWERED
        self._left = len(times)
        self._all_answered = asyncio.Event()
        self._opening: set[asyncio.Task[None]] = set()

    async def run(self, start: float) -> None:
        """`start` is the time of CLOCK_MONOTONIC that counts as 0."""
        self._start = start
        loop = asyncio.get_running_loop()
        for index, at in enumerate(self._times):
            delay = start + at - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            elif index % 16 == 0:
                await asyncio.sleep(0)  # late: answers must be read all the same
            connection = self._connection()
            if connection is not None:
                self._send(connection, index)
            else:
                task = loop.create_task(self._open_and_send(index))
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)
        if self._left:
            try:
                await asyncio.wait_for(self._all_answered.wait(), PATIENCE_SECONDS)
            except TimeoutError:
                return

    def answered(self, connection: Connection, status: int) -> None:
        index, connection.request = connection.request, None
        if index is not None:
            self._note(index, status)
        if status != BROKEN:
            connection.idle_since = time.monotonic()
            self.idle[connection] = None

    def _connection(self) -> Connection | None:
        """The one that became idle last."""
        if not self.idle:
            return None
        connection, _ = self.idle.popitem()
        if time.monotonic() - connection.idle_since <= IDLE_SECONDS:
            return connection
        for old in (connection, *self.idle):
            old.transport.close()
        self.idle.clear()
        return None

    async def _open_and_send(self, index: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: Connection(self), "127.0.0.1", self._port)
        except OSError:
            self._note(index, BROKEN)
            return
        self._send(connection, index)

    def _send(self, connection: Connection, index: int) -> None:
        connection.request = index
        self.answers[index, 0] = time.monotonic() - self._start - self._times[index]
        connection.transport.write(self._requests[index % len(self._requests)])

    def _note(self, index: int, status: int) -> None:
        self.answers[index, 1:] = time.monotonic() - self._start - self._times[index], status
        self._left -= 1
        if not self._left:
            self._all_answered.set()


def main(port: str, folder: str) -> None:
    path = Path(folder)
    names = sorted(int(file.name) for file in path.iterdir() if file.name.isdecimal())
    requests = [(path / str(name)).read_bytes() for name in names]
    times = np.load(path / "times.npy")

    async def run() -> np.ndarray:
        generator = Generator(int(port), requests, times)
        print("ready", flush=True)
        await generator.run(float(await asyncio.to_thread(sys.stdin.readline)))
        return generator.answers

    # select() sleeps to the microsecond, epoll() to the millisecond
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    np.save(path / "answers.npy", loop.run_until_complete(run()))


if __name__ == "__main__":
    main(*sys.argv[1:])
