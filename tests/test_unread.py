"""A client that reads nothing keeps neither its connection nor the server: uvicorn under ours, and real sockets."""

import socket
import time
from contextlib import contextmanager

import pytest
from connections import GET, answer, read_to_the_end, started

from fsr_serve.http import connection, unread

FEW, MANY = 40_000, 100_000
"""What the transport takes without a pause when the kernel takes nothing, and what makes it pause."""


async def zeros(scope, receive, send):
    """Answers with as many bytes as the path says."""
    await answer(send, bytes(int(scope["path"][1:])))


@contextmanager
def serving(**options):
    """A server whose sockets take next to nothing in the kernel."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with started(zeros, listening, **options) as server:
        yield server


@contextmanager
def asking(server, count, *lines, requests=1):
    """A client that has asked for so many bytes, and has read none; the server has had time to write."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(60)
        client.connect(("127.0.0.1", server.port))
        client.sendall(GET.replace(b"/", b"/%d" % count, 1).replace(b"Host", b"".join(lines) + b"Host") * requests)
        time.sleep(0.3)
        yield client


def is_closed(server, seconds=5):
    """Whether the server has no connection any more, some time in so many seconds."""
    end = time.monotonic() + seconds
    while server.server.server_state.connections and time.monotonic() < end:
        time.sleep(0.01)
    return not server.server.server_state.connections


def test_a_connection_whose_answers_are_not_read_is_closed(monkeypatch):
    monkeypatch.setattr(unread, "UNREAD_SECONDS", 1.0)
    with serving() as server, asking(server, MANY, requests=400):
        assert not is_closed(server, seconds=0.2)
        assert is_closed(server)


def test_one_whose_answers_are_read_late_is_not(monkeypatch):
    monkeypatch.setattr(unread, "UNREAD_SECONDS", 1.5)
    with serving() as server:
        for _ in range(2):
            with asking(server, MANY, b"Connection: close\r\n") as client:
                time.sleep(0.5)
                assert len(read_to_the_end(client).partition(b"\r\n\r\n")[2]) == MANY
        with asking(server, MANY, requests=3) as client:
            received = 0
            while received < 3 * MANY:
                received += len(client.recv(4096))
                time.sleep(0.01)  # longer than 1.5 seconds in all


def close_after_the_answer(server, monkeypatch):
    return asking(server, FEW, b"Connection: close\r\n")


def wait_for_the_next_request(server, monkeypatch):
    return asking(server, FEW)


@contextmanager
def begin_the_next_request(server, monkeypatch):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.5)
    with asking(server, FEW) as client:
        client.sendall(GET[:-2])
        yield


@contextmanager
def send_what_is_no_request(server, monkeypatch):
    with asking(server, FEW) as client:
        client.sendall(b"?\r\n\r\n")
        yield


@contextmanager
def end_the_server(server, monkeypatch):
    with asking(server, FEW):
        server.server.should_exit = True
        yield


@pytest.mark.parametrize(
    "close",
    [
        close_after_the_answer,
        wait_for_the_next_request,
        begin_the_next_request,
        send_what_is_no_request,
        end_the_server,
    ],
)
def test_closing_waits_for_its_client_only_for_a_while(monkeypatch, close):
    monkeypatch.setattr(unread, "CLOSE_SECONDS", 1.0)
    with serving(timeout_keep_alive=1) as server, close(server, monkeypatch):
        assert not is_closed(server, seconds=0.2), "or the kernel took everything, which would prove nothing"
        assert is_closed(server)


@pytest.mark.parametrize("bytes_each_time", [0, 50_000], ids=["reads nothing", "reads slowly"])
def test_the_server_ends_whatever_its_clients_read(monkeypatch, bytes_each_time):
    monkeypatch.setattr(unread, "CLOSE_SECONDS", 1.0)
    with serving() as server, asking(server, MANY, requests=400) as client:
        server.server.should_exit = True
        end = time.monotonic() + 6
        while server.thread.is_alive() and time.monotonic() < end:
            if bytes_each_time:
                client.recv(bytes_each_time)
            time.sleep(0.05)
        assert not server.thread.is_alive()
