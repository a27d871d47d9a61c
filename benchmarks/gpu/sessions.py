"""Ways to run a graph on a GPU in onnxruntime, and the same network in torch: each a call that ends when it is done.

Every way is made for one batch of images. onnxruntime with CUDA is imported when a way is made.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fsr_serve.artifact import IMAGES, LOGITS

Images = npt.NDArray[np.float32]
Call = Callable[[], npt.NDArray[np.float32]]
"""() -> logits (n, classes) of the batch that the call was made for, in the host's memory."""


class ProviderError(RuntimeError):
    """A session that does not run where it was asked to; the message says what runs it."""


@dataclass(frozen=True)
class Way:
    """A provider of onnxruntime and its options, and whether images and logits are bound to the device's memory.

    With `enable_cuda_graph` among the options they have to be.
    """

    provider: str = "CUDAExecutionProvider"
    options: Mapping[str, str] = field(default_factory=dict)
    is_bound: bool = False


def in_onnxruntime(path: Path, way: Way, images: Images, classes: int) -> Call:
    """Raises ProviderError where another provider than that of `way` would run the graph."""
    import onnxruntime

    onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=[(way.provider, dict(way.options))])
    session.disable_fallback()
    if session.get_providers()[0] != way.provider:
        raise ProviderError(f"asked for {way.provider}; {', '.join(session.get_providers())} would run the graph")
    if not way.is_bound:
        return lambda: np.asarray(session.run([LOGITS], {IMAGES: images})[0])
    binding = session.io_binding()
    given = onnxruntime.OrtValue.ortvalue_from_numpy(images, "cuda", 0)
    found = onnxruntime.OrtValue.ortvalue_from_shape_and_type([len(images), classes], np.float32, "cuda", 0)
    binding.bind_ortvalue_input(IMAGES, given)
    binding.bind_ortvalue_output(LOGITS, found)

    def run() -> npt.NDArray[np.float32]:
        given.update_inplace(images)  # what a server has to do with every batch
        session.run_with_iobinding(binding)
        return np.asarray(found.numpy())

    return run


def in_torch(model: nn.Module, images: Images, dtype: torch.dtype) -> Call:
    """The network replayed as a CUDA graph, channels last, in `dtype`; images and logits are copied as above."""
    device = torch.device("cuda")
    network = copy.deepcopy(model).eval().to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    host = torch.from_numpy(images).pin_memory()
    given = host.to(device, memory_format=torch.channels_last)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), torch.cuda.stream(stream):
        for _ in range(3):  # cuDNN chooses its kernels before they are captured
            network(given.to(dtype))
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        found = network(given.to(dtype)).float()

    def run() -> npt.NDArray[np.float32]:
        given.copy_(host, non_blocking=True)
        graph.replay()
        return np.asarray(found.cpu())

    return run
