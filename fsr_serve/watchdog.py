"""Looks after a worker's session: a device that was lost, or a call that hangs, is lost for its whole process."""

import asyncio
import logging
import os
from collections.abc import Callable

from fsr_serve.errors import RequestError
from fsr_serve.server import Server

logger = logging.getLogger("fsr_serve")

LOOK_SECONDS = 5.0


def end_process() -> None:
    """At once: an orderly end would wait for the thread that a stalled session holds."""
    os._exit(1)


async def watch(server: Server, end: Callable[[], None] = end_process) -> None:
    """Count this worker as unready while its session stalls, fails or errs; `end` it when that lasts too long.

    The server then starts another worker, with a session of its own. Goes on until the task is cancelled.
    """
    limit = server.settings.unready_seconds
    clock = asyncio.get_running_loop().time
    ready_at = clock()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            await server.classifier.check()
        except RequestError as problem:
            server.metrics.unready.set(1)
            if limit and clock() - ready_at >= limit:
                logger.critical("not ready for %.0f seconds: %s; this worker ends", clock() - ready_at, problem)
                end()
        else:
            server.metrics.unready.set(0)
            ready_at = clock()
