"""The device that trains, and the number format it trains fastest in."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Device:
    """A torch device and its autocast format: float32 means no autocast."""

    torch_device: torch.device
    dtype: torch.dtype

    def autocast(self) -> AbstractContextManager[None]:
        """Context in which networks run in this device's format."""
        return torch.autocast(self.torch_device.type, dtype=torch.bfloat16, enabled=self.dtype is torch.bfloat16)

    def place_images(self, images: Tensor) -> Tensor:
        return images.to(self.torch_device, memory_format=torch.channels_last)

    def place_model(self, model: nn.Module) -> None:
        model.to(self.torch_device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def pick_device() -> Device:
    """CUDA where there is one, else the CPU; bfloat16 only where the hardware multiplies it natively."""
    if torch.cuda.is_available():
        torch.backends.cudnn.allow_tf32 = False  # float32 is to mean float32 when accuracies are measured
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return Device(torch.device("cuda"), torch.bfloat16 if has_bfloat16 else torch.float32)
    has_bfloat16 = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return Device(torch.device("cpu"), torch.bfloat16 if has_bfloat16 else torch.float32)
