"""The checks of one worker: beside the answers, in a thread of their own, and never more than it can do."""

import asyncio
import logging
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from fsr_serve.artifact import CHECKS_FILE, ModelVersion
from fsr_serve.checks.alarms import Alarms
from fsr_serve.checks.calibration import CHECKS, Calibration, CheckName
from fsr_serve.checks.history import QueryHistory
from fsr_serve.checks.signals import NEEDS, Heads, Observer
from fsr_serve.errors import ArtifactError, RejectedError
from fsr_serve.metrics import Metrics
from fsr_serve.preprocessing import Images, to_floats
from fsr_serve.ranking import likeliest
from fsr_serve.requester import Requester
from fsr_serve.schemas import CheckResult, ClassProbability, Evidence
from fsr_serve.session import Device

logger = logging.getLogger("fsr_serve")

AT_A_TIME = 8
"""Images between two looks at whether anybody still waits."""

Results = dict[str, CheckResult]
"""Of one image, by check."""


@dataclass(frozen=True)
class CheckLimits:
    """`false_alarm_rate`: share of clean images that may look suspicious, of all checks together.

    `share`: of the requests that ask for no evidence, those that are watched.
    """

    checks: tuple[CheckName, ...]
    false_alarm_rate: float
    share: float
    queue_images: int

    @property
    def threshold(self) -> float:
        """Of each check's p-value. Bonferroni: together the checks raise no more false alarms than one may."""
        return self.false_alarm_rate / len(self.checks)


