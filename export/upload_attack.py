"""Attacks in the pixels of uploads: rounded, encoded, and decoded and resized by the server itself. No torch."""

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from export.resizing import Resizing
from fsr_serve.artifact import Preprocessing
from fsr_serve.checks.probe import AttackGraph, Labels, Step
from fsr_serve.preprocessing import PixelBudget, decode, to_floats
from fsr_serve.session import Device, Floats

Format = Literal["png", "jpeg"]


@dataclass(frozen=True)
class Upload:
    """How a picture of `shape` (height, width) gets to the network."""

    shape: tuple[int, int]
    format: Format
    quality: int
    """Of JPEG, 1 to 100."""
    preprocessing: Preprocessing

    def seen(self, pictures: Floats) -> Floats:
        """Pictures (n, 3, height, width) in [0, 1] as files of 8 bits -> what the network is shown, (n, 3, h, w)."""
        decoded = [self._decoded(self.encoded(picture)) for picture in pictures]
        return to_floats([np.stack(decoded)], len(decoded))

    def encoded(self, picture: Floats) -> bytes:
        """One picture (3, height, width) in [0, 1], rounded to 8 bits, as a file."""
        image = Image.fromarray((picture * 255).round().astype(np.uint8).transpose(1, 2, 0))
        file = io.BytesIO()
        if self.format == "png":
            image.save(file, "PNG", compress_level=0)
        else:
            image.save(file, "JPEG", quality=self.quality)
        return file.getvalue()

    def backward(self, gradient: Floats) -> Floats:
        """The gradient of what the network is shown -> that of the pictures, as if rounding and JPEG did nothing.

        That is BPDA with the identity (Athalye et al., ICML 2018); cropping and resizing are differentiated.
        """
        return self._resizing.backward(gradient)

    @cached_property
    def _resizing(self) -> Resizing:
        return Resizing(*self.shape, self.preprocessing)

    def _decoded(self, file: bytes) -> np.ndarray:
        pixels = self.shape[0] * self.shape[1]
        return decode(file, self.preprocessing, max_bytes=len(file), budget=PixelBudget(pixels, pixels))


class UploadGraph(AttackGraph):
    """An attack.onnx behind the upload: images, loss and gradients are those of the pictures that are uploaded."""

    def __init__(self, path: Path, upload: Upload, *, device: Device, threads: int | None) -> None:
        super().__init__(path, device=device, threads=threads)
        self._upload = upload

    def step(self, images: Floats, labels: Labels, loss_weights: tuple[float, float]) -> Step:
        step = super().step(self._upload.seen(images), labels, loss_weights)
        return step._replace(gradient=self._upload.backward(step.gradient))
