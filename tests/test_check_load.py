"""Checks under load: what waits for them is bounded, in images and in time, and holds up nobody else."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from checked import SOMEBODY, ask, sample
from conftest import as_form, picture
from starlette.testclient import TestClient
from versions import ADMIN, PNG

from fsr_serve.errors import RejectedError
from fsr_serve.http.app import create_app


def test_what_is_watched_gives_way_to_what_is_asked_and_waits_for_nothing(start_checking, monkeypatch):
    server = start_checking(check_share=1, max_check_images=8)
    checker = server.classifier._checker
    observe, begun, go_on = checker._observer.observe, threading.Event(), threading.Event()

    def held_up(images):
        begun.set()
        assert go_on.wait(60)
        return observe(images)

    monkeypatch.setattr(checker._observer, "observe", held_up)
    images = np.zeros((24, 3, 16, 16), np.uint8)

    async def ask():
        deadline = asyncio.get_running_loop().time() + 60
        checker.watch(images, deadline, SOMEBODY)  # 8 at a time
        await asyncio.to_thread(begun.wait, 60)
        checker.watch(images[:1], deadline, SOMEBODY)  # while another is watched
        with checker.room(8, deadline):
            go_on.set()
            evidence = await checker.check(images[:8], [{}] * 8, deadline, SOMEBODY)
        await asyncio.gather(*checker._unasked)
        return evidence

    assert len(asyncio.run(ask())) == 8
    assert sample(server, "fsr_unchecked_images_total") == 1 + 16


def test_more_than_may_wait_are_refused_and_late_ones_too(start_checking):
    checker = start_checking(max_check_images=8).classifier._checker
    images = np.zeros((9, 3, 16, 16), np.uint8)

    async def check(count, seconds):
        deadline = asyncio.get_running_loop().time() + seconds
        with checker.room(count, deadline):
            return await checker.check(images[:count], [{}] * count, deadline, SOMEBODY)

    with pytest.raises(RejectedError, match="at most 8 may, with these 9") as refused:
        asyncio.run(check(9, 60))
    assert (refused.value.status, refused.value.code) == (429, "checks_busy")
    with pytest.raises(RejectedError) as late:
        asyncio.run(check(8, 0))
    assert (late.value.status, late.value.code) == (504, "deadline_exceeded")
    assert len(asyncio.run(check(8, 60))) == 8


def test_what_the_checks_have_no_time_for_is_refused_before_any_work(start_checking):
    server = start_checking(max_check_images=8)
    refused = []

    async def elsewhere():
        with server.classifier._checker.room(8, asyncio.get_running_loop().time() + 60):
            refused.append(await asyncio.to_thread(ask, server))

    asyncio.run(elsewhere())
    (response,) = refused
    assert (response.status_code, response.json()["error"]["code"]) == (429, "checks_busy")
    assert not sample(server, "fsr_images_total")
    assert ask(server).status_code == 200, "the room is given back"


def test_checks_whose_end_is_expected_too_late_are_refused_unless_the_checks_are_idle(start_checking):
    checker = start_checking(max_check_images=64).classifier._checker
    for _ in range(100):
        checker._check_time.observe(8, 8.0)

    async def keep():
        now = asyncio.get_running_loop().time()
        with checker.room(10, now + 1):
            with checker.room(2, now + 60):
                pass
            with (
                pytest.raises(RejectedError, match=r"10 images wait.* about 12\.000 seconds, more than 80%") as refused,
                checker.room(2, now + 14),
            ):
                pass
        return refused.value

    refused = asyncio.run(keep())
    assert (refused.status, refused.code, refused.retry_after_seconds) == (429, "checks_busy", 10)


def test_others_are_answered_while_the_history_looks(start_checking, monkeypatch):
    checker = start_checking(checks=("history",)).classifier._checker
    count, go_on = checker._history.count, threading.Event()
    monkeypatch.setattr(checker._history, "count", lambda images: go_on.wait(60) and count(images))

    async def remember():
        looking = asyncio.create_task(checker.remember(np.zeros((1, 3, 16, 16), np.uint8), SOMEBODY))
        await asyncio.sleep(0)
        assert not looking.done()
        go_on.set()
        return await looking

    assert len(asyncio.run(remember())) == 1


def test_what_waits_for_the_history_is_bounded_as_what_waits_for_the_model(start_checking, monkeypatch):
    server = start_checking(checks=("history",), max_queue_images=8)
    history, begun, go_on = server.classifier._checker._history, threading.Event(), threading.Event()
    monkeypatch.setattr(history, "count", lambda images: begun.set() or (go_on.wait(60) and np.ones(len(images))))
    with ThreadPoolExecutor(1) as thread, TestClient(create_app(lambda: server), headers=ADMIN) as client:
        waiting = thread.submit(client.post, "/classify", files=as_form(*[picture("red")] * 8))
        assert begun.wait(60)
        assert sample(server, "fsr_queue_images") == 8
        assert client.post("/classify", content=picture("red"), headers=PNG).json()["error"]["code"] == "queue_full"
        go_on.set()
        assert waiting.result().status_code == 200
        go_on.clear()
        late = client.post("/classify", content=picture("red"), headers=PNG | {"X-Request-Timeout-Ms": "50"})
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
        go_on.set()
    assert sample(server, "fsr_queue_images") == 0
    assert sample(server, "fsr_images_total") == 8, "what is late is not computed"
