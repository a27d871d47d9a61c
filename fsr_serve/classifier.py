"""The service without HTTP: encoded pictures in, predictions out."""

import asyncio
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic, perf_counter
from typing import TypeVar

import numpy as np

from fsr_serve.artifact import ModelVersion
from fsr_serve.batcher import Batcher, BatchLimits
from fsr_serve.checks.checker import Checker, Results
from fsr_serve.decoders import Decoders
from fsr_serve.errors import ArtifactError, RequestError, without_frames
from fsr_serve.metrics import Metrics, Stages
from fsr_serve.preprocessing import Images, PixelBudget, Pixels, decode, decode_if_quick
from fsr_serve.ranking import likeliest
from fsr_serve.requester import Requester
from fsr_serve.schemas import ClassProbability, Engine, ModelIdentity, Prediction
from fsr_serve.session import Floats, Session
from fsr_serve.settings import Settings

logger = logging.getLogger("fsr_serve")

CANARY_SECONDS = 1.0

CANARY_TOLERANCE = 0.05
"""Other batch sizes round differently, bf16 most of all; a broken device is off by more."""


Decoded = TypeVar("Decoded")
Parsed = TypeVar("Parsed")


class Classifier:
    """One verified model version and the session that runs it."""

    def __init__(
        self,
        version: ModelVersion,
        session: Session,
        settings: Settings,
        metrics: Metrics,
        checker: Checker | None = None,
    ) -> None:
        self.version = version
        self.identity: ModelIdentity = {
            "name": version.name,
            "version": version.version,
            "sha256": version.sha256,
        }
        self._session = session
        self._checker = checker
        self._settings = settings
        self._metrics = metrics
        self._ladder = ladder(settings.max_batch_images)
        limits = BatchLimits(
            settings.max_batch_images, settings.max_queue_images, self._ladder if session.device == "cuda" else ()
        )
        self.batcher = Batcher(session, limits, metrics)
        self._checked_at = -math.inf
        self._problem: str | None = None
        self._decoders = Decoders(settings.cores)
        self._parsers = Decoders(settings.cores)

    @property
    def engine(self) -> Engine:
        session = self._session
        return {"runtime": session.runtime, "device": session.device, "precision": session.precision}

    @property
    def classes(self) -> tuple[str, ...]:
        return self.version.manifest.classes

    def warm(self) -> None:
        """Run and time the session at batch sizes up to the greatest, before the first request.

        Raises ArtifactError when its logits are not (n, classes) and finite.
        """
        size = self.version.manifest.preprocessing
        for count in self._ladder:
            images = np.zeros((count, 3, size.height, size.width), np.float32)
            try:
                self._session.logits(images)  # the first of a size pays for setting it up
                started = perf_counter()
                logits = self._session.logits(images)
                self.batcher.batch_time.observe(count, perf_counter() - started)
            except Exception as error:  # onnxruntime raises its own kinds, none of them public
                raise ArtifactError(f"{self.version.path} cannot run a warm-up batch: {error}") from error
            if logits.shape != (count, len(self.classes)) or not np.isfinite(logits).all():
                raise ArtifactError(
                    f"{self.version.path} answers a warm-up batch with logits of shape {logits.shape}; expected finite "
                    f"ones of shape {(count, len(self.classes))}"
                )
            self._canary = images[:1], logits[:1]
        if self._checker is not None:
            self._checker.warm(size.height, size.width)

    async def check(self) -> None:
        """Run one known image among the others. Raises RequestError 503 when the session stalls, fails or errs.

        A server that is merely busy is ready. What was found holds for CANARY_SECONDS.
        """
        now = monotonic()
        if now - self._checked_at >= CANARY_SECONDS:
            self._checked_at = now
            self._problem = await self._find_problem()
        if self._problem is not None:
            raise RequestError(503, "not_ready", self._problem)

    async def _find_problem(self) -> str | None:
        if (seconds := self.batcher.running_seconds) > self._settings.request_timeout_ms / 1000:
            return f"one batch has been running for {seconds:.0f} seconds"
        image, expected = self._canary
        deadline = asyncio.get_running_loop().time() + CANARY_SECONDS
        try:
            self.batcher.admit(1, deadline)
            found, *_ = await self.batcher.submit(image, deadline)
        except RequestError:
            return None
        except Exception:
            logger.exception("the canary failed")
            return "the session fails; the log has the details"
        if not np.allclose(found, expected, rtol=CANARY_TOLERANCE, atol=CANARY_TOLERANCE * np.abs(expected).max()):
            return "the session's answers have changed since the start"
        return None

    async def parse(self, parse: Callable[[bytes], Parsed], body: bytes, deadline: float) -> Parsed:
        """What `parse` makes of a body, in a thread: the loop serves others meanwhile.

        Raises RequestError when not even one image would be admitted, having parsed nothing, and when the deadline
        passes.
        """
        async with self.batcher.arriving(1, deadline):
            (parsed,) = await self._parsers.run(parse, [body])
            return parsed

    async def classify(
        self,
        encoded: Sequence[bytes | RequestError],
        top_k: int,
        stages: Stages,
        deadline: float,
        requester: Requester,
        with_evidence: bool = False,
    ) -> list[Prediction | RequestError]:
        """One result per image, in order; an image that cannot be read becomes the error that says why.

        `deadline` is a time of the running loop. Raises RequestError when the request as a whole is not admitted or
        not done in time, and for evidence without checks.
        """
        with self._room_for_evidence(len(encoded) if with_evidence else 0, deadline):
            decoded = await self.decode(encoded, stages, deadline)
            pixels = [image for image in decoded if not isinstance(image, RequestError)]
            if not pixels:
                return [image for image in decoded if isinstance(image, RequestError)]
            images = pixels[0][np.newaxis] if len(pixels) == 1 else np.stack(pixels)
            remembered = await self._remember(images, stages, deadline, requester)
            logits = await self._logits(images, stages, deadline)
            found = self._predictions(logits, top_k)
            if self._checker is not None and with_evidence:
                with stages.time("checks"):
                    evidence = await self._checker.check(images, remembered, deadline, requester)
                for prediction, one in zip(found, evidence, strict=True):
                    prediction["evidence"] = one
            elif self._checker is not None:
                self._checker.watch(images, deadline, requester)
        predictions = iter(found)
        return [image if isinstance(image, RequestError) else next(predictions) for image in decoded]

    @contextmanager
    def _room_for_evidence(self, count: int, deadline: float) -> Iterator[None]:
        """Kept from the start, so that no work goes into images that the checks have no time for."""
        if not count:
            yield
        elif self._checker is None:
            raise RequestError(
                400, "no_checks", "evidence is true but this server runs no checks; FSR_CHECKS names them"
            )
        else:
            with self._checker.room(count, deadline):
                yield

    async def decode(
        self, encoded: Sequence[bytes | RequestError], stages: Stages, deadline: float
    ) -> list[Pixels | RequestError]:
        """Pixels (3, h, w) of each image, or the error that says why there are none.

        Raises RequestError when they would not be admitted to the queue, having decoded nothing, and when the deadline
        passes.
        """
        count = len(encoded)
        budget = PixelBudget(self._settings.max_image_pixels, self._settings.max_request_pixels)
        self.batcher.admit(count, deadline)
        with stages.time("decode"):
            if count == 1 and (found := self._decode(encoded[0], budget, decode_if_quick)) is not None:
                return [found]
            async with self.batcher.arriving(count, deadline, self._decoders.predict(encoded)):
                return await self._decoders.run(lambda image: self._decode(image, budget, decode), encoded)

    async def logits(self, images: Images, stages: Stages, deadline: float, requester: Requester) -> Floats:
        """Logits (n, classes) of images (n, 3, h, w) that were admitted, which the checks see without being asked."""
        await self._remember(images, stages, deadline, requester)
        logits = await self._logits(images, stages, deadline)
        if self._checker is not None:
            self._checker.watch(images, deadline, requester)
        return logits

    async def _remember(self, images: Images, stages: Stages, deadline: float, requester: Requester) -> list[Results]:
        """What the history says of images that were admitted, which are part of it from now on."""
        if self._checker is None or not self._checker.has_history:
            return [{} for _ in images]
        async with self.batcher.admitted(len(images), deadline):
            with stages.time("history"):
                return await self._checker.remember(images, requester)

    async def _logits(self, images: Images, stages: Stages, deadline: float) -> Floats:
        """Batched with those of other requests."""
        answered = await self.batcher.submit(images, deadline)
        stages.record("queue", answered.queue_seconds)
        stages.record("inference", answered.inference_seconds)
        self._metrics.images.inc(len(images))
        return answered.logits

    def _decode(
        self, encoded: bytes | RequestError, budget: PixelBudget, decoder: Callable[..., Decoded]
    ) -> Decoded | RequestError:
        if isinstance(encoded, RequestError):
            return encoded
        try:
            return decoder(
                encoded,
                self.version.manifest.preprocessing,
                max_bytes=self._settings.max_image_bytes,
                budget=budget,
            )
        except RequestError as error:
            return without_frames(error)

    def _predictions(self, logits: Floats, top_k: int) -> list[Prediction]:
        return [self._prediction(row, top_k) for row in logits]

    def _prediction(self, logits: Floats, top_k: int) -> Prediction:
        classes = self.classes
        ranked: list[ClassProbability] = [
            {"label": classes[index], "class_index": index, "probability": probability}
            for index, probability in likeliest(logits, top_k)
        ]
        first = ranked[0]
        return {
            "label": first["label"],
            "class_index": first["class_index"],
            "probability": first["probability"],
            "top_k": ranked,
        }


def ladder(greatest: int) -> tuple[int, ...]:
    """1, 2, 4, 8, ... and `greatest`."""
    return (*(2**power for power in range((greatest - 1).bit_length())), greatest)
