"""What a batcher refuses: a full queue, and deadlines that cannot be met."""

import asyncio
import time
from types import SimpleNamespace

import pytest
from batching import ask, images, in_a_loop, refusal, settle, waiting

from fsr_serve.errors import RequestError


@in_a_loop
async def test_a_full_queue_answers_429_and_when_to_come_back(batcher, session):
    requests = [ask(batcher, 1)]
    await session.has_started()
    requests += [ask(batcher, *range(4)), ask(batcher, *range(8))]  # the first four leave the queue for the second slot
    await settle()
    error = await refusal(ask(batcher, 9))
    assert (error.status, error.code, error.retry_after_seconds) == (429, "queue_full", 1)
    assert "8 images wait already; at most 8 may" in error.message
    session.let_go()
    await asyncio.gather(*requests)
    await ask(batcher, 9)


@in_a_loop
async def test_a_deadline_that_cannot_be_met_is_refused_with_the_time_the_queue_takes(batcher, session):
    batcher.batch_time.observe(1, 2.0)
    running = ask(batcher, 1)
    await session.has_started()
    error = await refusal(ask(batcher, 2, seconds=4.9))
    assert (error.status, error.code, error.retry_after_seconds) == (429, "deadline_unreachable", 2)
    assert "an answer would take about 4.000 seconds, more than 80% of the 4." in error.message
    patient = ask(batcher, 3, seconds=30)
    await settle()
    session.let_go()
    await asyncio.gather(running, patient)
    assert session.batches == [[1], [3]]


@in_a_loop
async def test_a_batch_takes_until_the_loop_gets_to_it(batcher, session):
    request = ask(batcher, 1)
    await session.has_started()
    session.let_go()
    time.sleep(0.05)  # the loop is busy with others
    await request
    assert batcher.batch_time.predict(1, batch_images=4) >= 0.05


@in_a_loop
async def test_what_waits_for_another_batch_takes_only_the_time_from_its_end(batcher, session, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("fsr_serve.batcher.perf_counter", lambda: clock.now)
    first = ask(batcher, 1)
    await session.has_started()
    second = ask(batcher, 2, 3, 4, 5)  # full, so it is put together while the first runs
    await settle()
    for request, now in ((first, 2.0), (second, 7.0)):
        clock.now = now
        session.let_go(1)
        await request
    assert batcher.batch_time.predict(1, batch_images=4) == pytest.approx(2)
    assert batcher.batch_time.predict(4, batch_images=4) == pytest.approx(5)


@in_a_loop
async def test_an_idle_server_tries_whatever_it_expects(batcher, session):
    batcher.batch_time.observe(1, 1000.0)
    session.let_go()
    await ask(batcher, 1)


@in_a_loop
async def test_what_expires_in_the_queue_gets_504_and_is_never_computed(batcher, session, registry):
    running = ask(batcher, 1)
    await session.has_started()
    error = await refusal(ask(batcher, 2, seconds=0.1))
    assert (error.status, error.code) == (504, "deadline_exceeded")
    assert waiting(registry) == 0
    session.let_go()
    await running
    assert session.batches == [[1]]


@in_a_loop
async def test_what_was_admitted_is_computed_however_full_the_queue_is_by_then(batcher, session):
    requests = [ask(batcher, 1)]
    await session.has_started()
    deadline = asyncio.get_running_loop().time() + 60
    async with batcher.arriving(1, deadline):
        requests += [ask(batcher, *range(4)), ask(batcher, *range(7))]
        await settle()
        batcher.batch_time.observe(1, 1000.0)
    admitted = asyncio.create_task(batcher.submit(images(9), deadline))
    await settle()
    session.let_go()
    assert (await admitted).logits[0, 0] == 9
    await asyncio.gather(*requests)


@in_a_loop
async def test_images_that_are_being_decoded_count_as_waiting_and_are_shown_as_such(batcher, registry):
    deadline = asyncio.get_running_loop().time() + 60
    async with batcher.arriving(6, deadline):
        assert waiting(registry) == 6
        with pytest.raises(RequestError) as refused:
            batcher.admit(3, deadline)
        batcher.admit(2, deadline)
    batcher.admit(8, deadline)
    assert waiting(registry) == 0
    assert (refused.value.status, refused.value.code) == (429, "queue_full")
