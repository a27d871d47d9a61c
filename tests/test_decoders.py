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
def gate():
    gate = threading.Event()
    yield gate
    gate.set()


def test_a_worker_decodes_in_as_many_threads_as_it_has_cores(session, registry, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)))
    version = SimpleNamespace(name="colours", version=1, sha256="")
    assert Classifier(version, session, Settings(workers=2), Metrics(registry))._decoders._threads == 3


@in_a_loop
async def test_before_anything_was_decoded_nothing_is_expected():
    assert Decoders(2).predict(100) == 0


@in_a_loop
async def test_a_request_waits_for_the_images_before_it_shared_among_the_threads(gate, monkeypatch):
    clock = iter([0.0, 3.0])
    monkeypatch.setattr("fsr_serve.decoders.perf_counter", lambda: next(clock, 3.0))
    decoders = Decoders(2)
    assert await decoders.run(lambda: "pixels", 6) == "pixels"
    assert decoders.predict(1) == pytest.approx(0.5)
    waiting = [asyncio.create_task(decoders.run(gate.wait, 4)) for _ in range(3)]
    await settle()
    assert decoders.predict(1) == pytest.approx((12 / 2 + 1) * 0.5)
    gate.set()
    await asyncio.gather(*waiting)


@in_a_loop
async def test_what_is_given_up_before_its_turn_is_never_decoded(gate):
    decoders, decoded = Decoders(1), []
    running = asyncio.create_task(decoders.run(gate.wait, 1))
    given_up = asyncio.create_task(decoders.run(lambda: decoded.append(1), 1))
    await settle()
    given_up.cancel()
    await settle()
    gate.set()
    await running
    await decoders.run(lambda: None, 1)
    assert decoded == []
    assert decoders._left == 0


@in_a_loop
async def test_a_deadline_that_decoding_cannot_meet_is_refused_before_any_is_done(batcher):
    deadline = asyncio.get_running_loop().time() + 10
    async with batcher.arriving(1, deadline):
        batcher.admit(1, deadline, decode_seconds=7)
        with pytest.raises(RequestError) as refused:
            batcher.admit(1, deadline, decode_seconds=9)
    assert (refused.value.status, refused.value.code) == (429, "deadline_unreachable")
    assert refused.value.retry_after_seconds == 9
    batcher.admit(1, deadline, decode_seconds=9)  # idle: it always tries


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
