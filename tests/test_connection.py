"""What comes outside of bodies is bounded, in bytes and in time: uvicorn under our connection, and real sockets."""

import gc
import hashlib
import json
import socket
import threading
import time

import pytest
from connections import CHUNKED, GET, POST, connected, names, read_answer, read_to_the_end, serving

from fsr_serve.http import connection
from fsr_serve.http.connection import HEAD_BYTES, HEAD_FIELDS, WAITING_REQUESTS, Connection


@pytest.fixture(scope="module")
def port():
    with serving() as port:
        yield port


def head_of(size, line):
    """The head of a GET with so many bytes, most of them in such lines as far as that many are allowed."""
    start = GET[:-2]
    lines = line * min((size - len(start) - 20) // len(line), HEAD_FIELDS - 2)
    last = b"z" * (size - len(start) - len(lines) - 5) + b":\r\n\r\n"
    return start + lines + last


@pytest.mark.parametrize("piece_bytes", [2**20, 10_000], ids=["at once", "in pieces"])
@pytest.mark.parametrize("line", [b"a: b\r\n", b"name: " + b"b" * 9_000 + b"\r\n"], ids=["short lines", "long lines"])
@pytest.mark.parametrize(("size", "status"), [(HEAD_BYTES, b"200"), (HEAD_BYTES + 1, b"431"), (300_000, b"431")])
def test_a_head_beyond_64_kib_is_refused(port, size, status, line, piece_bytes):
    head = head_of(size, line)
    assert len(head) == size
    with connected(port) as client:
        for start in range(0, size, piece_bytes):
            client.sendall(head[start : start + piece_bytes])
        assert client.recv(12) == b"HTTP/1.1 " + status


ENDLESS = {
    "headers": (POST, b"a: b\r\n"),
    "a name": (POST, b"a"),
    "a value": (POST + b"a: ", b"b"),
    "a path": (b"GET /", b"a"),
    "blank lines": (b"", b"\r\n"),
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"a: b\r\n"),
    "an extension of a chunk": (CHUNKED + b"1;", b"a"),
}


