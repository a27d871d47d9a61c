"""BentoML as its documentation has it: a batchable API of PIL images, adaptive batching, metrics as they are."""

from typing import Any

import bentoml
import numpy as np
from PIL.Image import Image

from benchmarks.serving.peers.classifier import Classifier, pixels


@bentoml.service(logging={"access": {"enabled": False}}, traffic={"timeout": 120})
class Idiom:
    def __init__(self) -> None:
        self.classifier = Classifier()

    @bentoml.api(batchable=True, max_batch_size=64)
    def classify(self, images: list[Image]) -> list[dict[str, Any]]:
        return self.classifier.predictions(np.stack([pixels(image) for image in images]))
