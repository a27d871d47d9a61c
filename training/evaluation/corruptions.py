"""Common corruptions of images, with the constants of CIFAR-10-C (Hendrycks and Dietterich, ICLR 2019, 1903.12261).

Each takes pixels uint8 (h, w, 3), a severity from 1 to 5 and a generator, and returns pixels alike, truncated to whole
numbers as there. The constants are meant for 32x32 pixels and are used for every size. Of the 15 kinds these are 6, and
the Gaussian blur is one of the 4 extra ones: a handful that needs no more than numpy, scipy and Pillow.
"""

import io
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter

Pixels = npt.NDArray[np.uint8]
Corrupt = Callable[[Pixels, int, np.random.Generator], Pixels]

SEVERITIES = (1, 2, 3, 4, 5)
DEVIATIONS = (0.04, 0.06, 0.08, 0.09, 0.10)
PHOTONS = (500, 250, 100, 75, 50)
"""That a pixel of full brightness catches on average: the fewer, the noisier."""
SIGMAS = (0.4, 0.6, 0.7, 0.8, 1.0)
ADDED = (0.05, 0.1, 0.15, 0.2, 0.3)
KEPT = (0.75, 0.5, 0.4, 0.3, 0.15)
SIDES = (0.95, 0.9, 0.85, 0.75, 0.65)
QUALITIES = (80, 65, 58, 50, 40)


def gaussian_noise(pixels: Pixels, severity: int, random: np.random.Generator) -> Pixels:
    """Normal noise of 0.04 to 0.1."""
    return _pixels(_floats(pixels) + random.normal(scale=DEVIATIONS[severity - 1], size=pixels.shape))


def shot_noise(pixels: Pixels, severity: int, random: np.random.Generator) -> Pixels:
    """Poisson noise of 500 to 50 photons."""
    photons = PHOTONS[severity - 1]
    return _pixels(random.poisson(_floats(pixels) * photons) / photons)


def gaussian_blur(pixels: Pixels, severity: int, random: np.random.Generator) -> Pixels:
    """A Gaussian of 0.4 to 1 pixels, the border continued."""
    sigma = SIGMAS[severity - 1]
    return _pixels(gaussian_filter(_floats(pixels), (sigma, sigma, 0), mode="nearest"))


def brightness(pixels: Pixels, severity: int, random: np.random.Generator) -> Pixels:
    """The value of HSV, the largest of the three colours, is raised by 0.05 to 0.3; hue and saturation stay."""
    floats = _floats(pixels)
    value = floats.max(axis=2, keepdims=True)
    raised = np.minimum(value + ADDED[severity - 1], 1)
    ratios = np.divide(floats, value, out=np.ones_like(floats), where=value > 0)  # black has no hue: it becomes grey
    return _pixels(ratios * raised)


def contrast(pixels: Pixels, severity: int, random: np.random.Generator) -> Pixels:
    """Distances from the mean of each colour shrink to 0.75 to 0.15 of themselves."""
    floats = _floats(pixels)
    mean = floats.mean(axis=(0, 1), keepdims=True)
    return _pixels((floats - mean) * KEPT[severity - 1] + mean)


def pixelate(pixels: Pixels, severity: int, random: np.random.Generator) -> Pixels:
    """Shrunk to 0.95 to 0.65 of the sides and enlarged again, by boxes."""
    image, share = Image.fromarray(pixels), SIDES[severity - 1]
    small = image.resize((int(image.width * share), int(image.height * share)), Image.Resampling.BOX)
    return np.asarray(small.resize(image.size, Image.Resampling.BOX))


def jpeg_compression(pixels: Pixels, severity: int, random: np.random.Generator) -> Pixels:
    """JPEG of quality 80 to 40."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITIES[severity - 1])
    return np.asarray(Image.open(file))


CorruptionName = Literal[
    "gaussian_noise", "shot_noise", "gaussian_blur", "brightness", "contrast", "pixelate", "jpeg_compression"
]
CORRUPTIONS: Mapping[CorruptionName, Corrupt] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "gaussian_blur": gaussian_blur,
    "brightness": brightness,
    "contrast": contrast,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
}


def _floats(pixels: Pixels) -> npt.NDArray[np.float64]:
    return pixels / 255.0


def _pixels(floats: npt.NDArray[np.float64]) -> Pixels:
    return (np.clip(floats, 0, 1) * 255).astype(np.uint8)
