"""Requests -> batches, with a session whose progress the test controls."""

import asyncio
import functools
import threading

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from fsr_serve.batch_time import BatchTime
from fsr_serve.batcher import Batcher, BatchLimits
from fsr_serve.errors import RequestError
from fsr_serve.metrics import Metrics

LIMITS = BatchLimits(batch_images=4, queue_images=8)
POISON = 99


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
        return np.stack([values, -values], axis=1).astype(np.float32)

    async def has_started(self):
        await asyncio.to_thread(self.started.acquire)

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
    return asyncio.create_task(batcher.submit(images(*values), asyncio.get_running_loop().time() + seconds))


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def refusal(task):
    with pytest.raises(RequestError) as error:
        await task
    return error.value


@in_a_loop
async def test_a_request_on_an_idle_server_starts_at_once(batcher, session):
    request = ask(batcher, 7)
    await session.has_started()
    session.let_go()
    assert (await request).logits.tolist() == [[7, -7]]


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
async def test_a_full_queue_answers_429_and_when_to_come_back(batcher, session, registry):
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
    assert registry.get_sample_value("fsr_rejected_total", {"reason": "queue_full"}) == 1


@in_a_loop
async def test_a_deadline_that_cannot_be_met_is_refused_with_the_time_the_queue_takes(batcher, session):
    batcher.batch_time.observe(1, 2.0)
    running = ask(batcher, 1)
    await session.has_started()
    error = await refusal(ask(batcher, 2, seconds=3))
    assert (error.status, error.code, error.retry_after_seconds) == (429, "deadline_unreachable", 2)
    patient = ask(batcher, 3, seconds=5)
    await settle()
    session.let_go()
    await asyncio.gather(running, patient)
    assert session.batches == [[1], [3]]


@in_a_loop
async def test_an_idle_server_tries_whatever_it_expects(batcher, session):
    batcher.batch_time.observe(1, 1000.0)
    session.let_go()
    await ask(batcher, 1)


@in_a_loop
async def test_what_expires_in_the_queue_gets_504_and_is_never_computed(batcher, session, registry):
    running = ask(batcher, 1)
    await session.has_started()
    error = await refusal(ask(batcher, 2, seconds=0.01))
    assert (error.status, error.code) == (504, "deadline_exceeded")
    assert waiting(registry) == 0
    session.let_go()
    await running
    assert session.batches == [[1]]


@in_a_loop
async def test_work_of_clients_that_left_is_dropped_before_it_is_computed(batcher, session, registry):
    running = ask(batcher, 1)
    await session.has_started()
    leaving = [ask(batcher, value) for value in (2, 3)]
    staying = ask(batcher, 4)
    await settle()
    for request in leaving:
        request.cancel()
    await settle()
    assert waiting(registry) == 1
    session.let_go()
    await asyncio.gather(running, staying)
    assert session.batches == [[1], [4]]
    assert registry.get_sample_value("fsr_cancelled_total") == 2


@in_a_loop
async def test_clients_that_leave_after_their_batch_was_put_together_are_not_computed_either(batcher, session):
    running = ask(batcher, 1)
    await session.has_started()
    leaving, staying = ask(batcher, 2, 3), ask(batcher, 4, 5)  # a full batch, in the second slot
    await settle()
    leaving.cancel()
    await settle()
    session.let_go()
    await asyncio.gather(running, staying)
    assert session.batches == [[1], [4, 5]]


@in_a_loop
async def test_an_answer_for_a_client_that_left_meanwhile_harms_no_other(batcher, session):
    leaving = ask(batcher, 1)
    await session.has_started()
    leaving.cancel()
    await settle()
    session.let_go()
    assert (await ask(batcher, 2)).logits.tolist() == [[2, -2]]


@in_a_loop
async def test_one_bad_item_fails_alone(batcher, session):
    running = ask(batcher, 1)
    await session.has_started()
    good, bad, other = ask(batcher, 2), ask(batcher, POISON), ask(batcher, 4)
    await settle()
    session.let_go()
    with pytest.raises(ValueError, match="poison"):
        await bad
    assert [(await request).logits[0, 0] for request in (running, good, other)] == [1, 2, 4]


@in_a_loop
async def test_a_closed_batcher_refuses_with_503_and_finishes_what_it_took(batcher, session):
    requests = [ask(batcher, 1)]
    await session.has_started()
    requests.append(ask(batcher, 2))
    await settle()
    batcher.close()
    error = await refusal(ask(batcher, 3))
    assert (error.status, error.code) == (503, "draining")
    session.let_go()
    assert [answer.logits[0, 0] for answer in await asyncio.gather(*requests)] == [1, 2]


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


@in_a_loop
async def test_a_storm_of_cancelled_requests_leaves_nothing_behind(batcher, session, registry):
    random = np.random.default_rng(0)
    session.let_go(10_000)
    for _ in range(100):
        requests = [ask(batcher, *range(size)) for size in random.integers(1, 4, 3)]
        for _ in range(random.integers(0, 4)):
            await asyncio.sleep(0)
        requests[random.integers(3)].cancel()
        await asyncio.gather(*requests, return_exceptions=True)
    assert waiting(registry) == 0
    assert (await ask(batcher, 1, 2)).logits[:, 0].tolist() == [1, 2]


def waiting(registry):
    return registry.get_sample_value("fsr_queue_images")


def test_batch_time_finds_fixed_and_growing_cost():
    batch_time = BatchTime()
    assert batch_time.predict(100, batch_images=8) == 0
    for count in (1, 2, 4, 8):
        batch_time.observe(count, 0.5 + 0.1 * count)
    assert batch_time.predict(4, batch_images=8) == pytest.approx(0.9)
    assert batch_time.predict(20, batch_images=8) == pytest.approx(3 * 0.5 + 20 * 0.1)


def test_batch_time_of_one_size_only_grows_in_proportion():
    batch_time = BatchTime()
    for _ in range(1000):
        batch_time.observe(4, 0.2)
    assert batch_time.predict(8, batch_images=4) == pytest.approx(0.4)


@pytest.mark.parametrize("seconds", [(0.1, 0.9), (0.9, 0.1)], ids=["steep", "falling"])
def test_batch_time_is_never_negative(seconds):
    batch_time = BatchTime()
    for count, taken in zip((2, 4), seconds, strict=True):
        batch_time.observe(count, taken)
    assert all(batch_time.predict(count, batch_images=4) > 0 for count in (1, 2, 3, 4, 100))
