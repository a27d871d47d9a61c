"""Bodies that a worker holds at a time: bounded together, and their room is given back however a request ends."""

import asyncio
import json

import pytest
from conftest import picture

from fsr_serve.http.app import create_app

RED = picture("red")
PNG = {"Content-Type": "image/png"}


class Upload:
    """A request to /classify whose body comes as the test sends it."""

    def __init__(self, server):
        self._messages, self._sent = asyncio.Queue(), []
        scope = {"type": "http", "method": "POST", "path": "/classify", "query_string": b"", "http_version": "1.1"}
        scope["headers"] = [(b"content-type", b"image/png")]
        self._request = asyncio.create_task(create_app(lambda: server)(scope, self._receive, self._send))

    async def _receive(self):
        message = await self._messages.get()
        if message["type"] == "http.disconnect":
            self.leave()  # as web servers do: it is said each time
        return message

    async def _send(self, message):
        self._sent.append(message)

    def send(self, body, *, is_end):
        self._messages.put_nowait({"type": "http.request", "body": body, "more_body": not is_end})

    def leave(self):
        self._messages.put_nowait({"type": "http.disconnect"})

    async def answer(self):
        """Status, headers and JSON."""
        await self._request
        start, body, *_ = self._sent
        return start["status"], dict(start["headers"]), json.loads(body["body"])


async def until(is_true):
    while not is_true():
        await asyncio.sleep(0.001)


@pytest.fixture
def tight(server):
    """A server that may hold one image file and a few bytes."""
    server.bodies.limit = len(RED) + 10
    return server


def test_a_body_that_has_no_room_beside_those_that_are_held_is_told_to_come_back(tight):
    async def observe():
        slow, refused = Upload(tight), Upload(tight)
        slow.send(RED[:-1], is_end=False)
        await until(lambda: tight.bodies.held == len(RED) - 1)
        refused.send(RED[:10], is_end=False)
        refused.send(RED[10:], is_end=True)
        status, headers, answer = await refused.answer()
        assert (status, answer["error"]["code"], headers[b"retry-after"]) == (429, "bodies_full", b"1")
        assert f"at most {len(RED) + 10} may be held" in answer["error"]["message"]
        assert tight.metrics.rejected.labels("bodies_full")._value.get() == 1
        slow.send(RED[-1:], is_end=True)
        assert (await slow.answer())[0] == 200
        later = Upload(tight)
        later.send(RED, is_end=True)
        assert (await later.answer())[0] == 200

    asyncio.run(asyncio.wait_for(observe(), 60))


def test_the_room_of_a_client_that_leaves_while_it_sends_is_given_back(tight):
    async def observe():
        leaving = Upload(tight)
        leaving.send(RED[:-1], is_end=False)
        leaving.leave()
        assert (await leaving.answer())[0] == 400
        assert tight.bodies.held == 0

    asyncio.run(asyncio.wait_for(observe(), 60))


@pytest.mark.parametrize(("body", "status"), [(RED, 200), (b"garbage", 400), (b"0" * 200_001, 413)])
def test_the_room_of_a_request_is_given_back_with_its_answer(client, server, body, status):
    chunks = (body[start : start + 50_000] for start in range(0, len(body), 50_000))
    assert client.post("/classify", content=chunks, headers=PNG).status_code == status
    assert server.bodies.held == 0


def test_the_room_of_a_request_that_fails_is_given_back(client, server, monkeypatch):
    monkeypatch.setattr(server.classifier.batcher, "session", None)
    assert client.post("/classify", content=RED, headers=PNG).status_code == 500
    assert server.bodies.held == 0
