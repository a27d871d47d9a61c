"""HopSkipJump, L-infinity (Chen et al., IEEE S&P 2020, arXiv 1904.02144): sees only which class is the likeliest."""

import math
from collections.abc import Callable
from itertools import count

import torch
from torch import Tensor

from training.attacks.noise import on_device
from training.attacks.pgd import Model

IsWrong = Callable[[Tensor, Tensor], Tensor]
"""points (s, m, 3, h, w) of the images numbered (m,) -> whether they are misclassified, (s, m)."""

TOLERANCE = 1e-5
"""To which the boundary is found, in [0, 1] pixels; the paper's, distance / d^2, is finer than float32 can tell."""
FIRST_PROBES = 100
"""Of the first estimate of the boundary's normal; the t-th takes sqrt(t) times as many, as in the paper."""
NOISE_STARTS = 20
"""Images of noise that are tried as starts before as many other images of the batch are."""
HALVINGS = 20
"""Of a jump, at most."""
LEAST_QUERIES = 2 + math.ceil(math.log2(1 / TOLERANCE)) + FIRST_PROBES + 1
"""The image, a start, the bisection between them, the first estimate and a jump."""
LARGEST_BATCH = 1500


@torch.no_grad()
def hop_skip_jump(
    model: Model, images: Tensor, labels: Tensor, *, epsilon: float, queries: int, generator: torch.Generator
) -> Tensor:
    """The nearest mistake that `queries` calls per image find, where it lies within epsilon; elsewhere the image.

    Images are (n, 3, h, w) in [0, 1], labels (n,); `generator` lives on the CPU. An image leaves at epsilon.
    """
    found = nearest_mistakes(model, images, labels, enough=epsilon, queries=queries, generator=generator)
    return torch.where(_wide(_distance(found, images) <= epsilon), found, images)


@torch.no_grad()
def nearest_mistakes(
    model: Model, images: Tensor, labels: Tensor, *, enough: float, queries: int, generator: torch.Generator
) -> Tensor:
    """Mistakes at a small L-infinity distance of the images, at any distance; the image where none is found.

    The search for an image ends where its distance is `enough`.
    """
    left = torch.full_like(labels, queries)
    noise = on_device(generator, images.device)

    def is_wrong(points: Tensor, chosen: Tensor) -> Tensor:
        """What an image can no longer pay for counts as right."""
        can_pay = left[chosen] >= len(points)
        paying = chosen[can_pay]
        left[paying] -= len(points)
        answers = torch.zeros(points.shape[:2], dtype=torch.bool, device=points.device)
        if len(paying):
            predicted = model(points[:, can_pay].flatten(0, 1)).argmax(dim=1)
            answers[:, can_pay] = predicted.view(len(points), -1) != labels[paying]
        return answers

    nearest, has_start = _starts(is_wrong, images, noise)
    chosen = torch.nonzero(has_start).squeeze(1)
    nearest[chosen] = _boundary(is_wrong, images[chosen], nearest[chosen], chosen)
    distance = _distance(nearest, images)
    for iteration in count(1):
        probes = round(FIRST_PROBES * iteration**0.5)
        chosen = torch.nonzero(has_start & (distance > max(enough, TOLERANCE)) & (left >= probes)).squeeze(1)
        if not len(chosen):
            return nearest
        normal = _normal(is_wrong, nearest[chosen], chosen, probes, noise)
        jumped = _jump(is_wrong, nearest[chosen], normal.sign(), distance[chosen] / iteration**0.5, chosen)
        landed = _boundary(is_wrong, images[chosen], jumped, chosen)
        landed_distance = _distance(landed, images[chosen])
        nearer = landed_distance < distance[chosen]
        nearest[chosen[nearer]], distance[chosen[nearer]] = landed[nearer], landed_distance[nearer]
    raise AssertionError("count never ends")


