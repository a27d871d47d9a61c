"""How long a request waits: to its deadline, no longer than its client, and unparsed where it would not be admitted.

Once it is taken it is finished, though the server be stopping.
"""

import asyncio
import importlib
import json
import threading
import time
from contextlib import asynccontextmanager

import numpy as np
import pytest
from conftest import SIDE, as_json, picture

from fsr_serve.batcher import BatchLimits
from fsr_serve.decoders import Decoders
from fsr_serve.errors import RequestError
from fsr_serve.http.app import create_app
from fsr_serve.metrics import Stages

INFER = "/v2/models/colours/infer"
JSON = {"Content-Type": "application/json"}
PARSERS = {
    "/classify": ("fsr_serve.http.body._json_images", b'{"image": ""}'),
    INFER: ("fsr_serve.http.open_inference.parse", b'{"inputs": []}'),
}
"""What parses the body of each route, and a body."""


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


@pytest.fixture(params=PARSERS)
def held_parser(request, monkeypatch):
    """A route, a body for it and two events: parsing has begun, and may end."""
    name, body = PARSERS[request.param]
    began, end = threading.Event(), threading.Event()

    def parse(*arguments, **options):
        began.set()
        end.wait(30)
        raise AssertionError("this is parsed for nobody")

    monkeypatch.setattr(name, parse)
    yield request.param, body, began, end
    end.set()


def test_a_body_that_takes_longer_to_parse_than_the_deadline_is_given_up(client, server, held_parser):
    route, body, _, _ = held_parser
    response = client.post(route, content=body, headers={**JSON, "X-Request-Timeout-Ms": "50"})
    assert response.status_code == 504
    assert server.classifier.batcher._arriving_images == 0


def test_a_body_that_waits_to_be_parsed_is_forgotten_with_its_request(client, server, monkeypatch):
    """Its memory is given to others, so nothing may hold it any more."""
    begun, go_on = [], threading.Event()

    def parse(body, settings):
        begun.append(body)
        go_on.wait(30)
        return [picture("red")]

    monkeypatch.setattr("fsr_serve.http.body._json_images", parse)
    server.classifier._parsers = Decoders(1)
    for body in (b'{"image": 1}', b'{"image": 2}'):
        assert client.post("/classify", content=body, headers={**JSON, "X-Request-Timeout-Ms": "50"}).status_code == 504
    go_on.set()
    assert client.post("/classify", content=b'{"image": 3}', headers=JSON).status_code == 200
    assert begun == [b'{"image": 1}', b'{"image": 3}']


@pytest.mark.parametrize("route", PARSERS)
def test_what_would_not_be_admitted_is_not_parsed(client, server, route):
    batcher = server.classifier.batcher
    limits, batcher.limits = batcher.limits, BatchLimits(batch_images=1, queue_images=0)
    assert client.post(route, content=b"{", headers=JSON).status_code == 429
    batcher.limits = limits
    assert client.post(route, content=b"{", headers=JSON).status_code == 400
    server.lifecycle.is_closed = True
    assert client.post(route, content=b"{", headers=JSON).status_code == 503


@asynccontextmanager
async def asked(server, path, body, kind, timeout_ms=10_000, body_seconds=0.0):
    """A request on its way, the event that its client leaves, and what is sent to it; the body comes after a while."""
    left, messages, sent = asyncio.Event(), [{"type": "http.request", "body": body}], []

    async def receive():
        if messages:
            await asyncio.sleep(body_seconds)
            return messages.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "http_version": "1.1"}
    scope["headers"] = [(b"content-type", kind), (b"x-request-timeout-ms", str(timeout_ms).encode())]
    request = asyncio.create_task(create_app(lambda: server)(scope, receive, send))
    yield left, sent
    await request


def tensor(**parameters):
    """A body for INFER with one image."""
    zeros = [0] * (3 * SIDE * SIDE)
    given = {"name": "images", "datatype": "UINT8", "shape": [1, 3, SIDE, SIDE], "data": zeros}
    return json.dumps({"inputs": [given], "parameters": parameters}).encode()


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [("/classify", picture("red"), b"image/png"), (INFER, tensor(), b"application/json")],
    ids=PARSERS,
)
def test_the_deadline_counts_from_when_the_body_has_been_read(server, path, body, kind):
    async def observe():
        async with asked(server, path, body, kind, timeout_ms=1000, body_seconds=1.2) as (_, sent):
            pass
        assert sent[0]["status"] == 200

    asyncio.run(asyncio.wait_for(observe(), 60))


