"""Attacks crafted on one model to fool another, unknown one: translation-invariant and diverse-input FGSM.

Both begin at the images and take `steps` steps of epsilon/4, 2/255 at the paper's epsilon, along the sign of the
cross-entropy gradient. The caller passes the model they are crafted on (the paper: a naturally trained ResNet-50), in
eval mode.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from training.attacks.pgd import Model, pgd

STEPS = 10
DIVISOR = 4


def ti_fgsm(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int = STEPS,
    kernel_size: int = 7,
) -> Tensor:
    """Steps along the smoothed input gradient, as if the image were shifted (Dong et al., CVPR 2019, arXiv 1904.02884).

    The authors' 15 x 15 kernel is for images of 299 pixels; 7 x 7 suits 32. Raises ValueError for an even size.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size is {kernel_size}; expected an odd number, which has a middle")
    kernel = gaussian_kernel(kernel_size).to(images).expand(3, 1, -1, -1)

    def smoothed_sign(gradient: Tensor) -> Tensor:
        return F.conv2d(gradient, kernel, padding="same", groups=3).sign()

    return pgd(
        model,
        images,
        labels,
        epsilon=epsilon,
        step_size=epsilon / DIVISOR,
        steps=steps,
        random_start=False,
        along=smoothed_sign,
    )


def di_fgsm(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    generator: torch.Generator,
    steps: int = STEPS,
    probability: float = 0.5,
    smallest: float = 0.9,
) -> Tensor:
    """Each gradient is taken, with `probability`, at smaller images somewhere in a black frame (Xie et al., CVPR 2019,
    arXiv 1803.06978).

    `smallest` is the least size as a share of the image's. A batch shares the draws, which come from the CPU's
    `generator`.
    """

    def diverse_model(attacked: Tensor) -> Tensor:
        if torch.rand((), generator=generator) < probability:
            attacked = shrunk(attacked, smallest, generator)
        return model(attacked)

    return pgd(
        diverse_model, images, labels, epsilon=epsilon, step_size=epsilon / DIVISOR, steps=steps, random_start=False
    )


def gaussian_kernel(size: int) -> Tensor:
    """The normal density on `size` x `size` points evenly spread over [-3, 3]^2, of sum 1."""
    density = torch.exp(-0.5 * torch.linspace(-3, 3, size) ** 2)
    kernel = torch.outer(density, density)
    return kernel / kernel.sum()


def shrunk(images: Tensor, smallest: float, generator: torch.Generator) -> Tensor:
    """The images (n, 3, h, w) at a random height in [smallest * h, h), zero-padded at random to their old shape."""
    height, width = images.shape[2:]
    inner_height = _below(min(math.ceil(smallest * height), height - 1), height, generator)
    inner_width = width * inner_height // height
    top = _below(0, height - inner_height + 1, generator)
    left = _below(0, width - inner_width + 1, generator)
    small = F.interpolate(images, (inner_height, inner_width), mode="bilinear", align_corners=False)
    return F.pad(small, (left, width - inner_width - left, top, height - inner_height - top))


def _below(first: int, end: int, generator: torch.Generator) -> int:
    """A random integer in [first, end)."""
    return int(torch.randint(first, end, (), generator=generator))
