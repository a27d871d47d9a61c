"""What each way of adversarial training raises while it attacks and minimises while it learns.

An objective is data and two pure functions of logits (n, classes); the loop, FSR's losses and the data are the same
for all. Losses are computed in float32 whatever format the logits come in.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

ObjectiveName = Literal["natural", "at", "trades", "mart", "alp", "s2o", "gaussian"]
Start = Literal["uniform", "gaussian"]


class Target(NamedTuple):
    """What the images show: one class each, (n,), and the distribution to learn, (n, classes) or the classes again."""

    labels: Tensor
    distribution: Tensor


Inner = Callable[[Tensor, Tensor | None, Target], Tensor]
"""attacked logits, clean logits (None but for `divergences`), target -> the loss that an attack raises, (n,)."""
Outer = Callable[[Tensor, Tensor | None, Target, float], Tensor]
"""attacked logits, clean logits, target, beta -> L_cls, a scalar."""


@dataclass(frozen=True)
class Objective:
    """One way of training; the `clean` logits of `outer` are None unless it `needs_clean`."""

    outer: Outer
    images: Literal["clean", "attacked", "noisy"] = "attacked"
    """What the network is trained on."""
    inner: Inner | None = None
    start: Start = "uniform"
    """Where the attack starts: U(-epsilon, epsilon) or 0.001 N(0, 1) around the images."""
    beta: float = 0.0
    """Weight of the second term, unless the recipe has another."""
    needs_clean: bool = False
    """Whether `outer` does."""


def cross_entropy(logits: Tensor, clean: Tensor | None, target: Target, beta: float = 0.0) -> Tensor:
    """Of the logits given first, averaged over the images."""
    return F.cross_entropy(logits.float(), target.distribution)


def cross_entropies(logits: Tensor, clean: Tensor | None, target: Target) -> Tensor:
    """The same per image, (n,)."""
    return F.cross_entropy(logits.float(), target.distribution, reduction="none")


def divergences(logits: Tensor, clean: Tensor | None, target: Target | None = None) -> Tensor:
    """KL(p(x) || p(x')) per image, (n,)."""
    assert clean is not None
    attacked, natural = logits.float().log_softmax(dim=1), clean.float().log_softmax(dim=1)
    return F.kl_div(attacked, natural, log_target=True, reduction="none").sum(dim=1)


def trades(logits: Tensor, clean: Tensor | None, target: Target, beta: float) -> Tensor:
    """CE(z(x), y) + beta KL(p(x) || p(x')) (Zhang et al., ICML 2019, arXiv 1901.08573, Eq. 5)."""
    assert clean is not None
    return cross_entropy(clean, None, target) + beta * divergences(logits, clean).mean()


def mart(logits: Tensor, clean: Tensor | None, target: Target, beta: float) -> Tensor:
    """BCE(p(x'), y) + beta KL(p(x) || p(x')) (1 - p_y(x)) (Wang et al., ICLR 2020, Eq. 11), constants as published."""
    assert clean is not None
    others = logits.float().softmax(dim=1).scatter(1, target.labels[:, None], 0.0)
    margin = -torch.log(1.0001 - others.amax(dim=1))
    natural = clean.float().softmax(dim=1).gather(1, target.labels[:, None]).squeeze(1)
    boosted = cross_entropies(logits, None, target) + margin
    return (boosted + beta * divergences(logits, clean) * (1.0000001 - natural)).mean()


def logit_pairing(logits: Tensor, clean: Tensor | None, target: Target, beta: float) -> Tensor:
    """ALP: the mean of both cross-entropies + beta |z(x) - z(x')|^2 (Kannan et al., 2018, arXiv 1803.06373, Eq. 2)."""
    assert clean is not None
    both = (cross_entropy(clean, None, target) + cross_entropy(logits, None, target)) / 2
    return both + beta * (clean.float() - logits.float()).square().sum(dim=1).mean()


def second_order_statistics(logits: Tensor, clean: Tensor | None, target: Target, beta: float) -> Tensor:
    """S2O: (1 - beta) CE(z(x'), y) + beta (KL(s || p(x)) + KL(s' || p(x'))) / 2, s and s' from `decorrelated`.

    Jin et al., CVPR 2022 (arXiv 2203.06020); the weights' correlation enters through that of the logits, as in the
    published code, whose beta is 0.1.
    """
    assert clean is not None

    def term(logits: Tensor) -> Tensor:
        smoothed = decorrelated(logits.detach().float())[target.labels]
        return F.kl_div(logits.float().log_softmax(dim=1), smoothed, reduction="batchmean")

    return (1 - beta) * cross_entropy(logits, None, target) + beta * (term(clean) + term(logits)) / 2


def decorrelated(logits: Tensor, own: float = 0.2) -> Tensor:
    """Rows of label distributions (classes, classes): `own` for the class itself, the rest to what it least goes with.

    How much two classes go together is |sum over images of z_i z_j|.
    """
    exact = logits.double()  # autocast would multiply float32 in bfloat16
    together = (exact.T @ exact).abs().float()
    apart = (together.amax(dim=1, keepdim=True) - together).fill_diagonal_(0)
    shares = apart / apart.sum(dim=1, keepdim=True).clamp(min=torch.finfo(apart.dtype).tiny)
    return ((1 - own) * shares).fill_diagonal_(own)


OBJECTIVES: Mapping[ObjectiveName, Objective] = {
    "natural": Objective(cross_entropy, images="clean"),
    # Madry et al., ICLR 2018
    "at": Objective(cross_entropy, inner=cross_entropies),
    "trades": Objective(trades, inner=divergences, start="gaussian", beta=6.0, needs_clean=True),
    "mart": Objective(mart, inner=cross_entropies, start="gaussian", beta=5.0, needs_clean=True),
    "alp": Objective(logit_pairing, inner=cross_entropies, beta=0.5, needs_clean=True),
    "s2o": Objective(second_order_statistics, inner=cross_entropies, beta=0.1, needs_clean=True),
    # noise training for randomized smoothing, Cohen et al., ICML 2019
    "gaussian": Objective(cross_entropy, images="noisy"),
}
