"""OpenVINO behind the session's one method: the same graph file, several times faster on CPUs with AMX."""

from pathlib import Path
from typing import Literal

import numpy as np
import openvino

from fsr_serve.artifact import LOGITS
from fsr_serve.errors import ArtifactError, DeviceError
from fsr_serve.session import Floats, Precision, Runtime


class OpenVinoModel:
    """A model.onnx in OpenVINO on the CPU, multiplying in f32 or bf16.

    Raises DeviceError when the processor has no bf16, ArtifactError when the file cannot be loaded.
    """

    runtime: Runtime = "openvino"
    device: Literal["cpu", "cuda"] = "cpu"

    def __init__(self, path: Path, *, precision: Precision, threads: int | None) -> None:
        core = openvino.Core()
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise DeviceError(
                f"precision is 'bf16' but the processor ({core.get_property('CPU', 'FULL_DEVICE_NAME')}) does not "
                "multiply bf16, which takes AMX or AVX512-BF16. Choose the precision f32"
            )
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,  # left alone, OpenVINO takes bf16 where there is AMX
            **({"INFERENCE_NUM_THREADS": threads} if threads else {}),
        }
        try:
            compiled = core.compile_model(path, "CPU", options)
        except Exception as error:  # OpenVINO raises RuntimeError for everything
            raise ArtifactError(f"{path} cannot be loaded by OpenVINO: {error}") from error
        found = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if found != precision:
            raise DeviceError(f"precision is {precision!r} but OpenVINO would run {path} in {found}")
        self.precision: Precision = precision
        self._request = compiled.create_infer_request()

    def logits(self, images: Floats) -> Floats:
        outputs = self._request.infer([images], share_inputs=True)
        return np.asarray(outputs[LOGITS], dtype=np.float32)
