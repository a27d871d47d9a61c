"""A client that leaves takes its work with it."""

import asyncio
import threading

import numpy as np
from conftest import SIDE, picture

from fsr_serve.http.app import create_app


class Held:
    """A session that computes nothing until it is let go."""

    def __init__(self):
        self.entered, self.leave = threading.Event(), threading.Event()
        self.images = 0

    def logits(self, images):
        self.entered.set()
        self.leave.wait()
        self.images += len(images)
        return np.zeros((len(images), 3), np.float32)


def test_the_work_of_a_client_that_leaves_is_never_computed(server):
    async def observe():
        loop = asyncio.get_running_loop()
        batcher = server.classifier.batcher
        batcher.session = session = Held()
        first = asyncio.create_task(batcher.submit(np.zeros((1, 3, SIDE, SIDE), np.uint8), loop.time() + 60))
        await asyncio.to_thread(session.entered.wait)
        left = asyncio.Event()
        messages = [{"type": "http.request", "body": picture("red")}]
        sent = []

        async def receive():
            if messages:
                return messages.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/classify", "query_string": b"", "http_version": "1.1"}
        scope["headers"] = [(b"content-type", b"image/png")]
        request = asyncio.create_task(create_app(lambda: server)(scope, receive, send))
        while server.metrics.queue_images._value.get() == 0:
            await asyncio.sleep(0.001)
        left.set()
        await request
        assert sent[0]["status"] == 499
        assert server.metrics.queue_images._value.get() == 0
        session.leave.set()
        await first
        assert session.images == 1

    asyncio.run(asyncio.wait_for(observe(), 60))
