"""Requests -> batches."""

import asyncio
import threading
import time
from types import SimpleNamespace

import pytest
import uvloop
from batching import OVERFLOW, POISON, ask, in_a_loop, settle, waiting

from fsr_serve.batcher import Batcher, BatchLimits
from fsr_serve.metrics import Metrics


@in_a_loop
async def test_a_request_on_an_idle_server_starts_at_once(batcher, session):
    request = ask(batcher, 7)
    await session.has_started()
    session.let_go()
    assert (await request).logits.tolist() == [[7, -7]]


def test_inference_takes_no_less_time_than_the_session(batcher, session, monkeypatch):
    of, spent = session.logits, []

    def timed(images):
        started = time.perf_counter()
        time.sleep(0.0003)
        found = of(images)
        spent.append(time.perf_counter() - started)
        return found

    async def answers():
        return [await ask(batcher, 1) for _ in range(10)]

    session.let_go()
    monkeypatch.setattr(session, "logits", timed)
    for answer, seconds in zip(uvloop.run(answers()), spent, strict=True):
        assert answer.inference_seconds >= seconds


@in_a_loop
async def test_the_time_until_the_session_is_free_is_the_queues(batcher, session, registry, monkeypatch):
    clock = SimpleNamespace(now=1.0)
    monkeypatch.setattr("fsr_serve.batcher.perf_counter", lambda: clock.now)
    # the second is full, so it is put together while the first runs
    requests = ask(batcher, 1), ask(batcher, 2, 3, 4, 5)
    answers = []
    for request, now in zip(requests, (3.0, 8.0), strict=True):
        await session.has_started()
        clock.now = now
        session.let_go(1)
        answers.append(await request)
    assert [(answer.queue_seconds, answer.inference_seconds) for answer in answers] == [(0, 2), (2, 5)]
    assert registry.get_sample_value("fsr_batch_duration_seconds_sum") == 7


@in_a_loop
async def test_requests_collect_while_a_batch_runs_and_then_run_together(batcher, session):
    requests = [ask(batcher, 1)]
    await session.has_started()
    requests += [ask(batcher, 2), ask(batcher, 3, 4)]
    await settle()
    session.let_go()
    answers = await asyncio.gather(*requests)
    assert session.batches == [[1], [2, 3, 4]]
    assert [answer.logits[:, 0].tolist() for answer in answers] == [[1], [2], [3, 4]]


@in_a_loop
async def test_a_request_larger_than_a_batch_is_split_and_put_together_in_order(batcher, session):
    session.let_go()
    answer = await ask(batcher, *range(7))
    assert session.batches == [[0, 1, 2, 3], [4, 5, 6]]
    assert answer.logits[:, 0].tolist() == list(range(7))


@in_a_loop
async def test_the_second_slot_takes_a_full_batch_only(batcher, session, registry):
    requests = [ask(batcher, 1)]
    await session.has_started()
    requests += [ask(batcher, 2, 3, 4)]
    await settle()
    assert waiting(registry) == 3
    requests += [ask(batcher, 5)]
    await settle()
    assert waiting(registry) == 0, "the full batch is being put together"
    requests += [ask(batcher, *range(10, 15))]
    await settle()
    assert waiting(registry) == 5, "there are two slots"
    session.let_go()
    await asyncio.gather(*requests)
    assert session.batches == [[1], [2, 3, 4, 5], [10, 11, 12, 13], [14]]


@in_a_loop
async def test_a_batch_that_is_put_together_slowly_keeps_its_turn(batcher, session, monkeypatch):
    assemble, go_on = batcher._assemble, threading.Event()

    def slowly(parts):
        if parts[0].images[0, 0, 0, 0] == 2:
            go_on.wait(10)
        return assemble(parts)

    monkeypatch.setattr(batcher, "_assemble", slowly)
    requests = [ask(batcher, 1)]
    await session.has_started()
    requests += [ask(batcher, 2, 3, 4, 5), ask(batcher, 6, 7, 8, 9)]
    await settle()
    session.let_go()
    await requests[0]
    await asyncio.sleep(0.05)  # in which the third could overtake the second
    go_on.set()
    await asyncio.gather(*requests)
    assert session.batches == [[1], [2, 3, 4, 5], [6, 7, 8, 9]]


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [(POISON, ValueError, "poison"), (OVERFLOW, FloatingPointError, "logits that are not finite")],
)
@in_a_loop
async def test_one_bad_item_fails_alone(batcher, session, value, error, message):
    running = ask(batcher, 1)
    await session.has_started()
    good, bad, other = ask(batcher, 2), ask(batcher, value), ask(batcher, 4)
    await settle()
    session.let_go()
    with pytest.raises(error, match=message):
        await bad
    assert [(await request).logits[0, 0] for request in (running, good, other)] == [1, 2, 4]


@in_a_loop
async def test_batches_are_padded_to_the_ladder_and_the_padding_is_never_seen(session, registry):
    batcher = Batcher(session, BatchLimits(4, 8, ladder=(1, 2, 4)), Metrics(registry))
    session.let_go()
    answer = await ask(batcher, 5, 6, 7)
    assert session.batches == [[5, 6, 7, 0]]
    assert answer.logits[:, 0].tolist() == [5, 6, 7]
    assert registry.get_sample_value("fsr_batch_padding_images_total") == 1
    assert registry.get_sample_value("fsr_batch_images_sum") == 3


@in_a_loop
async def test_the_metrics_say_why_batches_started(batcher, session, registry):
    session.let_go()
    await ask(batcher, *range(5))
    assert registry.get_sample_value("fsr_batches_total", {"reason": "full"}) == 1
    assert registry.get_sample_value("fsr_batches_total", {"reason": "idle"}) == 1
    assert waiting(registry) == 0


def test_a_batch_that_ends_while_it_is_looked_at_has_not_run_since_the_clock_began(batcher, monkeypatch):
    def clock():
        batcher._busy_since = 0.0  # its thread ends it now
        return 100.0

    batcher._busy_since = 99.0
    monkeypatch.setattr("fsr_serve.batcher.perf_counter", clock)
    assert batcher.running_seconds == 1
