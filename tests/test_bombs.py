"""Small requests that would cost much: each is refused early, and the server's memory stays bounded."""

import io
import json
import socket
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image
from starlette.testclient import TestClient
from test_mutations import resident_bytes
from test_serve import running

from fsr_serve.http.app import create_app
from fsr_serve.server import Server
from fsr_serve.settings import Settings
from fsr_serve.workers import Worker, make_folder

MODEL = "/v2/models/colours"
INFER = f"{MODEL}/infer"
PNG = {"Content-Type": "image/png"}
WEBP = {"Content-Type": "image/webp"}
JSON = {"Content-Type": "application/json"}
MEGABYTE = 2**20
CLIENTS = 4


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, *chunks):
    """A PNG file whose header claims this size."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + png_chunk(b"IEND", b"")


def flat(side, format, **options):
    file = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(file, format, **options)
    return file.getvalue()


@cache
def deflated_zeros():
    """300 MB in 300 kB."""
    deflate = zlib.compressobj()
    return b"".join(deflate.compress(bytes(MEGABYTE)) for _ in range(300)) + deflate.flush()


def tensor(datatype, shape, **others):
    return json.dumps({"inputs": [{"name": "images", "datatype": datatype, "shape": shape, **others}]}).encode()


def binary(size):
    return {"parameters": {"binary_data_size": size}}


HUGE = 2**31
PIXELS = [HUGE // (3 * 16 * 16), 3, 16, 16]

NOWHERE = ("/{}", "/classify/{}", "/v2/{}", "/v2/models/{}", "/v2/models/colours/versions/0{}")

# path, headers, body, status, code on /classify
REFUSED = {
    "a PNG that claims 50,000 x 50,000": ("/classify", PNG, png(50_000, 50_000), 413, "too_many_pixels"),
    "a PNG that claims 2^31 x 2^31": ("/classify", PNG, png(2**31 - 1, 2**31 - 1), 413, "too_many_pixels"),
    "a text of 300 MB in a PNG": (
        "/classify",
        PNG,
        lambda: png(16, 16, png_chunk(b"zTXt", b"a\0\0" + deflated_zeros())),
        400,
        "unreadable_image",
    ),
    "a profile of 300 MB in a PNG": (
        "/classify",
        PNG,
        lambda: png(16, 16, png_chunk(b"iCCP", b"a\0\0" + deflated_zeros())),
        400,
        "unreadable_image",
    ),
    "a small PNG with the pixels of a huge one": (
        "/classify",
        PNG,
        lambda: png(16, 16, png_chunk(b"IDAT", deflated_zeros())),
        200,
        None,
    ),
    "a flat PNG of 100 million pixels": ("/classify", PNG, lambda: flat(10_000, "PNG"), 413, "too_many_pixels"),
    "a flat WebP of 100 million pixels": ("/classify", WEBP, lambda: flat(10_000, "WEBP"), 413, "too_many_pixels"),
    "a flat PNG of the most pixels that are taken": ("/classify", PNG, lambda: flat(5_656, "PNG"), 200, None),
    "10,000 files in a form": (
        "/classify",
        {"Content-Type": "multipart/form-data; boundary=x"},
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n\r\n' * 10_000 + b"--x--\r\n",
        413,
        "too_many_images",
    ),
    "10,000 fields in a form": (
        "/classify",
        {"Content-Type": "multipart/form-data; boundary=x"},
        b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\n\r\n' * 10_000 + b"--x--\r\n",
        400,
        "malformed_multipart",
    ),
    "millions of values in JSON": (
        "/classify",
        JSON,
        b'{"images": [' + b'"",' * 10**7 + b'""]}',
        413,
        "too_many_values",
    ),
    "millions of lists in JSON": ("/classify", JSON, b"[" * 3 * 10**7, 413, "too_many_values"),
    "a number of millions of digits": ("/classify", JSON, b"1" * 3 * 10**7, 400, "malformed_json"),
    "a tensor that claims 2 GB": (INFER, JSON, tensor("UINT8", PIXELS, data=[0]), 413, None),
    "a binary tensor that claims 2 GB": (INFER, JSON, tensor("UINT8", PIXELS, **binary(HUGE)), 413, None),
    "2 GB of binary that do not come": (INFER, JSON, tensor("UINT8", [1, 3, 16, 16], **binary(HUGE)), 400, None),
    "an empty tensor of huge sides": (INFER, JSON, tensor("FP32", [0, HUGE, HUGE, HUGE], data=[]), 400, None),
    "millions of numbers in a tensor": (INFER, JSON, tensor("FP32", [1, 3, 16, 16], data=[0] * 10**7), 413, None),
}


def is_cheap(name):
    return not callable(REFUSED[name][2]) and "millions" not in name


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


@pytest.mark.parametrize("name", filter(is_cheap, REFUSED))
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
