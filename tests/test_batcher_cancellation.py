"""Work of clients that left is dropped, and harms no other."""

import asyncio

import numpy as np
from batching import ask, in_a_loop, settle, waiting


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
