"""Requests -> batches.

A batch starts at once when none runs. While one runs, requests collect, and a second batch is put together as soon as
it is full: earlier, it would only break up what is collecting. Nothing is computed for a request that nobody waits for.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import NamedTuple

import numpy as np

from fsr_serve.batch_time import BatchTime
from fsr_serve.errors import RejectedError
from fsr_serve.metrics import Metrics
from fsr_serve.preprocessing import Images, to_floats
from fsr_serve.session import Floats, Session

SLOTS = 2
"""One batch runs while the next is put together."""

EXPECTED_SHARE = 0.8
"""Of the time to a request's deadline: it is admitted when its answer is expected within that. Under overload the queue
is always as long as is admitted; with the whole time, each batch slower than expected would be computed for nobody."""


@dataclass(frozen=True)
class BatchLimits:
    """`ladder`: batches are padded to the next of these sizes; empty where any size runs as well."""

    batch_images: int
    queue_images: int
    ladder: tuple[int, ...] = ()


class Answered(NamedTuple):
    """Logits (n, classes), the seconds that the request waited, and those from its first batch's start to its end."""

    logits: Floats
    queue_seconds: float
    inference_seconds: float


@dataclass(eq=False)
class _Job:
    """The images of one request; `taken` of them are in batches, `computed` are done."""

    images: Images
    deadline: float
    answer: asyncio.Future[Answered]
    queued_at: float
    started_at: float = 0.0
    taken: int = 0
    computed: int = 0
    logits: Floats | None = None

    @property
    def left(self) -> int:
        return len(self.images) - self.taken


class _Part(NamedTuple):
    """The images [start, stop) of a job that are in one batch."""

    job: _Job
    start: int
    stop: int

    @property
    def images(self) -> Images:
        return self.job.images[self.start : self.stop]


