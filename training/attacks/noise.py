"""Much noise on the device that uses it."""

import torch


def on_device(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """A generator seeded by the CPU's one: a CPU draws noise more slowly than a GPU classifies it."""
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
