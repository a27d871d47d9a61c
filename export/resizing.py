"""The server's crop and resize as the linear map it is, so that gradients can be taken back through it. No torch."""

import numpy as np
import numpy.typing as npt

from fsr_serve.artifact import Preprocessing
from fsr_serve.session import Floats


class Resizing:
    """Pictures (n, 3, height, width) -> what the network takes, as `fsr_serve.preprocessing` has it.

    Pillow's antialiased bilinear resize of the largest centred part of the wanted aspect ratio: a matrix for the rows
    and one for the columns. The server also rounds to whole numbers after each of the two, which is left out here.
    """

    def __init__(self, height: int, width: int, preprocessing: Preprocessing) -> None:
        scale = min(width / preprocessing.width, height / preprocessing.height)
        self._rows = _weights(height, preprocessing.height, scale)
        self._columns = _weights(width, preprocessing.width, scale)

    def forward(self, pictures: Floats) -> Floats:
        """(n, 3, height, width) -> (n, 3, h, w)."""
        return np.asarray(self._rows @ pictures @ self._columns.T, np.float32)

    def backward(self, gradient: Floats) -> Floats:
        """The gradient of what the network takes (n, 3, h, w) -> that of the pictures (n, 3, height, width)."""
        return np.asarray(self._rows.T @ gradient @ self._columns, np.float32)


def _weights(length: int, wanted: int, scale: float) -> npt.NDArray[np.float32]:
    """What each of `length` pixels gives to each of `wanted`, (wanted, length): triangles as wide as the scale."""
    centres = (length - wanted * scale) / 2 + (np.arange(wanted) + 0.5) * scale
    distances = np.abs(np.arange(length) + 0.5 - centres[:, None])
    triangles = np.maximum(1 - distances / max(scale, 1), 0)
    return (triangles / triangles.sum(axis=1, keepdims=True)).astype(np.float32)
