"""The service without HTTP: encoded pictures in, predictions out."""

import threading
from collections.abc import Sequence

import numpy as np

from fsr_serve.artifact import ModelVersion
from fsr_serve.errors import ArtifactError, RequestError
from fsr_serve.metrics import Metrics, Stages
from fsr_serve.preprocessing import PixelBudget, Pixels, decode, to_floats
from fsr_serve.schemas import ClassProbability, Engine, ModelIdentity, Prediction
from fsr_serve.session import Floats, Session
from fsr_serve.settings import Settings

WARM_BATCHES = (1, 2)
"""Batch sizes run before the server is ready."""


class Classifier:
    """One verified model version and the session that runs it. Safe to call from several threads."""

    def __init__(self, version: ModelVersion, session: Session, settings: Settings, metrics: Metrics) -> None:
        self.version = version
        self.identity: ModelIdentity = {
            "name": version.name,
            "version": version.version,
            "sha256": version.sha256,
        }
        self._session = session
        self._settings = settings
        self._metrics = metrics
        self._one_at_a_time = threading.Lock()

    @property
    def engine(self) -> Engine:
        session = self._session
        return {"runtime": session.runtime, "device": session.device, "precision": session.precision}

    @property
    def classes(self) -> tuple[str, ...]:
        return self.version.manifest.classes

    def warm(self) -> None:
        """Run the session once per batch size. Raises ArtifactError when its logits are not (n, classes) and finite."""
        size = self.version.manifest.preprocessing
        for count in WARM_BATCHES:
            try:
                logits = self._logits(np.zeros((count, 3, size.height, size.width), np.float32))
            except Exception as error:  # onnxruntime raises its own kinds, none of them public
                raise ArtifactError(f"{self.version.path} cannot run a warm-up batch: {error}") from error
            if logits.shape != (count, len(self.classes)) or not np.isfinite(logits).all():
                raise ArtifactError(
                    f"{self.version.path} answers a warm-up batch with logits of shape {logits.shape}; expected finite "
                    f"ones of shape {(count, len(self.classes))}"
                )

    def classify(
        self, encoded: Sequence[bytes | RequestError], top_k: int, stages: Stages
    ) -> list[Prediction | RequestError]:
        """One result per image, in order; an image that cannot be read becomes the error that says why."""
        with stages.time("decode"):
            budget = PixelBudget(self._settings.max_image_pixels, self._settings.max_request_pixels)
            decoded = [self._decode(image, budget) for image in encoded]
        pixels = [image for image in decoded if not isinstance(image, RequestError)]
        if not pixels:
            return [image for image in decoded if isinstance(image, RequestError)]
        with stages.time("inference"):
            logits = self._logits(to_floats(pixels))
        self._metrics.images.inc(len(pixels))
        predictions = iter(self._predictions(logits, top_k))
        return [image if isinstance(image, RequestError) else next(predictions) for image in decoded]

    def _decode(self, encoded: bytes | RequestError, budget: PixelBudget) -> Pixels | RequestError:
        if isinstance(encoded, RequestError):
            return encoded
        try:
            return decode(
                encoded,
                self.version.manifest.preprocessing,
                max_bytes=self._settings.max_image_bytes,
                budget=budget,
            )
        except RequestError as error:
            return error

    def _logits(self, images: Floats) -> Floats:
        with self._one_at_a_time:  # two inferences at once would only share the same cores
            return self._session.logits(images)

    def _predictions(self, logits: Floats, top_k: int) -> list[Prediction]:
        order = np.argsort(-logits, axis=1, kind="stable")[:, :top_k]
        return [self._prediction(row[indices], indices) for row, indices in zip(softmax(logits), order, strict=True)]

    def _prediction(self, probabilities: Floats, indices: np.ndarray) -> Prediction:
        ranked: list[ClassProbability] = [
            {"label": self.classes[index], "class_index": index, "probability": probability}
            for index, probability in zip(indices.tolist(), probabilities.tolist(), strict=True)
        ]
        return {**ranked[0], "top_k": ranked}


def softmax(logits: Floats) -> Floats:
    """Probabilities (n, classes) that sum to one in each row."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Floats = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities
