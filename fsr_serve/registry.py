"""The versions of one model that a worker holds, and how the one that serves changes while requests go on."""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from fsr_serve.artifact import MODEL_FILE, find_model, read_version, versions_of
from fsr_serve.checks.checker import Checker
from fsr_serve.classifier import Classifier
from fsr_serve.errors import ArtifactError, FsrError, StateError
from fsr_serve.metrics import Metrics
from fsr_serve.session import open_session
from fsr_serve.settings import Settings
from fsr_serve.signature import verify_signature
from fsr_serve.wanted import Wanted, WantedFile
from fsr_serve.workers import Report, Worker

logger = logging.getLogger("fsr_serve")

WATCH_SECONDS = 0.1

RETRY_SECONDS = 1.0

LOAD_AGAIN_SECONDS = 60.0
"""After a load that failed: what was missing may be there by then."""


def open_classifier(path: Path, settings: Settings, metrics: Metrics) -> Classifier:
    """Verify a model version, open a session on it and warm it. Raises StartupError saying what is wrong."""
    version = read_version(path)
    if settings.require_signature is not None:
        verify_signature(version, settings.require_signature)
    session = open_session(
        version.path / MODEL_FILE,
        runtime=settings.runtime,
        device=settings.device,
        precision=settings.precision,
        threads=settings.session_threads,
    )
    checker = Checker.open(version, settings, metrics) if settings.checks else None
    classifier = Classifier(version, session, settings, metrics, checker)
    classifier.warm()
    return classifier


class Followed(NamedTuple):
    """What a worker follows: one value, so that nobody sees a change half done."""

    wanted: Wanted
    current: Classifier
    """Serves."""
    previous: Classifier | None
    """Served before, and is kept so that going back takes no time."""
    error: str | None = None
    """Why what is wanted does not serve."""

    @property
    def previous_number(self) -> int | None:
        """The version that a rollback goes to. A file written by hand names none: then the one that is still held."""
        if self.wanted.previous is None and self.previous is not None:
            return self.previous.version.version
        return self.wanted.previous


