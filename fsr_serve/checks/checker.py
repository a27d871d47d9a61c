"""The checks of one worker: beside the answers, in a thread of their own, and never more than it can do."""

import asyncio
import logging
import math
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from time import perf_counter

import numpy as np

from fsr_serve.artifact import CHECKS_FILE, ModelVersion
from fsr_serve.batch_time import BatchTime
from fsr_serve.batcher import EXPECTED_SHARE
from fsr_serve.checks.alarms import Alarms
from fsr_serve.checks.calibration import CHECKS, Calibration, CheckName
from fsr_serve.checks.history import QueryHistory
from fsr_serve.checks.signals import NEEDS, Heads, Observer
from fsr_serve.errors import ArtifactError, RejectedError
from fsr_serve.metrics import Metrics
from fsr_serve.preprocessing import Images, to_floats
from fsr_serve.ranking import likeliest
from fsr_serve.requester import Requester
from fsr_serve.schemas import CheckResult, ClassProbability, Evidence, FsrEvidence
from fsr_serve.settings import Settings

logger = logging.getLogger("fsr_serve")

AT_A_TIME = 8
"""Images between two looks at whether anybody still waits."""

Results = dict[str, CheckResult]
"""Of one image, by check."""
Looked = tuple[Results, FsrEvidence]
"""What the checks but `history` say of one image."""


