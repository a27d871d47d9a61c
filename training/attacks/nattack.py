"""NAttack, L-infinity (Li et al., ICML 2019, arXiv 1905.00441): a search by logits alone for a good mean of noise."""

import torch
from torch import Tensor

from training.attacks.losses import lead
from training.attacks.noise import on_device
from training.attacks.pgd import Model

SAMPLES = 300
"""Noisy images per image and iteration."""
SIGMA = 0.1
"""Standard deviation of the noise, which is added to arctanh of the image."""
LEARNING_RATE = 0.008
TEST_EVERY = 10
"""Iterations between two looks at whether the mean itself is misclassified."""
LEAST_QUERIES = 1 + SAMPLES
"""A look at the mean, and the samples of one step."""
LARGEST_BATCH = 1500


@torch.no_grad()
def nattack(
    model: Model, images: Tensor, labels: Tensor, *, epsilon: float, generator: torch.Generator, queries: int = 40_000
) -> Tensor:
    """Move each image's mean towards the noise that lowers its margin, in at most `queries` model calls per image.

    Images are (n, 3, h, w) in [0, 1], labels (n,); `generator` lives on the CPU. Samples, noise and rate are those of
    the authors' scripts against LID, SAP and thermometer codes. An image leaves once its mean is misclassified.
    """
    lower, upper = (images - epsilon).clamp(min=0), (images + epsilon).clamp(max=1)
    centre = torch.arctanh((2 * images - 1) * (1 - 1e-6))  # finite at black and white
    mean = torch.zeros_like(images)
    noise_generator = on_device(generator, images.device)

    def image_at(point: Tensor, chosen: Tensor) -> Tensor:
        """The images of points (samples, m, 3, h, w) in the space of arctanh, clipped to epsilon."""
        return torch.clamp((1 + torch.tanh(centre[chosen] + point)) / 2, lower[chosen], upper[chosen])

    def towards_mistakes(chosen: Tensor) -> Tensor:
        """The step of the means of the chosen images (m,), of shape (m, 3, h, w)."""
        shape = (SAMPLES, *mean[chosen].shape)
        noise = torch.randn(shape, generator=noise_generator, device=images.device, dtype=images.dtype)
        logits = model(image_at(mean[chosen] + SIGMA * noise, chosen).flatten(0, 1))
        rewards = -0.5 * lead(logits, labels[chosen].repeat(SAMPLES)).clamp(min=0).view(SAMPLES, -1)
        advantages = (rewards - rewards.mean(dim=0)) / (rewards.std(dim=0, correction=0) + 1e-7)
        return LEARNING_RATE / (SAMPLES * SIGMA) * torch.einsum("sm,smchw->mchw", advantages, noise)

    active = torch.arange(len(images), device=images.device)
    asked = 0
    iteration = 0
    while len(active) and asked < queries:
        if iteration % TEST_EVERY == 0:
            asked += 1
            kept = [
                part[model(image_at(mean[part], part)).argmax(dim=1) == labels[part]]
                for part in active.split(LARGEST_BATCH)
            ]
            active = torch.cat(kept)
        if asked + SAMPLES > queries:
            break
        asked += SAMPLES
        for part in active.split(LARGEST_BATCH // SAMPLES):
            mean[part] += towards_mistakes(part)
        iteration += 1
    return image_at(mean, torch.arange(len(images), device=images.device))
