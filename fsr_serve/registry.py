"""The versions of one model that a worker holds, and how the one that serves changes while requests go on."""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fsr_serve.artifact import MODEL_FILE, find_model, read_version, versions_of
from fsr_serve.checks.checker import Checker, CheckLimits
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


def open_classifier(path: Path, settings: Settings, metrics: Metrics) -> Classifier:
    """Verify a model version, open a session on it and warm it. Raises StartupError saying what is wrong."""
    version = read_version(path)
    if settings.require_signature is not None:
        verify_signature(version.path, settings.require_signature)
    session = open_session(
        version.path / MODEL_FILE,
        runtime=settings.runtime,
        device=settings.device,
        precision=settings.precision,
        threads=settings.session_threads,
    )
    checker = None
    if settings.checks:
        limits = CheckLimits(
            settings.checks, settings.false_alarm_rate, settings.check_share, settings.max_check_images
        )
        checker = Checker.open(version, limits, metrics, device=settings.device, threads=settings.session_threads)
    classifier = Classifier(version, session, settings, metrics, checker)
    classifier.warm()
    return classifier


class _Replaced(NamedTuple):
    """What was followed and kept before the last change, until no call can take that back any more."""

    wanted: Wanted
    previous: Classifier | None


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
        self.current = self._load(asked or start or Wanted(version=max(self.available())))
        self.previous: Classifier | None = None
        self._candidate: Classifier | None = None
        self._replaced: _Replaced | None = None
        self._unreadable = ""
        self._start = start or Wanted.exactly(self.current.version)
        self._followed = asked or self._start
        if start is None:
            start_file.write(self._start)
        self._report()

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def previous_number(self) -> int | None:
        """The version that a rollback goes to. A file written by hand names none: then the one that is still held."""
        if self._followed.previous is None and self.previous is not None:
            return self.previous.version.version
        return self._followed.previous

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
            self._candidate = self._find_held(exact) or self._load(exact)
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
            if wanted == self._followed:
                if self._replaced is not None and self._is_settled():
                    self._replaced = None
                return
            error_text = None
            try:
                found = self._find_held(wanted) or self._load(wanted)
                if self._read() != wanted:
                    return  # given up while it was loaded; the next look follows what is wanted now
                self._serve(found, wanted)
            except FsrError as error:
                error_text = str(error)
                logger.error("version %s is wanted and does not serve: %s", wanted.version, error)
            except Exception:
                error_text = f"version {wanted.version} cannot be loaded; the log of the server has the details"
                logger.exception("version %s is wanted and does not serve", wanted.version)
            self._followed = wanted
            self._report(error_text)

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
        return all(report and report.wanted == self._followed and report.error is None for report in reports)

    def _held(self) -> list[Classifier]:
        return [held for held in (self.current, self.previous, self._candidate) if held is not None]

    def _find_held(self, wanted: Wanted) -> Classifier | None:
        return next((held for held in self._held() if wanted.is_met_by(held.version)), None)

    def _load(self, wanted: Wanted) -> Classifier:
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

    def _serve(self, classifier: Classifier, wanted: Wanted) -> None:
        self._candidate = None
        if classifier is self.current:
            return
        if self._replaced is not None and self._replaced.wanted == wanted:  # a call was given up
            self.previous, self._replaced = self._replaced.previous, None
        else:
            self._replaced = _Replaced(self._followed, self.previous)
            self.previous = self.current
        before, self.current = self.current, classifier  # a request sees the one or the other, whole
        logger.info("version %s of %s serves instead of %s", wanted.version, self.name, before.version.version)

    def _report(self, error: str | None = None) -> None:
        serving = self.current
        report = Report(
            pid=os.getpid(),
            model=self.name,
            version=serving.version.version,
            sha256=serving.version.sha256,
            **serving.engine,
            wanted=self._followed,
            error=error,
        )
        self._worker.report(report)
