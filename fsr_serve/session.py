"""The runtimes behind one method. This file has the contract and onnxruntime; OpenVINO has a file of its own."""

import ctypes
import logging
import sys
from collections.abc import Mapping
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


Runtime = Literal["onnxruntime", "openvino"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["f32", "bf16"]


class Session(Protocol):
    """float32 images (n, 3, h, w) in [0, 1] -> float32 logits (n, classes). Not for two threads at once.

    `runtime`, `device` (cuda or cpu) and `precision` say what really runs, not what was asked for.
    """

    @property
    def runtime(self) -> Runtime: ...

    @property
    def device(self) -> Literal["cpu", "cuda"]: ...

    @property
    def precision(self) -> Precision: ...

    def logits(self, images: Floats) -> Floats: ...


def open_session(path: Path, *, runtime: Runtime, device: Device, precision: Precision, threads: int | None) -> Session:
    """Load a graph file; `threads` is for one inference on the CPU, all cores when None.

    Raises DeviceError when the runtime, device or precision cannot be had here, ArtifactError when the file cannot
    be loaded. Nothing is replaced by something else in silence.
    """
    if runtime == "openvino":
        if device == "cuda":
            raise DeviceError(
                "device is 'cuda' but runtime is 'openvino', which runs on the CPU. "
                "Choose the runtime onnxruntime, or the device cpu"
            )
        return _open_vino(path, precision, threads)
    if precision != "f32":
        raise DeviceError(
            f"precision is {precision!r} but onnxruntime runs the graph as it is, in f32. "
            "Choose the runtime openvino, or the precision f32"
        )
    return OnnxModel(path, device=device, threads=threads)


def _open_vino(path: Path, precision: Precision, threads: int | None) -> Session:
    try:
        from fsr_serve.openvino_session import OpenVinoModel
    except ModuleNotFoundError as error:
        raise DeviceError(
            f"runtime is 'openvino' but {error.name} is not installed. Install it with: pip install '.[openvino]'"
        ) from error
    return OpenVinoModel(path, precision=precision, threads=threads)


class OnnxModel:
    """A model.onnx in onnxruntime, on CUDA or on the CPU. Raises as `start_onnxruntime` does."""

    runtime: Runtime = "onnxruntime"
    precision: Precision = "f32"

    def __init__(self, path: Path, *, device: Device, threads: int | None) -> None:
        self._session = start_onnxruntime(path, device=device, threads=threads)
        has_cuda = "CUDAExecutionProvider" in self._session.get_providers()
        self.device: Literal["cpu", "cuda"] = "cuda" if has_cuda else "cpu"

    def logits(self, images: Floats) -> Floats:
        (logits,) = self._session.run([LOGITS], {IMAGES: images})
        return np.asarray(logits, dtype=np.float32)


def start_onnxruntime(
    path: Path, *, device: Device, threads: int | None, config: Mapping[str, str] | None = None
) -> onnxruntime.InferenceSession:
    """A graph file in onnxruntime, on CUDA or on the CPU; `config` are its session options by name.

    Raises DeviceError when `cuda` is asked for and cannot be had, ArtifactError when the file cannot be loaded.
    """
    wants_cuda = device == "cuda" or (device == "auto" and has_cuda_driver())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    # threads that go on spinning after a run take the cores from decoding and from the other sessions
    options.add_session_config_entry("session.force_spinning_stop", "1")
    for name, value in (config or {}).items():
        options.add_session_config_entry(name, value)
    providers: list[str | tuple[str, dict[str, str]]] = ["CPUExecutionProvider"]
    if wants_cuda:
        onnxruntime.preload_dlls()
        # TF32 would move logits by more than the parity that export promises
        providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": "0"}))
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # onnxruntime raises its own kinds, none of them public
        raise ArtifactError(f"{path} cannot be loaded by onnxruntime: {error}") from error
    session.disable_fallback()
    if wants_cuda and "CUDAExecutionProvider" not in session.get_providers():
        if device == "cuda":
            raise DeviceError(
                "device is 'cuda' but onnxruntime could not start CUDA and would run on the CPU. "
                "Install the cuda extra, or choose the device cpu"
            )
        logger.warning("there is a CUDA driver but onnxruntime could not start CUDA; running on the CPU")
    return session


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
