"""Requests that are a little wrong: none makes the server fail, hang or keep memory."""

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from conftest import picture
from mutations import right_requests, wrong_request
from servers import running

BODIES = 20_000
CLIENTS = 4
TIMEOUT_SECONDS = 30
SIDES = (500, 1000, 2000, 3000, 4000, 5656)


@pytest.fixture(scope="module")
def rights():
    return right_requests()


def ask(client, sent, seed, index, folder):
    """The status. One of the server's own faults fails the test and leaves the body in `folder`."""
    path = folder / f"{seed}-{index}"
    try:
        response = client.post(sent.path, content=sent.body, headers=sent.headers)
        fault = response.text if response.status_code >= 500 else None
    except httpx.TransportError as error:
        fault = repr(error)
    if fault is not None:
        path.write_bytes(sent.body)
        pytest.fail(f"seed {seed}, index {index}: {sent.path} {sent.headers}, body in {path}: {fault}")
    return response.status_code


def test_the_requests_that_are_changed_are_right(client, rights, tmp_path):
    assert {ask(client, sent, 0, index, tmp_path) for index, sent in enumerate(rights)} == {200}


def test_no_small_change_of_a_request_makes_the_app_fail(client, rights, tmp_path):
    statuses = Counter(ask(client, wrong_request(rights, 0, index), 0, index, tmp_path) for index in range(500))
    assert statuses.keys() <= {200, 400, 413, 415}
    assert statuses[200], "some changes do no harm"
    assert statuses[400] > 100


@pytest.mark.system
def test_no_small_change_of_a_request_makes_the_server_fail_hang_or_keep_memory(models, rights, tmp_path):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    with running(models, tmp_path / "home", tmp_path / "log") as (address, process):

        def one_client(number, indices):
            with httpx.Client(base_url=address, timeout=TIMEOUT_SECONDS) as client:
                return Counter(
                    ask(client, wrong_request(rights, seed, index), seed, index, tmp_path)
                    for index in indices[number::CLIENTS]
                )

        def many(indices):
            with ThreadPoolExecutor(CLIENTS) as clients:
                return sum(clients.map(lambda number: one_client(number, indices), range(CLIENTS)), Counter())

        # a changed header may make a picture large: the heap grows to its greatest size before it is compared
        with ThreadPoolExecutor(CLIENTS) as clients:
            list(
                clients.map(lambda side: httpx.post(f"{address}/classify", **large(side), timeout=60), SIDES * CLIENTS)
            )
        statuses = many(range(BODIES // 2))
        halfway = resident_bytes(process)
        statuses += many(range(BODIES // 2, BODIES))
        end = resident_bytes(process)
        print(f"{dict(statuses)}; resident MB {halfway / 2**20:.0f} halfway, {end / 2**20:.0f} at the end")
        assert httpx.get(f"{address}/readyz").status_code == 200
    assert sum(statuses.values()) == BODIES
    assert end < 1.05 * halfway
    assert "Traceback" not in (tmp_path / "log").read_text()


def large(side):
    """A request with a square picture."""
    return {"content": picture("red", (side, side)), "headers": {"Content-Type": "image/png"}}


def resident_bytes(process):
    """Of the server's processes together."""
    parent = psutil.Process(process.pid)
    return sum(found.memory_info().rss for found in (parent, *parent.children(recursive=True)))