class Checker:
    """The checks of a version. All methods but `open` and `warm` belong to the event loop.

    `history` sees every image, in a thread of its own; the others those that are asked about or watched.
    """

    def __init__(
        self,
        observer: Observer | None,
        calibration: Calibration,
        classes: tuple[str, ...],
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        """`observer`: the graphs; none where `history` is the only check."""
        self._observer = observer
        self._calibration = calibration
        self._classes = classes
        self._settings = settings
        self._metrics = metrics
        self._threshold = _threshold(settings)
        self._history = (
            QueryHistory(calibration.reach, calibration.remembered) if "history" in settings.checks else None
        )
        self._of_graphs: list[CheckName] = [name for name in settings.checks if name != "history"]
        self._queued = 0
        self._check_time = BatchTime()
        self._thread = ThreadPoolExecutor(1, "checks")
        self._history_thread = ThreadPoolExecutor(1, "history")
        self._alarms = Alarms()
        self._unasked: set[asyncio.Task[None]] = set()

    @classmethod
    def open(cls, version: ModelVersion, settings: Settings, metrics: Metrics) -> "Checker":
        """Raises ArtifactError for a version that was not calibrated for these checks, or on too few images."""
        checks = settings.checks
        if CHECKS_FILE not in version.manifest.files:
            raise ArtifactError(
                f"FSR_CHECKS is {','.join(checks)} but {version.path} was never calibrated for checks. "
                f"Do it with: python -m export.checks {version.path} --data ..."
            )
        calibration = Calibration.read(version.path / CHECKS_FILE)
        if missing := [name for name in checks if name not in calibration.checks]:
            raise ArtifactError(
                f"FSR_CHECKS names {', '.join(missing)}, for which {version.path} has no graph or no calibration; "
                f"expected some of {', '.join(calibration.checks)}"
            )
        if _threshold(settings) < calibration.least_p_value:
            raise ArtifactError(
                f"FSR_FALSE_ALARM_RATE is {settings.false_alarm_rate:g} for {len(checks)} checks, at which none "
                f"could ever find anything: {version.path} was calibrated on {calibration.n} images. Expected at least "
                f"{calibration.least_rate(len(checks)):g}, fewer checks, or a calibration on more images"
            )
        signals = {signal for name in checks for signal in CHECKS[name]} & NEEDS.keys()
        threads = settings.session_threads
        observer = Observer(version, signals, device=settings.device, threads=threads) if signals else None
        return cls(observer, calibration, version.manifest.classes, settings, metrics)

    def warm(self, height: int, width: int) -> None:
        """Run the graphs once, before the first request. Raises ArtifactError when they cannot run."""
        if self._observer is None:
            return
        try:
            self._observer.observe(np.zeros((1, 3, height, width), np.float32))
        except Exception as error:  # onnxruntime raises its own kinds, none of them public
            raise ArtifactError(f"the graphs of the checks cannot run: {error}") from error

    @contextmanager
    def room(self, count: int, deadline: float) -> Iterator[None]:
        """Keep room for `count` images among those that wait to be checked.

        `deadline` is a time of the running loop. Raises RejectedError 429 `checks_busy` where there is no room, or
        where their turn is expected to end too late.
        """
        if self._queued + count > self._settings.max_check_images:
            raise self._busy(f"at most {self._settings.max_check_images} may, with these {count}")
        remaining = deadline - asyncio.get_running_loop().time()
        seconds = self._check_time.predict(self._queued + count, AT_A_TIME)
        if self._queued and seconds > EXPECTED_SHARE * remaining:  # idle checks always try, or no estimate would mend
            raise self._busy(
                f"with these {count} they would take about {seconds:.3f} seconds, more than {EXPECTED_SHARE:.0%} of "
                f"the {remaining:.3f} to the deadline"
            )
        self._queued += count
        try:
            yield
        finally:
            self._queued -= count

    def _busy(self, reason: str) -> RejectedError:
        seconds = self._check_time.predict(self._queued, AT_A_TIME)
        return RejectedError(
            429,
            "checks_busy",
            f"{self._queued} images wait to be checked; {reason}. Come back later, or ask without evidence",
            retry_after_seconds=max(1, math.ceil(seconds)),
        )

    @property
    def has_history(self) -> bool:
        return self._history is not None

    async def remember(self, images: Images, requester: Requester) -> list[Results]:
        """What the history says of each of the images (n, 3, h, w), which are part of it from now on."""
        assert self._history is not None
        loop = asyncio.get_running_loop()
        counts = await loop.run_in_executor(self._history_thread, self._history.count, images)
        return self._results({"history": self._calibration.p_values("history", {"similar": counts})}, requester)

    async def check(
        self, images: Images, remembered: Sequence[Results], deadline: float, requester: Requester
    ) -> list[Evidence]:
        """The evidence on each of the images (n, 3, h, w), uint8 or float32 in [0, 1], and what is `remembered` of it.

        There must be `room` for them. `deadline` is a time of the running loop. Raises RejectedError 504
        `deadline_exceeded`.
        """
        observed = await self._check_in_thread(images, deadline, requester)
        return [self._evidence(*one, results) for one, results in zip(observed, remembered, strict=True)]

    def watch(self, images: Images, deadline: float, requester: Requester) -> None:
        """Check a share of what nobody asked about, for the metrics alone, while nothing else is checked."""
        if self._observer is None or random.getrandbits(32) >= self._settings.check_share * 2**32:
            return
        if self._queued or self._unasked:
            self._metrics.unchecked.inc(len(images))
            return
        own = images.copy()  # they may be part of a body, which would live as long
        task = asyncio.get_running_loop().create_task(self._watch(own, deadline, requester))
        self._unasked.add(task)
        task.add_done_callback(self._unasked.discard)

    async def _watch(self, images: Images, deadline: float, requester: Requester) -> None:
        found: list[Looked] = []
        try:
            found = await self._check_in_thread(images, deadline, requester, lambda: self._queued > 0)
        except RejectedError:
            pass
        except Exception:  # the answer was given long ago
            logger.exception("the checks failed")
        self._metrics.unchecked.inc(len(images) - len(found))

    async def _check_in_thread(
        self, images: Images, deadline: float, requester: Requester, gives_way: Callable[[], bool] = lambda: False
    ) -> list[Looked]:
        """What was looked at before the deadline, or until it `gives_way`."""
        if self._observer is None:
            return [({}, {}) for _ in images]
        given_up = threading.Event()
        look = partial(self._check, self._observer, images, requester, lambda: given_up.is_set() or gives_way())
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.get_running_loop().run_in_executor(self._thread, look)
        except TimeoutError as error:
            message = "the deadline passed before the images were checked"
            raise RejectedError(504, "deadline_exceeded", message) from error
        finally:
            given_up.set()

    def _check(
        self, observer: Observer, images: Images, requester: Requester, is_given_up: Callable[[], bool]
    ) -> list[Looked]:
        found: list[Looked] = []
        for first in range(0, len(images), AT_A_TIME):
            if is_given_up():
                break
            started = perf_counter()
            some = images[first : first + AT_A_TIME]
            observed = observer.observe(to_floats([some], len(some)))
            p_values = {name: self._calibration.p_values(name, observed.signals) for name in self._of_graphs}
            parts = [self._parts(observed.heads, index) for index in range(len(some))]
            found += zip(self._results(p_values, requester), parts, strict=True)
            seconds = perf_counter() - started
            self._check_time.observe(len(some), seconds)
            self._metrics.check_duration.observe(seconds)
        return found

    def _evidence(self, results: Results, parts: FsrEvidence, remembered: Results) -> Evidence:
        checks = results | remembered
        return {
            "is_suspicious": any(result["is_suspicious"] for result in checks.values()),
            "false_alarm_rate": self._settings.false_alarm_rate,
            "checks": checks,
            **parts,
        }

    def _results(self, p_values: Mapping[CheckName, np.ndarray], requester: Requester) -> list[Results]:
        """The verdicts on images with these p-values (n,) of some checks."""
        rows: list[Results] = [{} for _ in next(iter(p_values.values()))]
        for name, values in p_values.items():
            for row, p_value in zip(rows, values.tolist(), strict=True):
                row[name] = {"p_value": p_value, "is_suspicious": p_value <= self._threshold}
                self._metrics.p_value(name).observe(p_value)
                self._metrics.suspicious(name).inc(p_value <= self._threshold)
        for row in rows:
            if suspicious := [name for name, result in row.items() if result["is_suspicious"]]:
                self._alarms.add(requester, suspicious)
        return rows

    def _parts(self, heads: Heads | None, index: int) -> FsrEvidence:
        """What FSR makes of an image: the mass of the mask, and what the auxiliary head says of each feature."""
        if heads is None:
            return {}
        found: dict[str, ClassProbability] = {}
        for name in ("robust", "nonrobust", "recalibrated"):
            ((number, probability),) = likeliest(getattr(heads, name)[index], 1)
            found[name] = {"label": self._classes[number], "class_index": number, "probability": probability}
        return {"mask_mass": float(heads.mask_mass[index]), "heads": found}


def _threshold(settings: Settings) -> float:
    """Of each check's p-value. Bonferroni: together the checks raise no more false alarms than one may."""
    return settings.false_alarm_rate / len(settings.checks)
