"""What every peer does with a picture: the same session and answer as this server, and nothing more.

BENCHMARK_MODEL is the folder of a model version, BENCHMARK_THREADS the threads of its session.
"""

import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

from fsr_serve.session import start_onnxruntime

TOP_K = 5


class Classifier:
    """PIL images of the model's own size -> probabilities of the likeliest classes."""

    def __init__(self) -> None:
        folder = Path(os.environ["BENCHMARK_MODEL"])
        manifest = json.loads((folder / "manifest.json").read_text())
        self.classes: list[str] = manifest["classes"]
        threads = int(os.environ["BENCHMARK_THREADS"])
        self._session = start_onnxruntime(folder / "model.onnx", device="cpu", threads=threads)

    def predictions(self, images: np.ndarray) -> list[dict]:
        """float32 (n, 3, h, w) in [0, 1] -> n answers."""
        (logits,) = self._session.run(["logits"], {"images": images})
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        order = np.argsort(-logits, axis=1, kind="stable")[:, :TOP_K]
        return [self._answer(row, indices) for row, indices in zip(probabilities, order, strict=True)]

    def _answer(self, probabilities: np.ndarray, indices: np.ndarray) -> dict:
        ranked = [
            {"label": self.classes[index], "class_index": index, "probability": float(probabilities[index])}
            for index in indices.tolist()
        ]
        return {**ranked[0], "top_k": ranked}


def pixels(image: Image.Image) -> np.ndarray:
    """float32 (3, h, w) in [0, 1]."""
    return np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1) / np.float32(255)