def _starts(is_wrong: IsWrong, images: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor]:
    """Any mistake for each image, or the image, and whether it is a mistake, (n,).

    Other images of the batch serve where a model takes all noise for one class.
    """
    starts = images.clone()
    has_start = is_wrong(images[None], torch.arange(len(images), device=images.device))[0]
    for attempt in range(2 * NOISE_STARTS):
        seeking = torch.nonzero(~has_start).squeeze(1)
        if not len(seeking):
            break
        if attempt < NOISE_STARTS:
            candidates = _uniform(images[seeking].shape, images, noise)
        else:
            candidates = images[torch.randint(len(images), seeking.shape, generator=noise, device=images.device)]
        found = is_wrong(candidates[None], seeking)[0]
        starts[seeking[found]] = candidates[found]
        has_start[seeking] = found
    return starts, has_start


def _boundary(is_wrong: IsWrong, images: Tensor, mistakes: Tensor, chosen: Tensor) -> Tensor:
    """The mistakes clipped to the smallest distance from the images at which they stay mistakes (bisection)."""
    right, wrong = torch.zeros_like(chosen, dtype=images.dtype), _distance(mistakes, images)
    while len(unsure := torch.nonzero(wrong - right > TOLERANCE).squeeze(1)):
        middle = (right[unsure] + wrong[unsure]) / 2
        answers = is_wrong(_clipped(mistakes[unsure], images[unsure], middle)[None], chosen[unsure])[0]
        wrong[unsure[answers]], right[unsure[~answers]] = middle[answers], middle[~answers]
    return _clipped(mistakes, images, wrong)


def _normal(is_wrong: IsWrong, points: Tensor, chosen: Tensor, probes: int, noise: torch.Generator) -> Tensor:
    """The direction in which `points` on the boundary turn to mistakes, by Monte Carlo (Eq. 9 and 16 of the paper)."""
    radius = TOLERANCE * points[0].numel()
    weighed, plain, votes = torch.zeros_like(points), torch.zeros_like(points), torch.zeros_like(points[:, 0, 0, 0])
    for part in torch.arange(probes).split(max(LARGEST_BATCH // len(points), 1)):
        directions = 2 * _uniform((len(part), *points.shape), points, noise) - 1
        directions /= directions.flatten(2).norm(dim=2)[:, :, None, None, None]
        probed = (points + radius * directions).clamp(0, 1)
        directions = (probed - points) / radius
        signs = 2 * is_wrong(probed, chosen).to(points) - 1
        weighed += torch.einsum("sm,smchw->mchw", signs, directions)
        plain += directions.sum(dim=0)
        votes += signs.sum(dim=0)
    mean = votes / probes
    return weighed - _wide(torch.where(mean.abs() == 1, 0.0, mean)) * plain


def _jump(is_wrong: IsWrong, points: Tensor, directions: Tensor, sizes: Tensor, chosen: Tensor) -> Tensor:
    """The points moved by their size, halved until they stay mistakes; those that never do stay in place."""
    jumped = points.clone()
    jumping = torch.arange(len(points), device=points.device)
    for halving in range(HALVINGS):
        moved = (points[jumping] + _wide(sizes[jumping] / 2**halving) * directions[jumping]).clamp(0, 1)
        stays_wrong = is_wrong(moved[None], chosen[jumping])[0]
        jumped[jumping[stays_wrong]] = moved[stays_wrong]
        jumping = jumping[~stays_wrong]
        if not len(jumping):
            break
    return jumped


def _uniform(shape: tuple[int, ...], like: Tensor, noise: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=noise, device=like.device, dtype=like.dtype)


def _clipped(points: Tensor, images: Tensor, distance: Tensor) -> Tensor:
    return torch.clamp(points, images - _wide(distance), images + _wide(distance))


def _distance(points: Tensor, images: Tensor) -> Tensor:
    return (points - images).abs().amax(dim=(1, 2, 3))


def _wide(values: Tensor) -> Tensor:
    """(n,) -> (n, 1, 1, 1)."""
    return values[:, None, None, None]
