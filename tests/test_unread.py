"""A client that reads nothing keeps neither its connection nor the server: uvicorn under ours, and real sockets."""

import asyncio
import contextlib
import socket
import time
from contextlib import contextmanager

import pytest
from connections import GET, answer, read_to_the_end, started

from fsr_serve.http import unread

FEW, MANY = b"40000", b"100000"
"""More bytes than the kernel takes, and more than the transport takes too, unless told otherwise."""


async def zeros(scope, receive, send):
    """Answers with as many bytes as the path says, after as many seconds as the query says."""
    await asyncio.sleep(float(scope["query_string"] or 0))
    await answer(send, bytes(int(scope["path"][1:])))


@contextmanager
def serving(app=zeros, **options):
    """A server whose sockets take next to nothing in the kernel."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with started(app, listening, **options) as server:
        yield server


@contextmanager
def asking(server, path, *lines, requests=1, receive_bytes=4096):
    """A client that has asked for this, and has read nothing; the server has had time to write."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        client.settimeout(60)
        client.connect(("127.0.0.1", server.port))
        client.sendall(GET.replace(b"/", b"/%b" % path, 1).replace(b"Host", b"".join(lines) + b"Host") * requests)
        time.sleep(0.3)
        yield client


def read(client, count):
    while count > 0:
        piece = client.recv(min(4096, count))
        assert piece, "closed"
        count -= len(piece)


def is_closed(server, seconds=5):
    """Whether the server has no connection any more, some time in so many seconds."""
    end = time.monotonic() + seconds
    while server.server.server_state.connections and time.monotonic() < end:
        time.sleep(0.01)
    return not server.server.server_state.connections


@pytest.mark.parametrize("lines", [[], [b"Connection: close\r\n"]], ids=["kept alive", "closing"])
@pytest.mark.parametrize(("path", "requests"), [(FEW, 1), (MANY, 1), (MANY, 400)])
def test_a_connection_whose_answers_are_not_read_is_closed(monkeypatch, path, requests, lines):
    monkeypatch.setattr(unread, "UNREAD_SECONDS", 1.0)
    with serving(timeout_keep_alive=1) as server, asking(server, path, *lines, requests=requests):
        assert not is_closed(server, seconds=0.2), "or the kernel took everything, which would prove nothing"
        assert is_closed(server)


def test_one_whose_answers_are_read_late_is_not(monkeypatch):
    monkeypatch.setattr(unread, "UNREAD_SECONDS", 1.5)
    with serving() as server:
        with asking(server, MANY, requests=4, receive_bytes=16_384) as client:
            for _ in range(4):
                time.sleep(0.7)
                read(client, int(MANY))
        with asking(server, MANY, b"Connection: close\r\n", receive_bytes=16_384) as client:
            time.sleep(0.7)
            assert len(read_to_the_end(client).partition(b"\r\n\r\n")[2]) == int(MANY)


@pytest.mark.parametrize("bytes_each_time", [0, 50_000], ids=["reads nothing", "reads slowly"])
@pytest.mark.parametrize(("path", "requests"), [(FEW, 1), (MANY, 400), (MANY + b"?0.6", 1)])
def test_the_server_ends_whatever_its_clients_read(monkeypatch, path, requests, bytes_each_time):
    monkeypatch.setattr(unread, "LAST_SECONDS", 1.0)
    with serving() as server, asking(server, path, requests=requests) as client:
        server.server.should_exit = True
        end = time.monotonic() + 6
        while server.thread.is_alive() and time.monotonic() < end:
            with contextlib.suppress(ConnectionResetError):
                client.recv(bytes_each_time)
            time.sleep(0.05)
        assert not server.thread.is_alive()


def test_an_answer_that_is_under_way_when_its_connection_ends_raises_nothing():
    ends = []

    async def recorded(scope, receive, send):
        try:
            ends.append(await zeros(scope, receive, send))
        except Exception as error:
            ends.append(error)

    with serving(recorded) as server, asking(server, MANY, requests=3):
        pass
    assert ends == [None, None], "one is written, one waits, and one has not begun"
