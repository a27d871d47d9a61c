"""uvicorn under our connection, and real sockets."""

import asyncio
import hashlib
import socket
import threading
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import uvicorn

from fsr_serve.http.connection import Connection

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


async def digest(scope, receive, send):
    """Answers with the SHA-256 of the body, after as many seconds as the path says."""
    sha256 = hashlib.sha256()
    more = True
    while more:
        message = await receive()
        sha256.update(message.get("body", b""))
        more = message.get("more_body", False)
    await asyncio.sleep(float(scope["path"][1:] or 0))
    await answer(send, sha256.hexdigest().encode())


async def names(scope, receive, send):
    """Answers with the names of the headers, when it has read the body."""
    while (await receive()).get("more_body"):
        pass
    await answer(send, b" ".join(name for name, _ in scope["headers"]))


async def answer(send, body):
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Started(NamedTuple):
    port: int
    server: uvicorn.Server
    thread: threading.Thread


@contextmanager
def started(app, listening=None, count=lambda error: None, **options):
    """A server of this app with these options of uvicorn; `count` is told of what the connection refuses."""
    connection = partial(Connection, count=count)
    config = uvicorn.Config(app, http=connection, lifespan="off", log_level="critical", **options)
    server = uvicorn.Server(config)
    with listening or socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Started(listening.getsockname()[1], server, thread)
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def serving(app=digest, **options):
    """The port of such a server."""
    with started(app, **options) as server:
        yield server.port


@contextmanager
def connected(port):
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        yield client


def read_to_the_end(client):
    return b"".join(iter(lambda: client.recv(65536), b""))


def read_answer(client):
    """One answer of `digest`, without what follows it."""
    read = b""
    while not read.partition(b"\r\n\r\n")[2][63:]:
        read += client.recv(1)
    return read