class Checker:
    """The checks of a version. All methods but `open` and `warm` belong to the event loop.

    `history` sees every image, in a thread of its own; the others those that are asked about or watched.
    """

    def __init__(
        self,
        observer: Observer | None,
        calibration: Calibration,
        classes: tuple[str, ...],
        limits: CheckLimits,
        metrics: Metrics,
    ) -> None:
        """`observer`: the graphs; none where `history` is the only check."""
        self._observer = observer
        self._calibration = calibration
        self._classes = classes
        self._limits = limits
        self._metrics = metrics
        self._history = QueryHistory(calibration.reach) if "history" in limits.checks else None
        self._of_graphs: list[CheckName] = [name for name in limits.checks if name != "history"]
        self._queued = 0
        self._thread = ThreadPoolExecutor(1, "checks")
        self._history_thread = ThreadPoolExecutor(1, "history")
        self._alarms = Alarms()
        self._unasked: set[asyncio.Task[None]] = set()

    @classmethod
    def open(
        cls, version: ModelVersion, limits: CheckLimits, metrics: Metrics, *, device: Device, threads: int | None
    ) -> "Checker":
        """Raises ArtifactError for a version that was not calibrated for these checks, or on too few images."""
        if CHECKS_FILE not in version.manifest.files:
            raise ArtifactError(
                f"FSR_CHECKS is {','.join(limits.checks)} but {version.path} was never calibrated for checks. "
                f"Do it with: python -m export.checks {version.path} --data ..."
            )
        calibration = Calibration.read(version.path / CHECKS_FILE)
        if missing := [name for name in limits.checks if name not in calibration.checks]:
            raise ArtifactError(
                f"FSR_CHECKS names {', '.join(missing)}, for which {version.path} has no graph or no calibration; "
                f"expected some of {', '.join(calibration.checks)}"
            )
        if limits.threshold < calibration.least_p_value:
            raise ArtifactError(
                f"FSR_FALSE_ALARM_RATE is {limits.false_alarm_rate:g} for {len(limits.checks)} checks, at which none "
                f"could ever find anything: {version.path} was calibrated on {calibration.n} images. Expected at least "
                f"{calibration.least_rate(len(limits.checks)):g}, fewer checks, or a calibration on more images"
            )
        signals = {signal for name in limits.checks for signal in CHECKS[name]} & NEEDS.keys()
        observer = Observer(version, signals, device=device, threads=threads) if signals else None
        return cls(observer, calibration, version.manifest.classes, limits, metrics)

    def warm(self, height: int, width: int) -> None:
        """Run the graphs once, before the first request. Raises ArtifactError when they cannot run."""
        if self._observer is None:
            return
        try:
            self._observer.observe(np.zeros((1, 3, height, width), np.float32))
        except Exception as error:  # onnxruntime raises its own kinds, none of them public
            raise ArtifactError(f"the graphs of the checks cannot run: {error}") from error

    @contextmanager
    def room(self, count: int) -> Iterator[None]:
        """Keep room for `count` images among those that wait to be checked. Raises RejectedError 429 `checks_busy`."""
        if self._queued + count > self._limits.queue_images:
            raise RejectedError(
                429,
                "checks_busy",
                f"{self._queued} images wait to be checked; at most {self._limits.queue_images} may, with these "
                f"{count}. Come back later, or ask without evidence",
                retry_after_seconds=1,
            )
        self._queued += count
        try:
            yield
        finally:
            self._queued -= count

    async def remember(self, images: Images, requester: Requester) -> list[Results]:
        """What the history says of each of the images (n, 3, h, w), which are part of it from now on."""
        if self._history is None:
            return [{} for _ in images]
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
        found = await self._check_in_thread(images, deadline, requester)
        for evidence, results in zip(found, remembered, strict=True):
            evidence["checks"] |= results
            evidence["is_suspicious"] = any(result["is_suspicious"] for result in evidence["checks"].values())
        return found

    def watch(self, images: Images, deadline: float, requester: Requester) -> None:
        """Check a share of what nobody asked about, for the metrics alone; nothing while too many wait."""
        if self._observer is None or random.getrandbits(32) >= self._limits.share * 2**32:
            return
        task = asyncio.get_running_loop().create_task(self._watch(images, deadline, requester))
        self._unasked.add(task)
        task.add_done_callback(self._unasked.discard)

    async def _watch(self, images: Images, deadline: float, requester: Requester) -> None:
        try:
            with self.room(len(images)):
                await self._check_in_thread(images, deadline, requester)
        except RejectedError:
            self._metrics.unchecked.inc(len(images))
        except Exception:  # the answer was given long ago
            logger.exception("the checks failed")
            self._metrics.unchecked.inc(len(images))

    async def _check_in_thread(self, images: Images, deadline: float, requester: Requester) -> list[Evidence]:
        given_up = threading.Event()
        try:
            async with asyncio.timeout_at(deadline):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._thread, self._check, images, requester, given_up.is_set)
        except TimeoutError as error:
            message = "the deadline passed before the images were checked"
            raise RejectedError(504, "deadline_exceeded", message) from error
        finally:
            given_up.set()

    def _check(self, images: Images, requester: Requester, is_given_up: Callable[[], bool]) -> list[Evidence]:
        found: list[Evidence] = []
        for first in range(0, len(images), AT_A_TIME):
            if is_given_up():
                break
            started = perf_counter()
            found += self._evidence(images[first : first + AT_A_TIME], requester)
            self._metrics.check_duration.observe(perf_counter() - started)
        return found

    def _evidence(self, images: Images, requester: Requester) -> list[Evidence]:
        if self._observer is None:
            return [self._of({}) for _ in images]
        observed = self._observer.observe(to_floats([images], len(images)))
        p_values = {name: self._calibration.p_values(name, observed.signals) for name in self._of_graphs}
        evidence = [self._of(results) for results in self._results(p_values, requester)]
        if observed.heads is not None:
            for index, one in enumerate(evidence):
                one["mask_mass"] = float(observed.heads.mask_mass[index])
                one["heads"] = self._heads(observed.heads, index)
        return evidence

    def _of(self, results: Results) -> Evidence:
        is_suspicious = any(result["is_suspicious"] for result in results.values())
        rate = self._limits.false_alarm_rate
        return {"is_suspicious": is_suspicious, "false_alarm_rate": rate, "checks": results}

    def _results(self, p_values: Mapping[CheckName, np.ndarray], requester: Requester) -> list[Results]:
        """The verdicts on images with these p-values (n,) of some checks."""
        threshold = self._limits.threshold
        rows: list[Results] = [{} for _ in next(iter(p_values.values()))]
        for name, values in p_values.items():
            for row, p_value in zip(rows, values.tolist(), strict=True):
                row[name] = {"p_value": p_value, "is_suspicious": p_value <= threshold}
                self._metrics.p_value(name).observe(p_value)
                self._metrics.suspicious(name).inc(p_value <= threshold)
        for row in rows:
            if suspicious := [name for name, result in row.items() if result["is_suspicious"]]:
                self._alarms.add(requester, suspicious)
        return rows

    def _heads(self, heads: Heads, index: int) -> dict[str, ClassProbability]:
        """What the auxiliary head says of each part of the features."""
        parts = {"robust": heads.robust, "nonrobust": heads.nonrobust, "recalibrated": heads.recalibrated}
        found: dict[str, ClassProbability] = {}
        for name, logits in parts.items():
            ((number, probability),) = likeliest(logits[index], 1)
            found[name] = {"label": self._classes[number], "class_index": number, "probability": probability}
        return found
