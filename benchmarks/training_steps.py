"""FSR and a step of adversarial training the paper's way, written out: what ours is compared with."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.evaluation.training_step import SIDE
from training.models import create_model
from training.recipes import RECIPES

PAPER = RECIPES["paper"]
CLASSES = 10


class FSRAsWritten(nn.Module):
    """FSR as section 3 has it: Eq. 2 with two noises and a softmax over both scores, f+, f- and f~- each made.

    At test time both u are 1/2. `heads` holds the auxiliary logits of the latest pass.
    """

    def __init__(self, fsr: nn.Module) -> None:
        super().__init__()
        self.fsr = fsr
        self.heads: tuple[Tensor, Tensor, Tensor]

    def forward(self, features: Tensor) -> Tensor:
        robust_score = torch.sigmoid(self.fsr.separation.score(features))
        uniform = [torch.rand_like(features) if self.training else torch.full_like(features, 0.5) for _ in range(2)]
        noisy = [
            torch.log(score + 1e-8) - torch.log(-torch.log(u + 1e-8) + 1e-8)
            for score, u in zip((robust_score, 1 - robust_score), uniform, strict=True)
        ]
        mask = torch.softmax(torch.stack(noisy) / self.fsr.separation.tau, dim=0)[0]
        robust, nonrobust = features * mask, features * (1 - mask)
        recalibrated = nonrobust + (1 - mask) * self.fsr.recalibration(nonrobust)
        robust_logits, nonrobust_logits, recalibrated_logits = (
            self.fsr.auxiliary(part.mean(dim=(2, 3))) for part in (robust, nonrobust, recalibrated)
        )
        self.heads = (robust_logits, nonrobust_logits, recalibrated_logits)
        return robust + recalibrated


class AsWritten:
    """A step of the paper's way: float32, NCHW, weights that require gradients throughout, every head in every pass."""

    def __init__(self, width: int, batch: int, device: torch.device) -> None:
        torch.manual_seed(0)
        network = create_model("resnet18", width=width).network
        self.fsr = FSRAsWritten(network.layer4[1])
        network.layer4[1] = self.fsr
        self.network = network.to(device)
        self.optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        self.images = torch.rand(batch, 3, SIDE, SIDE, device=device)
        self.labels = torch.randint(CLASSES, (batch,), device=device)

    def step(self) -> None:
        attacked = self._attacked()
        self.network.train()
        logits = self.network(attacked)
        mistake = logits.detach().scatter(1, self.labels[:, None], -torch.inf).argmax(dim=1)
        robust, nonrobust, recalibrated = self.fsr.heads
        separation = F.cross_entropy(robust, self.labels) + F.cross_entropy(nonrobust, mistake)  # Eq. 3
        recalibration = F.cross_entropy(recalibrated, self.labels)  # Eq. 4
        loss = F.cross_entropy(logits, self.labels) + separation + recalibration  # Eq. 5
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def _attacked(self) -> Tensor:
        epsilon, step_size = PAPER.epsilon, PAPER.step_size
        self.network.eval()
        attacked = (self.images + torch.empty_like(self.images).uniform_(-epsilon, epsilon)).clamp(0, 1)
        for _ in range(PAPER.pgd_steps):
            attacked = attacked.detach().requires_grad_()
            loss = F.cross_entropy(self.network(attacked), self.labels)
            (gradient,) = torch.autograd.grad(loss, attacked)
            moved = attacked.detach() + step_size * gradient.sign()
            attacked = moved.clamp(self.images - epsilon, self.images + epsilon).clamp(0, 1)
        return attacked.detach()
