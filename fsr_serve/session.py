"""onnxruntime behind one method."""

import ctypes
import logging
import sys
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime

from fsr_serve.artifact import IMAGES, LOGITS
from fsr_serve.errors import ArtifactError, DeviceError

logger = logging.getLogger("fsr_serve")

Floats = npt.NDArray[np.float32]

_CUDA_DRIVERS = {"linux": "libcuda.so.1", "win32": "nvcuda.dll"}


class Session(Protocol):
    """float32 images (n, 3, h, w) in [0, 1] -> float32 logits (n, classes)."""

    @property
    def device(self) -> str:
        """Where it really runs: `cuda` or `cpu`."""
        ...

    def logits(self, images: Floats) -> Floats: ...


class OnnxModel:
    """A model.onnx in onnxruntime, on CUDA or on the CPU.

    Raises DeviceError when `cuda` is asked for and cannot be had, ArtifactError when the file cannot be loaded.
    """

    def __init__(self, path: Path, *, device: Literal["auto", "cpu", "cuda"], threads: int | None) -> None:
        wants_cuda = device == "cuda" or (device == "auto" and has_cuda_driver())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        providers: list[str | tuple[str, dict[str, str]]] = ["CPUExecutionProvider"]
        if wants_cuda:
            onnxruntime.preload_dlls()
            # TF32 would move logits by more than the parity that export promises
            providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": "0"}))
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=providers)
        except Exception as error:  # onnxruntime raises its own kinds, none of them public
            raise ArtifactError(f"{path} cannot be loaded by onnxruntime: {error}") from error
        self._session.disable_fallback()
        self.device = "cuda" if "CUDAExecutionProvider" in self._session.get_providers() else "cpu"
        if self.device == "cpu" and device == "cuda":
            raise DeviceError(
                "FSR_DEVICE is 'cuda' but onnxruntime could not start CUDA and would run on the CPU. "
                "Install the cuda extra, or set FSR_DEVICE=cpu"
            )
        if self.device == "cpu" and wants_cuda:
            logger.warning("there is a CUDA driver but onnxruntime could not start CUDA; running on the CPU")

    def logits(self, images: Floats) -> Floats:
        (logits,) = self._session.run([LOGITS], {IMAGES: images})
        return np.asarray(logits, dtype=np.float32)


def has_cuda_driver() -> bool:
    """Whether the CUDA driver loads here and sees at least one device."""
    library = _CUDA_DRIVERS.get(sys.platform)
    if library is None:
        return False
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
