"""Servers as processes: each with a port and a BENTOML_HOME of its own, and always stopped."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.serving.alternatives import PORT, Alternative, Answer
from benchmarks.serving.cores import Cores, pinned
from benchmarks.serving.errors import BenchmarkError
from benchmarks.serving.pictures import Body

ROOT = Path(__file__).parent.parent.parent
START_SECONDS = 120
STOP_SECONDS = 15
LAST_BATCH_SECONDS = 2
"""For the batch that runs when the load ends: stopped within it, a server would take it for one of a minute, and refuse
what comes next for its deadline."""
TOLERANCE = 1e-3
"""Of probabilities; batches of other sizes round differently."""


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    alternative: Alternative
    port: int
    process: subprocess.Popen[bytes]
    home: str
    """Its BENTOML_HOME, by which its processes are known."""

    def cpu_seconds(self) -> float:
        """User and system time of all its processes and threads so far."""
        seconds = 0.0
        for process in _family(self.home):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                seconds += times.user + times.system
        return seconds

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Running for as long as the block; before and after it is stopped, so that it takes no time from others."""
        self.signal(signal.SIGCONT)
        try:
            yield
        finally:
            time.sleep(LAST_BATCH_SECONDS)
            self.signal(signal.SIGSTOP)

    def signal(self, number: signal.Signals) -> None:
        """To each of its processes."""
        for process in _family(self.home):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def get(self, path: str) -> str:
        return _exchange(self.port, "GET", path)[1].decode()

    def ask(self, jpeg: bytes) -> Answer:
        """The answer to one picture. Raises BenchmarkError unless it is 200."""
        body = self.alternative.encode(jpeg)
        status, content = _exchange(self.port, "POST", self.alternative.path, body)
        if status != 200:
            raise BenchmarkError(f"{self.alternative.name} answers a picture with {status}: {content[:300]!r}")
        return json.loads(content)


@contextlib.contextmanager
def serving(alternatives: Sequence[Alternative], cores: Cores, jpeg: bytes) -> Iterator[list[Server]]:
    """All of them, started one after the other. Raises BenchmarkError for one that does not start."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(_started(alternative, cores, jpeg)) for alternative in alternatives]


@contextlib.contextmanager
def all_stopped(servers: Sequence[Server]) -> Iterator[None]:
    """None of them runs but the one that is `awake`."""
    for server in servers:
        server.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for server in servers:
            server.signal(signal.SIGCONT)


def check_answers(servers: Sequence[Server], jpegs: Sequence[bytes], tolerance: float = TOLERANCE) -> None:
    """Raise BenchmarkError unless all servers find the same probabilities of the same classes."""
    first, *others = servers
    for index, jpeg in enumerate(jpegs):
        expected = first.alternative.ranked(first.ask(jpeg))
        for other in others:
            found = other.alternative.ranked(other.ask(jpeg))
            if not _are_equal(expected, found, tolerance):
                raise BenchmarkError(
                    f"{first.alternative.name} and {other.alternative.name} answer picture {index} differently: "
                    f"{expected[:2]} and {found[:2]}. What answers differently cannot be compared"
                )


def _are_equal(one: list[dict], other: list[dict], tolerance: float) -> bool:
    """The same probabilities in order, and the same of each class; equally likely ones may change places."""
    classes = {entry["label"]: entry["probability"] for entry in one}
    pairs = zip(one, other, strict=True) if len(one) == len(other) else [(one[0], {"probability": -1.0, "label": ""})]
    return all(
        abs(mine["probability"] - theirs["probability"]) <= tolerance
        and abs(classes.get(theirs["label"], theirs["probability"]) - theirs["probability"]) <= tolerance
        for mine, theirs in pairs
    )


@contextlib.contextmanager
def _started(alternative: Alternative, cores: Cores, jpeg: bytes) -> Iterator[Server]:
    port = _free_port()
    command = pinned([part.replace(PORT, str(port)) for part in alternative.command], cores.server)
    with tempfile.TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True) as home:
        log = Path(home) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=_environment(alternative, home),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the benchmark, which then stops its servers
            )
        try:
            server = Server(alternative, port, process, home)
            _wait_until_ready(server, jpeg, log)
            yield server
        finally:
            _stop(process, home)


def _environment(alternative: Alternative, home: str) -> dict[str, str]:
    dropped = ("FSR_", "PROMETHEUS_MULTIPROC_DIR", "BENTOML_")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return {**plain, "BENTOML_HOME": home, "BENTOML_DO_NOT_TRACK": "1", **alternative.environment}


def _wait_until_ready(server: Server, jpeg: bytes, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _is_ready(server, jpeg):
        ended = server.process.poll()
        if ended is not None or time.monotonic() > deadline:
            why = f"ended with status {ended}" if ended is not None else f"is not ready after {START_SECONDS} seconds"
            lines = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
            raise BenchmarkError(f"{server.alternative.name} {why}. Its log ends with:\n{lines}")
        time.sleep(0.1)


def _is_ready(server: Server, jpeg: bytes) -> bool:
    try:
        if server.alternative.ready_path is None:
            server.ask(jpeg)
            return True
        return _exchange(server.port, "GET", server.alternative.ready_path)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def _stop(process: subprocess.Popen[bytes], home: str) -> None:
    """SIGTERM to the parent, which stops its workers; what is left after STOP_SECONDS is killed."""
    family = _family(home)
    process.send_signal(signal.SIGTERM)
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.send_signal(signal.SIGCONT)
    psutil.wait_procs(family, timeout=STOP_SECONDS)
    for one in _family(home):
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()


def _family(home: str) -> list[psutil.Process]:
    """All processes of a server, also those whose parent has ended: they have inherited its BENTOML_HOME."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("BENTOML_HOME") == home:
                found.append(process)
    return found


def _exchange(port: int, method: str, path: str, body: Body | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body.content if body else None, body.headers if body else {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]
