"""The device that trains, and the number format it trains fastest in."""

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Device:
    """A torch device and its autocast format: float32 means no autocast."""

    torch_device: torch.device
    dtype: torch.dtype

    @property
    def is_cuda(self) -> bool:
        return self.torch_device.type == "cuda"

    def peak_memory_bytes(self) -> int:
        """The most that this process has held: on the GPU where it trains there, else resident."""
        if self.is_cuda:
            return torch.cuda.max_memory_allocated()
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return kilobytes if sys.platform == "darwin" else kilobytes * 1024

    @contextmanager
    def training(self) -> Iterator[None]:
        """Context in which float32 products that autocast leaves may be TF32, on GPUs that have it."""
        before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        try:
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before

    def has_room_for(self, size: int) -> bool:
        """Whether `size` bytes of images fit into half of the GPU's free memory; they lie in the CPU's anyway."""
        return not self.is_cuda or size < torch.cuda.mem_get_info(self.torch_device)[0] / 2

    def autocast(self) -> AbstractContextManager[None]:
        """Context in which networks run in this device's format."""
        return torch.autocast(self.torch_device.type, dtype=torch.bfloat16, enabled=self.dtype is torch.bfloat16)

    def wait(self) -> None:
        """Until it has done all that it was given."""
        if self.is_cuda:
            torch.cuda.synchronize(self.torch_device)

    def place(self, tensor: Tensor) -> Tensor:
        """The same in the device's memory; this process goes on while a GPU copies."""
        if self.is_cuda and not tensor.is_cuda:
            tensor = tensor.pin_memory()
        return tensor.to(self.torch_device, non_blocking=True)

    def place_model(self, model: nn.Module) -> None:
        model.to(self.torch_device, memory_format=self.layout(model))  # type: ignore[call-overload]

    def place_images(self, images: Tensor, model: nn.Module) -> Tensor:
        """Images (n, c, h, w) for a model that was placed here."""
        return images.to(self.torch_device, memory_format=self.layout(model))

    def layout(self, model: nn.Module) -> torch.memory_format:
        """Channels last, unless training would then write past oneDNN's buffers (seen with torch 2.13.0).

        It does on processors with AVX2 alone, in the weight gradient of a strided 1x1 convolution whose input channels
        are no multiple of 8 (`jit_1x1:avx2`): glibc aborts with "corrupted double-linked list", or nothing is seen.
        """
        if self.is_cuda or torch.backends.cpu.get_cpu_capability() != "AVX2":
            return torch.channels_last
        return torch.contiguous_format if any(map(_is_strided_and_uneven, model.modules())) else torch.channels_last


def _is_strided_and_uneven(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d):
        return False
    return module.kernel_size == (1, 1) and module.stride != (1, 1) and module.in_channels % 8 != 0


def pick_device(deterministic: bool = False) -> Device:
    """CUDA where there is one, else the CPU; bfloat16 only where the hardware multiplies it natively.

    `deterministic` makes a run with the same seed give the same losses, at some cost in speed.
    """
    if deterministic:
        torch.use_deterministic_algorithms(True)
    if torch.cuda.is_available():
        if deterministic:
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.backends.cudnn.benchmark = not deterministic
        torch.backends.cudnn.allow_tf32 = False  # float32 is to mean float32 when accuracies are measured
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        index = torch.cuda.current_device()
        return Device(torch.device("cuda", index), torch.bfloat16 if has_bfloat16 else torch.float32)
    has_bfloat16 = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return Device(torch.device("cpu"), torch.bfloat16 if has_bfloat16 else torch.float32)
