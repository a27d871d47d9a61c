"""Real servers for tests, and a client that is no Python."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent


def environment(models, home, **settings):
    plain = {name: value for name, value in os.environ.items() if not name.startswith("FSR_")}
    plain.pop("PROMETHEUS_MULTIPROC_DIR", None)
    return {
        **plain,
        "FSR_MODELS": str(models),
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "1",
        "FSR_DRAIN_SECONDS": "0",
        **settings,
    }


@contextmanager
def serving(models, home, log, **settings):
    """Base address of a server that is ready; its output goes to `log`."""
    with running(models, home, log, **settings) as (address, _):
        yield address


@contextmanager
def running(models, home, log, **settings):
    """Base address and process of a server that is ready."""
    command = [sys.executable, "-m", "bentoml", "serve"]
    with started(command, ROOT, environment(models, home, **settings), log) as (address, process):
        yield address, process


@contextmanager
def started(command, folder, environment, log):
    """Base address and process of a server that `command` starts in `folder`, when it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port)], cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while not _is_ready(address):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield address, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def _is_ready(address):
    try:
        return httpx.get(f"{address}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def curl(*arguments):
    return subprocess.run(["curl", "-sS", "-m", "60", *arguments], capture_output=True, check=True).stdout