@pytest.mark.parametrize(("start", "more"), ENDLESS.values(), ids=ENDLESS)
def test_a_client_that_goes_on_sending_reads_its_431_and_the_end(port, start, more):
    with connected(port) as client:
        client.sendall(start)
        for _ in range(20):
            client.sendall(more * (200_000 // len(more)))
        answer = read_to_the_end(client)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"have more than 65536 bytes, or 100 fields; shorten them" in answer


FIELD = b"a: b\r\n"


@pytest.mark.parametrize("piece_bytes", [2**20, 10], ids=["at once", "in pieces"])
@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n", CHUNKED + b"1\r\nx\r\n0\r\n"], ids=["headers", "trailers"])
@pytest.mark.parametrize(("count", "status"), [(HEAD_FIELDS, b"200"), (HEAD_FIELDS + 1, b"431")])
def test_more_than_a_hundred_headers_or_trailers_are_refused(port, count, status, start, piece_bytes):
    request = start + FIELD * count + b"\r\n"
    with connected(port) as client:
        for at in range(0, len(request), piece_bytes):
            client.sendall(request[at : at + piece_bytes])
        assert client.recv(12) == b"HTTP/1.1 " + status


def test_they_are_refused_before_their_end_and_not_kept(port):
    with connected(port) as client:
        client.sendall(GET[:-2] + FIELD * 9_000)
        assert client.recv(12) == b"HTTP/1.1 431"
        kept = [len(found.headers) for found in gc.get_objects() if type(found) is Connection]
    assert max(kept) <= HEAD_FIELDS


def test_nothing_that_follows_what_is_refused_is_answered(port):
    with connected(port) as client:
        client.sendall(GET[:-2] + FIELD * HEAD_FIELDS + b"\r\n" + GET * 9)
        client.shutdown(socket.SHUT_WR)
        assert read_to_the_end(client).count(b"HTTP/1.1 ") == 1


def test_trailers_are_not_taken_for_headers():
    with serving(names) as port, connected(port) as client:
        client.sendall(CHUNKED.replace(b"Host", b"Connection: close\r\nHost") + b"0\r\nAuthorization: x\r\n\r\n")
        assert read_to_the_end(client).endswith(b"\r\n\r\nconnection host transfer-encoding")


@pytest.mark.parametrize("chunk_bytes", [1, 100_000])
def test_bodies_arrive_whole(port, chunk_bytes):
    body = bytes(range(256)) * (chunk_bytes * 10 // 256 + 1000)
    chunks = [body[start : start + chunk_bytes] for start in range(0, len(body), chunk_bytes)]
    expected = hashlib.sha256(body).hexdigest().encode()
    with connected(port) as client:
        for request in (
            POST + b"Content-Length: %d\r\n\r\n" % len(body) + body,
            CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\na: b\r\n\r\n",
        ):
            client.sendall(request)
            assert read_answer(client).endswith(expected)


def test_requests_that_come_together_are_all_answered(port):
    count = 1 + WAITING_REQUESTS
    request = GET.replace(b"/", b"/" + b"0" * (3 * HEAD_BYTES // count), 1)
    with connected(port) as client:
        sender = threading.Thread(target=client.sendall, args=(request * count,))
        sender.start()
        for _ in range(count):
            assert read_answer(client).startswith(b"HTTP/1.1 200 ")
        sender.join()


def test_of_more_that_come_together_no_more_wait_than_are_bounded(port):
    with connected(port) as client:
        client.sendall(GET.replace(b"/", b"/0.5", 1) + GET * 5_000)
        time.sleep(0.2)  # the first is being answered
        waiting = [len(found.pipeline) for found in gc.get_objects() if type(found) is Connection]
        answers = read_to_the_end(client)
    assert max(waiting) == WAITING_REQUESTS
    assert answers.count(b"HTTP/1.1 200 ") == 1 + WAITING_REQUESTS
    assert b"connection: close" in answers[answers.rindex(b"HTTP/1.1") :]


SPOILT = {
    "a head that is too large": GET[:-2] + FIELD * 200,
    "what is not HTTP": b"\x00\r\n\r\n",
    "trailers that are too many": CHUNKED + b"1\r\nx\r\n0\r\n" + FIELD * 200,
}


@pytest.mark.parametrize("waiting", [0, 2])
@pytest.mark.parametrize("spoilt", SPOILT.values(), ids=SPOILT)
def test_what_is_refused_leaves_the_answers_to_requests_before_it_whole(port, spoilt, waiting):
    with connected(port) as client:
        client.sendall(GET.replace(b"/", b"/0.2", 1) + GET * waiting + spoilt)
        answers = read_to_the_end(client)
    assert answers.count(b"HTTP/1.1 ") == answers.count(b"HTTP/1.1 200 OK") == 1 + waiting
    assert answers.endswith(hashlib.sha256().hexdigest().encode())


@pytest.mark.parametrize("size", [1, HEAD_BYTES, 10 * HEAD_BYTES])
def test_what_is_not_http_is_refused_once(port, size):
    with connected(port) as client:
        client.sendall(b"\x00" * size)
        answer = read_to_the_end(client)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "malformed_http"


def test_what_is_refused_is_counted():
    refused = []
    with serving(count=refused.append) as port:
        for sent in (b"no HTTP\r\n\r\n", head_of(HEAD_BYTES + 1, b"a: b\r\n"), GET[:-2] + b"Connection: close\r\n\r\n"):
            with connected(port) as client:
                client.sendall(sent)
                read_to_the_end(client)
    assert [(error.status, error.code) for error in refused] == [(400, "malformed_http"), (431, "head_too_large")]


@pytest.mark.parametrize("behind", [b"", GET], ids=["alone", "with another behind it"])
def test_a_request_notices_that_its_client_left(behind):
    has_left = threading.Event()

    async def app(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass
        has_left.set()

    with serving(app) as port:
        with connected(port) as client:
            client.sendall(GET + behind)
            time.sleep(0.1)
        assert has_left.wait(10)


@pytest.mark.parametrize("sent", [b"", GET[:-2]], ids=["nothing", "half a head"])
def test_a_connection_whose_head_does_not_come_is_closed(port, monkeypatch, sent):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)
    with connected(port) as client:
        client.sendall(sent)
        assert read_to_the_end(client) == b""


@pytest.mark.parametrize("sent", [b"\r\n", GET[:-2]], ids=["a blank line", "half a head"])
def test_so_is_one_whose_next_head_has_begun_and_does_not_end(port, monkeypatch, sent):
    with connected(port) as client:
        client.sendall(GET)
        assert read_answer(client).startswith(b"HTTP/1.1 200 ")
        monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)
        client.sendall(sent)
        assert read_to_the_end(client) == b""


def test_a_connection_that_waits_for_a_next_request_is_closed_after_timeout_keep_alive():
    with serving(timeout_keep_alive=1) as port, connected(port) as client:
        for _ in range(2):
            client.sendall(GET)
            assert read_answer(client).startswith(b"HTTP/1.1 200 ")
        answered = time.monotonic()
        assert read_to_the_end(client) == b""
        assert time.monotonic() - answered < 4, "by default it would be five seconds"


def test_the_answer_to_a_head_that_has_come_may_take_longer(port, monkeypatch):
    """It is written by the loop that would have closed the connection before."""
    monkeypatch.setattr(connection, "HEAD_SECONDS", 2)
    with connected(port) as client:
        for path in (b"/2.5", b"/"):
            client.sendall(GET.replace(b"/", path, 1))
            assert read_answer(client).startswith(b"HTTP/1.1 200 ")
