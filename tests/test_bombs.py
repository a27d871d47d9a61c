"""Small requests that would cost much: each is refused early, and the server's memory stays bounded."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from bombs import MEGABYTE, REFUSED, is_cheap
from servers import running
from starlette.testclient import TestClient
from test_mutations import resident_bytes

from fsr_serve.http.app import create_app
from fsr_serve.server import Server
from fsr_serve.settings import Settings
from fsr_serve.workers import Worker, make_folder

NOWHERE = ("/{}", "/classify/{}", "/v2/{}", "/v2/models/{}", "/v2/models/colours/versions/0{}")
CLIENTS = 4


def code_of(response):
    """None where it is no error, or one of the Open Inference Protocol."""
    error = response.json().get("error")
    return error["code"] if isinstance(error, dict) else None


@pytest.fixture(scope="module")
def client(models):
    """Of an app with the limits that are the default."""
    server = Server.start(Settings(models=models), Worker(make_folder()))
    with TestClient(create_app(lambda: server)) as client:
        yield client


@pytest.mark.parametrize("name", list(filter(is_cheap, REFUSED)))
def test_a_bomb_is_refused_by_name(client, name):
    path, headers, body, status, code = REFUSED[name]
    response = client.post(path, content=body, headers=headers)
    assert (response.status_code, code_of(response)) == (status, code)


def test_paths_that_lead_nowhere_leave_no_series(client):
    def series():
        return {line.rpartition(" ")[0] for line in client.get("/metrics").text.splitlines()}

    for path in NOWHERE:
        client.get(path.format("once"))
    before = series()
    for number in range(200):
        for path in NOWHERE:
            assert client.get(path.format(number)).status_code == 404
    assert series() == before


@pytest.fixture(scope="module")
def remote(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bombs")
    with running(models, folder / "home", folder / "log") as found:
        yield found


@contextmanager
def memory_growth(process):
    """Afterwards the list holds the bytes by which the worker's resident memory rose at its highest."""
    found = []
    parent = psutil.Process(process.pid)
    processes = [parent, *parent.children(recursive=True)]
    for each in processes:
        Path(f"/proc/{each.pid}/clear_refs").write_text("5")  # the peak begins anew
    before = {each.pid: each.memory_info().rss for each in processes}
    yield found
    found.append(max(_peak_bytes(pid) - rss for pid, rss in before.items()))


def _peak_bytes(pid):
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@pytest.mark.system
@pytest.mark.parametrize("name", REFUSED)
def test_a_bomb_costs_little_memory(remote, name):
    address, process = remote
    path, headers, body, status, code = REFUSED[name]
    body = body() if callable(body) else body
    with memory_growth(process) as growth:
        response = httpx.post(address + path, content=body, headers=headers, timeout=60)
    print(f"{name}: {len(body):,} bytes, {response.status_code}, memory +{growth[0] / MEGABYTE:.0f} MB")
    assert (response.status_code, code_of(response)) == (status, code), response.text
    # one decoded image of the most pixels, with room for its conversion; else a few times the body
    allowed = 32_000_000 * 3 * 3 if "most pixels" in name else 5 * len(body) + 50 * MEGABYTE
    assert growth[0] < allowed


def connection_to(address):
    host, _, port = address.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=60)


HEAD = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"


@pytest.mark.system
def test_a_body_that_announces_2_gb_is_refused_before_it_comes(remote):
    address, process = remote
    with memory_growth(process) as growth, connection_to(address) as connection:
        connection.sendall(HEAD + b"Content-Length: 2147483648\r\n\r\n")
        answer = b""
        while b"body_too_large" not in answer and (part := connection.recv(65536)):
            answer += part
    print(f"memory +{growth[0] / MEGABYTE:.0f} MB")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"body_too_large" in answer
    assert growth[0] < 50 * MEGABYTE


@pytest.mark.system
def test_a_body_that_never_ends_is_refused_at_the_limit(remote):
    address, process = remote
    block = bytes(2**16)
    sent = 0
    with memory_growth(process) as growth, connection_to(address) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        connection.settimeout(0.001)
        answer = b""
        while not answer and sent < 2**30:
            connection.settimeout(60)
            connection.sendall(b"%x\r\n%b\r\n" % (len(block), block))
            sent += len(block)
            connection.settimeout(0.001)
            try:
                answer = connection.recv(65536)
            except TimeoutError:
                continue
    print(f"refused after {sent / MEGABYTE:.0f} MB, memory +{growth[0] / MEGABYTE:.0f} MB")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert sent < 100 * MEGABYTE
    assert growth[0] < 5 * 32 * MEGABYTE


@pytest.mark.system
def test_a_body_that_drips_is_given_up(remote):
    address, _ = remote
    with connection_to(address) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        answer, drops = b"", 0
        connection.settimeout(1)
        while not answer and drops < 60:
            connection.sendall(b"1\r\nx\r\n")
            drops += 1
            try:
                answer = connection.recv(65536)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408 ")


TIMER_SECONDS = 125
"""BentoML keeps a timer of 120 seconds for each request."""


@pytest.mark.system
def test_100_000_paths_that_lead_nowhere_leave_metrics_and_memory_as_they_are(remote):
    address, process = remote

    def series():
        return {line.rpartition(" ")[0] for line in httpx.get(f"{address}/metrics").text.splitlines()}

    def ask(client, path):
        assert client.get(path).status_code == 404

    def ask_all(start, stop):
        def one_client(number):
            with httpx.Client(base_url=address, timeout=60) as client:
                for index in range(start + number, stop, CLIENTS):
                    ask(client, NOWHERE[index // CLIENTS % len(NOWHERE)].format(index))

        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(one_client, range(CLIENTS)))

    with httpx.Client(base_url=address) as client:
        for path in NOWHERE:
            ask(client, path.format("once"))
    before = series()
    ask_all(0, 50_000)
    halfway = resident_bytes(process)
    time.sleep(TIMER_SECONDS)
    ask_all(50_000, 100_000)
    end = resident_bytes(process)
    print(f"resident MB {halfway / MEGABYTE:.0f} halfway, {end / MEGABYTE:.0f} at the end")
    assert series() == before
    assert end - halfway < 20 * MEGABYTE
