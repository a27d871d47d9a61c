"""Changing the version that serves, in every worker or in none."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from fsr_serve.artifact import ModelVersion
from fsr_serve.errors import RequestError, StartupError, StateError
from fsr_serve.registry import Registry
from fsr_serve.schemas import LoadedModel, ModelState, WorkerState
from fsr_serve.wanted import Wanted
from fsr_serve.workers import Worker

FOLLOW_SECONDS = 60.0
"""How long the workers may take to load a version that one of them has already loaded."""

POLL_SECONDS = 0.05


class ModelControl:
    """What the admin API does, in the worker that it happens to reach. Calls take seconds: make them in a thread."""

    def __init__(self, registry: Registry, worker: Worker) -> None:
        self._registry = registry
        self._worker = worker

    def state(self) -> ModelState:
        """What serves, what could, and what each worker says of itself."""
        followed = self._registry.followed
        serving = followed.current.version
        workers: list[WorkerState] = [
            {
                "worker": number,
                "version": None if report is None else report.version,
                "error": None if report is None else report.error,
            }
            for number, report in sorted(self._worker.reports().items())
        ]
        return {
            "name": self._registry.name,
            "version": serving.version,
            "sha256": serving.sha256,
            "previous": followed.previous_number,
            "available": self._registry.available(),
            "workers": workers,
        }

    def load(self, name: str, number: int | None) -> LoadedModel:
        """Serve version `number`, by default the greatest there is, in every worker.

        Raises RequestError, and changes nothing: 404 `unknown_model` or `unknown_version`, 409 `busy` or
        `bad_version`, 503 `state_unwritable`, 504 `workers_did_not_follow`.
        """
        self._check_name(name)
        with self._only_call():
            return self._load(number)

    def rollback(self, name: str) -> LoadedModel:
        """Serve the version before this one again, in every worker; a second call comes back. Raises as `load`."""
        self._check_name(name)
        with self._only_call():
            followed = self._registry.followed
            now, previous = followed.current.version, followed.previous_number
            if previous is None:
                raise RequestError(
                    409, "no_previous", f"version {now.version} of {name!r} is the first that was served; load another"
                )
            held = followed.previous
            if held is not None and held.version.version == previous:
                return self._ask(held.version, now.version)
            return self._load(previous)

    def _check_name(self, name: str) -> None:
        if name != self._registry.name:
            raise RequestError(
                404, "unknown_model", f"there is no model {name[:100]!r}; expected {self._registry.name!r}"
            )

    @contextmanager
    def _only_call(self) -> Iterator[None]:
        descriptor = os.open(self._worker.folder / "control.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RequestError(409, "busy", "another call is changing the version; wait for its end") from error
            try:
                yield
            except StateError as error:
                raise RequestError(503, "state_unwritable", str(error)) from error
        finally:
            os.close(descriptor)

    def _find(self, number: int | None) -> int:
        """`number` where that version is on disk, the greatest there is when None."""
        name, available = self._registry.name, self._registry.available()
        if not available:
            raise RequestError(
                404, "unknown_version", f"{self._registry.folder} holds no version of {name!r}; put one there"
            )
        if number is None:
            return max(available)
        if number not in available:
            raise RequestError(
                404,
                "unknown_version",
                f"there is no version {number} of {name!r}; expected one of {', '.join(map(str, available))}",
            )
        return number

    def _load(self, number: int | None) -> LoadedModel:
        chosen = self._find(number)
        followed = self._registry.followed
        now = followed.current.version
        try:
            found = self._registry.prepare(chosen).version
        except StartupError as error:
            raise RequestError(
                409, "bad_version", f"{error}. Version {now.version} serves on: nothing was changed"
            ) from error
        is_new = (found.version, found.sha256) != (now.version, now.sha256)
        try:
            return self._ask(found, now.version if is_new else followed.previous_number)
        finally:
            self._registry.forget_candidate()

    def _ask(self, version: ModelVersion, previous: int | None) -> LoadedModel:
        wanted = Wanted.exactly(version, previous, call=uuid4().hex)
        try:
            with self._registry.file.asking(wanted):
                workers = self._wait(wanted)
        except BaseException:
            self._registry.follow()
            raise
        return {
            "name": self._registry.name,
            "version": version.version,
            "sha256": version.sha256,
            "previous": previous,
            "workers": workers,
        }

    def _wait(self, wanted: Wanted) -> int:
        """The number of workers, when all of them serve what is wanted."""
        give_up = time.monotonic() + FOLLOW_SECONDS
        while True:
            self._registry.follow()
            reports = self._worker.reports()
            done = [report for report in reports.values() if report is not None and report.wanted == wanted]
            if errors := [report.error for report in done if report.error is not None]:
                raise RequestError(409, "bad_version", f"{errors[0]}. A worker refused it, so all go back")
            if len(done) == len(reports):
                return len(done)
            if self._registry.file.was_replaced(wanted):
                raise RequestError(
                    409, "busy", f"something else was asked for while version {wanted.version} was loaded; that stays"
                )
            if time.monotonic() > give_up:
                raise RequestError(
                    504,
                    "workers_did_not_follow",
                    f"{len(reports) - len(done)} of {len(reports)} workers did not load version {wanted.version} "
                    f"within {FOLLOW_SECONDS:.0f} seconds, so all go back",
                )
            time.sleep(POLL_SECONDS)
