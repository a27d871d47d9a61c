"""Threads that decode: what waits for them, and for how long."""

import asyncio
import threading
from types import SimpleNamespace

import pytest
from batching import ask, in_a_loop, refusal, settle

from fsr_serve.classifier import Classifier
from fsr_serve.decoders import Decoders
from fsr_serve.errors import RequestError
from fsr_serve.metrics import Metrics
from fsr_serve.settings import Settings


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("fsr_serve.decoders.perf_counter", lambda: clock.now)
    return clock


class Gate:
    """Decodes an image when it is open."""

    def __init__(self):
        self.begun = []
        self.has_begun, self.is_open = threading.Event(), threading.Event()

    def decode(self, image):
        self.begun.append(image)
        self.has_begun.set()
        self.is_open.wait(30)
        return image


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.is_open.set()


async def teach(decoders, clock, seconds, image):
    """Let the decoders see that an image takes so long."""

    def decode(image):
        clock.now += seconds

    await decoders.run(decode, [image])


def test_a_worker_decodes_in_as_many_threads_as_it_has_cores(session, registry, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)))
    version = SimpleNamespace(name="colours", version=1, sha256="")
    assert Classifier(version, session, Settings(workers=2), Metrics(registry))._decoders._threads == 3


@in_a_loop
async def test_before_anything_was_decoded_nothing_is_expected(gate):
    decoders = Decoders(1)
    running = asyncio.create_task(decoders.run(gate.decode, [b"image"]))
    await settle()
    assert decoders.predict([b"image"] * 100) == 0
    gate.is_open.set()
    assert await running == [b"image"]


@in_a_loop
async def test_a_request_waits_for_the_images_before_it_shared_among_the_threads(gate, clock):
    decoders = Decoders(2)
    await teach(decoders, clock, 0.5, b"image")
    waiting = [asyncio.create_task(decoders.run(gate.decode, [b"image"] * 4)) for _ in range(3)]
    await settle()
    assert decoders.predict([b"image"]) == pytest.approx((12 / 2 + 1) * 0.5)
    gate.is_open.set()
    await asyncio.gather(*waiting)


@in_a_loop
async def test_small_files_are_expected_to_take_less_time_than_large_ones(gate, clock):
    decoders = Decoders(1)
    photograph, thumbnail = bytes(10_000_000), bytes(2_000)
    await teach(decoders, clock, 1.0, photograph)
    running = asyncio.create_task(decoders.run(gate.decode, [thumbnail]))
    await settle()
    assert decoders.predict([photograph]) == pytest.approx(1, rel=0.01)
    assert decoders.predict([thumbnail] * 64) < 0.05
    gate.is_open.set()
    await running


@in_a_loop
async def test_what_is_no_image_teaches_nothing_of_those_that_are(gate, clock):
    decoders = Decoders(1)
    photograph, nothing = bytes(10_000_000), RequestError(400, "invalid_base64", "")
    await teach(decoders, clock, 1.0, photograph)
    for _ in range(10):
        await teach(decoders, clock, 1e-5, nothing)
        await teach(decoders, clock, 1e-4, b"")
    running = asyncio.create_task(decoders.run(gate.decode, [b""]))
    await settle()
    assert decoders.predict([photograph]) == pytest.approx(1, rel=0.1)
    gate.is_open.set()
    await running


@in_a_loop
async def test_what_finds_a_thread_free_is_tried_whatever_images_took_before(gate, clock):
    decoders = Decoders(2)
    await teach(decoders, clock, 1000, b"image")
    running = [asyncio.create_task(decoders.run(gate.decode, [b"image"]))]
    await settle()
    assert decoders.predict([b"image"]) == 0
    running.append(asyncio.create_task(decoders.run(gate.decode, [b"image"])))
    await settle()
    assert decoders.predict([b"image"]) == pytest.approx(2000)
    gate.is_open.set()
    await asyncio.gather(*running)


@in_a_loop
async def test_what_is_given_up_before_its_turn_is_never_decoded(gate):
    decoders = Decoders(1)
    running = asyncio.create_task(decoders.run(gate.decode, [b"first"]))
    given_up = asyncio.create_task(decoders.run(gate.decode, [b"second"]))
    await settle()
    given_up.cancel()
    await settle()
    gate.is_open.set()
    await running
    await decoders.run(gate.decode, [b"third"])
    assert gate.begun == [b"first", b"third"]
    assert decoders._left == 0


@in_a_loop
async def test_no_further_image_of_what_is_given_up_is_decoded_and_its_thread_is_busy_until_then(gate, clock):
    decoders = Decoders(1)
    await teach(decoders, clock, 0.5, b"image")
    given_up = asyncio.create_task(decoders.run(gate.decode, [b"first", b"second"]))
    await asyncio.to_thread(gate.has_begun.wait)
    given_up.cancel()
    await settle()
    assert given_up.cancelled()
    assert decoders.predict([b"image"]) > 0
    gate.is_open.set()
    await decoders.run(gate.decode, [b"third"])
    assert gate.begun == [b"first", b"third"]


@in_a_loop
async def test_a_deadline_that_decoding_cannot_meet_is_refused_before_any_is_done(batcher):
    deadline = asyncio.get_running_loop().time() + 10
    batcher.admit(1, deadline, decode_seconds=7)
    with pytest.raises(RequestError) as refused:  # though no batch runs
        batcher.admit(1, deadline, decode_seconds=9)
    assert (refused.value.status, refused.value.code) == (429, "deadline_unreachable")
    assert refused.value.retry_after_seconds == 9


@in_a_loop
async def test_decoding_and_computing_go_on_side_by_side(batcher, session):
    batcher.batch_time.observe(1, 2.0)
    running = ask(batcher, 1)
    await session.has_started()
    deadline = asyncio.get_running_loop().time() + 6.8
    batcher.admit(1, deadline, decode_seconds=2.5)  # not 2.5 after the two batches' 4
    with pytest.raises(RequestError, match="an answer would take about 5.500 seconds"):
        batcher.admit(1, deadline, decode_seconds=3.5)
    session.let_go()
    await running


@in_a_loop
async def test_a_deadline_that_passes_while_decoding_gets_504_at_once(batcher):
    async def decode():
        async with batcher.arriving(1, asyncio.get_running_loop().time() + 0.01):
            await asyncio.get_running_loop().create_future()

    error = await refusal(asyncio.create_task(decode()))
    assert (error.status, error.code) == (504, "deadline_exceeded")
    batcher.admit(8, asyncio.get_running_loop().time() + 1)  # its place is free again