@pytest.mark.parametrize(("timeout_ms", "microseconds"), [(10_000, 50_000), (50, 10_000_000)])
def test_of_the_header_and_the_timeout_of_the_protocol_the_sooner_counts(client, server, timeout_ms, microseconds):
    server.classifier.batcher.session = session = Held()
    started = time.monotonic()
    headers = {**JSON, "X-Request-Timeout-Ms": str(timeout_ms)}
    response = client.post(INFER, content=tensor(timeout=microseconds), headers=headers)
    seconds = time.monotonic() - started
    session.leave.set()
    assert response.status_code == 504
    assert seconds < 5


def test_the_work_of_a_client_that_leaves_is_never_computed(server):
    async def observe():
        loop = asyncio.get_running_loop()
        batcher = server.classifier.batcher
        batcher.session = session = Held()
        first = asyncio.create_task(batcher.submit(np.zeros((1, 3, SIDE, SIDE), np.uint8), loop.time() + 60))
        await asyncio.to_thread(session.entered.wait)
        async with asked(server, "/classify", picture("red"), b"image/png") as (left, sent):
            while server.metrics.queue_images._value.get() == 0:
                await asyncio.sleep(0.001)
            left.set()
        assert sent[0]["status"] == 499
        assert server.metrics.queue_images._value.get() == 0
        session.leave.set()
        await first
        assert session.images == 1

    asyncio.run(asyncio.wait_for(observe(), 60))


def test_no_further_image_is_decoded_once_the_deadline_has_passed(server, monkeypatch):
    begun, go_on = [], threading.Event()

    def decode(encoded, *_, **__):
        begun.append(encoded)
        go_on.wait(30)
        return np.zeros((3, SIDE, SIDE), np.uint8)

    async def observe():
        monkeypatch.setattr("fsr_serve.classifier.decode", decode)
        deadline = asyncio.get_running_loop().time() + 0.1
        with pytest.raises(RequestError) as late:
            await server.classifier.decode([b"first", b"second"], Stages(server.metrics), deadline)
        assert late.value.code == "deadline_exceeded"
        go_on.set()
        await server.classifier.decode([b"third"] * 2, Stages(server.metrics), deadline + 60)

    server.classifier._decoders = Decoders(1)
    asyncio.run(asyncio.wait_for(observe(), 60))
    assert b"second" not in begun


def test_a_client_that_leaves_while_its_body_is_parsed_is_not_waited_for(server, held_parser):
    route, body, began, end = held_parser

    async def observe():
        async with asked(server, route, body, b"application/json") as (left, sent):
            await asyncio.to_thread(began.wait, 30)
            left.set()
        assert not end.is_set()
        end.set()
        assert sent[0]["status"] == 499
        assert server.metrics.cancelled._value.get() == 1

    asyncio.run(asyncio.wait_for(observe(), 60))


@pytest.fixture(params=["fsr_serve.http.body._json_images", "fsr_serve.classifier.decode"])
def held_step(request, monkeypatch):
    """A step of a request for several images, and two events: it has begun, and may go on."""
    module, _, name = request.param.rpartition(".")
    step = getattr(importlib.import_module(module), name)
    began, go_on = threading.Event(), threading.Event()

    def held(*arguments, **options):
        began.set()
        go_on.wait(30)
        return step(*arguments, **options)

    monkeypatch.setattr(request.param, held)
    yield began, go_on
    go_on.set()


def test_what_was_taken_before_the_server_closed_is_finished(server, held_step):
    began, go_on = held_step

    async def observe():
        body = json.dumps(as_json(picture("red"), picture("green"))).encode()
        async with asked(server, "/classify", body, b"application/json") as (_, sent):
            await asyncio.to_thread(began.wait, 30)
            server.lifecycle.is_closed = True
            go_on.set()
        assert sent[0]["status"] == 200

    asyncio.run(asyncio.wait_for(observe(), 60))
