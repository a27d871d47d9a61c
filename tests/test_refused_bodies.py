"""What was refused is gone from memory at once, without a collection."""

import asyncio
import gc
import time
import tracemalloc

import pytest
from conftest import picture

from fsr_serve.http.app import create_app
from fsr_serve.server import Server
from fsr_serve.workers import Worker, make_folder

BYTES = 2**20
TIMES = 20
ROOM = {"max_body_bytes": 2 * BYTES, "max_held_bytes": 4 * BYTES, "max_image_bytes": 2 * BYTES}
BAD = {
    "too large": (b"\xff\xd8\xff" + bytes(BYTES), {"max_image_bytes": 1000}, [413]),
    "no image": (bytes(BYTES), {}, [400]),
    "a damaged image": (picture("red")[:-20] + bytes(BYTES), {}, [400]),
    "late": (picture("red") + bytes(BYTES), {"request_timeout_ms": 20}, [429, 504]),
}


async def post(app, body):
    """The status of the answer."""
    messages = [{"type": "http.request", "body": bytes(bytearray(body)), "more_body": False}]
    sent = []

    async def receive():
        return messages.pop() if messages else await asyncio.Future()

    async def send(message):
        sent.append(message)

    headers = [(b"content-type", b"image/png"), (b"content-length", str(len(body)).encode())]
    scope = {"type": "http", "method": "POST", "path": "/classify", "query_string": b"", "headers": headers}
    await app({**scope, "app": app, "root_path": "", "http_version": "1.1"}, receive, send)
    return sent[0]["status"]


@pytest.mark.parametrize(("body", "changed", "statuses"), BAD.values(), ids=BAD)
def test_a_refused_body_is_not_kept(settings, monkeypatch, body, changed, statuses):
    app = create_app(lambda: server)
    server = Server.start(settings.model_copy(update=ROOM | changed), Worker(make_folder()))
    session = server.classifier.batcher.session
    logits = session.logits
    monkeypatch.setattr(session, "logits", lambda images: time.sleep(0.1) or logits(images))

    async def all_of_them():
        assert await post(app, body) in statuses
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            for _ in range(TIMES):
                assert await post(app, body) in statuses
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
            gc.enable()

    assert asyncio.run(all_of_them()) < 2 * BYTES