class Registry:
    """The version that serves and the one before it, which is kept so that going back takes no time.

    Starts with the version that is wanted, or else with the greatest there is; the workers of one server start with
    the same, also those that come back later. Raises StartupError when that cannot serve.
    """

    def __init__(self, settings: Settings, metrics: Metrics, worker: Worker) -> None:
        self._open: Callable[[Path], Classifier] = lambda path: open_classifier(path, settings, metrics)
        self.folder = find_model(settings.models, settings.model)
        self._worker = worker
        self._lock = threading.Lock()
        self.file = WantedFile(settings.state_folder, self.name)
        start_file = WantedFile(worker.folder / "start", self.name)
        start = start_file.read()
        asked = self.file.read()
        current = self._open_wanted(asked or start or Wanted(version=max(self.available())))
        self._candidate: Classifier | None = None
        self._unreadable = ""
        self._load_again_at = 0.0
        self._start = start or Wanted.exactly(current.version)
        self.followed = Followed(asked or self._start, current, None)
        self._before: Followed | None = None  # until no call can take the last change back any more
        if start is None:
            start_file.write(self._start)
        self._report()

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def current(self) -> Classifier:
        """What serves now."""
        return self.followed.current

    def available(self) -> list[int]:
        """Numbers of the versions on disk, rising; whether they are whole is not looked at."""
        return list(versions_of(self.folder))

    def prepare(self, number: int) -> Classifier:
        """Verify version `number` as it is on disk now; open and warm it unless it is held. Nothing serves it yet.

        Raises StartupError saying what is wrong with it.
        """
        with self._lock:
            on_disk = read_version(self._path(number))
            exact = Wanted.exactly(on_disk)
            self._candidate = self._find_held(exact) or self._open_wanted(exact)
            return self._candidate

    def forget_candidate(self) -> None:
        """Let go of what was prepared and does not serve."""
        with self._lock:
            self._candidate = None

    def follow(self) -> None:
        """Serve what is wanted, if that has changed, and report it. What serves goes on when that fails."""
        with self._lock:
            wanted = self._read()
            if wanted is None:
                return
            is_known = wanted == self.followed.wanted
            if is_known and self._before is not None and self._is_settled():
                self._before = None
            if is_known and (self.followed.error is None or monotonic() < self._load_again_at):
                return
            if self._before is not None and wanted == self._before.wanted:  # a call was given up
                followed, self._before = self._before, None
            else:
                found = self._found(wanted)
                if self._read() != wanted:
                    return  # given up while it was loaded; the next look follows what is wanted now
                if not is_known:
                    self._before = self.followed
                followed = found
            self._candidate = None
            served, self.followed = self.current, followed  # a request sees the one or the other, whole
            if served is not followed.current:
                number, before = followed.current.version.version, served.version.version
                logger.info("version %s of %s serves instead of %s", number, self.name, before)
            self._report()

    def _found(self, wanted: Wanted) -> Followed:
        """What serves once `wanted` is followed: that, or what served before and the reason."""
        now = self.followed
        self._load_again_at = monotonic() + LOAD_AGAIN_SECONDS
        try:
            found = self._find_held(wanted) or self._open_wanted(wanted)
        except FsrError as error:
            logger.error("version %s is wanted and does not serve: %s", wanted.version, error)
            return now._replace(wanted=wanted, error=str(error))
        except Exception:
            logger.exception("version %s is wanted and does not serve", wanted.version)
            reason = f"version {wanted.version} cannot be loaded; the log of the server has the details"
            return now._replace(wanted=wanted, error=reason)
        return Followed(wanted, found, now.previous if found is now.current else now.current)

    def follow_always(self) -> threading.Event:
        """In a thread of its own, until the process ends or the event that is returned is set."""
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(WATCH_SECONDS):
                try:
                    self.follow()
                except Exception:  # such as no file descriptors being left
                    logger.exception("what is wanted cannot be looked at; trying again")
                    stop.wait(RETRY_SECONDS)

        threading.Thread(target=watch, name="follow", daemon=True).start()
        return stop

    def _read(self) -> Wanted | None:
        """What is wanted now; None where the file cannot be read."""
        try:
            wanted = self.file.read() or self._start
        except StateError as error:
            if str(error) != self._unreadable:  # said once, not ten times a second
                logger.error("%s", error)
            self._unreadable = str(error)
            return None
        self._unreadable = ""
        return wanted

    def _is_settled(self) -> bool:
        """Whether every worker serves what this one follows: the call that asked for it has succeeded."""
        reports = self._worker.reports().values()
        return all(report and report.wanted == self.followed.wanted and report.error is None for report in reports)

    def _held(self) -> list[Classifier]:
        held = (self.followed.current, self.followed.previous, self._candidate)
        return [one for one in held if one is not None]

    def _find_held(self, wanted: Wanted) -> Classifier | None:
        return next((held for held in self._held() if wanted.is_met_by(held.version)), None)

    def _open_wanted(self, wanted: Wanted) -> Classifier:
        found = self._open(self._path(wanted.version))
        if not wanted.allows(found.version):
            raise ArtifactError(
                f"{found.version.path} has a manifest of SHA-256 {found.version.sha256}; the version that is wanted "
                f"has {wanted.sha256} and answers otherwise: it was replaced. Restore it, load another one, or remove "
                f"{self.file.path}, if it is there, and start the server again"
            )
        if not wanted.is_met_by(found.version):
            logger.warning(
                "the manifest of %s was changed since the version was loaded; it answers alike", found.version.path
            )
        return found

    def _path(self, number: int) -> Path:
        folders = versions_of(self.folder)
        if number not in folders:
            raise ArtifactError(
                f"there is no version {number} in {self.folder}; expected one of {', '.join(map(str, folders))}. "
                f"Put it there, or change {self.file.path}, which asks for it"
            )
        return folders[number]

    def _report(self) -> None:
        serving = self.current
        report = Report(
            pid=os.getpid(),
            model=self.name,
            version=serving.version.version,
            sha256=serving.version.sha256,
            **serving.engine,
            wanted=self.followed.wanted,
            error=self.followed.error,
        )
        self._worker.report(report)
