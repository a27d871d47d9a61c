"""Offers to go on in another protocol, as `curl --http2` and Java's client make them, are passed over."""

import hashlib
import threading

import pytest
from connections import CHUNKED, GET, POST, connected, names, read_answer, read_to_the_end, serving

from fsr_serve.http.connection import HEAD_BYTES, WAITING_REQUESTS

OFFERS = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
    "websocket": b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "two": b"Upgrade: h2c, websocket\r\nUpgrade: other/1\r\nConnection: upgrade\r\n",
}
BODY = GET * 3  # would be taken for requests where it is not taken for a body
BODIES = {
    "of a known length": POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY,
    "in chunks": CHUNKED + b"%x\r\n%b\r\n0\r\nx: y\r\n\r\n" % (len(BODY), BODY),
    "none": GET,
}


def offering(request, offer):
    return request.replace(b"Host: x\r\n", b"Host: x\r\n" + offer, 1)


def digest_of(body):
    return hashlib.sha256(body).hexdigest().encode()


@pytest.fixture(scope="module")
def port():
    with serving() as port:
        yield port


def at_once(request):
    return [request]


def head_and_body(request):
    head, end, body = request.partition(b"\r\n\r\n")
    return [head + end, body]


def byte_by_byte(request):
    return [request[at : at + 1] for at in range(len(request))]


@pytest.mark.parametrize("cut", [at_once, head_and_body, byte_by_byte])
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_a_request_with_an_offer_keeps_its_body_and_its_connection(port, offer, body, cut):
    expected = digest_of(b"" if body == "none" else BODY)
    with connected(port) as client:
        for request in (offering(BODIES[body], offer), GET, offering(BODIES[body], offer)):
            for piece in cut(request):
                client.sendall(piece)
            answer = read_answer(client)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert answer.endswith(digest_of(b"") if request == GET else expected)


def test_offers_that_come_together_are_all_answered(port):
    request = offering(BODIES["of a known length"], OFFERS["h2c"])
    count = 1 + WAITING_REQUESTS
    with connected(port) as client:
        sender = threading.Thread(target=client.sendall, args=(request * count,))
        sender.start()
        for _ in range(count):
            assert read_answer(client).endswith(digest_of(BODY))
        sender.join()


def test_the_handler_sees_the_other_headers_and_close_still_closes():
    offer = OFFERS["h2c"].replace(b"Upgrade,", b"close, Upgrade,")
    with serving(names) as port, connected(port) as client:
        client.sendall(offering(BODIES["of a known length"], offer) + GET)
        assert read_to_the_end(client).endswith(b"\r\n\r\nhost connection http2-settings content-length")


@pytest.mark.parametrize(("size", "status"), [(HEAD_BYTES, b"200"), (HEAD_BYTES + 1, b"431")])
def test_a_head_with_an_offer_has_the_bounds_of_others(port, size, status):
    head = offering(GET, OFFERS["h2c"])
    with connected(port) as client:
        client.sendall(head[:-2] + b"a: ".ljust(size - len(head) - 2, b"b") + b"\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 " + status


@pytest.mark.parametrize("target", [b"x:443", b"/", b"http://x/"])
def test_connect_is_refused_and_what_follows_is_no_request(port, target):
    with connected(port) as client:
        client.sendall(b"CONNECT %b HTTP/1.1\r\nHost: x\r\n\r\n" % target + GET)
        answer = read_to_the_end(client)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
