"""The BentoML service: the only file that imports bentoml."""

import asyncio
import gc
import logging
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import bentoml
from uvicorn.config import HTTP_PROTOCOLS

from fsr_serve.errors import RequestError, SettingsError
from fsr_serve.http.app import BENTOML_ROUTE, OwnRoutesFirst, create_app
from fsr_serve.http.classify import DEFAULT_TOP_K
from fsr_serve.http.connection import Connection
from fsr_serve.metrics import Stages
from fsr_serve.requester import Requester
from fsr_serve.schemas import Prediction
from fsr_serve.server import Server
from fsr_serve.settings import FILE_VARIABLE, load_settings
from fsr_serve.shared_metrics import share_metrics
from fsr_serve.watchdog import watch
from fsr_serve.workers import FOLDER_VARIABLE, Worker, make_folder

logger = logging.getLogger("fsr_serve")

FOLDER = os.getcwd()
"""Where the workers will run: BentoML is in a bento's `src` while it imports this file, and leaves it afterwards."""

IN_PROCESS = Requester("of this process", None)


def _workers() -> int:
    """BentoML wants the number of workers when this file is imported."""
    try:
        return load_settings().workers
    except SettingsError as error:
        sys.exit(f"fsr-serve cannot start: {error}")


def _keep_settings(folder: Path) -> None:
    """Let all workers read a copy of the settings file: one started later must not differ from the others."""
    path = os.environ.get(FILE_VARIABLE)
    if path is None:
        return
    try:
        os.environ[FILE_VARIABLE] = str(shutil.copyfile(Path(FOLDER, path), folder / "settings.toml"))
    except OSError as error:
        sys.exit(
            f"fsr-serve cannot start: {FILE_VARIABLE} is {path!r}, which cannot be copied to {folder} "
            f"({error.strerror}); free room there, or name another folder with TMPDIR"
        )


@bentoml.service(
    name="fsr-serve",
    workers=_workers(),
    http={"host": "127.0.0.1", "port": 3000},
    metrics={"enabled": False},  # BentoML labels them with raw paths, without bound
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": "."},  # every one: its instruments keep raw paths for good, 5 kB for each
)
class FsrServe:
    """Classifies images with the greatest verified version of a model."""

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    def check() -> None:
        """Once, before any worker starts: a start in a process of its own, so that a bad one ends the server."""
        os.environ.pop("BENTOML_CONTAINERIZED", None)  # with it BentoML does not start a worker again that died
        folder = make_folder()
        os.environ[FOLDER_VARIABLE] = str(folder)  # the workers inherit it
        _keep_settings(folder)
        trial = subprocess.run([sys.executable, "-m", "fsr_serve.server"], cwd=FOLDER, check=False)
        if trial.returncode != 0:
            sys.exit(trial.returncode)

    def __init__(self) -> None:
        gc.collect()
        gc.freeze()  # modules live as long as the process; collections need not look at them again and again
        gc.collect()  # else the next whole one would wait until there is a quarter as much as was frozen
        # as talkative as BentoML's own logger; the root's level would hide who changed the version
        logging.getLogger("fsr_serve").setLevel(logging.getLogger("bentoml").level)
        worker = Worker.join()
        scraped = share_metrics(worker) if FOLDER_VARIABLE in os.environ else None
        self.server = Server.start(load_settings(), worker, scraped)
        self._one_call = threading.Lock()

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    def begin(self) -> None:
        """In each worker, when the web server's own handler of SIGTERM is in place."""
        server = self.server
        logger.info("%s", server.summary)
        server.lifecycle.drain_on_sigterm(server.settings.drain_seconds)
        server.registry.follow_always()
        self._watching = asyncio.get_running_loop().create_task(watch(server))

    @bentoml.api(route=BENTOML_ROUTE)  # type: ignore[untyped-decorator]
    def classify(self, image: bytes, /) -> dict[str, Any]:
        """Classify one image file.

        Over HTTP `fsr_serve.http` answers this route too: it bounds what it reads and never answers bad input with
        a 500, where BentoML's own parsing does. This method describes it to clients and serves calls in process.
        """
        classifier = self.server.classifier
        stages = Stages(self.server.metrics)
        top_k = min(DEFAULT_TOP_K, len(classifier.classes))

        async def answer() -> list[Prediction | RequestError]:
            deadline = asyncio.get_running_loop().time() + self.server.settings.request_timeout_ms / 1000
            return await classifier.classify([image], top_k, stages, deadline, IN_PROCESS)

        with self._one_call:  # the queue belongs to one event loop at a time
            (result,) = asyncio.run(answer())
        if isinstance(result, RequestError):
            raise result
        return {"model": classifier.identity, "predictions": [result], "seconds": stages.seconds}


class _OwnRoutesOutermost(bentoml.Service[Any]):  # type: ignore[misc]
    """Answers our routes before BentoML's middleware, which costs each request a task and a timer of two minutes."""

    __slots__ = ()

    def to_asgi(self, is_main: bool = True) -> Any:
        current_service = bentoml.get_current_service  # bentoml finds its names anew at each use

        def server() -> Server:
            return current_service().server  # type: ignore[no-any-return]

        # the worker starts uvicorn next, and has no option for its connections
        HTTP_PROTOCOLS["auto"] = partial(Connection, count=lambda error: server().metrics.count_refusal(error))  # type: ignore[assignment]
        return OwnRoutesFirst(super().to_asgi(is_main=is_main), create_app(server))


FsrServe.__class__ = _OwnRoutesOutermost  # type: ignore[method-assign]
