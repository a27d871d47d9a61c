"""Readiness sees a draining server, and a session that stalls, fails or errs."""

import asyncio
import threading

import numpy as np
import pytest
from conftest import picture

from fsr_serve import watchdog
from fsr_serve.errors import RequestError
from fsr_serve.server import Server
from fsr_serve.workers import Worker, make_folder


class Broken:
    """A session that does what the test says."""

    def __init__(self, logits):
        self.logits = logits


def fail(images):
    raise RuntimeError("the device was lost")


def readiness(client, path="/readyz"):
    response = client.get(path)
    return response.status_code, response.json()


def test_a_good_server_is_ready_and_says_what_runs(client):
    status, answer = readiness(client)
    assert (status, answer["ready"]) == (200, True)
    assert (answer["runtime"], answer["device"], answer["precision"]) == ("onnxruntime", "cpu", "f32")


@pytest.fixture
def patient(monkeypatch):
    """A busy machine's canary is not late: what is late says nothing of the session."""
    monkeypatch.setattr("fsr_serve.classifier.CANARY_SECONDS", 60.0)


@pytest.mark.parametrize(
    ("logits", "message"),
    [(fail, "the session fails"), (lambda images: np.zeros((len(images), 3), np.float32), "answers have changed")],
)
def test_a_session_that_fails_or_errs_is_not_ready(client, server, patient, logits, message):
    server.classifier.batcher.session = Broken(logits)
    status, answer = readiness(client)
    assert (status, answer["error"]["code"]) == (503, "not_ready")
    assert message in answer["error"]["message"]
    assert message in readiness(client, "/v2/health/ready")[1]["error"]


def test_readiness_comes_back_with_the_session(client, server, patient):
    good, server.classifier.batcher.session = server.classifier.batcher.session, Broken(fail)
    assert readiness(client)[0] == 503
    server.classifier.batcher.session = good
    server.classifier._checked_at = -np.inf
    assert readiness(client)[0] == 200


def test_a_stalled_session_is_not_ready_but_a_busy_one_is(server, monkeypatch):
    monkeypatch.setattr("fsr_serve.classifier.CANARY_SECONDS", 0.01)
    classifier = server.classifier
    entered, leave = threading.Event(), threading.Event()

    def stall(images):
        entered.set()
        leave.wait()
        return np.zeros((len(images), 3), np.float32)

    async def observe():
        loop = asyncio.get_running_loop()
        classifier.batcher.session = Broken(stall)
        image = np.zeros((1, 3, 16, 16), np.uint8)
        request = asyncio.create_task(classifier.batcher.submit(image, loop.time() + 60))
        await asyncio.to_thread(entered.wait)
        await classifier.check()  # busy, within the time that a request may take
        classifier._checked_at = -np.inf
        classifier._settings = classifier._settings.model_copy(update={"request_timeout_ms": 0})
        with pytest.raises(RequestError, match="one batch has been running for"):
            await classifier.check()
        leave.set()
        await request

    asyncio.run(observe())


def test_a_draining_server_is_not_ready_and_still_classifies(client, server):
    server.lifecycle.is_draining = True
    assert readiness(client)[0] == 503
    response = client.post("/classify", content=picture(), headers={"Content-Type": "image/png"})
    assert response.status_code == 200
    assert response.headers["Connection"] == "close", "the next request is for another server"


def test_after_the_drain_requests_get_503(client, server):
    server.lifecycle.is_closed = True
    body = {"inputs": [{"name": "images", "shape": [1, 3, 16, 16], "datatype": "UINT8", "data": [0] * 768}]}
    response = client.post("/v2/models/colours/infer", json=body)
    assert (response.status_code, response.json()) == (503, {"error": "the server is stopping; ask another one"})


async def watched(settings, monkeypatch, unready_seconds, until):
    """Whether the watchdog has ended the worker by the time that `until`, given the server, is over."""
    monkeypatch.setattr(watchdog, "LOOK_SECONDS", 0.05)
    server = Server.start(settings.model_copy(update={"unready_seconds": unready_seconds}), Worker(make_folder()))
    ended = asyncio.Event()
    watching = asyncio.create_task(watchdog.watch(server, ended.set))
    async with asyncio.timeout(60):
        await until(server, ended)
    watching.cancel()
    return ended.is_set()


async def is_counted(server, unready):
    while server.metrics.unready._value.get() != unready:
        await asyncio.sleep(0.01)


def test_a_worker_whose_session_goes_on_failing_ends(settings, monkeypatch):
    async def until(server, ended):
        server.classifier.batcher.session = Broken(fail)
        await ended.wait()
        await is_counted(server, unready=1)

    assert asyncio.run(watched(settings, monkeypatch, 0.3, until))


def test_a_worker_whose_session_recovers_does_not_end(settings, monkeypatch):
    async def until(server, ended):
        good, server.classifier.batcher.session = server.classifier.batcher.session, Broken(fail)
        await is_counted(server, unready=1)
        server.classifier.batcher.session = good
        await is_counted(server, unready=0)

    assert not asyncio.run(watched(settings, monkeypatch, 60, until))


def test_without_a_limit_no_worker_ends(settings, monkeypatch):
    async def until(server, ended):
        server.classifier.batcher.session = Broken(fail)
        await is_counted(server, unready=1)
        await asyncio.sleep(0.5)

    assert not asyncio.run(watched(settings, monkeypatch, 0, until))