@dataclass
class Batcher:
    """All methods belong to the event loop; the session runs in threads, one batch at a time."""

    session: Session
    limits: BatchLimits
    metrics: Metrics
    batch_time: BatchTime = field(default_factory=BatchTime)
    _waiting: dict[_Job, None] = field(default_factory=dict)
    _queue_images: int = 0
    _arriving_images: int = 0
    _running: dict["asyncio.Task[None]", int] = field(default_factory=dict)
    _busy_since: float = 0.0
    _ended_at: float = 0.0
    _device: asyncio.Lock = field(default_factory=asyncio.Lock)
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(SLOTS, "batch"))

    async def submit(self, images: Images, deadline: float) -> Answered:
        """The logits of images (n, 3, h, w), uint8 or float32 in [0, 1], that were admitted.

        `deadline` is a time of the running loop. Raises RejectedError: 504 `deadline_exceeded`. Cancelling the call
        takes its images out of the queue.
        """
        loop = asyncio.get_running_loop()
        job = _Job(images, deadline, loop.create_future(), perf_counter())  # uvloop's clock is of whole milliseconds
        self._waiting[job] = None
        self._count_queue(len(images))
        timer = loop.call_at(deadline, self._expire, job)
        self._start_batches()
        try:
            return await job.answer
        finally:
            timer.cancel()
            self._forget(job)

    def admit(self, count: int, deadline: float, decode_seconds: float = 0.0) -> None:
        """Let in `count` images, once: `submit` asks no more. `decode_seconds` is 0 where none need wait for a decoder.

        Raises RejectedError: 429 `queue_full` or `deadline_unreachable`, 504 `deadline_exceeded`.
        """
        waiting = self._queue_images + self._arriving_images
        ahead = waiting + sum(self._running.values())
        if waiting + count > self.limits.queue_images:
            message = f"{waiting} images wait already; at most {self.limits.queue_images} may, with these {count}"
            raise _come_back("queue_full", message, max(decode_seconds, self._predict(ahead)))
        if not ahead and not decode_seconds:
            return  # an idle server always tries, or a wrong estimate would never mend
        remaining = deadline - asyncio.get_running_loop().time()
        if remaining <= 0:
            raise _expiry()
        finish = self._predict(ahead + count)
        if decode_seconds:  # images are decoded while those before them are computed: the slower of the two counts
            finish = max(finish, decode_seconds + self._predict(count))
        if finish > EXPECTED_SHARE * remaining:
            message = (
                f"an answer would take about {finish:.3f} seconds, more than {EXPECTED_SHARE:.0%} of the "
                f"{remaining:.3f} to the deadline; come back later, or with more time"
            )
            raise _come_back("deadline_unreachable", message, max(decode_seconds, self._predict(ahead)))

    @asynccontextmanager
    async def arriving(self, count: int, deadline: float, decode_seconds: float = 0.0) -> AsyncIterator[None]:
        """Admit `count` images before they are decoded, so that no work goes into refused ones.

        Raises as `admit`, also within the block when the deadline passes there.
        """
        self.admit(count, deadline, decode_seconds)
        async with self.admitted(count, deadline):
            yield

    @asynccontextmanager
    async def admitted(self, count: int, deadline: float) -> AsyncIterator[None]:
        """Count `count` images that were admitted among those that wait. Raises as `submit` within the block."""
        self._count_arriving(count)
        try:
            async with asyncio.timeout_at(deadline):
                yield
        except TimeoutError as error:
            raise _expiry() from error
        finally:
            self._count_arriving(-count)

    @property
    def running_seconds(self) -> float:
        """Since when the session has been busy with one batch; 0 when it is idle."""
        busy_since = self._busy_since  # read once: the batch may end in its thread meanwhile
        return perf_counter() - busy_since if busy_since else 0.0

    def _predict(self, images: int) -> float:
        return self.batch_time.predict(images, self.limits.batch_images)

    def _expire(self, job: _Job) -> None:
        if not job.answer.done():
            job.answer.set_exception(_expiry())
        self._forget(job)

    def _forget(self, job: _Job) -> None:
        if job in self._waiting:
            del self._waiting[job]
            self._count_queue(-job.left)

    def _count_arriving(self, change: int) -> None:
        self._arriving_images += change
        self.metrics.queue_images.inc(change)

    def _count_queue(self, change: int) -> None:
        self._queue_images += change
        self.metrics.queue_images.inc(change)

    def _start_batches(self) -> None:
        while self._waiting and (
            not self._running or (len(self._running) < SLOTS and self._queue_images >= self.limits.batch_images)
        ):
            parts = self._take()
            if parts:
                task = asyncio.get_running_loop().create_task(self._run(parts))
                self._running[task] = sum(part.stop - part.start for part in parts)

    def _take(self) -> list[_Part]:
        """The oldest waiting images, as many as fit into a batch."""
        now = asyncio.get_running_loop().time()
        parts: list[_Part] = []
        room = self.limits.batch_images
        for job in list(self._waiting):
            if job.answer.done() or job.deadline <= now:
                self._expire(job)
                continue
            part = _Part(job, job.taken, min(len(job.images), job.taken + room))
            count = part.stop - part.start
            job.taken += count
            if not job.left:
                del self._waiting[job]
            parts.append(part)
            room -= count
            if not room:
                break
        if parts:
            self._count_queue(room - self.limits.batch_images)
            self.metrics.batches.labels("idle" if room else "full").inc()
        return parts

    async def _run(self, parts: Sequence[_Part]) -> None:
        try:
            await self._answer(parts)
        finally:
            del self._running[asyncio.current_task()]  # type: ignore[arg-type]
            self._start_batches()

    async def _answer(self, parts: Sequence[_Part]) -> None:
        loop, started = asyncio.get_running_loop(), perf_counter()
        try:
            # put together while another one runs; in line for the session before it is, so that none overtakes it
            assembling = loop.run_in_executor(self._threads, self._assemble, parts) if self._device.locked() else None
            async with self._device:
                images = await assembling if assembling else None
                for part in parts:
                    part.job.started_at = part.job.started_at or perf_counter()
                logits = await loop.run_in_executor(self._threads, self._compute, parts, images)
        except Exception as error:  # whatever a session raises is the answer of those it concerns
            if len(parts) > 1:
                for part in parts:
                    await self._answer([part])
            elif not parts[0].job.answer.done():
                self._forget(parts[0].job)
                parts[0].job.answer.set_exception(error)
            return
        self._learn(sum(len(rows) for rows in logits if rows is not None), started)
        for part, rows in zip(parts, logits, strict=True):
            self._deliver(part, rows)

    def _learn(self, images: int, started: float) -> None:
        """A batch took from its start, or from the end of the one before, until the loop got to it."""
        if images:
            ended = perf_counter()
            self.batch_time.observe(images, ended - max(started, self._ended_at))
            self._ended_at = ended

    def _deliver(self, part: _Part, rows: Floats | None) -> None:
        job = part.job
        if rows is None or job.answer.done():
            return
        if job.logits is None:
            job.logits = np.empty((len(job.images), rows.shape[1]), np.float32)
        job.logits[part.start : part.stop] = rows
        job.computed += len(rows)
        if job.computed == len(job.images):
            inference_seconds = perf_counter() - job.started_at
            job.answer.set_result(Answered(job.logits, job.started_at - job.queued_at, inference_seconds))

    def _compute(self, parts: Sequence[_Part], images: Floats | None) -> list[Floats | None]:
        """In a thread: the rows of each part, None for those that nobody waits for any more."""
        wanted = [part for part in parts if not part.job.answer.done()]
        if not wanted:
            return [None] * len(parts)
        if images is None or len(wanted) < len(parts):
            images = self._assemble(wanted)
        self._busy_since = perf_counter()
        try:
            logits = self.session.logits(images)
        finally:
            self.metrics.batch_duration.observe(self.running_seconds)
            self._busy_since = 0.0
        if not np.isfinite(logits).all():
            raise FloatingPointError("the session answered with logits that are not finite; expected numbers")
        ends = np.cumsum([part.stop - part.start for part in wanted])
        self.metrics.batch_images.observe(ends[-1])
        self.metrics.padding_images.inc(len(images) - ends[-1])
        rows = dict(zip(wanted, np.split(logits[: ends[-1]], ends[:-1]), strict=True))
        return [rows.get(part) for part in parts]

    def _assemble(self, parts: Sequence[_Part]) -> Floats:
        count = sum(part.stop - part.start for part in parts)
        padded = min((size for size in self.limits.ladder if size >= count), default=count)
        return to_floats([part.images for part in parts], padded)


def _come_back(code: str, message: str, seconds: float) -> RejectedError:
    return RejectedError(429, code, message, retry_after_seconds=max(1, math.ceil(seconds)))


def _expiry() -> RejectedError:
    return RejectedError(504, "deadline_exceeded", "the deadline passed before the images were classified")
