"""A batcher whose session's progress the test controls: fixtures and what tests of the batcher share."""

import asyncio
import functools
import threading

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from fsr_serve.batcher import Batcher, BatchLimits
from fsr_serve.errors import RequestError
from fsr_serve.metrics import Metrics

LIMITS = BatchLimits(batch_images=4, queue_images=8)
POISON, OVERFLOW = 99, 98


class Paced:
    """Each batch waits until the test lets it go; its logits are the first pixel and its negative."""

    runtime, device, precision = "onnxruntime", "cpu", "f32"

    def __init__(self):
        self.batches = []
        self.started, self.permits = threading.Semaphore(0), threading.Semaphore(0)

    def logits(self, images):
        values = np.round(images[:, 0, 0, 0] * 255)
        self.batches.append(values.astype(int).tolist())
        self.started.release()
        self.permits.acquire()
        if POISON in values:
            raise ValueError("poison")
        values[values == OVERFLOW] = np.inf
        return np.stack([values, -values], axis=1).astype(np.float32)

    async def has_started(self):
        # bounded, because the end of a loop waits for its threads
        assert await asyncio.to_thread(self.started.acquire, timeout=20), "no batch has started"

    def let_go(self, batches=100):
        self.permits.release(batches)


def images(*values):
    return np.array(values, np.uint8)[:, None, None, None] * np.ones((3, 2, 2), np.uint8)


@pytest.fixture
def session():
    session = Paced()
    yield session
    session.let_go()  # a failed test leaves no thread behind


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def batcher(session, registry):
    return Batcher(session, LIMITS, Metrics(registry))


def in_a_loop(test):
    @functools.wraps(test)
    def run(*arguments, **fixtures):
        asyncio.run(asyncio.wait_for(test(*arguments, **fixtures), 30))

    return run


def ask(batcher, *values, seconds=60.0):
    """A request on its way."""
    deadline = asyncio.get_running_loop().time() + seconds

    async def request():
        batcher.admit(len(values), deadline)
        return await batcher.submit(images(*values), deadline)

    return asyncio.create_task(request())


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def refusal(task):
    with pytest.raises(RequestError) as error:
        await task
    return error.value


def waiting(registry):
    return registry.get_sample_value("fsr_queue_images")
